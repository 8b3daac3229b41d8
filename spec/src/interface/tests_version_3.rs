//! Version 3: models of points.

use serde_json::{Value, json};

use super::*;

fn written() -> Value {
    json!({
        "version": 3,
        "model": "bucket",
        "step_seconds": 21600,
        "points": "x",
        "inputs": {"state": "land", "forcing": "weather", "static": "land"},
        "input": "features",
        "features": [
            {"name": "clim_cvh", "role": "static", "scale": {"mean": 0.5, "std": 2.0}},
            {"name": "met_tair", "role": "forcing"},
            {"name": "stl1", "role": "state"},
            {"name": "swvl1", "role": "state"}
        ],
        "output": "increments",
        "predicts": "increments",
        "states": [
            {"name": "swvl1", "lower": 0.0, "upper": 1.0},
            {"name": "stl1", "scale": {"mean": 0.0, "std": 3.0}}
        ],
        "coordinates": ["lat", "lon"],
        "attributes": {"swvl1": {"units": "m3 m-3"}}
    })
}

fn read(value: Value) -> Interface {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_model_of_points_is_read_and_written_again() {
    let interface = read(written());
    assert_eq!(interface.validate(), Ok(()));
    assert_eq!(serde_json::to_value(&interface).unwrap(), written());
    assert_eq!(interface.known_points(), None);
    assert!(!interface.has_noise());
    assert_eq!(interface.sources().count(), 0);
    assert_eq!(interface.predicted().collect::<Vec<_>>(), ["swvl1", "stl1"]);
    let model = interface.points.as_ref().unwrap();
    assert!(model.names(PointRole::State).eq(["stl1", "swvl1"]));
    assert_eq!(model.store(PointRole::Forcing), Some("weather"));
    // Other versions have no words for it.
    for version in [1, 2] {
        let other = Interface {
            version,
            ..interface.clone()
        };
        assert_eq!(
            other.validate(),
            Err(InvalidInterface::Points(PointProblem::Version))
        );
    }
    let none = Interface {
        points: None,
        ..interface
    };
    assert!(none.validate().is_err() && serde_json::to_value(&none).is_err());
}

#[test]
fn what_does_not_fit_together_is_refused() {
    use PointProblem as P;
    let name = |name: &str| name.to_owned();
    let cases = [
        ("/features", json!([]), P::Empty("features")),
        ("/states", json!([]), P::Empty("states")),
        (
            "/features/0/name",
            json!("met_tair"),
            P::Twice(name("met_tair")),
        ),
        ("/states/0/name", json!("stl1"), P::Twice(name("stl1"))),
        ("/coordinates/0", json!("stl1"), P::Twice(name("stl1"))),
        (
            "/states/0/name",
            json!("swvl2"),
            P::NotPredicted(name("swvl1")),
        ),
        ("/features/1/name", json!("time"), P::Name(name("time"))),
        ("/features/1/name", json!("../x"), P::Name(name("../x"))),
        ("/states/0/name", json!("x"), P::Name(name("x"))),
        ("/points", json!(""), P::Name(name(""))),
        ("/inputs/forcing", Value::Null, P::Store("forcing")),
        ("/features/1/role", json!("static"), P::Store("forcing")),
        (
            "/features/2/role",
            json!("forcing"),
            P::OtherRole(name("stl1")),
        ),
        (
            "/features/0/scale/std",
            json!(0.0),
            P::Scale(name("clim_cvh")),
        ),
        ("/states/1/scale/std", json!(-1.0), P::Scale(name("stl1"))),
        ("/states/0/upper", json!(0.0), P::Bounds(name("swvl1"))),
    ];
    for (pointer, value, problem) in cases {
        let mut changed = written();
        *changed.pointer_mut(pointer).unwrap() = value;
        let error = read(changed).validate();
        assert_eq!(error, Err(InvalidInterface::Points(problem)), "{pointer}");
    }
    let mut unseen = written();
    unseen["features"] = json!([{"name": "met_tair", "role": "forcing"}]);
    unseen["inputs"] = json!({"state": "land", "forcing": "land"});
    assert_eq!(
        read(unseen).validate(),
        Err(InvalidInterface::Points(P::NoState))
    );
    for (pointer, value) in [
        ("/inputs/state", json!("")),
        ("/input", json!("increments")),
        ("/step_seconds", json!(0)),
    ] {
        let mut changed = written();
        *changed.pointer_mut(pointer).unwrap() = value;
        assert!(read(changed).validate().is_err(), "{pointer}");
    }
    for (pointer, key) in [("", "boundary_width"), ("/states/0", "least")] {
        let mut changed = written();
        changed.pointer_mut(pointer).unwrap()[key] = json!(1);
        let read = serde_json::from_value::<Interface>(changed);
        assert!(read.is_err(), "{pointer}/{key}");
    }
}

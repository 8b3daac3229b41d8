//! Version 4: models without ONNX.

use serde_json::{Value, json};

use super::*;

fn written() -> Value {
    json!({
        "version": 4,
        "model": "aifs-ens",
        "step_seconds": 21600,
        "input_state": {
            "schema": "state/1",
            "input": "state",
            "offsets_seconds": [-21600, 0],
            "fields": [
                {"name": "2t", "dtype": "float64", "range": [150.0, 400.0]},
                {"name": "sd", "dtype": "float32", "missing": {"where": {"field": "lsm", "equals": 0.0}}},
                {"name": "lsm", "dtype": "float32", "constant": true},
            ],
            "coordinates": ["latitude", "longitude"],
        },
        "grid": {"dims": ["cell"], "shape": [40]},
        "predicted": ["2t", "sd", "tp"],
    })
}

fn read(value: Value) -> Interface {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_model_without_onnx_says_what_it_starts_from_and_what_it_predicts() {
    let interface = read(written());
    assert_eq!(interface.validate(), Ok(()));
    assert_eq!(serde_json::to_value(&interface).unwrap(), written());
    assert_eq!(interface.state.names, ["2t", "sd", "lsm"]);
    assert!(interface.predicted().eq(["2t", "sd", "tp"].iter()));
    assert_eq!(
        (interface.known_states(), interface.has_noise()),
        (1, false)
    );
    assert_eq!(interface.known_points(), Some(40));
    // Any times may be needed: how far the model looks back only its program knows.
    let mut longer = written();
    longer["input_state"]["offsets_seconds"] = json!([-86400, -43200, 0]);
    assert_eq!(read(longer).validate(), Ok(()));
    // Other versions have no words for it.
    for version in [1, 2, 3] {
        let other = Interface {
            version,
            ..interface.clone()
        };
        assert!(other.validate().is_err() && serde_json::to_value(&other).is_err());
    }
    let none = Interface {
        program: None,
        ..interface
    };
    assert_eq!(
        none.validate(),
        Err(InvalidInterface::Program(ProgramProblem::Version))
    );
    assert!(serde_json::to_value(&none).is_err());
}

#[test]
fn what_only_an_onnx_model_has_is_refused_by_name() {
    for (key, value) in [
        ("inputs", json!([])),
        ("outputs", json!([])),
        ("output", json!("next")),
        ("state", json!({"names": ["2t"]})),
        ("standardization", json!("none")),
        ("statistics_split", json!("train")),
        ("boundary_width", json!(0)),
        ("attributes", json!({})),
    ] {
        let mut changed = written();
        changed[key] = value;
        let error = serde_json::from_value::<Interface>(changed).unwrap_err();
        let expected = format!("`{key}` describes an ONNX model");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    let mut filled = written();
    filled["input_state"]["fields"][1]["missing"]["fill"] = json!(0.0);
    assert_eq!(
        read(filled).validate(),
        Err(InvalidInterface::Program(ProgramProblem::Fill("sd".into())))
    );
    for key in ["points", "unknown"] {
        let mut changed = written();
        changed[key] = json!("x");
        assert!(serde_json::from_value::<Interface>(changed).is_err());
    }
    for key in ["input_state", "grid", "predicted", "step_seconds"] {
        let mut changed = written();
        changed.as_object_mut().unwrap().remove(key);
        let error = serde_json::from_value::<Interface>(changed).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    use InvalidInterface as E;
    use ProgramProblem as P;
    let cases = [
        ("/predicted", json!([]), E::Program(P::Empty)),
        (
            "/predicted/2",
            json!("2t"),
            E::Program(P::Twice("2t".into())),
        ),
        (
            "/predicted/2",
            json!("time"),
            E::Program(P::Name("time".into())),
        ),
        (
            "/predicted/2",
            json!("cell"),
            E::Program(P::Name("cell".into())),
        ),
        (
            "/predicted/2",
            json!("../x"),
            E::Program(P::Name("../x".into())),
        ),
        ("/step_seconds", json!(0), E::StepSeconds(0)),
        (
            "/input_state/offsets_seconds",
            json!([-21600]),
            E::State(StateProblem::Offsets),
        ),
        (
            "/input_state/fields/1/missing/where/field",
            json!("2t"),
            E::State(StateProblem::NotConstant("2t".into())),
        ),
        (
            "/input_state/schema",
            json!("state/2"),
            E::State(StateProblem::Schema("state/2".into())),
        ),
    ];
    for (pointer, value, problem) in cases {
        let mut changed = written();
        *changed.pointer_mut(pointer).unwrap() = value;
        assert_eq!(read(changed).validate(), Err(problem), "{pointer}");
    }
    let mut flat = written();
    flat["grid"]["shape"] = json!([]);
    assert!(matches!(read(flat).validate(), Err(E::Grid { .. })));
}

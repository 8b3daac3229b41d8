use serde_json::{Value, json};

use super::*;

/// A model that starts from an input state of two times, as its author writes it.
fn written() -> Value {
    json!({
        "version": 2,
        "step_seconds": 21600,
        "standardization": "none",
        "input_state": {
            "schema": "state/1",
            "input": "state",
            "offsets_seconds": [-21600, 0],
            "fields": [
                {"name": "2t", "range": [150.0, 400.0]},
                {"name": "sd", "missing": {"where": {"field": "lsm", "equals": 0.0}, "fill": 0.0}},
                {"name": "lsm", "dtype": "float64", "constant": true},
            ],
            "coordinates": ["latitude", "longitude"],
        },
        "grid": {"dims": ["cell"], "shape": [40]},
        "inputs": [
            {"name": "x", "role": "state", "steps_back": [1, 0], "dims": ["time", "feature", "grid"]},
            {"name": "land", "role": "static", "features": {"names": ["lsm"]}, "dims": ["grid"]},
            {"name": "noise", "role": "noise", "generator": "normal/1", "channels": 3,
             "dims": ["batch", "grid", "feature"], "dtype": "float32"},
        ],
        "outputs": [
            {"name": "next", "role": "next_state", "dims": ["feature", "grid"], "features": ["2t", "sd"],
             "missing": {"sd": {"field": "lsm", "equals": 0.0}}},
            {"name": "rain", "role": "diagnostics", "dims": ["grid"], "features": ["tp"]},
        ],
        "attributes": {"tp": {"units": "m"}},
    })
}

fn read(value: Value) -> Interface {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_model_with_an_input_state_noise_and_diagnostics_is_read_whole() {
    let interface = read(written());
    assert_eq!(interface.validate(), Ok(()));
    assert_eq!(interface.state.names, ["2t", "sd", "lsm"]);
    assert_eq!((interface.known_states(), interface.has_noise()), (2, true));
    let shapes: Vec<Vec<u64>> = interface
        .inputs
        .iter()
        .map(|input| interface.input_shape(input))
        .collect();
    assert_eq!(shapes, [vec![2, 3, 40], vec![40], vec![1, 40, 3]]);
    let shapes: Vec<Vec<u64>> = interface
        .outputs
        .iter()
        .map(|output| interface.output_shape(output))
        .collect();
    assert_eq!(shapes, [vec![2, 40], vec![40]]);
    assert_eq!(interface.sources().count(), 0);
    let again = serde_json::to_value(&interface).unwrap();
    assert!(again.get("state").is_none());
    assert_eq!(read(again), interface);
}

#[test]
fn version_1_is_the_same_model_in_fewer_words() {
    let text = r#"{"version":1,"step_seconds":10800,"statistics_split":"train","state":{"sources":[{"datastore":"danra","variable":"state"}],"names":["t2m","u10m"]},"grid":{"dims":["x","y"],"shape":[5,4]},"boundary_width":1,"inputs":[{"name":"before","role":"state","steps_back":1},{"name":"now","role":"state","steps_back":0},{"name":"forcing","role":"forcing","features":{"sources":[{"datastore":"danra","variable":"forcing"}],"names":["sw"]},"past":1,"future":1}],"output":"next"}"#;
    let one: Interface = serde_json::from_str(text).unwrap();
    assert_eq!(one.validate(), Ok(()));
    assert_eq!(serde_json::to_string(&one).unwrap(), text);
    let mut two: Value = serde_json::from_str(text).unwrap();
    two["version"] = json!(2);
    for input in two["inputs"].as_array_mut().unwrap() {
        input["dims"] = json!(["batch", "grid", "feature"]);
        if let Some(back) = input.get("steps_back").cloned() {
            input["steps_back"] = json!([back]);
        }
    }
    two.as_object_mut().unwrap().remove("output");
    two["outputs"] =
        json!([{"name": "next", "role": "next_state", "dims": ["batch", "grid", "feature"]}]);
    let two = read(two);
    assert_eq!(Interface { version: 1, ..two }, one);
    assert_eq!(one.input_shape(&one.inputs[2]), [1, 20, 3]);
    // What version 1 cannot say is not written as if it were.
    let noisy = Interface {
        version: 1,
        ..read(written())
    };
    assert!(serde_json::to_string(&noisy).is_err());
}

#[test]
fn a_version_that_is_not_known_is_named() {
    let mut later = written();
    later["version"] = json!(5);
    let error = serde_json::from_value::<Interface>(later).unwrap_err();
    assert!(error.to_string().contains("versions 1 to 4"), "{error}");
    let mut unsaid = written();
    unsaid.as_object_mut().unwrap().remove("version");
    assert!(serde_json::from_value::<Interface>(unsaid).is_err());
    for (pointer, value) in [
        ("/inputs/2/generator", json!("mersenne")),
        ("/inputs/0/dims/0", json!("day")),
        ("/outputs/0/dtype", json!("int8")),
        ("/outputs/0/unknown", json!(1)),
        ("/input_state/fields/0/unknown", json!(1)),
    ] {
        let mut changed = written();
        match changed.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                changed.pointer_mut(parent).unwrap()[key] = value;
            }
        }
        assert!(
            serde_json::from_value::<Interface>(changed).is_err(),
            "{pointer}"
        );
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    type Check = fn(&InvalidInterface) -> bool;
    use InvalidInterface as E;
    fn dims(error: &E, expected: &DimsProblem) -> bool {
        matches!(error, E::Dims { problem, .. } if problem == expected)
    }
    let cases: [(&str, Value, Check); 25] = [
        ("/inputs/0/steps_back", json!([]), |e| {
            dims(e, &DimsProblem::StepsBack)
        }),
        ("/inputs/0/steps_back", json!([0, 0]), |e| {
            dims(e, &DimsProblem::StepsBack)
        }),
        ("/inputs/0/steps_back", json!([1]), |e| *e == E::NoLastState),
        ("/inputs/0/dims", json!(["feature", "grid"]), |e| {
            dims(e, &DimsProblem::NoTime)
        }),
        ("/inputs/0/dims", json!(["time", "grid"]), |e| {
            dims(e, &DimsProblem::NoFeature)
        }),
        ("/inputs/0/dims", json!(["time", "feature"]), |e| {
            dims(e, &DimsProblem::NoGrid)
        }),
        ("/inputs/1/dims", json!(["grid", "grid"]), |e| {
            dims(e, &DimsProblem::Twice)
        }),
        ("/inputs/2/channels", json!(0), |e| {
            dims(e, &DimsProblem::Channels)
        }),
        ("/inputs/2/dims", json!(["grid"]), |e| {
            dims(e, &DimsProblem::NoFeature)
        }),
        (
            "/outputs/0/features",
            json!(["2t", "msl"]),
            |e| matches!(e, E::NotOfState { name, .. } if name == "msl"),
        ),
        ("/outputs/1/features", json!(["2t"]), |e| {
            *e == E::PredictedTwice("2t".into())
        }),
        ("/outputs/1/features", json!([]), |e| {
            matches!(e, E::NoFeatures(_))
        }),
        ("/outputs/0/role", json!("diagnostics"), |e| {
            matches!(e, E::PredictedTwice(_))
        }),
        ("/outputs/1/name", json!("x"), |e| {
            *e == E::TensorName("x".into())
        }),
        ("/outputs/0/missing/sd/field", json!("2t"), |e| {
            *e == E::State(StateProblem::NotConstant("2t".into()))
        }),
        ("/standardization", json!("statistics"), |e| {
            *e == E::State(StateProblem::Standardized)
        }),
        ("/input_state/schema", json!("state/2"), |e| {
            *e == E::State(StateProblem::Schema("state/2".into()))
        }),
        ("/input_state/offsets_seconds", json!([0, -21600]), |e| {
            *e == E::State(StateProblem::Offsets)
        }),
        ("/input_state/offsets_seconds", json!([-86400, 0]), |e| {
            *e == E::State(StateProblem::NoOffset(1, 21600))
        }),
        ("/input_state/fields/0/range", json!([400.0, 150.0]), |e| {
            *e == E::State(StateProblem::Range("2t".into()))
        }),
        (
            "/input_state/fields/1/missing/where/field",
            json!("2t"),
            |e| *e == E::State(StateProblem::NotConstant("2t".into())),
        ),
        ("/input_state/coordinates", json!(["../x"]), |e| {
            *e == E::State(StateProblem::Name("../x".into()))
        }),
        ("/input_state/coordinates", json!(["time"]), |e| {
            *e == E::State(StateProblem::Name("time".into()))
        }),
        ("/inputs/1/features/names", json!(["2t"]), |e| {
            *e == E::State(StateProblem::NotConstant("2t".into()))
        }),
        ("/input_state", Value::Null, |e| {
            matches!(e, E::NoFeatures(_))
        }),
    ];
    for (pointer, value, expected) in cases {
        let mut changed = written();
        *changed.pointer_mut(pointer).unwrap() = value;
        let error = read(changed).validate().unwrap_err();
        assert!(expected(&error), "{pointer}: {error:?}");
    }
}

//! What a model of points reads, on small stores whose values say where they lie.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlwm_spec::interface::Interface;
use ndarray::Array;
use serde_json::{Map, json};

use super::{PointInputs, PointRequest};
use crate::prepare::PrepareError;
use crate::{Definition, Element, Values, Writer, ZarrFormat, time_attributes};

const POINTS: usize = 5;
const TIMES: usize = 11;
const HOUR: i64 = 3600;

/// `1000 * variable + 10 * time + point`.
fn value(variable: usize, time: usize, point: usize) -> f64 {
    (1000 * variable + 10 * time + point) as f64
}

/// A store with variables a, b, … over time and points in chunks of 3 times; the longitude may be
/// counted otherwise.
fn store(path: &Path, variables: &[&str], longitude: f64) {
    let mut writer = Writer::create(path, ZarrFormat::V3, Map::new()).unwrap();
    let dims = [("time", TIMES as u64), ("x", POINTS as u64)];
    let times = Array::from_iter((0..TIMES as i64).map(|time| time * HOUR));
    let definition = Definition::new("time", &dims[..1], Element::I64);
    writer
        .define(&definition.attributes(time_attributes()))
        .unwrap();
    writer.write("time", Values::I64(times.into_dyn())).unwrap();
    let lon = Array::from_iter((0..POINTS).map(|point| point as f64 + longitude));
    writer
        .define(&Definition::new("lon", &dims[1..], Element::F64))
        .unwrap();
    writer.write("lon", Values::F64(lon.into_dyn())).unwrap();
    for (number, name) in variables.iter().enumerate() {
        let definition = Definition::new(name, &dims, Element::F64).chunks(&[3, POINTS as u64]);
        writer.define(&definition).unwrap();
        let values = Array::from_shape_fn((TIMES, POINTS), |(t, x)| value(number, t, x));
        writer.write(name, Values::F64(values.into_dyn())).unwrap();
    }
    writer.finish().unwrap();
}

fn interface() -> Interface {
    serde_json::from_value(json!({
        "version": 3, "step_seconds": 2 * HOUR, "points": "x",
        "inputs": {"state": "land", "forcing": "weather", "static": "weather"},
        "input": "f", "output": "o", "predicts": "state",
        "features": [
            {"name": "rain", "role": "forcing"}, {"name": "soil", "role": "static"},
            {"name": "b", "role": "state"}, {"name": "wind", "role": "forcing"},
        ],
        "states": [{"name": "b"}, {"name": "a"}],
        "coordinates": ["lon"],
    }))
    .unwrap()
}

fn open(folder: &Path, analysis: &str, steps: u64) -> Result<PointInputs, PrepareError> {
    let interface = interface();
    let paths: BTreeMap<String, PathBuf> = ["land", "weather"]
        .into_iter()
        .map(|name| (name.to_owned(), folder.join(name)))
        .collect();
    PointInputs::open(&PointRequest {
        interface: &interface,
        model: interface.points.as_ref().unwrap(),
        paths: &paths,
        analysis_time: analysis.parse().unwrap(),
        steps,
    })
}

/// Stores of every hour, where the model has a step of two.
fn stores(folder: &Path, longitude: f64) {
    store(&folder.join("land"), &["a", "b"], 0.0);
    store(
        &folder.join("weather"),
        &["soil", "wind", "rain"],
        longitude,
    );
}

#[test]
fn times_between_those_of_the_step_are_refused_and_the_end_of_time_too() {
    let folder = tempfile::tempdir().unwrap();
    stores(folder.path(), 0.0);
    let error = open(folder.path(), "1970-01-01T01:00Z", 3).unwrap_err();
    assert!(error.to_string().contains("1970-01-01T02:00Z"), "{error}");
    let error = open(folder.path(), "1970-01-01T01:00Z", u64::MAX).unwrap_err();
    assert!(matches!(error, PrepareError::Request(_)), "{error}");
    // One step needs one time, and there is nothing between it and itself.
    let inputs = open(folder.path(), "1970-01-01T01:00Z", 1).unwrap();
    assert_eq!(inputs.points, POINTS as u64);
    let columns = |variables: [usize; 2]| -> Vec<f32> {
        let point = |x| variables.map(|variable| value(variable, 1, x) as f32);
        (0..POINTS).flat_map(point).collect()
    };
    // The states in their order, the forcing in that of the features.
    assert_eq!(inputs.state, columns([1, 0]));
    assert_eq!(inputs.forcing().next_step().unwrap(), columns([2, 1]));
    let soil: Vec<f32> = (0..POINTS).map(|x| value(0, 1, x) as f32).collect();
    assert_eq!(inputs.statics, soil);
    assert_eq!(inputs.coordinates().len(), 1);
}

#[test]
fn forcing_is_read_from_the_middle_of_one_chunk_to_the_middle_of_another() {
    let folder = tempfile::tempdir().unwrap();
    stores(folder.path(), 360.0);
    let mut interface = interface();
    interface.step_seconds = HOUR;
    let paths = ["land", "weather"].map(|name| (name.to_owned(), folder.path().join(name)));
    let inputs = PointInputs::open(&PointRequest {
        interface: &interface,
        model: interface.points.as_ref().unwrap(),
        paths: &paths.into(),
        analysis_time: "1970-01-01T02:00Z".parse().unwrap(),
        steps: 8,
    })
    .unwrap();
    let mut reader = inputs.forcing();
    for step in 0..8 {
        let point = |x| [2, 1].map(|variable| value(variable, 2 + step, x) as f32);
        let expected: Vec<f32> = (0..POINTS).flat_map(point).collect();
        assert_eq!(reader.next_step().unwrap(), expected, "{step}");
    }
}

#[test]
fn points_that_lie_elsewhere_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    stores(folder.path(), 0.01);
    let error = open(folder.path(), "1970-01-01T01:00Z", 1).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`lon` of point 0 is 0.01, not 0"),
        "{message}"
    );
    assert!(message.contains("5 points differ"), "{message}");
}

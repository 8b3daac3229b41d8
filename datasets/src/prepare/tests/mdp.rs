//! mllam-data-prep itself as the oracle, on sources that it and we read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlwm_spec::contract::TimeLayout;
use mlwm_spec::{AnalysisTime, DatastoreConfig};
use serde::Deserialize;

use super::read_config;
use crate::prepare::Datastore;
use crate::testing::python;

/// What mllam-data-prep made of a variable; its values lie beside in a file of float32.
#[derive(Deserialize)]
struct Expected {
    shape: Vec<usize>,
    double: bool,
    features: Vec<String>,
    units: Vec<String>,
    long_names: Vec<String>,
    /// Valid times, or start times of forecasts.
    #[serde(default)]
    starts: Vec<i64>,
    #[serde(default)]
    elapsed: Vec<i64>,
}

fn datastore(config: &DatastoreConfig, layout: TimeLayout, analysis: i64) -> Datastore<'_> {
    let paths = config
        .inputs
        .iter()
        .map(|(name, input)| (name.clone(), PathBuf::from(&input.path)));
    let analysis = AnalysisTime::from_unix_seconds(analysis).unwrap();
    Datastore::new("test", config, paths.collect(), layout, analysis).unwrap()
}

/// Compares all variables of a scenario; values may differ by `tolerance` relatively.
fn compare(folder: &Path, tolerance: f32) {
    let config = read_config(&folder.join("config.yaml"));
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Expected> = serde_json::from_str(&text).unwrap();
    for (name, expected) in &expected {
        let bytes = std::fs::read(folder.join(format!("{name}.f32"))).unwrap();
        let values: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        assert_eq!(values.len(), expected.shape.iter().product::<usize>());
        assert!(
            values.iter().all(|value| value.is_finite()),
            "the oracle has NaN in {name}"
        );
        let actual = match expected.elapsed.as_slice() {
            [] => {
                let datastore = datastore(&config, TimeLayout::Time, 0);
                let variable = check_names(&datastore, name, expected);
                let mut reader = variable.reader(&expected.starts);
                match expected.starts.as_slice() {
                    [] => reader.read(None).unwrap(),
                    times => times
                        .iter()
                        .flat_map(|t| reader.read(Some(*t)).unwrap())
                        .collect(),
                }
            }
            elapsed => {
                let mut all = Vec::new();
                for start in &expected.starts {
                    let datastore = datastore(&config, TimeLayout::Forecast, *start);
                    let variable = check_names(&datastore, name, expected);
                    let times: Vec<i64> = elapsed.iter().map(|e| start + e).collect();
                    let mut reader = variable.reader(&times);
                    all.extend(times.iter().flat_map(|t| reader.read(Some(*t)).unwrap()));
                }
                all
            }
        };
        assert_eq!(actual.len(), values.len());
        let scale = values
            .iter()
            .fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let largest = actual
            .iter()
            .zip(&values)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0_f32, f32::max);
        assert!(
            largest <= tolerance * scale,
            "{name} of {} differs by {largest} of {scale}",
            folder.display()
        );
    }
}

fn check_names(
    datastore: &Datastore<'_>,
    name: &str,
    expected: &Expected,
) -> crate::prepare::PreparedVariable {
    let variable = datastore.variable(name).unwrap();
    let of = |field: fn(&crate::prepare::Feature) -> &String| {
        variable
            .features()
            .map(|feature| field(feature).clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(|feature| &feature.name), expected.features);
    assert_eq!(of(|feature| &feature.units), expected.units);
    assert_eq!(of(|feature| &feature.long_name), expected.long_names);
    assert_eq!(variable.is_double(), expected.double);
    variable
}

#[test]
fn equals_mllam_data_prep_on_generated_sources() {
    let folder = tempfile::tempdir().unwrap();
    python(include_str!("oracle.py"), &[folder.path()]);
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "sources")
        .collect();
    names.sort();
    assert_eq!(names.len(), 17, "{names:?}");
    names.retain(|name| name != "lacking_levels");
    lacking_levels_are_refused(&folder.path().join("lacking_levels"));
    for name in names {
        // NumPy's float32 sine and cosine are not those of the C library.
        let tolerance = if name == "derived_float32" { 2e-7 } else { 0.0 };
        compare(&folder.path().join(name), tolerance);
    }
}

/// A later variable without a level of the first: mllam-data-prep makes that feature of NaN.
fn lacking_levels_are_refused(folder: &Path) {
    let bytes = std::fs::read(folder.join("state.f32")).unwrap();
    let is_nan = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_nan();
    assert!(bytes.chunks_exact(4).any(is_nan));
    let config = read_config(&folder.join("config.yaml"));
    let error = datastore(&config, TimeLayout::Time, 0)
        .variable("state")
        .unwrap_err();
    assert!(
        error.to_string().contains("`t` lacks levels of `u`")
            && error.to_string().contains("fill with NaN"),
        "{error}"
    );
}

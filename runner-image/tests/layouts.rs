//! Outputs of models with levels, several inputs and forecasts as inputs: what a model that
//! predicts the last known state writes must be that state as the source has it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod case;

use std::collections::BTreeMap;
use std::path::Path;

use case::floats;
use mlwm_datasets::prepare::{ForecastInputs, ForecastRequest, check};
use mlwm_datasets::{
    Dataset, Definition, Element, Statistics, Values, Writer, ZarrFormat, duration_attributes,
    time_attributes,
};
use mlwm_runner::{Feed, Forecast, Inputs, Outputs, Provenance, RunnerError, StepModel, roll_out};
use mlwm_spec::contract::{DatastoreInputPath, OutputRequest, TimeLayout};
use mlwm_spec::interface::{
    Features, Grid, InputRole, ModelInput, ModelOutput, Source, Standardization,
};
use mlwm_spec::{AnalysisTime, Interface};
use ndarray::{Array1, ArrayD, IxDyn};

const HOUR: i64 = 3600;

/// Predicts the last known state.
struct Persistence;

impl StepModel for Persistence {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
        Ok(vec![feeds[0].values.to_vec()])
    }
}

/// Different values everywhere, exact in float32 after standardization with mean 0 and std 1.
fn field(shape: &[u64], from: u64) -> Values {
    let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
    let count = shape.iter().product::<usize>() as u64;
    let values = (from..from + count).map(|v| v as f32).collect();
    Values::F32(ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap())
}

fn integers(values: impl IntoIterator<Item = i64>) -> Values {
    Values::I64(values.into_iter().collect::<Array1<i64>>().into_dyn())
}

fn doubles(values: &[f64]) -> Values {
    Values::F64(Array1::from(values.to_vec()).into_dyn())
}

/// Writes a dataset of variables with their dimensions and values.
fn dataset(path: &Path, variables: Vec<(Definition, Values)>) {
    let mut writer = Writer::create(path, ZarrFormat::V3, serde_json::Map::new()).unwrap();
    for (definition, values) in variables {
        writer.define(&definition).unwrap();
        writer.write(&definition.name, values).unwrap();
    }
    writer.finish().unwrap();
}

fn coordinate(name: &str, values: Values) -> (Definition, Values) {
    (
        Definition::new(name, &[(name, values.shape()[0] as u64)], values.element()),
        values,
    )
}

fn variable(name: &str, dims: &[(&str, u64)], from: u64) -> (Definition, Values) {
    let definition = Definition::new(name, dims, Element::F32)
        .attribute("units", format!("unit of {name}"))
        .attribute("standard_name", format!("{name}_standard"));
    let shape: Vec<u64> = dims.iter().map(|(_, length)| *length).collect();
    (definition, field(&shape, from))
}

fn times(name: &str, count: i64, start: i64) -> (Definition, Values) {
    let (definition, values) = coordinate(name, integers((0..count).map(|i| start + i * 3 * HOUR)));
    (definition.attributes(time_attributes()), values)
}

/// Statistics with mean 0 and standard deviation 1.
fn statistics(path: &Path, names: &[&str]) -> Statistics {
    let dims = [("state_feature", names.len() as u64)];
    let texts: Array1<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let constant = |value: f64| doubles(&vec![value; names.len()]);
    dataset(
        path,
        vec![
            (
                Definition::new("state_feature", &dims, Element::Text),
                Values::Text(texts.into_dyn()),
            ),
            (
                Definition::new("state__train__mean", &dims, Element::F64),
                constant(0.0),
            ),
            (
                Definition::new("state__train__std", &dims, Element::F64),
                constant(1.0),
            ),
        ],
    );
    Statistics::open(path).unwrap()
}

fn interface(datastores: &[&str], names: &[&str]) -> Interface {
    let state = InputRole::state;
    Interface {
        version: 1,
        model: None,
        step_seconds: 3 * HOUR,
        standardization: Standardization::Statistics,
        statistics_split: "train".into(),
        input_state: None,
        points: None,
        program: None,
        state: Features {
            sources: datastores
                .iter()
                .map(|datastore| Source {
                    datastore: (*datastore).into(),
                    variable: "state".into(),
                })
                .collect(),
            names: datastores
                .iter()
                .flat_map(|_| names.iter().map(|name| (*name).to_owned()))
                .collect(),
        },
        grid: Grid {
            dims: vec!["x".into(), "y".into()],
            shape: vec![3, 2],
            coordinates: vec![],
        },
        boundary_width: 0,
        inputs: vec![
            ModelInput::new("now", state(0)),
            ModelInput::new("before", state(1)),
        ],
        outputs: vec![ModelOutput::next_state("next")],
        attributes: BTreeMap::new(),
    }
}

/// Runs persistence for two steps into `out.zarr` of the folder. The datastores all have the same
/// configuration and inputs.
fn persist(
    folder: &Path,
    datastores: &[&str],
    config: &str,
    names: &[&str],
    paths: &[(&str, &str)],
    layout: TimeLayout,
    analysis: i64,
) -> Dataset {
    let interface = interface(datastores, names);
    let (mut configs, mut all_statistics, mut inputs) = (BTreeMap::new(), BTreeMap::new(), vec![]);
    for name in datastores {
        let config = mlwm_spec::yaml::parse(config, "test").unwrap();
        configs.insert((*name).to_owned(), config);
        let statistics = statistics(&folder.join(format!("{name}.stats.zarr")), names);
        all_statistics.insert((*name).to_owned(), statistics);
        inputs.extend(paths.iter().map(|(input, file)| DatastoreInputPath {
            datastore: (*name).into(),
            input: (*input).into(),
            path: folder.join(file).to_str().unwrap().into(),
        }));
    }
    let analysis_time = AnalysisTime::from_unix_seconds(analysis).unwrap();
    let request = ForecastRequest {
        interface: &interface,
        configs: &configs,
        statistics: &all_statistics,
        inputs: &inputs,
        layout,
        analysis_time,
        steps: 2,
    };
    let predicted = check(&request).unwrap().predicted;
    let inputs = Inputs::Datastores(Box::new(ForecastInputs::open(&request).unwrap()));
    let forecast = Forecast::new(&interface, inputs, None).unwrap();
    let path = folder.join("out.zarr");
    let request = OutputRequest {
        name: "out".into(),
        path: path.to_str().unwrap().into(),
        variables: None,
        zarr_format: 3,
    };
    let provenance = Provenance {
        model: None,
        artifact: None,
        task: None,
        analysis_time,
        member: 1,
        seed: None,
    };
    let mut outputs = Outputs::create(&[request], &forecast, layout, &provenance).unwrap();
    roll_out(&forecast, || Ok(vec![Persistence]), &mut outputs).unwrap();
    outputs.complete().unwrap();
    let out = Dataset::open(&path).unwrap();
    for name in &predicted {
        assert!(out.contains(name), "{name} is not written");
    }
    out
}

/// A part of a variable as float32.
fn part(dataset: &Dataset, name: &str, ranges: &[std::ops::Range<u64>]) -> Vec<f32> {
    let values = dataset.variable(name).unwrap().read_range(ranges).unwrap();
    values.into_f32().unwrap().into_iter().collect()
}

#[test]
fn levels_names_and_dimensions_are_those_of_the_sources() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let grid = || {
        [
            coordinate("x", doubles(&[0.0, 1.0, 2.0])),
            coordinate("y", doubles(&[5.0, 4.0])),
        ]
    };
    let heights = [
        times("time", 4, 0),
        coordinate("altitude", integers([10, 50, 100])),
        variable("u", &[("time", 4), ("altitude", 3), ("y", 2), ("x", 3)], 0),
        variable(
            "t",
            &[("altitude", 3), ("x", 3), ("time", 4), ("y", 2)],
            1000,
        ),
    ];
    dataset(
        &folder.join("heights.zarr"),
        heights.into_iter().chain(grid()).collect(),
    );
    let pressures = [
        times("valid", 4, 0),
        coordinate("altitude", doubles(&[7.5])),
        variable(
            "u",
            &[("y", 2), ("valid", 4), ("altitude", 1), ("x", 3)],
            2000,
        ),
        variable("ps", &[("valid", 4), ("y", 2), ("x", 3)], 3000),
    ];
    dataset(
        &folder.join("others.zarr"),
        pressures.into_iter().chain(grid()).collect(),
    );
    let config = r#"
schema_version: v0.6.0
dataset_version: v1
output: {variables: {state: [time, grid_index, state_feature]}}
inputs:
  heights:
    path: a
    dims: [time, altitude, x, y]
    variables: {u: {altitude: {values: [100, 10]}}, t: {altitude: {values: [100, 10]}}}
    dim_mapping: &mapping
      time: {method: rename, dim: time}
      grid_index: {method: stack, dims: [x, y]}
      state_feature: {method: stack_variables_by_var_name, dims: [altitude], name_format: "{var_name}{altitude}"}
    target_output_variable: state
  others:
    path: b
    dims: [valid, altitude, x, y]
    variables: [u]
    dim_mapping:
      time: {method: rename, dim: valid}
      grid_index: {method: stack, dims: [x, y]}
      state_feature: {method: stack_variables_by_var_name, dims: [altitude], name_format: "{var_name}{altitude}"}
    target_output_variable: state
  surface:
    path: b
    dims: [valid, x, y]
    variables: [ps]
    dim_mapping:
      time: {method: rename, dim: valid}
      grid_index: {method: stack, dims: [x, y]}
      state_feature: {method: stack_variables_by_var_name, name_format: "{var_name}"}
    target_output_variable: state
"#;
    let out = persist(
        folder,
        &["d"],
        config,
        &["u100", "u10", "t100", "t10", "u7.5", "ps"],
        &[
            ("heights", "heights.zarr"),
            ("others", "others.zarr"),
            ("surface", "others.zarr"),
        ],
        TimeLayout::Time,
        6 * HOUR,
    );
    let heights = Dataset::open(&folder.join("heights.zarr")).unwrap();
    let others = Dataset::open(&folder.join("others.zarr")).unwrap();
    let dims = |name: &str| out.variable(name).unwrap().dims().to_vec();
    assert_eq!(dims("heights_u"), ["time", "altitude", "y", "x"]);
    assert_eq!(dims("t"), ["altitude", "x", "time", "y"]);
    assert_eq!(dims("others_u"), ["y", "time", "others_altitude", "x"]);
    assert_eq!(dims("ps"), ["time", "y", "x"]);
    assert_eq!(out.times("time").unwrap(), [9 * HOUR, 12 * HOUR]);
    assert_eq!(out.times("analysis_time").unwrap(), [6 * HOUR]);
    assert_eq!(
        out.durations("elapsed_forecast_duration").unwrap(),
        [3 * HOUR, 6 * HOUR]
    );
    assert_eq!(out.variable("altitude").unwrap().element(), Element::I64);
    assert_eq!(floats(&out, "altitude"), [100.0, 10.0]);
    assert_eq!(floats(&out, "others_altitude"), [7.5]);
    assert_eq!(floats(&out, "y"), [5.0, 4.0]);
    let u = out.variable("heights_u").unwrap();
    assert_eq!(u.text_attribute("units"), Some("unit of u"));
    assert_eq!(u.text_attribute("standard_name"), Some("u_standard"));
    // The last known state is at position 2.
    for step in 0..2 {
        let step = step..step + 1;
        for (level, source_level) in [(0..1, 2..3), (1..2, 0..1)] {
            assert_eq!(
                part(
                    &out,
                    "heights_u",
                    &[step.clone(), level.clone(), 0..2, 0..3]
                ),
                part(&heights, "u", &[2..3, source_level.clone(), 0..2, 0..3])
            );
            assert_eq!(
                part(&out, "t", &[level, 0..3, step.clone(), 0..2]),
                part(&heights, "t", &[source_level, 0..3, 2..3, 0..2])
            );
        }
        assert_eq!(
            part(&out, "others_u", &[0..2, step.clone(), 0..1, 0..3]),
            part(&others, "u", &[0..2, 2..3, 0..1, 0..3])
        );
        assert_eq!(
            part(&out, "ps", &[step, 0..2, 0..3]),
            part(&others, "ps", &[2..3, 0..2, 0..3])
        );
    }
}

#[test]
fn forecasts_as_inputs_make_forecasts_and_are_never_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let elapsed = integers((0..4).map(|i| i * 3 * HOUR));
    let (elapsed_definition, elapsed) = coordinate("elapsed_forecast_duration", elapsed);
    let variables = vec![
        times("analysis_time", 3, 0),
        (
            elapsed_definition.attributes(duration_attributes()),
            elapsed,
        ),
        coordinate("x", doubles(&[0.0, 1.0, 2.0])),
        coordinate("y", doubles(&[5.0, 4.0])),
        variable(
            "t2m",
            &[
                ("analysis_time", 3),
                ("elapsed_forecast_duration", 4),
                ("y", 2),
                ("x", 3),
            ],
            0,
        ),
    ];
    dataset(&folder.join("forecasts.zarr"), variables);
    // Trained on analyses: the configuration has one dimension of time.
    let config = r#"
schema_version: v0.6.0
dataset_version: v1
output: {variables: {state: [time, grid_index, state_feature]}}
inputs:
  forecasts:
    path: a
    dims: [time, x, y]
    variables: [t2m]
    dim_mapping:
      time: {method: rename, dim: time}
      grid_index: {method: stack, dims: [x, y]}
      state_feature: {method: stack_variables_by_var_name, name_format: "{var_name}"}
    target_output_variable: state
"#;
    let paths = [("forecasts", "forecasts.zarr")];
    let out = persist(
        folder,
        &["d"],
        config,
        &["t2m"],
        &paths,
        TimeLayout::Forecast,
        3 * HOUR,
    );
    let source = Dataset::open(&folder.join("forecasts.zarr")).unwrap();
    assert_eq!(
        out.variable("t2m").unwrap().dims(),
        ["analysis_time", "elapsed_forecast_duration", "y", "x"]
    );
    assert_eq!(out.times("analysis_time").unwrap(), [3 * HOUR]);
    // Known states at elapsed 0 and 3 h, so the first prediction is at elapsed 6 h.
    assert_eq!(
        out.durations("elapsed_forecast_duration").unwrap(),
        [6 * HOUR, 9 * HOUR]
    );
    assert_eq!(
        out.variable("time").unwrap().dims(),
        ["analysis_time", "elapsed_forecast_duration"]
    );
    assert_eq!(out.times("time").unwrap(), [9 * HOUR, 12 * HOUR]);
    for step in 0..2 {
        assert_eq!(
            part(&out, "t2m", &[0..1, step..step + 1, 0..2, 0..3]),
            part(&source, "t2m", &[1..2, 1..2, 0..2, 0..3])
        );
    }
}

#[test]
fn datastores_with_the_same_names_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let variables = vec![
        times("time", 4, 0),
        coordinate("x", doubles(&[0.0, 1.0, 2.0])),
        coordinate("y", doubles(&[5.0, 4.0])),
        variable("t2m", &[("time", 4), ("y", 2), ("x", 3)], 0),
        variable("ps", &[("time", 4), ("y", 2), ("x", 3)], 100),
    ];
    dataset(&folder.join("surface.zarr"), variables);
    let config = r#"
schema_version: v0.6.0
dataset_version: v1
output: {variables: {state: [time, grid_index, state_feature]}}
inputs:
  st:
    path: a
    dims: [time, x, y]
    variables: [t2m, ps]
    dim_mapping:
      time: {method: rename, dim: time}
      grid_index: {method: stack, dims: [x, y]}
      state_feature: {method: stack_variables_by_var_name, name_format: "{var_name}"}
    target_output_variable: state
"#;
    let out = persist(
        folder,
        &["a", "b"],
        config,
        &["t2m", "ps"],
        &[("st", "surface.zarr")],
        TimeLayout::Time,
        6 * HOUR,
    );
    let source = Dataset::open(&folder.join("surface.zarr")).unwrap();
    for name in ["t2m", "ps"] {
        for datastore in ["a", "b"] {
            assert_eq!(
                part(&out, &format!("{datastore}_st_{name}"), &[1..2, 0..2, 0..3]),
                part(&source, name, &[2..3, 0..2, 0..3])
            );
        }
    }
}

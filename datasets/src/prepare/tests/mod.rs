//! Preparation against independent oracles: the arrays of the neural-lam case, and
//! mllam-data-prep itself run on generated sources.

mod case;
mod mdp;
mod refusals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlwm_spec::contract::DatastoreInputPath;
use mlwm_spec::interface::{
    Features, Grid, InputRole, ModelInput, ModelOutput, Source, Standardization,
};
use mlwm_spec::{AnalysisTime, DatastoreConfig, Interface};

use crate::Statistics;

/// The folder of the neural-lam case.
fn case_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam")
}

/// A datastore configuration in a file.
fn read_config(path: &Path) -> DatastoreConfig {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    mlwm_spec::yaml::parse(&text, &path.display().to_string()).unwrap()
}

fn features(variable: &str, names: &[&str]) -> Features {
    Features {
        sources: vec![Source {
            datastore: "danra".into(),
            variable: variable.into(),
        }],
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// What the case's model needs, from `onnx/graph_lam.json`.
fn case_interface() -> Interface {
    let text = std::fs::read_to_string(case_folder().join("onnx/graph_lam.json")).unwrap();
    let facts: mlwm_spec::interface::ExportFacts = serde_json::from_str(&text).unwrap();
    let list = |names: &[String]| names.to_vec();
    let named = |variable: &str, names: &[String]| Features {
        names: list(names),
        ..features(variable, &[])
    };
    let input = |name: &str, role: InputRole| ModelInput::new(name, role);
    Interface {
        version: 1,
        model: facts.model.clone(),
        step_seconds: facts.step_seconds,
        standardization: Standardization::Statistics,
        statistics_split: "train".into(),
        input_state: None,
        points: None,
        program: None,
        state: named("state", &facts.state_features),
        grid: Grid {
            dims: facts.stack_dims.clone(),
            shape: facts
                .stack_dims
                .iter()
                .map(|dim| facts.grid_shape[dim])
                .collect(),
            coordinates: vec![],
        },
        boundary_width: facts.n_boundary_points,
        inputs: vec![
            input("prev_state", InputRole::state(0)),
            input("prev_prev_state", InputRole::state(1)),
            input(
                "forcing",
                InputRole::Forcing {
                    features: named("forcing", &facts.forcing_features),
                    past: facts.num_past_forcing_steps,
                    future: facts.num_future_forcing_steps,
                    grid: None,
                },
            ),
            input(
                "static",
                InputRole::Static {
                    features: named("static", &facts.static_features),
                    grid: None,
                },
            ),
        ],
        outputs: vec![ModelOutput::next_state("new_state")],
        attributes: BTreeMap::new(),
    }
}

/// The case, ready to be asked for.
struct Case {
    interface: Interface,
    configs: BTreeMap<String, DatastoreConfig>,
    statistics: BTreeMap<String, Statistics>,
    inputs: Vec<DatastoreInputPath>,
    analysis_time: AnalysisTime,
}

impl Case {
    /// The case with its own source, or with a changed copy of it.
    fn new(source: Option<&Path>) -> Self {
        let folder = case_folder();
        let own = folder.join("source/single_levels.zarr");
        let path = source.unwrap_or(&own).to_str().unwrap().to_owned();
        let config = read_config(&folder.join("train/danra.datastore.yaml"));
        let input = |name: &String| DatastoreInputPath {
            datastore: "danra".into(),
            input: name.clone(),
            path: path.clone(),
        };
        let inputs = config.inputs.keys().map(input).collect();
        let statistics = Statistics::open(&folder.join("train/danra.datastore.zarr")).unwrap();
        Self {
            interface: case_interface(),
            configs: BTreeMap::from([("danra".to_owned(), config)]),
            statistics: BTreeMap::from([("danra".to_owned(), statistics)]),
            inputs,
            analysis_time: "2022-04-07T03:00Z".parse().unwrap(),
        }
    }

    fn request(&self, steps: u64) -> super::ForecastRequest<'_> {
        super::ForecastRequest {
            interface: &self.interface,
            configs: &self.configs,
            statistics: &self.statistics,
            inputs: &self.inputs,
            layout: mlwm_spec::contract::TimeLayout::Time,
            analysis_time: self.analysis_time,
            steps,
        }
    }
}

//! The neural-lam case as an inference artifact, and its oracle.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mlwm_datasets::prepare::{ForecastInputs, ForecastRequest};
use mlwm_datasets::{Dataset, extract_statistics};
use mlwm_runner::{
    Artifact, Feed, Forecast, Inputs, OnnxModel, RunnerError, Sink, StepModel, Task, roll_out,
};
use mlwm_spec::Interface;
use mlwm_spec::interface::{
    ExportFacts, Features, Grid, InputRole, ModelInput, ModelOutput, Source, Standardization,
};
use tempfile::TempDir;

pub fn case_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam")
}

pub fn source() -> PathBuf {
    case_folder().join("source/single_levels.zarr")
}

/// ONNX Runtime of the test environment.
pub fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let folder = home.join(".cache/mlwm/python/lib/python3.11/site-packages/onnxruntime/capi");
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let is_library = |path: &PathBuf| path.to_string_lossy().contains("libonnxruntime.so");
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(is_library)
        .expect("ONNX Runtime is installed")
}

/// A float32 array of a `.npy` file in C order.
pub fn npy(name: &str) -> Vec<f32> {
    let path = case_folder().join("oracle").join(format!("{name}.npy"));
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(
        header.contains("'<f4'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let values = bytes[10 + length..].chunks_exact(4);
    values
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

/// What the case's model needs, from the facts that its export left.
pub fn interface() -> Interface {
    let text = fs::read_to_string(case_folder().join("onnx/graph_lam.json")).unwrap();
    let facts: ExportFacts = serde_json::from_str(&text).unwrap();
    let features = |variable: &str, names: &[String]| Features {
        sources: vec![Source {
            datastore: "danra".into(),
            variable: variable.into(),
        }],
        names: names.to_vec(),
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
        state: features("state", &facts.state_features),
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
                    features: features("forcing", &facts.forcing_features),
                    past: facts.num_past_forcing_steps,
                    future: facts.num_future_forcing_steps,
                    grid: None,
                },
            ),
        ],
        outputs: vec![ModelOutput::next_state("new_state")],
        attributes: BTreeMap::new(),
    }
}

/// The case's artifact in a folder, with changes to its interface and datastore configuration.
pub struct CaseArtifact {
    pub folder: TempDir,
}

impl CaseArtifact {
    pub fn new() -> Self {
        Self::with(&interface(), |yaml| yaml)
    }

    pub fn with(interface: &Interface, config: impl Fn(String) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("configs")).unwrap();
        fs::create_dir(path.join("stats")).unwrap();
        let case = case_folder();
        fs::copy(
            case.join("onnx/graph_lam.onnx"),
            path.join("checkpoint.onnx"),
        )
        .unwrap();
        let text = serde_json::to_string(interface).unwrap();
        fs::write(path.join("interface.json"), text).unwrap();
        let text = fs::read_to_string(case.join("train/danra.datastore.yaml")).unwrap();
        fs::write(path.join("configs/danra.datastore.yaml"), config(text)).unwrap();
        let stats = path.join("stats/danra.datastore.stats.zarr");
        extract_statistics(&case.join("train/danra.datastore.zarr"), &stats).unwrap();
        fs::write(
            path.join("artifact.yaml"),
            "format_version: 1\nname: tiny-graph-lam\n",
        )
        .unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn artifact(&self) -> Artifact {
        Artifact::read(self.path()).unwrap()
    }
}

/// The environment of a task on the case, with its output at `output`.
pub fn environment(source: &Path, output: &Path) -> BTreeMap<String, String> {
    let inputs = ["danra_surface", "danra_forcing"]
        .map(|input| format!("danra.{input}={}", source.display()))
        .join(",");
    let outputs = serde_json::json!([{"name": "forecast", "path": output}]).to_string();
    [
        ("MLWM_CONTRACT", "1"),
        ("ANALYSIS_TIME", "2022-04-07T03:00Z"),
        ("FORECAST_DURATION", "PT18H"),
        ("NUM_EVAL_STEPS", "6"),
        ("TIME_DIMENSIONS", "time"),
        ("DATASTORE_INPUT_PATHS", inputs.as_str()),
        ("MLWM_MEMBER", "0"),
        ("MLWM_SEED", "42"),
        ("MLWM_TASK", "sha256:0123"),
        ("MLWM_OUTPUTS", outputs.as_str()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

pub fn task(environment: &BTreeMap<String, String>) -> Task {
    Task::read(|name| environment.get(name).cloned(), false).unwrap()
}

/// Opens the inputs of the case's task.
pub fn open<'a>(artifact: &'a Artifact, task: &Task, steps: u64) -> Forecast<'a> {
    let inputs = ForecastInputs::open(&ForecastRequest {
        interface: &artifact.interface,
        configs: &artifact.configs,
        statistics: &artifact.statistics,
        inputs: &task.inputs,
        layout: task.layout,
        analysis_time: task.analysis_time,
        steps,
    })
    .unwrap();
    let inputs = Inputs::Datastores(Box::new(inputs));
    Forecast::new(&artifact.interface, inputs, None).unwrap()
}

/// Keeps all states.
#[derive(Default)]
pub struct Kept(pub Vec<Vec<f32>>);

impl Sink for Kept {
    fn take(&mut self, step: u64, state: &[f32]) -> Result<(), RunnerError> {
        assert_eq!(step as usize, self.0.len() + 1);
        self.0.push(state.to_vec());
        Ok(())
    }
}

/// A model that does something to its inputs first.
pub struct Rewired<M> {
    pub model: M,
    pub rewire: fn(&str, &[f32]) -> Vec<f32>,
}

impl<M: StepModel> StepModel for Rewired<M> {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
        let rewired: Vec<Vec<f32>> = feeds
            .iter()
            .map(|feed| (self.rewire)(feed.name, feed.values))
            .collect();
        let feeds: Vec<Feed<'_>> = std::iter::zip(feeds, &rewired)
            .map(|(feed, values)| Feed {
                name: feed.name,
                shape: feed.shape,
                values,
            })
            .collect();
        self.model.step(&feeds)
    }
}

/// The standardized forecast of an artifact on the case's source, `[step, grid_index, feature]`.
pub fn predict(artifact: &CaseArtifact, rewire: fn(&str, &[f32]) -> Vec<f32>) -> Vec<f32> {
    let environment = environment(&source(), Path::new("unused"));
    let task = task(&environment);
    let artifact = artifact.artifact();
    let forecast = open(&artifact, &task, 6);
    let load = || {
        let models = OnnxModel::load(&library(), &artifact.model, &forecast, &task)?;
        let rewired = models.into_iter().map(|model| Rewired { model, rewire });
        Ok(rewired.collect())
    };
    let mut kept = Kept::default();
    roll_out(&forecast, load, &mut kept).unwrap();
    kept.0.concat()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    std::iter::zip(a, b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// All values of a float variable.
pub fn floats(dataset: &Dataset, name: &str) -> Vec<f32> {
    dataset
        .variable(name)
        .unwrap()
        .read()
        .unwrap()
        .into_f32()
        .unwrap()
        .into_iter()
        .collect()
}

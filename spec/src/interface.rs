//! `interface.json`: what the ONNX step model needs besides its weights.
//!
//! One step maps the states at the last times, standardized, to the standardized state one step
//! later. The interface names the inputs and outputs of the ONNX graph by role, and says where
//! each one's features come from, in which order, and how they are windowed in time.

use serde::{Deserialize, Serialize};

/// The version of the interface that this mlwm reads and writes.
pub const INTERFACE_VERSION: u32 = 1;

/// The interface of a step model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Version of this format: 1.
    pub version: u32,
    /// Name of the architecture, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Length of one step in seconds.
    pub step_seconds: i64,
    /// Split of the training data whose statistics standardize.
    #[serde(default = "default_split")]
    pub statistics_split: String,
    /// What the model predicts.
    pub state: Features,
    /// The grid of the state.
    pub grid: Grid,
    /// Points on each side of every dimension of the grid that are overwritten with the driving
    /// state after every step; 0 for none.
    #[serde(default)]
    pub boundary_width: u64,
    /// Inputs of the ONNX graph.
    pub inputs: Vec<ModelInput>,
    /// Output of the ONNX graph that is the state one step later, `[1, grid_index, feature]`.
    pub output: String,
}

fn default_split() -> String {
    "train".to_owned()
}

/// Features and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Variables of datastores, concatenated along the feature dimension in this order.
    pub sources: Vec<Source>,
    /// Names of all features, in order.
    pub names: Vec<String>,
}

/// A variable of a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Name of the datastore.
    pub datastore: String,
    /// Name of its variable: `state`, `forcing`, `static`.
    pub variable: String,
}

/// A grid, stacked into one dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Dimensions that are stacked; the first varies slowest.
    pub dims: Vec<String>,
    /// Their lengths.
    pub shape: Vec<u64>,
    /// Coordinate values of each dimension in training, where known: an input on another grid is
    /// refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coordinates: Vec<Vec<f64>>,
}

impl Grid {
    /// Number of points.
    pub fn points(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// An input of the ONNX graph, float32 `[1, grid_index, feature]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// Its name in the graph.
    pub name: String,
    /// What it is fed with.
    #[serde(flatten)]
    pub role: InputRole,
}

/// What an input of the graph is fed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum InputRole {
    /// The state, so many steps before the last known one (0 or more).
    State {
        /// 0 is the last known state.
        steps_back: u64,
    },
    /// Forcing in a window around the time that is predicted, flattened feature-major:
    /// `f0w0 f0w1 f0w2 f1w0 …`.
    Forcing {
        /// Features and where they come from.
        features: Features,
        /// Steps before the predicted time.
        past: u64,
        /// Steps after the predicted time.
        future: u64,
        /// The grid, if it is not that of the state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grid: Option<Grid>,
    },
    /// Standardized static features.
    Static {
        /// Features and where they come from.
        features: Features,
        /// The grid, if it is not that of the state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grid: Option<Grid>,
    },
}

impl Interface {
    /// Known states that a forecast starts from: `max(2, past)` for neural-lam, more if a state
    /// input looks further back.
    pub fn init_steps(&self) -> u64 {
        let needed = self.inputs.iter().map(|input| match &input.role {
            InputRole::State { steps_back } => steps_back + 1,
            InputRole::Forcing { past, .. } => *past,
            InputRole::Static { .. } => 0,
        });
        needed.max().unwrap_or(0).max(2)
    }

    /// Steps of forcing needed past the last predicted time.
    pub fn future_steps(&self) -> u64 {
        let future = self.inputs.iter().map(|input| match &input.role {
            InputRole::Forcing { future, .. } => *future,
            _ => 0,
        });
        future.max().unwrap_or(0)
    }
}

/// What an export script leaves beside the ONNX model (`graph_lam.json` and the like): a flat list
/// of facts about one datastore, accepted by `mlwm artifact build --interface` and turned into an
/// [`Interface`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportFacts {
    /// Architecture.
    #[serde(default)]
    pub model: Option<String>,
    /// Points of the grid.
    pub num_grid_nodes: u64,
    /// Stacked dimensions, slowest first.
    pub stack_dims: Vec<String>,
    /// Length of each.
    pub grid_shape: indexmap::IndexMap<String, u64>,
    /// Width of the boundary.
    pub n_boundary_points: u64,
    /// Length of a step in seconds.
    pub step_seconds: i64,
    /// Features of the state, in order.
    pub state_features: Vec<String>,
    /// Features of the forcing, in order.
    #[serde(default)]
    pub forcing_features: Vec<String>,
    /// Static features, in order.
    #[serde(default)]
    pub static_features: Vec<String>,
    /// Window of the forcing: steps before the predicted time.
    #[serde(default)]
    pub num_past_forcing_steps: u64,
    /// Window of the forcing: steps after the predicted time.
    #[serde(default)]
    pub num_future_forcing_steps: u64,
    /// State mean as exported; must equal the stored statistics.
    #[serde(default)]
    pub state_mean: Vec<f64>,
    /// State standard deviation as exported; must equal the stored statistics.
    #[serde(default)]
    pub state_std: Vec<f64>,
    /// Forcing mean as exported; must equal the stored statistics.
    #[serde(default)]
    pub forcing_mean: Vec<f64>,
    /// Forcing standard deviation as exported; must equal the stored statistics.
    #[serde(default)]
    pub forcing_std: Vec<f64>,
}

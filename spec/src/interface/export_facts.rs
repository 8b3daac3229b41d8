//! What export scripts write beside an ONNX model.

use serde::{Deserialize, Serialize};

/// What an export script leaves beside the ONNX model (`graph_lam.json` and the like): a flat list
/// of facts about one datastore, accepted by `mlwm artifact build --interface` and turned into an
/// [`Interface`](super::Interface).
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

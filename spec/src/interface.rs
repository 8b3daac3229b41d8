//! `interface.json`: what the ONNX step model needs besides its weights.
//!
//! One step maps the states at the last times to the state one step later. The interface names the
//! inputs and outputs of the ONNX graph by role, and says where each one's features come from, in
//! which order, how they are windowed in time, and how the tensor is laid out.
//!
//! Four versions of the file are read; all become an [`Interface`]. The third is of models that are run
//! for every point alone ([`PointModel`]), the fourth of those without ONNX ([`Program`]).

mod check;
mod error;
mod export_facts;
mod points;
mod program;
mod state;
mod tensor;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_version_2;
#[cfg(test)]
mod tests_version_3;
#[cfg(test)]
mod tests_version_4;
mod written;
mod written_points;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use error::{DimsProblem, GridProblem, InvalidInterface, StateProblem};
pub use export_facts::ExportFacts;
pub use points::{
    PointFeature, PointModel, PointProblem, PointRole, PointState, PointStores, Predicts, Scale,
};
pub use program::{Program, ProgramProblem};
pub use state::{FieldType, MissingInput, MissingWhere, STATE_SCHEMA, StateField, StateSchema};
pub use tensor::{Dim, ElementType, Generator, InputRole, ModelInput, ModelOutput, OutputRole};

/// The version of the interface of neural-lam step models, which mlwm writes for export facts.
pub const INTERFACE_VERSION: u32 = 1;

/// The version that can say everything of a model on a grid.
pub const GENERAL_VERSION: u32 = 2;

/// The version of models of points.
pub const POINTS_VERSION: u32 = 3;

/// The version of models without ONNX, which a program in their image runs.
pub const PROGRAM_VERSION: u32 = 4;

/// The interface of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Version of the file: 1 to 4.
    pub version: u32,
    /// Name of the architecture, for people.
    pub model: Option<String>,
    /// Length of one step in seconds.
    pub step_seconds: i64,
    /// What the values that the model sees are.
    pub standardization: Standardization,
    /// Split of the training data whose statistics standardize.
    pub statistics_split: String,
    /// The state. All its features are known at the start; those that no output predicts stay as
    /// they are in the last known state.
    pub state: Features,
    /// The input that known states are read from, if that is not a datastore.
    pub input_state: Option<StateSchema>,
    /// The model is one of points (version 3): then there are no `inputs`, one output, and the grid has
    /// one dimension without a length, since there are as many points as its stores have.
    pub points: Option<PointModel>,
    /// The model has no ONNX graph (version 4): then there are neither `inputs` nor `outputs`, and an
    /// `input_state`.
    pub program: Option<Program>,
    /// The grid of the state.
    pub grid: Grid,
    /// Points on each side of every dimension of the grid that are overwritten with the driving
    /// state after every step; 0 for none.
    pub boundary_width: u64,
    /// Inputs of the ONNX graph.
    pub inputs: Vec<ModelInput>,
    /// Outputs of the ONNX graph.
    pub outputs: Vec<ModelOutput>,
    /// Attributes of output variables, such as `units`, by variable; of those that come from a
    /// datastore the source has them.
    pub attributes: BTreeMap<String, BTreeMap<String, String>>,
}

/// What the values that a model sees and predicts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standardization {
    /// `(value - mean) / std`, with the stored statistics of the training data.
    #[default]
    Statistics,
    /// The values themselves.
    None,
}

/// Features and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Variables of datastores, concatenated along the feature dimension in this order; none if
    /// the features are fields of the input state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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

impl Interface {
    /// The variables of datastores that a forecast reads; one that is used twice comes twice.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let inputs = self.inputs.iter().filter_map(|input| input.role.features());
        inputs
            .chain([&self.state])
            .flat_map(|features| &features.sources)
    }

    /// Known states that a forecast starts from: `max(2, past)` for neural-lam, more if a state
    /// input looks further back.
    pub fn init_steps(&self) -> u64 {
        let needed = self.inputs.iter().map(|input| match &input.role {
            InputRole::Forcing { past, .. } => *past,
            _ => 0,
        });
        needed.max().unwrap_or(0).max(2).max(self.known_states())
    }

    /// Known states that the inputs of the model look at: the last one, and as many before.
    pub fn known_states(&self) -> u64 {
        let back = self.inputs.iter().map(|input| match &input.role {
            InputRole::State { steps_back, .. } => steps_back.iter().max().copied().unwrap_or(0),
            _ => 0,
        });
        back.max().unwrap_or(0).saturating_add(1)
    }

    /// Steps of forcing needed past the last predicted time.
    pub fn future_steps(&self) -> u64 {
        let future = self.inputs.iter().map(|input| match &input.role {
            InputRole::Forcing { future, .. } => *future,
            _ => 0,
        });
        future.max().unwrap_or(0)
    }

    /// Points of the grid; `None` if there are as many as the input has.
    pub fn known_points(&self) -> Option<u64> {
        match self.points {
            Some(_) => None,
            None => Some(self.grid.points()),
        }
    }

    /// Whether the model is given random numbers, so that a forecast needs a seed.
    pub fn has_noise(&self) -> bool {
        let is_noise = |input: &ModelInput| matches!(input.role, InputRole::Noise { .. });
        self.inputs.iter().any(is_noise)
    }

    /// The features of an output, in the order of its feature dimension.
    pub fn features_of<'a>(&'a self, output: &'a ModelOutput) -> &'a [String] {
        match output.features.is_empty() {
            true => &self.state.names,
            false => &output.features,
        }
    }

    /// The variables that a forecast has: what all outputs predict.
    pub fn predicted(&self) -> impl Iterator<Item = &String> {
        let outputs = self.outputs.iter();
        let of_program = self.program.iter();
        outputs
            .flat_map(|output| self.features_of(output))
            .chain(of_program.flat_map(|program| &program.predicted))
    }

    /// The shape of an input of the graph.
    pub fn input_shape(&self, input: &ModelInput) -> Vec<u64> {
        let count = |features: &Features| features.names.len() as u64;
        let own = |grid: &Option<Grid>| grid.as_ref().unwrap_or(&self.grid).points();
        let (times, features, points) = match &input.role {
            InputRole::State {
                steps_back,
                features,
            } => {
                let features = match features.is_empty() {
                    true => count(&self.state),
                    false => features.len() as u64,
                };
                (steps_back.len() as u64, features, self.grid.points())
            }
            InputRole::Forcing {
                features,
                past,
                future,
                grid,
            } => {
                let window = past.saturating_add(*future).saturating_add(1);
                (window, count(features), own(grid))
            }
            InputRole::Static { features, grid } => (1, count(features), own(grid)),
            InputRole::Noise { channels, .. } => (1, *channels, self.grid.points()),
        };
        let flattened = match input.dims.contains(&Dim::Time) {
            true => features,
            false => features.saturating_mul(times),
        };
        let length = |dim: &Dim| match dim {
            Dim::Batch => 1,
            Dim::Time => times,
            Dim::Feature => flattened,
            Dim::Grid => points,
        };
        input.dims.iter().map(length).collect()
    }

    /// The shape of an output of the graph.
    pub fn output_shape(&self, output: &ModelOutput) -> Vec<u64> {
        let length = |dim: &Dim| match dim {
            Dim::Batch | Dim::Time => 1,
            Dim::Feature => self.features_of(output).len() as u64,
            Dim::Grid => self.grid.points(),
        };
        output.dims.iter().map(length).collect()
    }
}

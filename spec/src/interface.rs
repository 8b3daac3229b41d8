//! `interface.json`: what the ONNX step model needs besides its weights.
//!
//! One step maps the states at the last times, standardized, to the standardized state one step
//! later. The interface names the inputs and outputs of the ONNX graph by role, and says where
//! each one's features come from, in which order, and how they are windowed in time.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

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
    /// The variables of datastores that a forecast reads; one that is used twice comes twice.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let inputs = self.inputs.iter().filter_map(|input| match &input.role {
            InputRole::Forcing { features, .. } | InputRole::Static { features, .. } => {
                Some(features)
            }
            InputRole::State { .. } => None,
        });
        inputs
            .chain([&self.state])
            .flat_map(|features| &features.sources)
    }

    /// Known states that a forecast starts from: `max(2, past)` for neural-lam, more if a state
    /// input looks further back.
    pub fn init_steps(&self) -> u64 {
        let needed = self.inputs.iter().map(|input| match &input.role {
            InputRole::State { steps_back } => steps_back.saturating_add(1),
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

/// The longest window in time, in steps: beyond it is a slip of the finger or an attack.
const LONGEST_WINDOW: u64 = 1_000;

/// An interface that contradicts itself, or that no forecast can be made with.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidInterface {
    /// Another version.
    #[error(
        "interface.json has version {0}, and this mlwm reads version {INTERFACE_VERSION}: use a matching mlwm, or build the artifact anew"
    )]
    Version(u32),
    /// A step that does not go forward.
    #[error("`step_seconds` of interface.json is {0}: give the length of a step, more than 0")]
    StepSeconds(i64),
    /// A name that is empty.
    #[error("`{0}` of interface.json is empty: give it a name")]
    Empty(&'static str),
    /// Features that are none.
    #[error("the {0} of interface.json has no features or no sources: name them")]
    NoFeatures(String),
    /// A name that stands in a list twice.
    #[error("`{name}` stands twice among the {list} of interface.json: name each once")]
    Twice {
        /// What the list holds.
        list: String,
        /// The name.
        name: String,
    },
    /// An input or output of the graph that has no name of its own.
    #[error(
        "two inputs or outputs of the model in interface.json are called `{0}`: each has a name of its own"
    )]
    TensorName(String),
    /// The model does not see the state that it steps from.
    #[error(
        "no input of the model in interface.json is the last known state: one must have the role `state` with `steps_back` 0"
    )]
    NoLastState,
    /// A window that is out of all proportion.
    #[error(
        "input `{input}` of interface.json looks {steps} steps away: a window has at most {LONGEST_WINDOW}"
    )]
    Window {
        /// Name of the input.
        input: String,
        /// Its longest reach.
        steps: u64,
    },
    /// A grid whose parts do not fit together.
    #[error("the grid of the {of} in interface.json does not fit together: {problem}")]
    Grid {
        /// Whose grid.
        of: String,
        /// What does not fit.
        problem: GridProblem,
    },
    /// A boundary on a grid that has no sides.
    #[error(
        "interface.json has a boundary, which needs a grid of two dimensions, and the grid has {0}: set `boundary_width` to 0"
    )]
    BoundaryDimensions(usize),
    /// A boundary that leaves nothing to predict.
    #[error(
        "a boundary of {width} points on each side covers all {length} points of `{dim}` in interface.json, so that the forecast would be its own input: use a narrower boundary or a larger grid"
    )]
    BoundaryCoversAll {
        /// `boundary_width`.
        width: u64,
        /// The dimension.
        dim: String,
        /// Its length.
        length: u64,
    },
}

/// What does not fit together in a grid.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GridProblem {
    /// Not one length per dimension.
    #[error("give one length in `shape` for each of the dimensions in `dims`, at least one")]
    Lengths,
    /// A dimension without points, or more points than can be counted.
    #[error("every length must be at least 1, and the number of points must be countable")]
    Points,
    /// A dimension twice.
    #[error("the dimension `{0}` stands there twice")]
    Dimension(String),
    /// Coordinates of some dimensions only.
    #[error("give the coordinates of all dimensions, or of none")]
    Coordinates,
    /// Coordinates of another length.
    #[error("`{dim}` has {length} points and {coordinates} coordinates")]
    CoordinateLength {
        /// The dimension.
        dim: String,
        /// Its length.
        length: u64,
        /// Number of its coordinates.
        coordinates: usize,
    },
    /// A coordinate that is NaN or infinite.
    #[error("`{0}` has a coordinate that is not a finite number")]
    CoordinateValue(String),
}

impl Interface {
    /// Checks that the parts of the interface agree, and that a forecast can be made with it.
    pub fn validate(&self) -> Result<(), InvalidInterface> {
        if self.version != INTERFACE_VERSION {
            return Err(InvalidInterface::Version(self.version));
        }
        if self.step_seconds <= 0 {
            return Err(InvalidInterface::StepSeconds(self.step_seconds));
        }
        if self.statistics_split.is_empty() {
            return Err(InvalidInterface::Empty("statistics_split"));
        }
        self.state.check("state")?;
        self.grid.check("state")?;
        self.check_boundary()?;
        self.check_tensor_names()?;
        for input in &self.inputs {
            input.check()?;
        }
        let last_state = |input: &ModelInput| input.role == InputRole::State { steps_back: 0 };
        match self.inputs.iter().any(last_state) {
            true => Ok(()),
            false => Err(InvalidInterface::NoLastState),
        }
    }

    fn check_boundary(&self) -> Result<(), InvalidInterface> {
        if self.boundary_width == 0 {
            return Ok(());
        }
        if self.grid.dims.len() != 2 {
            return Err(InvalidInterface::BoundaryDimensions(self.grid.dims.len()));
        }
        let sides = self.grid.dims.iter().zip(&self.grid.shape);
        for (dim, length) in sides {
            if self.boundary_width.saturating_mul(2) >= *length {
                return Err(InvalidInterface::BoundaryCoversAll {
                    width: self.boundary_width,
                    dim: dim.clone(),
                    length: *length,
                });
            }
        }
        Ok(())
    }

    fn check_tensor_names(&self) -> Result<(), InvalidInterface> {
        if self.output.is_empty() {
            return Err(InvalidInterface::Empty("output"));
        }
        let mut names = BTreeSet::from([self.output.as_str()]);
        for input in &self.inputs {
            if input.name.is_empty() {
                return Err(InvalidInterface::Empty("inputs[].name"));
            }
            if !names.insert(&input.name) {
                return Err(InvalidInterface::TensorName(input.name.clone()));
            }
        }
        Ok(())
    }
}

impl ModelInput {
    fn check(&self) -> Result<(), InvalidInterface> {
        let of = format!("input `{}`", self.name);
        let reach = match &self.role {
            InputRole::State { steps_back } => *steps_back,
            InputRole::Forcing {
                features,
                past,
                future,
                grid,
            } => {
                features.check(&of)?;
                grid.as_ref().map_or(Ok(()), |grid| grid.check(&of))?;
                *past.max(future)
            }
            InputRole::Static { features, grid } => {
                features.check(&of)?;
                grid.as_ref().map_or(Ok(()), |grid| grid.check(&of))?;
                0
            }
        };
        match reach > LONGEST_WINDOW {
            true => Err(InvalidInterface::Window {
                input: self.name.clone(),
                steps: reach,
            }),
            false => Ok(()),
        }
    }
}

impl Features {
    fn check(&self, of: &str) -> Result<(), InvalidInterface> {
        if self.names.is_empty() || self.sources.is_empty() {
            return Err(InvalidInterface::NoFeatures(of.to_owned()));
        }
        let twice = |list: &str, name: String| InvalidInterface::Twice {
            list: format!("{list} of the {of}"),
            name,
        };
        if let Some(name) = first_repeated(self.names.iter()) {
            return Err(twice("features", name.clone()));
        }
        let sources = self
            .sources
            .iter()
            .map(|s| format!("{}.{}", s.datastore, s.variable));
        match first_repeated(sources) {
            Some(name) => Err(twice("sources", name)),
            None => Ok(()),
        }
    }
}

impl Grid {
    fn check(&self, of: &str) -> Result<(), InvalidInterface> {
        self.problem().map_or(Ok(()), |problem| {
            Err(InvalidInterface::Grid {
                of: of.to_owned(),
                problem,
            })
        })
    }

    fn problem(&self) -> Option<GridProblem> {
        if self.dims.is_empty() || self.dims.len() != self.shape.len() {
            return Some(GridProblem::Lengths);
        }
        let points = self
            .shape
            .iter()
            .try_fold(1u64, |points, n| points.checked_mul(*n));
        if points.is_none_or(|points| points == 0) {
            return Some(GridProblem::Points);
        }
        if let Some(dim) = first_repeated(self.dims.iter()) {
            return Some(GridProblem::Dimension(dim.clone()));
        }
        if self.coordinates.is_empty() {
            return None;
        }
        if self.coordinates.len() != self.dims.len() {
            return Some(GridProblem::Coordinates);
        }
        let sides = self.dims.iter().zip(&self.shape).zip(&self.coordinates);
        for ((dim, length), coordinates) in sides {
            if coordinates.len() as u64 != *length {
                return Some(GridProblem::CoordinateLength {
                    dim: dim.clone(),
                    length: *length,
                    coordinates: coordinates.len(),
                });
            }
            if !coordinates.iter().all(|value| value.is_finite()) {
                return Some(GridProblem::CoordinateValue(dim.clone()));
            }
        }
        None
    }
}

fn first_repeated<T: Ord + Clone>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().find(|item| !seen.insert(item.clone()))
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

//! Inputs and outputs of the ONNX graph: what each is fed with or holds, and how it is laid out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Features, Grid, MissingWhere};

/// A dimension of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dim {
    /// Of length 1.
    Batch,
    /// Steps back in the order of the role, or the window of a forcing, oldest first.
    Time,
    /// Features; channels of noise.
    Feature,
    /// Points of the stacked grid.
    Grid,
}

impl Dim {
    /// How neural-lam lays out all of its tensors.
    pub const NEURAL_LAM: [Self; 3] = [Self::Batch, Self::Grid, Self::Feature];
}

/// The type of a tensor's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementType {
    /// 32-bit floating point.
    #[default]
    Float32,
}

/// An input of the ONNX graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// Its name in the graph.
    pub name: String,
    /// What it is fed with.
    #[serde(flatten)]
    pub role: InputRole,
    /// Its dimensions, the first varies slowest.
    pub dims: Vec<Dim>,
    /// The type of its values.
    #[serde(default, rename = "dtype")]
    pub element: ElementType,
}

impl ModelInput {
    /// An input as neural-lam lays it out, float32 `[1, grid_index, feature]`.
    pub fn new(name: &str, role: InputRole) -> Self {
        Self {
            name: name.to_owned(),
            role,
            dims: Dim::NEURAL_LAM.to_vec(),
            element: ElementType::Float32,
        }
    }
}

/// What an input of the graph is fed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum InputRole {
    /// States, each so many steps before the last one (0 or more).
    State {
        /// 0 is the last state. With several, [`Dim::Time`] has them in this order.
        steps_back: Vec<u64>,
        /// The features of the state that it has, in order; all of them if empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        features: Vec<String>,
    },
    /// Forcing in a window around the time that is predicted. Without [`Dim::Time`], the window is
    /// flattened into [`Dim::Feature`], feature-major: `f0w0 f0w1 f0w2 f1w0 …`.
    Forcing {
        /// Features and where they come from.
        features: Features,
        /// Steps before the predicted time.
        #[serde(default)]
        past: u64,
        /// Steps after the predicted time.
        #[serde(default)]
        future: u64,
        /// The grid, if it is not that of the state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grid: Option<Grid>,
    },
    /// Static features: of datastores, or constant fields of the input state.
    Static {
        /// Features and where they come from.
        features: Features,
        /// The grid, if it is not that of the state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grid: Option<Grid>,
    },
    /// Random numbers, others at every step.
    Noise {
        /// What makes them.
        generator: Generator,
        /// How many fields of them.
        #[serde(default = "one")]
        channels: u64,
    },
}

fn one() -> u64 {
    1
}

impl InputRole {
    /// The state so many steps before the last one, all of its features.
    pub fn state(steps_back: u64) -> Self {
        Self::State {
            steps_back: vec![steps_back],
            features: Vec::new(),
        }
    }

    /// The features of its own that an input has.
    pub fn features(&self) -> Option<&Features> {
        match self {
            Self::Forcing { features, .. } | Self::Static { features, .. } => Some(features),
            Self::State { .. } | Self::Noise { .. } => None,
        }
    }
}

/// What makes random numbers. Each is a function of the seed, the member, the step and the number
/// of the value, so that the same ones make the same bytes on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generator {
    /// Whole numbers from 0 to 255.
    #[serde(rename = "hash-u8/1")]
    HashU8,
    /// A normal distribution of mean 0 and standard deviation 1.
    #[serde(rename = "normal/1")]
    Normal,
}

/// An output of the ONNX graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOutput {
    /// Its name in the graph.
    pub name: String,
    /// What it is.
    pub role: OutputRole,
    /// Its dimensions, the first varies slowest.
    pub dims: Vec<Dim>,
    /// The type of its values.
    #[serde(default, rename = "dtype")]
    pub element: ElementType,
    /// Its features, in order; of the next state all those of the state if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Where a feature has no value: what the model returns there is not looked at, and NaN is
    /// written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, MissingWhere>,
}

impl ModelOutput {
    /// The next state, all of it, as neural-lam lays it out.
    pub fn next_state(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            role: OutputRole::NextState,
            dims: Dim::NEURAL_LAM.to_vec(),
            element: ElementType::Float32,
            features: Vec::new(),
            missing: BTreeMap::new(),
        }
    }
}

/// What an output of the graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputRole {
    /// Features of the state one step later, which the next step starts from.
    NextState,
    /// Further variables of the predicted time, which no step looks at.
    Diagnostics,
}

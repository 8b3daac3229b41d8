//! `interface.json` as it is written, in each version, and the interface that it becomes.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::program::VersionFour;
use super::written_points::VersionThree;
use super::{
    Features, GENERAL_VERSION, Grid, INTERFACE_VERSION, InputRole, Interface, InvalidInterface,
    ModelInput, ModelOutput, POINTS_VERSION, PROGRAM_VERSION, Standardization, StateSchema,
};

impl<'de> Deserialize<'de> for Interface {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        match version.and_then(|version| u32::try_from(version).ok()) {
            Some(INTERFACE_VERSION) => serde_json::from_value(value)
                .map(|written: VersionOne| written.into())
                .map_err(D::Error::custom),
            Some(GENERAL_VERSION) => serde_json::from_value(value)
                .map(|written: VersionTwo| written.into())
                .map_err(D::Error::custom),
            Some(POINTS_VERSION) => serde_json::from_value(value)
                .map(|written: VersionThree| written.into())
                .map_err(D::Error::custom),
            Some(PROGRAM_VERSION) => {
                VersionFour::refuse_others(&value).map_err(D::Error::custom)?;
                serde_json::from_value(value)
                    .map(|written: VersionFour| written.into())
                    .map_err(D::Error::custom)
            }
            Some(other) => Err(D::Error::custom(InvalidInterface::Version(other))),
            None => Err(D::Error::missing_field("version")),
        }
    }
}

impl Serialize for Interface {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.version {
            INTERFACE_VERSION => VersionOne::of(self)
                .ok_or_else(|| S::Error::custom("version 1 of interface.json cannot say this"))?
                .serialize(serializer),
            POINTS_VERSION => VersionThree::of(self)
                .ok_or_else(|| {
                    S::Error::custom("version 3 of interface.json is of models of points")
                })?
                .serialize(serializer),
            PROGRAM_VERSION => VersionFour::of(self)
                .ok_or_else(|| {
                    S::Error::custom("version 4 of interface.json is of models without ONNX")
                })?
                .serialize(serializer),
            _ if self.points.is_some() || self.program.is_some() => Err(S::Error::custom(
                "models of points need version 3 of interface.json, those without ONNX version 4",
            )),
            _ => VersionTwo::of(self).serialize(serializer),
        }
    }
}

/// Version 1: step models of neural-lam, all tensors `[1, grid_index, feature]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionOne {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    step_seconds: i64,
    #[serde(default = "default_split")]
    statistics_split: String,
    state: Features,
    grid: Grid,
    #[serde(default)]
    boundary_width: u64,
    inputs: Vec<InputOne>,
    output: String,
}

fn default_split() -> String {
    "train".to_owned()
}

#[derive(Clone, Serialize, Deserialize)]
struct InputOne {
    name: String,
    #[serde(flatten)]
    role: RoleOne,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum RoleOne {
    State {
        steps_back: u64,
    },
    Forcing {
        features: Features,
        past: u64,
        future: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grid: Option<Grid>,
    },
    Static {
        features: Features,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grid: Option<Grid>,
    },
}

impl From<VersionOne> for Interface {
    fn from(written: VersionOne) -> Self {
        let input = |input: InputOne| {
            let role = match input.role {
                RoleOne::State { steps_back } => InputRole::state(steps_back),
                RoleOne::Forcing {
                    features,
                    past,
                    future,
                    grid,
                } => InputRole::Forcing {
                    features,
                    past,
                    future,
                    grid,
                },
                RoleOne::Static { features, grid } => InputRole::Static { features, grid },
            };
            ModelInput::new(&input.name, role)
        };
        Self {
            version: written.version,
            model: written.model,
            step_seconds: written.step_seconds,
            standardization: Standardization::Statistics,
            statistics_split: written.statistics_split,
            state: written.state,
            input_state: None,
            points: None,
            program: None,
            grid: written.grid,
            boundary_width: written.boundary_width,
            inputs: written.inputs.into_iter().map(input).collect(),
            outputs: vec![ModelOutput::next_state(&written.output)],
            attributes: BTreeMap::new(),
        }
    }
}

impl VersionOne {
    /// `None` if version 1 has no words for something in the interface.
    fn of(interface: &Interface) -> Option<Self> {
        let [output] = interface.outputs.as_slice() else {
            return None;
        };
        let inputs: Option<Vec<InputOne>> = interface.inputs.iter().map(InputOne::of).collect();
        let written = Self {
            version: interface.version,
            model: interface.model.clone(),
            step_seconds: interface.step_seconds,
            statistics_split: interface.statistics_split.clone(),
            state: interface.state.clone(),
            grid: interface.grid.clone(),
            boundary_width: interface.boundary_width,
            inputs: inputs?,
            output: output.name.clone(),
        };
        (Interface::from(written.clone()) == *interface).then_some(written)
    }
}

impl InputOne {
    fn of(input: &ModelInput) -> Option<Self> {
        let role = match input.role.clone() {
            InputRole::State { steps_back, .. } => RoleOne::State {
                steps_back: *steps_back.first()?,
            },
            InputRole::Forcing {
                features,
                past,
                future,
                grid,
            } => RoleOne::Forcing {
                features,
                past,
                future,
                grid,
            },
            InputRole::Static { features, grid } => RoleOne::Static { features, grid },
            InputRole::Noise { .. } => return None,
        };
        Some(Self {
            name: input.name.clone(),
            role,
        })
    }
}

/// Version 2: everything of models on a grid.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionTwo {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    step_seconds: i64,
    #[serde(default)]
    standardization: Standardization,
    #[serde(default = "default_split")]
    statistics_split: String,
    /// Absent if the fields of the input state are the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Features>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_state: Option<StateSchema>,
    grid: Grid,
    #[serde(default)]
    boundary_width: u64,
    inputs: Vec<ModelInput>,
    outputs: Vec<ModelOutput>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, BTreeMap<String, String>>,
}

/// The features of a state that is read from an input state.
pub(super) fn features_of(schema: Option<&StateSchema>) -> Features {
    let fields = schema.iter().flat_map(|schema| &schema.fields);
    Features {
        sources: Vec::new(),
        names: fields.map(|field| field.name.clone()).collect(),
    }
}

impl From<VersionTwo> for Interface {
    fn from(written: VersionTwo) -> Self {
        let from_fields = || features_of(written.input_state.as_ref());
        Self {
            version: written.version,
            model: written.model,
            step_seconds: written.step_seconds,
            standardization: written.standardization,
            statistics_split: written.statistics_split,
            state: written.state.unwrap_or_else(from_fields),
            input_state: written.input_state,
            points: None,
            program: None,
            grid: written.grid,
            boundary_width: written.boundary_width,
            inputs: written.inputs,
            outputs: written.outputs,
            attributes: written.attributes,
        }
    }
}

impl VersionTwo {
    fn of(interface: &Interface) -> Self {
        let is_that_of_fields = interface.input_state.is_some()
            && interface.state == features_of(interface.input_state.as_ref());
        Self {
            version: interface.version,
            model: interface.model.clone(),
            step_seconds: interface.step_seconds,
            standardization: interface.standardization,
            statistics_split: interface.statistics_split.clone(),
            state: (!is_that_of_fields).then(|| interface.state.clone()),
            input_state: interface.input_state.clone(),
            grid: interface.grid.clone(),
            boundary_width: interface.boundary_width,
            inputs: interface.inputs.clone(),
            outputs: interface.outputs.clone(),
            attributes: interface.attributes.clone(),
        }
    }
}

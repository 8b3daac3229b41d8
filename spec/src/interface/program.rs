//! Version 4: a model without ONNX, such as a PyTorch checkpoint, which a program in its image runs. Of
//! the model itself nothing is said; of a forecast, what it starts from and what it predicts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::is_name;
use super::written::features_of;
use super::{Grid, Interface, InvalidInterface, PROGRAM_VERSION, Standardization, StateSchema};

/// What is known of a model that a program in its image runs, besides the input state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The variables of the forecast.
    pub predicted: Vec<String>,
}

/// What does not fit in the interface of a model without ONNX.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProgramProblem {
    /// Another version, or parts of other models.
    #[error(
        "a model without ONNX needs version {PROGRAM_VERSION} and an `input_state`, and has no graph"
    )]
    Version,
    /// A key that says something of an ONNX model.
    #[error(
        "`{0}` describes an ONNX model, and version {PROGRAM_VERSION} is of models that have none: leave it out, or write version 2 and pack the ONNX model"
    )]
    OnlyOnnx(&'static str),
    /// What an ONNX model sees in place of NaN.
    #[error(
        "`fill` of `{0}` is what mlwm gives an ONNX model in place of NaN, and there is none, since the program in the image reads the file itself: leave it out"
    )]
    Fill(String),
    /// Nothing is predicted.
    #[error("`predicted` is empty: name the variables of the forecast")]
    Empty,
    /// A name that stands there twice.
    #[error("`{0}` stands twice in `predicted`: name each variable once")]
    Twice(String),
    /// A name that has a meaning of its own.
    #[error("a variable in `predicted` cannot be called `{0}`")]
    Name(String),
}

/// Keys of other versions that mean something only where mlwm runs the model.
const ONLY_ONNX: [&str; 8] = [
    "inputs",
    "outputs",
    "output",
    "state",
    "standardization",
    "statistics_split",
    "boundary_width",
    "attributes",
];

/// Version 4 as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionFour {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    step_seconds: i64,
    input_state: StateSchema,
    grid: Grid,
    predicted: Vec<String>,
}

impl VersionFour {
    /// Refuses what would be passed over, with a better reason than that it is not known.
    pub(super) fn refuse_others(value: &Value) -> Result<(), InvalidInterface> {
        let found = ONLY_ONNX.into_iter().find(|key| value.get(key).is_some());
        found.map_or(Ok(()), |key| {
            Err(InvalidInterface::Program(ProgramProblem::OnlyOnnx(key)))
        })
    }

    /// `None` if the interface is not of a model without ONNX alone.
    pub(super) fn of(interface: &Interface) -> Option<Self> {
        interface.check_program().ok()?;
        Some(Self {
            version: interface.version,
            model: interface.model.clone(),
            step_seconds: interface.step_seconds,
            input_state: interface.input_state.clone()?,
            grid: interface.grid.clone(),
            predicted: interface.program.clone()?.predicted,
        })
    }
}

impl From<VersionFour> for Interface {
    fn from(written: VersionFour) -> Self {
        Self {
            version: written.version,
            model: written.model,
            step_seconds: written.step_seconds,
            standardization: Standardization::None,
            statistics_split: "train".to_owned(),
            state: features_of(Some(&written.input_state)),
            input_state: Some(written.input_state),
            points: None,
            program: Some(Program {
                predicted: written.predicted,
            }),
            grid: written.grid,
            boundary_width: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: BTreeMap::new(),
        }
    }
}

impl Interface {
    /// Version 4 and the rest of the file belong together.
    pub(super) fn check_program(&self) -> Result<(), InvalidInterface> {
        let Some(program) = &self.program else {
            return match self.version {
                PROGRAM_VERSION => Err(InvalidInterface::Program(ProgramProblem::Version)),
                _ => Ok(()),
            };
        };
        let only_program = self.version == PROGRAM_VERSION
            && self.points.is_none()
            && self.inputs.is_empty()
            && self.outputs.is_empty()
            && self.attributes.is_empty();
        match &self.input_state {
            Some(schema) if only_program => program
                .check(schema, &self.grid)
                .map_err(InvalidInterface::Program),
            _ => Err(InvalidInterface::Program(ProgramProblem::Version)),
        }
    }
}

impl Program {
    fn check(&self, schema: &StateSchema, grid: &Grid) -> Result<(), ProgramProblem> {
        let is_filled = |missing: &super::MissingInput| missing.fill.is_some();
        let mut fields = schema.fields.iter();
        if let Some(field) = fields.find(|field| field.missing.as_ref().is_some_and(is_filled)) {
            return Err(ProgramProblem::Fill(field.name.clone()));
        }
        if self.predicted.is_empty() {
            return Err(ProgramProblem::Empty);
        }
        let mut seen = BTreeSet::new();
        for name in &self.predicted {
            if !is_name(name, grid) {
                return Err(ProgramProblem::Name(name.clone()));
            }
            if !seen.insert(name) {
                return Err(ProgramProblem::Twice(name.clone()));
            }
        }
        Ok(())
    }
}

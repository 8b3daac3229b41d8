//! One forecast that is to be made: the model's interface, what it starts from, and its seed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mlwm_datasets::input_state::{InitialState, StateRequest};
use mlwm_datasets::points::{PointInputs, PointRequest};
use mlwm_datasets::prepare::{ForecastInputs, ForecastRequest, Schedule};
use mlwm_spec::Interface;
use mlwm_spec::contract::TimeLayout;
use mlwm_spec::interface::{OutputRole, PointModel};

use crate::noise::Seed;
use crate::standardize::Standardization;
use crate::{Artifact, RunnerError, Task};

/// How many values are handed from thread to thread at once, where a step has fewer.
const VALUES_AT_ONCE: usize = 1 << 16;

/// How many steps those are at most.
const MOST_AT_ONCE: usize = 64;

/// A forecast whose inputs are opened and checked.
#[derive(Debug)]
pub struct Forecast<'a> {
    /// What the model needs.
    pub interface: &'a Interface,
    /// What it is given.
    pub inputs: Inputs,
    /// What its random numbers come from, if it is given any.
    pub seed: Option<Seed>,
    masks: Vec<Mask>,
}

/// Where known states, forcing and static features come from.
#[derive(Debug)]
pub enum Inputs {
    /// From datasets, prepared as those of the training were.
    Datastores(Box<ForecastInputs>),
    /// From one input state.
    State(InitialState),
    /// From stores over points and time.
    Points(Box<PointInputs>),
}

/// Where a predicted variable has no value.
#[derive(Debug)]
pub(crate) struct Mask {
    /// Its number among the predicted variables.
    pub(crate) column: usize,
    /// Points of the grid.
    pub(crate) points: Vec<usize>,
    /// What the next step sees there.
    pub(crate) fill: f32,
}

impl<'a> Forecast<'a> {
    /// Opens the inputs of a task and checks them: of an input state every value, of datasets as
    /// far as possible without reading data.
    ///
    /// # Errors
    /// Whatever does not fit.
    pub fn open(artifact: &'a Artifact, task: &Task) -> Result<Self, RunnerError> {
        let interface = &artifact.interface;
        let steps = task.steps(interface.step_seconds)?;
        let inputs = match (&interface.points, &interface.input_state) {
            (Some(model), _) => {
                Inputs::Points(Box::new(open_points(interface, model, task, steps)?))
            }
            (None, Some(schema)) => Inputs::State(InitialState::read(&StateRequest {
                interface,
                schema,
                path: task.input_path(&schema.input)?,
                analysis_time: task.analysis_time,
                steps,
            })?),
            (None, None) => Inputs::Datastores(Box::new(ForecastInputs::open(&ForecastRequest {
                interface,
                configs: &artifact.configs,
                statistics: &artifact.statistics,
                inputs: &task.inputs,
                layout: task.layout,
                analysis_time: task.analysis_time,
                steps,
            })?)),
        };
        let seed = match (interface.has_noise(), task.seed) {
            (false, _) => None,
            (true, Some(seed)) => Some(Seed {
                seed,
                member: task.member,
            }),
            (true, None) => {
                return Err(RunnerError::Environment(
                    "MLWM_SEED is not set, and the model needs random numbers".to_owned(),
                ));
            }
        };
        Self::new(interface, inputs, seed)
    }

    /// A forecast from inputs that are open.
    ///
    /// # Errors
    /// If the interface has a mask over a field that the inputs do not have.
    pub fn new(
        interface: &'a Interface,
        inputs: Inputs,
        seed: Option<Seed>,
    ) -> Result<Self, RunnerError> {
        let mut forecast = Self {
            interface,
            inputs,
            seed,
            masks: Vec::new(),
        };
        forecast.masks = forecast.find_masks()?;
        Ok(forecast)
    }

    fn find_masks(&self) -> Result<Vec<Mask>, RunnerError> {
        let mut masks = Vec::new();
        let names: Vec<&str> = self.variables().collect();
        for output in &self.interface.outputs {
            for (name, place) in &output.missing {
                let no_mask = || {
                    RunnerError::Artifact(format!(
                        "interface.json says that `{name}` is missing where `{}` is {}, which is not a field of the input state",
                        place.field, place.equals
                    ))
                };
                let Inputs::State(state) = &self.inputs else {
                    return Err(no_mask());
                };
                let schema = self.interface.input_state.as_ref();
                let field = schema.and_then(|schema| schema.field(name));
                let fill = field.and_then(|field| field.missing.as_ref()?.fill);
                masks.push(Mask {
                    column: names
                        .iter()
                        .position(|there| there == name)
                        .ok_or_else(no_mask)?,
                    points: state.points_where(place).ok_or_else(no_mask)?,
                    fill: fill.unwrap_or(f32::NAN),
                });
            }
        }
        Ok(masks)
    }

    /// Its times.
    pub fn schedule(&self) -> &Schedule {
        match &self.inputs {
            Inputs::Datastores(inputs) => &inputs.schedule,
            Inputs::State(state) => &state.schedule,
            Inputs::Points(inputs) => &inputs.schedule,
        }
    }

    /// What looks doubtful but is not wrong, a sentence each.
    pub fn warnings(&self) -> &[String] {
        match &self.inputs {
            Inputs::Datastores(inputs) => &inputs.warnings,
            Inputs::State(_) | Inputs::Points(_) => &[],
        }
    }

    /// Points of the grid that are overwritten with the driving state after every step.
    pub fn boundary(&self) -> &[usize] {
        match &self.inputs {
            Inputs::Datastores(inputs) => &inputs.boundary,
            Inputs::State(_) | Inputs::Points(_) => &[],
        }
    }

    /// Points of the grid.
    pub fn points(&self) -> usize {
        match &self.inputs {
            Inputs::Points(inputs) => inputs.points as usize,
            _ => self.interface.grid.points() as usize,
        }
    }

    /// How many steps are handed from thread to thread at once: of few points several, since that
    /// takes longer than such a step.
    pub(crate) fn steps_at_once(&self) -> u64 {
        let Inputs::Points(_) = &self.inputs else {
            return 1;
        };
        let values = self.points() * (self.variables().count() + 1);
        (VALUES_AT_ONCE / values.max(1)).clamp(1, MOST_AT_ONCE) as u64
    }

    /// Names of what a sink is given, in order: the features of the state, then the diagnostics.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let state = self.interface.state.names.iter();
        state.chain(self.diagnostics()).map(String::as_str)
    }

    /// Names of the variables that are predicted beside the state.
    pub(crate) fn diagnostics(&self) -> impl Iterator<Item = &String> {
        let outputs = self.interface.outputs.iter();
        outputs
            .filter(|output| output.role == OutputRole::Diagnostics)
            .flat_map(|output| &output.features)
    }

    /// Whether the model predicts a feature of the state, or leaves it as it is.
    pub(crate) fn is_predicted(&self, name: &str) -> bool {
        self.interface.outputs.iter().any(|output| {
            output.role == OutputRole::NextState
                && self
                    .interface
                    .features_of(output)
                    .iter()
                    .any(|there| there == name)
        })
    }

    pub(crate) fn masks(&self) -> &[Mask] {
        &self.masks
    }

    /// The standardization of what a sink is given; diagnostics are not standardized.
    pub(crate) fn standardization(&self) -> Standardization {
        let standardization = match &self.inputs {
            Inputs::Datastores(inputs) => Standardization::of(&inputs.state),
            Inputs::State(_) | Inputs::Points(_) => {
                Standardization::none(self.interface.state.names.len())
            }
        };
        standardization.followed_by_none(self.diagnostics().count())
    }
}

/// Opens the stores of a model of points.
fn open_points(
    interface: &Interface,
    model: &PointModel,
    task: &Task,
    steps: u64,
) -> Result<PointInputs, RunnerError> {
    if task.layout == TimeLayout::Forecast {
        return Err(RunnerError::Environment(
            "the model reads stores of valid times: TIME_DIMENSIONS must be `time`".to_owned(),
        ));
    }
    let stores = &model.stores;
    let mut paths = BTreeMap::new();
    let names = [
        Some(&stores.state),
        stores.forcing.as_ref(),
        stores.statics.as_ref(),
    ];
    for name in names.into_iter().flatten() {
        paths.insert(name.clone(), PathBuf::from(task.input_path(name)?));
    }
    Ok(PointInputs::open(&PointRequest {
        interface,
        model,
        paths: &paths,
        analysis_time: task.analysis_time,
        steps,
    })?)
}

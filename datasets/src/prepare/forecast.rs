//! Everything that one forecast reads: the states it starts from, the driving state along the
//! boundary, forcing and static features, opened and checked against the model's interface.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mlwm_spec::contract::{DatastoreInputPath, TimeLayout};
use mlwm_spec::interface::{Features, Grid, InputRole};
use mlwm_spec::{AnalysisTime, DatastoreConfig, Interface};

use super::features::{FeatureSet, open_features};
use super::grid::boundary_points;
use super::times::TimeAxis;
use super::{Datastore, MissingTimes, PrepareError, distinct_names};
use crate::Statistics;

/// Most steps of a forecast: more is a slip, and their times would not fit into memory or an `i64`.
const MOST_STEPS: u64 = 1_000_000;

/// Most steps that a model may look back or ahead.
const MOST_WINDOW: u64 = 10_000;

/// Longest step in seconds: 366 days.
const LONGEST_STEP: i64 = 366 * 86_400;

/// How many missing times a message shows.
const SHOWN_MISSING: usize = 3;

/// A forecast that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ForecastRequest<'a> {
    /// What the model needs.
    pub interface: &'a Interface,
    /// Configurations of the datastores by name.
    pub configs: &'a BTreeMap<String, DatastoreConfig>,
    /// Training statistics of the datastores by name.
    pub statistics: &'a BTreeMap<String, Statistics>,
    /// Where the datasets are that feed the inputs of the datastores.
    pub inputs: &'a [DatastoreInputPath],
    /// How time is laid out in them.
    pub layout: TimeLayout,
    /// The analysis time.
    pub analysis_time: AnalysisTime,
    /// Number of steps to predict.
    pub steps: u64,
}

/// The times of a forecast in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The analysis time: time of the last known state, or, of inputs that are forecasts, the time
    /// those start from.
    pub analysis: i64,
    /// Time of the last known state.
    pub last_known: i64,
    /// Seconds per step.
    pub step: i64,
    /// Number of steps.
    pub steps: u64,
}

impl Schedule {
    /// The times of a forecast. From inputs that are forecasts themselves, the first known state
    /// is their first time, as neural-lam takes samples from them: the known states cover elapsed
    /// times 0 to `(init_steps - 1) * step`.
    pub fn new(
        interface: &Interface,
        layout: TimeLayout,
        analysis_time: AnalysisTime,
        steps: u64,
    ) -> Self {
        let analysis = analysis_time.unix_seconds();
        let step = interface.step_seconds;
        let last_known = match layout {
            TimeLayout::Time => analysis,
            TimeLayout::Forecast => analysis + (interface.init_steps() as i64 - 1) * step,
        };
        Self {
            analysis,
            last_known,
            step,
            steps,
        }
    }

    /// The valid time so many steps after the last known state.
    pub fn valid_time(&self, steps: i64) -> i64 {
        self.last_known + steps * self.step
    }

    /// The valid times of all predicted states.
    pub fn predicted(&self) -> Vec<i64> {
        (1..=self.steps as i64)
            .map(|step| self.valid_time(step))
            .collect()
    }
}

/// Forcing of a model: features in a window around the predicted time.
#[derive(Debug)]
pub struct Forcing {
    /// Name of the model's input.
    pub name: String,
    /// Its features.
    pub features: FeatureSet,
    /// Steps before the predicted time.
    pub past: u64,
    /// Steps after the predicted time.
    pub future: u64,
}

/// Everything that a forecast reads, opened and checked.
#[derive(Debug)]
pub struct ForecastInputs {
    /// The times of the forecast.
    pub schedule: Schedule,
    /// The state: known states, and the driving state along the boundary.
    pub state: FeatureSet,
    /// How many known states the model looks at.
    pub known_states: u64,
    /// Points of the grid that are overwritten with the driving state after every step.
    pub boundary: Vec<usize>,
    /// Forcing, per input of the model.
    pub forcings: Vec<Forcing>,
    /// Static features, per input of the model that takes some.
    pub statics: Vec<(String, FeatureSet)>,
    /// What looks doubtful but is not wrong, a sentence each.
    pub warnings: Vec<String>,
}

impl ForecastInputs {
    /// Opens everything and checks it as far as possible without reading data: names and order of
    /// features, grids, times.
    ///
    /// # Errors
    /// Whatever does not fit.
    pub fn open(request: &ForecastRequest<'_>) -> Result<Self, PrepareError> {
        let interface = request.interface;
        check_request(request)?;
        let datastores = open_datastores(request)?;
        let mut warnings = Vec::new();
        let mut open = |features: &Features, grid: &Grid| {
            open_features(request, &datastores, features, grid, &mut warnings)
        };
        let state = open(&interface.state, &interface.grid)?;
        let (mut forcings, mut statics) = (Vec::new(), Vec::new());
        for input in &interface.inputs {
            match &input.role {
                InputRole::State { .. } | InputRole::Noise { .. } => {}
                InputRole::Forcing {
                    features,
                    past,
                    future,
                    grid,
                } => forcings.push(Forcing {
                    name: input.name.clone(),
                    features: open(features, grid.as_ref().unwrap_or(&interface.grid))?,
                    past: *past,
                    future: *future,
                }),
                InputRole::Static { features, grid } => {
                    let grid = grid.as_ref().unwrap_or(&interface.grid);
                    statics.push((input.name.clone(), open(features, grid)?));
                }
            }
        }
        let inputs = Self {
            schedule: Schedule::new(
                interface,
                request.layout,
                request.analysis_time,
                request.steps,
            ),
            state,
            known_states: interface.known_states(),
            boundary: boundary_points(&interface.grid.shape, interface.boundary_width),
            forcings,
            statics,
            warnings,
        };
        inputs.check_times()?;
        Ok(inputs)
    }

    /// Valid times of the known states that the model looks at, oldest first.
    pub fn known_times(&self) -> Vec<i64> {
        let oldest = 1 - self.known_states as i64;
        (oldest..=0)
            .map(|step| self.schedule.valid_time(step))
            .collect()
    }

    /// Valid times at which a forcing is needed, in order.
    pub fn forcing_times(&self, forcing: &Forcing) -> Vec<i64> {
        let first = 1 - forcing.past as i64;
        let last = (self.schedule.steps + forcing.future) as i64;
        (first..=last)
            .map(|step| self.schedule.valid_time(step))
            .collect()
    }

    /// Valid times at which the state is read: known states, and every step if there is a
    /// boundary.
    pub fn state_times(&self) -> Vec<i64> {
        let mut times = self.known_times();
        if !self.boundary.is_empty() {
            times.extend(self.schedule.predicted());
        }
        times
    }

    /// Checks that all inputs have all times that they are read at, and no others in between.
    fn check_times(&self) -> Result<(), PrepareError> {
        let state = Need {
            features: &self.state,
            first: 1 - self.known_states as i64,
            after: if self.boundary.is_empty() {
                None
            } else {
                Some(0)
            },
        };
        let forcings = self.forcings.iter().map(|forcing| Need {
            features: &forcing.features,
            first: 1 - forcing.past as i64,
            after: Some(forcing.future),
        });
        let mut missing: Vec<MissingTimes> = Vec::new();
        for need in std::iter::once(state).chain(forcings) {
            for variable in need.features.variables() {
                for source in variable.sources() {
                    let Some(axis) = &source.times else { continue };
                    let input = format!("{}.{}", variable.datastore(), source.name);
                    missing.extend(self.missing(&need, axis, source.path.clone(), input)?);
                }
            }
        }
        let possible = missing.iter().map(|missing| missing.possible_steps).min();
        match (missing.into_iter().next(), possible) {
            (Some(first), Some(possible_steps)) => {
                Err(PrepareError::MissingTimes(Box::new(MissingTimes {
                    possible_steps,
                    ..first
                })))
            }
            _ => Ok(()),
        }
    }

    fn missing(
        &self,
        need: &Need<'_>,
        axis: &TimeAxis,
        path: PathBuf,
        input: String,
    ) -> Result<Option<MissingTimes>, PrepareError> {
        let schedule = &self.schedule;
        let last = need
            .after
            .map_or(0, |after| (schedule.steps + after) as i64);
        let (first_time, last_time) = (schedule.valid_time(need.first), schedule.valid_time(last));
        let mut absent =
            (need.first..=last).filter(|step| axis.position(schedule.valid_time(*step)).is_none());
        let shown: Vec<i64> = absent.by_ref().take(SHOWN_MISSING).collect();
        let missing_count = shown.len() + absent.count();
        let Some(first_absent) = shown.first() else {
            axis.check_step(&path, first_time, last_time, schedule.step)?;
            return Ok(None);
        };
        let possible = need
            .after
            .map_or(0, |after| first_absent - 1 - after as i64)
            .max(0);
        Ok(Some(MissingTimes {
            path,
            input,
            needed: (first_time, last_time),
            step: schedule.step,
            missing: shown
                .iter()
                .map(|step| schedule.valid_time(*step))
                .collect(),
            missing_count,
            present: axis.extent(),
            asked_steps: schedule.steps,
            possible_steps: possible as u64,
        }))
    }
}

/// Features that are needed from `first` steps after the last known state to `after` steps after
/// the last predicted one, or to the last known state itself.
struct Need<'a> {
    features: &'a FeatureSet,
    first: i64,
    after: Option<u64>,
}

fn check_request(request: &ForecastRequest<'_>) -> Result<(), PrepareError> {
    if request.steps == 0 {
        return Err(PrepareError::Request(
            "a forecast of no steps was asked for".to_owned(),
        ));
    }
    if request.steps > MOST_STEPS {
        return Err(PrepareError::Request(format!(
            "a forecast of {} steps was asked for: ask for {MOST_STEPS} at most",
            request.steps
        )));
    }
    let interface = request.interface;
    if let Some(schema) = &interface.input_state {
        return Err(PrepareError::Request(format!(
            "the model starts from the input state `{}`, not from datastores",
            schema.input
        )));
    }
    if !(1..=LONGEST_STEP).contains(&interface.step_seconds) {
        return Err(PrepareError::Artifact(format!(
            "step_seconds of the interface is {}: it must be from 1 to {LONGEST_STEP}",
            interface.step_seconds
        )));
    }
    for input in &interface.inputs {
        let reach = match &input.role {
            InputRole::State { steps_back, .. } => steps_back.iter().max().copied().unwrap_or(0),
            InputRole::Forcing { past, future, .. } => *past.max(future),
            InputRole::Static { .. } | InputRole::Noise { .. } => 0,
        };
        if reach > MOST_WINDOW {
            return Err(PrepareError::Artifact(format!(
                "input `{}` of the interface reaches {reach} steps back or ahead: {MOST_WINDOW} \
                 is the most",
                input.name
            )));
        }
    }
    for path in request.inputs {
        if !request.configs.contains_key(&path.datastore) {
            let known: Vec<&str> = request.configs.keys().map(String::as_str).collect();
            return Err(PrepareError::Request(format!(
                "a dataset is given for input `{}` of datastore `{}`, but the artifact has only \
                 the datastores {}",
                path.input,
                path.datastore,
                known.join(", ")
            )));
        }
    }
    Ok(())
}

fn open_datastores<'a>(
    request: &ForecastRequest<'a>,
) -> Result<BTreeMap<&'a str, Datastore<'a>>, PrepareError> {
    let mut datastores = BTreeMap::new();
    for (name, config) in request.configs {
        let mut paths = BTreeMap::new();
        for given in request
            .inputs
            .iter()
            .filter(|given| given.datastore == *name)
        {
            if paths
                .insert(given.input.clone(), PathBuf::from(&given.path))
                .is_some()
            {
                return Err(PrepareError::Request(format!(
                    "two datasets are given for input `{}.{}`",
                    name, given.input
                )));
            }
        }
        let (layout, analysis) = (request.layout, request.analysis_time);
        datastores.insert(
            name.as_str(),
            Datastore::new(name, config, paths, layout, analysis)?,
        );
    }
    Ok(datastores)
}

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The times of the forecast.
    pub schedule: Schedule,
    /// First and last time that any input is read at, Unix seconds.
    pub read: (i64, i64),
    /// Values that were read and are finite.
    pub values: u64,
    /// What the forecast predicts, as variables of the sources, called as in the outputs: see
    /// [`distinct_names`].
    pub predicted: Vec<String>,
    /// What looks doubtful but is not wrong, a sentence each.
    pub warnings: Vec<String>,
}

/// Checks a forecast before anything is started: opens everything, then reads all data that the
/// forecast will read and refuses values that are NaN or infinite.
///
/// # Errors
/// The first thing that would make the forecast fail; [`PrepareError::exit_code`] classifies it.
pub fn check(request: &ForecastRequest<'_>) -> Result<Report, PrepareError> {
    let inputs = ForecastInputs::open(request)?;
    let mut values = 0;
    let known = inputs.known_times();
    let state_times = inputs.state_times();
    let mut reader = inputs.state.reader(&state_times);
    for time in &state_times {
        let points = (!known.contains(time)).then_some(inputs.boundary.as_slice());
        let state = reader.read(Some(*time))?;
        values += inputs.state.check_finite(&state, Some(*time), points)?;
    }
    let mut read = (
        known[0],
        known[known.len() - 1].max(state_times[state_times.len() - 1]),
    );
    for forcing in &inputs.forcings {
        let times = inputs.forcing_times(forcing);
        let mut reader = forcing.features.reader(&times);
        for time in &times {
            let array = reader.read(Some(*time))?;
            values += forcing.features.check_finite(&array, Some(*time), None)?;
            read = (read.0.min(*time), read.1.max(*time));
        }
    }
    for (_, features) in &inputs.statics {
        let array = features.reader(&[]).read(None)?;
        values += features.check_finite(&array, None, None)?;
    }
    Ok(Report {
        schedule: inputs.schedule,
        read,
        values: values as u64,
        predicted: predicted(&inputs.state),
        warnings: inputs.warnings,
    })
}

/// The names of the source variables that make the state.
fn predicted(state: &FeatureSet) -> Vec<String> {
    let sources: BTreeSet<[&str; 3]> = state
        .variables()
        .iter()
        .flat_map(|variable| {
            variable.features().map(move |feature| {
                [
                    feature.variable.as_str(),
                    feature.input.as_str(),
                    variable.datastore(),
                ]
            })
        })
        .collect();
    distinct_names(&sources.into_iter().collect::<Vec<_>>())
}

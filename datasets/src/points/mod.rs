//! What a model of points reads: static features and the first state at once, forcing block by block
//! while the forecast is made. All of it lies in Zarr stores over time and points, which are checked
//! against each other and against the times of the forecast when they are opened.

mod forcing;
mod place;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use mlwm_spec::AnalysisTime;
use mlwm_spec::interface::{Interface, PointModel, PointRole};
use serde_json::{Map, Value};

pub use crate::input_state::Coordinate;
use crate::prepare::{PrepareError, Schedule};
pub use forcing::ForcingReader;
use store::Store;

/// The inputs of a model of points that are asked for.
#[derive(Clone, Copy, Debug)]
pub struct PointRequest<'a> {
    /// What the model needs.
    pub interface: &'a Interface,
    /// Its part about points.
    pub model: &'a PointModel,
    /// Where the stores are, by name of the configuration's input.
    pub paths: &'a BTreeMap<String, PathBuf>,
    /// The analysis time.
    pub analysis_time: AnalysisTime,
    /// Number of steps to predict.
    pub steps: u64,
}

/// The inputs of a model of points, opened and checked.
#[derive(Debug)]
pub struct PointInputs {
    /// The times of the forecast.
    pub schedule: Schedule,
    /// Number of points.
    pub points: u64,
    /// The state at the analysis time, `[point, state]`.
    pub state: Vec<f32>,
    /// Static features, `[point, feature]`.
    pub statics: Vec<f32>,
    /// Names of the forcing features, in order.
    forcing: Vec<String>,
    /// Number of the store that has them.
    forcing_store: usize,
    stores: Vec<Store>,
    coordinates: Vec<Coordinate>,
    /// Attributes of the variables of the state in their store.
    attributes: BTreeMap<String, Map<String, Value>>,
}

impl PointInputs {
    /// Opens the stores, checks that they have every variable, the same points and every time that the
    /// forecast needs, and reads the first state and the static features.
    ///
    /// # Errors
    /// What is missing or does not fit, naming store, variable and time. Forcing that is not finite is
    /// found when it is read.
    pub fn open(request: &PointRequest<'_>) -> Result<Self, PrepareError> {
        let PointRequest {
            interface, model, ..
        } = *request;
        let schedule = schedule(request)?;
        let dim = interface.grid.dims.first().map_or("", String::as_str);
        let mut stores: Vec<Store> = Vec::new();
        let roles = [PointRole::State, PointRole::Forcing, PointRole::Static];
        for input in roles.iter().filter_map(|role| model.store(*role)) {
            if stores.iter().all(|store| store.input != input) {
                stores.push(Store::open(request, input)?);
            }
        }
        let store = |role| {
            let input = model.store(role).unwrap_or(&model.stores.state);
            stores
                .iter()
                .position(|store| store.input == input)
                .unwrap_or(0)
        };
        let states: Vec<&str> = model
            .states
            .iter()
            .map(|state| state.name.as_str())
            .collect();
        let state_store = &stores[store(PointRole::State)];
        let points = state_store.points(states[0], dim)?;
        state_store.check_state(&states, dim, points, &schedule)?;
        let forcing: Vec<&str> = model.names(PointRole::Forcing).collect();
        if !forcing.is_empty() {
            let forcing_store = &stores[store(PointRole::Forcing)];
            forcing_store.check_forcing(&forcing, dim, points, &schedule)?;
        }
        let coordinates = place::check(&stores, model, dim, points)?;
        let statics: Vec<&str> = model.names(PointRole::Static).collect();
        let analysis = schedule.analysis;
        Ok(Self {
            schedule,
            points,
            state: state_store.read_columns(&states, dim, points, analysis)?,
            statics: stores[store(PointRole::Static)]
                .read_columns(&statics, dim, points, analysis)?,
            attributes: state_store.attributes(&states),
            forcing: forcing.into_iter().map(str::to_owned).collect(),
            forcing_store: store(PointRole::Forcing),
            stores,
            coordinates,
        })
    }

    /// A reader of the forcing of all steps in order.
    pub fn forcing(&self) -> ForcingReader<'_> {
        ForcingReader::new(
            &self.stores[self.forcing_store],
            &self.forcing,
            self.points as usize,
            self.schedule,
        )
    }

    /// Variables over the points that outputs get, too: the points themselves, if they are numbered,
    /// and the model's coordinates.
    pub fn coordinates(&self) -> &[Coordinate] {
        &self.coordinates
    }

    /// `units` and `long_name` of a variable of the state, where its store has them.
    pub fn attributes(&self, name: &str) -> Option<&Map<String, Value>> {
        self.attributes.get(name)
    }
}

/// The times of the forecast, all of which can be counted.
fn schedule(request: &PointRequest<'_>) -> Result<Schedule, PrepareError> {
    let analysis = request.analysis_time.unix_seconds();
    let step = request.interface.step_seconds;
    let last = i64::try_from(request.steps).ok();
    let last = last.and_then(|steps| steps.checked_mul(step)?.checked_add(analysis));
    match last {
        Some(_) => Ok(Schedule {
            analysis,
            last_known: analysis,
            step,
            steps: request.steps,
        }),
        None => Err(PrepareError::Request(format!(
            "a forecast of {} steps of {step} s ends beyond all times: ask for fewer steps",
            request.steps
        ))),
    }
}

//! What every step of a rollout needs besides the predicted states: read, checked, standardized
//! and windowed, one step at a time and in order.

use std::collections::VecDeque;

use mlwm_datasets::input_state::InitialState;
use mlwm_datasets::points::{ForcingReader, PointInputs};
use mlwm_datasets::prepare::{FeatureReader, Forcing, ForecastInputs};

use crate::forecast::{Forecast, Inputs};
use crate::standardize::{Standardization, standardized_static};
use crate::{RunnerError, noise};

/// What the static features of a model of points are called, which has them among others in one input.
const STATICS: &str = "static";

/// What a rollout starts from, standardized, `[grid_index, feature]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The known states, oldest first.
    pub states: Vec<Vec<f32>>,
    /// Static features by name of the model's input.
    pub statics: Vec<(String, Vec<f32>)>,
}

/// What one step needs, standardized.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInputs {
    /// Forcing by number of the model's forcing inputs, `[grid_index, feature * window]`.
    pub forcings: Vec<Vec<f32>>,
    /// The driving state at the boundary points, `[point, feature]`.
    pub boundary: Vec<f32>,
    /// Random numbers by number of the model's noise inputs, `[grid_index, channel]`.
    pub noise: Vec<Vec<f32>>,
}

/// Reads the inputs of a forecast step by step.
pub struct Producer<'a> {
    forecast: &'a Forecast<'a>,
    reader: Reader<'a>,
    steps_done: u64,
}

/// What known states and forcing are read from.
enum Reader<'a> {
    Datastores(DatastoreReader<'a>),
    State(&'a InitialState),
    Points(&'a PointInputs, ForcingReader<'a>),
}

impl<'a> Producer<'a> {
    /// A producer; nothing is read yet.
    pub fn new(forecast: &'a Forecast<'a>) -> Self {
        let reader = match &forecast.inputs {
            Inputs::Datastores(inputs) => Reader::Datastores(DatastoreReader::new(inputs)),
            Inputs::State(state) => Reader::State(state),
            Inputs::Points(inputs) => Reader::Points(inputs, inputs.forcing()),
        };
        Self {
            forecast,
            reader,
            steps_done: 0,
        }
    }

    /// The known states and static features.
    ///
    /// # Errors
    /// If they cannot be read or are not finite.
    pub fn start(&mut self) -> Result<Start, RunnerError> {
        match &mut self.reader {
            Reader::Datastores(reader) => reader.start(),
            Reader::State(state) => Ok(Start {
                states: state.states.clone(),
                statics: state.statics(self.forecast.interface),
            }),
            Reader::Points(inputs, _) => Ok(Start {
                states: vec![inputs.state.clone()],
                statics: vec![(STATICS.to_owned(), inputs.statics.clone())],
            }),
        }
    }

    /// The inputs of the next step.
    ///
    /// # Errors
    /// If they cannot be read or are not finite.
    pub fn step(&mut self) -> Result<StepInputs, RunnerError> {
        self.steps_done += 1;
        let time = self.forecast.schedule().valid_time(self.steps_done as i64);
        let (forcings, boundary) = match &mut self.reader {
            Reader::Datastores(reader) => reader.step(time)?,
            Reader::State(_) => (Vec::new(), Vec::new()),
            Reader::Points(_, forcing) => (vec![forcing.next_step()?], Vec::new()),
        };
        let noise = self.forecast.seed.map_or(vec![], |seed| {
            noise::of_step(self.forecast.interface, seed, self.steps_done)
        });
        Ok(StepInputs {
            forcings,
            boundary,
            noise,
        })
    }
}

/// Reads states and forcing from datasets, prepared as in training.
struct DatastoreReader<'a> {
    inputs: &'a ForecastInputs,
    state: FeatureReader<'a>,
    standardization: Standardization,
    windows: Vec<Window<'a>>,
}

impl<'a> DatastoreReader<'a> {
    fn new(inputs: &'a ForecastInputs) -> Self {
        Self {
            inputs,
            state: inputs.state.reader(&inputs.state_times()),
            standardization: Standardization::of(&inputs.state),
            windows: inputs
                .forcings
                .iter()
                .map(|forcing| Window::new(inputs, forcing))
                .collect(),
        }
    }

    fn start(&mut self) -> Result<Start, RunnerError> {
        let mut states = Vec::new();
        for time in self.inputs.known_times() {
            let mut state = self.state.read(Some(time))?;
            self.inputs.state.check_finite(&state, Some(time), None)?;
            self.standardization.apply(&mut state);
            states.push(state);
        }
        let mut statics = Vec::new();
        for (name, features) in &self.inputs.statics {
            statics.push((name.clone(), standardized_static(features)?));
        }
        Ok(Start { states, statics })
    }

    /// Forcing and boundary of the step to a time.
    fn step(&mut self, time: i64) -> Result<(Vec<Vec<f32>>, Vec<f32>), RunnerError> {
        let forcings = self
            .windows
            .iter_mut()
            .map(Window::next)
            .collect::<Result<_, _>>()?;
        Ok((forcings, self.boundary(time)?))
    }

    fn boundary(&mut self, time: i64) -> Result<Vec<f32>, RunnerError> {
        let points = &self.inputs.boundary;
        if points.is_empty() {
            return Ok(Vec::new());
        }
        let state = self.state.read(Some(time))?;
        self.inputs
            .state
            .check_finite(&state, Some(time), Some(points))?;
        let columns = self.inputs.state.len();
        let mut boundary = Vec::with_capacity(points.len() * columns);
        for point in points {
            boundary.extend_from_slice(&state[point * columns..(point + 1) * columns]);
        }
        self.standardization.apply(&mut boundary);
        Ok(boundary)
    }
}

/// Forcing in a window that moves one step at a time.
struct Window<'a> {
    forcing: &'a Forcing,
    reader: FeatureReader<'a>,
    standardization: Standardization,
    times: std::vec::IntoIter<i64>,
    /// Standardized forcing at the times of the window, oldest first.
    kept: VecDeque<Vec<f32>>,
}

impl<'a> Window<'a> {
    fn new(inputs: &ForecastInputs, forcing: &'a Forcing) -> Self {
        let times = inputs.forcing_times(forcing);
        Self {
            forcing,
            reader: forcing.features.reader(&times),
            standardization: Standardization::of(&forcing.features),
            times: times.into_iter(),
            kept: VecDeque::new(),
        }
    }

    /// The window of the next step, `[grid_index, feature * window]`, feature-major:
    /// `f0w0 f0w1 f0w2 f1w0 …`.
    fn next(&mut self) -> Result<Vec<f32>, RunnerError> {
        let length = (self.forcing.past + self.forcing.future + 1) as usize;
        self.kept.pop_front();
        while self.kept.len() < length {
            let time = self.times.next();
            let mut array = self.reader.read(time)?;
            self.forcing.features.check_finite(&array, time, None)?;
            self.standardization.apply(&mut array);
            self.kept.push_back(array);
        }
        let mut window = vec![0.0; self.kept[0].len() * length];
        for (lag, array) in self.kept.iter().enumerate() {
            // Point and feature together count the rows of the window.
            let cells = window[lag..].iter_mut().step_by(length);
            for (cell, value) in cells.zip(array) {
                *cell = *value;
            }
        }
        Ok(window)
    }
}

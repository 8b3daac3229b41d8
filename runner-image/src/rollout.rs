//! The rollout: three threads, so that the model never waits for data unless data is slower.
//!
//! One thread prepares the inputs of the next steps, one runs the model and overwrites the
//! boundary, one hands every state to its sink. Bounded channels keep the memory bounded.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use mlwm_datasets::prepare::ForecastInputs;
use mlwm_spec::Interface;
use mlwm_spec::interface::InputRole;

use crate::RunnerError;
use crate::producer::{Producer, Start, StepInputs};

/// Steps that may be prepared, or wait to be written, ahead of time.
const AHEAD: usize = 2;

/// An input of a step model: its name and values, `[1, grid_index, feature]`.
pub struct Feed<'a> {
    /// Name in the graph.
    pub name: &'a str,
    /// Points of its grid.
    pub points: usize,
    /// Values, in row-major order.
    pub values: &'a [f32],
}

/// A model that predicts one step.
pub trait StepModel {
    /// The standardized state one step later, `[grid_index, feature]`.
    ///
    /// # Errors
    /// If the model cannot be run on these inputs.
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<f32>, RunnerError>;
}

/// Where predicted states go.
pub trait Sink: Send {
    /// Takes the standardized state of a step (counted from 1), `[grid_index, feature]`.
    ///
    /// # Errors
    /// If it cannot be kept; the rollout ends.
    fn take(&mut self, step: u64, state: &[f32]) -> Result<(), RunnerError>;
}

/// How long a rollout took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutTimes {
    /// Loading the model, during which the first inputs are prepared.
    pub load: Duration,
    /// All steps, from the first inputs to the last prediction.
    pub rollout: Duration,
    /// The model alone.
    pub session: Duration,
    /// From the last prediction until it was taken by the sink.
    pub drain: Duration,
}

/// Runs a model over all steps of a forecast.
///
/// # Errors
/// The first of: inputs that cannot be prepared, a model that fails, predictions that are not
/// finite, a sink that fails.
pub fn roll_out<M: StepModel>(
    interface: &Interface,
    inputs: &ForecastInputs,
    load_model: impl FnOnce() -> Result<M, RunnerError>,
    sink: &mut impl Sink,
) -> Result<RolloutTimes, RunnerError> {
    std::thread::scope(|scope| {
        let (send_inputs, prepared) = sync_channel(AHEAD);
        let producer = scope.spawn(move || produce(inputs, &send_inputs));
        let (send_states, states) = sync_channel::<(u64, Arc<Vec<f32>>)>(AHEAD);
        let writer = scope.spawn(move || write(inputs, sink, states));

        let ran = run(interface, inputs, load_model, &prepared, send_states);
        drop(prepared); // Lets the producer end if the model did not.
        producer
            .join()
            .map_err(|_| RunnerError::Thread("preparation"))?;
        let drained = writer.join().map_err(|_| RunnerError::Thread("writing"))?;
        // If the writer failed, the model only noticed that nobody listens.
        let written = drained?;
        let (mut times, finished) = ran?;
        times.drain = written.saturating_duration_since(finished);
        Ok(times)
    })
}

/// What the producer sends: first the start, then the steps.
enum Prepared {
    Start(Start),
    Step(StepInputs),
}

fn produce(inputs: &ForecastInputs, send: &SyncSender<Result<Prepared, RunnerError>>) {
    let mut producer = Producer::new(inputs);
    let start = producer.start().map(Prepared::Start);
    let mut failed = start.is_err();
    if send.send(start).is_err() {
        return;
    }
    for _ in 0..inputs.schedule.steps {
        if failed {
            return;
        }
        let step = producer.step().map(Prepared::Step);
        failed = step.is_err();
        if send.send(step).is_err() {
            return;
        }
    }
}

fn run<M: StepModel>(
    interface: &Interface,
    inputs: &ForecastInputs,
    load_model: impl FnOnce() -> Result<M, RunnerError>,
    prepared: &Receiver<Result<Prepared, RunnerError>>,
    send: SyncSender<(u64, Arc<Vec<f32>>)>,
) -> Result<(RolloutTimes, Instant), RunnerError> {
    let next = || match prepared.recv() {
        Ok(next) => next,
        Err(_) => Err(RunnerError::Thread("preparation")),
    };
    let begin = Instant::now();
    let mut model = load_model()?;
    let mut times = RolloutTimes {
        load: begin.elapsed(),
        ..RolloutTimes::default()
    };
    let Prepared::Start(start) = next()? else {
        return Err(RunnerError::Thread("preparation"));
    };
    let points = inputs.state.points();
    let columns = inputs.state.len();
    let mut states: Vec<Arc<Vec<f32>>> = start.states.into_iter().map(Arc::new).collect();
    let begin = Instant::now();
    for step in 1..=inputs.schedule.steps {
        let Prepared::Step(step_inputs) = next()? else {
            return Err(RunnerError::Thread("preparation"));
        };
        let mut forcings = inputs.forcings.iter().zip(&step_inputs.forcings);
        let mut statics = inputs.statics.iter().zip(&start.statics);
        let mut feeds = Vec::with_capacity(interface.inputs.len());
        for input in &interface.inputs {
            let (points, values) = match &input.role {
                InputRole::State { steps_back } => (
                    points,
                    states[states.len() - 1 - *steps_back as usize].as_slice(),
                ),
                InputRole::Forcing { .. } => match forcings.next() {
                    Some((forcing, values)) => (forcing.features.points(), values.as_slice()),
                    None => (0, [].as_slice()),
                },
                InputRole::Static { .. } => match statics.next() {
                    Some(((_, features), (_, values))) => (features.points(), values.as_slice()),
                    None => (0, [].as_slice()),
                },
            };
            feeds.push(Feed {
                name: &input.name,
                points,
                values,
            });
        }
        let called = Instant::now();
        let mut state = model.step(&feeds)?;
        times.session += called.elapsed();
        for (point, row) in inputs
            .boundary
            .iter()
            .zip(step_inputs.boundary.chunks_exact(columns))
        {
            state[point * columns..(point + 1) * columns].copy_from_slice(row);
        }
        let state = Arc::new(state);
        states.rotate_left(1);
        if let Some(last) = states.last_mut() {
            *last = Arc::clone(&state);
        }
        if send.send((step, state)).is_err() {
            return Err(RunnerError::Thread("writing"));
        }
    }
    times.rollout = begin.elapsed();
    Ok((times, Instant::now()))
}

/// Hands states to the sink, once they are known to be finite. Returns when it was done.
fn write(
    inputs: &ForecastInputs,
    sink: &mut impl Sink,
    states: Receiver<(u64, Arc<Vec<f32>>)>,
) -> Result<Instant, RunnerError> {
    for (step, state) in states {
        check_prediction(inputs, step, &state)?;
        sink.take(step, &state)?;
    }
    Ok(Instant::now())
}

fn check_prediction(inputs: &ForecastInputs, step: u64, state: &[f32]) -> Result<(), RunnerError> {
    if state.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let columns = inputs.state.len();
    let count = |column: usize| {
        state[column..]
            .iter()
            .step_by(columns)
            .filter(|value| !value.is_finite())
            .count()
    };
    let worst = inputs
        .state
        .features()
        .enumerate()
        .find(|(column, _)| count(*column) > 0);
    match worst {
        None => Ok(()),
        Some((column, feature)) => Err(RunnerError::NotFinite {
            step,
            time: inputs.schedule.valid_time(step as i64),
            feature: feature.name.clone(),
            count: count(column),
        }),
    }
}

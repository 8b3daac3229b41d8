//! The rollout: three threads, so that the model never waits for data unless data is slower.
//!
//! One thread prepares the inputs of the next steps, one runs the model and overwrites the
//! boundary, one hands every state to its sink. Bounded channels keep the memory bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::RunnerError;
use crate::forecast::Forecast;
use crate::producer::{Producer, Start, StepInputs};
use crate::stepping::Steps;

/// How often steps may be prepared, or wait to be written, ahead of time: one step, or as many as are
/// handed over at once where they are small.
const AHEAD: usize = 2;

/// An input of a step model.
pub struct Feed<'a> {
    /// Name in the graph.
    pub name: &'a str,
    /// Length of its dimensions.
    pub shape: &'a [usize],
    /// Values, in row-major order.
    pub values: &'a [f32],
}

/// A model that predicts one step.
pub trait StepModel {
    /// The outputs in the order of the interface, with the dimensions that it gives them.
    ///
    /// # Errors
    /// If the model cannot be run on these inputs.
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError>;
}

impl<M: StepModel> StepModel for &mut M {
    fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
        (**self).step(feeds)
    }
}

/// Where predictions go.
pub trait Sink: Send {
    /// Takes the prediction of a step (counted from 1), `[grid_index, variable]`: the features of
    /// the state, standardized, then the diagnostics. NaN where a variable has no value.
    ///
    /// # Errors
    /// If it cannot be kept; the rollout ends.
    fn take(&mut self, step: u64, predicted: &[f32]) -> Result<(), RunnerError>;

    /// A sign that is given when the rollout fails while [`Self::take`] may wait for something.
    fn abandoned(&self) -> Option<Arc<AtomicBool>> {
        None
    }
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

/// Runs a model over all steps of a forecast. `load_models` gives as many of it as threads may use it at the same
/// time; the first alone predicts a grid.
///
/// # Errors
/// The first of: inputs that cannot be prepared, a model that fails, predictions that are not
/// finite, a sink that fails.
pub fn roll_out<M: StepModel + Send>(
    forecast: &Forecast<'_>,
    load_models: impl FnOnce() -> Result<Vec<M>, RunnerError>,
    sink: &mut impl Sink,
) -> Result<RolloutTimes, RunnerError> {
    std::thread::scope(|scope| {
        let (send_inputs, prepared) = sync_channel(AHEAD);
        let producer = scope.spawn(move || produce(forecast, &send_inputs));
        let (send_states, states) = sync_channel::<Vec<Predicted>>(AHEAD);
        let abandoned = sink.abandoned();
        let writer = scope.spawn(move || write(forecast, sink, states));

        let ran = run(forecast, load_models, &prepared, send_states);
        if let (Err(_), Some(abandoned)) = (&ran, abandoned) {
            abandoned.store(true, Ordering::Relaxed);
        }
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
    Steps(Vec<StepInputs>),
}

/// A step, from 1, and what is predicted of it.
type Predicted = (u64, Arc<Vec<f32>>);

fn produce(forecast: &Forecast<'_>, send: &SyncSender<Result<Prepared, RunnerError>>) {
    let mut producer = Producer::new(forecast);
    let start = producer.start().map(Prepared::Start);
    let mut failed = start.is_err();
    if send.send(start).is_err() {
        return;
    }
    let mut left = forecast.schedule().steps;
    while left > 0 && !failed {
        let count = left.min(forecast.steps_at_once());
        left -= count;
        let steps: Result<Vec<StepInputs>, _> = (0..count).map(|_| producer.step()).collect();
        failed = steps.is_err();
        if send.send(steps.map(Prepared::Steps)).is_err() {
            return;
        }
    }
}

fn run<M: StepModel + Send>(
    forecast: &Forecast<'_>,
    load_models: impl FnOnce() -> Result<Vec<M>, RunnerError>,
    prepared: &Receiver<Result<Prepared, RunnerError>>,
    send: SyncSender<Vec<Predicted>>,
) -> Result<(RolloutTimes, Instant), RunnerError> {
    let next = || match prepared.recv() {
        Ok(next) => next,
        Err(_) => Err(RunnerError::Thread("preparation")),
    };
    let begin = Instant::now();
    let mut models = load_models()?;
    let mut times = RolloutTimes {
        load: begin.elapsed(),
        ..RolloutTimes::default()
    };
    let Prepared::Start(start) = next()? else {
        return Err(RunnerError::Thread("preparation"));
    };
    let mut stepping = Steps::new(forecast, start);
    let begin = Instant::now();
    let mut done = 0;
    while done < forecast.schedule().steps {
        let Prepared::Steps(steps) = next()? else {
            return Err(RunnerError::Thread("preparation"));
        };
        let stretch = stepping.over(&mut models, &steps)?;
        times.session += stretch.taken;
        let predicted = (done + 1..).zip(stretch.predicted).collect();
        done += steps.len() as u64;
        if send.send(predicted).is_err() {
            return Err(RunnerError::Thread("writing"));
        }
    }
    times.rollout = begin.elapsed();
    Ok((times, Instant::now()))
}

/// Hands predictions to the sink, once they are known to be finite. Returns when it was done.
fn write(
    forecast: &Forecast<'_>,
    sink: &mut impl Sink,
    states: Receiver<Vec<Predicted>>,
) -> Result<Instant, RunnerError> {
    let columns = forecast.variables().count();
    for (step, mut predicted) in states.into_iter().flatten() {
        if !forecast.masks().is_empty() {
            // Where a variable has no value, anything may have come out of the model.
            let predicted = Arc::make_mut(&mut predicted);
            set_missing(forecast, predicted, columns, 0.0);
        }
        check_prediction(forecast, step, &predicted, columns)?;
        if !forecast.masks().is_empty() {
            let predicted = Arc::make_mut(&mut predicted);
            set_missing(forecast, predicted, columns, f32::NAN);
        }
        sink.take(step, &predicted)?;
    }
    Ok(Instant::now())
}

fn set_missing(forecast: &Forecast<'_>, predicted: &mut [f32], columns: usize, value: f32) {
    for mask in forecast.masks() {
        for point in &mask.points {
            predicted[point * columns + mask.column] = value;
        }
    }
}

fn check_prediction(
    forecast: &Forecast<'_>,
    step: u64,
    predicted: &[f32],
    columns: usize,
) -> Result<(), RunnerError> {
    if predicted.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let states = forecast.interface.state.names.len();
    let count = |column: usize| {
        predicted[column..]
            .iter()
            .step_by(columns)
            .filter(|value| !value.is_finite())
            .count()
    };
    // A feature that stays as it is may be missing somewhere.
    let worst = forecast.variables().enumerate().find(|(column, name)| {
        (*column >= states || forecast.is_predicted(name)) && count(*column) > 0
    });
    match worst {
        None => Ok(()),
        Some((column, name)) => Err(RunnerError::NotFinite {
            step,
            time: forecast.schedule().valid_time(step as i64),
            feature: name.to_owned(),
            count: count(column),
        }),
    }
}

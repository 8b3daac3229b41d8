//! From one step to the next for a model of points: one tensor of features, of which every step
//! changes what changes, and a state that increments are added to. Points know nothing of each other, so
//! that parts of them go over several steps on processors of their own.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mlwm_spec::interface::{PointModel, PointRole, PointState, Predicts, Scale};

use crate::RunnerError;
use crate::producer::{Start, StepInputs};
use crate::rollout::{Feed, StepModel};
use crate::stepping::Stretch;

/// How many points a part has at most: its features stay in the cache of a processor.
const MOST_IN_PART: usize = 4096;

/// How many parts few points are in: several processors have something to do.
const FEWEST_PARTS: usize = 4;

/// How many points a part of few has at least: to call a model takes as long as one.
const LEAST_IN_PART: usize = 4;

/// How many parts so many points are in. It does not depend on the machine, so that what is predicted does not.
pub(crate) fn parts_of(points: usize) -> usize {
    let of_few = FEWEST_PARTS.min(points / LEAST_IN_PART).max(1);
    points.div_ceil(MOST_IN_PART).max(of_few)
}

/// A rollout of a model of points.
pub(crate) struct PointStepping<'a> {
    parts: Vec<Part<'a>>,
}

impl<'a> PointStepping<'a> {
    /// Of so many points; `start` has the only known state and the static features.
    pub(crate) fn new(model: &'a PointModel, points: usize, start: &Start) -> Self {
        let count = parts_of(points);
        let range = |part: usize| part * points / count..(part + 1) * points / count;
        Self {
            parts: (0..count)
                .map(|part| Part::new(model, range(part), start))
                .collect(),
        }
    }

    /// Goes over these steps with one model for each thread.
    pub(crate) fn over<M: StepModel + Send>(
        &mut self,
        models: &mut [M],
        steps: &[StepInputs],
    ) -> Result<Stretch, RunnerError> {
        let threads = models.len().max(1) as u32;
        let waiting = Mutex::new(self.parts.iter_mut());
        let next = || {
            waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next()
        };
        let work = |model: &mut M| {
            let mut taken = Duration::ZERO;
            while let Some(part) = next() {
                taken += part.over(model, steps)?;
            }
            Ok::<_, RunnerError>(taken)
        };
        let mut taken = Duration::ZERO;
        match models {
            [model] => taken += work(model)?,
            models => std::thread::scope(|scope| {
                let work = &work;
                let workers: Vec<_> = models
                    .iter_mut()
                    .map(|model| scope.spawn(move || work(model)))
                    .collect();
                for worker in workers {
                    taken += worker
                        .join()
                        .map_err(|_| RunnerError::Thread("the model"))??;
                }
                Ok::<_, RunnerError>(())
            })?,
        }
        let state = |step: usize| {
            let parts = self
                .parts
                .iter()
                .map(|part| part.predicted[step].as_slice());
            Arc::new(parts.collect::<Vec<_>>().concat())
        };
        Ok(Stretch {
            predicted: (0..steps.len()).map(state).collect(),
            taken: taken / threads,
        })
    }
}

/// Some of the points.
struct Part<'a> {
    model: &'a PointModel,
    points: Range<usize>,
    shape: [usize; 2],
    /// What the model is given, `[point, feature]`.
    features: Vec<f32>,
    /// The last state, `[point, state]`.
    state: Vec<f32>,
    forcing: Vec<Column>,
    states: Vec<Column>,
    /// What was predicted of the steps that it went over last, `[point, state]` of each.
    predicted: Vec<Vec<f32>>,
}

/// A column of the model's input, and what it is made of.
struct Column {
    /// Its number.
    to: usize,
    /// Number of the column in forcing or state.
    from: usize,
    scale: Option<Scale>,
}

impl<'a> Part<'a> {
    fn new(model: &'a PointModel, points: Range<usize>, start: &Start) -> Self {
        let shape = [points.len(), model.features.len()];
        let state = start.states.last().map_or(&[][..], Vec::as_slice);
        let mut part = Self {
            model,
            shape,
            features: vec![0.0; shape[0] * shape[1]],
            state: of_points(state, &points, model.states.len()).to_vec(),
            forcing: columns(model, PointRole::Forcing),
            states: columns(model, PointRole::State),
            predicted: Vec::new(),
            points,
        };
        let statics = columns(model, PointRole::Static);
        for (_, values) in &start.statics {
            let values = of_points(values, &part.points, statics.len());
            fill(
                &mut part.features,
                shape[1],
                &statics,
                values,
                statics.len(),
            );
        }
        part
    }

    /// Goes over these steps, and returns how long the model was at work.
    fn over(
        &mut self,
        model: &mut impl StepModel,
        steps: &[StepInputs],
    ) -> Result<Duration, RunnerError> {
        self.predicted.clear();
        let mut taken = Duration::ZERO;
        for step in steps {
            self.prepare(step);
            let called = Instant::now();
            let outputs = model.step(&[self.feed()])?;
            taken += called.elapsed();
            self.advance(outputs)?;
            self.predicted.push(self.state.clone());
        }
        Ok(taken)
    }

    /// Makes the features those of the next step.
    fn prepare(&mut self, step: &StepInputs) {
        let (width, forcings) = (self.shape[1], self.forcing.len());
        for forcing in &step.forcings {
            let forcing = of_points(forcing, &self.points, forcings);
            fill(&mut self.features, width, &self.forcing, forcing, forcings);
        }
        let states = self.model.states.len();
        fill(&mut self.features, width, &self.states, &self.state, states);
    }

    /// The input of the graph.
    fn feed(&self) -> Feed<'_> {
        Feed {
            name: &self.model.input,
            shape: &self.shape,
            values: &self.features,
        }
    }

    /// Takes the output of the graph, and makes the state that follows.
    fn advance(&mut self, outputs: Vec<Vec<f32>>) -> Result<(), RunnerError> {
        let mut values = outputs.into_iter().next().unwrap_or_default();
        if values.len() != self.state.len() {
            return Err(RunnerError::Artifact(format!(
                "the model returned {} values for {} points, not {} for each",
                values.len(),
                self.shape[0],
                self.model.states.len()
            )));
        }
        let states = &self.model.states;
        let rows = values.chunks_exact_mut(states.len());
        for (row, last) in rows.zip(self.state.chunks_exact(states.len())) {
            for ((value, last), state) in row.iter_mut().zip(last).zip(states) {
                let predicted = match state.scale {
                    Some(scale) => *value * scale.std + scale.mean,
                    None => *value,
                };
                *value = bounded(
                    state,
                    match self.model.predicts {
                        Predicts::Increments => last + predicted,
                        Predicts::State => predicted,
                    },
                );
            }
        }
        self.state = values;
        Ok(())
    }
}

/// The values of some points, of all those in `[point, width]`.
fn of_points<'a>(values: &'a [f32], points: &Range<usize>, width: usize) -> &'a [f32] {
    &values[points.start * width..points.end * width]
}

/// A value within the bounds of its variable; NaN stays NaN, so that it is noticed.
fn bounded(state: &PointState, value: f32) -> f32 {
    match (state.lower, state.upper) {
        (Some(lower), _) if value < lower => lower,
        (_, Some(upper)) if value > upper => upper,
        _ => value,
    }
}

/// The columns of features of a role. Static features and forcing come in the order of the features,
/// states in their own.
fn columns(model: &PointModel, role: PointRole) -> Vec<Column> {
    let of_role = model
        .features
        .iter()
        .enumerate()
        .filter(|(_, one)| one.role == role);
    let column =
        |(number, (to, feature)): (usize, (usize, &mlwm_spec::interface::PointFeature))| {
            let state = model
                .states
                .iter()
                .position(|state| state.name == feature.name);
            Column {
                to,
                from: match role {
                    PointRole::State => state.unwrap_or(number),
                    PointRole::Static | PointRole::Forcing => number,
                },
                scale: feature.scale,
            }
        };
    of_role.enumerate().map(column).collect()
}

/// Fills columns of `[point, width]` from `[point, from_width]`.
fn fill(features: &mut [f32], width: usize, columns: &[Column], from: &[f32], from_width: usize) {
    let rows = features.chunks_exact_mut(width.max(1));
    for (row, from) in rows.zip(from.chunks_exact(from_width.max(1))) {
        for column in columns {
            let value = from[column.from];
            row[column.to] = match column.scale {
                Some(scale) => (value - scale.mean) / scale.std,
                None => value,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use mlwm_spec::Interface;
    use serde_json::json;

    use super::*;

    fn interface(predicts: &str) -> Interface {
        serde_json::from_value(json!({
            "version": 3, "step_seconds": 3600, "points": "x",
            "inputs": {"state": "a", "forcing": "a", "static": "a"},
            "input": "f", "output": "o", "predicts": predicts,
            "features": [
                {"name": "b", "role": "state"},
                {"name": "rain", "role": "forcing", "scale": {"mean": 1.0, "std": 2.0}},
                {"name": "soil", "role": "static"},
                {"name": "a", "role": "state", "scale": {"mean": 0.0, "std": 10.0}},
            ],
            "states": [
                {"name": "a", "lower": 0.0, "scale": {"mean": 0.5, "std": 2.0}},
                {"name": "b", "upper": 100.0},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn features_lie_in_their_order_and_increments_are_scaled_added_and_bounded() {
        let interface = interface("increments");
        let start = Start {
            states: vec![vec![10.0, 98.0, 1.0, 50.0]],
            statics: vec![("f".to_owned(), vec![7.0, 8.0])],
        };
        let model = interface.points.as_ref().unwrap();
        let mut part = Part::new(model, 0..2, &start);
        let features = |part: &mut Part<'_>, rain: [f32; 2]| {
            part.prepare(&raining(&rain));
            let feed = part.feed();
            assert_eq!((feed.name, feed.shape), ("f", &[2, 4][..]));
            feed.values.to_vec()
        };
        assert_eq!(
            features(&mut part, [3.0, 5.0]),
            [98.0, 1.0, 7.0, 1.0, 50.0, 2.0, 8.0, 0.1]
        );
        // a + 2 r + 0.5, not below 0; b + r, not above 100.
        part.advance(vec![vec![1.0, 3.0, -1.0, -60.0]]).unwrap();
        assert_eq!(part.state, [12.5, 100.0, 0.0, -10.0]);
        assert_eq!(
            features(&mut part, [1.0, 1.0]),
            [100.0, 0.0, 7.0, 1.25, -10.0, 0.0, 8.0, 0.0]
        );
        part.advance(vec![vec![f32::NAN; 4]]).unwrap();
        assert!(part.state[0].is_nan());
        let error = part.advance(vec![vec![0.0; 3]]).unwrap_err();
        assert!(error.to_string().contains("3 values for 2 points"));
    }

    #[test]
    fn a_model_may_predict_the_state_itself() {
        let interface = interface("state");
        let start = Start {
            states: vec![vec![10.0, 98.0]],
            statics: vec![("f".to_owned(), vec![7.0])],
        };
        let model = interface.points.as_ref().unwrap();
        let mut part = Part::new(model, 0..1, &start);
        part.advance(vec![vec![-1.0, 3.0]]).unwrap();
        assert_eq!(part.state, [0.0, 3.0]);
    }

    fn raining(rain: &[f32]) -> StepInputs {
        StepInputs {
            forcings: vec![rain.to_vec()],
            boundary: vec![],
            noise: vec![],
        }
    }

    /// Predicts of every point something that depends on all its features, and on no other point's.
    struct Mixing;

    impl StepModel for Mixing {
        fn step(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, RunnerError> {
            let mix = |row: &[f32]| {
                let sum = row
                    .iter()
                    .fold(0.1, |sum: f32, value| (sum * 1.7 + value).sin());
                [sum, sum * 2.0]
            };
            Ok(vec![feeds[0].values.chunks(4).flat_map(mix).collect()])
        }
    }

    #[test]
    fn any_number_of_threads_predicts_what_one_part_does() {
        let interface = interface("increments");
        let model = interface.points.as_ref().unwrap();
        for points in [1, 2, 3, 7, 10, 1500, 5000] {
            let some = |count: usize, seed: f32| -> Vec<f32> {
                (0..count)
                    .map(|at| (at as f32 * seed).sin() * 50.0)
                    .collect()
            };
            let start = Start {
                states: vec![some(points * 2, 0.3)],
                statics: vec![("f".to_owned(), some(points, 0.7))],
            };
            let steps: Vec<StepInputs> = (1..=5)
                .map(|step| raining(&some(points, step as f32)))
                .collect();
            let mut whole = Part::new(model, 0..points, &start);
            whole.over(&mut Mixing, &steps).unwrap();
            for threads in [1, 2, 3] {
                let mut models: Vec<Mixing> = (0..threads).map(|_| Mixing).collect();
                let mut stepping = PointStepping::new(model, points, &start);
                assert!(stepping.parts.iter().all(|part| part.shape[0] > 0));
                // What is predicted does not depend on how many steps are gone over at once, either.
                for (at, steps) in [(0, &steps[..2]), (2, &steps[2..])] {
                    let stretch = stepping.over(&mut models, steps).unwrap();
                    for (predicted, whole) in stretch.predicted.iter().zip(&whole.predicted[at..]) {
                        assert_eq!(**predicted, *whole, "{points} points, {threads} threads");
                    }
                }
            }
        }
    }
}

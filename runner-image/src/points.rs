//! From one step to the next for a model of points: one tensor of features, of which every step
//! changes what changes, and a state that increments are added to.

use std::borrow::Cow;
use std::sync::Arc;

use mlwm_spec::interface::{PointModel, PointRole, PointState, Predicts, Scale};

use crate::RunnerError;
use crate::producer::{Start, StepInputs};
use crate::stepping::Tensor;

/// A rollout of a model of points between two steps.
pub(crate) struct PointStepping<'a> {
    model: &'a PointModel,
    shape: [usize; 2],
    /// What the model is given, `[point, feature]`.
    features: Vec<f32>,
    /// The last state, `[point, state]`.
    state: Arc<Vec<f32>>,
    forcing: Vec<Column>,
    states: Vec<Column>,
}

/// A column of the model's input, and what it is made of.
struct Column {
    /// Its number.
    to: usize,
    /// Number of the column in forcing or state.
    from: usize,
    scale: Option<Scale>,
}

impl<'a> PointStepping<'a> {
    /// Of so many points; `start` has the only known state and the static features.
    pub(crate) fn new(model: &'a PointModel, points: usize, start: Start) -> Self {
        let shape = [points, model.features.len()];
        let mut stepping = Self {
            model,
            shape,
            features: vec![0.0; points * model.features.len()],
            state: Arc::new(start.states.into_iter().next_back().unwrap_or_default()),
            forcing: columns(model, PointRole::Forcing),
            states: columns(model, PointRole::State),
        };
        let statics = columns(model, PointRole::Static);
        for (_, values) in &start.statics {
            fill(
                &mut stepping.features,
                shape[1],
                &statics,
                values,
                statics.len(),
            );
        }
        stepping
    }

    /// The input of the graph for the next step.
    pub(crate) fn tensors<'b>(&'b mut self, step: &StepInputs) -> Vec<Tensor<'b>> {
        let width = self.shape[1];
        for forcing in &step.forcings {
            fill(
                &mut self.features,
                width,
                &self.forcing,
                forcing,
                self.forcing.len(),
            );
        }
        let states = self.model.states.len();
        fill(&mut self.features, width, &self.states, &self.state, states);
        vec![Tensor {
            name: &self.model.input,
            shape: &self.shape,
            values: Cow::Borrowed(&self.features),
        }]
    }

    /// Takes the output of the graph and returns the state that follows, `[point, state]`.
    pub(crate) fn advance(&mut self, outputs: Vec<Vec<f32>>) -> Result<Arc<Vec<f32>>, RunnerError> {
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
        self.state = Arc::new(values);
        Ok(Arc::clone(&self.state))
    }
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
        let mut stepping = PointStepping::new(model, 2, start);
        let step = |rain: [f32; 2]| StepInputs {
            forcings: vec![rain.to_vec()],
            boundary: vec![],
            noise: vec![],
        };
        let features = |stepping: &mut PointStepping<'_>, rain| {
            let step = step(rain);
            let tensors = stepping.tensors(&step);
            let feed = tensors[0].feed();
            assert_eq!((feed.name, feed.shape), ("f", &[2, 4][..]));
            feed.values.to_vec()
        };
        assert_eq!(
            features(&mut stepping, [3.0, 5.0]),
            [98.0, 1.0, 7.0, 1.0, 50.0, 2.0, 8.0, 0.1]
        );
        // a + 2 r + 0.5, not below 0; b + r, not above 100.
        let next = stepping.advance(vec![vec![1.0, 3.0, -1.0, -60.0]]).unwrap();
        assert_eq!(*next, [12.5, 100.0, 0.0, -10.0]);
        assert_eq!(
            features(&mut stepping, [1.0, 1.0]),
            [100.0, 0.0, 7.0, 1.25, -10.0, 0.0, 8.0, 0.0]
        );
        assert!(stepping.advance(vec![vec![f32::NAN; 4]]).unwrap()[0].is_nan());
        let error = stepping.advance(vec![vec![0.0; 3]]).unwrap_err();
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
        let mut stepping = PointStepping::new(model, 1, start);
        let next = stepping.advance(vec![vec![-1.0, 3.0]]).unwrap();
        assert_eq!(*next, [0.0, 3.0]);
    }
}

//! From one step to the next: the states that the model looks at, as the tensors that it takes,
//! and its outputs as the state that follows.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlwm_spec::interface::{Dim, InputRole, ModelInput, ModelOutput, OutputRole};
use ndarray::{ArrayView2, ArrayView3, ArrayViewD, ArrayViewMut2, Axis};

use crate::RunnerError;
use crate::arrange::{arrange, as_grid_feature};
use crate::forecast::Forecast;
use crate::points::PointStepping;
use crate::producer::{Start, StepInputs};
use crate::rollout::{Feed, StepModel};

/// Some steps that a rollout went over.
pub(crate) struct Stretch {
    /// What is predicted of each, `[grid_index, variable]`.
    pub(crate) predicted: Vec<Arc<Vec<f32>>>,
    /// How long the model was at work.
    pub(crate) taken: Duration,
}

/// A rollout between two steps, of a model on a grid or of points.
pub(crate) enum Steps<'a> {
    Grid(Stepping<'a>),
    Points(PointStepping<'a>),
}

impl<'a> Steps<'a> {
    pub(crate) fn new(forecast: &'a Forecast<'a>, start: Start) -> Self {
        match &forecast.interface.points {
            Some(model) => Self::Points(PointStepping::new(model, forecast.points(), &start)),
            None => Self::Grid(Stepping::new(forecast, start)),
        }
    }

    /// Goes over these steps, with one model for each thread that has something to do.
    pub(crate) fn over<M: StepModel + Send>(
        &mut self,
        models: &mut [M],
        steps: &[StepInputs],
    ) -> Result<Stretch, RunnerError> {
        match (self, models) {
            (_, []) => Err(RunnerError::Thread("the model")),
            (Self::Grid(stepping), [model, ..]) => stepping.over(model, steps),
            (Self::Points(stepping), models) => stepping.over(models, steps),
        }
    }
}

/// A rollout of a model on a grid between two steps.
pub(crate) struct Stepping<'a> {
    forecast: &'a Forecast<'a>,
    inputs: Vec<Input<'a>>,
    outputs: Vec<Output<'a>>,
    /// The states that the model looks at, oldest first, `[grid_index, feature]`.
    states: Vec<Arc<Vec<f32>>>,
    statics: Vec<(String, Vec<f32>)>,
    points: usize,
    features: usize,
    /// All variables of the outputs: the features, and the diagnostics.
    columns: usize,
}

/// An input of the graph.
struct Input<'a> {
    input: &'a ModelInput,
    shape: Vec<usize>,
    /// The features of the state that it has, if not all.
    columns: Option<Vec<usize>>,
}

/// An output of the graph.
struct Output<'a> {
    output: &'a ModelOutput,
    shape: Vec<usize>,
    /// Where each of its features is among the variables.
    columns: Vec<usize>,
    /// Whether it is the next state as the runner has it.
    is_whole_state: bool,
}

/// A tensor to feed.
struct Tensor<'a> {
    name: &'a str,
    shape: &'a [usize],
    values: Cow<'a, [f32]>,
}

impl Tensor<'_> {
    fn feed(&self) -> Feed<'_> {
        Feed {
            name: self.name,
            shape: self.shape,
            values: &self.values,
        }
    }
}

fn lengths(shape: &[u64]) -> Vec<usize> {
    shape.iter().map(|length| *length as usize).collect()
}

impl<'a> Stepping<'a> {
    fn new(forecast: &'a Forecast<'a>, start: Start) -> Self {
        let interface = forecast.interface;
        let variables: Vec<&str> = forecast.variables().collect();
        let column = |name: &String| variables.iter().position(|there| there == name);
        let input = |input: &'a ModelInput| Input {
            input,
            shape: lengths(&interface.input_shape(input)),
            columns: match &input.role {
                InputRole::State { features, .. } if !features.is_empty() => {
                    Some(features.iter().filter_map(column).collect())
                }
                _ => None,
            },
        };
        let output = |output: &'a ModelOutput| {
            let columns: Vec<usize> = interface
                .features_of(output)
                .iter()
                .filter_map(column)
                .collect();
            Output {
                shape: lengths(&interface.output_shape(output)),
                is_whole_state: columns.iter().copied().eq(0..interface.state.names.len())
                    && output.dims == Dim::NEURAL_LAM,
                columns,
                output,
            }
        };
        Self {
            inputs: interface.inputs.iter().map(input).collect(),
            outputs: interface.outputs.iter().map(output).collect(),
            states: start.states.into_iter().map(Arc::new).collect(),
            statics: start.statics,
            points: forecast.points(),
            features: interface.state.names.len(),
            columns: variables.len(),
            forecast,
        }
    }

    fn over(
        &mut self,
        model: &mut impl StepModel,
        steps: &[StepInputs],
    ) -> Result<Stretch, RunnerError> {
        let mut taken = Duration::ZERO;
        let mut predicted = Vec::with_capacity(steps.len());
        for step in steps {
            let tensors = self.tensors(step)?;
            let feeds: Vec<Feed<'_>> = tensors.iter().map(Tensor::feed).collect();
            let called = Instant::now();
            let outputs = model.step(&feeds)?;
            taken += called.elapsed();
            drop(feeds);
            drop(tensors);
            predicted.push(self.advance(outputs, step)?);
        }
        Ok(Stretch { predicted, taken })
    }

    /// The inputs of the graph for the next step.
    fn tensors<'b>(&'b self, step: &'b StepInputs) -> Result<Vec<Tensor<'b>>, RunnerError> {
        let mut forcings = step.forcings.iter();
        let mut statics = self.statics.iter();
        let mut noise = step.noise.iter();
        let mut tensors = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let values = match &input.input.role {
                InputRole::State { steps_back, .. } => Some(self.of_states(input, steps_back)?),
                InputRole::Forcing { past, future, .. } => match forcings.next() {
                    Some(values) => {
                        Some(self.of_window(input, values, (past + future + 1) as usize)?)
                    }
                    None => None,
                },
                InputRole::Static { .. } => match statics.next() {
                    Some((_, values)) => Some(self.of_array(input, values)?),
                    None => None,
                },
                InputRole::Noise { .. } => match noise.next() {
                    Some(values) => Some(self.of_array(input, values)?),
                    None => None,
                },
            };
            tensors.push(Tensor {
                name: &input.input.name,
                shape: &input.shape,
                values: values.ok_or_else(|| unfit(&input.input.name))?,
            });
        }
        Ok(tensors)
    }

    fn of_states<'b>(
        &'b self,
        input: &Input<'_>,
        steps_back: &[u64],
    ) -> Result<Cow<'b, [f32]>, RunnerError> {
        let mut owned = Vec::new();
        let mut states = Vec::with_capacity(steps_back.len());
        for back in steps_back {
            let at = self.states.len().checked_sub(1 + *back as usize);
            let state = at.and_then(|at| self.states.get(at));
            let state = state.ok_or_else(|| unfit(&input.input.name))?;
            let state = ArrayView2::from_shape((self.points, self.features), state)
                .map_err(|_| unfit(&input.input.name))?;
            match &input.columns {
                None => states.push(state),
                Some(columns) => owned.push(state.select(Axis(1), columns)),
            }
        }
        let dims = &input.input.dims;
        if owned.is_empty() {
            return Ok(arrange(dims, &input.shape, &states));
        }
        let views: Vec<_> = owned.iter().map(|state| state.view()).collect();
        Ok(Cow::Owned(arrange(dims, &input.shape, &views).into_owned()))
    }

    /// A window is `[grid_index, feature * window]`, feature-major: as it is, or with the window
    /// as time.
    fn of_window<'b>(
        &self,
        input: &Input<'_>,
        values: &'b [f32],
        window: usize,
    ) -> Result<Cow<'b, [f32]>, RunnerError> {
        if !input.input.dims.contains(&Dim::Time) {
            return self.of_array(input, values);
        }
        let unfit = || unfit(&input.input.name);
        let points = points_of(input).ok_or_else(unfit)?;
        let shape = (points, values.len() / (points * window).max(1), window);
        let array = ArrayView3::from_shape(shape, values).map_err(|_| unfit())?;
        let times: Vec<ArrayView2<'b, f32>> = (0..window)
            .map(|time| array.index_axis_move(Axis(2), time))
            .collect();
        Ok(Cow::Owned(
            arrange(&input.input.dims, &input.shape, &times).into_owned(),
        ))
    }

    fn of_array<'b>(
        &self,
        input: &Input<'_>,
        values: &'b [f32],
    ) -> Result<Cow<'b, [f32]>, RunnerError> {
        let unfit = || unfit(&input.input.name);
        let points = points_of(input).ok_or_else(unfit)?;
        let array = ArrayView2::from_shape((points, values.len() / points.max(1)), values)
            .map_err(|_| unfit())?;
        Ok(arrange(&input.input.dims, &input.shape, &[array]))
    }

    /// Takes the outputs of the graph: overwrites the boundary, makes the predicted state the last
    /// one, and returns what is predicted, `[grid_index, variable]`.
    fn advance(
        &mut self,
        outputs: Vec<Vec<f32>>,
        step: &StepInputs,
    ) -> Result<Arc<Vec<f32>>, RunnerError> {
        let (mut state, diagnostics) = self.split(outputs)?;
        let rows = step.boundary.chunks_exact(self.features.max(1));
        for (point, row) in self.forecast.boundary().iter().zip(rows) {
            state[point * self.features..(point + 1) * self.features].copy_from_slice(row);
        }
        for mask in self.forecast.masks() {
            if mask.column < self.features {
                for point in &mask.points {
                    state[point * self.features + mask.column] = mask.fill;
                }
            }
        }
        let state = Arc::new(state);
        self.states.rotate_left(1);
        if let Some(last) = self.states.last_mut() {
            *last = Arc::clone(&state);
        }
        if diagnostics.is_empty() {
            return Ok(state);
        }
        let others = self.columns - self.features;
        let mut predicted = Vec::with_capacity(self.points * self.columns);
        let rows = state.chunks_exact(self.features);
        for (state, diagnostics) in rows.zip(diagnostics.chunks_exact(others)) {
            predicted.extend_from_slice(state);
            predicted.extend_from_slice(diagnostics);
        }
        Ok(Arc::new(predicted))
    }

    /// The next state, and the diagnostics, both `[grid_index, feature]`.
    fn split(&self, mut outputs: Vec<Vec<f32>>) -> Result<(Vec<f32>, Vec<f32>), RunnerError> {
        if outputs.len() == 1 && self.outputs[0].is_whole_state {
            return Ok((outputs.remove(0), Vec::new()));
        }
        let mut state = self.states.last().map_or(vec![], |last| last.to_vec());
        let mut diagnostics = vec![0.0; self.points * (self.columns - self.features)];
        for (output, values) in self.outputs.iter().zip(outputs) {
            let unfit = || unfit(&output.output.name);
            let values =
                ArrayViewD::from_shape(output.shape.as_slice(), &values).map_err(|_| unfit())?;
            let values = as_grid_feature(&output.output.dims, values).ok_or_else(unfit)?;
            let (target, width, first) = match output.output.role {
                OutputRole::NextState => (&mut state, self.features, 0),
                OutputRole::Diagnostics => {
                    let width = self.columns - self.features;
                    (&mut diagnostics, width, self.features)
                }
            };
            let mut target =
                ArrayViewMut2::from_shape((self.points, width), target).map_err(|_| unfit())?;
            for (column, values) in output.columns.iter().zip(values.columns()) {
                target.column_mut(column - first).assign(&values);
            }
        }
        Ok((state, diagnostics))
    }
}

/// The length of the grid in an input's tensor.
fn points_of(input: &Input<'_>) -> Option<usize> {
    let grid = Dim::Grid;
    let at = input.input.dims.iter().position(|dim| *dim == grid)?;
    input.shape.get(at).copied()
}

/// The interface and the arrays do not agree on a tensor's shape, which checks before should see.
fn unfit(name: &str) -> RunnerError {
    RunnerError::Artifact(format!(
        "the values of `{name}` do not have the shape that interface.json gives it"
    ))
}

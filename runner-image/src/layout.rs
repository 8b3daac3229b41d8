//! From the features of the state back to the variables of the source datasets: their names,
//! dimensions in their order, and levels.

use mlwm_datasets::Values;
use mlwm_datasets::prepare::{
    ANALYSIS_DIM, ELAPSED_DIM, Feature, ForecastInputs, LevelValue, SourceInput, TIME_DIM,
    distinct_names,
};
use mlwm_spec::contract::TimeLayout;
use ndarray::{ArrayD, IxDyn};

use crate::forecast::{Forecast, Inputs};

/// What a dimension of an output variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// The analysis time, of length 1.
    Analysis,
    /// The steps.
    Step,
    /// The stacked dimension with this number.
    Grid(usize),
    /// The level coordinate with this number.
    Level(usize),
}

/// A level coordinate of the outputs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Levels {
    /// Name of the dimension in the output.
    pub(crate) name: String,
    /// Name of the coordinate in the source.
    pub(crate) source_name: String,
    pub(crate) values: Vec<LevelValue>,
}

/// A variable of the outputs.
#[derive(Clone, Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) name: String,
    pub(crate) axes: Vec<Axis>,
    /// Features of the state that it consists of, one per level.
    pub(crate) columns: Vec<usize>,
    /// What it is in the dataset that the known states come from, if it is there.
    pub(crate) origin: Option<Origin<'a>>,
}

/// Where a variable is in the datasets that the known states come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// Its first feature.
    pub(crate) feature: &'a Feature,
    pub(crate) source: &'a SourceInput,
    /// Name of the datastore that its input belongs to.
    pub(crate) datastore: &'a str,
}

/// All variables that can be written.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    /// Names of the dimensions of time: that of the analysis, if there is one, and that of steps.
    pub(crate) analysis_dim: Option<String>,
    pub(crate) step_dim: String,
    /// Names and lengths of the stacked dimensions.
    pub(crate) grid_dims: Vec<String>,
    pub(crate) grid_shape: Vec<usize>,
    pub(crate) levels: Vec<Levels>,
    pub(crate) variables: Vec<Variable<'a>>,
}

impl<'a> Layout<'a> {
    /// The layout of everything that a forecast predicts.
    pub(crate) fn of(forecast: &'a Forecast<'a>, layout: TimeLayout) -> Self {
        let mut made = match &forecast.inputs {
            Inputs::Datastores(inputs) => Self::of_datastores(inputs, layout),
            Inputs::State(_) | Inputs::Points(_) => Self::of_interface(forecast),
        };
        let first = forecast.interface.state.names.len();
        for (number, name) in forecast.diagnostics().enumerate() {
            made.add_plain(name, first + number);
        }
        made
    }

    /// The layout of what starts from an input state or from stores over points: the dimensions are
    /// those of the interface.
    fn of_interface(forecast: &Forecast<'_>) -> Self {
        let grid = &forecast.interface.grid;
        let mut made = Self {
            analysis_dim: None,
            step_dim: TIME_DIM.to_owned(),
            grid_dims: grid.dims.clone(),
            grid_shape: match &forecast.inputs {
                Inputs::Points(_) => vec![forecast.points()],
                _ => grid.shape.iter().map(|length| *length as usize).collect(),
            },
            levels: Vec::new(),
            variables: Vec::new(),
        };
        for (column, name) in forecast.interface.state.names.iter().enumerate() {
            if forecast.is_predicted(name) {
                made.add_plain(name, column);
            }
        }
        made
    }

    /// Adds a variable over time and grid.
    fn add_plain(&mut self, name: &str, column: usize) {
        let analysis = self.analysis_dim.iter().map(|_| Axis::Analysis);
        let grid = (0..self.grid_dims.len()).map(Axis::Grid);
        let axes = analysis.chain([Axis::Step]).chain(grid).collect();
        self.variables.push(Variable {
            name: name.to_owned(),
            axes,
            columns: vec![column],
            origin: None,
        });
    }

    fn of_datastores(inputs: &'a ForecastInputs, layout: TimeLayout) -> Self {
        let sources = inputs
            .state
            .variables()
            .iter()
            .flat_map(|variable| variable.sources());
        let mut time_dims = sources.filter_map(SourceInput::time_dims);
        let (analysis_dim, step_dim) = match (time_dims.next(), layout) {
            (Some((analysis, step)), _) => (analysis.map(str::to_owned), step.to_owned()),
            (None, TimeLayout::Time) => (None, TIME_DIM.to_owned()),
            (None, TimeLayout::Forecast) => (Some(ANALYSIS_DIM.to_owned()), ELAPSED_DIM.to_owned()),
        };
        let grid = inputs
            .state
            .variables()
            .first()
            .map(|variable| variable.grid());
        // Inputs may call the grid's dimensions differently; the output has one name for each.
        let first = inputs.state.variables().first();
        let first = first.and_then(|variable| variable.sources().first());
        let mut made = Self {
            analysis_dim,
            step_dim,
            grid_dims: first.map_or(vec![], |source| source.grid_dims().to_vec()),
            grid_shape: grid.map_or(vec![], |g| g.shape.iter().map(|n| *n as usize).collect()),
            levels: Vec::new(),
            variables: Vec::new(),
        };
        let mut column = 0;
        for prepared in inputs.state.variables() {
            for source in prepared.sources() {
                let features: Vec<&Feature> = prepared
                    .features()
                    .filter(|feature| feature.input == source.name())
                    .collect();
                for group in features.chunk_by(|a, b| a.variable == b.variable) {
                    made.add(prepared.datastore(), source, group, column);
                    column += group.len();
                }
            }
        }
        made.name_collisions();
        made
    }

    /// Adds a variable that consists of some features, the first of which is at `column`.
    fn add(
        &mut self,
        datastore: &'a str,
        source: &'a SourceInput,
        group: &[&'a Feature],
        column: usize,
    ) {
        let feature = group[0];
        let level = feature.level.as_ref().map(|(dim, _)| {
            let values = group
                .iter()
                .filter_map(|f| f.level.as_ref().map(|(_, value)| *value));
            (
                dim,
                self.level(datastore, source.name(), dim, values.collect()),
            )
        });
        let (analysis, step) = source.time_dims().unwrap_or((None, TIME_DIM));
        let mut axes: Vec<Axis> = Vec::new();
        for dim in &feature.dims {
            if Some(dim.as_str()) == analysis {
                axes.push(Axis::Analysis);
            } else if dim == step {
                axes.push(Axis::Step);
            } else if let Some((_, number)) = level.as_ref().filter(|(level, _)| *level == dim) {
                axes.push(Axis::Level(*number));
            } else if let Some(number) = source.grid_dims().iter().position(|grid| grid == dim) {
                axes.push(Axis::Grid(number));
            }
        }
        // What the source repeats along a dimension is predicted along it.
        for number in (0..self.grid_dims.len())
            .filter(|n| !axes.contains(&Axis::Grid(*n)))
            .collect::<Vec<_>>()
        {
            axes.push(Axis::Grid(number));
        }
        if !axes.contains(&Axis::Step) {
            axes.insert(0, Axis::Step);
        }
        if self.analysis_dim.is_some() && !axes.contains(&Axis::Analysis) {
            axes.insert(0, Axis::Analysis);
        }
        self.variables.push(Variable {
            name: feature.variable.clone(),
            axes,
            columns: (column..column + group.len()).collect(),
            origin: Some(Origin {
                feature,
                source,
                datastore,
            }),
        });
    }

    /// The number of a level coordinate. Another one of the same name is called after its input,
    /// and after its datastore too if need be.
    fn level(&mut self, datastore: &str, input: &str, dim: &str, values: Vec<LevelValue>) -> usize {
        let same = |levels: &Levels| levels.source_name == dim && levels.values == values;
        if let Some(number) = self.levels.iter().position(same) {
            return number;
        }
        let is_taken = |name: &str| self.levels.iter().any(|levels| levels.name == name);
        let mut name = dim.to_owned();
        for prefix in [input, datastore] {
            if is_taken(&name) {
                name = format!("{prefix}_{name}");
            }
        }
        self.levels.push(Levels {
            name,
            source_name: dim.to_owned(),
            values,
        });
        self.levels.len() - 1
    }

    /// Variables of the same name from several inputs are called after their inputs, and after
    /// their datastores too if need be.
    fn name_collisions(&mut self) {
        let origins = self.variables.iter().filter_map(|variable| variable.origin);
        let sources: Vec<[&str; 3]> = origins
            .map(|origin| {
                let feature = origin.feature;
                [
                    feature.variable.as_str(),
                    origin.source.name(),
                    origin.datastore,
                ]
            })
            .collect();
        let names = distinct_names(&sources);
        for (variable, name) in self.variables.iter_mut().zip(names) {
            variable.name = name;
        }
    }

    /// Names and lengths of the dimensions of a variable over all steps.
    pub(crate) fn dims(&self, variable: &Variable<'_>, steps: u64) -> Vec<(&str, u64)> {
        let dim = |axis: &Axis| match *axis {
            Axis::Analysis => (self.analysis_dim.as_deref().unwrap_or(ANALYSIS_DIM), 1),
            Axis::Step => (self.step_dim.as_str(), steps),
            Axis::Grid(number) => (
                self.grid_dims[number].as_str(),
                self.grid_shape[number] as u64,
            ),
            Axis::Level(number) => {
                let levels = &self.levels[number];
                (levels.name.as_str(), levels.values.len() as u64)
            }
        };
        variable.axes.iter().map(dim).collect()
    }

    /// The values of a variable at one step in the order of its dimensions, from a state
    /// `[grid_index, feature]` of `features` features.
    pub(crate) fn unstack(
        &self,
        variable: &Variable<'_>,
        state: &[f32],
        features: usize,
        value: impl Fn(usize, f32) -> f32,
    ) -> ArrayD<f32> {
        let mut strides = vec![0; self.grid_shape.len()];
        let (mut level_stride, mut stride) = (0, 1);
        let mut shape = Vec::with_capacity(variable.axes.len());
        for axis in variable.axes.iter().rev() {
            let length = match *axis {
                Axis::Analysis | Axis::Step => 1,
                Axis::Grid(number) => {
                    strides[number] = stride;
                    self.grid_shape[number]
                }
                Axis::Level(number) => {
                    level_stride = stride;
                    self.levels[number].values.len()
                }
            };
            shape.push(length);
            stride *= length;
        }
        shape.reverse();
        let mut out = vec![0.0; stride];
        let row_length = self.grid_shape.last().copied().unwrap_or(1);
        let row_stride = strides.last().copied().unwrap_or(0);
        for (row, points) in state.chunks_exact(row_length * features).enumerate() {
            let offset = self.row_offset(row, &strides);
            for (level, &column) in variable.columns.iter().enumerate() {
                let mut at = offset + level * level_stride;
                for predicted in points[column..].iter().step_by(features) {
                    out[at] = value(column, *predicted);
                    at += row_stride;
                }
            }
        }
        ArrayD::from_shape_vec(IxDyn(&shape), out).unwrap_or_default()
    }

    /// Where a row (all stacked dimensions but the last) begins.
    fn row_offset(&self, mut row: usize, strides: &[usize]) -> usize {
        let mut offset = 0;
        let outer = self.grid_shape.len().saturating_sub(1);
        for (length, stride) in self.grid_shape[..outer].iter().zip(strides).rev() {
            offset += (row % length) * stride;
            row /= length;
        }
        offset
    }
}

impl Levels {
    /// The coordinate values in the type of the source.
    pub(crate) fn stored(&self) -> Values {
        let values = &self.values;
        let doubles = || values.iter().map(|value| value.as_f64());
        match values.first() {
            Some(LevelValue::Integer(_)) => Values::I64(
                doubles()
                    .map(|v| v as i64)
                    .collect::<ndarray::Array1<i64>>()
                    .into_dyn(),
            ),
            Some(LevelValue::Float(_)) => Values::F32(
                doubles()
                    .map(|v| v as f32)
                    .collect::<ndarray::Array1<f32>>()
                    .into_dyn(),
            ),
            _ => Values::F64(doubles().collect::<ndarray::Array1<f64>>().into_dyn()),
        }
    }
}

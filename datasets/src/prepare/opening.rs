//! Opens one input of a datastore and checks it against its configuration.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use mlwm_spec::AnalysisTime;
use mlwm_spec::datastore::InputDataset;
use mlwm_spec::interface::Grid;
use serde_json::Value;

use super::PrepareError;
use super::mapping::{Mapping, TIME_DIM, TimeDims};
use super::select::range_positions;
use super::source::SourceInput;
use super::times::TimeAxis;
use crate::{Dataset, Values, Variable};

/// What is needed to open an input.
pub(crate) struct Opening<'a> {
    pub datastore: &'a str,
    pub name: &'a str,
    pub input: &'a InputDataset,
    pub mapping: &'a Mapping,
    pub path: &'a Path,
    pub analysis_time: AnalysisTime,
}

/// A coordinate of the dataset after `coord_ranges`.
pub(super) struct Coordinate {
    /// Values of the part that is taken, as stored.
    pub(super) values: Values,
    /// The part of the dimension that is taken.
    pub(super) range: Range<u64>,
}

impl Opening<'_> {
    pub(crate) fn open(&self) -> Result<SourceInput, PrepareError> {
        let dataset = Dataset::open(self.path)?;
        self.check_attributes(&dataset)?;
        for coordinate in self
            .input
            .coord_ranges
            .iter()
            .flatten()
            .map(|(name, _)| name)
        {
            self.coordinate(&dataset, coordinate)?;
        }
        let times = match &self.mapping.time {
            Some(dims) => Some(TimeAxis::read(
                &dataset,
                self.path,
                dims,
                self.analysis_time,
            )?),
            None => None,
        };
        let (grid, grid_ranges) = self.grid(&dataset)?;
        let mut source = SourceInput {
            name: self.name.to_owned(),
            path: self.path.to_owned(),
            dataset,
            grid,
            grid_dims: self.mapping.grid.clone(),
            grid_ranges,
            times,
            variables: Vec::new(),
            derived: Vec::new(),
            features: Vec::new(),
            origins: Vec::new(),
            is_double: false,
        };
        self.add_variables(&mut source)?;
        self.add_derived(&mut source)?;
        Ok(source)
    }

    pub(crate) fn wrong(&self, message: String) -> PrepareError {
        PrepareError::InputConfiguration {
            datastore: self.datastore.to_owned(),
            input: self.name.to_owned(),
            message,
        }
    }

    pub(crate) fn unusable(&self, message: String) -> PrepareError {
        PrepareError::Unusable {
            path: self.path.to_owned(),
            message,
        }
    }

    fn check_attributes(&self, dataset: &Dataset) -> Result<(), PrepareError> {
        for (name, expected) in self.input.attributes.iter().flatten() {
            match dataset.attributes().get(name) {
                None => return Err(self.unusable(format!("it lacks the attribute `{name}`"))),
                Some(found) if !same_json(expected, found) => {
                    return Err(self.unusable(format!(
                        "its attribute `{name}` is {found}, but the datastore asks for {expected}"
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Shape and coordinates of the stacked dimensions, and the part of each that is taken.
    fn grid(&self, dataset: &Dataset) -> Result<(Grid, Vec<Range<u64>>), PrepareError> {
        let mut grid = Grid {
            dims: self.mapping.grid_names.clone(),
            shape: vec![],
            coordinates: vec![],
        };
        let mut ranges = Vec::new();
        for dim in &self.mapping.grid {
            let (values, range) = match dim_length(dataset, dim) {
                None => {
                    return Err(PrepareError::Missing {
                        path: self.path.to_owned(),
                        what: format!("the dimension `{dim}`"),
                        available: format!("the dimensions {}", dim_names(dataset).join(", ")),
                    });
                }
                Some(_) if has_coordinate(dataset, dim) => {
                    let coordinate = self.coordinate(dataset, dim)?;
                    let values = coordinate.values.into_f64()?.into_iter().collect();
                    (values, coordinate.range)
                }
                Some(length) => (Vec::new(), 0..length),
            };
            grid.shape.push(range.end - range.start);
            grid.coordinates.push(values);
            ranges.push(range);
        }
        Ok((grid, ranges))
    }

    /// A 1-D coordinate, cut to its `coord_ranges`. Ranges of time are those of the training data
    /// and do not apply.
    pub(super) fn coordinate(
        &self,
        dataset: &Dataset,
        name: &str,
    ) -> Result<Coordinate, PrepareError> {
        let variable = dataset.variable(name)?;
        let length = match (variable.dims(), variable.shape()) {
            ([dim], [length]) if dim == name => *length,
            _ => {
                return Err(self.unusable(format!(
                    "`{name}` is not a coordinate of one dimension of the same name"
                )));
            }
        };
        let range = self
            .input
            .coord_ranges
            .iter()
            .flatten()
            .find(|(c, _)| *c == name);
        let is_time = self.is_time_dim(name);
        let range = match range {
            Some((_, range)) if !is_time => {
                let values: Vec<f64> = variable.read()?.into_f64()?.into_iter().collect();
                let taken = range_positions(name, &values, range)
                    .map_err(|error| self.unusable(error.to_string()))?;
                taken.start as u64..taken.end as u64
            }
            _ => 0..length,
        };
        let values = variable.read_range(std::slice::from_ref(&range))?;
        Ok(Coordinate { values, range })
    }

    /// Refuses a variable that is longer or shorter than the coordinates of its dimensions.
    pub(crate) fn check_lengths(
        &self,
        dataset: &Dataset,
        variable: &Variable,
    ) -> Result<(), PrepareError> {
        for (dim, length) in std::iter::zip(variable.dims(), variable.shape()) {
            let expected = dim_length(dataset, dim);
            if expected != Some(*length) {
                return Err(self.unusable(format!(
                    "the variable `{}` has {length} values along `{dim}`, but the coordinate has {}",
                    variable.name(),
                    expected.unwrap_or(0)
                )));
            }
        }
        Ok(())
    }

    pub(super) fn is_time_dim(&self, name: &str) -> bool {
        self.mapping.time_name.as_deref() == Some(name)
            || match &self.mapping.time {
                Some(TimeDims::Valid(dim)) => dim == name,
                Some(TimeDims::Forecast { analysis, elapsed }) => {
                    analysis == name || elapsed == name
                }
                None => name == TIME_DIM,
            }
    }
}

/// Names of all dimensions of the variables of a dataset.
fn dim_names(dataset: &Dataset) -> Vec<String> {
    let variables = dataset
        .names()
        .filter_map(|name| dataset.variable(name).ok());
    let names: BTreeSet<String> = variables.flat_map(Variable::dims).cloned().collect();
    names.into_iter().collect()
}

/// The length of a dimension: that of its coordinate, else of the first variable that has it.
pub(crate) fn dim_length(dataset: &Dataset, dim: &str) -> Option<u64> {
    let names = std::iter::once(dim).chain(dataset.names());
    let length = |variable: &Variable| {
        let at = variable.dims().iter().position(|name| name == dim)?;
        variable.shape().get(at).copied()
    };
    names
        .filter_map(|name| dataset.variable(name).ok())
        .find_map(length)
}

fn has_coordinate(dataset: &Dataset, dim: &str) -> bool {
    dataset
        .variable(dim)
        .is_ok_and(|variable: &Variable| variable.dims() == [dim])
}

/// JSON values that Python finds equal: `1 == 1.0`.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

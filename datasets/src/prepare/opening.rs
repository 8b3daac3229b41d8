//! Opens one input of a datastore and checks it against its configuration.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use mlwm_spec::AnalysisTime;
use mlwm_spec::datastore::{InputDataset, SelectedValues, ValueSelection, Variables};
use mlwm_spec::interface::Grid;
use serde_json::Value;

use super::PrepareError;
use super::derived::Derivation;
use super::mapping::{Mapping, TIME_DIM, TimeDims};
use super::name_format::{LevelValue, feature_name};
use super::select::{Positions, SelectError, listed, positions, range_positions};
use super::source::{Axis, Feature, Origin, SourceInput, SourceVariable};
use super::times::TimeAxis;
use crate::{Dataset, Element, Values, Variable};

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
struct Coordinate {
    /// Values of the part that is taken, as stored.
    values: Values,
    /// The part of the dimension that is taken.
    range: Range<u64>,
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
            dims: self.mapping.grid.clone(),
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
    fn coordinate(&self, dataset: &Dataset, name: &str) -> Result<Coordinate, PrepareError> {
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
        let values = variable.read_range(&[range.clone()])?;
        Ok(Coordinate { values, range })
    }

    fn is_time_dim(&self, name: &str) -> bool {
        self.mapping.time_name.as_deref() == Some(name)
            || match &self.mapping.time {
                Some(TimeDims::Valid(dim)) => dim == name,
                Some(TimeDims::Forecast { analysis, elapsed }) => {
                    analysis == name || elapsed == name
                }
                None => name == TIME_DIM,
            }
    }

    fn add_variables(&self, source: &mut SourceInput) -> Result<(), PrepareError> {
        let names: Vec<(&str, Vec<(&str, &ValueSelection)>)> = match &self.input.variables {
            Some(Variables::Names(names)) => names.iter().map(|n| (n.as_str(), vec![])).collect(),
            Some(Variables::Selections(selections)) => selections
                .iter()
                .map(|(name, by_coordinate)| {
                    let by_coordinate = by_coordinate.iter().flatten();
                    (
                        name.as_str(),
                        by_coordinate.map(|(c, s)| (c.as_str(), s)).collect(),
                    )
                })
                .collect(),
            None => Vec::new(),
        };
        for (name, selections) in names {
            self.add_variable(source, name, &selections)?;
        }
        Ok(())
    }

    fn add_variable(
        &self,
        source: &mut SourceInput,
        name: &str,
        selections: &[(&str, &ValueSelection)],
    ) -> Result<(), PrepareError> {
        let variable = source.dataset.variable(name)?;
        if variable.element() == Element::Text {
            return Err(self.unusable(format!("the variable `{name}` is text")));
        }
        if let Some((coordinate, _)) = selections
            .iter()
            .find(|(coordinate, _)| !variable.dims().iter().any(|d| d == coordinate))
        {
            return Err(PrepareError::Missing {
                path: self.path.to_owned(),
                what: format!("the dimension `{coordinate}` of the variable `{name}`"),
                available: format!("`{name}({})`", variable.dims().join(", ")),
            });
        }
        self.check_lengths(&source.dataset, variable)?;
        let mut axes = Vec::new();
        let mut levels = Vec::new();
        for dim in variable.dims() {
            let selection = selections.iter().find(|(c, _)| c == dim).map(|(_, s)| *s);
            axes.push(self.axis(source, name, dim, selection, &mut levels)?);
        }
        let dims: Vec<String> = std::iter::zip(variable.dims(), &axes)
            .filter(|(dim, axis)| match axis {
                Axis::Fixed(_) => self.is_time_dim(dim),
                _ => true,
            })
            .map(|(dim, _)| dim.clone())
            .collect();
        if let Some(extra) = dims.iter().find(|dim| !self.mapping.allowed.contains(dim)) {
            return Err(self.unusable(format!(
                "the variable `{name}` has the dimension `{extra}`, which is not among the `dims` \
                 of input `{}`: {}",
                self.name,
                self.mapping.allowed.join(", ")
            )));
        }
        if let Some(level) = &self.mapping.level
            && levels.is_empty()
        {
            return Err(self.unusable(format!(
                "the variable `{name}` has no dimension `{level}`, by which input `{}` stacks its \
                 variables",
                self.name
            )));
        }
        // mllam-data-prep aligns every variable to the levels of the first one.
        if let Some(first) = source.variables.iter().find(|v| !v.levels.is_empty()) {
            let sorted = |levels: &[usize]| {
                let mut levels = levels.to_vec();
                levels.sort_unstable();
                levels
            };
            if sorted(&first.levels) != sorted(&levels) {
                return Err(self.wrong(format!(
                    "its variables `{}` and `{name}` are on different levels: put them into two \
                     inputs",
                    first.name
                )));
            }
            levels.clone_from(&first.levels);
        }
        let attribute = |key: &str| {
            let text = variable.attributes().get(key).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let (units, long_name) = (attribute("units"), attribute("long_name"));
        let is_double = variable.element() != Element::F32;
        let at = source.variables.len();
        for (level, value) in self.feature_levels(source, &levels)? {
            source.features.push(Feature {
                name: self.feature_name(name, value)?,
                units: units.clone(),
                long_name: long_name.clone(),
                input: self.name.to_owned(),
                variable: name.to_owned(),
                is_derived: false,
                dims: dims.clone(),
                level: self.mapping.level.clone().zip(value),
            });
            source.origins.push(Origin::Read {
                variable: at,
                level,
            });
        }
        source.is_double |= is_double;
        source.variables.push(SourceVariable {
            name: name.to_owned(),
            axes,
            levels,
        });
        Ok(())
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

    /// What a dimension of a variable is used for; levels go to `levels`.
    fn axis(
        &self,
        source: &SourceInput,
        variable: &str,
        dim: &str,
        selection: Option<&ValueSelection>,
        levels: &mut Vec<usize>,
    ) -> Result<Axis, PrepareError> {
        if let Some(times) = &source.times {
            let fixed = times.fixed.as_ref().filter(|(fixed, _)| fixed == dim);
            if selection.is_some() && (times.dim == dim || fixed.is_some()) {
                return Err(self.wrong(format!("`{variable}` selects values of the time `{dim}`")));
            }
            if times.dim == dim {
                return Ok(Axis::Time);
            }
            if let Some((_, at)) = fixed {
                return Ok(Axis::Fixed(*at));
            }
        }
        if let Some(number) = self
            .mapping
            .grid
            .iter()
            .position(|grid_dim| grid_dim == dim)
        {
            return match selection {
                None => Ok(Axis::Grid(number)),
                Some(_) => Err(self.wrong(format!(
                    "`{variable}` selects values of the stacked dimension `{dim}`: use coord_ranges"
                ))),
            };
        }
        let is_level = self.mapping.level.as_deref() == Some(dim);
        let taken = match (selection, is_level) {
            (Some(selection), _) => self.selected(source, variable, dim, selection)?,
            (None, true) => {
                let range = self.coordinate(&source.dataset, dim)?.range;
                Positions::Many((range.start as usize..range.end as usize).collect())
            }
            // Refused below unless it is among the dims of the input, where it would remain as a
            // dimension that the target does not have.
            (None, false) if !self.mapping.allowed.iter().any(|allowed| allowed == dim) => {
                return Err(self.unusable(format!(
                    "the variable `{variable}` has the dimension `{dim}`, which is not among the \
                     `dims` of input `{}`: {}",
                    self.name,
                    self.mapping.allowed.join(", ")
                )));
            }
            (None, false) => {
                return Err(self.wrong(format!(
                    "the dimension `{dim}` of the variable `{variable}` is not mapped to anything: \
                     stack it or select one value of it"
                )));
            }
        };
        match (taken, is_level) {
            (Positions::One(at), false) => Ok(Axis::Fixed(at as u64)),
            (Positions::Many(many), true) => {
                *levels = many;
                Ok(Axis::Level)
            }
            (Positions::One(_), true) => Err(self.wrong(format!(
                "`{variable}` selects a single value of `{dim}`, which is stacked: write it as a \
                 list of one"
            ))),
            (Positions::Many(_), false) => Err(self.wrong(format!(
                "`{variable}` selects several values of `{dim}`, which is not mapped to anything: \
                 stack it"
            ))),
        }
    }

    /// The positions along a whole dimension that a selection takes.
    fn selected(
        &self,
        source: &SourceInput,
        variable: &str,
        dim: &str,
        selection: &ValueSelection,
    ) -> Result<Positions, PrepareError> {
        let coordinate = self.coordinate(&source.dataset, dim)?;
        let units = source.dataset.variable(dim)?.attributes().get("units");
        if let (Some(expected), Some(Value::String(units))) = (&selection.units, units)
            && expected != units
        {
            return Err(self.unusable(format!(
                "the coordinate `{dim}` of `{variable}` is in `{units}`, but the datastore asks \
                 for `{expected}`"
            )));
        }
        let values: Vec<f64> = coordinate.values.into_f64()?.into_iter().collect();
        let offset = coordinate.range.start as usize;
        let taken = positions(dim, &values, &selection.values).map_err(|error| match error {
            SelectError::Missing {
                coordinate, value, ..
            } => PrepareError::Missing {
                path: self.path.to_owned(),
                what: format!("`{coordinate}` = {value} of the variable `{variable}`"),
                available: listed(&values),
            },
            wrong @ SelectError::Wrong { .. } => match selection.values {
                SelectedValues::Range(_) => self.unusable(wrong.to_string()),
                _ => self.wrong(wrong.to_string()),
            },
        })?;
        Ok(match taken {
            Positions::One(at) => Positions::One(at + offset),
            Positions::Many(many) => Positions::Many(many.iter().map(|at| at + offset).collect()),
        })
    }

    /// Position and value of each level that makes a feature; one pair of nothing without levels.
    fn feature_levels(
        &self,
        source: &SourceInput,
        levels: &[usize],
    ) -> Result<Vec<(Option<usize>, Option<LevelValue>)>, PrepareError> {
        let Some(dim) = &self.mapping.level else {
            return Ok(vec![(None, None)]);
        };
        let values = source.dataset.variable(dim)?.read()?;
        levels
            .iter()
            .map(|&at| {
                let value = match &values {
                    Values::F32(values) => {
                        values.get([at].as_slice()).map(|v| LevelValue::Float(*v))
                    }
                    Values::F64(values) => {
                        values.get([at].as_slice()).map(|v| LevelValue::Double(*v))
                    }
                    Values::I64(values) => {
                        values.get([at].as_slice()).map(|v| LevelValue::Integer(*v))
                    }
                    Values::Text(_) => None,
                };
                let value = value.ok_or_else(|| {
                    self.unusable(format!("the coordinate `{dim}` is not of numbers"))
                })?;
                Ok((Some(at), Some(value)))
            })
            .collect()
    }

    fn feature_name(
        &self,
        variable: &str,
        level: Option<LevelValue>,
    ) -> Result<String, PrepareError> {
        let level = self.mapping.level.as_deref().zip(level);
        feature_name(&self.mapping.name_format, variable, level)
            .map_err(|error| self.wrong(error.to_string()))
    }

    /// Derived variables have all dimensions of the input, also the levels.
    fn add_derived(&self, source: &mut SourceInput) -> Result<(), PrepareError> {
        for (name, derived) in self.input.derived_variables.iter().flatten() {
            let derivation = Derivation::parse(derived)
                .map_err(|message| self.wrong(format!("derived variable `{name}`: {message}")))?;
            let field = derivation.open(self, source, name)?;
            let levels = match source.variables.iter().find(|v| !v.levels.is_empty()) {
                Some(first) => first.levels.clone(),
                None => match &self.mapping.level {
                    Some(level) => {
                        let range = self.coordinate(&source.dataset, level)?.range;
                        (range.start as usize..range.end as usize).collect()
                    }
                    None => Vec::new(),
                },
            };
            let attribute = |key: &str, default: String| {
                let given = derived.attrs.as_ref().and_then(|attrs| attrs.get(key));
                given.cloned().unwrap_or(default)
            };
            let at = source.derived.len();
            for (_, value) in self.feature_levels(source, &levels)? {
                source.features.push(Feature {
                    name: self.feature_name(name, value)?,
                    units: attribute("units", derivation.units().to_owned()),
                    long_name: attribute("long_name", derivation.long_name()),
                    input: self.name.to_owned(),
                    variable: name.clone(),
                    is_derived: true,
                    dims: self.mapping.allowed.clone(),
                    level: self.mapping.level.clone().zip(value),
                });
                source.origins.push(Origin::Derived(at));
            }
            source.derived.push(field);
            source.is_double = true;
        }
        Ok(())
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

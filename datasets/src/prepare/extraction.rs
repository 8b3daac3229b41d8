//! Takes the variables of an input out of its dataset, and derives others, feature by feature.

use mlwm_spec::datastore::{SelectedValues, ValueSelection, Variables};

use super::PrepareError;
use super::derived::Derivation;
use super::name_format::{LevelValue, feature_name};
use super::opening::Opening;
use super::select::{Positions, SelectError, listed, positions};
use super::source::{Axis, Feature, Origin, SourceInput, SourceVariable};
use crate::{Element, Values};

/// Position and value of the level of a feature; nothing where there are no levels.
type FeatureLevel = (Option<usize>, Option<LevelValue>);

impl Opening<'_> {
    pub(super) fn add_variables(&self, source: &mut SourceInput) -> Result<(), PrepareError> {
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
        let (mut dims, mut selected) = (Vec::new(), Vec::new());
        for (dim, axis) in std::iter::zip(variable.dims(), &axes) {
            match axis {
                Axis::Fixed(at) if !self.is_time_dim(dim) => {
                    let coordinate = source.dataset.variable(dim)?.read()?;
                    selected.push((
                        dim.clone(),
                        self.level_value(dim, &coordinate, *at as usize)?,
                    ));
                }
                _ => dims.push(dim.clone()),
            }
        }
        if let Some(extra) = dims.iter().find(|dim| !self.mapping.allowed.contains(dim)) {
            return Err(self.unusable(format!(
                "the variable `{name}` has the dimension `{extra}`, which is not among the `dims` \
                 of input `{}`: {}",
                self.name,
                self.mapping.allowed.join(", ")
            )));
        }
        let levels = self.aligned_levels(source, name, levels)?;
        let attribute = |key| variable.text_attribute(key).unwrap_or_default().to_owned();
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
                selected: selected.clone(),
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

    /// The levels of the first variable, to which mllam-data-prep aligns all others: in its order,
    /// without the levels that only others have, and with NaN for those that they lack.
    fn aligned_levels(
        &self,
        source: &SourceInput,
        name: &str,
        levels: Vec<usize>,
    ) -> Result<Vec<usize>, PrepareError> {
        let Some(dim) = &self.mapping.level else {
            return Ok(levels);
        };
        if levels.is_empty() {
            return Err(self.unusable(format!(
                "the variable `{name}` has no dimension `{dim}`, by which input `{}` stacks its \
                 variables",
                self.name
            )));
        }
        let Some(first) = source.variables.first() else {
            return Ok(levels);
        };
        if first.levels.iter().any(|level| !levels.contains(level)) {
            return Err(self.wrong(format!(
                "its variable `{name}` lacks levels of `{}`, which mllam-data-prep would fill with \
                 NaN: put them into two inputs",
                first.name
            )));
        }
        Ok(first.levels.clone())
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
        let units = source.dataset.variable(dim)?.text_attribute("units");
        if let (Some(expected), Some(units)) = (&selection.units, units)
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
    ) -> Result<Vec<FeatureLevel>, PrepareError> {
        let Some(dim) = &self.mapping.level else {
            return Ok(vec![(None, None)]);
        };
        let values = source.dataset.variable(dim)?.read()?;
        let value = |at| Ok((Some(at), Some(self.level_value(dim, &values, at)?)));
        levels.iter().map(|&at| value(at)).collect()
    }

    /// The value at a position of a coordinate.
    fn level_value(
        &self,
        dim: &str,
        values: &Values,
        at: usize,
    ) -> Result<LevelValue, PrepareError> {
        let at = [at];
        let value = match values {
            Values::F32(values) => values.get(at.as_slice()).map(|v| LevelValue::Float(*v)),
            Values::F64(values) => values.get(at.as_slice()).map(|v| LevelValue::Double(*v)),
            Values::I64(values) => values.get(at.as_slice()).map(|v| LevelValue::Integer(*v)),
            Values::Text(_) => None,
        };
        value.ok_or_else(|| self.unusable(format!("the coordinate `{dim}` is not of numbers")))
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
    pub(super) fn add_derived(&self, source: &mut SourceInput) -> Result<(), PrepareError> {
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
                    selected: Vec::new(),
                });
                source.origins.push(Origin::Derived(at));
            }
            source.derived.push(field);
            source.is_double = true;
        }
        Ok(())
    }
}

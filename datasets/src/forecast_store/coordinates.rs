//! The coordinates of a forecast: those along its steps, which follow from the schedule, and those
//! that every window has again.

use std::ops::Range;
use std::path::Path;

use mlwm_spec::time::utc_text;
use serde_json::{Map, Value};

use super::windows::lead_text;
use super::{StoreError, Windows};
use crate::cf_time::{TimeLike, time_like};
use crate::stored::Stored;
use crate::variable::product;
use crate::{Dataset, Definition, Element, Values, Variable, duration_attributes, time_attributes};

/// The dimension of steps, as valid times.
pub(crate) const TIME: &str = "time";

/// The dimension of steps, as times since the analysis.
pub(crate) const ELAPSED: &str = "elapsed_forecast_duration";

/// The coordinate that holds the time of the analysis.
const ANALYSIS_TIME: &str = "analysis_time";

/// The most values of a coordinate, which is kept in memory: more than any grid has points.
const MAX_COORDINATE_VALUES: u64 = 1 << 28;

/// Attributes that say how times are encoded; they are written anew.
const TIME_ENCODING: [&str; 3] = ["units", "calendar", "dtype"];

/// The coordinates of a forecast.
#[derive(Clone, Debug)]
pub(crate) struct Coordinates {
    /// Those along the steps.
    pub(crate) steps: Vec<StepCoordinate>,
    /// Those that do not change: latitudes, levels, the time of the analysis.
    pub(crate) fixed: Vec<(Definition, Values)>,
}

/// A coordinate along the steps: valid times, or times since the analysis.
#[derive(Clone, Debug)]
pub(crate) struct StepCoordinate {
    pub(crate) name: String,
    pub(crate) dims: Vec<String>,
    /// Which of the dimensions is that of the steps; all others have the length 1.
    pub(crate) axis: usize,
    pub(crate) is_elapsed: bool,
    pub(crate) attributes: Map<String, Value>,
}

impl StepCoordinate {
    /// What it holds at a step, in seconds.
    pub(crate) fn at(&self, windows: &Windows, step: u64) -> i64 {
        match self.is_elapsed {
            true => windows.lead_seconds(step),
            false => windows.valid_time(step),
        }
    }
}

impl Coordinates {
    /// Reads those of a window: all of its variables that have no steps, and those of times along
    /// its steps.
    pub(crate) fn read(
        window: &Dataset,
        windows: &Windows,
        step_dim: &str,
        is_declared: impl Fn(&str) -> bool,
    ) -> Result<Self, StoreError> {
        let mut coordinates = Self {
            steps: Vec::new(),
            fixed: Vec::new(),
        };
        let names: Vec<&str> = window.names().filter(|name| !is_declared(name)).collect();
        for name in names {
            let variable = window.variable(name)?;
            match variable.dims().iter().position(|dim| dim == step_dim) {
                Some(axis) => coordinates.steps.extend(step_coordinate(variable, axis)),
                None => coordinates.fixed.push(fixed(window, variable, windows)?),
            }
        }
        if coordinates.steps.iter().all(|found| found.name != step_dim) {
            return Err(StoreError::Window {
                path: window.path().to_owned(),
                reason: format!("it has no coordinate `{step_dim}` with the times of its steps"),
            });
        }
        Ok(coordinates)
    }

    /// Refuses a window whose times are not exactly those that are due, or whose other coordinates
    /// are not those of this forecast.
    pub(crate) fn check(
        &self,
        window: &Dataset,
        windows: &Windows,
        steps: Range<u64>,
    ) -> Result<(), StoreError> {
        let refuse = |reason: String| {
            Err(StoreError::Window {
                path: window.path().to_owned(),
                reason,
            })
        };
        for (definition, expected) in &self.fixed {
            let name = &definition.name;
            let variable = window.variable(name)?;
            let (found, values) = fixed(window, variable, windows)?;
            if found.dims != definition.dims || !same(&values, expected) {
                return refuse(format!(
                    "its coordinate `{name}` is not that of the forecast's other windows"
                ));
            }
        }
        for coordinate in &self.steps {
            let name = &coordinate.name;
            let due: Vec<i64> = steps
                .clone()
                .map(|step| coordinate.at(windows, step))
                .collect();
            let length = product(window.variable(name)?.shape());
            if length != Some(due.len() as u64) {
                return refuse(format!(
                    "`{name}` has {} steps, where the schedule has {}",
                    length.unwrap_or(u64::MAX),
                    due.len()
                ));
            }
            let found = match coordinate.is_elapsed {
                true => window.durations(name)?,
                false => window.times(name)?,
            };
            let text = |seconds: i64| match coordinate.is_elapsed {
                true => lead_text(seconds),
                false => utc_text(seconds),
            };
            if let Some(place) = found.iter().zip(&due).position(|(a, b)| a != b) {
                return refuse(format!(
                    "`{name}` is {} at step {} of the window, where the schedule has {}",
                    text(found[place]),
                    place + 1,
                    text(due[place])
                ));
            }
        }
        Ok(())
    }
}

/// Whether a variable holds times or durations.
fn kind(variable: &Variable) -> TimeLike {
    match variable.stored() {
        Stored::Time { is_duration, .. } if is_duration => TimeLike::Duration,
        Stored::Time { .. } => TimeLike::Time,
        _ => time_like(variable.attributes()),
    }
}

/// A coordinate along the steps; none if the variable is not one.
fn step_coordinate(variable: &Variable, axis: usize) -> Option<StepCoordinate> {
    let is_line = (variable.dims().iter().enumerate())
        .all(|(index, _)| index == axis || variable.shape()[index] == 1);
    let kind = kind(variable);
    (is_line && kind != TimeLike::No).then(|| StepCoordinate {
        name: variable.name().to_owned(),
        dims: variable.dims().to_vec(),
        axis,
        is_elapsed: kind == TimeLike::Duration,
        attributes: time_like_attributes(variable, kind),
    })
}

/// A coordinate that does not change, with its values; times in seconds.
fn fixed(
    window: &Dataset,
    variable: &Variable,
    windows: &Windows,
) -> Result<(Definition, Values), StoreError> {
    let name = variable.name();
    let dims: Vec<(&str, u64)> = variable
        .dims()
        .iter()
        .map(String::as_str)
        .zip(variable.shape().iter().copied())
        .collect();
    readable(window, variable)?;
    let kind = kind(variable);
    let seconds = match kind {
        TimeLike::No => {
            let values = variable.read()?;
            let definition = Definition::new(name, &dims, values.element())
                .attributes(variable.decoded_attributes());
            return Ok((definition, values));
        }
        TimeLike::Time => window.times(name)?,
        TimeLike::Duration => window.durations(name)?,
    };
    let analysis = windows.analysis_time().unix_seconds();
    if name == ANALYSIS_TIME
        && let Some(other) = seconds.iter().find(|time| **time != analysis)
    {
        return Err(wrong_analysis(window.path(), *other, analysis));
    }
    let definition =
        Definition::new(name, &dims, Element::I64).attributes(time_like_attributes(variable, kind));
    let shape: Vec<usize> = dims.iter().map(|(_, length)| *length as usize).collect();
    Ok((definition, integers(&shape, seconds)))
}

/// Refuses coordinates that are not there as a whole, or too large to be one.
fn readable(window: &Dataset, variable: &Variable) -> Result<(), StoreError> {
    let name = variable.name();
    let is_floating = matches!(variable.element(), Element::F32 | Element::F64);
    let reason = if product(variable.shape()).is_none_or(|values| values > MAX_COORDINATE_VALUES) {
        format!("its coordinate `{name}` has more than {MAX_COORDINATE_VALUES} values")
    } else if is_floating && variable.missing_chunks()? > 0 {
        format!("parts of its coordinate `{name}` were never written")
    } else {
        return Ok(());
    };
    let path = window.path().to_owned();
    Err(StoreError::Window { path, reason })
}

fn wrong_analysis(path: &Path, found: i64, due: i64) -> StoreError {
    StoreError::Window {
        path: path.to_owned(),
        reason: format!(
            "it is of the analysis time {}, not {}",
            utc_text(found),
            utc_text(due)
        ),
    }
}

/// The attributes of times, encoded as seconds.
fn time_like_attributes(variable: &Variable, kind: TimeLike) -> Map<String, Value> {
    let mut attributes = variable.decoded_attributes();
    attributes.retain(|name, _| !TIME_ENCODING.contains(&name.as_str()));
    attributes.extend(match kind {
        TimeLike::Duration => duration_attributes(),
        _ => time_attributes(),
    });
    attributes
}

/// Integers in a shape that they fill.
pub(crate) fn integers(shape: &[usize], values: Vec<i64>) -> Values {
    Values::I64(ndarray::ArrayD::from_shape_vec(shape, values).unwrap_or_default())
}

/// Whether values are the same; NaN is the same as NaN.
fn same(one: &Values, two: &Values) -> bool {
    match (one, two) {
        (Values::F32(one), Values::F32(two)) => {
            one.shape() == two.shape()
                && one
                    .iter()
                    .zip(two)
                    .all(|(a, b)| a == b || a.is_nan() && b.is_nan())
        }
        (Values::F64(one), Values::F64(two)) => {
            one.shape() == two.shape()
                && one
                    .iter()
                    .zip(two)
                    .all(|(a, b)| a == b || a.is_nan() && b.is_nan())
        }
        _ => one == two,
    }
}

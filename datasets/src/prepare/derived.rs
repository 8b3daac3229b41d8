//! Derived variables of a datastore configuration: which function, of which variables.

use mlwm_spec::datastore::DerivedVariable;
use serde_json::Value;

use super::PrepareError;
use super::derive::{Component, Degrees, ToaRadiation, day_of_year, hour_of_day};
use super::mapping::TIME_DIM;
use super::opening::Opening;
use super::plane::{Data, Plane, copy_planes};
use super::source::SourceInput;
use super::times::TimeAxis;
use crate::Values;

/// Where mllam-data-prep keeps its functions.
const MODULE: &str = "mllam_data_prep.ops.derive_variable.";

/// A function with its arguments, as the configuration writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Derivation {
    ToaRadiation {
        latitude: String,
        longitude: String,
        time: String,
    },
    HourOfDay {
        time: String,
        component: Component,
    },
    DayOfYear {
        time: String,
        component: Component,
    },
}

/// A derived variable that is ready to be computed.
#[derive(Clone, Debug)]
pub(crate) struct DerivedField {
    function: Function,
    /// The time argument along the time axis of the source, Unix seconds.
    times: Vec<i64>,
}

#[derive(Clone, Debug)]
enum Function {
    ToaRadiation(ToaRadiation),
    HourOfDay(Component),
    DayOfYear(Component),
}

impl Derivation {
    pub(crate) fn parse(derived: &DerivedVariable) -> Result<Self, String> {
        let function = derived.function.rsplit('.').next().unwrap_or_default();
        let known = [
            "calculate_toa_radiation",
            "calculate_hour_of_day",
            "calculate_day_of_year",
        ];
        if !known.contains(&function) || !derived.function.starts_with(MODULE) {
            return Err(format!(
                "the function `{}` is not supported: only {} of mllam-data-prep are",
                derived.function,
                known.join(", ")
            ));
        }
        let expected: &[&str] = match function {
            "calculate_toa_radiation" => &["lat", "lon", "time"],
            _ => &["time", "component"],
        };
        if let Some(extra) = derived
            .kwargs
            .keys()
            .find(|key| !expected.contains(&key.as_str()))
        {
            return Err(format!("`{function}` has no argument `{extra}`"));
        }
        let argument = |name: &str| {
            let value = derived.kwargs.get(name).and_then(Value::as_str);
            value.ok_or_else(|| format!("`{function}` lacks the argument `{name}`"))
        };
        let variable = |name: &str| {
            let value = argument(name)?;
            let variable = value.strip_prefix("ds_input.");
            variable.map(str::to_owned).ok_or_else(|| {
                format!("the argument `{name}` is `{value}`: write `ds_input.` and a variable")
            })
        };
        let component = || match argument("component")? {
            "sin" => Ok(Component::Sin),
            "cos" => Ok(Component::Cos),
            other => Err(format!(
                "the argument `component` is `{other}`: write sin or cos"
            )),
        };
        let time = variable("time")?;
        match function {
            "calculate_toa_radiation" => Ok(Self::ToaRadiation {
                latitude: variable("lat")?,
                longitude: variable("lon")?,
                time,
            }),
            "calculate_hour_of_day" => Ok(Self::HourOfDay {
                time,
                component: component()?,
            }),
            _ => Ok(Self::DayOfYear {
                time,
                component: component()?,
            }),
        }
    }

    pub(crate) fn units(&self) -> &'static str {
        match self {
            Self::ToaRadiation { .. } => "W*m**-2",
            Self::HourOfDay { .. } | Self::DayOfYear { .. } => "1",
        }
    }

    pub(crate) fn long_name(&self) -> String {
        let (component, what) = match self {
            Self::ToaRadiation { .. } => return "top-of-atmosphere incoming radiation".to_owned(),
            Self::HourOfDay { component, .. } => (component, "hour of day"),
            Self::DayOfYear { component, .. } => (component, "day of year"),
        };
        let component = match component {
            Component::Sin => "Sin",
            Component::Cos => "Cos",
        };
        format!("{component} component of cyclically encoded {what}")
    }

    /// Reads the arguments.
    pub(crate) fn open(
        &self,
        opening: &Opening<'_>,
        source: &SourceInput,
        name: &str,
    ) -> Result<DerivedField, PrepareError> {
        let (function, time) = match self {
            Self::ToaRadiation {
                latitude,
                longitude,
                time,
            } => {
                let latitude = degrees(opening, source, latitude)?;
                let longitude = degrees(opening, source, longitude)?;
                (
                    Function::ToaRadiation(ToaRadiation::new(&latitude, &longitude)),
                    time,
                )
            }
            Self::HourOfDay { time, component } => (Function::HourOfDay(*component), time),
            Self::DayOfYear { time, component } => (Function::DayOfYear(*component), time),
        };
        let axis = source.times.as_ref().ok_or_else(|| {
            opening.wrong(format!(
                "the derived variable `{name}` depends on time, but `{}` has no time",
                opening.input.target_output_variable
            ))
        })?;
        let times = time_argument(opening, source, axis, time)?;
        Ok(DerivedField { function, times })
    }
}

impl DerivedField {
    /// The values at a position along the time axis: one per point of the grid, or one for all.
    pub(crate) fn at(&self, position: usize) -> Vec<f64> {
        let Some(&time) = self.times.get(position) else {
            return Vec::new();
        };
        match &self.function {
            Function::ToaRadiation(radiation) => radiation.at(time),
            Function::HourOfDay(component) => vec![hour_of_day(time, *component)],
            Function::DayOfYear(component) => vec![day_of_year(time, *component)],
        }
    }
}

/// The times that a time argument has along the time axis of the source. In a dataset of forecasts
/// `time` is the valid time, whether it is stored (over both dimensions of time) or not.
fn time_argument(
    opening: &Opening<'_>,
    source: &SourceInput,
    axis: &TimeAxis,
    name: &str,
) -> Result<Vec<i64>, PrepareError> {
    let is_valid_time = match &axis.fixed {
        None => name == axis.dim,
        Some(_) => opening.mapping.time_name.as_deref() == Some(name) || name == TIME_DIM,
    };
    if is_valid_time {
        return Ok(axis.valid.clone());
    }
    let variable = source.dataset.variable(name)?;
    let dims: Vec<&str> = variable.dims().iter().map(String::as_str).collect();
    let fixed = axis
        .fixed
        .as_ref()
        .map(|(dim, at)| (dim.as_str(), *at as usize));
    let count = axis.valid.len();
    if let Some((dim, _)) = fixed
        && axis.dim == name
        && dims == [axis.dim.as_str()]
    {
        return Err(opening.wrong(format!(
            "`ds_input.{name}` is a duration: use `ds_input.{TIME_DIM}` or `ds_input.{dim}`"
        )));
    }
    let times = source.dataset.times(name)?;
    match (dims.as_slice(), fixed) {
        ([], _) => Ok(vec![times[0]; count]),
        ([dim], _) if *dim == axis.dim => Ok(times),
        ([dim], Some((fixed, at))) if *dim == fixed => Ok(vec![times[at]; count]),
        ([first, second], Some((fixed, at))) if *first == fixed && *second == axis.dim => {
            Ok(times[at * count..(at + 1) * count].to_vec())
        }
        _ => Err(opening.unusable(format!(
            "the variable `{name}` is used as the time of `{}`, but has the dimensions ({})",
            opening.name,
            dims.join(", ")
        ))),
    }
}

/// A latitude or longitude on every point of the grid.
fn degrees(
    opening: &Opening<'_>,
    source: &SourceInput,
    name: &str,
) -> Result<Degrees, PrepareError> {
    let variable = source.dataset.variable(name)?;
    opening.check_lengths(&source.dataset, variable)?;
    let mut strides = vec![0; source.grid.dims.len()];
    let mut ranges = Vec::new();
    let mut stride = 1;
    for dim in variable.dims().iter().rev() {
        let number = source
            .grid_dims
            .iter()
            .position(|grid_dim| grid_dim == dim)
            .ok_or_else(|| {
                opening.unusable(format!(
                "the variable `{name}` has the dimension `{dim}`, which is not one of the grid: {}",
                source.grid_dims.join(", ")
            ))
            })?;
        strides[number] = stride;
        let range = source.grid_ranges[number].clone();
        stride *= (range.end - range.start) as usize;
        ranges.push(range);
    }
    ranges.reverse();
    let shape: Vec<usize> = source
        .grid
        .shape
        .iter()
        .map(|length| *length as usize)
        .collect();
    let points = shape.iter().product();
    let values = variable.read_range(&ranges)?;
    match values {
        Values::F32(values) => {
            let values: Vec<f32> = values.into_iter().collect();
            let mut out = vec![0.0_f32; points];
            let plane = Plane {
                data: Data::Single(&values),
                offset: 0,
                strides,
            };
            copy_planes(&[plane], &shape, &mut out, 1, 0);
            Ok(Degrees::Single(out))
        }
        other => {
            let values: Vec<f64> = other.into_f64()?.into_iter().collect();
            let mut out = vec![0.0_f64; points];
            let plane = Plane {
                data: Data::Double(&values),
                offset: 0,
                strides,
            };
            copy_planes(&[plane], &shape, &mut out, 1, 0);
            Ok(Degrees::Double(out))
        }
    }
}

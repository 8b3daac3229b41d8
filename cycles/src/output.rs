//! Is what a container wrote complete? Asked before anything of it is published.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use mlwm_datasets::{Dataset, Element, Values, Variable};
use mlwm_spec::AnalysisTime;
use mlwm_spec::configuration::Form;
use mlwm_spec::time::utc_text;

use crate::plan::{PlannedOutput, PlannedTask, Steps};
use crate::preflight::ANALYSIS_TIME;

/// The lead times of a forecast, by name of their coordinate.
const ELAPSED: &str = "elapsed_forecast_duration";

/// Checks the dataset that a container wrote into the folder `path`. The error says what is wrong,
/// to be read after the words "output `x`". Files that are no dataset must only be there.
///
/// Every variable that was asked for must be there, and every chunk of a floating-point variable:
/// Zarr reads a chunk that was never written as fill values, and a writer that died leaves just
/// that. Everything is decoded once. Where the plan knows the steps, every time must be the one
/// that was asked for, and every value finite.
pub(crate) fn check(
    path: &Path,
    wanted: &PlannedOutput,
    planned: &PlannedTask,
) -> Result<(), String> {
    let empty = std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        return Err(format!(
            "was not written: there is nothing at {}",
            wanted.internal_path
        ));
    }
    refuse_special_files(path)?;
    if wanted.format == Form::Files {
        return Ok(());
    }
    let dataset = Dataset::open(path).map_err(unreadable)?;
    for name in wanted.variables.iter().flatten() {
        if !dataset.contains(name) {
            let there: Vec<&str> = dataset.names().collect();
            return Err(format!(
                "has no variable `{name}` (it has: {})",
                there.join(", ")
            ));
        }
    }
    if let Some(name) = wanted.ranges.keys().find(|name| !dataset.contains(name)) {
        return Err(format!(
            "has no variable `{name}`, for which there is a range"
        ));
    }
    if dataset.contains(ANALYSIS_TIME) {
        let wanted = planned.analysis_time.unix_seconds();
        let times = dataset.times(ANALYSIS_TIME).map_err(unreadable)?;
        if let Some(other) = times.iter().find(|time| **time != wanted) {
            return Err(format!(
                "is of the analysis time {}, not {}",
                utc_text(*other),
                planned.analysis_time
            ));
        }
    }
    let mut data = 0;
    for name in dataset.names() {
        let variable = dataset.variable(name).map_err(unreadable)?;
        let is_data = !variable.dims().is_empty() && !variable.dims().iter().any(|dim| dim == name);
        let floating = matches!(variable.element(), Element::F32 | Element::F64);
        if floating {
            let missing = variable.missing_chunks().map_err(unreadable)?;
            if missing > 0 {
                return Err(format!(
                    "is incomplete: {missing} chunks of `{name}` were never written (a writer that \
                     leaves out chunks of missing values must write them: `write_empty_chunks`)"
                ));
            }
        }
        let demands = Demands {
            finite: floating && planned.steps.is_some(),
            range: wanted.ranges.get(name).copied(),
        };
        read_all(variable, &demands)?;
        let is_wanted = wanted
            .variables
            .iter()
            .flatten()
            .any(|wanted| wanted == name);
        let has_times = timed(&dataset, variable).is_some();
        if is_wanted && !has_times && planned.steps.is_some() {
            return Err(format!("has no times for `{name}`"));
        }
        if has_times && (is_wanted || is_data && floating) {
            data += 1;
            if let Some(steps) = &planned.steps {
                check_times(&dataset, variable, steps, planned)?;
            }
        }
    }
    match (data, &planned.steps) {
        (0, Some(_)) => Err("has no variable with times".to_owned()),
        _ => Ok(()),
    }
}

/// A link could make mlwm read a file of this host that the container chose, and a pipe would never
/// end.
pub(crate) fn refuse_special_files(folder: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            refuse_special_files(&entry.path())?;
        } else if !kind.is_file() {
            let name = entry.file_name();
            return Err(format!(
                "holds `{}`, which is neither a file nor a folder",
                name.display()
            ));
        }
    }
    Ok(())
}

/// The names of the variables that have times and are not coordinates.
pub(crate) fn data_variables(dataset: &Dataset) -> Result<Vec<String>, String> {
    let mut coordinates = BTreeSet::from([ELAPSED]);
    let mut timed_ones = Vec::new();
    for name in dataset.names() {
        let variable = dataset.variable(name).map_err(unreadable)?;
        let named = variable.text_attribute("coordinates").unwrap_or_default();
        coordinates.extend(named.split_whitespace());
        let is_data = !variable.dims().iter().any(|dim| dim == name);
        if is_data && variable.element() != Element::Text && timed(dataset, variable).is_some() {
            timed_ones.push(name);
        }
    }
    timed_ones.retain(|name| !coordinates.contains(name));
    match timed_ones.is_empty() {
        true => Err("has no variable with times".to_owned()),
        false => Ok(timed_ones.into_iter().map(str::to_owned).collect()),
    }
}

/// The lead times of a dataset in seconds, by the first variable that has times.
pub(crate) fn lead_times(
    dataset: &Dataset,
    analysis_time: AnalysisTime,
) -> Result<Vec<i64>, String> {
    let names = data_variables(dataset)?;
    let first = names.first().ok_or("has no variable with times")?;
    let times = times_of(
        dataset,
        dataset.variable(first).map_err(unreadable)?,
        analysis_time,
    )?;
    let analysis_time = analysis_time.unix_seconds();
    Ok(times.iter().map(|time| time - analysis_time).collect())
}

/// The valid times of a variable, in seconds since 1970-01-01T00:00Z; none if it has no times.
fn times_of(
    dataset: &Dataset,
    variable: &Variable,
    analysis_time: AnalysisTime,
) -> Result<Vec<i64>, String> {
    let found = match timed(dataset, variable) {
        Some((dim, TimeKind::Times)) => dataset.times(dim),
        Some((dim, TimeKind::Durations)) => dataset.durations(dim).map(|durations| {
            let start = analysis_time.unix_seconds();
            durations.iter().map(|duration| start + duration).collect()
        }),
        None => return Ok(Vec::new()),
    };
    found.map_err(unreadable)
}

/// What the values of a variable must be.
struct Demands {
    finite: bool,
    /// Lowest and highest. What is missing (NaN) is judged by `finite` alone.
    range: Option<[f64; 2]>,
}

impl Demands {
    /// How many of these values are not finite, and one that is out of range.
    fn broken_by<'v, V: Copy + Into<f64> + 'v>(
        &self,
        values: impl Iterator<Item = &'v V> + Clone,
    ) -> (usize, Option<f64>) {
        let values = || values.clone().map(|value| (*value).into());
        let infinite = match self.finite {
            true => values().filter(|value: &f64| !value.is_finite()).count(),
            false => 0,
        };
        let outside = self
            .range
            .and_then(|[low, high]| values().find(|value| *value < low || *value > high));
        (infinite, outside)
    }
}

/// Decodes all values, a row of chunks at a time.
fn read_all(variable: &Variable, demands: &Demands) -> Result<(), String> {
    let whole: Vec<Range<u64>> = variable.shape().iter().map(|length| 0..*length).collect();
    let rows = variable.shape().first().copied().unwrap_or(1);
    let step = variable.chunk_shape().first().copied().unwrap_or(1).max(1);
    let mut start = 0;
    while start < rows {
        let mut ranges = whole.clone();
        if let Some(first) = ranges.first_mut() {
            *first = start..rows.min(start + step);
        }
        let values = variable.read_range(&ranges).map_err(unreadable)?;
        let (infinite, outside) = match values {
            Values::F32(ref values) => demands.broken_by(values.iter()),
            Values::F64(ref values) => demands.broken_by(values.iter()),
            // Integers, which are always finite.
            _ if demands.range.is_some() => {
                let numbers = values.into_f64().map_err(unreadable)?;
                demands.broken_by(numbers.iter())
            }
            _ => (0, None),
        };
        let name = variable.name();
        if infinite > 0 {
            return Err(format!(
                "has {infinite} values of `{name}` that are not finite"
            ));
        }
        if let (Some(value), Some([low, high])) = (outside, demands.range) {
            return Err(format!(
                "has the value {value} of `{name}`, which is not from {low} to {high} as the configuration's `ranges` say"
            ));
        }
        start += step;
    }
    Ok(())
}

/// The dimension of a variable that is time: `time`-like, or the elapsed duration of a forecast.
fn timed<'a>(dataset: &Dataset, variable: &'a Variable) -> Option<(&'a str, TimeKind)> {
    variable.dims().iter().find_map(|dim| {
        let coordinate = dataset.variable(dim).ok()?;
        let units = coordinate.text_attribute("units");
        let length_one = coordinate.shape() == [1];
        match units {
            Some(units) if units.contains(" since ") && !(length_one && dim == "analysis_time") => {
                Some((dim.as_str(), TimeKind::Times))
            }
            _ if dim == ELAPSED => Some((dim.as_str(), TimeKind::Durations)),
            _ => None,
        }
    })
}

enum TimeKind {
    Times,
    Durations,
}

fn check_times(
    dataset: &Dataset,
    variable: &Variable,
    steps: &Steps,
    planned: &PlannedTask,
) -> Result<(), String> {
    if timed(dataset, variable).is_none() {
        return Ok(());
    }
    let found = times_of(dataset, variable, planned.analysis_time)?;
    let analysis_time = planned.analysis_time.unix_seconds();
    let expected: Vec<i64> = steps.valid_times(analysis_time).collect();
    if found != expected {
        let show = |times: &[i64]| {
            let ends = [times.first(), times.last()];
            let ends: Vec<String> = ends.into_iter().flatten().map(|t| utc_text(*t)).collect();
            format!("{} times, {}", times.len(), ends.join(" to "))
        };
        return Err(format!(
            "is incomplete: `{}` has {}, not {}",
            variable.name(),
            show(&found),
            show(&expected)
        ));
    }
    Ok(())
}

fn unreadable(error: mlwm_datasets::Error) -> String {
    format!("cannot be read: {error}")
}

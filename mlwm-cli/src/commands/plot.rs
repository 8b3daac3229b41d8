//! `mlwm plot`: maps of a published forecast.

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use mlwm_datasets::{Dataset, Variable};
use mlwm_maps::Map;
use mlwm_spec::time::utc_text;
use mlwm_spec::{ExitCode, Period};
use mlwm_storage::{Progress, Uri};
use tokio_util::sync::CancellationToken;

use crate::Outcome;
use crate::commands::runtime;
use crate::failure::Failure;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The forecast: a path or URI of a Zarr store.
    forecast: String,
    /// Folder for the maps, one PNG per variable (and level).
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Variable to draw; may be given several times; all if none is given.
    #[arg(long = "variable", value_name = "NAME")]
    variables: Vec<String>,
    /// Lead time to draw, ISO 8601; the last one if not given.
    #[arg(long, value_name = "PERIOD")]
    lead_time: Option<Period>,
}

pub(crate) fn main(arguments: Arguments) -> Outcome {
    let uri: Uri = arguments.forecast.parse().map_err(Failure::from)?;
    // Held until the end: what lies in another store is brought here first.
    let (_copy, path) = match uri.local_path() {
        Some(path) => (None, path),
        None => {
            let (copy, path) = fetch(&uri)?;
            (Some(copy), path)
        }
    };
    let dataset = Dataset::open(&path)?;
    let names = match arguments.variables.is_empty() {
        true => drawable(&dataset)?,
        false => arguments.variables.clone(),
    };
    if names.is_empty() {
        let message = format!(
            "{uri} has no variable with two horizontal dimensions: there is nothing to draw"
        );
        return Err(Failure::new(ExitCode::InputMissing, message));
    }
    std::fs::create_dir_all(&arguments.out).map_err(|error| unwritable(&arguments.out, &error))?;
    for name in names {
        let field = Field::of(&dataset, dataset.variable(&name)?)?;
        let time = field.time(arguments.lead_time, &name)?;
        for level in 0..field.levels {
            let (file, map) = field.map(time, level)?;
            let file = arguments.out.join(file);
            mlwm_maps::draw(&map, &file)
                .map_err(|error| Failure::new(ExitCode::StorageFailed, error))?;
            say!("{}", file.display());
        }
    }
    Ok(ExitCode::Ok)
}

fn fetch(uri: &Uri) -> Result<(tempfile::TempDir, PathBuf), Failure> {
    let folder = tempfile::tempdir().map_err(|error| unwritable(&std::env::temp_dir(), &error))?;
    let path = folder.path().join("forecast.zarr");
    let (progress, cancel) = (Progress::none(), CancellationToken::new());
    runtime()?.block_on(mlwm_storage::stage(uri, &path, &progress, &cancel))?;
    Ok((folder, path))
}

/// The names of all variables over a horizontal plane, in order.
fn drawable(dataset: &Dataset) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for name in dataset.names() {
        let variable = dataset.variable(name)?;
        let coordinate = ["lat", "lon", "latitude", "longitude"].contains(&name);
        if !coordinate && variable.shape().len() >= 2 && Field::of(dataset, variable).is_ok() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// A variable over time, levels and a horizontal plane.
struct Field<'a> {
    variable: &'a Variable,
    /// Index of the dimension of time, and valid times.
    time: Option<(usize, Vec<i64>)>,
    analysis_time: Option<i64>,
    /// Indices of the dimensions up and to the right on the map.
    vertical: usize,
    horizontal: usize,
    /// The coordinates along the latter and the former.
    axes: (Axis, Axis),
    /// Names, lengths and values of all other dimensions, and the number of their combinations.
    others: Vec<(usize, String, Vec<String>)>,
    levels: usize,
}

impl<'a> Field<'a> {
    fn of(dataset: &Dataset, variable: &'a Variable) -> Result<Self, Failure> {
        let dims = variable.dims();
        let mut time = None;
        let analysis_time = dataset
            .times("analysis_time")
            .ok()
            .and_then(|t| t.first().copied());
        let mut plane = Vec::new();
        let mut others = Vec::new();
        for (index, dim) in dims.iter().enumerate() {
            let coordinate = dataset.variable(dim).ok();
            let units = coordinate
                .and_then(|c| c.text_attribute("units"))
                .unwrap_or_default();
            if dim == "analysis_time" {
                others.push((index, dim.clone(), Vec::new()));
            } else if dim == "elapsed_forecast_duration" {
                let base = analysis_time.unwrap_or_default();
                let elapsed = dataset.durations(dim)?;
                time = Some((index, elapsed.iter().map(|e| base + e).collect()));
            } else if units.contains(" since ") {
                time = Some((index, dataset.times(dim)?));
            } else {
                plane.push(index);
            }
        }
        // The last two that are not time are the plane, whichever way round; levels come before.
        let axis = |index: usize| Axis::of(dataset, &dims[index], variable.shape()[index]);
        let horizontal_pair: Vec<usize> = {
            let named: Vec<usize> = plane
                .iter()
                .copied()
                .filter(|i| axis(*i).is_horizontal())
                .collect();
            if named.len() == 2 {
                named
            } else {
                plane.iter().rev().take(2).rev().copied().collect()
            }
        };
        let [first, second] = horizontal_pair.as_slice() else {
            let message = format!(
                "`{}` has not two horizontal dimensions: it cannot be drawn",
                variable.name()
            );
            return Err(Failure::new(ExitCode::InputMissing, message));
        };
        let (vertical, horizontal) = match axis(*first).is_eastward() {
            true => (*second, *first),
            false => (*first, *second),
        };
        let mut levels = 1;
        for index in plane
            .iter()
            .filter(|index| ![vertical, horizontal].contains(index))
        {
            let values = axis(*index).texts();
            levels *= values.len();
            others.push((*index, dims[*index].clone(), values));
        }
        let (y, x) = (axis(vertical), axis(horizontal));
        Ok(Self {
            variable,
            time,
            analysis_time,
            vertical,
            horizontal,
            axes: (x, y),
            others,
            levels,
        })
    }

    /// Index of the time to draw.
    fn time(&self, lead_time: Option<Period>, name: &str) -> Result<Option<usize>, Failure> {
        let Some((_, times)) = &self.time else {
            return Ok(None);
        };
        let Some(wanted) = lead_time else {
            return Ok(times.len().checked_sub(1));
        };
        let start = self
            .analysis_time
            .or(times.first().copied())
            .unwrap_or_default();
        let found = times
            .iter()
            .position(|time| time - start == wanted.seconds());
        found.map(Some).ok_or_else(|| {
            let last = times
                .last()
                .and_then(|time| Period::from_seconds(time - start));
            let last = last.map(|last| format!("; its last one is {last}"));
            let message = format!(
                "`{name}` has no lead time {wanted}{}",
                last.unwrap_or_default()
            );
            Failure::new(ExitCode::InputMissing, message)
        })
    }

    /// The map of one time and level, and the name of its file.
    fn map(&self, time: Option<usize>, level: usize) -> Result<(String, Map), Failure> {
        let variable = self.variable;
        let mut ranges: Vec<Range<u64>> =
            variable.shape().iter().map(|length| 0..*length).collect();
        let mut file = variable.name().to_owned();
        let mut title = variable
            .text_attribute("long_name")
            .unwrap_or(variable.name())
            .to_owned();
        let one = |index: usize| index as u64..index as u64 + 1;
        if let (Some(time), Some((dim, _))) = (time, &self.time) {
            ranges[*dim] = one(time);
        }
        let mut rest = level;
        for (dim, name, values) in &self.others {
            let index = rest % values.len().max(1);
            rest /= values.len().max(1);
            ranges[*dim] = one(index);
            if let Some(value) = values.get(index) {
                file.push_str(&format!("_{name}{value}"));
                title.push_str(&format!(", {name} {value}"));
            }
        }
        let values = variable.read_range(&ranges)?.into_f64()?;
        let mut axes: Vec<usize> = (0..ranges.len()).collect();
        axes.retain(|axis| ![self.vertical, self.horizontal].contains(axis));
        axes.extend([self.vertical, self.horizontal]);
        let values: Vec<f64> = values.permuted_axes(axes).iter().copied().collect();
        let units = variable
            .text_attribute("units")
            .unwrap_or_default()
            .to_owned();
        let (x, y) = &self.axes;
        Ok((
            format!("{file}.png"),
            Map {
                values,
                x: x.values.clone(),
                y: y.values.clone(),
                x_label: x.name.clone(),
                y_label: y.name.clone(),
                x_units: x.units.clone(),
                y_units: y.units.clone(),
                title,
                subtitle: self.subtitle(time),
                units,
                range: None,
            },
        ))
    }

    fn subtitle(&self, time: Option<usize>) -> String {
        let valid = time
            .zip(self.time.as_ref())
            .map(|(index, (_, times))| times[index]);
        let Some(valid) = valid else {
            return String::new();
        };
        match self.analysis_time {
            Some(start) => {
                let lead = valid - start;
                let (hours, minutes) = (lead / 3600, lead % 3600 / 60);
                let lead = match minutes {
                    0 => format!("+{hours} h"),
                    minutes => format!("+{hours} h {minutes} min"),
                };
                format!("valid {}, {lead} from {}", utc_text(valid), utc_text(start))
            }
            None => format!("valid {}", utc_text(valid)),
        }
    }
}

/// The coordinate along a dimension.
struct Axis {
    name: String,
    standard_name: String,
    units: String,
    values: Vec<f64>,
}

impl Axis {
    /// The coordinate variable of a dimension; the index where there is none.
    fn of(dataset: &Dataset, dim: &str, length: u64) -> Self {
        let variable = dataset.variable(dim).ok().filter(|v| v.shape() == [length]);
        let text = |name: &str| {
            let found = variable.and_then(|variable| variable.text_attribute(name));
            found.unwrap_or_default().to_owned()
        };
        let values = variable.and_then(|v| v.read().and_then(mlwm_datasets::Values::into_f64).ok());
        Self {
            name: dim.to_owned(),
            standard_name: text("standard_name"),
            units: text("units"),
            values: match values {
                Some(values) => values.iter().copied().collect(),
                None => (0..length).map(|index| index as f64).collect(),
            },
        }
    }

    fn is_eastward(&self) -> bool {
        ["projection_x_coordinate", "longitude", "grid_longitude"]
            .contains(&self.standard_name.as_str())
            || self.units.starts_with("degrees_e")
            || ["x", "lon", "longitude", "west_east"].contains(&self.name.as_str())
    }

    fn is_horizontal(&self) -> bool {
        self.is_eastward()
            || ["projection_y_coordinate", "latitude", "grid_latitude"]
                .contains(&self.standard_name.as_str())
            || self.units.starts_with("degrees_n")
            || ["y", "lat", "latitude", "south_north"].contains(&self.name.as_str())
    }

    fn texts(&self) -> Vec<String> {
        self.values.iter().map(f64::to_string).collect()
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot write into {}: {error}", path.display());
    Failure::new(ExitCode::StorageFailed, message)
}

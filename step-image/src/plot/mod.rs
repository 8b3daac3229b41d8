//! `plot`: maps, series at points, and what is there, as PNG.

mod place;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args as Arguments, ValueEnum};
use mlwm_datasets::{Dataset, Element, Variable};
use mlwm_maps::{Line, Map, Matrix, Series};
use mlwm_spec::time::utc_text as text;

use crate::concat::is_in_degrees;
use crate::new_store::{self, say};
use crate::presence::presence;
use crate::validate::time;
use crate::{Error, Fault};
use place::{Layout, Places};

/// Draw maps, series at points and what is there of a Zarr store, as PNG.
#[derive(Clone, Debug, Arguments)]
pub struct Args {
    /// The Zarr store.
    pub store: PathBuf,
    /// A folder for the pictures, or the file of the only one.
    #[arg(long)]
    pub out: PathBuf,
    /// What is drawn.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Variables; all that can be drawn if not given.
    #[arg(long, value_delimiter = ',')]
    pub variables: Vec<String>,
    /// The time of maps, like `2020-01-07T12:00Z`; the first if not given.
    #[arg(long)]
    pub time: Option<String>,
    /// A point of series, as latitude and longitude: the nearest one is drawn.
    #[arg(long = "point")]
    pub points: Vec<Point>,
    /// Which of other dimensions is drawn, by number from 0: `level=2`; the first if not given.
    #[arg(long = "at", value_delimiter = ',')]
    pub others: Vec<Other>,
    /// The values at the ends of the colour bar: `250,310`.
    #[arg(long, allow_hyphen_values = true)]
    pub range: Option<Ends>,
    /// The dimension of the times.
    #[arg(long, default_value = "time")]
    pub dimension: String,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A map of each variable at a time.
    Map,
    /// Each variable over time at points.
    Series,
    /// What of each variable is there at each time.
    Presence,
}

/// A latitude and a longitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    latitude: f64,
    longitude: f64,
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |(latitude, longitude): (&str, &str)| {
            let latitude: f64 = latitude.trim().parse().ok()?;
            let longitude: f64 = longitude.trim().parse().ok()?;
            let is_on_earth = latitude.abs() <= 90.0 && (-180.0..=360.0).contains(&longitude);
            is_on_earth.then_some(Self {
                latitude,
                longitude,
            })
        };
        let point = text.split_once(',').and_then(parse);
        point.ok_or_else(|| {
            format!("`{text}` is not a point: write a latitude and a longitude, `51.5,7.3`")
        })
    }
}

/// The values at the ends of a colour bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ends {
    low: f64,
    high: f64,
}

impl FromStr for Ends {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |(low, high): (&str, &str)| {
            let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (low < high).then_some(Self { low, high })
        };
        let ends = text.split_once(',').and_then(parse);
        ends.ok_or_else(|| {
            format!("`{text}` is no range: write the least and the greatest value, `250,310`")
        })
    }
}

/// A number along a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    dim: String,
    at: u64,
}

impl FromStr for Other {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |(dim, at): (&str, &str)| {
            Some(Self {
                dim: dim.to_owned(),
                at: at.parse().ok()?,
            })
        };
        let other = text.split_once('=').and_then(parse);
        other.ok_or_else(|| format!("`{text}` is not a number along a dimension: write `level=2`"))
    }
}

/// Draws.
///
/// # Errors
/// [`Error::Fault`] for a store without what is asked for, or a picture that cannot be drawn or written.
pub fn run(args: &Args) -> Result<(), Error> {
    let dataset = Dataset::open(&args.store).map_err(Fault::from)?;
    let pictures = match args.kind {
        Kind::Presence => vec![draw_presence(&dataset, args)?],
        Kind::Map => draw_maps(&dataset, args)?,
        Kind::Series => draw_series(&dataset, args)?,
    };
    let is_file = args
        .out
        .extension()
        .is_some_and(|extension| extension == "png");
    if is_file && pictures.len() != 1 {
        let message = format!(
            "{} pictures do not fit into one file: give a folder",
            pictures.len()
        );
        return Err(Fault::Usage(message).into());
    }
    let folder = if is_file {
        args.out.parent()
    } else {
        Some(args.out.as_path())
    };
    if let Some(folder) = folder.filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(Fault::write(folder))?;
    }
    for (name, draw) in pictures {
        let file = if is_file {
            args.out.clone()
        } else {
            args.out.join(name)
        };
        draw.write(&file)?;
        say(&file.display().to_string());
    }
    Ok(())
}

/// A picture that is not yet drawn.
enum Picture {
    Grid(Map),
    Points(Map),
    Series(Series),
    Matrix(Matrix),
}

impl Picture {
    fn write(&self, file: &Path) -> Result<(), Fault> {
        match self {
            Self::Grid(map) => mlwm_maps::draw(map, file)?,
            Self::Points(map) => mlwm_maps::draw_points(map, file)?,
            Self::Series(series) => mlwm_maps::draw_series(series, file)?,
            Self::Matrix(matrix) => mlwm_maps::draw_matrix(matrix, file)?,
        }
        Ok(())
    }
}

/// The variables that are asked for, or all besides coordinates.
fn chosen<'a>(dataset: &'a Dataset, args: &Args) -> Result<Vec<&'a Variable>, Fault> {
    if !args.variables.is_empty() {
        let named = args.variables.iter().map(|name| dataset.variable(name));
        return Ok(named.collect::<Result<_, _>>()?);
    }
    let is_value = |variable: &&Variable| {
        variable.element() != Element::Text
            && !new_store::is_index(variable)
            && !is_in_degrees(variable.name(), variable)
    };
    Ok(new_store::variables(dataset)?
        .into_iter()
        .filter(is_value)
        .collect())
}

fn times(dataset: &Dataset, args: &Args) -> Result<Vec<i64>, Fault> {
    match dataset.contains(&args.dimension) {
        true => Ok(dataset.times(&args.dimension)?),
        false => Ok(Vec::new()),
    }
}

fn draw_maps(dataset: &Dataset, args: &Args) -> Result<Vec<(String, Picture)>, Fault> {
    let times = times(dataset, args)?;
    let at = match &args.time {
        None => 0,
        Some(asked) => {
            let asked = time(asked).map_err(Fault::Usage)?;
            times
                .iter()
                .position(|&time| time == asked)
                .ok_or_else(|| {
                    let reason = match (times.first(), times.last()) {
                        (Some(&first), Some(&last)) => format!(
                            "it has no time {}; it has {} times from {} to {}",
                            text(asked),
                            times.len(),
                            text(first),
                            text(last)
                        ),
                        _ => "it has no times".to_owned(),
                    };
                    Fault::store(dataset.path(), reason)
                })?
        }
    };
    let places = Places::of(dataset)?;
    let mut pictures = Vec::new();
    for variable in chosen(dataset, args)? {
        let layout = match places.layout(variable) {
            Some(layout) => layout,
            None if args.variables.is_empty() => continue,
            None => {
                let reason = format!("`{}` has no latitudes and longitudes", variable.name());
                return Err(Fault::store(dataset.path(), reason));
            }
        };
        let (ranges, notes) = ranges(dataset, variable, args, at as u64, &layout)?;
        let values = values(variable, &ranges, &layout)?;
        let time = variable
            .dims()
            .contains(&args.dimension)
            .then(|| times.get(at).copied())
            .flatten();
        let mut subtitle: Vec<String> = time.map(text).into_iter().collect();
        subtitle.extend(notes);
        let (x, y) = places.coordinates(&layout);
        let map = Map {
            values,
            x,
            y,
            x_label: "longitude".to_owned(),
            y_label: "latitude".to_owned(),
            x_units: "degrees_east".to_owned(),
            y_units: "degrees_north".to_owned(),
            title: title(variable),
            subtitle: subtitle.join(" · "),
            units: units(variable),
            range: args.range.map(|ends| (ends.low, ends.high)),
        };
        let name = match time {
            Some(time) => format!(
                "{}_{}.png",
                variable.name(),
                text(time).replace([':', '-'], "")
            ),
            None => format!("{}.png", variable.name()),
        };
        let picture = match layout {
            Layout::Grid { .. } => Picture::Grid(map),
            Layout::Points { .. } => Picture::Points(map),
        };
        pictures.push((name, picture));
    }
    match pictures.is_empty() {
        true => Err(Fault::store(
            dataset.path(),
            "it has no variable with latitudes and longitudes to draw",
        )),
        false => Ok(pictures),
    }
}

fn draw_series(dataset: &Dataset, args: &Args) -> Result<Vec<(String, Picture)>, Fault> {
    if args.points.is_empty() {
        return Err(Fault::Usage(
            "give a point to draw series at: `--point 51.5,7.3`".to_owned(),
        ));
    }
    let times = times(dataset, args)?;
    let places = Places::of(dataset)?;
    let mut pictures = Vec::new();
    for variable in chosen(dataset, args)? {
        let axis = variable
            .dims()
            .iter()
            .position(|dim| *dim == args.dimension);
        let (Some(axis), Some(layout)) = (axis, places.layout(variable)) else {
            if args.variables.is_empty() {
                continue;
            }
            let reason = format!(
                "`{}` does not change with time at latitudes and longitudes",
                variable.name()
            );
            return Err(Fault::store(dataset.path(), reason));
        };
        let (mut ranges, notes) = ranges(dataset, variable, args, 0, &layout)?;
        ranges[axis] = 0..variable.shape()[axis];
        let mut lines = Vec::new();
        for point in &args.points {
            let nearest = places.nearest(&layout, point.latitude, point.longitude);
            for (dim, at) in nearest.indices {
                ranges[dim] = at..at + 1;
            }
            let values = variable.read_range(&ranges)?.into_f64()?;
            lines.push(Line {
                label: place::text(nearest.latitude, nearest.longitude),
                values: values.into_iter().collect(),
            });
        }
        let series = Series {
            times: times.clone(),
            lines,
            title: title(variable),
            subtitle: notes.join(" · "),
            units: units(variable),
        };
        pictures.push((
            format!("{}_series.png", variable.name()),
            Picture::Series(series),
        ));
    }
    match pictures.is_empty() {
        true => Err(Fault::store(
            dataset.path(),
            "it has no variable that changes with time at points",
        )),
        false => Ok(pictures),
    }
}

fn draw_presence(dataset: &Dataset, args: &Args) -> Result<(String, Picture), Fault> {
    let times = times(dataset, args)?;
    if times.is_empty() {
        return Err(Fault::store(
            dataset.path(),
            format!("it has no times `{}`", args.dimension),
        ));
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let mut rows = Vec::new();
    for variable in chosen(dataset, args)? {
        if variable.dims().contains(&args.dimension) {
            let found = presence(variable, &args.dimension, threads)?;
            rows.push((variable.name().to_owned(), found.parts()));
        }
    }
    let complete = rows
        .iter()
        .filter(|(_, row)| row.iter().all(|part| *part >= 1.0))
        .count();
    let matrix = Matrix {
        title: "Presence of values".to_owned(),
        subtitle: format!(
            "{} · {complete} of {} variables complete at {} times",
            dataset
                .path()
                .file_name()
                .unwrap_or_default()
                .to_string_lossy(),
            rows.len(),
            times.len()
        ),
        times,
        rows,
    };
    Ok(("presence.png".to_owned(), Picture::Matrix(matrix)))
}

/// What is read of a variable for a map, and what is to be said of other dimensions.
fn ranges(
    dataset: &Dataset,
    variable: &Variable,
    args: &Args,
    time: u64,
    layout: &Layout,
) -> Result<(Vec<Range<u64>>, Vec<String>), Fault> {
    let mut notes = Vec::new();
    let mut ranges = Vec::new();
    for (axis, (dim, &length)) in variable.dims().iter().zip(variable.shape()).enumerate() {
        if layout.has(axis) {
            ranges.push(0..length);
            continue;
        }
        if *dim == args.dimension {
            ranges.push(time..time + 1);
            continue;
        }
        let at = args
            .others
            .iter()
            .find(|other| other.dim == *dim)
            .map_or(0, |other| other.at);
        if at >= length {
            let reason = format!(
                "`{dim}` of `{}` has {length} values, and none of number {at}",
                variable.name()
            );
            return Err(Fault::store(dataset.path(), reason));
        }
        notes.push(place::described(dataset, dim, at));
        ranges.push(at..at + 1);
    }
    Ok((ranges, notes))
}

/// The values of a map, row by row along the latitudes.
fn values(variable: &Variable, ranges: &[Range<u64>], layout: &Layout) -> Result<Vec<f64>, Fault> {
    let values = variable.read_range(ranges)?.into_f64()?;
    Ok(match layout {
        // Longitudes first: the other way round.
        Layout::Grid { y, x } if y > x => {
            let mut order: Vec<usize> = (0..ranges.len()).collect();
            order.swap(*y, *x);
            values.permuted_axes(order).iter().copied().collect()
        }
        _ => values.into_iter().collect(),
    })
}

fn title(variable: &Variable) -> String {
    let long_name = variable
        .text_attribute("long_name")
        .filter(|name| !name.is_empty() && *name != "unknown");
    match long_name.or_else(|| variable.text_attribute("GRIB_name")) {
        Some(name) if name != variable.name() => format!("{name} ({})", variable.name()),
        _ => variable.name().to_owned(),
    }
}

fn units(variable: &Variable) -> String {
    let units = variable
        .text_attribute("units")
        .or_else(|| variable.text_attribute("GRIB_units"));
    units
        .filter(|units| *units != "~")
        .unwrap_or_default()
        .to_owned()
}

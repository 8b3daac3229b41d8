//! The second pass: decodes what was planned, and writes it.

use std::path::Path;

use mlwm_datasets::{Definition, Element, Values, Writer};
use mlwm_grib::{Coordinates, Grid, Reader, Rows};
use serde_json::{Map, Value, json};

use super::Arguments;
use super::index::Index;
use super::plan::{Plan, Planned};
use crate::memory::Budget;
use crate::output::{Output, TIME, array, write_coordinate, write_times};
use crate::pour::{Fields, Series, pour};
use crate::{Error, Problems};

/// The dimension of points that are not in rows and columns.
const POINT: &str = "x";

/// The points of the result.
#[derive(Debug)]
pub(crate) struct Points {
    dims: Vec<(&'static str, u64)>,
    /// Of each point, or of each row.
    latitudes: Vec<f64>,
    /// Of each point, or of each column.
    longitudes: Vec<f64>,
    /// Which value of a message each point has; none if they are all in the order of the message.
    gather: Option<Vec<usize>>,
    /// Whether these are points that `--points` selected.
    is_selection: bool,
    grid: String,
    /// The grid's type, as cfgrib says it.
    grid_type: &'static str,
}

impl Points {
    pub(crate) fn new(
        grid: &Grid,
        coordinates: Coordinates,
        selected: Option<Vec<usize>>,
        arguments: &Arguments,
        problems: &mut Problems,
    ) -> Self {
        let rows = match grid {
            Grid::RegularGaussian { rows, .. } => Some(*rows),
            Grid::RegularLatLon(grid) => Some(grid.rows),
            _ => None,
        };
        let mut points = match (rows, selected) {
            (Some(rows), None) => Self::of_rows(&rows, coordinates),
            (_, selected) => Self::of_points(coordinates, selected, problems),
        };
        points.grid = grid.name();
        points.grid_type = grid.kind();
        if arguments.wrap_longitudes {
            points
                .longitudes
                .iter_mut()
                .for_each(|longitude| *longitude = wrapped(*longitude));
        }
        points
    }

    fn of_rows(rows: &Rows, coordinates: Coordinates) -> Self {
        let (nj, ni) = (rows.nj as usize, rows.ni as usize);
        let mut values = vec![0; nj * ni];
        for value in 0..values.len() {
            let (row, column) = rows.position(value);
            values[row * ni + column] = value;
        }
        let is_plain = values.iter().enumerate().all(|(at, value)| at == *value);
        Self {
            dims: vec![("latitude", nj as u64), ("longitude", ni as u64)],
            latitudes: (0..nj)
                .map(|row| coordinates.latitudes[values[row * ni]])
                .collect(),
            longitudes: (0..ni)
                .map(|column| coordinates.longitudes[values[column]])
                .collect(),
            gather: (!is_plain).then_some(values),
            is_selection: false,
            grid: String::new(),
            grid_type: "",
        }
    }

    fn of_points(
        coordinates: Coordinates,
        selected: Option<Vec<usize>>,
        problems: &mut Problems,
    ) -> Self {
        let Coordinates {
            mut latitudes,
            mut longitudes,
        } = coordinates;
        let there = latitudes.len();
        if let Some(selected) = &selected {
            let last = selected.iter().max().map_or(0, |last| last + 1);
            if last > there {
                problems.push(format!(
                    "`--points` has the point {last}, but the fields have {there} points"
                ));
            }
            let pick = |all: &[f64]| {
                let values = selected.iter().map(|&point| all.get(point).copied());
                values.map(|value| value.unwrap_or(f64::NAN)).collect()
            };
            (latitudes, longitudes) = (pick(&latitudes), pick(&longitudes));
        }
        Self {
            dims: vec![(POINT, latitudes.len() as u64)],
            latitudes,
            longitudes,
            is_selection: selected.is_some(),
            gather: selected,
            grid: String::new(),
            grid_type: "",
        }
    }

    pub(crate) fn dim_names(&self) -> impl Iterator<Item = &'static str> {
        self.dims.iter().map(|(dim, _)| *dim)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), Error> {
        let of = |standard: &str, units: &str| -> Map<String, Value> {
            [
                ("standard_name", standard),
                ("long_name", standard),
                ("units", units),
            ]
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .into_iter()
            .collect()
        };
        let last = self.dims.len() - 1;
        for (name, units, values, dim) in [
            ("latitude", "degrees_north", &self.latitudes, self.dims[0]),
            (
                "longitude",
                "degrees_east",
                &self.longitudes,
                self.dims[last],
            ),
        ] {
            let values = Values::F64(array(&[values.len()], values.clone())?);
            write_coordinate(writer, name, &[dim], of(name, units), values)?;
        }
        if let Some(selected) = self.gather.as_ref().filter(|_| self.is_selection) {
            // Stores of the same points can be told from those of others.
            let numbers: Vec<i64> = selected.iter().map(|&point| point as i64 + 1).collect();
            let values = Values::I64(array(&[numbers.len()], numbers)?);
            let long_name = json!("number of the point in the grid, from 1");
            let attributes = Map::from_iter([("long_name".to_owned(), long_name)]);
            write_coordinate(writer, POINT, &self.dims, attributes, values)?;
        }
        Ok(())
    }

    /// Which variables are coordinates without being those of dimensions.
    fn coordinates(&self) -> Option<&'static str> {
        (self.dims.len() == 1).then_some("latitude longitude")
    }
}

/// A longitude from -180 (included) to 180.
fn wrapped(longitude: f64) -> f64 {
    let turned = (longitude + 180.0).rem_euclid(360.0) - 180.0;
    // What needs no turn keeps all of its digits.
    match (-180.0..180.0).contains(&longitude) {
        true => longitude,
        false if (180.0..540.0).contains(&longitude) => longitude - 360.0,
        false => turned,
    }
}

pub(super) fn write(
    index: &Index,
    plan: &Plan,
    points: &Points,
    arguments: &Arguments,
    budget: Budget,
    folder: &Path,
) -> Result<(), Error> {
    let mut attributes = Map::new();
    attributes.insert("Conventions".to_owned(), json!("CF-1.11"));
    attributes.insert("grid".to_owned(), json!(points.grid));
    attributes.insert("GRIB_gridType".to_owned(), json!(points.grid_type));
    attributes.extend(plan.attributes_of_all(&index.centres));
    let mut writer = Writer::begin(folder, arguments.output.zarr_format.into(), attributes)?;
    points.write(&mut writer)?;
    let windows = arguments.output.resample.map(|option| option.0.every);
    if plan.variables.iter().any(|planned| !planned.is_static) {
        write_times(&mut writer, &plan.times, Map::new(), windows)?;
    }
    for (dim, levels) in &plan.levels {
        let count = levels.values.len();
        let values = Values::F64(array(&[count], levels.values.clone())?);
        let attributes = levels.attributes.clone();
        write_coordinate(&mut writer, dim, &[(dim, count as u64)], attributes, values)?;
    }
    let mut decoder = Decoder::new(index, points);
    let mut series = Vec::new();
    for planned in &plan.variables {
        check_again(planned, &mut decoder)?;
        let one = one_series(planned, plan, points, arguments);
        writer.define(&one.definition)?;
        series.push(one);
    }
    pour(&writer, &series, &mut decoder, budget)?;
    Ok(writer.finish()?)
}

/// What may be taken, of which decoding takes a part: ecCodes for its tables, and of a field the message, twice, and its
/// values several times; besides these each point has its coordinates, and each message what is known of it.
pub(super) fn budget(index: &Index, grid: Option<&Grid>, output: &Output) -> Budget {
    const TABLES: u64 = 40 << 20;
    const VALUES: u64 = 9 * 8;
    const MESSAGE: u64 = 512;
    let points = grid.map_or(0, Grid::points) as u64;
    let lengths = index.fields.iter().map(|field| field.place().length);
    Budget {
        limit: output.memory,
        reading: TABLES
            + VALUES * points
            + 2 * lengths.max().unwrap_or(0)
            + MESSAGE * index.fields.len() as u64,
    }
}

/// Refuses chunks that do not fit into memory.
pub(super) fn check_memory(
    plan: &Plan,
    points: &Points,
    arguments: &Arguments,
    budget: Budget,
) -> Result<(), Error> {
    for planned in &plan.variables {
        let series = one_series(planned, plan, points, arguments);
        budget.check(&arguments.target, &planned.name, series.block_bytes())?;
    }
    Ok(())
}

fn one_series(planned: &Planned, plan: &Plan, points: &Points, arguments: &Arguments) -> Series {
    let mut dims: Vec<(&str, u64)> = Vec::new();
    if !planned.is_static {
        dims.push((TIME, plan.times.len() as u64));
    }
    let level = planned.level_dim.as_deref();
    dims.extend(level.map(|level| (level, planned.cells.len() as u64)));
    dims.extend(&points.dims);
    let mut definition = Definition::new(&planned.name, &dims, Element::F32)
        .chunks(&arguments.output.chunks(&dims, level))
        .compressor(arguments.output.compression.into())
        .attributes(planned.attributes.clone())
        .attribute("GRIB_gridType", points.grid_type);
    if let Some(names) = points.coordinates() {
        definition = definition.attribute("coordinates", names);
    }
    Series {
        definition,
        has_time: !planned.is_static,
        has_level: level.is_some(),
        method: planned.resampling.map(|resampling| resampling.method),
        cells: planned.cells.clone(),
    }
}

/// Reads all fields of what is stored once, which must be equal.
fn check_again(planned: &Planned, decoder: &mut Decoder<'_>) -> Result<(), Error> {
    let (mut first, mut other) = (Vec::new(), Vec::new());
    for fields in planned.again.iter().filter(|fields| fields.len() > 1) {
        decoder.read(fields[0], &mut first)?;
        for &field in &fields[1..] {
            decoder.read(field, &mut other)?;
            let same = first
                .iter()
                .zip(&other)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            if !same {
                let mut problems = Problems::default();
                problems.push(format!(
                    "`{}` is `static` in the table, but {} differs from {}",
                    planned.name,
                    decoder.index.fields[field].place(),
                    decoder.index.fields[fields[0]].place()
                ));
                return Err(Error::Problems(problems));
            }
        }
    }
    Ok(())
}

/// Decodes fields by their numbers.
struct Decoder<'a> {
    index: &'a Index,
    points: &'a Points,
    /// The open file, with its number: only one is, as each keeps the bytes of its last message.
    file: Option<(usize, Reader)>,
    decoded: Vec<f64>,
}

impl<'a> Decoder<'a> {
    fn new(index: &'a Index, points: &'a Points) -> Self {
        Self {
            index,
            points,
            file: None,
            decoded: Vec::new(),
        }
    }
}

impl Fields for Decoder<'_> {
    fn read(&mut self, field: usize, values: &mut Vec<f64>) -> Result<(), Error> {
        let field = &self.index.fields[field];
        let reader = match self.file.take() {
            Some((open, reader)) if open == field.file => reader,
            _ => Reader::open(&self.index.files[field.file])?,
        };
        let (_, reader) = self.file.insert((field.file, reader));
        match &self.points.gather {
            None => reader.read_again(&field.seen, values)?,
            Some(gather) => {
                reader.read_again(&field.seen, &mut self.decoded)?;
                values.clear();
                values.extend(gather.iter().map(|&value| self.decoded[value]));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longitudes_are_turned_without_losing_digits() {
        for (longitude, expected) in [
            (0.0, 0.0),
            (179.9, 179.9),
            (180.0, -180.0),
            (359.75, -0.25),
            (-0.1, -0.1),
            (-190.0, 170.0),
        ] {
            assert_eq!(wrapped(longitude), expected);
        }
    }
}

//! Reads what was planned, and writes it.

use std::ops::Range;
use std::path::Path;

use mlwm_datasets::{Definition, Element, NetCdfFile, Values, Writer};
use ndarray::{ArrayD, Axis};
use serde_json::{Map, json};

use super::Arguments;
use super::attributes::Owner;
use super::index::{Index, Kind, time_owner};
use super::plan::{Field, Plan, Planned};
use crate::Error;
use crate::memory::{Budget, bytes};
use crate::output::{TIME, array, write_times};
use crate::pour::{Cell, Fields, Series, pour};

/// As many bytes of a variable are read at once: files are compressed in chunks of several times.
const SLAB: u64 = 16 << 20;

pub(super) fn write(
    index: &Index,
    plan: &Plan,
    arguments: &Arguments,
    folder: &Path,
) -> Result<(), Error> {
    let mut attributes = index.attributes.of(&Owner::Files);
    attributes.insert("Conventions".to_owned(), json!("CF-1.11"));
    let mut writer = Writer::begin(folder, arguments.output.zarr_format.into(), attributes)?;
    let mut slabs = Slabs::new(index, plan);
    if plan.variables.iter().any(|planned| planned.cells.is_some()) {
        let windows = arguments.output.resample.map(|option| option.0.every);
        let own = index.attributes.of(&time_owner());
        write_times(&mut writer, &plan.times, own, windows)?;
    }
    let mut series = Vec::new();
    for (number, planned) in plan.variables.iter().enumerate() {
        let definition = definition(planned, plan, arguments);
        writer.define(&definition)?;
        match &planned.cells {
            None => {
                let values = slabs.file(planned.file, number)?.read(&planned.old)?;
                writer.write(&planned.name, values)?;
            }
            Some(cells) if planned.resampling.is_none() => {
                copy(&writer, &definition, cells, &mut slabs)?;
            }
            Some(cells) => series.push(Series {
                definition,
                has_time: true,
                has_level: false,
                method: planned.resampling.map(|resampling| resampling.method),
                cells: vec![cells.clone()],
            }),
        }
    }
    pour(&writer, &series, &mut slabs, budget(index, plan, arguments))?;
    Ok(writer.finish()?)
}

/// What may be taken, of which reading takes a part: a slab as it is in its file, and decoded, and fields of it, and what
/// the library takes of the chunks of its file.
fn budget(index: &Index, plan: &Plan, arguments: &Arguments) -> Budget {
    let along = plan.variables.iter().filter(|one| one.cells.is_some());
    let field =
        |planned: &Planned| bytes(Element::F64, planned.dims.iter().map(|(_, length)| length));
    let field = along.map(field).max().unwrap_or(0);
    Budget {
        limit: arguments.output.memory,
        reading: field
            .max(SLAB)
            .saturating_mul(3)
            .saturating_add(field.saturating_mul(3))
            .saturating_add(index.bytes_beside),
    }
}

/// Refuses what is read at once, as it is not along time, and does not fit into memory.
pub(super) fn check_static(
    kind: &Kind,
    file: &NetCdfFile,
    name: &str,
    arguments: &Arguments,
) -> Result<(), Error> {
    let budget = Budget {
        limit: arguments.output.memory,
        reading: (3 * SLAB).saturating_add(file.bytes_beside(name)?),
    };
    let whole = bytes(kind.element, kind.dims.iter().map(|(_, length)| length));
    Ok(budget.check(&arguments.target, name, whole)?)
}

/// Refuses chunks that do not fit into memory, and what is written at once.
pub(super) fn check_memory(index: &Index, plan: &Plan, arguments: &Arguments) -> Result<(), Error> {
    let budget = budget(index, plan, arguments);
    for planned in &plan.variables {
        let definition = definition(planned, plan, arguments);
        let times = planned.cells.is_some();
        let led = &definition.chunks[..usize::from(times)];
        let lengths = led.iter().chain(&definition.shape[led.len()..]);
        let block = bytes(planned.element, lengths);
        budget.check(&arguments.target, &planned.name, block)?;
    }
    Ok(())
}

fn definition(planned: &Planned, plan: &Plan, arguments: &Arguments) -> Definition {
    let mut dims: Vec<(&str, u64)> = Vec::new();
    if planned.cells.is_some() {
        dims.push((TIME, plan.times.len() as u64));
    }
    dims.extend(
        planned
            .dims
            .iter()
            .map(|(dim, length)| (dim.as_str(), *length)),
    );
    let mut attributes = Map::new();
    attributes.extend(planned.attributes.clone());
    Definition::new(&planned.name, &dims, planned.element)
        .chunks(&arguments.output.chunks(&dims, None))
        .compressor(arguments.output.compression.into())
        .attributes(attributes)
}

/// Copies a variable along time, in the type that it has.
fn copy(
    writer: &Writer,
    definition: &Definition,
    cells: &[Cell],
    slabs: &mut Slabs<'_>,
) -> Result<(), Error> {
    let times = definition.chunks[0] as usize;
    let points: Vec<usize> = definition.shape[1..]
        .iter()
        .map(|&length| length as usize)
        .collect();
    for (number, block) in cells.chunks(times).enumerate() {
        let mut start = vec![0; definition.shape.len()];
        start[0] = (number * times) as u64;
        let mut shape = vec![block.len()];
        shape.extend(&points);
        let values = match definition.element {
            Element::F32 => Values::F32(gather(block, &shape, f32::NAN, slabs, single)?),
            Element::I64 => Values::I64(gather(block, &shape, 0, slabs, integers)?),
            _ => Values::F64(gather(block, &shape, f64::NAN, slabs, double)?),
        };
        writer.write_block(&definition.name, &start, values)?;
    }
    Ok(())
}

fn single(values: &Values) -> Option<&ArrayD<f32>> {
    match values {
        Values::F32(values) => Some(values),
        _ => None,
    }
}

fn double(values: &Values) -> Option<&ArrayD<f64>> {
    match values {
        Values::F64(values) => Some(values),
        _ => None,
    }
}

fn integers(values: &Values) -> Option<&ArrayD<i64>> {
    match values {
        Values::I64(values) => Some(values),
        _ => None,
    }
}

/// The fields of a block, one after the other.
fn gather<T: Copy>(
    block: &[Cell],
    shape: &[usize],
    missing: T,
    slabs: &mut Slabs<'_>,
    typed: impl Fn(&Values) -> Option<&ArrayD<T>>,
) -> Result<ArrayD<T>, Error> {
    let points: usize = shape[1..].iter().product();
    let mut values = Vec::with_capacity(shape.iter().product());
    for cell in block {
        let Cell::Field(field) = cell else {
            values.resize(values.len() + points, missing);
            continue;
        };
        let (slab, at) = slabs.slab(slabs.plan.fields[*field])?;
        let slab = typed(slab).ok_or_else(|| Error::Shape("another type".to_owned()))?;
        values.extend(slab.index_axis(Axis(0), at).iter().copied());
    }
    array(shape, values)
}

/// Reads fields, several times of a variable at once.
struct Slabs<'a> {
    index: &'a Index,
    plan: &'a Plan,
    /// The open file, with its number and that of the variable that is read of it: only one is, as the library keeps
    /// chunks of each variable until the file is closed.
    file: Option<(usize, usize, NetCdfFile)>,
    slab: Option<Slab>,
}

/// Some times of a variable of a file.
struct Slab {
    variable: usize,
    file: usize,
    times: Range<u64>,
    values: Values,
}

impl<'a> Slabs<'a> {
    fn new(index: &'a Index, plan: &'a Plan) -> Self {
        Self {
            index,
            plan,
            file: None,
            slab: None,
        }
    }

    fn file(&mut self, number: usize, variable: usize) -> Result<&NetCdfFile, Error> {
        let file = match self.file.take() {
            Some((open, of, file)) if (open, of) == (number, variable) => file,
            _ => NetCdfFile::open(&self.index.files[number])?,
        };
        Ok(&self.file.insert((number, variable, file)).2)
    }

    /// The values that a field is among, and where it is in them.
    fn slab(&mut self, field: Field) -> Result<(&Values, usize), Error> {
        let is_it = |slab: &Slab| {
            slab.variable == field.variable
                && slab.file == field.file
                && slab.times.contains(&field.at)
        };
        let slab = match self.slab.take() {
            Some(slab) if is_it(&slab) => slab,
            _ => self.read_slab(field)?,
        };
        let slab = self.slab.insert(slab);
        Ok((&slab.values, (field.at - slab.times.start) as usize))
    }

    fn read_slab(&mut self, field: Field) -> Result<Slab, Error> {
        let planned = &self.plan.variables[field.variable];
        let file = self.file(field.file, field.variable)?;
        let dims = file.dims(&planned.old)?;
        let bytes = dims[1..]
            .iter()
            .fold(8_u64, |bytes, (_, length)| bytes.saturating_mul(*length));
        let length = dims[0].1;
        let times = field.at..length.min(field.at + (SLAB / bytes.max(1)).max(1));
        let rest = dims[1..].iter().map(|(_, length)| 0..*length);
        let ranges: Vec<Range<u64>> = std::iter::once(times.clone()).chain(rest).collect();
        Ok(Slab {
            variable: field.variable,
            file: field.file,
            values: file.read_range(&planned.old, &ranges)?,
            times,
        })
    }
}

impl Fields for Slabs<'_> {
    fn read(&mut self, field: usize, values: &mut Vec<f64>) -> Result<(), Error> {
        let (slab, at) = self.slab(self.plan.fields[field])?;
        values.clear();
        match slab {
            Values::F32(slab) => values.extend(row(slab, at).map(f64::from)),
            Values::F64(slab) => values.extend(row(slab, at)),
            Values::I64(slab) => values.extend(row(slab, at).map(|value| value as f64)),
            Values::Text(_) => return Err(Error::Shape("texts".to_owned())),
        }
        Ok(())
    }
}

fn row<T: Copy>(slab: &ArrayD<T>, at: usize) -> impl Iterator<Item = T> {
    slab.index_axis(Axis(0), at).into_iter().copied()
}

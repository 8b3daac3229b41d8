//! Fields into a store, chunk after chunk: one thread reads, others compress and write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use mlwm_datasets::{Definition, Element, Values, Writer};
use ndarray::{ArrayD, IxDyn};

use crate::Error;
use crate::fold::Fold;
use crate::memory::{Budget, bytes};
use crate::resample::{Method, Part};

/// More threads than these wait for the one that reads.
const WRITERS: usize = 3;

/// Blocks of more bytes than this are written by one thread, so that only two are in memory.
const LARGE: u64 = 16 << 20;

/// Fields, by their numbers.
pub(crate) trait Fields {
    /// Reads the values of a field, which replace those that are there.
    fn read(&mut self, field: usize, values: &mut Vec<f64>) -> Result<(), Error>;
}

/// What a variable has at a time and level.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// Nothing, and that is allowed.
    Missing,
    /// One field.
    Field(usize),
    /// The fields of a window.
    Window(Vec<Part>),
}

/// A variable to write: floating point, with its points in the last dimensions.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) definition: Definition,
    /// Whether time is its first dimension.
    pub(crate) has_time: bool,
    /// Whether the next one is that of levels.
    pub(crate) has_level: bool,
    /// How the fields of a window become one.
    pub(crate) method: Option<Method>,
    /// What it has at each level and time; one of those that it has no dimension for.
    pub(crate) cells: Vec<Vec<Cell>>,
}

impl Series {
    /// The size of the blocks that are written at once.
    pub(crate) fn block_bytes(&self) -> u64 {
        let Definition {
            shape,
            chunks,
            element,
            ..
        } = &self.definition;
        let led = usize::from(self.has_time) + usize::from(self.has_level);
        bytes(*element, chunks[..led].iter().chain(&shape[led..]))
    }
}

/// A part of a variable, of whole chunks.
struct Block<'a> {
    name: &'a str,
    start: Vec<u64>,
    values: Values,
}

/// Writes variables that the writer knows.
///
/// # Errors
/// Those of reading and of writing.
pub(crate) fn pour(
    writer: &Writer,
    series: &[Series],
    fields: &mut impl Fields,
    budget: Budget,
) -> Result<(), Error> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let largest = series.iter().map(Series::block_bytes).max().unwrap_or(0);
    let writers = match largest > LARGE {
        true => 1,
        false => budget.writers(largest, cores.saturating_sub(1).clamp(1, WRITERS) as u64),
    };
    // A block is handed over to a thread that has nothing else to do: none waits in memory.
    let (send, receive) = sync_channel(0);
    let receive = Mutex::new(receive);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| scope.spawn(|| write(writer, &receive, &failed)))
            .collect();
        let mut reading = Reading::new(fields);
        let read = series.iter().try_for_each(|series| {
            reading.blocks(series, &mut |block| {
                // The receiver lives as long as this scope.
                let _ = send.send(block);
                !failed.load(Ordering::Relaxed)
            })
        });
        drop(send);
        let written = threads.into_iter().map(|thread| match thread.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        written.collect::<Result<(), _>>().and(read)
    })
}

/// Writes the blocks that come. After a failure the rest is taken and dropped, so that nobody waits.
fn write(
    writer: &Writer,
    blocks: &Mutex<Receiver<Block<'_>>>,
    failed: &AtomicBool,
) -> Result<(), Error> {
    let mut result = Ok(());
    loop {
        let block = blocks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(block) = block else {
            return result;
        };
        if failed.load(Ordering::Relaxed) {
            continue;
        }
        if let Err(error) = writer.write_block(block.name, &block.start, block.values) {
            failed.store(true, Ordering::Relaxed);
            result = Err(error.into());
        }
    }
}

/// Reads fields, with the last one kept.
struct Reading<'a, F> {
    fields: &'a mut F,
    values: Vec<f64>,
    last: Vec<f64>,
    /// The number of the field that `last` is of.
    last_field: Option<usize>,
}

/// Values of a block under way.
enum Buffer {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl<'a, F: Fields> Reading<'a, F> {
    fn new(fields: &'a mut F) -> Self {
        Self {
            fields,
            values: Vec::new(),
            last: Vec::new(),
            last_field: None,
        }
    }

    /// Gives each block of a variable to `put`, until that says that it is enough.
    fn blocks<'s>(
        &mut self,
        series: &'s Series,
        put: &mut impl FnMut(Block<'s>) -> bool,
    ) -> Result<(), Error> {
        let Definition {
            name,
            shape,
            chunks,
            element,
            ..
        } = &series.definition;
        let led = usize::from(series.has_time) + usize::from(series.has_level);
        let lead = |has: bool, at: usize| match has {
            true => (shape[at] as usize, chunks[at] as usize),
            false => (1, 1),
        };
        let (times, time_chunk) = lead(series.has_time, 0);
        let (levels, level_chunk) = lead(series.has_level, led.saturating_sub(1));
        let points: usize = shape[led..].iter().product::<u64>() as usize;
        let mut fold = series.method.map(Fold::new);
        self.last_field = None;
        for time in (0..times).step_by(time_chunk) {
            let of_times = time_chunk.min(times - time);
            for level in (0..levels).step_by(level_chunk) {
                let of_levels = level_chunk.min(levels - level);
                let mut buffer = Buffer::new(*element, of_times * of_levels * points);
                for time in time..time + of_times {
                    for level in level..level + of_levels {
                        let cell = &series.cells[level][time];
                        self.cell(cell, fold.as_mut(), points, &mut buffer)?;
                    }
                }
                let leading = |time: usize, level: usize| {
                    let time = series.has_time.then_some(time as u64);
                    let level = series.has_level.then_some(level as u64);
                    time.into_iter().chain(level)
                };
                let rest = || shape[led..].iter().copied();
                let start = leading(time, level).chain(rest().map(|_| 0)).collect();
                let lengths: Vec<usize> = leading(of_times, of_levels)
                    .chain(rest())
                    .map(|length| length as usize)
                    .collect();
                let values = buffer.values(&lengths)?;
                if !put(Block {
                    name,
                    start,
                    values,
                }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn cell(
        &mut self,
        cell: &Cell,
        fold: Option<&mut Fold>,
        points: usize,
        buffer: &mut Buffer,
    ) -> Result<(), Error> {
        match (cell, fold) {
            (Cell::Field(field), _) => {
                self.fields.read(*field, &mut self.values)?;
                buffer.extend(&self.values);
            }
            (Cell::Window(parts), Some(fold)) => {
                self.window(parts, fold)?;
                buffer.extend(fold.finish());
            }
            (Cell::Missing, _) | (Cell::Window(_), None) => buffer.extend_missing(points),
        }
        Ok(())
    }

    fn window(&mut self, parts: &[Part], fold: &mut Fold) -> Result<(), Error> {
        let is_weighted = parts
            .windows(2)
            .any(|pair| pair[0].seconds != pair[1].seconds);
        fold.begin(is_weighted);
        for part in parts {
            if let Some(minus) = part.minus
                && self.last_field != Some(minus)
            {
                self.fields.read(minus, &mut self.last)?;
            }
            self.fields.read(part.field, &mut self.values)?;
            match part.minus {
                Some(_) => fold.add_difference(&self.values, &self.last),
                None => fold.add(&self.values, part.seconds),
            }
            std::mem::swap(&mut self.values, &mut self.last);
            self.last_field = Some(part.field);
        }
        Ok(())
    }
}

impl Buffer {
    fn new(element: Element, values: usize) -> Self {
        match element {
            Element::F64 => Self::Double(Vec::with_capacity(values)),
            _ => Self::Single(Vec::with_capacity(values)),
        }
    }

    fn extend(&mut self, values: &[f64]) {
        match self {
            Self::Single(buffer) => buffer.extend(values.iter().map(|value| *value as f32)),
            Self::Double(buffer) => buffer.extend_from_slice(values),
        }
    }

    fn extend_missing(&mut self, points: usize) {
        match self {
            Self::Single(buffer) => buffer.resize(buffer.len() + points, f32::NAN),
            Self::Double(buffer) => buffer.resize(buffer.len() + points, f64::NAN),
        }
    }

    fn values(self, lengths: &[usize]) -> Result<Values, Error> {
        let shape = IxDyn(lengths);
        let shaped = match self {
            Self::Single(values) => ArrayD::from_shape_vec(shape, values).map(Values::F32),
            Self::Double(values) => ArrayD::from_shape_vec(shape, values).map(Values::F64),
        };
        shaped.map_err(|error| Error::Shape(error.to_string()))
    }
}

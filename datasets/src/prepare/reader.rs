//! Arrays of a variable of a datastore, time by time.

use std::ops::Range;

use mlwm_spec::interface::Grid;
use mlwm_spec::time::utc_text;

use super::PrepareError;
use super::datastore::PreparedVariable;
use super::plane::{Data, Plane, Real, copy_planes};
use super::source::{Axis, Origin, SourceInput, SourceVariable};
use crate::Values;

/// Reads a variable time by time. Per source variable it keeps the part of one chunk in time that
/// is needed, so that reading in order decodes every chunk once.
pub struct Reader<'a> {
    variable: &'a PreparedVariable,
    sources: Vec<SourceReader<'a>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(variable: &'a PreparedVariable, times: &[i64]) -> Self {
        let sources = variable.sources().iter();
        Self {
            variable,
            sources: sources
                .map(|source| SourceReader::new(source, times))
                .collect(),
        }
    }

    /// The array `[grid_index, feature]` at a valid time (Unix seconds; none for static features)
    /// as float32.
    ///
    /// # Errors
    /// If the time is not there, or the data cannot be read.
    pub fn read(&mut self, time: Option<i64>) -> Result<Vec<f32>, PrepareError> {
        let columns = self.variable.features().count();
        let mut out = vec![0.0; self.variable.grid().points() as usize * columns];
        self.read_into(time, &mut out, columns, 0)?;
        Ok(out)
    }

    /// Reads into columns `first..` of an array `[grid_index, columns]`.
    pub(crate) fn read_into<T: Real>(
        &mut self,
        time: Option<i64>,
        out: &mut [T],
        columns: usize,
        first: usize,
    ) -> Result<(), PrepareError> {
        let mut column = first;
        for source in &mut self.sources {
            source.read_into(time, out, columns, column)?;
            column += source.source.features.len();
        }
        Ok(())
    }
}

/// Reads one input.
struct SourceReader<'a> {
    source: &'a SourceInput,
    /// First and last position along the time axis that will be read.
    wanted: Range<u64>,
    /// The kept part of each source variable.
    blocks: Vec<Option<Block>>,
}

/// Part of a source variable in memory.
struct Block {
    /// Positions along the time axis.
    times: Range<u64>,
    /// The variable's levels in runs, each read at once.
    runs: Vec<(Range<usize>, Values)>,
}

impl<'a> SourceReader<'a> {
    fn new(source: &'a SourceInput, times: &[i64]) -> Self {
        let positions: Vec<u64> = match &source.times {
            Some(axis) => times
                .iter()
                .filter_map(|time| axis.position(*time))
                .collect(),
            None => Vec::new(),
        };
        let wanted = match (positions.iter().min(), positions.iter().max()) {
            (Some(first), Some(last)) => *first..last + 1,
            _ => 0..0,
        };
        let blocks = source.variables.iter().map(|_| None).collect();
        Self {
            source,
            wanted,
            blocks,
        }
    }

    fn read_into<T: Real>(
        &mut self,
        time: Option<i64>,
        out: &mut [T],
        columns: usize,
        first: usize,
    ) -> Result<(), PrepareError> {
        let source = self.source;
        let position = match (&source.times, time) {
            (None, _) => 0,
            (Some(axis), Some(time)) => {
                axis.position(time).ok_or_else(|| PrepareError::Missing {
                    path: source.path.clone(),
                    what: utc_text(time),
                    available: format!("{} times", axis.valid.len()),
                })?
            }
            (Some(_), None) => {
                return Err(PrepareError::Unusable {
                    path: source.path.clone(),
                    message: "it has time, but no time was asked for".to_owned(),
                });
            }
        };
        for (variable, block) in source.variables.iter().zip(&mut self.blocks) {
            if !block
                .as_ref()
                .is_some_and(|block| block.times.contains(&position))
            {
                *block = None; // Free it before the next one is read.
                *block = Some(read_block(source, variable, position, &self.wanted)?);
            }
        }
        let computed: Vec<Vec<f64>> = source
            .derived
            .iter()
            .map(|derived| derived.at(position as usize))
            .collect();
        let planes: Vec<Plane<'_>> = source
            .origins
            .iter()
            .filter_map(|origin| match *origin {
                Origin::Derived(at) => Some(computed_plane(&computed[at], &source.grid)),
                Origin::Read { variable, level } => {
                    let block = self.blocks[variable].as_ref()?;
                    read_plane(
                        &source.variables[variable],
                        block,
                        &source.grid,
                        position,
                        level,
                    )
                }
            })
            .collect();
        if planes.len() != source.origins.len() {
            return Err(PrepareError::Unusable {
                path: source.path.clone(),
                message: "a part of its data is not in the order of its metadata".to_owned(),
            });
        }
        let shape: Vec<usize> = source
            .grid
            .shape
            .iter()
            .map(|length| *length as usize)
            .collect();
        copy_planes(&planes, &shape, out, columns, first);
        Ok(())
    }
}

/// Reads the part of a variable around a position in time that lies in the same chunk and is
/// wanted.
fn read_block(
    source: &SourceInput,
    variable: &SourceVariable,
    position: u64,
    wanted: &Range<u64>,
) -> Result<Block, PrepareError> {
    let stored = source.dataset.variable(&variable.name)?;
    let chunks = stored.chunk_shape();
    let axis_of = |axis: Axis| variable.axes.iter().position(|a| *a == axis);
    let times = match axis_of(Axis::Time) {
        None => 0..u64::MAX,
        Some(at) => {
            let chunk = chunks[at].max(1);
            let start = position / chunk * chunk;
            let end = (start + chunk).min(stored.shape()[at]);
            start.max(wanted.start.min(position))..end.min(wanted.end.max(position + 1))
        }
    };
    let chunk = axis_of(Axis::Level).map_or(1, |at| chunks[at].max(1) as usize);
    let mut runs = Vec::new();
    for levels in level_runs(&variable.levels, chunk) {
        let ranges: Vec<Range<u64>> = variable
            .axes
            .iter()
            .map(|axis| match *axis {
                Axis::Time => times.clone(),
                Axis::Fixed(at) => at..at + 1,
                Axis::Grid(number) => source.grid_ranges[number].clone(),
                Axis::Level => levels.start as u64..levels.end as u64,
            })
            .collect();
        runs.push((levels, in_standard_order(stored.read_range(&ranges)?)));
    }
    Ok(Block { times, runs })
}

/// The levels in ascending runs, each without a chunk in it that is not needed; a single empty run
/// without levels.
fn level_runs(levels: &[usize], chunk: usize) -> Vec<Range<usize>> {
    let mut sorted = levels.to_vec();
    sorted.sort_unstable();
    let mut runs: Vec<Range<usize>> = Vec::new();
    for level in sorted {
        match runs.last_mut() {
            Some(run) if level / chunk <= (run.end - 1) / chunk + 1 => run.end = level + 1,
            _ => runs.push(level..level + 1),
        }
    }
    if runs.is_empty() {
        runs.push(0..0);
    }
    runs
}

fn in_standard_order(values: Values) -> Values {
    match values {
        Values::F32(v) if !v.is_standard_layout() => {
            Values::F32(v.as_standard_layout().into_owned())
        }
        Values::F64(v) if !v.is_standard_layout() => {
            Values::F64(v.as_standard_layout().into_owned())
        }
        Values::I64(v) if !v.is_standard_layout() => {
            Values::I64(v.as_standard_layout().into_owned())
        }
        standard => standard,
    }
}

fn computed_plane<'a>(values: &'a [f64], grid: &Grid) -> Plane<'a> {
    let mut strides = vec![0; grid.shape.len()];
    if values.len() > 1 {
        let mut stride = 1;
        for (at, length) in grid.shape.iter().enumerate().rev() {
            strides[at] = stride;
            stride *= *length as usize;
        }
    }
    Plane {
        data: Data::Double(values),
        offset: 0,
        strides,
    }
}

/// The plane of a feature in a block.
fn read_plane<'a>(
    variable: &SourceVariable,
    block: &'a Block,
    grid: &Grid,
    position: u64,
    level: Option<usize>,
) -> Option<Plane<'a>> {
    let (run, values) = match level {
        Some(level) => block.runs.iter().find(|(run, _)| run.contains(&level))?,
        None => block.runs.first()?,
    };
    let mut strides = vec![0; grid.shape.len()];
    let mut offset = 0;
    let mut stride = 1;
    for (axis, length) in variable.axes.iter().zip(values.shape()).rev() {
        match *axis {
            Axis::Time => offset += (position - block.times.start) as usize * stride,
            Axis::Fixed(_) => {}
            Axis::Grid(number) => strides[number] = stride,
            Axis::Level => offset += (level? - run.start) * stride,
        }
        stride *= length;
    }
    let data = match values {
        Values::F32(values) => Data::Single(values.as_slice()?),
        Values::F64(values) => Data::Double(values.as_slice()?),
        Values::I64(values) => Data::Integer(values.as_slice()?),
        Values::Text(_) => return None,
    };
    Some(Plane {
        data,
        offset,
        strides,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_runs_without_unneeded_chunks() {
        let runs = |levels: &[usize], chunk| -> Vec<(usize, usize)> {
            level_runs(levels, chunk)
                .iter()
                .map(|run| (run.start, run.end))
                .collect()
        };
        assert_eq!(runs(&[], 1), [(0, 0)]);
        assert_eq!(runs(&[5, 2, 3], 1), [(2, 4), (5, 6)]);
        assert_eq!(runs(&[0, 9], 5), [(0, 10)]);
        assert_eq!(runs(&[0, 11], 5), [(0, 1), (11, 12)]);
    }
}

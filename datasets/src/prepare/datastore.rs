//! The variables of a datastore (`state`, `forcing`, `static`), made from opened inputs, and their
//! arrays time by time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use mlwm_spec::contract::TimeLayout;
use mlwm_spec::interface::Grid;
use mlwm_spec::{AnalysisTime, DatastoreConfig};

use super::PrepareError;
use super::grid::grid_difference;
use super::mapping::{Mapping, check_config};
use super::plane::{Data, Plane, Real, copy_planes};
use super::opening::Opening;
use super::source::{Axis, Feature, Origin, SourceInput, SourceVariable};
use crate::Values;

/// A datastore: a configuration and the datasets that feed its inputs.
#[derive(Debug)]
pub struct Datastore<'a> {
    name: &'a str,
    config: &'a DatastoreConfig,
    paths: BTreeMap<String, PathBuf>,
    layout: TimeLayout,
    analysis_time: AnalysisTime,
}

impl<'a> Datastore<'a> {
    /// A datastore with a path per input; inputs whose variable is never asked for need none.
    /// Nothing is opened yet.
    ///
    /// # Errors
    /// If the configuration as a whole is not supported.
    pub fn new(
        name: &'a str,
        config: &'a DatastoreConfig,
        paths: BTreeMap<String, PathBuf>,
        layout: TimeLayout,
        analysis_time: AnalysisTime,
    ) -> Result<Self, PrepareError> {
        check_config(name, config)?;
        if let Some(unknown) = paths
            .keys()
            .find(|input| !config.inputs.contains_key(*input))
        {
            return Err(PrepareError::Configuration {
                datastore: name.to_owned(),
                message: format!(
                    "it has no input `{unknown}`; it has: {}",
                    config.inputs.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            });
        }
        Ok(Self {
            name,
            config,
            paths,
            layout,
            analysis_time,
        })
    }

    /// Opens one of its variables and checks everything that does not need the data itself.
    ///
    /// # Errors
    /// Whatever does not fit between the configuration and the datasets.
    pub fn variable(&self, target: &str) -> Result<PreparedVariable, PrepareError> {
        let inputs: Vec<_> = self
            .config
            .inputs
            .iter()
            .filter(|(_, input)| input.target_output_variable == target)
            .collect();
        if inputs.is_empty() {
            return Err(PrepareError::Configuration {
                datastore: self.name.to_owned(),
                message: format!("no input goes into `{target}`"),
            });
        }
        let mut sources: Vec<SourceInput> = Vec::new();
        for (name, input) in inputs {
            let mapping = Mapping::of(self.name, self.config, name, self.layout)?;
            let path = self.paths.get(name).ok_or_else(|| PrepareError::NoPath {
                datastore: self.name.to_owned(),
                input: name.clone(),
            })?;
            let opening = Opening {
                datastore: self.name,
                name,
                input,
                mapping: &mapping,
                path,
                analysis_time: self.analysis_time,
            };
            let source = opening.open()?;
            if let Some(first) = sources.first() {
                if let Some(difference) = grid_difference(&first.grid, &source.grid) {
                    return Err(opening.unusable(format!(
                        "its grid is not that of input `{}`, which also goes into `{target}`: \
                         {difference}",
                        first.name
                    )));
                }
                if first.times.is_some() != source.times.is_some() {
                    return Err(opening.wrong(format!(
                        "it and input `{}` go into `{target}`, but only one has time",
                        first.name
                    )));
                }
            }
            sources.push(source);
        }
        let names: Vec<&String> = sources
            .iter()
            .flat_map(|source| &source.features)
            .map(|f| &f.name)
            .collect();
        if let Some((_, twice)) = names
            .iter()
            .enumerate()
            .find(|(at, name)| names[..*at].contains(name))
        {
            return Err(PrepareError::Configuration {
                datastore: self.name.to_owned(),
                message: format!("two features of `{target}` are called `{twice}`"),
            });
        }
        Ok(PreparedVariable {
            datastore: self.name.to_owned(),
            name: target.to_owned(),
            sources,
        })
    }
}

/// A variable of a datastore, ready to be read.
#[derive(Debug)]
pub struct PreparedVariable {
    datastore: String,
    name: String,
    sources: Vec<SourceInput>,
}

impl PreparedVariable {
    /// Name of the datastore.
    pub fn datastore(&self) -> &str {
        &self.datastore
    }

    /// Its name: `state`, `forcing`, `static`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its features in order.
    pub fn features(&self) -> impl Iterator<Item = &Feature> {
        self.sources.iter().flat_map(|source| &source.features)
    }

    /// The inputs that it is made of, in order.
    pub fn sources(&self) -> &[SourceInput] {
        &self.sources
    }

    /// The input with a name.
    pub fn source(&self, input: &str) -> Option<&SourceInput> {
        self.sources.iter().find(|source| source.name == input)
    }

    /// Its grid: stacked dimensions, lengths and coordinates where the dataset has them.
    pub fn grid(&self) -> &Grid {
        &self.sources[0].grid
    }

    /// Whether a feature is not float32: NumPy would standardize all of them in float64.
    pub fn is_double(&self) -> bool {
        self.sources.iter().any(|source| source.is_double)
    }

    /// Starts reading. `times` are the valid times that will be read: they bound how much of a
    /// chunk is kept.
    pub fn reader(&self, times: &[i64]) -> Reader<'_> {
        let sources = self
            .sources
            .iter()
            .map(|source| SourceReader::new(source, times))
            .collect();
        Reader {
            variable: self,
            sources,
        }
    }
}

/// Reads a variable time by time. Per source variable it keeps the part of one chunk in time that
/// is needed, so that reading in order decodes every chunk once.
pub struct Reader<'a> {
    variable: &'a PreparedVariable,
    sources: Vec<SourceReader<'a>>,
}

impl Reader<'_> {
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
                    what: mlwm_spec::time::utc_text(time),
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
        assert_eq!(level_runs(&[], 1), [0..0]);
        assert_eq!(level_runs(&[5, 2, 3], 1), [2..4, 5..6]);
        assert_eq!(level_runs(&[0, 9], 5), [0..10]);
        assert_eq!(level_runs(&[0, 11], 5), [0..1, 11..12]);
    }
}

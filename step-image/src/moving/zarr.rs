//! Chunks of Zarr stores as source and sink.

use mlwm_datasets::{StoredDefinition, Variable, Writer};

use super::copy::copy_part;
use super::{Block, Grid, Sink, Source};
use crate::Fault;

/// A variable, or the parts of one that stand one after the other in several stores.
pub(crate) struct ZarrSource<'a> {
    parts: Vec<Part<'a>>,
    /// The dimension along which the parts follow each other.
    axis: usize,
    grid: Grid,
    /// Of each cell along the axis: the part, and the chunk in it.
    places: Vec<(usize, u64)>,
}

/// One part.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) variable: &'a Variable,
    /// Where along the axis of the whole its first chunk that is used begins.
    pub(crate) offset: u64,
    /// The first of its chunks along the axis that is used.
    pub(crate) first_chunk: u64,
}

impl<'a> ZarrSource<'a> {
    /// Parts that follow each other along a dimension, of which there is at least one.
    pub(crate) fn of(parts: Vec<Part<'a>>, axis: usize) -> Self {
        let shape = parts[0].variable.shape();
        let chunks = parts[0].variable.chunk_shape();
        let mut edges: Vec<Vec<u64>> = (0..shape.len())
            .map(|dim| {
                let is_common = |part: &Part<'_>| part.variable.chunk_shape()[dim] == chunks[dim];
                match parts.iter().all(is_common) {
                    true => Grid::regular(&shape[dim..=dim], &chunks[dim..=dim])
                        .edges(0)
                        .to_vec(),
                    false => vec![0, shape[dim]],
                }
            })
            .collect();
        let mut places = Vec::new();
        if let Some(along) = edges.get_mut(axis) {
            *along = vec![parts[0].offset];
            for (number, part) in parts.iter().enumerate() {
                let length = part.variable.shape()[axis];
                let chunk = part.variable.chunk_shape()[axis].max(1);
                for at in part.first_chunk..length.div_ceil(chunk) {
                    let end = ((at + 1) * chunk).min(length);
                    along.push(part.offset + end - part.first_chunk * chunk);
                    places.push((number, at));
                }
            }
        }
        Self {
            parts,
            axis,
            grid: Grid::of(edges),
            places,
        }
    }

    /// The bytes that a cell takes at most, with the chunks that it is read from.
    pub(crate) fn largest(&self) -> u64 {
        let bytes = |part: &Part<'_>| {
            let size = part.variable.form().map_or(8, |form| form.size());
            let chunk = part.variable.chunk_shape().iter().product::<u64>();
            chunk.max(self.grid.largest()) * size
        };
        self.parts.iter().map(bytes).max().unwrap_or(0)
    }
}

impl Source for ZarrSource<'_> {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn read(&self, cell: usize, bytes: &mut Vec<u8>) -> Result<Block, Fault> {
        let index = self.grid.index(cell);
        let (number, along) = match index.get(self.axis) {
            Some(&along) => self.places[along],
            None => (0, 0),
        };
        let variable = self.parts[number].variable;
        let shape = variable.chunk_shape();
        let block = self.grid.block(cell);
        // The chunks of the part in this cell: one, unless other parts are divided otherwise.
        let ranges: Vec<std::ops::Range<u64>> = (0..index.len())
            .map(|dim| match dim == self.axis {
                true => along..along + 1,
                false => {
                    let end = block.start[dim] + block.shape[dim];
                    block.start[dim] / shape[dim]..end.div_ceil(shape[dim])
                }
            })
            .collect();
        *bytes = Vec::new();
        if ranges.iter().all(|range| range.end == range.start + 1) {
            let chunk: Vec<u64> = ranges.iter().map(|range| range.start).collect();
            *bytes = variable.read_stored_chunk(&chunk)?;
            return Ok(Block {
                start: block.start,
                shape,
            });
        }
        let size = variable.form().map_or(8, |form| form.size()) as usize;
        bytes.resize(block.len() as usize * size, 0);
        let chunks = Grid::of(
            ranges
                .iter()
                .map(|range| (range.start..=range.end).collect())
                .collect(),
        );
        for number in 0..chunks.cells() {
            let chunk = chunks.block(number).start;
            let start = (0..chunk.len()).map(|dim| match dim == self.axis {
                true => block.start[dim],
                false => chunk[dim] * shape[dim],
            });
            let held = Block {
                start: start.collect(),
                shape: shape.clone(),
            };
            let values = variable.read_stored_chunk(&chunk)?;
            copy_part(
                (&values, &held),
                (bytes, &block),
                &held.common(&block),
                size,
            );
        }
        Ok(block)
    }
}

/// A variable that is written.
pub(crate) struct ZarrSink<'a> {
    writer: &'a Writer,
    name: String,
    chunks: Vec<u64>,
    grid: Grid,
    /// The chunk along each dimension with which the grid begins.
    first: Vec<u64>,
    fill: Vec<u8>,
}

/// The files of a variable from one along a dimension on; those before are there already.
pub(crate) fn sink_grid(definition: &StoredDefinition, axis: usize, first: u64) -> Grid {
    let chunks = definition.file_chunks();
    let edges = (0..chunks.len()).map(|dim| {
        let whole = Grid::regular(&definition.shape[dim..=dim], &chunks[dim..=dim]);
        let skipped = if dim == axis { first as usize } else { 0 };
        whole.edges(0)[skipped..].to_vec()
    });
    Grid::of(edges.collect())
}

impl<'a> ZarrSink<'a> {
    /// The files of a variable from `first` along a dimension on.
    pub(crate) fn new(
        writer: &'a Writer,
        definition: &StoredDefinition,
        axis: usize,
        first: u64,
    ) -> Result<Self, Fault> {
        let chunks = definition.file_chunks().to_vec();
        let mut firsts = vec![0; chunks.len()];
        if let Some(along) = firsts.get_mut(axis) {
            *along = first;
        }
        Ok(Self {
            fill: writer.stored_fill(&definition.name)?,
            name: definition.name.clone(),
            grid: sink_grid(definition, axis, first),
            writer,
            chunks,
            first: firsts,
        })
    }
}

impl Sink for ZarrSink<'_> {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn whole(&self, cell: usize) -> Block {
        Block {
            start: self.grid.block(cell).start,
            shape: self.chunks.clone(),
        }
    }

    fn fill(&self) -> &[u8] {
        &self.fill
    }

    fn write(&self, cell: usize, bytes: &[u8]) -> Result<(), Fault> {
        let index = self.grid.index(cell);
        let along = index.iter().zip(&self.first);
        let chunk: Vec<u64> = along.map(|(&at, first)| at as u64 + first).collect();
        Ok(self.writer.write_stored_chunk(&self.name, &chunk, bytes)?)
    }
}

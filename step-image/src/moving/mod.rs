//! Copies the numbers of an array from one division into chunks to another, within a limit of memory.
//!
//! Every chunk of the source is read and decoded once. Its parts go to the buffers of the chunks that it overlaps;
//! a chunk that is full is compressed, written and forgotten. How many are begun at once is known beforehand
//! ([`plan`]); where they are too many, the array goes through a file of pieces, each the part of a chunk in a slab of
//! chunks of the source: each thread then fills chunks from their pieces, one after the other.

mod copy;
mod gather;
mod grid;
mod plan;
mod run;
mod scratch;
mod zarr;

pub(crate) use grid::{Block, Grid};
pub(crate) use plan::{BASE, Budget, Costs, Plan, plan};
pub(crate) use zarr::{Part, ZarrSink, ZarrSource, sink_grid};

use std::path::Path;

use crate::Fault;
use gather::gather;
use run::{Pass, run};
use scratch::Scratch;

/// Where chunks come from.
pub(crate) trait Source: Sync {
    fn grid(&self) -> &Grid;
    /// Reads a cell into a buffer; returns the block that the buffer holds, which may reach beyond the cell.
    fn read(&self, cell: usize, bytes: &mut Vec<u8>) -> Result<Block, Fault>;
}

/// Where chunks go.
pub(crate) trait Sink: Sync {
    fn grid(&self) -> &Grid;
    /// The block that is written of a cell, which may reach beyond it.
    fn whole(&self, cell: usize) -> Block;
    /// One value as it stands beyond the end of the array.
    fn fill(&self) -> &[u8];
    fn write(&self, cell: usize, bytes: &[u8]) -> Result<(), Fault>;
}

/// Copies all of an array as planned; `folder` is for the file between, if there is one.
pub(crate) fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    plan: Plan,
    size: u64,
    folder: &Path,
) -> Result<(), Fault> {
    match plan {
        Plan::Once { order, workers } => run(&Pass {
            source,
            sink,
            size: size as usize,
            batches: vec![order.len()],
            order,
            workers,
        }),
        Plan::Twice {
            between,
            first,
            batches,
            workers,
        } => {
            let scratch = Scratch::create(folder, between, size)?;
            run(&Pass {
                source,
                sink: &scratch,
                size: size as usize,
                order: first,
                batches,
                workers,
            })?;
            gather(&scratch, sink, size as usize, workers)
        }
    }
}

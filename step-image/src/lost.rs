//! Chunks whose files are not there: they would be read as the fill value, which may be a number like any other.
//!
//! A chunk inside of a shard cannot be lost by itself: what a shard that is there leaves out is the fill value.

use std::ops::Range;
use std::path::{Path, PathBuf};

use mlwm_datasets::Variable;

use crate::Fault;
use crate::moving::Grid;

/// A chunk or shard whose file is not there.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) file: PathBuf,
    /// Which values it would hold.
    pub(crate) ranges: Vec<Range<u64>>,
}

/// The chunks, or shards, of a variable whose files are not there.
pub(crate) fn lost(variable: &Variable) -> Vec<Lost> {
    let grid = Grid::regular(variable.shape(), &variable.chunk_shape());
    let mut lost = Vec::new();
    for cell in 0..grid.cells() {
        let chunk: Vec<u64> = grid.index(cell).iter().map(|&at| at as u64).collect();
        let file = variable.chunk_file(&chunk);
        if file.is_file() {
            continue;
        }
        let block = grid.block(cell);
        let along = block.start.iter().zip(&block.shape);
        lost.push(Lost {
            file,
            ranges: along
                .map(|(&start, &length)| start..start + length)
                .collect(),
        });
    }
    lost
}

/// Refuses variables of which files are not there, unless that is allowed.
pub(crate) fn check_whole<'a>(
    store: &Path,
    variables: impl IntoIterator<Item = &'a Variable>,
    allow_missing: bool,
) -> Result<(), Fault> {
    if allow_missing {
        return Ok(());
    }
    for variable in variables {
        let missing = variable.missing_chunks()?;
        if missing > 0 {
            let reason = format!(
                "it is incomplete: {missing} chunk(s) of `{}` were never written; write them, or give `--allow-missing` if its writer leaves out chunks of missing values",
                variable.name()
            );
            return Err(Fault::store(store, reason));
        }
    }
    Ok(())
}

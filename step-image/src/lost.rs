//! Chunks that are not there: they would be read as the fill value, which may be a number like any other.

use std::ops::Range;
use std::path::{Path, PathBuf};

use mlwm_datasets::{Element, Variable};

use crate::Fault;
use crate::moving::Grid;

/// A chunk that is not there.
#[derive(Debug)]
pub(crate) struct Lost {
    /// The file that it would be, or the shard that it would be in.
    pub(crate) file: PathBuf,
    pub(crate) is_in_shard: bool,
    /// Which values it would hold.
    pub(crate) ranges: Vec<Range<u64>>,
}

/// The chunks of a variable that are not there: files, and chunks inside of shards.
pub(crate) fn lost(variable: &Variable) -> Result<Vec<Lost>, Fault> {
    let grid = Grid::regular(variable.shape(), &variable.chunk_shape());
    let mut lost = Vec::new();
    for cell in 0..grid.cells() {
        let chunk: Vec<u64> = grid.index(cell).iter().map(|&at| at as u64).collect();
        let file = variable.chunk_file(&chunk);
        if file.is_file() {
            let inner = variable.absent_in_shard(&chunk)?.into_iter();
            lost.extend(inner.map(|ranges| Lost {
                file: file.clone(),
                is_in_shard: true,
                ranges,
            }));
            continue;
        }
        let block = grid.block(cell);
        let along = block.start.iter().zip(&block.shape);
        lost.push(Lost {
            file,
            is_in_shard: false,
            ranges: along
                .map(|(&start, &length)| start..start + length)
                .collect(),
        });
    }
    Ok(lost)
}

/// Refuses variables of which files are not there, unless that is allowed.
pub(crate) fn check_files<'a>(
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
            return Err(incomplete(store, variable, missing as usize, "chunk(s)"));
        }
    }
    Ok(())
}

/// Refuses variables of which files are not there, or chunks inside of shards that would be read as numbers, unless
/// that is allowed. Whoever writes shards leaves out chunks of nothing but the fill value, of which it cannot be told
/// whether they were lost.
pub(crate) fn check_whole<'a>(
    store: &Path,
    variables: impl IntoIterator<Item = &'a Variable> + Clone,
    allow_missing: bool,
) -> Result<(), Fault> {
    check_files(store, variables.clone(), allow_missing)?;
    if allow_missing {
        return Ok(());
    }
    for variable in variables {
        if variable.inner_chunk_shape().is_none() {
            continue;
        }
        let lost = lost(variable)?;
        if let Some(first) = lost.first()
            && !reads_as_missing(variable, first)?
        {
            return Err(incomplete(
                store,
                variable,
                lost.len(),
                "chunk(s) in shards",
            ));
        }
    }
    Ok(())
}

/// Whether what is read where a chunk is not there says that it is missing.
fn reads_as_missing(variable: &Variable, lost: &Lost) -> Result<bool, Fault> {
    if variable.element() == Element::Text {
        return Ok(false);
    }
    let first: Vec<Range<u64>> = lost
        .ranges
        .iter()
        .map(|range| range.start..range.start + 1)
        .collect();
    let values = variable.read_range(&first)?.into_f64()?;
    Ok(values.iter().all(|value| value.is_nan()))
}

fn incomplete(store: &Path, variable: &Variable, count: usize, what: &str) -> Fault {
    let reason = format!(
        "it is incomplete: {count} {what} of `{}` were never written; write them, or give `--allow-missing` if its writer leaves out chunks of missing values",
        variable.name()
    );
    Fault::store(store, reason)
}

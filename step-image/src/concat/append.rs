//! A store that is replaced by a longer one, whose files before the end of the old one are the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mlwm_datasets::{Dataset, StoredDefinition, Variable, Writer, ZarrFormat};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;

use super::agree::{Tolerance, check_metadata};
use super::view::View;
use crate::Fault;
use crate::chunking::attributes_as_stored;
use crate::moving::Grid;

/// A new state of a store, written beside it and exchanged with it in one step: who is killed leaves the old state or
/// the new one.
pub(super) struct Replacement {
    place: PathBuf,
    unfinished: PathBuf,
}

impl Replacement {
    /// Begins one; what an earlier attempt left is removed.
    pub(super) fn begin(place: &Path) -> Result<Self, Fault> {
        remove_unfinished(place)?;
        let unfinished = unfinished(place);
        fs::create_dir(&unfinished).map_err(Fault::write(&unfinished))?;
        Ok(Self {
            place: place.to_owned(),
            unfinished,
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.unfinished
    }

    /// The new state is whole: it takes the place of the old one, which is removed.
    pub(super) fn finish(self) -> Result<(), Fault> {
        let folder = File::open(&self.unfinished).map_err(Fault::write(&self.unfinished))?;
        rustix::fs::syncfs(&folder)
            .map_err(|error| Fault::write(&self.unfinished)(error.into()))?;
        renameat_with(
            CWD,
            &self.unfinished,
            CWD,
            &self.place,
            RenameFlags::EXCHANGE,
        )
        .map_err(|error| Fault::write(&self.place)(error.into()))?;
        remove(&self.unfinished)
    }
}

/// Where the new state of a store is written, and where the old one is until it is removed.
fn unfinished(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    place.with_file_name(format!(".{name}.unfinished"))
}

/// Removes what an earlier attempt left beside a store.
pub(super) fn remove_unfinished(place: &Path) -> Result<(), Fault> {
    remove(&unfinished(place))
}

fn remove(folder: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::write(folder)(error))
        }
        _ => Ok(()),
    }
}

/// How a variable of the store is written, with another shape; it must have been written so.
pub(super) fn definition(
    dataset: &Dataset,
    variable: &Variable,
    shape: &[u64],
) -> Result<StoredDefinition, Fault> {
    let foreign = || {
        let name = variable.name();
        let reason = format!(
            "`{name}` was not written by `mlwm-step`, so that nothing can be appended to it: write the store with `mlwm-step rechunk` first"
        );
        Fault::store(dataset.path(), reason)
    };
    let form = variable.form().ok_or_else(foreign)?;
    let inner = variable.inner_chunk_shape();
    let mut definition = StoredDefinition {
        name: variable.name().to_owned(),
        dims: variable.dims().to_vec(),
        shape: variable.shape().to_vec(),
        shards: inner.is_some().then(|| variable.chunk_shape()),
        chunks: inner.unwrap_or_else(|| variable.chunk_shape()),
        form: form.clone(),
        compressor: form.compressor().ok_or_else(foreign)?,
        attributes: attributes_as_stored(variable),
    };
    let file = match dataset.format() {
        ZarrFormat::V2 => ".zarray",
        ZarrFormat::V3 => "zarr.json",
    };
    let path = dataset.path().join(variable.name()).join(file);
    let text = fs::read(&path).map_err(|source| Fault::Read {
        path: path.clone(),
        source,
    })?;
    let stored: Value = serde_json::from_slice(&text).map_err(|_| foreign())?;
    if stored != definition.document(dataset.format()) {
        return Err(foreign());
    }
    definition.shape = shape.to_vec();
    Ok(definition)
}

/// Puts the files of the store before number `end` along a dimension into the new one, as they are.
pub(super) fn link(
    writer: &Writer,
    variable: &Variable,
    axis: usize,
    end: u64,
) -> Result<(), Fault> {
    let mut counts = variable.chunk_counts().to_vec();
    counts[axis] = counts[axis].min(end);
    if counts.contains(&0) {
        return Ok(());
    }
    let chunks = Grid::regular(&counts, &vec![1; counts.len()]);
    for cell in 0..chunks.cells() {
        let chunk = chunks.block(cell).start;
        let from = variable.chunk_file(&chunk);
        if !from.is_file() {
            // Never written, which is allowed, as it is checked before.
            continue;
        }
        let to = writer.stored_chunk_file(variable.name(), &chunk)?;
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(Fault::write(folder))?;
        }
        // Not every file system has links.
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).map_err(Fault::write(&to))?;
        }
    }
    Ok(())
}

/// Whether the base already ends with these times: an earlier attempt came to its end. Its values must be the same.
pub(super) fn is_there(
    base: &View<'_>,
    series: &[Vec<&View<'_>>],
    tolerance: &Tolerance,
) -> Result<bool, Fault> {
    let times = |views: &[&View<'_>]| -> Vec<i64> {
        views
            .iter()
            .flat_map(|view| view.times.values.iter().copied())
            .collect()
    };
    if !series
        .iter()
        .all(|views| base.times.values.ends_with(&times(views)))
    {
        return Ok(false);
    }
    for views in series {
        let mut from = (base.times.values.len() - times(views).len()) as u64;
        for view in views {
            for name in view.changing() {
                check_part(base, view, name, from, tolerance)?;
            }
            from += view.times.values.len() as u64;
        }
    }
    Ok(true)
}

/// Compares a variable with the part of the base that begins at a number along time.
fn check_part(
    base: &View<'_>,
    view: &View<'_>,
    name: &str,
    from: u64,
    tolerance: &Tolerance,
) -> Result<(), Fault> {
    let differs = |reason: String| Fault::Differs {
        store: view.path.clone(),
        other: base.path.clone(),
        reason,
    };
    let variable = view.variables[name];
    let Some(mine) = base.variables.get(name) else {
        return Err(differs(format!("it has the variable `{name}` beside")));
    };
    let dimension = view.time.name();
    let axis = variable
        .dims()
        .iter()
        .position(|dim| dim == dimension)
        .unwrap_or(0);
    check_metadata(name, (base, mine), (view, variable), Some(axis), tolerance)?;
    let chunks = Grid::regular(variable.shape(), &variable.chunk_shape());
    for cell in 0..chunks.cells() {
        let block = chunks.block(cell);
        let range = |shift: u64| -> Vec<std::ops::Range<u64>> {
            let along = block.start.iter().zip(&block.shape).enumerate();
            along
                .map(|(at, (&start, &length))| {
                    let start = if at == axis { start + shift } else { start };
                    start..start + length
                })
                .collect()
        };
        if variable.read_stored_range(&range(0))? != mine.read_stored_range(&range(from))? {
            let time = mlwm_spec::time::utc_text(view.times.values[block.start[axis] as usize]);
            return Err(differs(format!(
                "its times are there already, but with other values of `{name}` (near {time})"
            )));
        }
    }
    Ok(())
}

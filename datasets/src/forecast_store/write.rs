//! Writes the files of a store: shards while the forecast goes on, metadata at its end. Or hands their planes to
//! who writes another format.

use std::path::Path;

use super::files::FileInProgress;
use super::shard::Shard;
use super::windows::lead_text;
use super::{ForecastStore, StoreError, WindowSource};
use crate::Dataset;

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    /// Its path in the store's folder, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

impl ForecastStore {
    /// Writes a finished window into the store's folder: one file for each variable, each of which
    /// appears complete or not at all. Reads step by step. Windows may come in any order; a window
    /// written again replaces the files of the first time.
    ///
    /// # Errors
    /// [`StoreError::Window`] if a declared variable or a step is not there, or the times are not
    /// exactly those that are due; [`StoreError::Value`] for values that are missing, infinite, out
    /// of range or too large for their type; [`StoreError::NoWindow`] for a window that the store
    /// does not hold. The files of variables before the faulty one stay.
    pub fn write_window(
        &self,
        folder: &Path,
        window: u64,
        dataset: &Dataset,
    ) -> Result<Vec<Written>, StoreError> {
        let source = WindowSource::open(self, window, dataset)?;
        let mut written = Vec::with_capacity(self.variables.len());
        for name in self.variables.keys() {
            written.push(self.write_shard(folder, name, window, &source)?);
        }
        Ok(written)
    }

    /// The same for one variable of the window, so that its file can be published and removed before the
    /// next one is written.
    ///
    /// # Errors
    /// Those of [`Self::write_window`].
    pub fn write_variable(
        &self,
        folder: &Path,
        name: &str,
        window: u64,
        dataset: &Dataset,
    ) -> Result<Written, StoreError> {
        let source = WindowSource::open(self, window, dataset)?;
        self.write_shard(folder, name, window, &source)
    }

    fn write_shard(
        &self,
        folder: &Path,
        name: &str,
        window: u64,
        source: &WindowSource<'_>,
    ) -> Result<Written, StoreError> {
        let mut shard = self.shard(folder, name, window)?;
        source.planes(name, |step, plane| shard.push(plane, &self.lead(step)))?;
        Ok(Written {
            path: self.shard_path(name, window)?,
            bytes: shard.finish()?,
        })
    }

    /// Hands over the planes of a variable in a window instead of writing them: with the step, in row-major order,
    /// checked as [`Self::write_window`] checks them and rounded to float32; NaN stands for what may be missing.
    ///
    /// # Errors
    /// Those of [`Self::write_window`], and those of `each`.
    pub fn read_variable<E: From<StoreError>>(
        &self,
        name: &str,
        window: u64,
        dataset: &Dataset,
        mut each: impl FnMut(u64, Vec<f32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (_, layout) = self.layout(name)?;
        let source = WindowSource::open(self, window, dataset)?;
        source.planes(name, |step, plane| {
            let mut values = Vec::new();
            layout
                .rules
                .singles(plane, &mut values)
                .map_err(|broken| StoreError::value(name, &self.lead(step), broken))?;
            each(step, values)
        })
    }

    /// Starts the shard of a variable and window.
    pub(crate) fn shard(
        &self,
        folder: &Path,
        name: &str,
        window: u64,
    ) -> Result<Shard<'_>, StoreError> {
        let path = folder.join(self.shard_path(name, window)?);
        let (name, layout) = self.layout(name)?;
        Shard::create(name, layout, &path)
    }

    /// The lead time of a step, for messages.
    pub(crate) fn lead(&self, step: u64) -> String {
        lead_text(self.windows.lead_seconds(step))
    }

    /// Writes everything but the shards: coordinates and metadata, those of the group last. The
    /// shards need not be there any more, so that they can be published and removed before.
    ///
    /// # Errors
    /// [`StoreError::Write`] or [`StoreError::Dataset`] if a file cannot be written.
    pub fn finish(&self, folder: &Path) -> Result<Vec<Written>, StoreError> {
        let mut written = Vec::new();
        for (path, bytes) in self.documents(folder)? {
            let target = folder.join(&path);
            FileInProgress::create(&target)
                .and_then(|mut file| {
                    file.write(&bytes)?;
                    file.complete()
                })
                .map_err(StoreError::write(&target))?;
            written.push(Written {
                path,
                bytes: bytes.len() as u64,
            });
        }
        Ok(written)
    }
}

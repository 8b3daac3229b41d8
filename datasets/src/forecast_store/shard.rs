//! One shard: the planes of a variable in a window, and where each of them lies.
//!
//! The sharding codec of `zarrs` compresses the inner chunks of a shard in parallel and puts them
//! down in the order in which they come out, so that the same values may give other bytes; and it
//! wants all of them in memory. Here they are put down one after the other.
//!
//! Format: Zarr version 3, codec `sharding_indexed`, index at the end.

use std::path::Path;

use super::{FileInProgress, Layout, StoreError};
use crate::blosc::{Blosc, OVERHEAD};

/// The level of zstd. Measured on smooth fields of float32, of blosc with a shuffle of bytes: level
/// 1 leaves 55 % at 670 MB/s, level 3 leaves 51 % at 320 MB/s, level 5 leaves 50 % at 130 MB/s; a
/// shuffle of bits leaves 53 % at level 3, and zstd without shuffle 73 %.
pub(crate) const LEVEL: u8 = 3;

/// The bytes of the index entry of one inner chunk: where it begins, and how long it is.
const ENTRY: u64 = 16;

/// The bytes of the index checksum (crc32c).
const CHECKSUM: u64 = 4;

/// The index entry of an inner chunk that is not there: beyond the last step of the forecast.
const ABSENT: u64 = u64::MAX;

/// A shard being written, step by step.
pub(crate) struct Shard<'a> {
    name: &'a str,
    layout: &'a Layout,
    file: FileInProgress,
    blosc: Blosc,
    /// Of each step written: where it begins, and how long it is.
    index: Vec<[u64; 2]>,
    end: u64,
    plane: Vec<u8>,
}

impl<'a> Shard<'a> {
    /// Starts a shard that will lie at a path.
    pub(crate) fn create(
        name: &'a str,
        layout: &'a Layout,
        path: &Path,
    ) -> Result<Self, StoreError> {
        let compress = |reason| StoreError::Compress {
            variable: name.to_owned(),
            reason,
        };
        Ok(Self {
            name,
            layout,
            file: FileInProgress::create(path).map_err(StoreError::write(path))?,
            blosc: Blosc::small(LEVEL, layout.rules.stored.size() as usize).map_err(compress)?,
            index: Vec::new(),
            end: 0,
            plane: Vec::new(),
        })
    }

    /// Checks and writes the plane of the next step; `lead` is its lead time, for messages.
    pub(crate) fn push(&mut self, plane: &[f64], lead: &str) -> Result<(), StoreError> {
        self.plane.clear();
        self.layout
            .rules
            .encode(plane, &mut self.plane)
            .map_err(|broken| StoreError::value(self.name, lead, broken))?;
        let chunk = self.blosc.compress(&self.plane).map_err(|reason| {
            let variable = self.name.to_owned();
            StoreError::Compress { variable, reason }
        })?;
        let length = chunk.len() as u64;
        self.file
            .write(&chunk)
            .map_err(StoreError::write(self.file.target()))?;
        self.index.push([self.end, length]);
        self.end += length;
        Ok(())
    }

    /// Writes the index and gives the file its name; returns its length.
    pub(crate) fn finish(mut self) -> Result<u64, StoreError> {
        let steps = self.layout.steps_each as usize;
        self.index.resize(steps, [ABSENT, ABSENT]);
        let mut index: Vec<u8> = self
            .index
            .iter()
            .flatten()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        index.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
        let target = self.file.target().to_owned();
        self.file
            .write(&index)
            .and_then(|()| self.file.complete())
            .map_err(StoreError::write(&target))?;
        Ok(self.end + index.len() as u64)
    }
}

/// The length of a shard that cannot be compressed: no shard is longer.
pub(crate) fn longest(layout: &Layout, steps: u64) -> u64 {
    let plane = layout.points() * layout.rules.stored.size() + OVERHEAD;
    steps * plane + layout.steps_each * ENTRY + CHECKSUM
}

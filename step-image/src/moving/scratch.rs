//! The file of pieces between the two ways of a copy.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use mlwm_datasets::Blosc;
use rustix::fs::{FallocateFlags, fallocate};

use super::{Block, Grid, Sink, Source};
use crate::Fault;

/// A file without a name, which goes when the process does: the pieces, each compressed where there is room for it as
/// it is. What a machine writes to memory and disk bounds a copy, so that less of it is faster.
pub(super) struct Scratch {
    folder: PathBuf,
    file: File,
    grid: Grid,
    size: u64,
    /// Where each piece begins.
    offsets: Vec<u64>,
    /// How many bytes each has in the file: if compressing makes it no smaller, all of them.
    lengths: Vec<AtomicUsize>,
    blosc: Blosc,
}

impl Scratch {
    pub(super) fn create(folder: &Path, grid: Grid, size: u64) -> Result<Self, Fault> {
        let file = tempfile::tempfile_in(folder).map_err(Fault::write(folder))?;
        let mut end = 0;
        let offsets = (0..grid.cells()).map(|cell| {
            let offset = end;
            end += grid.block(cell).len() * size;
            offset
        });
        Ok(Self {
            folder: folder.to_owned(),
            offsets: offsets.collect(),
            lengths: (0..grid.cells()).map(|_| AtomicUsize::new(0)).collect(),
            blosc: Blosc::fast(size as usize)
                .map_err(|reason| Fault::write(folder)(io::Error::other(reason)))?,
            file,
            grid,
            size,
        })
    }
}

impl Source for Scratch {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn read(&self, cell: usize, bytes: &mut Vec<u8>) -> Result<Block, Fault> {
        let block = self.grid.block(cell);
        let length = (block.len() * self.size) as usize;
        let stored = self.lengths[cell].load(Ordering::Relaxed);
        let failed = |source| Fault::Read {
            path: self.folder.clone(),
            source,
        };
        bytes.resize(stored, 0);
        let read = self.file.read_exact_at(bytes, self.offsets[cell]);
        read.map_err(failed)?;
        if stored < length {
            let whole = self.blosc.decompress(bytes, length);
            *bytes = whole.map_err(|reason| failed(io::Error::other(reason)))?;
        }
        // Read once, a piece is not needed again. Where a file system cannot forget a part of a file, it goes with
        // the rest.
        let forget = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.file, forget, self.offsets[cell], stored as u64);
        Ok(block)
    }
}

impl Sink for Scratch {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn whole(&self, cell: usize) -> Block {
        self.grid.block(cell)
    }

    fn fill(&self) -> &[u8] {
        &[]
    }

    fn write(&self, cell: usize, bytes: &[u8]) -> Result<(), Fault> {
        // What is too large for the library stays as it is, too.
        let packed = self.blosc.compress(bytes).ok();
        let smaller = packed
            .as_deref()
            .filter(|packed| packed.len() < bytes.len());
        let stored = smaller.unwrap_or(bytes);
        self.lengths[cell].store(stored.len(), Ordering::Relaxed);
        let written = self.file.write_all_at(stored, self.offsets[cell]);
        written.map_err(Fault::write(&self.folder))
    }
}

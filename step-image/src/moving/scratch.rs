//! The file of pieces between the two ways of a copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Block, Grid, Sink, Source};
use crate::Fault;

/// A file without a name, which goes when the process does: the pieces as they are, one after the other.
pub(super) struct Scratch {
    folder: PathBuf,
    file: File,
    grid: Grid,
    size: u64,
    /// Where each piece begins.
    offsets: Vec<u64>,
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
        bytes.resize((block.len() * self.size) as usize, 0);
        let read = self.file.read_exact_at(bytes, self.offsets[cell]);
        read.map_err(|source| Fault::Read {
            path: self.folder.clone(),
            source,
        })?;
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
        let written = self.file.write_all_at(bytes, self.offsets[cell]);
        written.map_err(Fault::write(&self.folder))
    }
}

//! The files that an artifact is built from. What is packed must be what was checked, so what the
//! file system says of a file is taken before the first look at it and compared ever after.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, io_error};

/// A file, as it was when it was named an input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    path: PathBuf,
    state: State,
}

/// By what a changed file is told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    device_and_node: (u64, u64),
    size: u64,
    modified: (i64, i64),
    /// Unlike the time before, no program can set this one back.
    status_changed: (i64, i64),
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device_and_node: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            status_changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Input {
    /// The file that is at `path` now.
    pub(crate) fn at(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path).map_err(io_error("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            state: State::of(&metadata),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        self.state.size
    }

    /// Opens the file, which must be the same and unchanged.
    pub(crate) fn open(&self) -> Result<File, Error> {
        let file = File::open(&self.path).map_err(io_error("open", &self.path))?;
        let metadata = file.metadata().map_err(io_error("open", &self.path))?;
        self.compare(&metadata)?;
        Ok(file)
    }

    /// The whole text of the file.
    pub(crate) fn read_text(&self) -> Result<String, Error> {
        let mut text = String::new();
        self.open()?
            .read_to_string(&mut text)
            .map_err(io_error("read", &self.path))?;
        Ok(text)
    }

    /// Fails if the file was replaced or written to.
    pub(crate) fn require_unchanged(&self) -> Result<(), Error> {
        let metadata = fs::metadata(&self.path).map_err(io_error("read", &self.path))?;
        self.compare(&metadata)
    }

    fn compare(&self, metadata: &Metadata) -> Result<(), Error> {
        match State::of(metadata) == self.state {
            true => Ok(()),
            false => Err(Error::Changed {
                path: self.path.clone(),
            }),
        }
    }
}

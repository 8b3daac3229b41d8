//! The bytes of a bundle, whether they lie in one file or in parts.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mlwm_artifacts::ReadAt;
use mlwm_storage::Content;

use super::layout::Blob;

/// The files of a bundle, one after the other.
pub(super) struct Files {
    files: Vec<Piece>,
    size: u64,
    /// The file that was read last. Thousands of parts are not held open at once.
    open: Mutex<Option<(usize, Arc<File>)>>,
}

struct Piece {
    path: PathBuf,
    version: Version,
    /// Of its first byte, in the bundle.
    start: u64,
}

/// What of a file changes when its content does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    size: u64,
    modified: (i64, i64),
    place: (u64, u64),
}

impl Version {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            place: (metadata.dev(), metadata.ino()),
        })
    }
}

impl Files {
    /// Takes these files as they are now. The error is that of the file beside it.
    pub(super) fn open(paths: Vec<PathBuf>) -> Result<Self, (PathBuf, io::Error)> {
        let mut files: Vec<Piece> = Vec::with_capacity(paths.len());
        let mut size = 0;
        for path in paths {
            let version = match File::open(&path).and_then(|file| Version::of(&file)) {
                Ok(version) => version,
                Err(error) => return Err((path, error)),
            };
            files.push(Piece {
                path,
                version,
                start: size,
            });
            size += version.size;
        }
        Ok(Self {
            files,
            size,
            open: Mutex::new(None),
        })
    }

    /// Path and size of every file.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files
            .iter()
            .map(|piece| (piece.path.as_path(), piece.version.size))
    }

    fn file(&self, index: usize) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, file)) = &*open
            && *held == index
        {
            return Ok(Arc::clone(file));
        }
        let Piece { path, version, .. } = &self.files[index];
        let named = |error: io::Error| io::Error::other(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(named)?;
        if Version::of(&file).map_err(named)? != *version {
            return Err(named(io::Error::other("it has changed meanwhile")));
        }
        let file = Arc::new(file);
        *open = Some((index, Arc::clone(&file)));
        Ok(file)
    }
}

impl ReadAt for Files {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        let index = self.files.partition_point(|file| file.start <= offset) - 1;
        let within = offset - self.files[index].start;
        let left = self.files[index].version.size - within;
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        match self.file(index)?.read_at(&mut buffer[..wanted], within)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

/// A zip or a layer in a bundle.
#[derive(Clone)]
pub(super) struct BlobInBundle {
    pub(super) files: Arc<Files>,
    pub(super) blob: Blob,
    /// Which bundle it is: two with the same are the same.
    pub(super) bundle: mlwm_spec::Digest,
}

impl ReadAt for BlobInBundle {
    fn size(&self) -> u64 {
        self.blob.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.blob.size.saturating_sub(offset);
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self
            .files
            .read_at(&mut buffer[..wanted], self.blob.at + offset)?;
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

impl Content for BlobInBundle {
    fn size(&self) -> u64 {
        self.blob.size
    }

    fn fingerprint(&self) -> String {
        format!("bundle {} {}", self.bundle, self.blob.digest)
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(FromStart::new(Arc::new(self.clone()))))
    }
}

/// Reads a source from its start.
pub(crate) struct FromStart {
    source: Arc<dyn ReadAt>,
    pub(super) at: u64,
}

impl FromStart {
    pub(crate) fn new(source: Arc<dyn ReadAt>) -> Self {
        Self { source, at: 0 }
    }
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

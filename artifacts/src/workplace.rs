//! Where a file or folder is made before it gets its name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{Error, io_error};

const LOCK: &str = "lock";

/// A hidden folder of one process at a time. What a killed process left in it, the next one finds,
/// so that what is left over never piles up. It disappears with the process that leaves it empty.
#[derive(Debug)]
pub(crate) struct Workplace {
    folder: PathBuf,
    _lock: File,
}

impl Workplace {
    /// Goes to the workplace `folder`, which is made if it is not there.
    pub(crate) fn enter(folder: PathBuf) -> Result<Self, Error> {
        loop {
            make_folder(&folder)?;
            let path = folder.join(LOCK);
            let lock = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&path);
            let lock = match lock {
                // Who was here has just left.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock.map_err(io_error("create", &path))?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                // A file system without locks: the workplace is as good as any name beside it.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
                Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: folder }),
            }
            if is_at(&lock, &path) {
                return Ok(Self {
                    folder,
                    _lock: lock,
                });
            }
        }
    }

    /// The path of something in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // While the lock is held; what is still in the folder keeps it.
        let _ = fs::remove_file(self.path(LOCK));
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Makes a folder, or accepts a real one: through a link, files would land elsewhere.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            match fs::symlink_metadata(path) {
                Ok(kind) if !kind.is_dir() => Err(Error::InTheWay {
                    path: path.to_owned(),
                }),
                // One that is gone again is missed where it is used.
                _ => Ok(()),
            }
        }
        Err(error) => Err(io_error("create", path)(error)),
    }
}

/// Whether this file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let node = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => node(held) == node(named),
        _ => false,
    }
}

/// The hidden name beside `path` that ends in `suffix`; none for a path that ends in no name.
pub(crate) fn beside(path: &Path, suffix: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    Some(parent(path).join(format!(".{name}.{suffix}")))
}

/// The folder of a path.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Flushes the names in a folder to the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("write", folder))
}

//! The regular files below a local folder.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{Error, names};

/// How often a folder is created whose parent another removes, which was empty in this moment. All of them take less
/// than a tenth of a second.
const TRIES: usize = 10_000;

/// Creates a folder and those above it, also while others remove empty folders on the way to it.
///
/// # Errors
/// Those of [`std::fs::create_dir_all`].
pub fn create_folders(path: &Path) -> io::Result<()> {
    for _ in 1..TRIES {
        match std::fs::create_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => return done,
        }
    }
    std::fs::create_dir_all(path)
}

/// A regular file below a folder.
#[derive(Clone, Debug)]
pub(crate) struct LocalFile {
    /// Path below the folder, with `/`.
    pub(crate) name: String,
    /// Absolute path, or relative to the current folder.
    pub(crate) path: PathBuf,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Modification time in nanoseconds since 1970-01-01.
    pub(crate) modified: i128,
}

/// What it means that a file is gone before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Somebody removed it, as others may.
    Left,
    /// The tree is not what it should be.
    Fault,
}

/// Every file below `folder`, ordered by name; empty folders do not count. Anything but a regular
/// file or folder is an error: a symbolic link may lead out of the tree, a socket has no content.
pub(crate) fn walk(folder: &Path, gone: Gone) -> Result<Vec<LocalFile>, Error> {
    let passes = |error: &io::Error| gone == Gone::Left && error.kind() == ErrorKind::NotFound;
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if passes(&error) => continue,
            entries => entries.map_err(Error::local("list", &folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::local("list", &folder))?;
            let path = entry.path();
            let refuse = |reason: &str| Error::NotAnObject {
                path: path.clone(),
                reason: reason.to_owned(),
            };
            let file_name = entry.file_name();
            let file_name = file_name
                .to_str()
                .ok_or_else(|| refuse("its name is not UTF-8"))?;
            let name = format!("{prefix}{file_name}");
            names::check(&name).map_err(refuse)?;
            let kind = match entry.file_type() {
                Err(error) if passes(&error) => continue,
                kind => kind.map_err(Error::local("look at", &path))?,
            };
            if kind.is_dir() {
                folders.push((path, format!("{name}/")));
            } else if kind.is_file() {
                let metadata = match entry.metadata() {
                    Err(error) if passes(&error) => continue,
                    metadata => metadata.map_err(Error::local("look at", &path))?,
                };
                files.push(LocalFile {
                    name,
                    path,
                    size: metadata.len(),
                    modified: modified(&metadata),
                });
            } else if kind.is_symlink() {
                return Err(refuse("it is a symbolic link"));
            } else {
                return Err(refuse("it is not a regular file"));
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Modification time in nanoseconds since 1970-01-01.
pub(crate) fn modified(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

impl LocalFile {
    /// Opens the file for reading, if it is still the one that was listed.
    pub(crate) fn open(&self) -> Result<File, Error> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.path)
            .map_err(Error::local("open", &self.path))?;
        self.check_unchanged(&file)?;
        Ok(file)
    }

    /// Fails if size or modification time of the open file are no longer those listed.
    pub(crate) fn check_unchanged(&self, file: &File) -> Result<(), Error> {
        let now = file
            .metadata()
            .map_err(Error::local("look at", &self.path))?;
        if now.is_file() && now.len() == self.size && modified(&now) == self.modified {
            Ok(())
        } else {
            Err(Error::LocalChanged {
                path: self.path.clone(),
            })
        }
    }

    /// The next `length` bytes.
    pub(crate) fn read_next(&self, file: &mut File, length: u64) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::LocalChanged {
                    path: self.path.clone(),
                },
                _ => Error::local("read", &self.path)(error),
            })?;
        Ok(bytes)
    }
}

/// Free bytes for this user on the disk that holds `path`, or will hold it.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, Error> {
    let existing = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() {
        Path::new(".")
    } else {
        existing
    };
    let disk = rustix::fs::statvfs(existing)
        .map_err(|error| Error::local("look at the disk of", existing)(error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Fails unless the disk of `path` has room for files of these sizes.
pub(crate) fn check_space(path: &Path, sizes: impl Iterator<Item = u64>) -> Result<(), Error> {
    const BLOCK: u64 = 4096;
    let needed = sizes.map(|size| size.next_multiple_of(BLOCK)).sum();
    let free = free_bytes(path)?;
    if needed > free {
        return Err(Error::NotEnoughSpace {
            path: path.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn folders_are_made_while_empty_ones_above_them_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let above = folder.path().join("cycle/member");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for empty in above.ancestors().take(2) {
                        let _ = fs::remove_dir(empty);
                    }
                }
            });
            let made = (0..2000).try_for_each(|_| {
                create_folders(&above.join("input/new"))?;
                fs::remove_dir_all(above.join("input"))
            });
            done.store(true, Ordering::Relaxed);
            made.unwrap();
        });
    }

    #[test]
    fn files_that_go_while_they_are_listed_are_not_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("stays"), "1").unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for name in 0..50 {
                        let below = folder.path().join(name.to_string());
                        fs::create_dir(&below).unwrap();
                        fs::write(below.join("file"), "1").unwrap();
                    }
                    for name in 0..50 {
                        fs::remove_dir_all(folder.path().join(name.to_string())).unwrap();
                    }
                }
            });
            let listings: Vec<_> = (0..3000).map(|_| walk(folder.path(), Gone::Left)).collect();
            done.store(true, Ordering::Relaxed);
            for files in listings {
                assert!(files.unwrap().iter().any(|file| file.name == "stays"));
            }
        });
        let absent = folder.path().join("absent");
        assert!(walk(&absent, Gone::Left).unwrap().is_empty());
        assert!(walk(&absent, Gone::Fault).is_err());
    }
}

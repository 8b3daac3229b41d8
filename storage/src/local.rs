//! A folder of the local file system as a store.
//!
//! `object_store`'s own `LocalFileSystem` is not used: it follows symbolic links and leaves out
//! files it has no name for (`x#1`) and broken links without a word, where an input would be
//! silently incomplete.

pub(crate) mod resumable;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::progress::Counter;
use crate::store::Uploaded;
use crate::tree::{self, Gone, LocalFile};
use crate::{Error, Listed, Uri, names, pool};

/// How a temporary file's name ends. Only a publication that was killed leaves one behind.
const TEMPORARY: &str = ".mlwm-part";

/// Files are copied in pieces of this many bytes.
const PIECE: u64 = 1 << 20;

/// Every file below `folder`, ordered by path; nothing if there is no such folder.
pub(crate) fn list(uri: &Uri, folder: &Path) -> Result<Vec<Listed>, Error> {
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(Error::local("list", folder)(
                ErrorKind::NotADirectory.into(),
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::local("list", folder)(error)),
    }
    let files = tree::walk(folder, Gone::Left).map_err(|error| match error {
        Error::NotAnObject { path, reason } => Error::UnsafeName {
            uri: uri.to_string(),
            name: path
                .strip_prefix(folder)
                .unwrap_or(&path)
                .display()
                .to_string(),
            reason,
        },
        other => other,
    })?;
    Ok(files
        .into_iter()
        .map(|file| Listed {
            path: file.name,
            size: file.size,
            etag: None,
            modified: file.modified,
        })
        .collect())
}

/// The file at `path`, listed as `name`; `None` if there is none.
pub(crate) fn head(name: String, path: &Path) -> Result<Option<Listed>, Error> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(Listed {
            path: name,
            size: found.len(),
            etag: None,
            modified: tree::modified(&found),
        })),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::local("look at", path)(error)),
    }
}

/// The content of a file of at most `limit` bytes, `None` if there is none.
pub(crate) fn read_small(uri: &Uri, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::local("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(Error::local("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge {
            uri: uri.to_string(),
            limit,
        });
    }
    Ok(Some(bytes))
}

/// `length` bytes of a file from `start`, if it is still as it was listed.
pub(crate) fn read_part(
    folder: &Path,
    object: &Listed,
    start: u64,
    length: u64,
) -> Result<Vec<Bytes>, Error> {
    let listed = LocalFile {
        name: object.path.clone(),
        path: folder.join(&object.path),
        size: object.size,
        modified: object.modified,
    };
    let mut file = listed.open()?;
    file.seek(SeekFrom::Start(start))
        .map_err(Error::local("read", &listed.path))?;
    let bytes = listed.read_next(&mut file, length)?;
    listed.check_unchanged(&file)?;
    Ok(vec![bytes.into()])
}

/// Copies a file to `target`, which appears complete and synchronised or not at all.
pub(crate) fn upload(
    uri: &Uri,
    source: &LocalFile,
    target: &Path,
    counter: &Counter,
    cancel: &CancellationToken,
) -> Result<Uploaded, Error> {
    let mut from = source.open()?;
    let mut hasher = Sha256::new();
    let version = write_then(target, |mut to, temporary| {
        let mut done = 0;
        while done < source.size {
            if cancel.is_cancelled() {
                return Err(pool::interrupted(uri));
            }
            let piece = source.read_next(&mut from, PIECE.min(source.size - done))?;
            hasher.update(&piece);
            to.write_all(&piece)
                .map_err(Error::local("write", temporary))?;
            done += piece.len() as u64;
            counter.bytes(piece.len() as u64);
        }
        source.check_unchanged(&from)?;
        to.sync_all().map_err(Error::local("write", temporary))?;
        let written = to.metadata().map_err(Error::local("look at", temporary))?;
        std::fs::rename(temporary, target).map_err(Error::local("rename to", target))?;
        Ok(tree::modified(&written).to_string())
    })?;
    Ok(Uploaded {
        sha256: Digest::from_hasher(hasher),
        version: Some(version),
    })
}

/// Writes a small file in place of whatever is there.
pub(crate) fn put(target: &Path, bytes: &[u8]) -> Result<(), Error> {
    make_folder_of(target)?;
    write_then(target, |mut to, temporary| {
        to.write_all(bytes)
            .map_err(Error::local("write", temporary))?;
        to.sync_all().map_err(Error::local("write", temporary))?;
        std::fs::rename(temporary, target).map_err(Error::local("rename to", target))
    })?;
    sync_folder_of(target)
}

/// Writes a small file unless there is one of that name. Of two that try, one gets `true`.
pub(crate) fn create(target: &Path, bytes: &[u8]) -> Result<bool, Error> {
    make_folder_of(target)?;
    let created = write_then(target, |mut to, temporary| {
        to.write_all(bytes)
            .map_err(Error::local("write", temporary))?;
        to.sync_all().map_err(Error::local("write", temporary))?;
        name_unless_taken(temporary, target)
    })?;
    sync_folder_of(target)?;
    Ok(created)
}

/// Gives the file `from` the name `target` (too), unless there is a file of that name; whether it
/// did.
fn name_unless_taken(from: &Path, target: &Path) -> Result<bool, Error> {
    let linked = std::fs::hard_link(from, target).or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => Err(error),
        // Not every file system has hard links.
        _ => rename_unless_taken(from, target),
    });
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::local("create", target)(error)),
    }
}

fn rename_unless_taken(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Gives `finish` a new file with a temporary name beside `target`, which must move it into place;
/// whatever is left under the temporary name is removed.
fn write_then<R>(
    target: &Path,
    finish: impl FnOnce(File, &Path) -> Result<R, Error>,
) -> Result<R, Error> {
    let folder = target.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(Error::local("create the folder", folder))?;
    let temporary = temporary_name(target);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(Error::local("create", &temporary))?;
    let result = finish(file, &temporary);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound && result.is_ok() => {
            Err(Error::local("remove", &temporary)(error))
        }
        _ => result,
    }
}

/// A hidden name beside `target` that no other process or thread uses.
fn temporary_name(target: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = target
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let nanoseconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let unique = Digest::of(format!(
        "{name} {} {} {nanoseconds}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed),
    ));
    // Names may have 255 bytes at most: keep the hash rather than the name.
    let name: String = name.chars().take(50).collect();
    target.with_file_name(format!(".{name}.{}{TEMPORARY}", unique.short()))
}

/// Removes what a killed publication left beside `target` while it wrote it.
pub(crate) fn remove_temporaries(target: &Path) -> Result<(), Error> {
    let folder = target.parent().unwrap_or(Path::new("/"));
    let name = target
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let name: String = name.chars().take(50).collect();
    let prefix = format!(".{name}.");
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::local("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::local("list", folder))?;
        let file_name = entry.file_name();
        let Some(unique) = file_name
            .to_str()
            .and_then(|text| text.strip_prefix(&prefix)?.strip_suffix(TEMPORARY))
        else {
            continue;
        };
        if unique.len() == 12 {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes files below `folder`, and the folders that become empty.
pub(crate) fn delete(folder: &Path, names: &[String]) -> Result<(), Error> {
    for name in names {
        remove(&folder.join(name))?;
        for emptied in names::folders(name) {
            if std::fs::remove_dir(folder.join(emptied)).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// Removes a file, if there is one.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::local("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the names of the files below `folder` durable: every folder that holds one, and those
/// above it up to the one that held `folder` before.
pub(crate) fn sync_folders(folder: &Path, names: &[String]) -> Result<(), Error> {
    let mut folders: BTreeSet<PathBuf> = names
        .iter()
        .flat_map(|name| names::folders(name))
        .map(|name| folder.join(name))
        .collect();
    folders.extend(folder.ancestors().map(Path::to_owned));
    for folder in folders.iter().rev() {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Makes the folder that is to hold `path` and those above it, and the names of the new ones
/// durable; that of `path` becomes so by [`sync_folder_of`].
pub(crate) fn make_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let new: Vec<&Path> = folder
        .ancestors()
        .take_while(|folder| !folder.exists())
        .collect();
    std::fs::create_dir_all(folder).map_err(Error::local("create the folder", folder))?;
    for folder in new {
        sync_folder_of(folder)?;
    }
    Ok(())
}

pub(crate) fn sync_folder_of(path: &Path) -> Result<(), Error> {
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

fn sync_folder(folder: &Path) -> Result<(), Error> {
    match File::open(folder).and_then(|open| open.sync_all()) {
        // Folders above may be closed to this user; then they are not ones that mlwm made.
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::InvalidInput
            ) =>
        {
            Err(Error::local("synchronise the folder", folder)(error))
        }
        _ => Ok(()),
    }
}

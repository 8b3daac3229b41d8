//! What else is kept beside the artifacts, in the folder `mlwm`: unpacked artifacts, bases of images,
//! digests of layers, receipts. All of it can be made again.
//!
//! A folder `<hex>` has a lock `<hex>.lock`, which is held by whoever uses the folder and was last
//! taken when it was last used. A note is one file, which nobody needs to be there.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlwm_spec::Digest;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Cache, age, name_of, remove_file};
use crate::Error;
use crate::transfers::{Kind, lock, try_lock};

/// What the names of folders begin with that are on their way out.
const REMOVING: &str = ".removing-";
/// What an image of an engine arrives in.
const SAVING: &str = ".saving-";
/// What the name of a folder ends with that an artifact is being unpacked in.
const UNPACKING: &str = ".extracting";

/// A kind of what is kept beside the artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptKind {
    /// Artifacts that are unpacked, to be mounted.
    Unpacked,
    /// Images of an engine that others were built on.
    Bases,
    /// Digests of layers of images.
    Layers,
    /// Digests of files that have not changed since they were hashed.
    Receipts,
}

/// Folders by their digests, then notes.
const FOLDERS: [KeptKind; 2] = [KeptKind::Unpacked, KeptKind::Bases];
const NOTES: [KeptKind; 2] = [KeptKind::Layers, KeptKind::Receipts];

/// What is kept: one folder, or all notes of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptEntry {
    /// What it is.
    pub kind: KeptKind,
    /// Of the artifact that is unpacked, or of the image; none for notes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How many there are: 1, or the number of notes.
    pub number: u64,
    /// Size of the files in bytes.
    pub size: u64,
    /// Seconds since it was last used; for notes, since any was written or, to the day, used.
    pub unused_seconds: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl KeptKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Unpacked, Self::Bases, Self::Layers, Self::Receipts];

    /// Name of its folder in `mlwm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unpacked => "unpacked",
            Self::Bases => "bases",
            Self::Layers => "layers",
            Self::Receipts => "receipts",
        }
    }
}

impl Cache {
    /// What is kept beside the artifacts: folders, the longest unused first, then notes.
    pub fn kept(&self) -> Result<Vec<KeptEntry>, Error> {
        let mut entries = self.kept_folders()?;
        for kind in NOTES {
            let (notes, folder) = (self.notes(kind)?, self.kept_in(kind));
            let youngest = notes.iter().map(|note| note.age).min();
            if let (Some(youngest), Some(path)) = (youngest, folder) {
                entries.push(KeptEntry {
                    kind,
                    digest: None,
                    number: notes.len() as u64,
                    size: notes.iter().map(|note| note.size).sum(),
                    unused_seconds: youngest.as_secs(),
                    path,
                });
            }
        }
        Ok(entries)
    }

    pub(super) fn kept_folders(&self) -> Result<Vec<KeptEntry>, Error> {
        let mut entries = Vec::new();
        for kind in FOLDERS {
            for path in self.kept_paths(kind)? {
                let Ok(digest) = format!("sha256:{}", name_of(&path)).parse() else {
                    continue;
                };
                let lock = path.with_extension("lock");
                // One that was never locked is as old as its folder.
                let used = if lock.exists() { &lock } else { &path };
                entries.push(KeptEntry {
                    kind,
                    digest: Some(digest),
                    number: 1,
                    size: size_below(&path).map_err(Error::local("look at", &path))?,
                    unused_seconds: age(used)?.as_secs(),
                    path,
                });
            }
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.unused_seconds));
        Ok(entries)
    }

    /// Removes a folder; `false` if it is in use.
    pub(super) fn remove_kept(&self, entry: &KeptEntry, dry_run: bool) -> Result<bool, Error> {
        let lock = entry.path.with_extension("lock");
        let Some(_alone) = try_lock(&lock, Kind::Exclusive)? else {
            return Ok(false);
        };
        if !dry_run {
            remove_folder(&entry.path)?;
            for ending in ["index", "making"] {
                remove_file(&entry.path.with_extension(ending))?;
            }
            remove_file(&lock)?;
        }
        Ok(true)
    }

    /// Removes notes that nobody used for so long; gives what is gone, by kind.
    pub(super) fn prune_notes(
        &self,
        unused_for: Duration,
        dry_run: bool,
    ) -> Result<Vec<KeptEntry>, Error> {
        let mut removed = Vec::new();
        for kind in NOTES {
            let mut notes = self.notes(kind)?;
            notes.retain(|note| note.age >= unused_for);
            let youngest = notes.iter().map(|note| note.age).min();
            let (Some(youngest), Some(path)) = (youngest, self.kept_in(kind)) else {
                continue;
            };
            if !dry_run {
                notes.iter().try_for_each(|note| remove_file(&note.path))?;
            }
            removed.push(KeptEntry {
                kind,
                digest: None,
                number: notes.len() as u64,
                size: notes.iter().map(|note| note.size).sum(),
                unused_seconds: youngest.as_secs(),
                path,
            });
        }
        Ok(removed)
    }

    /// Removes folders that were never finished, or not removed to the end, and have not changed for
    /// so long.
    pub(super) fn prune_unfinished_kept(
        &self,
        abandoned: Duration,
        dry_run: bool,
    ) -> Result<Vec<(PathBuf, u64)>, Error> {
        let mut removed = Vec::new();
        for kind in FOLDERS {
            for path in self.kept_paths(kind)? {
                let name = name_of(&path);
                let unfinished = name.starts_with(REMOVING)
                    || name.starts_with(SAVING)
                    || name.ends_with(UNPACKING);
                if !unfinished || !path.is_dir() || age(&path)? < abandoned {
                    continue;
                }
                let _alone = match unpacking_of(&path) {
                    None => None,
                    Some(making) => match try_lock(&making, Kind::Exclusive)? {
                        None => continue,
                        alone => alone,
                    },
                };
                let size = size_below(&path).map_err(Error::local("look at", &path))?;
                if !dry_run {
                    remove_all(&path)?;
                    // Who waits for it finds that it is another file.
                    unpacking_of(&path).map_or(Ok(()), |making| remove_file(&making))?;
                }
                removed.push((path, size));
            }
        }
        Ok(removed)
    }

    fn notes(&self, kind: KeptKind) -> Result<Vec<Note>, Error> {
        let mut notes = Vec::new();
        for path in self.kept_paths(kind)? {
            if path.extension().is_some_and(|ending| ending == "json")
                && let Some(size) = super::size_of(&path)?
            {
                let age = age(&path)?;
                notes.push(Note { path, size, age });
            }
        }
        Ok(notes)
    }

    fn kept_in(&self, kind: KeptKind) -> Option<PathBuf> {
        Some(self.home.as_ref()?.join(kind.as_str()))
    }

    /// All that lies in the folder of a kind.
    fn kept_paths(&self, kind: KeptKind) -> Result<Vec<PathBuf>, Error> {
        match self.kept_in(kind) {
            Some(folder) => super::paths_in(&folder),
            None => Ok(Vec::new()),
        }
    }
}

/// Holds a folder of what is kept, which need not be there yet, against removal, and notes its use. It
/// is held until the file is dropped.
pub async fn hold_kept(folder: &Path) -> Result<File, Error> {
    let beside = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(beside).map_err(Error::cache_folder(beside))?;
    let path = folder.with_extension("lock");
    // Whoever removes it does so in moments.
    let held = lock(&path, Kind::Shared, &CancellationToken::new()).await?;
    held.set_modified(SystemTime::now())
        .map_err(Error::local("note the use of", folder))?;
    Ok(held)
}

struct Note {
    path: PathBuf,
    size: u64,
    age: Duration,
}

/// The lock of whoever unpacks in this folder, if it is one that is unpacked in.
fn unpacking_of(path: &Path) -> Option<PathBuf> {
    let name = name_of(path).into_owned();
    let hex = name.strip_prefix('.')?.strip_suffix(UNPACKING)?;
    Some(path.with_file_name(format!("{hex}.making")))
}

/// Removes a folder, which is gone at once: what a kill leaves of it has another name.
pub(super) fn remove_folder(path: &Path) -> Result<(), Error> {
    let failed = || Error::local("remove", path);
    let beside = path.parent().unwrap_or(Path::new("."));
    let leaving = tempfile::Builder::new()
        .prefix(REMOVING)
        .tempdir_in(beside)
        .map_err(failed())?;
    match fs::rename(path, leaving.path().join("folder")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed()(error)),
        Ok(()) => leaving.close().map_err(failed()),
    }
}

fn remove_all(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::local("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Bytes of all files below a folder, as far as they do not go meanwhile.
fn size_below(folder: &Path) -> io::Result<u64> {
    let gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let entries = match fs::read_dir(folder) {
        Err(error) if gone(&error) => return Ok(0),
        entries => entries?,
    };
    let mut size = 0;
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_dir() => size += size_below(&entry.path())?,
            Ok(metadata) => size += metadata.len(),
        }
    }
    Ok(size)
}

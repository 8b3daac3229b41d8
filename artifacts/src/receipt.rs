//! Receipts: the digests of files that have not changed since they were hashed.
//!
//! `<folder>/<SHA-256 of the absolute path>.json` says what the file was like when it was hashed:
//! device, inode, size, mtime, ctime, and the digest. A program can set a file's mtime, but not its
//! ctime, which becomes the time of the last change to it or of it: a file for which all five are
//! the same has the same bytes. That holds where
//!
//! - the change came in a later tick of the clock than the one before. So hashing begins when the
//!   clock has gone on: a new file beside the receipts says so, if it is later than the last change.
//!   On another file system than theirs, whose clock cannot be asked, there is a receipt only for a
//!   file that is two seconds old, longer than a tick of any file system;
//! - ctime is the time of this machine. A clock that is set back, and a network file system with a
//!   clock of its own or with attributes that are cached for long, can hide a change;
//! - it is told of every change. Before it is hashed, the file is brought to the disk: a later write
//!   through a mapping is a change that ctime shows, and a crash leaves what was hashed. A disk that
//!   loses bits tells nobody.
//!
//! [`Receipts::paranoid`] is for where that is not enough. A receipt is as trustworthy as the folder
//! it is in, which is for its owner alone; in one that others may write to, receipts are not used.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mlwm_spec::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::artifact::Artifact;
use crate::error::{Error, io_error};
use crate::hashing::digest_of;
use crate::source::FileSource;

#[cfg(test)]
mod tests;

/// Where the clock cannot be asked: a file that changed later than this before it was hashed gets no
/// receipt, in nanoseconds.
const SETTLED: i64 = 2_000_000_000;

/// How often, and after what time, the clock of a file system is asked whether it has gone on: longer
/// than a tick of any usual one, together.
const LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// A receipt that is used says so once a day: what nobody uses can be removed.
const NOTED_AS_USED: Duration = Duration::from_secs(24 * 3600);

/// How often a file is hashed that changes meanwhile; a new name or mode for it is a change, too.
const ATTEMPTS: usize = 3;

/// The digests of files on this machine, each hashed when it is first asked for and again when it
/// has changed. Several processes share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts(Option<PathBuf>);

/// What a file is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    device: u64,
    inode: u64,
    pub(crate) size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// What a file was like when it was hashed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    #[serde(flatten)]
    pub(crate) state: State,
    pub(crate) digest: Digest,
}

impl Receipts {
    /// In this folder, which is made, for its owner alone, when it is needed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(Some(folder.into()))
    }

    /// None: every file is hashed whenever its digest is asked for.
    pub fn paranoid() -> Self {
        Self(None)
    }

    /// SHA-256 of the file at `path`. Fails for what is no regular file, and for a file that changes
    /// again and again while it is hashed.
    pub fn digest(&self, path: &Path) -> Result<Digest, Error> {
        let file = File::open(path).map_err(io_error("open", path))?;
        if !file.metadata().map_err(io_error("open", path))?.is_file() {
            return Err(io_error("hash", path)(io::Error::other(
                "it is not a regular file; give one",
            )));
        }
        self.digest_of(&file, path).map_err(io_error("hash", path))
    }

    /// [`Artifact::open`] and [`Artifact::digest`] at once: the artifact knows its digest.
    pub fn open(&self, path: &Path) -> Result<Artifact, Error> {
        let source = Arc::new(FileSource::open(path)?);
        let artifact = Artifact::from_source(Arc::clone(&source) as _, path)?;
        let digest = self.digest_of(source.file(), path);
        artifact.remember(digest.map_err(io_error("hash", path))?);
        Ok(artifact)
    }

    /// Notes the digest of a file that the caller has just written and found right, and that nobody
    /// else writes to: it need not be read again. Without the receipt, it is.
    pub fn note(&self, path: &Path, digest: Digest) {
        let noted = || {
            let Some(folder) = &self.0 else { return Ok(()) };
            let file = File::open(path)?;
            file.sync_all()?;
            let state = State::of(&file.metadata()?);
            match self.has_settled([&state]) && State::of(&fs::metadata(path)?) == state {
                true => write(folder, &note(folder, path)?, &Receipt { state, digest }),
                false => Ok(()),
            }
        };
        let _: io::Result<()> = noted();
    }

    fn digest_of(&self, file: &File, path: &Path) -> io::Result<Digest> {
        let Some(folder) = &self.0 else {
            return Ok(hash_unchanged(file, hash)?.digest);
        };
        let note = note(folder, path)?;
        let state = State::of(&file.metadata()?);
        if let Some(receipt) = read::<Receipt>(folder, &note)
            && receipt.state == state
        {
            return Ok(receipt.digest);
        }
        let has_settled = file.sync_all().is_ok() && self.has_settled([&state]);
        let receipt = hash_unchanged(file, hash)?;
        if has_settled && receipt.state == state {
            // Without it, the file is hashed again the next time.
            let _ = write(folder, &note, &receipt);
        }
        Ok(receipt.digest)
    }

    /// What is noted for the folder at `path`.
    pub(crate) fn of_folder<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        let folder = self.0.as_ref()?;
        read(folder, &note(folder, path).ok()?)
    }

    /// Notes something for the folder at `path`, or does not.
    pub(crate) fn note_folder(&self, path: &Path, what: &impl Serialize) {
        if let Some(folder) = &self.0
            && let Ok(note) = note(folder, path)
        {
            // Without it, the files are hashed again the next time.
            let _ = write(folder, &note, what);
        }
    }

    /// Whether any change from now on gives the files other ctimes than these. Waits a moment for
    /// that, where it can be known.
    pub(crate) fn has_settled<'a>(&self, states: impl IntoIterator<Item = &'a State>) -> bool {
        let states: Vec<&State> = states.into_iter().collect();
        let (Some(folder), Some(newest)) =
            (&self.0, states.iter().map(|state| state.ctime_ns).max())
        else {
            return false;
        };
        let mut now = None;
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(BETWEEN_LOOKS);
            }
            now = clock(folder).ok();
            let Some((device, time)) = now else { break };
            let asked = states.iter().all(|state| state.device == device);
            if !asked || time > newest {
                break;
            }
        }
        match now {
            Some((device, time)) if states.iter().all(|state| state.device == device) => {
                time > newest
            }
            _ => now_ns().saturating_sub(newest) >= SETTLED,
        }
    }
}

/// The device of a folder, which is made if need be, and what time it is there: that of a change now.
fn clock(folder: &Path) -> io::Result<(u64, i64)> {
    make(folder)?;
    let now = State::of(&tempfile::tempfile_in(folder)?.metadata()?);
    Ok((now.device, now.ctime_ns))
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(0))
}

impl State {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Where the receipt of a file is.
fn note(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let name = Digest::of(path.as_os_str().as_bytes()).hex();
    Ok(folder.join(format!("{name}.json")))
}

/// The receipt that is there; none if it cannot be read or understood.
fn read<T: DeserializeOwned>(folder: &Path, note: &Path) -> Option<T> {
    let receipt = fs::read(note).ok()?;
    is_private(folder).then_some(())?;
    let receipt = serde_json::from_slice(&receipt).ok()?;
    let _ = note_use(note);
    Some(receipt)
}

fn note_use(note: &Path) -> io::Result<()> {
    let last = fs::metadata(note)?.modified()?;
    match last.elapsed().is_ok_and(|age| age >= NOTED_AS_USED) {
        true => File::options()
            .write(true)
            .open(note)?
            .set_modified(SystemTime::now()),
        false => Ok(()),
    }
}

/// Whether nobody but the owner may write to the folder.
fn is_private(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o022 == 0)
}

fn write(folder: &Path, note: &Path, receipt: &impl Serialize) -> io::Result<()> {
    make(folder)?;
    // Not synchronised: one that a crash spoils is not understood, and the file hashed again.
    let mut file = NamedTempFile::new_in(folder)?;
    let text = serde_json::to_vec(receipt)?;
    io::Write::write_all(&mut file, &text)?;
    file.persist(note)?;
    Ok(())
}

/// Makes the folder of the receipts, for its owner alone.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The digest of a file that was the same before and after it was hashed.
pub(crate) fn hash_unchanged(
    file: &File,
    hash: impl Fn(&File) -> io::Result<Digest>,
) -> io::Result<Receipt> {
    for _ in 0..ATTEMPTS {
        let state = State::of(&file.metadata()?);
        let digest = hash(file)?;
        if State::of(&file.metadata()?) == state {
            return Ok(Receipt { state, digest });
        }
    }
    Err(io::Error::other(
        "it changed while it was read; wait until it is written completely, then run the same command again",
    ))
}

/// SHA-256 of a file.
pub(crate) fn hash(mut file: &File) -> io::Result<Digest> {
    file.rewind()?;
    digest_of(file)
}

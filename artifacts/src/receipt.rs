//! Receipts: the digests of files that have not changed since they were hashed.
//!
//! `<folder>/<SHA-256 of the absolute path>.json` says what the file was like when it was hashed:
//! device, inode, size, mtime, ctime, and the digest. A program can set a file's mtime, but not its
//! ctime, which becomes the time of the last change to it or of it: a file for which all five are
//! the same has the same bytes. That holds where
//!
//! - the change came in a later tick of the clock than the one before. So there is a receipt only
//!   for a file that was two seconds old when hashing began, longer than a tick of any file system;
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
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use mlwm_spec::Digest;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::artifact::Artifact;
use crate::error::{Error, io_error};
use crate::hashing::{Lane, Pool};
use crate::source::ReadAt;

#[cfg(test)]
mod tests;

/// A file that changed later than this before it was hashed gets no receipt, in nanoseconds.
const SETTLED: i64 = 2_000_000_000;

/// How often a file is hashed that changes meanwhile; a new name or mode for it is a change, too.
const ATTEMPTS: usize = 3;

/// The digests of files on this machine, each hashed when it is first asked for and again when it
/// has changed. Several processes share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts(Option<PathBuf>);

/// What a file is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// What a file was like when it was hashed.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    #[serde(flatten)]
    state: State,
    digest: Digest,
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
        let file = File::open(path).map_err(io_error("open", path))?;
        let metadata = file.metadata().map_err(io_error("open", path))?;
        if !metadata.is_file() {
            // It says what is wrong.
            return Artifact::open(path);
        }
        let opened = Arc::new(Opened {
            file,
            size: metadata.len(),
        });
        let artifact = Artifact::from_source(Arc::clone(&opened) as _, path)?;
        let digest = self.digest_of(&opened.file, path);
        artifact.remember(digest.map_err(io_error("hash", path))?);
        Ok(artifact)
    }

    fn digest_of(&self, file: &File, path: &Path) -> io::Result<Digest> {
        let Some(folder) = &self.0 else {
            return Ok(hash_unchanged(file, hash)?.digest);
        };
        let note = note(folder, path)?;
        let state = State::of(&file.metadata()?);
        if let Some(receipt) = read(folder, &note)
            && receipt.state == state
        {
            return Ok(receipt.digest);
        }
        let is_settled = state.is_settled() && file.sync_all().is_ok();
        let receipt = hash_unchanged(file, hash)?;
        if is_settled && receipt.state == state {
            // Without it, the file is hashed again the next time.
            let _ = write(folder, &note, &receipt);
        }
        Ok(receipt.digest)
    }
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change from now on gives another ctime.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(0));
        now.saturating_sub(self.ctime_ns) >= SETTLED
    }
}

/// Where the receipt of a file is.
fn note(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let name = Digest::of(path.as_os_str().as_bytes()).hex();
    Ok(folder.join(format!("{name}.json")))
}

/// The receipt that is there; none if it cannot be read or understood.
fn read(folder: &Path, note: &Path) -> Option<Receipt> {
    let receipt = fs::read(note).ok()?;
    is_private(folder).then_some(())?;
    serde_json::from_slice(&receipt).ok()
}

/// Whether nobody but the owner may write to the folder.
fn is_private(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o022 == 0)
}

fn write(folder: &Path, note: &Path, receipt: &Receipt) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Not synchronised: one that a crash spoils is not understood, and the file hashed again.
    let file = NamedTempFile::new_in(folder)?;
    serde_json::to_writer(file.as_file(), receipt)?;
    file.persist(note)?;
    Ok(())
}

/// The digest of a file that was the same before and after it was hashed.
fn hash_unchanged(file: &File, hash: impl Fn(&File) -> io::Result<Digest>) -> io::Result<Receipt> {
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

/// SHA-256 of a file, of which the next piece is read while one is hashed.
fn hash(mut file: &File) -> io::Result<Digest> {
    file.rewind()?;
    thread::scope(|scope| {
        let lane = Lane::spawn(scope);
        let mut pool = Pool::new();
        loop {
            let piece = pool.read(&mut file, u64::MAX)?;
            if piece.is_empty() {
                return lane.digest();
            }
            lane.push(&piece);
        }
    })
}

/// An open file, of the size that it had when it was opened.
struct Opened {
    file: File,
    size: u64,
}

impl ReadAt for Opened {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

//! Bringing an object to a file, continued where it was interrupted.
//!
//! What arrives is kept beside the destination in `.<file>.<16 hex digits>.mlwm-part`, named by the
//! digest that is expected and locked against other processes. A later attempt hashes it and asks
//! for the rest only. The destination's name appears when the digest of all bytes is right, and
//! they are on the disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::retry::{Failure, Patience};
use super::stall::StallWatch;
use super::{Arriving, Expected, RangeSource};
use crate::progress::Counter;
use crate::store::Options;
use crate::{Error, Phase, Progress, local, pool, tree};

/// Pieces of an answer that may wait to be written. The client gives at most some 100 KiB at once.
const WAITING: usize = 8;

/// Brings the object to `destination`, which appears complete or not at all, in place of whatever
/// file is there.
pub(crate) async fn download_from(
    source: &dyn RangeSource,
    expected: &Expected,
    destination: &Path,
    options: &Options,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let name = source.name();
    let counter = Counter::start(progress, Phase::Downloading, [expected.size].into_iter());
    let part = {
        let (name, expected) = (name.clone(), *expected);
        let (destination, counter, cancel) =
            (destination.to_owned(), counter.clone(), cancel.clone());
        pool::blocking(&name.clone(), move || {
            Part::open(&name, &destination, &expected, &counter, &cancel)
        })
        .await?
    };
    let start = part.length;
    let (sink, arriving) = mpsc::channel(WAITING);
    let written = {
        let counter = counter.clone();
        tokio::task::spawn_blocking(move || part.write(arriving, &counter))
    };
    let limits = Limits::of(options);
    let read = read_from(source, start, expected.size, limits, cancel, sink).await;
    let written = written.await.map_err(|_| Error::Broken {
        uri: name.clone(),
        reason: "the thread that writes the file ended".to_owned(),
    })?;
    // Where the disk failed, that is why the reading ended.
    let part = written?;
    if let Err(error) = read {
        // What has come of another object is of no use, and neither is an empty file.
        if matches!(error, Error::NotExpected { .. }) || part.length == 0 {
            local::remove(&part.path)?;
        }
        return Err(error);
    }
    let digest = expected.digest;
    pool::blocking(&name.clone(), move || part.finish(&name, digest)).await?;
    counter.object();
    Ok(())
}

/// How long a transfer waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) stall: Duration,
    pub(crate) retry_for: Duration,
}

impl Limits {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            stall: options.stall,
            retry_for: options.retry_for,
        }
    }
}

/// Sends the bytes of an object of `size` bytes from byte `start` on to `sink`, asking again from
/// where it broke. Ends early if nobody listens any more.
pub(crate) async fn read_from(
    source: &dyn RangeSource,
    start: u64,
    size: u64,
    limits: Limits,
    cancel: &CancellationToken,
    sink: mpsc::Sender<Bytes>,
) -> Result<(), Error> {
    let name = source.name();
    let mut reading = Reading {
        name: &name,
        next: start,
        size,
        stall: limits.stall,
        patience: Patience::new(limits.retry_for),
        sink,
    };
    let work = async {
        while reading.next < size && !reading.sink.is_closed() {
            if let Err(failure) = reading.attempt(source).await {
                reading.patience.after(failure).await?;
            }
        }
        Ok(())
    };
    pool::unless_cancelled(&name, cancel, work).await
}

/// An object on its way.
struct Reading<'a> {
    name: &'a str,
    next: u64,
    size: u64,
    stall: Duration,
    patience: Patience,
    sink: mpsc::Sender<Bytes>,
}

impl Reading<'_> {
    async fn attempt(&mut self, source: &dyn RangeSource) -> Result<(), Failure> {
        let watch = StallWatch::new(self.stall);
        let answer = watch.guard(source.open_at(self.next, self.size)).await;
        let Arriving {
            start,
            object_size,
            mut bytes,
        } = answer.map_err(|_| self.silent())??;
        if object_size.is_some_and(|found| found != self.size) {
            let found = object_size.unwrap_or_default();
            let reason = format!("it has {found} bytes instead of {}", self.size);
            return Err(self.other(reason));
        }
        if start > self.next {
            return Err(self.other("the server skips some of it".to_owned()));
        }
        let mut over = self.next - start;
        while self.next < self.size {
            watch.beat();
            let piece = watch.guard(bytes.next()).await;
            let Some(piece) = piece.map_err(|_| self.silent())? else {
                return Err(self.cut());
            };
            let mut piece = piece?;
            let unwanted = usize::try_from(over).unwrap_or(usize::MAX).min(piece.len());
            drop(piece.split_to(unwanted));
            over -= unwanted as u64;
            if piece.is_empty() {
                continue;
            }
            self.next += piece.len() as u64;
            if self.next > self.size {
                return Err(self.other(format!("it has more than {} bytes", self.size)));
            }
            self.patience.progress();
            if self.sink.send(piece).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn silent(&self) -> Failure {
        Failure::transient(Error::TimedOut {
            uri: self.name.to_owned(),
            endpoint: "the server".to_owned(),
        })
    }

    fn cut(&self) -> Failure {
        Failure::transient(Error::Service {
            uri: self.name.to_owned(),
            endpoint: "the server".to_owned(),
            reason: "its answer ended early".to_owned(),
        })
    }

    fn other(&self, reason: String) -> Failure {
        Failure::permanent(Error::NotExpected {
            uri: self.name.to_owned(),
            reason,
        })
    }
}

/// What has arrived so far.
struct Part {
    destination: PathBuf,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
}

impl Part {
    /// Takes what an earlier attempt has left, and hashes it.
    fn open(
        name: &str,
        destination: &Path,
        expected: &Expected,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let destination =
            std::path::absolute(destination).map_err(Error::local("resolve", destination))?;
        local::make_folder_of(&destination)?;
        let path = part_name(&destination, &expected.digest);
        let file = open_locked(name, &path)?;
        let found = file.metadata().map_err(Error::local("look at", &path))?;
        let mut part = Self {
            destination,
            path,
            file,
            hasher: Sha256::new(),
            length: 0,
        };
        if found.len() > expected.size {
            part.truncate()?;
        } else {
            part.hash(name, counter, cancel)?;
        }
        tree::check_space(&part.destination, [expected.size - part.length].into_iter())?;
        Ok(part)
    }

    fn truncate(&self) -> Result<(), Error> {
        self.file
            .set_len(0)
            .map_err(Error::local("write", &self.path))
    }

    fn hash(
        &mut self,
        name: &str,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let mut piece = vec![0; 1 << 20];
        loop {
            if cancel.is_cancelled() {
                return Err(pool::interrupted(name));
            }
            let read = self.file.read(&mut piece);
            let count = read.map_err(Error::local("read", &self.path))?;
            if count == 0 {
                return Ok(());
            }
            self.hasher.update(&piece[..count]);
            self.length += count as u64;
            counter.kept(count as u64);
        }
    }

    /// Writes and hashes what comes, until nothing does.
    fn write(
        mut self,
        mut arriving: mpsc::Receiver<Bytes>,
        counter: &Counter,
    ) -> Result<Self, Error> {
        while let Some(piece) = arriving.blocking_recv() {
            self.file
                .write_all(&piece)
                .map_err(Error::local("write", &self.path))?;
            self.hasher.update(&piece);
            self.length += piece.len() as u64;
            counter.bytes(piece.len() as u64);
        }
        Ok(self)
    }

    /// Gives it the destination's name, if it is what was expected.
    fn finish(self, name: &str, expected: Digest) -> Result<(), Error> {
        let found = Digest::from_hasher(self.hasher);
        if found != expected {
            local::remove(&self.path)?;
            return Err(Error::NotExpected {
                uri: name.to_owned(),
                reason: format!("its digest is {found} instead of {expected}"),
            });
        }
        self.file
            .sync_all()
            .map_err(Error::local("write", &self.path))?;
        std::fs::rename(&self.path, &self.destination)
            .map_err(Error::local("rename to", &self.destination))?;
        local::sync_folder_of(&self.destination)
    }
}

fn part_name(destination: &Path, digest: &Digest) -> PathBuf {
    let name = destination
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    // Names may have 255 bytes at most, and a character up to 4.
    let name: String = name.chars().take(50).collect();
    destination.with_file_name(format!(".{name}.{}.mlwm-part", &digest.hex()[..16]))
}

/// Opens a file to read and append, held against other processes.
pub(crate) fn open_locked(name: &str, path: &Path) -> Result<File, Error> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(Error::local("create", path))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::TransferBusy {
                uri: name.to_owned(),
            },
            TryLockError::Error(error) => Error::local("lock", path)(error),
        })?;
        // Whoever held it before may have given it another name since it was opened here.
        let held = file.metadata().map_err(Error::local("look at", path))?;
        if std::fs::metadata(path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()))
        {
            return Ok(file);
        }
    }
}

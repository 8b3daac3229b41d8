//! A zip in a registry that is read in parts, without fetching it (`docs/registries.md` §8).

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};

use mlwm_artifacts::ReadAt;
use mlwm_storage::ByteRange;
use tokio::runtime::Handle;

use crate::registry::Backend;
use crate::{Error, Publication};

/// The end of a zip, which holds its directory, `artifact.yaml`, and usually all that is small, is
/// fetched at once: a request costs more than a megabyte does.
const TAIL: u64 = 1 << 20;

/// The least that is fetched elsewhere.
const SHORTEST: u64 = 256 << 10;

/// The most that is fetched at once, when a reader goes on and on.
const LONGEST: u64 = 8 << 20;

/// A zip in a registry. Reading blocks, and belongs on a thread for blocking work.
pub(crate) struct Remote {
    backend: Backend,
    publication: Publication,
    runtime: Handle,
    held: Mutex<Held>,
}

/// What was fetched and may be asked for again.
#[derive(Default)]
struct Held {
    tail: Option<Block>,
    /// What was fetched last outside the tail.
    block: Option<Block>,
}

struct Block {
    start: u64,
    bytes: Vec<u8>,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Copies what it has from `offset` on; 0 if that is nothing.
    fn copy(&self, buffer: &mut [u8], offset: u64) -> usize {
        let held = offset
            .checked_sub(self.start)
            .and_then(|skip| self.bytes.get(usize::try_from(skip).ok()?..))
            .unwrap_or_default();
        let count = held.len().min(buffer.len());
        buffer[..count].copy_from_slice(&held[..count]);
        count
    }
}

impl Remote {
    /// Must be called inside the runtime that the requests are to be made on.
    pub(crate) fn new(backend: Backend, publication: Publication) -> Self {
        Self {
            backend,
            publication,
            runtime: Handle::current(),
            held: Mutex::default(),
        }
    }

    fn fetch(&self, start: u64, length: u64) -> io::Result<Block> {
        let (backend, publication) = (self.backend.clone(), self.publication.clone());
        let (answer, wait) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let range = ByteRange::From { start, length };
            // The reader may have been dropped.
            let _ = answer.send(backend.range(&publication, range).await);
        });
        let bytes = wait
            .recv()
            .map_err(|_| io::Error::other("the program is ending"))?
            .map_err(io::Error::other)?;
        if bytes.len() as u64 != length {
            return Err(io::Error::other(Error::Damaged {
                publication: format!("{}:{}", self.publication.name, self.publication.tag),
                why: format!("its zip has not {} bytes", self.publication.size),
            }));
        }
        Ok(Block { start, bytes })
    }
}

impl ReadAt for Remote {
    fn size(&self) -> u64 {
        self.publication.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let size = self.publication.size;
        if buffer.is_empty() || offset >= size {
            return Ok(0);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { tail, block } = &mut *held;
        for known in [&*tail, &*block].into_iter().flatten() {
            let count = known.copy(buffer, offset);
            if count > 0 {
                return Ok(count);
            }
        }
        let tail_start = size.saturating_sub(TAIL);
        let (kept, start, length) = if offset >= tail_start {
            (tail, tail_start, size - tail_start)
        } else {
            // Who reads on where the last block ended gets twice as much.
            let ahead = match block {
                Some(last) if last.end() == offset => last.bytes.len() as u64 * 2,
                _ => SHORTEST,
            };
            let length = ahead.max(buffer.len() as u64).clamp(SHORTEST, LONGEST);
            (block, offset, length.min(tail_start - offset))
        };
        let fetched = kept.insert(self.fetch(start, length)?);
        Ok(fetched.copy(buffer, offset))
    }
}

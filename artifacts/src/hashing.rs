//! Hashing a stream while it is read or written: the whole of it, and the contents in it.
//!
//! SHA-256 is what takes longest, so each of the two runs on a thread of its own, over buffers that
//! are shared and used again. The number of buffers bounds how far one side runs ahead.

use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};

/// Bytes of a buffer, and how many there are: memory in use, whatever the size of the artifact.
const BUFFER: usize = 1 << 20;
const BUFFERS: usize = 8;

/// Buffers start at a page: what is read into them can be written to a disk directly.
const PAGE: usize = crate::file::BLOCK;

/// SHA-256 of all that a reader gives, of which the next piece is read while one is hashed.
pub fn digest_of(mut source: impl Read) -> io::Result<Digest> {
    let mut pool = Pool::new();
    let mut piece = pool.read(&mut source, u64::MAX)?;
    if piece.len() < BUFFER {
        return Ok(Digest::of(&**piece));
    }
    thread::scope(|scope| {
        let lane = Lane::spawn(scope);
        while !piece.is_empty() {
            lane.push(&piece);
            piece = pool.read(&mut source, u64::MAX)?;
        }
        lane.digest()
    })
}

/// A piece of a stream. Its buffer goes back to the pool when the last user drops it.
pub(crate) struct Piece {
    bytes: Vec<u8>,
    filled: Range<usize>,
    home: Option<Sender<Vec<u8>>>,
}

impl Piece {
    /// A piece that comes from no pool.
    pub(crate) fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            filled: 0..bytes.len(),
            bytes,
            home: None,
        })
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.filled.clone()]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // Without a pool to go back to, the buffer is freed.
            let _ = home.send(std::mem::take(&mut self.bytes));
        }
    }
}

/// Buffers that are used again.
pub(crate) struct Pool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    made: usize,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let (home, free) = channel();
        Self {
            home,
            free,
            made: 0,
        }
    }

    /// The next piece of at most `limit` bytes that a reader gives; shorter only at its end.
    pub(crate) fn read(&mut self, source: &mut dyn Read, limit: u64) -> io::Result<Arc<Piece>> {
        let mut bytes = self.buffer()?;
        let wanted = usize::try_from(limit).map_or(BUFFER, |limit| limit.min(BUFFER));
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        let filled = read_full(source, &mut bytes[start..start + wanted])?;
        Ok(Arc::new(Piece {
            bytes,
            filled: start..start + filled,
            home: Some(self.home.clone()),
        }))
    }

    fn buffer(&mut self) -> io::Result<Vec<u8>> {
        if let Ok(free) = self.free.try_recv() {
            return Ok(free);
        }
        if self.made < BUFFERS {
            self.made += 1;
            return Ok(vec![0; BUFFER + PAGE]);
        }
        self.free.recv().map_err(io::Error::other)
    }
}

/// Fills the buffer as far as the source goes.
fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A thread that hashes one stream after the other.
pub(crate) struct Lane<'scope> {
    work: Sender<Work>,
    thread: ScopedJoinHandle<'scope, Vec<Digest>>,
}

enum Work {
    Piece(Arc<Piece>),
    /// The stream is at its end.
    End,
}

impl<'scope> Lane<'scope> {
    pub(crate) fn spawn<'env>(scope: &'scope Scope<'scope, 'env>) -> Self {
        let (work, todo) = channel();
        let thread = scope.spawn(move || {
            let mut digests = Vec::new();
            let mut hasher = Sha256::new();
            for work in todo {
                match work {
                    Work::Piece(piece) => hasher.update(&**piece),
                    Work::End => digests.push(Digest::from_hasher(std::mem::take(&mut hasher))),
                }
            }
            digests
        });
        Self { work, thread }
    }

    /// Hashes a piece of the stream under way.
    pub(crate) fn push(&self, piece: &Arc<Piece>) {
        // A thread that is gone is noticed when it is joined.
        let _ = self.work.send(Work::Piece(Arc::clone(piece)));
    }

    /// Ends the stream under way.
    pub(crate) fn end(&self) {
        let _ = self.work.send(Work::End);
    }

    /// The digests of all streams, in order.
    pub(crate) fn digests(self) -> io::Result<Vec<Digest>> {
        drop(self.work);
        self.thread
            .join()
            .map_err(|_| io::Error::other("the hashing thread failed"))
    }

    /// The digest of the only stream, which ends here.
    pub(crate) fn digest(self) -> io::Result<Digest> {
        self.end();
        let digests = self.digests()?;
        let digest = digests.into_iter().next();
        digest.ok_or_else(|| io::Error::other("the hashing thread gave no digest"))
    }
}

//! Content that is read ahead on a thread, into buffers that are used again, and hashed.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc as buffers;

use bytes::Bytes;
use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::{Content, Error};

/// A piece of a content.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Where it begins.
    pub(crate) offset: u64,
    /// Its bytes. Their buffer is used again when the last reference is dropped.
    pub(crate) bytes: Bytes,
}

/// The pieces of a content, in order, from its first byte.
pub(crate) struct Feed {
    place: String,
    pieces: mpsc::Receiver<Piece>,
    /// What `skip` left of a piece.
    rest: Option<Piece>,
    outcome: oneshot::Receiver<Result<Digest, Error>>,
}

impl Feed {
    /// Reads `content` in pieces of `piece` bytes (the last may be shorter) into at most `buffers`
    /// buffers: whoever holds that many pieces gets no more. `place` is where it is brought.
    pub(crate) fn start(
        place: &str,
        content: Arc<dyn Content>,
        piece: usize,
        buffers: usize,
    ) -> Self {
        let (send, pieces) = mpsc::channel(buffers.max(1));
        let (end, outcome) = oneshot::channel();
        let job = Job {
            place: place.to_owned(),
            piece: piece.max(1),
            buffers: buffers.max(1),
            send,
        };
        std::thread::spawn(move || {
            // Nobody may be left to hear it.
            let _ = end.send(job.run(content.as_ref()));
        });
        Self {
            place: place.to_owned(),
            pieces,
            rest: None,
            outcome,
        }
    }

    /// Passes over everything before byte `offset`, which is only hashed.
    pub(crate) async fn skip(&mut self, offset: u64) -> Result<(), Error> {
        while let Some(mut piece) = self.next().await? {
            let end = piece.offset + piece.bytes.len() as u64;
            if end <= offset {
                continue;
            }
            let over = offset.saturating_sub(piece.offset);
            piece.offset += over;
            drop(
                piece
                    .bytes
                    .split_to(usize::try_from(over).unwrap_or_default()),
            );
            self.rest = Some(piece);
            break;
        }
        Ok(())
    }

    /// The next piece, `None` after the last. The content's error if it cannot be read, or is not
    /// as long as it said.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, Error> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        if let Some(piece) = self.pieces.recv().await {
            return Ok(Some(piece));
        }
        // The thread has ended: well, if it has a digest to give.
        match self.outcome.try_recv() {
            Ok(Err(error)) => Err(error),
            Ok(Ok(digest)) => {
                let (end, outcome) = oneshot::channel();
                let _ = end.send(Ok(digest));
                self.outcome = outcome;
                Ok(None)
            }
            Err(oneshot::error::TryRecvError::Empty) => Ok(None),
            Err(oneshot::error::TryRecvError::Closed) => Err(self.broken()),
        }
    }

    /// Reads what is left, and gives the digest of the whole content.
    pub(crate) async fn finish(mut self) -> Result<Digest, Error> {
        while self.next().await?.is_some() {}
        let broken = self.broken();
        self.outcome.await.unwrap_or(Err(broken))
    }

    fn broken(&self) -> Error {
        Error::Broken {
            uri: self.place.clone(),
            reason: "the thread that reads the content ended".to_owned(),
        }
    }
}

/// What the reading thread does.
struct Job {
    place: String,
    piece: usize,
    buffers: usize,
    send: mpsc::Sender<Piece>,
}

impl Job {
    fn run(self, content: &dyn Content) -> Result<Digest, Error> {
        let failed = |source| Error::Content {
            uri: self.place.clone(),
            source,
        };
        let (home, idle) = buffers::channel();
        for _ in 0..self.buffers {
            // An empty buffer costs nothing until it is filled.
            let _ = home.send(Vec::new());
        }
        let mut reader = content.open().map_err(failed)?;
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < content.size() {
            let Ok(mut buffer) = idle.recv() else { break };
            let left = usize::try_from(content.size() - offset).unwrap_or(usize::MAX);
            buffer.resize(self.piece.min(left), 0);
            reader.read_exact(&mut buffer).map_err(failed)?;
            hasher.update(&buffer);
            let start = offset;
            offset += buffer.len() as u64;
            if offset == content.size() {
                self.check_end(reader.as_mut()).map_err(failed)?;
            }
            let bytes = Bytes::from_owner(Pooled {
                buffer,
                home: home.clone(),
            });
            let piece = Piece {
                offset: start,
                bytes,
            };
            if self.send.blocking_send(piece).is_err() {
                // Nobody wants the rest, or a digest.
                break;
            }
        }
        Ok(Digest::from_hasher(hasher))
    }

    /// Fails unless the content ends here, before its last piece is given away.
    fn check_end(&self, reader: &mut dyn Read) -> io::Result<()> {
        match reader.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("it has become longer")),
        }
    }
}

/// A buffer that goes home when its bytes are no longer needed.
struct Pooled {
    buffer: Vec<u8>,
    home: buffers::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let _ = self.home.send(std::mem::take(&mut self.buffer));
    }
}

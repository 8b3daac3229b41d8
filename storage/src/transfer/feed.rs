//! Content that is read ahead on a thread, into buffers that are used again, and hashed.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc as buffers;

use bytes::Bytes;
use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::{Content, Error, pool};

/// A piece of a content.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Where it begins.
    pub(crate) offset: u64,
    /// Its bytes. Their buffer is used again when the last reference is dropped.
    pub(crate) bytes: Bytes,
}

impl Piece {
    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// What it has from byte `offset` of the content on.
    pub(crate) fn starting_at(mut self, offset: u64) -> Self {
        let over = offset.saturating_sub(self.offset);
        let over = usize::try_from(over).unwrap_or(usize::MAX);
        drop(self.bytes.split_to(over.min(self.bytes.len())));
        self.offset = self.offset.max(offset);
        self
    }

    /// The SHA-256 of its bytes.
    pub(crate) async fn sha256(&self, place: &str) -> Result<Digest, Error> {
        let bytes = self.bytes.clone();
        pool::blocking(place, move || Ok(Digest::of(&bytes))).await
    }
}

/// The pieces of a content, in order, from its first byte.
pub(crate) struct Feed {
    place: String,
    pieces: mpsc::Receiver<Piece>,
    /// What `skip` left of a piece.
    rest: Option<Piece>,
    /// How the reading ends; `None` when that has been heard.
    outcome: Option<oneshot::Receiver<Result<Digest, Error>>>,
    /// Of the whole content, when it has been read.
    digest: Option<Digest>,
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
            outcome: Some(outcome),
            digest: None,
        }
    }

    /// Passes over everything before byte `offset`, which is only hashed.
    pub(crate) async fn skip(&mut self, offset: u64) -> Result<(), Error> {
        while let Some(piece) = self.next().await? {
            if piece.end() > offset {
                self.rest = Some(piece.starting_at(offset));
                break;
            }
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
        self.end().await.map(|_| None)
    }

    /// Reads what is left, and gives the digest of the whole content.
    pub(crate) async fn finish(mut self) -> Result<Digest, Error> {
        while self.next().await?.is_some() {}
        self.end().await
    }

    /// How the thread ended that has given its last piece: well, if it has a digest to give.
    async fn end(&mut self) -> Result<Digest, Error> {
        if let Some(digest) = self.digest {
            return Ok(digest);
        }
        let broken = self.broken();
        let Some(outcome) = &mut self.outcome else {
            return Err(broken);
        };
        let ended = outcome.await.unwrap_or(Err(broken));
        self.outcome = None;
        self.digest = ended.as_ref().ok().copied();
        ended
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
        let known = content.digest();
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < content.size() {
            let Ok(mut buffer) = idle.recv() else { break };
            let left = usize::try_from(content.size() - offset).unwrap_or(usize::MAX);
            buffer.resize(self.piece.min(left), 0);
            reader.read_exact(&mut buffer).map_err(failed)?;
            if known.is_none() {
                hasher.update(&buffer);
            }
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
        Ok(known.unwrap_or_else(|| Digest::from_hasher(hasher)))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Content that is shorter than it says.
    struct Short;

    impl Content for Short {
        fn size(&self) -> u64 {
            2
        }

        fn fingerprint(&self) -> String {
            "short".to_owned()
        }

        fn open(&self) -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new("a")))
        }
    }

    /// Content whose digest is said to be one that no content has.
    struct Known;

    impl Content for Known {
        fn size(&self) -> u64 {
            2
        }

        fn fingerprint(&self) -> String {
            "known".to_owned()
        }

        fn digest(&self) -> Option<Digest> {
            Some(Digest::of("something else"))
        }

        fn open(&self) -> io::Result<Box<dyn Read + Send>> {
            Ok(Box::new(io::Cursor::new("ab")))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_content_whose_digest_is_known_is_not_hashed() {
        let feed = Feed::start("s3://b/k", Arc::new(Known), 1, 1);
        assert_eq!(feed.finish().await.unwrap(), Digest::of("something else"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_content_that_cannot_be_read_never_looks_like_its_end() {
        for _ in 0..2000 {
            let mut feed = Feed::start("s3://b/k", Arc::new(Short), 1, 1);
            let first = feed.next().await.unwrap();
            assert_eq!(first.unwrap().bytes, "a");
            for _ in 0..2 {
                feed.next().await.unwrap_err();
            }
        }
    }
}

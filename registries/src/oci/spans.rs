//! A large zip as several blobs (`docs/registries.md` §9). A registry may lose all of a blob whose
//! upload is interrupted (docker-registry 2 does), but keeps those that have arrived.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlwm_spec::Digest;
use mlwm_storage::Content;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// A manifest lists at most so many parts of a zip.
const MOST_PARTS: u64 = 100;

/// A part of a zip that is a blob of its own: its digest and its size.
pub(crate) type Part = (Digest, u64);

/// First byte and length of the parts of a zip of `size` bytes: one, if it is not larger than
/// `part`, else as few of `part` bytes as there are, which are made larger to be at most 100.
pub(super) fn spans(size: u64, part: u64) -> Vec<(u64, u64)> {
    let part = part.max(1).max(size.div_ceil(MOST_PARTS));
    let count = size.div_ceil(part).max(1);
    (0..count)
        .map(|index| (index * part, part.min(size - index * part)))
        .collect()
}

/// Content that is read span by span, and hashed as a whole meanwhile.
#[derive(Clone)]
pub(super) struct Whole {
    content: Arc<dyn Content>,
    state: Arc<Mutex<State>>,
}

struct State {
    hasher: Sha256,
    hashed: u64,
    /// A reader that goes on at this byte.
    running: Option<(u64, Box<dyn Read + Send>)>,
}

impl Whole {
    pub(super) fn of(content: Arc<dyn Content>) -> Self {
        Self {
            content,
            state: Arc::new(Mutex::new(State {
                hasher: Sha256::new(),
                hashed: 0,
                running: None,
            })),
        }
    }

    /// The digest of the whole, once every span was read in order.
    pub(super) fn digest(&self) -> Option<Digest> {
        let state = self.state();
        let whole = state.hashed == self.content.size();
        whole.then(|| Digest::from_hasher(state.hasher.clone()))
    }

    pub(super) fn span(&self, start: u64, length: u64) -> Span {
        Span {
            whole: self.clone(),
            start,
            length,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader at byte `start`: the one that stopped there, or a new one.
    fn open_at(&self, start: u64) -> io::Result<Box<dyn Read + Send>> {
        if let Some((at, reader)) = self.state().running.take()
            && at == start
        {
            return Ok(reader);
        }
        let mut reader = self.content.open()?;
        let skipped = io::copy(&mut reader.by_ref().take(start), &mut io::sink())?;
        match skipped == start {
            true => Ok(reader),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A part of a zip as content of its own.
pub(super) struct Span {
    whole: Whole,
    start: u64,
    length: u64,
}

impl Span {
    /// Whether the digest of the whole has all of the span.
    pub(super) fn is_hashed(&self) -> bool {
        self.whole.state().hashed >= self.start + self.length
    }

    /// Reads the span for its digest.
    pub(super) fn hash(&self) -> Result<Digest, Error> {
        let read = || {
            let mut hasher = Sha256::new();
            let mut reader = self.open()?;
            let mut buffer = vec![0; 1 << 20];
            loop {
                match reader.read(&mut buffer)? {
                    0 => return Ok(Digest::from_hasher(hasher)),
                    count => hasher.update(&buffer[..count]),
                }
            }
        };
        read().map_err(Error::local("read", "the zip to be sent"))
    }
}

impl Content for Span {
    fn size(&self) -> u64 {
        self.length
    }

    fn fingerprint(&self) -> String {
        let (start, length) = (self.start, self.length);
        format!("{} {start}+{length}", self.whole.content.fingerprint())
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(SpanReader {
            reader: Some(self.whole.open_at(self.start)?),
            whole: self.whole.clone(),
            at: self.start,
            end: self.start + self.length,
        }))
    }
}

struct SpanReader {
    whole: Whole,
    /// Given back at the end of the span.
    reader: Option<Box<dyn Read + Send>>,
    at: u64,
    end: u64,
}

impl Read for SpanReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        let read = match wanted {
            0 => 0,
            _ => reader.read(&mut buffer[..wanted])?,
        };
        if wanted > 0 && read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut state = self.whole.state();
        // What is read again, after a broken connection, is hashed already.
        let known = state.hashed.checked_sub(self.at);
        if let Some(fresh) =
            known.and_then(|known| buffer[..read].get(usize::try_from(known).ok()?..))
        {
            state.hasher.update(fresh);
            state.hashed += fresh.len() as u64;
        }
        drop(state);
        self.at += read as u64;
        if self.at == self.end && !buffer.is_empty() {
            self.end_of_span()?;
        }
        Ok(read)
    }
}

impl SpanReader {
    /// Keeps the reader for the next span; at the end of the content lets it say whether all was
    /// well.
    fn end_of_span(&mut self) -> io::Result<()> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(());
        };
        if self.end < self.whole.content.size() {
            self.whole.state().running = Some((self.end, reader));
            return Ok(());
        }
        match reader.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("it is longer than it was")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlwm_storage::BytesContent;

    #[test]
    fn spans_cover_a_zip_and_are_few() {
        assert_eq!(spans(0, 10), [(0, 0)]);
        assert_eq!(spans(10, 10), [(0, 10)]);
        assert_eq!(spans(11, 10), [(0, 10), (10, 1)]);
        for size in [99u64, 1000, 12_345, 1 << 40] {
            let spans = spans(size, 7);
            assert!(spans.len() as u64 <= MOST_PARTS);
            let mut next = 0;
            for (start, length) in spans {
                assert_eq!(start, next);
                assert!(length > 0);
                next += length;
            }
            assert_eq!(next, size);
        }
    }

    #[test]
    fn spans_read_in_order_or_again_give_the_bytes_and_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|at| (at % 251) as u8).collect();
        let whole = Whole::of(Arc::new(BytesContent::new(bytes.clone())));
        let mut read = Vec::new();
        for (start, length) in spans(1000, 300) {
            let span = whole.span(start, length);
            // A connection that breaks in the middle.
            let mut half = vec![0; 50];
            span.open().unwrap().read_exact(&mut half).unwrap();
            assert_eq!(whole.digest(), None);
            let before = read.len();
            span.open().unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(half, read[before..before + 50]);
        }
        assert_eq!(read, bytes);
        assert_eq!(whole.digest(), Some(Digest::of(&bytes)));
    }
}

//! The bytes of a pickle, read once from front to back.

use std::io::{self, BufRead, BufReader, Read};

use super::PickleError;

/// Longest text that is kept: no module or name is longer.
pub(super) const MAX_TEXT: u64 = 512;

/// A reader that knows where it is and where the pickle must end.
pub(super) struct Stream<R> {
    source: BufReader<R>,
    at: u64,
    size: u64,
}

impl<R: Read> Stream<R> {
    /// Reads `size` bytes of `source`.
    pub(super) fn new(source: R, size: u64) -> Self {
        Self {
            source: BufReader::with_capacity(64 << 10, source),
            at: 0,
            size,
        }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Nothing may be left.
    pub(super) fn finish(&self) -> Result<(), PickleError> {
        if self.at < self.size {
            return Err(PickleError::Trailing { at: self.at });
        }
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        self.require(N as u64)?;
        let mut bytes = [0; N];
        self.source
            .read_exact(&mut bytes)
            .map_err(|error| self.failed(error))?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// Fails unless `length` bytes are left.
    pub(super) fn require(&self, length: u64) -> Result<(), PickleError> {
        match self.at.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(PickleError::Truncated { at: self.size }),
        }
    }

    pub(super) fn skip(&mut self, length: u64) -> Result<(), PickleError> {
        self.require(length)?;
        let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
        self.at += skipped;
        if skipped < length {
            return Err(PickleError::Truncated { at: self.at });
        }
        Ok(())
    }

    /// A text of `length` bytes; `None` where it is too long for a name or not UTF-8.
    pub(super) fn text(&mut self, length: u64) -> Result<Option<String>, PickleError> {
        if length > MAX_TEXT {
            self.skip(length)?;
            return Ok(None);
        }
        self.require(length)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.source
            .read_exact(&mut bytes)
            .map_err(|error| self.failed(error))?;
        self.at += length;
        Ok(String::from_utf8(bytes).ok())
    }

    /// The bytes up to the next line feed, which is taken too; `None` where there are too many for
    /// a name.
    pub(super) fn line(&mut self) -> Result<Option<Vec<u8>>, PickleError> {
        let mut line = Some(Vec::new());
        loop {
            let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX);
            let buffer = self.source.fill_buf()?;
            let buffer = &buffer[..buffer.len().min(left)];
            if buffer.is_empty() {
                return Err(PickleError::Truncated { at: self.at });
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let piece = &buffer[..end.unwrap_or(buffer.len())];
            line = line.filter(|line| line.len() + piece.len() <= MAX_TEXT as usize);
            if let Some(line) = &mut line {
                line.extend(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            self.source.consume(used);
            self.at += used as u64;
            if end.is_some() {
                return Ok(line);
            }
        }
    }

    fn failed(&self, error: io::Error) -> PickleError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => PickleError::Truncated { at: self.at },
            _ => PickleError::Io(error),
        }
    }
}

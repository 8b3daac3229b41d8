//! Reading one file of an artifact.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::framing::{FramingError, Member};
use crate::source::{ReadAt, Span};

/// Reads one file of an artifact and checks it: the read that would report the end fails with
/// [`Error::Hash`] (inside [`io::Error`]) if the bytes were not those recorded.
pub struct MemberReader {
    artifact: PathBuf,
    source: BufReader<Span>,
    /// What must stand before the content and has not been read yet, and after it.
    before: Vec<u8>,
    after: Vec<u8>,
    left: u64,
    member: Member,
    /// What is recorded, and what was read.
    sha256: Option<(Digest, Sha256)>,
    crc32: crc32fast::Hasher,
}

impl fmt::Debug for MemberReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberReader")
            .field("artifact", &self.artifact)
            .field("member", &self.member.placed.name)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl MemberReader {
    /// Reads a member of the artifact at `artifact`; `has_records` if the records around it are
    /// those that mlwm writes and have not been looked at.
    pub(crate) fn new(
        artifact: &Path,
        source: Arc<dyn ReadAt>,
        member: Member,
        recorded: Option<Digest>,
        has_records: bool,
    ) -> Self {
        let placed = &member.placed;
        let (before, after) = match has_records {
            true => (placed.local_header(), placed.descriptor(member.crc32)),
            false => (Vec::new(), Vec::new()),
        };
        let start = placed.data_at - before.len() as u64;
        let length = before.len() as u64 + placed.size + after.len() as u64;
        let read_ahead = usize::try_from(length.min(source.read_ahead())).unwrap_or(usize::MAX);
        Self {
            artifact: artifact.to_owned(),
            source: BufReader::with_capacity(read_ahead, Span::new(source, start, length)),
            before,
            after,
            left: placed.size,
            member,
            sha256: recorded.map(|recorded| (recorded, Sha256::new())),
            crc32: crc32fast::Hasher::new(),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.member.placed.size
    }

    /// Reads a record of the zip, which must be this one.
    fn check_record(&mut self, expected: &[u8]) -> io::Result<()> {
        let mut found = vec![0; expected.len()];
        self.source.read_exact(&mut found)?;
        if found == expected {
            return Ok(());
        }
        let member = self.member.placed.name.clone();
        Err(io::Error::other(Error::Framing {
            path: self.artifact.clone(),
            source: FramingError::Contradiction(member),
        }))
    }

    fn check_content(&self) -> io::Result<()> {
        let found =
            |(recorded, read): &(Digest, Sha256)| (*recorded, Digest::from_hasher(read.clone()));
        let sha256 = self.sha256.as_ref().map(found);
        let crc32 = self.crc32.clone().finalize();
        check(&self.artifact, &self.member, sha256, crc32).map_err(io::Error::other)
    }
}

/// Compares what the bytes of a member give with what was recorded; `sha256` are the recorded one and
/// that of the bytes.
pub(crate) fn check(
    artifact: &Path,
    member: &Member,
    sha256: Option<(Digest, Digest)>,
    crc32: u32,
) -> Result<(), Error> {
    let (expected, found) = match sha256 {
        Some((recorded, found)) if recorded != found => (recorded.to_string(), found.to_string()),
        _ if member.crc32 != crc32 => (
            format!("crc32:{:08x}", member.crc32),
            format!("crc32:{crc32:08x}"),
        ),
        _ => return Ok(()),
    };
    Err(Error::Hash {
        path: artifact.to_owned(),
        member: member.placed.name.clone(),
        expected,
        found,
    })
}

impl Read for MemberReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let before = std::mem::take(&mut self.before);
        self.check_record(&before)?;
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.source.read(&mut buffer[..wanted])?;
        self.left -= read as u64;
        let bytes = &buffer[..read];
        self.crc32.update(bytes);
        if let Some((_, sha256)) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if self.left == 0 && read == 0 {
            self.check_content()?;
            let after = std::mem::take(&mut self.after);
            self.check_record(&after)?;
        }
        Ok(read)
    }
}

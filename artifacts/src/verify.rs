//! Verifying an artifact: every byte of the zip is accounted for.

use std::io::{self, Read};
use std::sync::Arc;
use std::thread;

use mlwm_spec::Digest;

use crate::artifact::Artifact;
use crate::error::{Error, io_error};
use crate::form::Plan;
use crate::framing::FramingError;
use crate::hashing::{Lane, Piece, Pool};
use crate::source::Span;

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Number of files, `artifact.yaml` included.
    pub files: usize,
    /// Sum of their sizes.
    pub bytes: u64,
    /// SHA-256 of the zip.
    pub digest: Digest,
}

impl Artifact {
    /// Reads the zip once, from its first byte to its last. Every record must be the one that mlwm
    /// writes (format §5), so that there is exactly one zip of the same content and no byte in it
    /// that could change unnoticed; every content must have the hash in `artifact.yaml`.
    pub fn verify(&self) -> Result<Verified, Error> {
        if self.set_digest().is_none() {
            return Err(Error::NoHashes {
                path: self.path().to_owned(),
            });
        }
        let Some(plan) = self.plan() else {
            for entry in self.files() {
                let mut reader = self.reader(&entry.path)?;
                io::copy(&mut reader, &mut io::sink()).map_err(|e| self.read_error(e))?;
            }
            return Err(Error::Repacked {
                path: self.path().to_owned(),
            });
        };
        let read = thread::scope(|scope| {
            let (whole, contents) = (Lane::spawn(scope), Lane::spawn(scope));
            let checksums = self.read_through(plan, &whole, &contents)?;
            let failed = io_error("hash", self.path());
            let hashes = contents.digests().and_then(|of| Ok((of, whole.digest()?)));
            hashes
                .map(|(contents, whole)| (checksums, contents, whole))
                .map_err(failed)
        });
        let (checksums, contents, digest) = read?;
        for (position, (crc32, sha256)) in checksums.into_iter().zip(contents).enumerate() {
            self.check_content(position, sha256, crc32)?;
        }
        Ok(Verified {
            files: self.files().len(),
            bytes: self.files().iter().map(|entry| entry.size).sum(),
            digest: self.remember(digest),
        })
    }

    /// Reads the whole zip, compares all records in it and hashes everything. Gives the CRC-32 of
    /// every content.
    fn read_through(
        &self,
        plan: &Plan,
        whole: &Lane<'_>,
        contents: &Lane<'_>,
    ) -> Result<Vec<u32>, Error> {
        let source = self.fresh_source();
        let mut zip = Span::new(Arc::clone(&source), 0, source.size());
        let mut pool = Pool::new();
        let mut checksums = Vec::with_capacity(plan.members.len());
        for (placed, recorded) in plan.members.iter().zip(self.checksums()) {
            let other = |name: &str| FramingError::Contradiction(name.to_owned());
            self.compare(&mut zip, placed.local_header(), whole, || {
                other(&placed.name)
            })?;
            let mut crc32 = crc32fast::Hasher::new();
            let mut left = placed.size;
            while left > 0 {
                let piece = pool
                    .read(&mut zip, left)
                    .map_err(io_error("read", self.path()))?;
                if piece.is_empty() {
                    return Err(io_error("read", self.path())(
                        io::ErrorKind::UnexpectedEof.into(),
                    ));
                }
                left -= piece.len() as u64;
                whole.push(&piece);
                contents.push(&piece);
                crc32.update(&piece);
            }
            contents.end();
            checksums.push(crc32.finalize());
            self.compare(&mut zip, placed.descriptor(recorded), whole, || {
                other(&placed.name)
            })?;
        }
        let tail = plan.tail(self.checksums());
        self.compare(&mut zip, tail, whole, || {
            FramingError::NotOurs("its directory".to_owned())
        })?;
        Ok(checksums)
    }

    /// Reads a record, which must be this one.
    fn compare(
        &self,
        zip: &mut impl Read,
        expected: Vec<u8>,
        whole: &Lane<'_>,
        other: impl FnOnce() -> FramingError,
    ) -> Result<(), Error> {
        let mut found = vec![0; expected.len()];
        zip.read_exact(&mut found)
            .map_err(io_error("read", self.path()))?;
        let right = found == expected;
        whole.push(&Piece::of(found));
        match right {
            true => Ok(()),
            false => Err(Error::Framing {
                path: self.path().to_owned(),
                source: other(),
            }),
        }
    }
}

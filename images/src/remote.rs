//! A blob of a registry, read from its start.

use std::io::{self, Read};

use mlwm_spec::Digest;
use mlwm_storage::oci::Repository;
use mlwm_storage::{ByteRange, Content};
use tokio::runtime::Handle;

/// Bytes that are asked for at once.
const AT_ONCE: u64 = 8 << 20;

/// A blob of a registry as content. It is read outside of the threads of the runtime that made it.
#[derive(Clone, Debug)]
pub(crate) struct RemoteBlob {
    repository: Repository,
    digest: Digest,
    size: u64,
    runtime: Handle,
}

impl RemoteBlob {
    /// Must be called within a runtime.
    pub(crate) fn new(repository: Repository, digest: Digest, size: u64) -> Self {
        Self {
            repository,
            digest,
            size,
            runtime: Handle::current(),
        }
    }
}

impl Content for RemoteBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn fingerprint(&self) -> String {
        format!("blob {}", self.digest)
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Reader {
            blob: self.clone(),
            next: 0,
            piece: bytes::Bytes::new(),
        }))
    }
}

struct Reader {
    blob: RemoteBlob,
    next: u64,
    piece: bytes::Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.next < self.blob.size {
            let range = ByteRange::From {
                start: self.next,
                length: AT_ONCE.min(self.blob.size - self.next),
            };
            let reading = self
                .blob
                .repository
                .read_blob_range(&self.blob.digest, range);
            let part = self.blob.runtime.block_on(reading);
            self.piece = part.map_err(io::Error::other)?.bytes;
            if self.piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.next += self.piece.len() as u64;
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

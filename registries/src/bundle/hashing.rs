//! Hashing what passes by, on a thread of its own.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use bytes::Bytes;
use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Pieces of this size are read.
pub(super) const PIECE: usize = 1 << 20;
/// Pieces that may wait to be hashed.
const WAITING: usize = 8;

/// A thread that hashes one stream after the other.
pub(super) struct Lane {
    work: SyncSender<Option<Bytes>>,
    digests: Receiver<Digest>,
}

impl Lane {
    pub(super) fn spawn() -> Self {
        let (work, todo) = sync_channel::<Option<Bytes>>(WAITING);
        let (done, digests) = channel();
        thread::spawn(move || {
            let mut hasher = Sha256::new();
            for piece in todo {
                match piece {
                    Some(piece) => hasher.update(&piece),
                    None => {
                        let digest = Digest::from_hasher(std::mem::take(&mut hasher));
                        if done.send(digest).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Self { work, digests }
    }

    /// Hashes a piece of the stream under way.
    pub(super) fn push(&self, piece: &Bytes) {
        // A thread that is gone is noticed at the end of the stream.
        let _ = self.work.send(Some(piece.clone()));
    }

    /// The digest of the stream under way; what follows is another one.
    pub(super) fn end(&self) -> Result<Digest, Error> {
        let gone = || Error::Broken("the thread that hashes a bundle is gone".to_owned());
        self.work.send(None).map_err(|_| gone())?;
        self.digests.recv().map_err(|_| gone())
    }
}

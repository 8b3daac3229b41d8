//! What an upload is given, and the comparison with what is there already.

use std::sync::Arc;

use bytes::Bytes;
use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::RangeSource;
use super::download::{Limits, read_from};
use super::feed::Feed;
use super::journal::{Journal, Journals};
use crate::progress::Counter;
use crate::{Content, Error, pool};

/// One content on its way to one place.
pub(crate) struct Sending<'a> {
    /// Where it goes, for people and for the journal.
    pub(crate) place: String,
    pub(crate) content: Arc<dyn Content>,
    pub(crate) journals: &'a Journals,
    pub(crate) counter: &'a Counter,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) limits: Limits,
}

/// How often an upload that the server has lost is begun anew.
pub(crate) const BEGINNINGS: u32 = 3;

/// Pieces in which content is read to be compared.
const PIECE: usize = 1 << 20;

impl Sending<'_> {
    /// Reads the content in pieces of this size, with this many buffers.
    pub(crate) fn feed(&self, piece: usize, buffers: usize) -> Feed {
        Feed::start(&self.place, Arc::clone(&self.content), piece, buffers)
    }

    /// The journal of an upload to this server of the content with this fingerprint: what another
    /// server has under the same name is no beginning for this one.
    pub(crate) fn journal(&self, endpoint: &str, fingerprint: &str) -> Result<Journal, Error> {
        let content = format!("{endpoint}\n{fingerprint}");
        self.journals.open(&self.place, &content)
    }

    /// Brings a content of at most `most` bytes by one call of `create`, which says whether the
    /// name was free; the content's digest, `None` if it was not.
    pub(crate) async fn send_whole<F>(
        &self,
        most: u64,
        create: impl FnOnce(Bytes) -> F,
    ) -> Result<Option<Digest>, Error>
    where
        F: Future<Output = Result<bool, Error>>,
    {
        let work = async {
            let mut feed = self.feed(usize::try_from(most).unwrap_or(usize::MAX), 2);
            let piece = feed.next().await?;
            let bytes = piece.map(|piece| piece.bytes).unwrap_or_default();
            if !create(bytes).await? {
                return Ok(None);
            }
            self.counter.reach(self.content.size());
            feed.finish().await.map(Some)
        };
        pool::unless_cancelled(&self.place, self.cancel, work).await
    }

    /// The content's digest if the object that is at the place, of `size` bytes, holds the same;
    /// else an error.
    pub(crate) async fn compare(
        &self,
        there: &dyn RangeSource,
        size: u64,
    ) -> Result<Digest, Error> {
        let exists = |reason: String| Error::Exists {
            uri: self.place.clone(),
            reason,
        };
        if size != self.content.size() {
            let ours = self.content.size();
            return Err(exists(format!("it has {size} bytes instead of {ours}")));
        }
        let (sink, arriving) = mpsc::channel(32);
        let hashing = tokio::task::spawn_blocking(move || hash(arriving));
        let read = read_from(there, 0, size, self.limits, self.cancel, sink);
        let ((), ours) = tokio::try_join!(read, self.feed(PIECE, 4).finish())?;
        let theirs = hashing.await.map_err(|_| Error::Broken {
            uri: self.place.clone(),
            reason: "the thread that compares ended".to_owned(),
        })?;
        if theirs != ours {
            return Err(exists(format!("its digest is {theirs} instead of {ours}")));
        }
        self.counter.reach_kept(size);
        Ok(ours)
    }
}

fn hash(mut arriving: mpsc::Receiver<Bytes>) -> Digest {
    let mut hasher = Sha256::new();
    while let Some(piece) = arriving.blocking_recv() {
        hasher.update(&piece);
    }
    Digest::from_hasher(hasher)
}

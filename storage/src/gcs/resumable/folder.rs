//! Bringing a big file of a folder that is published: in chunks, but not to be continued.

use std::io::{self, Read};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{CHUNKS, Session, State, usize_of};
use crate::gcs::Gcs;
use crate::progress::Counter;
use crate::store::{Store, Uploaded};
use crate::transfer::feed::Feed;
use crate::tree::LocalFile;
use crate::{Content, Error, Uri, pool};

impl Gcs {
    /// Brings a local file to `target`, in place of whatever is there.
    pub(in crate::gcs) async fn upload_chunks(
        &self,
        store: &Store,
        target: &Uri,
        source: LocalFile,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<Uploaded, Error> {
        let place = target.to_string();
        let memory = store.memory(self.chunk * CHUNKS as u64);
        let memory = pool::unless_cancelled(target, cancel, async { Ok(memory.await) }).await?;
        let begin = self.persist(target, || self.open_session(target, source.size, ""));
        let url = pool::unless_cancelled(target, cancel, begin).await?;
        let session = Session {
            gcs: self,
            uri: target,
            url,
            size: source.size,
        };
        let size = source.size;
        let content: Arc<dyn Content> = Arc::new(Listed(source));
        let mut feed = Feed::start(&place, content, usize_of(self.chunk), CHUNKS);
        let (silent, whole) = (crate::Progress::none(), [size]);
        let apart = Counter::start(&silent, crate::Phase::Uploading, whole.into_iter());
        let state = session.send(&mut feed, 0, None, &apart, cancel).await?;
        let State::Done { generation } = state else {
            return Err(self
                .peer(&place)
                .service("it lost the upload: run the same command again".to_owned()));
        };
        let sha256 = feed.finish().await?;
        drop(memory);
        counter.bytes(size);
        Ok(Uploaded {
            sha256,
            version: generation,
        })
    }
}

/// A file of a folder that is published.
struct Listed(LocalFile);

impl Content for Listed {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn fingerprint(&self) -> String {
        format!("{} {} {}", self.0.name, self.0.size, self.0.modified)
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let file = self.0.open().map_err(io::Error::other)?;
        Ok(Box::new(CheckedAtEnd {
            file,
            listed: self.0.clone(),
        }))
    }
}

struct CheckedAtEnd {
    file: std::fs::File,
    listed: LocalFile,
}

impl Read for CheckedAtEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.listed
                .check_unchanged(&self.file)
                .map_err(io::Error::other)?;
        }
        Ok(count)
    }
}

//! Single big objects: looked at, read by ranges, brought and fetched.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;

use mlwm_spec::Digest;
use tokio_util::sync::CancellationToken;

use super::{Place, Store};
use crate::local::resumable::LocalObject;
use crate::progress::Counter;
use crate::transfer::download::{Limits, download_from};
use crate::transfer::object::Object;
use crate::transfer::upload::Sending;
use crate::{
    ByteRange, BytesContent, Content, Error, Expected, Journals, Listed, Phase, Progress,
    RangePart, Uri, local, pool,
};

impl Store {
    /// The object at `uri`, with its name as its path; `None` if there is none.
    pub async fn head(&self, uri: &Uri) -> Result<Option<Listed>, Error> {
        match self.place(uri)? {
            Place::File(path) => {
                let name = uri.name().to_owned();
                pool::blocking(uri, move || local::head(name, &path)).await
            }
            Place::S3(s3) => s3.head(uri).await,
            Place::Gcs(gcs) => gcs.head(uri).await,
        }
    }

    /// Some bytes of the object at `uri`, with one request; `None` if there is no object. They are
    /// held in memory.
    pub async fn read_range(
        &self,
        uri: &Uri,
        range: ByteRange,
    ) -> Result<Option<RangePart>, Error> {
        match self.place(uri)? {
            Place::File(path) => {
                pool::blocking(uri, move || local::resumable::read_range(&path, range)).await
            }
            Place::S3(s3) => {
                let object = Object {
                    server: s3,
                    uri,
                    limits: Limits::of(&self.options),
                };
                object.read_range(range).await
            }
            Place::Gcs(gcs) => gcs.object(uri).read_range(range).await,
        }
    }

    /// Whether [`Store::create`] of this store really leaves alone what is there: found out by
    /// creating an object beside `probe` twice.
    pub async fn has_conditional_create(&self, probe: &Uri) -> Result<bool, Error> {
        let number = RandomState::new().hash_one(std::time::SystemTime::now());
        let probe = probe.sibling_suffix(&format!(".{number:016x}"));
        self.create(&probe, b"once".to_vec()).await?;
        let again = self.create(&probe, b"twice".to_vec()).await;
        self.remove(&probe).await?;
        Ok(!again?)
    }

    /// Brings the content to `target`, where nothing or the same may be, and gives its digest. An
    /// upload that was interrupted, even by killing the process, is continued by one of a content
    /// with the same fingerprint; what the server has acknowledged is not sent again. The object
    /// appears complete or not at all.
    ///
    /// What an upload that is never continued has left is removed by [`Store::abandon`]. Without
    /// its journal, on a file system, it is the file `.<name>.<digits>.mlwm-upload` beside the
    /// target; in S3 an incomplete multipart upload (`aws s3api list-multipart-uploads`), which a
    /// lifecycle rule of the bucket can remove; Google removes it after a week.
    pub async fn upload_content(
        &self,
        target: &Uri,
        content: Arc<dyn Content>,
        journals: &Journals,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Digest, Error> {
        let counter = Counter::start(progress, Phase::Uploading, [content.size()].into_iter());
        let sending = Sending {
            place: target.to_string(),
            content,
            journals,
            counter: &counter,
            cancel,
            limits: Limits::of(&self.options),
        };
        let digest = match self.place(target)? {
            Place::File(path) => local::resumable::upload_content(&path, &sending).await?,
            Place::S3(s3) => s3.upload_content(target, &sending).await?,
            Place::Gcs(gcs) => gcs.upload_content(target, &sending).await?,
        };
        counter.object();
        Ok(digest)
    }

    /// Removes what an interrupted upload to `target` of the content with this fingerprint has
    /// left, which is then not to be continued.
    pub async fn abandon(
        &self,
        target: &Uri,
        fingerprint: &str,
        journals: &Journals,
    ) -> Result<(), Error> {
        let (progress, cancel) = (Progress::none(), CancellationToken::new());
        let sending = Sending {
            place: target.to_string(),
            content: Arc::new(BytesContent::new("")),
            journals,
            counter: &Counter::start(&progress, Phase::Uploading, [].into_iter()),
            cancel: &cancel,
            limits: Limits::of(&self.options),
        };
        match self.place(target)? {
            Place::File(path) => {
                let fingerprint = fingerprint.to_owned();
                pool::blocking(target, move || {
                    local::resumable::abandon(&path, &fingerprint)
                })
                .await
            }
            Place::S3(s3) => s3.abandon(target, &sending, fingerprint).await,
            Place::Gcs(gcs) => gcs.abandon(target, &sending, fingerprint).await,
        }
    }

    /// Brings the object at `source` to the local file `destination`, which appears when its size
    /// and digest are the expected ones. An interrupted download is continued.
    pub async fn download(
        &self,
        source: &Uri,
        expected: &Expected,
        destination: &Path,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let limits = Limits::of(&self.options);
        let options = &self.options;
        match self.place(source)? {
            Place::File(path) => {
                let object = LocalObject { uri: source, path };
                download_from(&object, expected, destination, options, progress, cancel).await
            }
            Place::S3(s3) => {
                let object = Object {
                    server: s3,
                    uri: source,
                    limits,
                };
                download_from(&object, expected, destination, options, progress, cancel).await
            }
            Place::Gcs(gcs) => {
                let object = gcs.object(source);
                download_from(&object, expected, destination, options, progress, cancel).await
            }
        }
    }
}

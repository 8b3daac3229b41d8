//! A bucket of Google Cloud Storage, through its JSON interface.
//!
//! `object_store`'s own client is used for credentials only: its uploads cannot be continued by
//! another process.

mod access;
mod listing;
mod resumable;
mod wire;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use mlwm_spec::Digest;
use reqwest::Method;
use tokio_util::sync::CancellationToken;

pub use self::access::GcsAccess;
use self::listing::ObjectRecord;
use self::wire::{Ask, Wire};
use crate::progress::Counter;
use crate::store::{Options, Store, Uploaded};
use crate::transfer::download::Limits;
use crate::transfer::http::{self, encode};
use crate::transfer::object::Object;
use crate::transfer::retry::{Failure, persist};
use crate::transfer::stall::StallWatch;
use crate::tree::LocalFile;
use crate::{ByteRange, Error, Listed, Uri, pool};

/// One bucket.
pub(crate) struct Gcs {
    wire: Wire,
    bucket: String,
    limits: Limits,
    /// Larger objects are sent in chunks of this many bytes.
    chunk: u64,
}

/// Google takes chunks that are multiples of this.
const GRAIN: u64 = 256 << 10;

impl Gcs {
    pub(crate) fn open(bucket: &str, access: GcsAccess, options: &Options) -> Result<Self, Error> {
        Ok(Self {
            wire: Wire::open(bucket, access)?,
            bucket: bucket.to_owned(),
            limits: Limits::of(options),
            chunk: (options.part_bytes / GRAIN * GRAIN).max(GRAIN),
        })
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The object at `uri` for reading.
    pub(crate) fn object<'a>(&'a self, uri: &'a Uri) -> Object<'a> {
        Object {
            server: self,
            uri,
            limits: self.limits,
        }
    }

    /// The object at `uri`, `None` if there is none.
    pub(crate) async fn head(&self, uri: &Uri) -> Result<Option<Listed>, Error> {
        let record: Option<ObjectRecord> = self
            .persist(uri, || async {
                let ask = Ask::object(Method::GET, uri, "fields=name,size,generation,updated");
                match self.ask_json(ask).await {
                    Ok(record) => Ok(Some(record)),
                    Err(refusal) if refusal.is(404) && !refusal.has_code("NoSuchBucket") => {
                        Ok(None)
                    }
                    Err(refusal) => Err(refusal.failure),
                }
            })
            .await?;
        Ok(record.map(|record| record.listed(uri.name().to_owned())))
    }

    /// The content of an object of at most `limit` bytes, `None` if there is none.
    pub(crate) async fn read_small(&self, uri: &Uri, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let range = ByteRange::From {
            start: 0,
            length: limit.saturating_add(1),
        };
        match self.object(uri).read_range(range).await? {
            None => Ok(None),
            Some(found) if found.object_size > limit => Err(Error::TooLarge {
                uri: uri.to_string(),
                limit,
            }),
            Some(found) => Ok(Some(found.bytes.into())),
        }
    }

    /// `length` bytes of an object from `start`; an object that is no longer the one that was
    /// listed is an error.
    pub(crate) async fn read_part(
        &self,
        folder: &Uri,
        object: &Listed,
        start: u64,
        length: u64,
    ) -> Result<Vec<Bytes>, Error> {
        let uri = folder.join(&object.path)?;
        let found = self
            .object(&uri)
            .read_range(ByteRange::From { start, length })
            .await?;
        match found {
            Some(found)
                if found.object_size == object.size
                    && found.bytes.len() as u64 == length
                    && is_generation(found.etag.as_deref(), object.etag.as_deref()) =>
            {
                Ok(vec![found.bytes])
            }
            _ => Err(Error::Changed {
                uri: uri.to_string(),
            }),
        }
    }

    /// Writes a small object in place of whatever is there; its generation.
    pub(crate) async fn put(&self, uri: &Uri, bytes: Bytes) -> Result<Option<String>, Error> {
        let put = self.persist(uri, || async {
            Ok(self.insert(uri, bytes.clone(), "").await?)
        });
        Ok(put.await?.generation)
    }

    /// Writes a small object unless there is one; whether it did.
    pub(crate) async fn create(&self, uri: &Uri, bytes: Bytes) -> Result<bool, Error> {
        // If the answer to a successful request is lost, the next one finds the object there; the
        // caller then looks whose it is.
        self.persist(uri, || async {
            match self
                .insert(uri, bytes.clone(), "&ifGenerationMatch=0")
                .await
            {
                Ok(_) => Ok(true),
                Err(refusal) if refusal.is(412) => Ok(false),
                Err(refusal) => Err(refusal.failure),
            }
        })
        .await
    }

    async fn insert(
        &self,
        uri: &Uri,
        bytes: Bytes,
        condition: &str,
    ) -> Result<ObjectRecord, http::Refusal> {
        let name = encode(uri.key(), false);
        let ask = if bytes.is_empty() {
            // Some servers take an empty object in this form only.
            let body = "--mlwm\r\nContent-Type: application/json\r\n\r\n{}\r\n--mlwm\r\n\
                        Content-Type: application/octet-stream\r\n\r\n\r\n--mlwm--\r\n";
            Ask::upload(uri, &format!("uploadType=multipart&name={name}{condition}"))
                .with_body(body.into(), "multipart/related; boundary=mlwm")
        } else {
            Ask::upload(uri, &format!("uploadType=media&name={name}{condition}"))
                .with_body(bytes, "application/octet-stream")
        };
        self.ask_json(ask).await
    }

    /// Brings a local file to `target`, in chunks if it is big, in place of whatever is there.
    pub(crate) async fn upload(
        &self,
        store: &Store,
        target: &Uri,
        source: LocalFile,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<Uploaded, Error> {
        if source.size > self.chunk {
            return self
                .upload_chunks(store, target, source, counter, cancel)
                .await;
        }
        let size = source.size;
        let memory = store.memory(size);
        let memory = pool::unless_cancelled(target, cancel, async { Ok(memory.await) }).await?;
        let (bytes, sha256) = pool::blocking(target, move || {
            let mut file = source.open()?;
            let bytes = source.read_next(&mut file, source.size)?;
            source.check_unchanged(&file)?;
            let sha256 = Digest::of(&bytes);
            Ok((bytes, sha256))
        })
        .await?;
        let etag = pool::unless_cancelled(target, cancel, self.put(target, bytes.into())).await?;
        drop(memory);
        counter.bytes(size);
        Ok(Uploaded {
            sha256,
            version: etag,
        })
    }

    /// Removes objects below `uri`.
    pub(crate) async fn delete(
        &self,
        uri: &Uri,
        names: &[String],
        at_once: usize,
    ) -> Result<(), Error> {
        stream::iter(names)
            .map(|name| async move { self.remove(&uri.join(name)?).await })
            .buffer_unordered(at_once)
            .try_collect()
            .await
    }

    /// Removes the object at `uri`, if there is one.
    pub(crate) async fn remove(&self, uri: &Uri) -> Result<(), Error> {
        self.persist(uri, || async {
            let ask = Ask::object(Method::DELETE, uri, "");
            match self.ask(ask, &StallWatch::new(self.limits.stall)).await {
                Ok(_) => Ok(()),
                Err(refusal) if refusal.is(404) && !refusal.has_code("NoSuchBucket") => Ok(()),
                Err(refusal) => Err(refusal.failure),
            }
        })
        .await
    }

    async fn persist<R, F>(&self, uri: &Uri, request: impl FnMut() -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<R, Failure>>,
    {
        let forever = CancellationToken::new();
        persist(&uri.to_string(), self.limits.retry_for, &forever, request).await
    }
}

/// Whether an object is of the generation that was listed. A server that does not say it (an
/// emulator) is believed.
fn is_generation(found: Option<&str>, listed: Option<&str>) -> bool {
    match (found, listed) {
        (Some(found), Some(listed)) => found == listed,
        _ => true,
    }
}

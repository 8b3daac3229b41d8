//! Blobs: whether they are there, parts of them, small ones, and bringing big ones to files.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use mlwm_spec::Digest;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Method, Response};
use tokio_util::sync::CancellationToken;

use super::Repository;
use super::token::Access;
use crate::store::Options;
use crate::transfer::download::download_from;
use crate::transfer::http::{self, Peer};
use crate::transfer::object;
use crate::transfer::retry::{Failure, persist};
use crate::transfer::stall::StallWatch;
use crate::transfer::{Arriving, RangeSource};
use crate::{ByteRange, Error, Expected, Progress, RangePart};

impl Repository {
    /// The size of a blob in bytes, `None` if it is not in this repository.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let url = self.connection.url(&format!("blobs/{digest}"), &[]);
        let response = self
            .connection
            .ask(&Access::Pull, Method::HEAD, &url, &[200, 404], |r| r)
            .await?;
        if response.status() == 404 {
            return Ok(None);
        }
        // `content_length()` is of the body that a HEAD does not have.
        let size = number(response.headers(), CONTENT_LENGTH.as_str());
        let odd = || "it does not say how large a blob is".to_owned();
        let size = size.ok_or_else(|| self.connection.peer().service(odd()));
        Ok(Some(size?))
    }

    /// Makes a blob of another repository of the same registry one of this, without moving it;
    /// whether the registry did.
    pub async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool, Error> {
        let connection = &self.connection;
        let digest = digest.to_string();
        let url = connection.url("blobs/uploads/", &[("mount", &digest), ("from", from)]);
        let access = Access::Mount {
            from: from.to_owned(),
        };
        let empty = |request: reqwest::RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let asked = connection
            .ask(&access, Method::POST, &url, &[201, 202], empty)
            .await;
        let response = match asked {
            Ok(response) => response,
            // The other repository may not be open to this user: then the blob is sent.
            Err(Error::RegistryAccess { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if response.status() == 201 {
            return Ok(true);
        }
        // It has begun an upload instead, which is not wanted. If it stays, it is cleaned up.
        if let Ok(Some(session)) = connection.upload_location(&response) {
            let watch = StallWatch::new(connection.stall());
            let _ = connection
                .send(&Access::Push, Method::DELETE, session, &watch, |r| r)
                .await;
        }
        Ok(false)
    }

    /// Writes a small blob, if it is not there.
    pub async fn push_blob_bytes(&self, bytes: impl Into<Bytes>) -> Result<Digest, Error> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        if self.blob_size(&digest).await?.is_some() {
            return Ok(digest);
        }
        let connection = &self.connection;
        let never = CancellationToken::new();
        persist(
            connection.place(),
            connection.retry_for(),
            &never,
            || async {
                let mut url = self.begin_upload().await?.url;
                url.query_pairs_mut()
                    .append_pair("digest", &digest.to_string());
                let watch = StallWatch::new(connection.stall());
                let with_body = |request: reqwest::RequestBuilder| {
                    let request = request.header(CONTENT_TYPE, "application/octet-stream");
                    request
                        .header(CONTENT_LENGTH, bytes.len())
                        .body(bytes.clone())
                };
                let put = connection.send(&Access::Push, Method::PUT, url, &watch, with_body);
                connection.expect(put.await?, &[200, 201, 204]).await?;
                Ok(digest)
            },
        )
        .await
    }

    /// Part of a blob. One request, if nothing fails.
    pub async fn read_blob_range(
        &self,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<RangePart, Error> {
        let connection = &self.connection;
        let never = CancellationToken::new();
        let read = || self.read_range_once(digest, range);
        persist(connection.place(), connection.retry_for(), &never, read).await
    }

    async fn read_range_once(
        &self,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<RangePart, Failure> {
        let text = match range {
            ByteRange::From { length: 0, .. } | ByteRange::Last(0) => {
                return self.nothing_of(digest).await;
            }
            ByteRange::From { start, length } => match start.checked_add(length - 1) {
                // Servers calculate with signed numbers.
                Some(last) if i64::try_from(last).is_ok() => format!("bytes={start}-{last}"),
                _ => format!("bytes={start}-"),
            },
            ByteRange::Last(count) => format!("bytes=-{count}"),
        };
        let watch = StallWatch::new(self.connection.stall());
        let response = self.get_blob(digest, Some(&text), &watch).await?;
        if response.status() == 416 {
            return self.nothing_of(digest).await;
        }
        let (arriving, object_size) = self.span(&response)?;
        let (start, end) = object::bounds(range, object_size);
        // A server that does not know ranges sends everything.
        let over = start
            .checked_sub(arriving)
            .ok_or_else(|| self.odd_range())?;
        let peer = self.connection.peer();
        Ok(RangePart {
            bytes: object::collect(response, over, end - start, &peer, &watch).await?,
            object_size,
            etag: None,
        })
    }

    /// The part of a blob that has no bytes.
    async fn nothing_of(&self, digest: &Digest) -> Result<RangePart, Failure> {
        let missing = || self.no_blob(digest);
        Ok(RangePart {
            bytes: Bytes::new(),
            object_size: self.blob_size(digest).await?.ok_or_else(missing)?,
            etag: None,
        })
    }

    /// Brings a blob to a file, which appears complete or not at all; continued if it is
    /// interrupted and called again.
    pub async fn download_blob(
        &self,
        digest: &Digest,
        size: u64,
        destination: &Path,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let expected = Expected {
            size,
            digest: *digest,
        };
        self.download_blobs(&[(*digest, size)], &expected, destination, progress, cancel)
            .await
    }

    /// Brings several blobs, given with their sizes, one behind the other to one file, of which
    /// `expected` is the whole; as [`Self::download_blob`].
    pub async fn download_blobs(
        &self,
        blobs: &[(Digest, u64)],
        expected: &Expected,
        destination: &Path,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let source = Blobs {
            repository: self.clone(),
            blobs: blobs.into(),
        };
        let options = Options {
            stall: self.options.stall,
            retry_for: self.options.retry_for,
            ..Options::default()
        };
        download_from(&source, expected, destination, &options, progress, cancel).await
    }

    async fn get_blob(
        &self,
        digest: &Digest,
        range: Option<&str>,
        watch: &StallWatch,
    ) -> Result<Response, Failure> {
        let connection = &self.connection;
        let url = connection.url(&format!("blobs/{digest}"), &[]);
        let with_range = |request: reqwest::RequestBuilder| match range {
            Some(range) => request.header(RANGE, range),
            None => request,
        };
        let get = connection.send(&Access::Pull, Method::GET, url, watch, with_range);
        let response = get.await?;
        if response.status() == 404 {
            return Err(Failure::permanent(self.no_blob(digest)));
        }
        connection.expect(response, &[200, 206, 416]).await
    }

    /// First byte of an answer, and size of the whole blob.
    fn span(&self, response: &Response) -> Result<(u64, u64), Failure> {
        let span = match response.status().as_u16() {
            206 => http::content_range(response.headers()),
            _ => response.content_length().map(|size| (0, size)),
        };
        span.ok_or_else(|| self.odd_range())
    }

    fn odd_range(&self) -> Failure {
        let reason = "it answers with other bytes of a blob than were asked for".to_owned();
        Failure::permanent(self.connection.peer().service(reason))
    }

    fn no_blob(&self, digest: &Digest) -> Error {
        Error::NothingAt {
            uri: self.named(&digest.to_string()),
        }
    }
}

/// Blobs, one behind the other, as something to be downloaded.
#[derive(Clone)]
struct Blobs {
    repository: Repository,
    /// With their sizes.
    blobs: Arc<[(Digest, u64)]>,
}

impl Blobs {
    /// The blob that has the byte at `start`, and where it begins.
    fn at(&self, start: u64) -> (usize, u64) {
        let mut begins = 0_u64;
        for (index, (_, size)) in self.blobs.iter().enumerate() {
            let ends = begins.saturating_add(*size);
            if start < ends {
                return (index, begins);
            }
            begins = ends;
        }
        (self.blobs.len(), begins)
    }

    /// One blob from its byte `start` on, or from an earlier one if the server ignores that.
    async fn open(&self, index: usize, start: u64) -> Result<Arriving, Failure> {
        let (repository, (digest, _)) = (&self.repository, self.blobs[index]);
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let watch = StallWatch::new(repository.connection.stall());
        let response = repository
            .get_blob(&digest, range.as_deref(), &watch)
            .await?;
        if response.status() == 416 {
            return Err(repository.odd_range());
        }
        let (start, object_size) = repository.span(&response)?;
        let (uri, endpoint) = (
            repository.named(&digest.to_string()),
            repository.uri().host(),
        );
        let bytes = response.bytes_stream().map(move |piece| {
            let (uri, endpoint) = (&uri, &endpoint);
            piece.map_err(|error| Peer { uri, endpoint }.broken(error))
        });
        Ok(Arriving {
            start,
            object_size: Some(object_size),
            bytes: bytes.boxed(),
        })
    }

    /// All blobs from this one on, each asked for when the one before has ended.
    fn rest(self, index: usize) -> BoxStream<'static, Result<Bytes, Failure>> {
        let later = index..self.blobs.len();
        stream::iter(later)
            .then(move |index| {
                let blobs = self.clone();
                async move {
                    let arriving = blobs.open(index, 0).await?;
                    let (_, size) = blobs.blobs[index];
                    if arriving.object_size != Some(size) {
                        return Err(blobs.repository.odd_range());
                    }
                    Ok(arriving.bytes)
                }
            })
            .try_flatten()
            .boxed()
    }
}

impl RangeSource for Blobs {
    fn name(&self) -> String {
        match self.blobs.first() {
            Some((digest, _)) => self.repository.named(&digest.to_string()),
            None => self.repository.uri().to_string(),
        }
    }

    fn open_at(&self, start: u64, size: u64) -> BoxFuture<'_, Result<Arriving, Failure>> {
        async move {
            let (index, begins) = self.at(start);
            if index == self.blobs.len() {
                return Err(self.repository.odd_range());
            }
            let first = self.open(index, start - begins).await?;
            let (_, blob_size) = self.blobs[index];
            // Of a single blob, the one who downloads tells what is wrong with its size.
            if self.blobs.len() > 1 && first.object_size != Some(blob_size) {
                return Err(self.repository.odd_range());
            }
            let single = self.blobs.len() == 1;
            Ok(Arriving {
                start: begins + first.start,
                object_size: if single {
                    first.object_size
                } else {
                    Some(size)
                },
                bytes: first.bytes.chain(self.clone().rest(index + 1)).boxed(),
            })
        }
        .boxed()
    }
}

/// A number in a header.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

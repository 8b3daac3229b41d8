//! The requests of an upload session, each made once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use mlwm_spec::Digest;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Method, RequestBuilder, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::Error;
use crate::oci::Repository;
use crate::oci::blobs::number;
use crate::oci::connection::Connection;
use crate::oci::token::Access;
use crate::transfer::feed::Feed;
use crate::transfer::http::{Refusal, passes};
use crate::transfer::retry::Failure;
use crate::transfer::stall::StallWatch;

/// Bytes that are handed to the connection at once; each time is a sign of life.
const FRAME: usize = 64 << 10;

/// A registry may hash a blob when it is complete, or move it to where it belongs, at this rate.
const COMMIT_BYTES_PER_SECOND: u64 = 20 << 20;

/// The sizes of chunks that a registry takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChunkLimits {
    least: Option<u64>,
    most: Option<u64>,
}

impl ChunkLimits {
    /// The size nearest to `wanted`.
    pub(super) fn fit(self, wanted: u64) -> u64 {
        let most = self.most.filter(|most| *most > 0).unwrap_or(u64::MAX);
        wanted.max(self.least.unwrap_or(1)).min(most).max(1)
    }
}

/// An upload session at a registry. Its URL is a capability, which no error and no log repeats.
pub(in crate::oci) struct Session {
    pub(in crate::oci) url: Url,
    /// Bytes the registry has.
    pub(super) acknowledged: u64,
    pub(super) limits: ChunkLimits,
}

/// What a registry knows of a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It has this many bytes.
    Has(u64),
    /// It knows nothing of it.
    Unknown,
}

/// What a registry says to a chunk.
pub(super) enum Said {
    /// It has this many bytes now.
    Has(u64),
    /// It does not take another request of this kind.
    Refuses(Failure),
    /// It says that it does not go on there.
    OutOfPlace(Failure),
    /// It takes smaller requests only.
    TooLarge(Failure),
    /// It must be asked what it has.
    Unclear(Failure),
    /// It knows nothing of the session.
    Unknown,
    /// There is no way to send it.
    Fails(Failure),
}

impl Repository {
    /// Begins an upload session.
    pub(in crate::oci) async fn begin_upload(&self) -> Result<Session, Failure> {
        let connection = &self.connection;
        let url = connection.url("blobs/uploads/", &[]);
        let watch = StallWatch::new(connection.stall());
        let empty = |request: RequestBuilder| request.header(CONTENT_LENGTH, 0);
        let post = connection.send(&Access::Push, Method::POST, url, &watch, empty);
        let response = connection.expect(post.await?, &[202]).await?;
        let headers = response.headers();
        let limits = ChunkLimits {
            least: number(headers, "oci-chunk-min-length"),
            most: number(headers, "oci-chunk-max-length"),
        };
        let url = connection.upload_location(&response)?.ok_or_else(|| {
            let reason = "it does not say where a blob is to be sent".to_owned();
            Failure::permanent(connection.peer().service(reason))
        })?;
        Ok(Session {
            url,
            acknowledged: 0,
            limits,
        })
    }
}

impl Session {
    /// Asks how much the registry has.
    pub(super) async fn status(&mut self, connection: &Connection) -> Result<Status, Failure> {
        let watch = StallWatch::new(connection.stall());
        let url = self.url.clone();
        let get = connection.send(&Access::Push, Method::GET, url, &watch, |r| r);
        let response = get.await?;
        match response.status().as_u16() {
            200..=299 => {}
            status if passes(status) || status == 403 && connection.is_own(&self.url) => {
                return Err(connection.refused(response).await.failure);
            }
            // Elsewhere, a URL that is proof enough is refused when it is too old.
            _ => return Ok(Status::Unknown),
        }
        if let Some(url) = connection.upload_location(&response)? {
            self.url = url;
        }
        // `0-0` is one byte by the specification and none in older registries: a new session
        // costs less than to find out.
        Ok(match acknowledged(response.headers()) {
            Some(count) if count > 1 => Status::Has(count),
            _ => Status::Unknown,
        })
    }

    /// Sends the bytes up to `end` from where the registry is, which is where `body` is.
    pub(super) async fn patch(
        &mut self,
        connection: &Connection,
        body: &Body,
        end: u64,
        ranged: bool,
    ) -> Said {
        let start = body.position();
        let watch = StallWatch::new(connection.stall());
        let with_chunk = |request: RequestBuilder| {
            let request = request.header(CONTENT_TYPE, "application/octet-stream");
            let request = request.header(CONTENT_LENGTH, end - start);
            let request = match ranged {
                true => request.header(CONTENT_RANGE, format!("{start}-{}", end - 1)),
                false => request,
            };
            request.body(body.until(end, &watch, connection.stall()))
        };
        let url = self.url.clone();
        let patch = connection.send(&Access::Push, Method::PATCH, url, &watch, with_chunk);
        let response = match patch.await {
            Ok(response) => response,
            Err(failure) if failure.is_permanent() => return Said::Fails(failure),
            Err(failure) => return Said::Unclear(failure),
        };
        if response.status().is_success() {
            match connection.upload_location(&response) {
                Ok(Some(url)) => self.url = url,
                Ok(None) => {}
                Err(failure) => return Said::Fails(failure),
            }
            // A registry that does not say it has taken everything.
            let count = acknowledged(response.headers()).unwrap_or(end);
            return Said::Has(count.min(end));
        }
        let Refusal {
            status, failure, ..
        } = connection.refused(response).await;
        match status {
            status if passes(status) => Said::Unclear(failure),
            400 | 405 | 411 | 501 => Said::Refuses(failure),
            404 | 410 => Said::Unknown,
            // There, a URL that is proof enough is too old.
            401 | 403 if !connection.is_own(&self.url) => Said::Unknown,
            413 => Said::TooLarge(failure),
            416 => Said::OutOfPlace(failure),
            _ => Said::Fails(failure),
        }
    }

    /// Ends the upload, with the whole blob if it was not sent before.
    pub(super) async fn put(
        &self,
        connection: &Connection,
        digest: &Digest,
        body: Option<&Body>,
        size: u64,
    ) -> Result<(), Refusal> {
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let commit = Duration::from_secs(size / COMMIT_BYTES_PER_SECOND);
        let watch = StallWatch::new(connection.stall());
        watch.allow(commit);
        let complete = |request: RequestBuilder| {
            let request = request.header(CONTENT_TYPE, "application/octet-stream");
            match body {
                Some(body) => request
                    .header(CONTENT_LENGTH, size)
                    .body(body.until(size, &watch, commit)),
                None => request.header(CONTENT_LENGTH, 0),
            }
        };
        let put = connection.send(&Access::Push, Method::PUT, url, &watch, complete);
        let response = put.await?;
        match response.status().as_u16() {
            200 | 201 | 202 | 204 => Ok(()),
            _ => Err(connection.refused(response).await),
        }
    }
}

/// The number of bytes in `Range: 0-99`, which some registries write as `bytes=0-99`.
fn acknowledged(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let (start, last) = text.split_once('-')?;
    (start == "0").then_some(())?;
    last.parse::<u64>().ok()?.checked_add(1)
}

/// The content from some byte on, as the body of one request after the other.
pub(super) struct Body {
    shared: Arc<Shared>,
}

struct Shared {
    supply: Mutex<Supply>,
    /// Where the byte that is taken next is in the content.
    position: AtomicU64,
    /// Why the content could not be read.
    error: StdMutex<Option<Error>>,
}

struct Supply {
    /// Taken when its digest is wanted, even if a connection has not let go of the body yet.
    feed: Option<Feed>,
    rest: Bytes,
}

impl Body {
    /// What `feed` gives from byte `position` on.
    pub(super) fn new(feed: Feed, position: u64) -> Self {
        let supply = Supply {
            feed: Some(feed),
            rest: Bytes::new(),
        };
        Self {
            shared: Arc::new(Shared {
                supply: Mutex::new(supply),
                position: AtomicU64::new(position),
                error: StdMutex::new(None),
            }),
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.shared.position.load(Ordering::Acquire)
    }

    /// Waits until there is something to be taken.
    pub(super) async fn fill(&self) -> Result<(), Error> {
        let mut supply = self.shared.supply.lock().await;
        let _ = self.shared.filled(&mut supply).await;
        self.error().map_or(Ok(()), Err)
    }

    /// Why the content could not be read, if it could not.
    pub(super) fn error(&self) -> Option<Error> {
        let mut error = self.shared.error.lock();
        let error = error.as_mut().map_err(PoisonError::get_mut);
        error.unwrap_or_else(|error| error).take()
    }

    /// The bytes up to `end` as the body of a request; when they are taken, the answer may take
    /// the time `extra` more.
    fn until(&self, end: u64, watch: &StallWatch, extra: Duration) -> reqwest::Body {
        let state = (Arc::clone(&self.shared), watch.clone());
        let frames = stream::unfold(state, move |(shared, watch)| async move {
            let frame = shared.frame(end).await?;
            watch.beat();
            if shared.position.load(Ordering::Acquire) == end {
                watch.allow(extra);
            }
            Some((frame, (shared, watch)))
        });
        reqwest::Body::wrap_stream(frames)
    }

    /// The digest of the whole content, of which what is left is read.
    pub(super) async fn digest(self) -> Result<Digest, Error> {
        let feed = self.shared.supply.lock().await.feed.take();
        let taken = || Error::Broken {
            uri: "a registry".to_owned(),
            reason: "the content was hashed before".to_owned(),
        };
        feed.ok_or_else(taken)?.finish().await
    }
}

impl Shared {
    async fn frame(&self, end: u64) -> Option<std::io::Result<Bytes>> {
        let mut supply = self.supply.lock().await;
        let wanted = end.checked_sub(self.position.load(Ordering::Acquire))?;
        if wanted == 0 {
            return None;
        }
        if let Err(error) = self.filled(&mut supply).await? {
            return Some(Err(error));
        }
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let count = FRAME.min(wanted).min(supply.rest.len());
        let frame = supply.rest.split_to(count);
        self.position.fetch_add(count as u64, Ordering::AcqRel);
        Some(Ok(frame))
    }

    /// Sees to it that there is something to be taken; `None` at the end of the content.
    async fn filled(&self, supply: &mut Supply) -> Option<std::io::Result<()>> {
        if supply.rest.is_empty() {
            match supply.feed.as_mut()?.next().await {
                Ok(piece) => supply.rest = piece?.bytes,
                Err(error) => {
                    let mut slot = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                    *slot = Some(error);
                    return Some(Err(std::io::Error::other("the content cannot be read")));
                }
            }
        }
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say_they_have() {
        let said = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            acknowledged(&headers)
        };
        assert_eq!(said("0-99"), Some(100));
        assert_eq!(said("bytes=0-99"), Some(100));
        assert_eq!(said("bytes 0-99"), Some(100));
        assert_eq!(said("5-99"), None);
        assert_eq!(said("0-"), None);
        assert_eq!(said("0--1"), None);
        assert_eq!(said("0-18446744073709551615"), None);
        assert_eq!(acknowledged(&HeaderMap::new()), None);
    }

    #[test]
    fn chunks_are_as_large_as_the_registry_wants() {
        let limits = |least, most| ChunkLimits { least, most };
        assert_eq!(limits(None, None).fit(7), 7);
        assert_eq!(limits(None, None).fit(0), 1);
        assert_eq!(limits(Some(10), None).fit(7), 10);
        assert_eq!(limits(Some(10), Some(20)).fit(70), 20);
        assert_eq!(limits(None, Some(0)).fit(70), 70);
    }
}

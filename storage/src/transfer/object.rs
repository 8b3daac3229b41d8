//! An object behind HTTP, read by ranges.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::{ETAG, HeaderMap};
use tokio_util::sync::CancellationToken;

use super::download::Limits;
use super::http::{Peer, Refusal, content_range};
use super::retry::{Failure, persist};
use super::stall::StallWatch;
use super::{Arriving, ByteRange, RangePart, RangeSource};
use crate::{Error, Uri};

/// A server whose objects are got by HTTP.
pub(crate) trait Getter: Send + Sync {
    /// Asks once for an object, or for the `Range` of it.
    fn get<'a>(
        &'a self,
        uri: &'a Uri,
        range: Option<String>,
        watch: &'a StallWatch,
    ) -> BoxFuture<'a, Result<reqwest::Response, Refusal>>;

    /// The server, for errors.
    fn endpoint(&self) -> &str;
}

/// One object of such a server.
pub(crate) struct Object<'a> {
    pub(crate) server: &'a dyn Getter,
    pub(crate) uri: &'a Uri,
    pub(crate) limits: Limits,
}

impl RangeSource for Object<'_> {
    fn name(&self) -> String {
        self.uri.to_string()
    }

    fn open_at(&self, start: u64, _size: u64) -> BoxFuture<'_, Result<Arriving, Failure>> {
        Box::pin(self.open(start))
    }
}

impl Object<'_> {
    async fn open(&self, start: u64) -> Result<Arriving, Failure> {
        let watch = StallWatch::new(self.limits.stall);
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let answer = self.server.get(self.uri, range, &watch).await;
        let answer = answer.map_err(|refusal| match refusal.status {
            404 if !refusal.has_code("NoSuchBucket") => Failure::permanent(Error::NothingAt {
                uri: self.uri.to_string(),
            }),
            416 => Failure::permanent(Error::NotExpected {
                uri: self.uri.to_string(),
                reason: format!("it has no byte {start}"),
            }),
            _ => refusal.failure,
        })?;
        let (start, object_size) = span(&answer).ok_or_else(|| self.unclear())?;
        let (uri, endpoint) = (self.uri.to_string(), self.server.endpoint().to_owned());
        let bytes = answer.bytes_stream().map_err(move |error| {
            let peer = Peer {
                uri: &uri,
                endpoint: &endpoint,
            };
            peer.broken(error)
        });
        Ok(Arriving {
            start,
            object_size,
            bytes: bytes.boxed(),
        })
    }

    /// Some bytes of the object, `None` if there is no object.
    pub(crate) async fn read_range(&self, range: ByteRange) -> Result<Option<RangePart>, Error> {
        let forever = CancellationToken::new();
        let place = self.uri.to_string();
        persist(&place, self.limits.retry_for, &forever, || {
            self.read_range_once(range)
        })
        .await
    }

    async fn read_range_once(&self, range: ByteRange) -> Result<Option<RangePart>, Failure> {
        let watch = StallWatch::new(self.limits.stall);
        let text = match range {
            ByteRange::From { start, length } => {
                format!("bytes={start}-{}", start.saturating_add(length.max(1)) - 1)
            }
            ByteRange::Last(length) => format!("bytes=-{}", length.max(1)),
        };
        let answer = match self.server.get(self.uri, Some(text), &watch).await {
            Ok(answer) => answer,
            Err(refusal) if refusal.is(404) && !refusal.has_code("NoSuchBucket") => {
                return Ok(None);
            }
            Err(refusal) if refusal.is(416) => {
                return Ok(Some(RangePart {
                    bytes: Bytes::new(),
                    object_size: self.size(refusal.object_size, &watch).await?,
                    etag: None,
                }));
            }
            Err(refusal) => return Err(refusal.failure),
        };
        let place = self.uri.to_string();
        let peer = Peer {
            uri: &place,
            endpoint: self.server.endpoint(),
        };
        let etag = etag(answer.headers());
        let (arriving, Some(object_size)) = span(&answer).ok_or_else(|| self.unclear())? else {
            return Err(self.unclear());
        };
        let (start, end) = bounds(range, object_size);
        let bytes = match start.checked_sub(arriving) {
            _ if start == end => Bytes::new(),
            Some(over) => collect(answer, over, end - start, &peer, &watch).await?,
            None => return Err(self.unclear()),
        };
        Ok(Some(RangePart {
            bytes,
            object_size,
            etag,
        }))
    }

    /// How large the object is: not every server says so when it refuses a range.
    async fn size(&self, said: Option<u64>, watch: &StallWatch) -> Result<u64, Failure> {
        if let Some(size) = said {
            return Ok(size);
        }
        let answer = self.server.get(self.uri, None, watch).await?;
        answer.content_length().ok_or_else(|| self.unclear())
    }

    fn unclear(&self) -> Failure {
        Failure::permanent(Error::Service {
            uri: self.uri.to_string(),
            endpoint: self.server.endpoint().to_owned(),
            reason: "its answer does not say which bytes of how many it has".to_owned(),
        })
    }
}

/// First byte of an answer, and size of the whole object where the answer is all of it and says
/// so; `None` if it is a part, but does not say which.
fn span(answer: &reqwest::Response) -> Option<(u64, Option<u64>)> {
    match answer.status().as_u16() {
        206 => content_range(answer.headers()).map(|(start, size)| (start, Some(size))),
        _ => Some((0, answer.content_length())),
    }
}

/// First byte of a range, and the one after its last, in an object of `size` bytes.
pub(crate) fn bounds(range: ByteRange, size: u64) -> (u64, u64) {
    match range {
        ByteRange::From { start, length } => {
            let start = start.min(size);
            (start, start.saturating_add(length).min(size))
        }
        ByteRange::Last(length) => (size.saturating_sub(length), size),
    }
}

/// `length` bytes of an answer after the first `over`.
pub(crate) async fn collect(
    mut answer: reqwest::Response,
    mut over: u64,
    length: u64,
    peer: &Peer<'_>,
    watch: &StallWatch,
) -> Result<Bytes, Failure> {
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    // A length that a server only claims is no reason to take so much memory at once.
    let mut bytes = Vec::with_capacity(wanted.min(16 << 20));
    while bytes.len() < wanted {
        let piece = watch.guard(answer.chunk()).await;
        let piece = piece
            .map_err(|_| peer.stalled())?
            .map_err(|error| peer.broken(error))?;
        let Some(piece) = piece else {
            let error = peer.service("its answer ended early".to_owned());
            return Err(Failure::transient(error));
        };
        watch.beat();
        let unwanted = usize::try_from(over).unwrap_or(usize::MAX).min(piece.len());
        over -= unwanted as u64;
        let piece = &piece[unwanted..];
        bytes.extend_from_slice(&piece[..piece.len().min(wanted - bytes.len())]);
    }
    Ok(bytes.into())
}

/// What changes when the object does: Google's generation, else the entity tag.
fn etag(headers: &HeaderMap) -> Option<String> {
    let value = headers
        .get("x-goog-generation")
        .or_else(|| headers.get(ETAG))?;
    Some(value.to_str().ok()?.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_the_object() {
        let from = |start, length| bounds(ByteRange::From { start, length }, 10);
        assert_eq!(from(2, 3), (2, 5));
        assert_eq!(from(8, 9), (8, 10));
        assert_eq!(from(12, 9), (10, 10));
        assert_eq!(from(1, u64::MAX), (1, 10));
        assert_eq!(bounds(ByteRange::Last(4), 10), (6, 10));
        assert_eq!(bounds(ByteRange::Last(40), 10), (0, 10));
    }
}

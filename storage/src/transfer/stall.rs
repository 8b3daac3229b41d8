//! The end of a connection that says nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use tokio::time::Instant;

/// Bytes that are handed to the connection at once.
const PIECE: usize = 64 << 10;

/// How many times longer than usual a server may be silent when it has been handed a body: some of
/// it still waits in this machine's buffers, and the server may have to put an object together.
const DIGESTING: u32 = 4;

/// Watches one request: it may take any time, but not be silent for longer than the limit.
#[derive(Clone, Debug)]
pub(crate) struct StallWatch(Arc<Mutex<Moment>>);

#[derive(Debug)]
struct Moment {
    last: Instant,
    limit: Duration,
}

/// Nothing has moved for the time that was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stalled;

impl StallWatch {
    /// Starts to watch.
    pub(crate) fn new(limit: Duration) -> Self {
        Self(Arc::new(Mutex::new(Moment {
            last: Instant::now(),
            limit,
        })))
    }

    /// Something has moved.
    pub(crate) fn beat(&self) {
        self.moment().last = Instant::now();
    }

    fn moment(&self) -> MutexGuard<'_, Moment> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other end may need this long to answer, beside the limit.
    pub(crate) fn allow(&self, extra: Duration) {
        self.moment().last = Instant::now() + extra;
    }

    /// What `work` comes to, unless nothing has moved for too long. Work that is done counts, even
    /// if this machine was too busy to look in time.
    pub(crate) async fn guard<R>(&self, work: impl Future<Output = R>) -> Result<R, Stalled> {
        tokio::select! {
            biased;
            result = work => Ok(result),
            () = self.silence() => Err(Stalled),
        }
    }

    async fn silence(&self) {
        loop {
            let end = {
                let moment = self.moment();
                moment.last + moment.limit
            };
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// A request body of these bytes, which is sent in pieces, each of which is a sign of life.
    /// The request must say its `Content-Length`.
    pub(crate) fn body(&self, bytes: Bytes) -> reqwest::Body {
        let watch = self.clone();
        let pieces = stream::unfold(bytes, move |mut rest| {
            watch.beat();
            let piece = rest.split_to(PIECE.min(rest.len()));
            // Who sends a body of a known length does not ask whether more follows the last piece.
            if rest.is_empty() && !piece.is_empty() {
                watch.moment().limit *= DIGESTING;
            }
            async move { (!piece.is_empty()).then_some((Ok::<_, std::io::Error>(piece), rest)) }
        });
        reqwest::Body::wrap_stream(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_silence_ends_a_request() {
        let watch = StallWatch::new(Duration::from_millis(80));
        let lively = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                watch.beat();
            }
            7
        };
        assert_eq!(watch.guard(lively).await, Ok(7));
        let silent = std::future::pending::<()>();
        assert_eq!(watch.guard(silent).await, Err(Stalled));
    }

    #[tokio::test]
    async fn work_that_is_done_counts_however_late() {
        for _ in 0..100 {
            let late = StallWatch::new(Duration::ZERO);
            assert_eq!(late.guard(std::future::ready(7)).await, Ok(7));
        }
    }
}

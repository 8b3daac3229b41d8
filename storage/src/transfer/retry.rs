//! Which failures may pass, and how long to wait for that.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use crate::{Error, pool};

/// Why one attempt failed, and what can be done about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) cause: Cause,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It will not.
    Permanent,
    /// It may, not before `after` if the server said so.
    Transient { after: Option<Duration> },
    /// It may with new credentials. The client has dropped the old ones.
    Credentials,
}

impl Failure {
    /// Repeating is of no use.
    pub(crate) fn permanent(error: Error) -> Self {
        Self {
            error,
            cause: Cause::Permanent,
        }
    }

    /// Whether repeating is of no use.
    pub(crate) fn is_permanent(&self) -> bool {
        self.cause == Cause::Permanent
    }

    /// It may pass by itself.
    pub(crate) fn transient(error: Error) -> Self {
        Self {
            error,
            cause: Cause::Transient { after: None },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::permanent(error)
    }
}

/// How long failures in a row are put up with: the waits double from 0.2 s to 10 s, each a random
/// time longer so that many transfers that broke together do not come back together.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    since: Option<Instant>,
    waits: ExponentialBackoff,
    renewed: bool,
}

impl Patience {
    /// Gives up when failures have lasted for `limit` without progress between them.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            waits: waits(),
            renewed: false,
        }
    }

    /// Something has arrived: what comes now is a new failure.
    pub(crate) fn progress(&mut self) {
        if self.since.is_some() || self.renewed {
            *self = Self::new(self.limit);
        }
    }

    /// Waits until the next attempt makes sense; the failure's error if none does.
    pub(crate) async fn after(&mut self, failure: Failure) -> Result<(), Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let wait = match failure.cause {
            Cause::Permanent => return Err(failure.error),
            Cause::Credentials if self.renewed => return Err(failure.error),
            Cause::Credentials => {
                self.renewed = true;
                return Ok(());
            }
            Cause::Transient { after } => {
                let wait = self.waits.next().unwrap_or(LONGEST);
                wait.max(after.unwrap_or_default())
            }
        };
        if since.elapsed().saturating_add(wait) > self.limit {
            return Err(failure.error);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

const LONGEST: Duration = Duration::from_secs(10);

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(LONGEST)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Repeats `request` as long as its failures may pass, unless it is called off.
pub(crate) async fn persist<R, F>(
    place: &str,
    limit: Duration,
    cancel: &CancellationToken,
    mut request: impl FnMut() -> F,
) -> Result<R, Error>
where
    F: Future<Output = Result<R, Failure>>,
{
    let mut patience = Patience::new(limit);
    let work = async {
        loop {
            match request().await {
                Ok(result) => return Ok(result),
                Err(failure) => patience.after(failure).await?,
            }
        }
    };
    pool::unless_cancelled(place, cancel, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_wants_to_be_left_alone_for_ever_is() {
        let failure = Failure {
            error: pool::interrupted("s3://b/k"),
            cause: Cause::Transient {
                after: Some(Duration::MAX),
            },
        };
        let mut patience = Patience::new(Duration::from_secs(60));
        patience.after(failure).await.unwrap_err();
    }
}

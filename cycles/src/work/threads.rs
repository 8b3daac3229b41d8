//! What an attempt does on threads of their own, since it blocks.

use tokio_util::sync::CancellationToken;

use super::Work;
use crate::Error;

impl Work<'_> {
    /// Runs what blocks and writes nothing on a thread of its own; when told to stop, does not wait for its end.
    pub(super) async fn unless_cancelled<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        tokio::select! {
            done = tokio::task::spawn_blocking(work) => Ok(done?),
            () = self.context.cancel.cancelled() => Err(Error::Interrupted),
        }
    }

    /// Runs what writes into the folders of the attempt on a thread of its own. When told to stop, or when nobody
    /// waits for this any more, the thread is told so; the attempt does not end before it has.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let stop = self.context.cancel.child_token();
        let _guard = stop.clone().drop_guard();
        let writes = std::sync::Arc::clone(&self.writers).read_owned().await;
        let thread = tokio::task::spawn_blocking(move || {
            let done = work(&stop);
            drop(writes);
            done
        });
        tokio::select! {
            done = thread => Ok(done?),
            () = self.context.cancel.cancelled() => Err(Error::Interrupted),
        }
    }

    /// Waits until nothing writes any more: the next attempt has the same folders.
    pub(super) async fn end_writing(&self) {
        let _nobody = self.writers.write().await;
    }
}

/// Does something with many files on a thread of its own, so that what else is under way, such as the next
/// member, does not wait for it.
pub(super) async fn aside(
    work: impl FnOnce() -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    tokio::task::spawn_blocking(work).await?
}

//! Many jobs at once, and an orderly end when one fails or all are called off.

use std::fmt::Display;
use std::future::Future;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Runs `job` for every item, at most `width` at once, each in a task of its own. The results are
/// in the order of the items. After the first error, the jobs under way are called off through
/// the token they were given, and awaited, so that each can clean up.
pub(crate) async fn run_all<T, R, F>(
    uri: &(impl Display + ?Sized),
    items: Vec<T>,
    width: usize,
    cancel: &CancellationToken,
    job: impl Fn(T, CancellationToken) -> F,
) -> Result<Vec<R>, Error>
where
    F: Future<Output = Result<R, Error>> + Send + 'static,
    R: Send + 'static,
{
    let cancel = cancel.child_token();
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let mut waiting = items.into_iter().enumerate();
    let mut running = JoinSet::new();
    let mut first_error = None;
    loop {
        while first_error.is_none() && running.len() < width.max(1) {
            let Some((index, item)) = waiting.next() else {
                break;
            };
            if cancel.is_cancelled() {
                first_error = Some(interrupted(uri));
                break;
            }
            let work = job(item, cancel.clone());
            running.spawn(async move { (index, work.await) });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        match ended {
            Ok((index, Ok(result))) => results[index] = Some(result),
            Ok((_, Err(error))) => {
                cancel.cancel();
                first_error.get_or_insert(error);
            }
            Err(broken) => {
                cancel.cancel();
                first_error.get_or_insert(join_error(uri, &broken));
            }
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => Ok(results.into_iter().flatten().collect()),
    }
}

/// Runs blocking file work on a thread made for it.
pub(crate) async fn blocking<R: Send + 'static>(
    uri: &(impl Display + ?Sized),
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(broken) => Err(join_error(uri, &broken)),
    }
}

/// What `work` comes to, unless it is called off first.
pub(crate) async fn unless_cancelled<R>(
    uri: &(impl Display + ?Sized),
    cancel: &CancellationToken,
    work: impl Future<Output = Result<R, Error>>,
) -> Result<R, Error> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(interrupted(uri)),
        result = work => result,
    }
}

pub(crate) fn interrupted(uri: &(impl Display + ?Sized)) -> Error {
    Error::Interrupted {
        uri: uri.to_string(),
    }
}

fn join_error(uri: &(impl Display + ?Sized), broken: &tokio::task::JoinError) -> Error {
    let reason = if broken.is_panic() {
        "it panicked"
    } else {
        "the runtime was shut down"
    };
    Error::Broken {
        uri: uri.to_string(),
        reason: reason.to_owned(),
    }
}

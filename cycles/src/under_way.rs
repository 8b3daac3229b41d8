//! Which tasks of a plan are under way at once.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;

/// How many tasks that only wait are made up for by others: each looks at its claim now and then.
const MOST_PAUSED: usize = 64;

/// How many of the tasks under way only wait: for another mlwm, or to be tried again. They keep no place from
/// others.
#[derive(Debug, Default)]
pub(crate) struct Paused(watch::Sender<usize>);

/// A task waits as long as this lives.
pub(crate) struct Pause<'a>(&'a Paused);

impl Paused {
    pub(crate) fn begin(&self) -> Pause<'_> {
        self.0.send_modify(|count| *count += 1);
        Pause(self)
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// Does all `tasks`, in their order, `at_once` beside each other and more while some of them wait. What each
/// comes to is in the order in which they end.
pub(crate) async fn all<R>(
    mut tasks: impl Iterator<Item = impl Future<Output = R>>,
    at_once: usize,
    paused: &Paused,
) -> Vec<R> {
    let mut changed = paused.0.subscribe();
    let mut under_way = FuturesUnordered::new();
    let mut ended = Vec::new();
    loop {
        let paused = *changed.borrow_and_update();
        while under_way.len() < at_once + paused.min(MOST_PAUSED) {
            let Some(task) = tasks.next() else { break };
            under_way.push(task);
        }
        if under_way.is_empty() {
            return ended;
        }
        tokio::select! {
            Some(one) = under_way.next() => ended.push(one),
            // Its sender lives as long as this.
            _ = changed.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn no_more_than_asked_for_are_under_way() {
        let (paused, running, most) = (Paused::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let task = async |number: usize| {
            most.fetch_max(
                running.fetch_add(1, Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::Relaxed);
            number
        };
        let mut ended = all((0..20).map(task), 3, &paused).await;
        ended.sort_unstable();
        assert_eq!(ended, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_task_that_waits_keeps_no_place() {
        let (paused, last_is_done) = (Paused::default(), Notify::new());
        // The first waits for what only the last one does: with one at once it would wait for ever.
        let task = async |number: usize| {
            match number {
                0 => {
                    let _pause = paused.begin();
                    last_is_done.notified().await;
                }
                3 => last_is_done.notify_one(),
                _ => {}
            }
            number
        };
        assert_eq!(all((0..4).map(task), 1, &paused).await, [1, 2, 3, 0]);
        assert_eq!(*paused.0.borrow(), 0);
    }

    #[tokio::test]
    async fn of_a_plan_that_another_does_not_every_task_is_looked_at() {
        let (paused, begun) = (Paused::default(), AtomicUsize::new(0));
        let task = async |_: usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            let _pause = paused.begin();
            std::future::pending::<()>().await;
        };
        let waiting = all((0..10_000).map(task), 2, &paused);
        let stopped = tokio::time::timeout(std::time::Duration::from_millis(200), waiting).await;
        stopped.unwrap_err();
        assert_eq!(begun.load(Ordering::Relaxed), MOST_PAUSED + 2);
    }
}

//! Space in the working folder: reserved before it is used, so that the folder never holds more than it may.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The space of a working folder.
#[derive(Debug)]
pub(crate) struct Disk {
    budget: u64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    reserved: u64,
    /// Of that, for inputs of members that one container serves, and for their windows.
    of_inputs: u64,
    of_windows: u64,
    /// By task, what lies there of attempts that are over: what of it is reserved, and what is held.
    left: BTreeMap<usize, Left>,
    /// Bytes that lie there, as far as they are counted, and the most that ever did.
    held: u64,
    most: u64,
}

/// What an attempt left.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    reserved: u64,
    held: u64,
    /// No other attempt at its task will come.
    is_over: bool,
}

/// Space that is reserved; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Space<'a> {
    disk: &'a Disk,
    bytes: u64,
    of: Of,
}

/// What space is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Inputs,
    Windows,
    Else,
}

/// Bytes that are counted as long as this lives.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    disk: &'a Disk,
    bytes: u64,
}

impl Disk {
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// What may be used in all, in bytes.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Waits until so many bytes are free, and `left` remain; for all that there is if that is less.
    pub(crate) async fn reserve(&self, bytes: u64, left: u64) -> Space<'_> {
        let bytes = bytes.min(self.budget);
        loop {
            // Registered before looking, so that no change between the two is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(space) = self.try_reserve(bytes, left) {
                return space;
            }
            if self.has_only_leftovers() {
                // They may stay for long: it is as if it were alone.
                self.state().reserved += bytes;
                return Space {
                    disk: self,
                    bytes,
                    of: Of::Else,
                };
            }
            changed.await;
        }
    }

    /// The same for the inputs of a member that a container serves with others. `None` if they will not be free: what
    /// attempts left that are over takes too much.
    pub(crate) async fn reserve_for_inputs(&self, bytes: u64, left: u64) -> Option<Space<'_>> {
        let bytes = bytes.min(self.budget);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(space) = self.try_reserve(bytes, left) {
                return Some(space.of(Of::Inputs));
            }
            if self.has_only_leftovers() {
                break;
            }
            changed.await;
        }
        // Without space for a window beside them, if there is that much.
        Some(self.try_reserve(bytes, 0)?.of(Of::Inputs))
    }

    /// Waits until so many bytes are free for a window of the member that is served, which keeps `kept` bytes of
    /// earlier ones. `None` if they will not be: all that is reserved is that, what attempts left that are over, and
    /// for inputs, which wait for this member; or if windows before it could not be sent.
    pub(crate) async fn reserve_for_window(
        &self,
        bytes: u64,
        kept: u64,
        is_held_up: impl Fn() -> bool,
    ) -> Option<Space<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(space) = self.try_reserve(bytes, 0) {
                return Some(space.of(Of::Windows));
            }
            {
                let state = self.state();
                let stays = state.of_inputs + state.left_behind() + kept;
                if state.reserved == stays || is_held_up() {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Reserves all that is free, for the first window of members of which it is not known how large one is, as soon
    /// as there are no windows of others. `None` if nothing is free then.
    pub(crate) async fn reserve_rest(&self) -> Option<Space<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.of_windows == 0 {
                    let bytes = self.budget.saturating_sub(state.reserved);
                    state.reserved += bytes;
                    state.of_windows += bytes;
                    return (bytes > 0).then(|| Space {
                        disk: self,
                        bytes,
                        of: Of::Windows,
                    });
                }
            }
            changed.await;
        }
    }

    /// The same, if it need not be waited for.
    pub(crate) fn try_reserve(&self, bytes: u64, left: u64) -> Option<Space<'_>> {
        let mut state = self.state();
        let needed = state.reserved.saturating_add(bytes).saturating_add(left);
        let fits = needed <= self.budget || state.reserved == 0 || bytes == 0;
        fits.then(|| {
            state.reserved += bytes;
            Space {
                disk: self,
                bytes,
                of: Of::Else,
            }
        })
    }

    /// What is reserved for windows that are written or being sent.
    pub(crate) fn for_windows(&self) -> u64 {
        self.state().of_windows
    }

    /// Whether all that is reserved is for what attempts left that are over.
    fn has_only_leftovers(&self) -> bool {
        let state = self.state();
        state.reserved > 0 && state.reserved == state.left_behind()
    }

    /// Has those look again who wait for space: it is used otherwise than it was.
    pub(crate) fn look_again(&self) {
        self.changed.notify_waiters();
    }

    /// The space of what an attempt at a task left, and the count of it.
    pub(crate) fn left_of(&self, turn: usize) -> (Space<'_>, Held<'_>) {
        let left = self.state().left.remove(&turn);
        let left = left.unwrap_or_default();
        let space = Space {
            disk: self,
            bytes: left.reserved,
            of: Of::Else,
        };
        let held = Held {
            disk: self,
            bytes: left.held,
        };
        (space, held)
    }

    /// What lies there of a task since an earlier run.
    pub(crate) fn found(&self, turn: usize, bytes: u64) {
        let mut state = self.state();
        state.reserved += bytes;
        let left = Left {
            reserved: bytes,
            held: bytes,
            is_over: false,
        };
        state.left.insert(turn, left);
        state.count(bytes);
    }

    /// No other attempt at a task will come: what it left stays.
    pub(crate) fn is_over(&self, turn: usize) {
        if let Some(left) = self.state().left.get_mut(&turn) {
            left.is_over = true;
        }
        self.look_again();
    }

    /// Comes back when space is used otherwise than it was.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Counts bytes that lie there.
    pub(crate) fn hold(&self, bytes: u64) -> Held<'_> {
        self.state().count(bytes);
        Held { disk: self, bytes }
    }

    /// Bytes that are counted now.
    pub(crate) fn held(&self) -> u64 {
        self.state().held
    }

    /// So many bytes were there at once.
    pub(crate) fn count_most(&self, bytes: u64) {
        let mut state = self.state();
        state.most = state.most.max(bytes);
    }

    /// The most bytes that were counted at once.
    pub(crate) fn most_held(&self) -> u64 {
        self.state().most
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, bytes: u64) {
        self.held += bytes;
        self.most = self.most.max(self.held);
    }

    /// What is reserved for what attempts left that are over.
    fn left_behind(&self) -> u64 {
        let over = self.left.values().filter(|left| left.is_over);
        over.map(|left| left.reserved).sum()
    }

    /// What is counted of a kind of space.
    fn of(&mut self, kind: Of) -> Option<&mut u64> {
        match kind {
            Of::Inputs => Some(&mut self.of_inputs),
            Of::Windows => Some(&mut self.of_windows),
            Of::Else => None,
        }
    }
}

impl Space<'_> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same, which was for nothing in particular, for something.
    fn of(mut self, kind: Of) -> Self {
        self.of = kind;
        if let Some(counted) = self.disk.state().of(kind) {
            *counted += self.bytes;
        }
        self
    }

    /// What it is for stays when the attempt at its task is over.
    pub(crate) fn leave(mut self, turn: usize, held: Held<'_>) {
        let mut state = self.disk.state();
        if let Some(counted) = state.of(self.of) {
            *counted -= self.bytes;
        }
        let left = state.left.entry(turn).or_default();
        left.reserved += std::mem::take(&mut self.bytes);
        left.held += held.bytes();
        drop(state);
        std::mem::forget(held);
        self.disk.changed.notify_waiters();
    }

    /// Gives back what is more than so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        let mut state = self.disk.state();
        state.reserved -= more;
        if let Some(counted) = state.of(self.of) {
            *counted -= more;
        }
        drop(state);
        self.disk.changed.notify_waiters();
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl Held<'_> {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.disk.state().held -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_free(disk: &Disk, bytes: u64, left: u64) -> bool {
        let space = disk.reserve(bytes, left);
        tokio::time::timeout(Duration::from_millis(20), space)
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn space_is_for_as_much_as_fits() {
        let disk = Disk::new(100);
        let first = disk.reserve(60, 0).await;
        assert!(is_free(&disk, 40, 0).await);
        assert!(!is_free(&disk, 41, 0).await);
        assert!(!is_free(&disk, 30, 11).await, "some must remain");
        drop(first);
        assert!(is_free(&disk, 1000, 0).await, "alone");
        disk.found(0, 200);
        assert!(is_free(&disk, 0, 0).await, "nothing is always free");
    }

    #[tokio::test]
    async fn what_turns_out_smaller_makes_room() {
        let disk = Disk::new(100);
        let _inputs = disk.reserve(30, 0).await;
        let mut all = disk.reserve_rest().await.unwrap();
        assert!(!is_free(&disk, 1, 0).await);
        all.shrink_to(20);
        assert!(is_free(&disk, 50, 0).await);
        assert!(!is_free(&disk, 51, 0).await);
    }

    /// What is staged ahead waits for the member that is served: that one must not wait for it.
    #[tokio::test]
    async fn a_window_that_only_inputs_keep_from_its_space_is_refused_and_not_waited_for() {
        let disk = Disk::new(100);
        let _served = disk.reserve_for_inputs(20, 0).await;
        let ahead = disk.reserve_for_inputs(30, 0).await;
        let window = disk.reserve_for_window(40, 0, || false).await.unwrap();
        let waits = disk.reserve_for_window(40, 0, || false);
        let waited = tokio::time::timeout(Duration::from_millis(20), waits).await;
        assert!(waited.is_err(), "the window before it goes away");
        assert!(disk.reserve_for_window(40, 0, || true).await.is_none());
        drop(window);
        assert!(disk.reserve_for_window(51, 0, || false).await.is_none());
        drop(ahead);
        assert!(disk.reserve_for_window(51, 0, || false).await.is_some());
    }

    /// What is kept until it takes the place of something published does not go away while the member is served.
    #[tokio::test]
    async fn a_window_that_those_before_it_keep_from_its_space_is_refused_and_not_waited_for() {
        let disk = Disk::new(100);
        let _served = disk.reserve_for_inputs(20, 0).await;
        let mut kept = disk.reserve_for_window(60, 0, || false).await.unwrap();
        kept.shrink_to(50);
        assert!(disk.reserve_for_window(30, 50, || false).await.is_some());
        assert!(disk.reserve_for_window(31, 50, || false).await.is_none());
    }

    /// Otherwise the model would write its first window where there is no space for it.
    #[tokio::test]
    async fn a_window_of_unknown_size_waits_for_those_of_others() {
        let disk = Disk::new(100);
        let others = disk.reserve_for_window(100, 0, || false).await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(20), disk.reserve_rest()).await;
        assert!(waited.is_err());
        let freed = async {
            tokio::task::yield_now().await;
            drop(others);
        };
        let (rest, ()) = tokio::join!(disk.reserve_rest(), freed);
        assert_eq!(rest.unwrap().bytes(), 100);
        let _inputs = disk.reserve_for_inputs(100, 0).await;
        assert!(disk.reserve_rest().await.is_none(), "there is nothing left");
    }

    /// What could not be sent stays when its task has failed: others do not take its space, nor wait for it for ever.
    #[tokio::test]
    async fn what_an_attempt_leaves_keeps_its_space_until_the_next() {
        let disk = Disk::new(100);
        let window = disk.reserve_for_window(60, 0, || false).await.unwrap();
        let other = disk.reserve(10, 0).await;
        window.leave(3, disk.hold(50));
        let waits = tokio::time::timeout(Duration::from_millis(20), disk.reserve_for_inputs(41, 0));
        assert!(waits.await.is_err(), "the next attempt may come soon");
        disk.is_over(3);
        assert!(!is_free(&disk, 41, 0).await);
        drop(other);
        assert!(disk.reserve_for_inputs(41, 0).await.is_none());
        let inputs = disk.reserve_for_inputs(30, 20).await.unwrap();
        assert!(disk.reserve_for_window(20, 0, || false).await.is_none());
        assert!(disk.reserve_for_window(10, 0, || false).await.is_some());
        drop(inputs);
        assert!(is_free(&disk, 90, 0).await, "as if it were alone");
        let (space, held) = disk.left_of(3);
        assert_eq!((space.bytes(), held.bytes()), (60, 50));
        drop((space, held));
        assert!(is_free(&disk, 100, 0).await);
        assert_eq!(disk.left_of(3).0.bytes(), 0);
    }

    #[test]
    fn the_most_that_was_held_is_kept() {
        let disk = Disk::new(100);
        let one = disk.hold(30);
        drop(disk.hold(20));
        drop(one);
        drop(disk.hold(40));
        assert_eq!(disk.most_held(), 50);
    }
}

//! How far a transfer has come.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// What a transfer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Bringing objects from a store to a local folder.
    Staging,
    /// Reading local files to know their digests.
    Hashing,
    /// Bringing local files to a store.
    Uploading,
    /// Reading a published output again.
    Verifying,
    /// Bringing one object to a local file.
    Downloading,
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressEvent {
    /// What is being done.
    pub phase: Phase,
    /// Bytes that have arrived: written and hashed, or acknowledged by the store.
    pub done_bytes: u64,
    /// Those of them that were there before: nothing was moved for them now.
    pub kept_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Objects that are complete.
    pub done_objects: u64,
    /// Objects in all.
    pub total_objects: u64,
}

/// Receives [`ProgressEvent`]s, from several threads but one at a time.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(ProgressEvent) + Send + Sync>);

impl Progress {
    /// Calls `report` after every step; it must be quick.
    pub fn new(report: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    /// Tells where a transfer is that is done by somebody else.
    pub fn report(&self, event: ProgressEvent) {
        (self.0)(event);
    }

    /// Nobody is looking.
    pub fn none() -> Self {
        Self::new(|_| ())
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// Counts one transfer. Events never go backwards.
#[derive(Clone)]
pub(crate) struct Counter {
    progress: Progress,
    now: Arc<Mutex<ProgressEvent>>,
}

impl Counter {
    /// Starts to count objects of these sizes.
    pub(crate) fn start(
        progress: &Progress,
        phase: Phase,
        sizes: impl ExactSizeIterator<Item = u64>,
    ) -> Self {
        let total_objects = sizes.len() as u64;
        let counter = Self {
            progress: progress.clone(),
            now: Arc::new(Mutex::new(ProgressEvent {
                phase,
                done_bytes: 0,
                kept_bytes: 0,
                total_bytes: sizes.sum(),
                done_objects: 0,
                total_objects,
            })),
        };
        counter.step(|_| ());
        counter
    }

    /// This many bytes have arrived.
    pub(crate) fn bytes(&self, count: u64) {
        self.step(|now| now.done_bytes += count);
    }

    /// This many bytes in all have arrived.
    pub(crate) fn reach(&self, count: u64) {
        self.step(|now| now.done_bytes = now.done_bytes.max(count));
    }

    /// This many more bytes were there before.
    pub(crate) fn kept(&self, count: u64) {
        self.step(|now| {
            now.done_bytes += count;
            now.kept_bytes += count;
        });
    }

    /// This many bytes in all are there, and those that were not counted yet were there before.
    pub(crate) fn reach_kept(&self, count: u64) {
        self.step(|now| {
            now.kept_bytes += count.saturating_sub(now.done_bytes);
            now.done_bytes = now.done_bytes.max(count);
        });
    }

    /// An object is complete.
    pub(crate) fn object(&self) {
        self.step(|now| now.done_objects += 1);
    }

    fn step(&self, change: impl FnOnce(&mut ProgressEvent)) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut now);
        (self.progress.0)(*now);
    }
}

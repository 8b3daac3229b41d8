//! How far a transfer has come.

use std::fmt;
use std::sync::Arc;

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
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressEvent {
    /// What is being done.
    pub phase: Phase,
    /// Bytes that have arrived: written and hashed, or acknowledged by the store.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Objects that are complete.
    pub done_objects: u64,
    /// Objects in all.
    pub total_objects: u64,
}

/// Receives [`ProgressEvent`]s, from several threads at once.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(ProgressEvent) + Send + Sync>);

impl Progress {
    /// Calls `report` after every step; it must be quick.
    pub fn new(report: impl Fn(ProgressEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
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

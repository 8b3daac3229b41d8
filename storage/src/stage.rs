//! Staging.
use std::path::Path;
use mlwm_spec::Digest;
use mlwm_spec::manifest::ObjectRecord;
use tokio_util::sync::CancellationToken;
use crate::{Error, Progress, Store, Uri};

/// What was staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Every object, ordered by path.
    pub objects: Vec<ObjectRecord>,
    /// Digest over what the store's listing said.
    pub listing: Digest,
    /// Digest over path, size and SHA-256 of every object.
    pub digest: Digest,
    /// Bytes in all.
    pub bytes: u64,
}

/// Brings everything below `uri` into the folder `dest`.
pub async fn stage(uri: &Uri, dest: &Path, progress: &Progress, cancel: &CancellationToken) -> Result<Staged, Error> {
    Store::open(uri).await?.stage(uri, dest, progress, cancel).await
}
impl Store {
    /// Brings everything below `uri` into the folder `dest`.
    pub async fn stage(&self, _uri: &Uri, _dest: &Path, _progress: &Progress, _cancel: &CancellationToken) -> Result<Staged, Error> { todo!() }
}

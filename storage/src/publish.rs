//! Publishing.
use std::path::Path;
use mlwm_spec::{Digest, Manifest};
use mlwm_spec::manifest::ObjectRecord;
use tokio_util::sync::CancellationToken;
use crate::{Error, Progress, Store, Uri};

/// How a publication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was published now.
    Published,
    /// The same task had published the same objects before.
    AlreadyPublished,
}

/// A published output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// How it ended.
    pub outcome: Outcome,
    /// The manifest that is there now.
    pub manifest: Manifest,
    /// Bytes in all.
    pub bytes: u64,
}

/// Publishes the files below the folder `local` at `uri`, all or nothing. `make_manifest` gets
/// every object, ordered by path, and must return a manifest with them and with `task`.
pub async fn publish(local: &Path, uri: &Uri, task: Digest, make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send, progress: &Progress, cancel: &CancellationToken) -> Result<Published, Error> {
    Store::open(uri).await?.publish(local, uri, task, make_manifest, progress, cancel).await
}
impl Store {
    /// As the function [`publish`].
    pub async fn publish(&self, _local: &Path, _uri: &Uri, _task: Digest, _make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send, _progress: &Progress, _cancel: &CancellationToken) -> Result<Published, Error> { todo!() }
}

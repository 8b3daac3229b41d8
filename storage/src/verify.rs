//! Verifying.
use mlwm_spec::Manifest;
use tokio_util::sync::CancellationToken;
use crate::{Error, Progress, Store, Uri};

/// A published output that is what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Reads the output published at `uri` again and compares it with its manifest.
pub async fn verify(uri: &Uri, progress: &Progress, cancel: &CancellationToken) -> Result<Verified, Error> {
    Store::open(uri).await?.verify(uri, progress, cancel).await
}
impl Store {
    /// As the function [`verify`].
    pub async fn verify(&self, _uri: &Uri, _progress: &Progress, _cancel: &CancellationToken) -> Result<Verified, Error> { todo!() }
}

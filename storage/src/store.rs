//! One store.
use std::time::Duration;
use mlwm_spec::{Digest, Manifest};
use crate::{Error, Uri};

/// How a store is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Objects in flight at once.
    pub in_flight: usize,
    /// Bytes of a part.
    pub part_bytes: u64,
    /// Memory.
    pub memory_bytes: u64,
    /// Longest silence.
    pub stall: Duration,
    /// Retry for.
    pub retry_for: Duration,
    /// S3 access; None: environment.
    pub s3: Option<S3Access>,
}
impl Default for Options {
    fn default() -> Self { todo!() }
}
/// How to reach S3.
#[derive(Clone, Debug)]
pub struct S3Access {}

/// One store: a file system or a bucket.
#[derive(Clone)]
pub struct Store {}

/// One object as a store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path below the URI that was listed, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: Option<String>,
    /// Modification time, microseconds since 1970-01-01.
    pub modified: i64,
}

/// What a listing amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Digest over path, size and entity tag or modification time of every object.
    pub digest: Digest,
    /// Number of objects.
    pub objects: u64,
    /// Bytes in all.
    pub bytes: u64,
}

impl Store {
    /// Opens the store that holds `uri`.
    pub async fn open(_uri: &Uri) -> Result<Self, Error> { todo!() }
    /// Opens the store that holds `uri`.
    pub async fn open_with(_uri: &Uri, _options: Options) -> Result<Self, Error> { todo!() }
    /// Everything below `uri`, sorted by path; empty if there is nothing.
    pub async fn list(&self, _uri: &Uri) -> Result<Vec<Listed>, Error> { todo!() }
    /// The content of one small object, `None` if there is none.
    pub async fn get(&self, _uri: &Uri, _limit: u64) -> Result<Option<Vec<u8>>, Error> { todo!() }
    /// The manifest of the output at `uri`, `None` if it is not published.
    pub async fn manifest(&self, _uri: &Uri) -> Result<Option<Manifest>, Error> { todo!() }
    /// What the listing of `uri` amounts to.
    pub async fn listing_digest(&self, _uri: &Uri) -> Result<Listing, Error> { todo!() }
}

/// What the listing of `uri` amounts to.
pub async fn listing_digest(uri: &Uri) -> Result<Listing, Error> {
    Store::open(uri).await?.listing_digest(uri).await
}

//! One store: what can be done with its objects, whichever kind it is.

mod listing;
mod transfers;
mod writable;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use mlwm_spec::Digest;
use mlwm_spec::manifest::{MANIFEST_SUFFIX, Manifest};
use mlwm_spec::patience::{DEFAULT_PATIENCE, PATIENCE, patience};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::listing::{Listed, Listing};
use crate::gcs::Gcs;
use crate::progress::Counter;
use crate::s3::S3;
use crate::tree::LocalFile;
use crate::{Error, GcsAccess, S3Access, Scheme, Uri, local, pool};

/// Parts of one big object that are read ahead, or are on their way to the store, at once.
pub(crate) const PARTS_AT_ONCE: usize = 4;

/// A manifest of a million objects has about 150 bytes for each.
const MANIFEST_LIMIT: u64 = 512 << 20;

/// How a store is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Objects that are transferred at once. Small objects wait for the server more than they
    /// move: against Garage on one machine, 10,000 objects of 50 kB came down in 14 s with 32 at
    /// once and in 9 s with 64 or 128. Memory is bounded apart from this.
    pub in_flight: usize,
    /// Larger objects are transferred in parts of this many bytes; at least 5 MiB, as S3 wants.
    pub part_bytes: u64,
    /// Bytes of objects that may be in memory at once.
    pub memory_bytes: u64,
    /// Silence after which a download is given up and begun again.
    pub stall: Duration,
    /// How long a request that fails in a way that may pass is repeated.
    pub retry_for: Duration,
    /// How often a publication looks whether another one has taken over its place.
    pub watch: Duration,
    /// Where S3 is and who asks; `None`: as the environment says.
    pub s3: Option<S3Access>,
    /// Where Google Cloud Storage is and who asks; `None`: as the environment says.
    pub gcs: Option<GcsAccess>,
}

impl Options {
    /// What the environment says: `MLWM_PATIENCE` is how long requests that fail are repeated, and
    /// half of it how long a store may say nothing.
    pub fn from_environment() -> Result<Self, Error> {
        let value = std::env::var_os(PATIENCE).unwrap_or_default();
        let value = value.to_string_lossy();
        let retry_for = patience(Some(&value)).map_err(|reason| Error::Settings {
            reason: format!("{PATIENCE} is `{value}`: {reason}"),
        })?;
        Ok(Self {
            stall: retry_for / 2,
            retry_for,
            ..Self::default()
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            in_flight: 64,
            part_bytes: 8 << 20,
            memory_bytes: 64 << 20,
            stall: DEFAULT_PATIENCE / 2,
            retry_for: DEFAULT_PATIENCE,
            watch: Duration::from_secs(1),
            s3: None,
            gcs: None,
        }
    }
}

/// One store: the local file system, or a bucket. Clones share connections and limits.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
    pub(crate) options: Arc<Options>,
    memory: Arc<Semaphore>,
}

#[derive(Clone)]
enum Backend {
    File,
    S3(Arc<S3>),
    Gcs(Arc<Gcs>),
}

/// What there is to stage.
pub(crate) struct Found {
    /// What the paths of the objects are below of: the URI itself, or what it lies in if it is an object.
    pub(crate) folder: Uri,
    pub(crate) listed: Vec<Listed>,
}

/// An object as it arrived in the store.
pub(crate) struct Uploaded {
    pub(crate) sha256: Digest,
    /// As the store will list it ([`Listed::version`]), if it said so.
    pub(crate) version: Option<String>,
}

impl Store {
    /// Opens the store that holds `uri`, with the settings of the environment.
    pub async fn open(uri: &Uri) -> Result<Self, Error> {
        Self::open_with(uri, Options::from_environment()?).await
    }

    /// Opens the store that holds `uri`.
    pub async fn open_with(uri: &Uri, options: Options) -> Result<Self, Error> {
        let bucket = uri.bucket().unwrap_or_default();
        let backend = match uri.scheme() {
            Scheme::File => Backend::File,
            Scheme::Gs => {
                let access = match &options.gcs {
                    Some(access) => access.clone(),
                    None => GcsAccess::from_environment()?,
                };
                Backend::Gcs(Arc::new(Gcs::open(bucket, access, &options)?))
            }
            Scheme::S3 => {
                let access = match &options.s3 {
                    Some(access) => access.clone(),
                    None => S3Access::from_environment().await?,
                };
                Backend::S3(Arc::new(S3::open(bucket, access, &options)?))
            }
        };
        let memory = Arc::new(Semaphore::new(kibibytes(options.memory_bytes) as usize));
        Ok(Self {
            backend,
            options: Arc::new(options),
            memory,
        })
    }

    /// Every object below `uri`, ordered by path; empty if there is none.
    pub async fn list(&self, uri: &Uri) -> Result<Vec<Listed>, Error> {
        match self.place(uri)? {
            Place::File(folder) => {
                let uri = uri.clone();
                pool::blocking(&uri.clone(), move || local::list(&uri, &folder)).await
            }
            Place::S3(s3) => s3.list(uri, self.options.in_flight).await,
            Place::Gcs(gcs) => gcs.list(uri).await,
        }
    }

    /// What there is to stage of `uri`: every object below it, or else the object at it.
    pub(crate) async fn find(&self, uri: &Uri) -> Result<Option<Found>, Error> {
        // A folder's files can be listed, those of a file not; the other stores have no folders.
        let is_file = matches!(self.backend, Backend::File) && self.head(uri).await?.is_some();
        let listed = match is_file {
            true => Vec::new(),
            false => self.list(uri).await?,
        };
        if !listed.is_empty() {
            let folder = uri.clone();
            return Ok(Some(Found { folder, listed }));
        }
        let Some(folder) = uri.parent() else {
            return Ok(None);
        };
        let object = self.head(uri).await?;
        Ok(object.map(|object| Found {
            folder,
            listed: vec![object],
        }))
    }

    /// What the listing of all that there is to stage of `uri` amounts to.
    pub async fn listing_digest(&self, uri: &Uri) -> Result<Listing, Error> {
        let found = self.find(uri).await?;
        let listed = found.map(|found| found.listed).unwrap_or_default();
        Ok(Listing::of(&listed))
    }

    /// The content of the object at `uri`, which may have at most `limit` bytes; `None` if there
    /// is none.
    pub async fn get(&self, uri: &Uri, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.place(uri)? {
            Place::File(path) => {
                let uri = uri.clone();
                pool::blocking(&uri.clone(), move || local::read_small(&uri, &path, limit)).await
            }
            Place::S3(s3) => s3.read_small(uri, limit).await,
            Place::Gcs(gcs) => gcs.read_small(uri, limit).await,
        }
    }

    /// The manifest of the output at `uri`; `None` if none is published there.
    pub async fn manifest(&self, uri: &Uri) -> Result<Option<Manifest>, Error> {
        let place = uri.sibling_suffix(MANIFEST_SUFFIX);
        let Some(bytes) = self.get(&place, MANIFEST_LIMIT).await? else {
            return Ok(None);
        };
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| Error::BadManifest {
                uri: place.to_string(),
                reason: error.to_string(),
            })?;
        let known = mlwm_spec::manifest::MANIFEST_VERSION;
        if manifest.version != known {
            return Err(Error::BadManifest {
                uri: place.to_string(),
                reason: format!(
                    "its version is {}, but this mlwm knows {known}",
                    manifest.version
                ),
            });
        }
        Ok(Some(manifest))
    }

    /// Reads an object from first to last byte and gives it to `take` in parts, on a thread for
    /// blocking work. At most [`PARTS_AT_ONCE`] parts are read ahead, and all transfers of the
    /// store together hold no more than its memory.
    pub(crate) async fn read<S: Send + 'static>(
        &self,
        uri: &Uri,
        object: &Listed,
        mut state: S,
        take: fn(&mut S, &[Bytes]) -> Result<(), Error>,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<S, Error> {
        let parts = parts(object.size, self.options.part_bytes);
        // Memory is asked for in the order of the parts: a part never waits for one behind it.
        let mut arriving = futures::stream::iter(parts)
            .then(|(start, length)| {
                let store = self.clone();
                async move { (start, length, store.memory(length).await) }
            })
            .map(|(start, length, memory)| {
                let (store, uri, object) = (self.clone(), uri.clone(), object.clone());
                async move { Ok((store.read_part(&uri, object, start, length).await?, memory)) }
            })
            .buffered(PARTS_AT_ONCE)
            .boxed();
        while let Some((part, memory)) =
            pool::unless_cancelled(uri, cancel, arriving.try_next()).await?
        {
            let count: u64 = part.iter().map(|piece| piece.len() as u64).sum();
            state = pool::blocking(uri, move || {
                take(&mut state, &part)?;
                Ok(state)
            })
            .await?;
            drop(memory);
            counter.bytes(count);
        }
        counter.object();
        Ok(state)
    }

    async fn read_part(
        &self,
        uri: &Uri,
        object: Listed,
        start: u64,
        length: u64,
    ) -> Result<Vec<Bytes>, Error> {
        match self.place(uri)? {
            Place::File(folder) => {
                pool::blocking(uri, move || {
                    local::read_part(&folder, &object, start, length)
                })
                .await
            }
            Place::S3(s3) => s3.read_part(uri, &object, start, length).await,
            Place::Gcs(gcs) => gcs.read_part(uri, &object, start, length).await,
        }
    }

    /// Brings a local file to `target`; its digest is that of the bytes that were sent.
    pub(crate) async fn upload(
        &self,
        target: &Uri,
        source: LocalFile,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<Uploaded, Error> {
        let uploaded = match self.place(target)? {
            Place::File(path) => {
                let (uri, counter, cancel) = (target.clone(), counter.clone(), cancel.clone());
                pool::blocking(target, move || {
                    local::upload(&uri, &source, &path, &counter, &cancel)
                })
                .await?
            }
            Place::S3(s3) => s3.upload(self, target, source, counter, cancel).await?,
            Place::Gcs(gcs) => gcs.upload(self, target, source, counter, cancel).await?,
        };
        counter.object();
        Ok(uploaded)
    }

    /// Writes a small object in place of whatever is there.
    pub async fn put(&self, uri: &Uri, bytes: Vec<u8>) -> Result<(), Error> {
        match self.place(uri)? {
            Place::File(path) => pool::blocking(uri, move || local::put(&path, &bytes)).await,
            Place::S3(s3) => s3.put(uri, bytes.into()).await,
            Place::Gcs(gcs) => gcs.put(uri, bytes.into()).await.map(|_| ()),
        }
    }

    /// Writes a small object unless there is one; whether it did. A store that has no conditional
    /// write replaces what is there.
    pub async fn create(&self, uri: &Uri, bytes: Vec<u8>) -> Result<bool, Error> {
        match self.place(uri)? {
            Place::File(path) => pool::blocking(uri, move || local::create(&path, &bytes)).await,
            Place::S3(s3) => s3.create(uri, bytes.into()).await,
            Place::Gcs(gcs) => gcs.create(uri, bytes.into()).await,
        }
    }

    /// Ends uploads in parts of objects below `uri` that were never completed: they cost space that nobody sees.
    pub(crate) async fn end_uploads(&self, uri: &Uri) -> Result<(), Error> {
        match self.place(uri)? {
            Place::S3(s3) => s3.end_uploads(uri, &self.options).await,
            // A file is put aside under a name that is listed; Google forgets them by itself.
            Place::File(_) | Place::Gcs(_) => Ok(()),
        }
    }

    /// Removes objects below `uri`.
    pub(crate) async fn delete(&self, uri: &Uri, names: Vec<String>) -> Result<(), Error> {
        match self.place(uri)? {
            Place::File(folder) => {
                pool::blocking(uri, move || local::delete(&folder, &names)).await
            }
            Place::S3(s3) => s3.delete(uri, &names).await,
            Place::Gcs(gcs) => gcs.delete(uri, &names, self.options.in_flight).await,
        }
    }

    /// Removes the object at `uri`, if there is one.
    pub async fn remove(&self, uri: &Uri) -> Result<(), Error> {
        match self.place(uri)? {
            Place::File(path) => pool::blocking(uri, move || local::remove(&path)).await,
            Place::S3(s3) => s3.remove(uri).await,
            Place::Gcs(gcs) => gcs.remove(uri).await,
        }
    }

    /// Removes the temporary files that killed writers of the object at `uri` left behind.
    pub(crate) async fn remove_temporaries(&self, uri: &Uri) -> Result<(), Error> {
        match self.place(uri)? {
            Place::File(path) => {
                pool::blocking(uri, move || local::remove_temporaries(&path)).await
            }
            Place::S3(_) | Place::Gcs(_) => Ok(()),
        }
    }

    /// Makes objects below `uri` durable, where the store does not do that by itself.
    pub(crate) async fn sync(&self, uri: &Uri, names: Vec<String>) -> Result<(), Error> {
        match self.place(uri)? {
            Place::File(folder) => {
                pool::blocking(uri, move || local::sync_folders(&folder, &names)).await
            }
            Place::S3(_) | Place::Gcs(_) => Ok(()),
        }
    }

    /// Leave to hold `length` bytes in memory.
    pub(crate) async fn memory(&self, length: u64) -> Option<OwnedSemaphorePermit> {
        let most = kibibytes(self.options.memory_bytes);
        let wanted = kibibytes(length).min(most);
        // The semaphore is never closed; without a permit there is merely no limit.
        Arc::clone(&self.memory)
            .acquire_many_owned(wanted)
            .await
            .ok()
    }

    fn place(&self, uri: &Uri) -> Result<Place<'_>, Error> {
        match (&self.backend, uri.scheme(), uri.bucket()) {
            (Backend::File, Scheme::File, _) => {
                Ok(Place::File(uri.local_path().unwrap_or_default()))
            }
            (Backend::S3(s3), Scheme::S3, Some(bucket)) if s3.bucket() == bucket => {
                Ok(Place::S3(s3))
            }
            (Backend::Gcs(gcs), Scheme::Gs, Some(bucket)) if gcs.bucket() == bucket => {
                Ok(Place::Gcs(gcs))
            }
            _ => Err(Error::InvalidUri {
                uri: uri.to_string(),
                reason: format!("it is not in the opened store, {self:?}"),
            }),
        }
    }
}

enum Place<'a> {
    File(PathBuf),
    S3(&'a S3),
    Gcs(&'a Gcs),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Backend::File => f.write_str("file://"),
            Backend::S3(s3) => write!(f, "s3://{}", s3.bucket()),
            Backend::Gcs(gcs) => write!(f, "gs://{}", gcs.bucket()),
        }
    }
}

/// What the listing of `uri` amounts to, with the settings of the environment.
pub async fn listing_digest(uri: &Uri) -> Result<Listing, Error> {
    Store::open(uri).await?.listing_digest(uri).await
}

/// Start and length of the parts of an object; an empty object has one empty part.
pub(crate) fn parts(size: u64, part: u64) -> Vec<(u64, u64)> {
    let part = part.max(1);
    let count = size.div_ceil(part).max(1);
    (0..count)
        .map(|index| (index * part, part.min(size - index * part)))
        .collect()
}

fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .clamp(1, 1 << 28)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_an_object_without_gap_or_overlap() {
        assert_eq!(parts(0, 10), [(0, 0)]);
        assert_eq!(parts(10, 10), [(0, 10)]);
        for size in 1..60 {
            let mut next = 0;
            for (start, length) in parts(size, 7) {
                assert_eq!(start, next);
                assert!((1..=7).contains(&length));
                next += length;
            }
            assert_eq!(next, size);
        }
    }

    #[test]
    fn the_futures_can_be_spawned() {
        fn can_be_sent<T: Send>(_: T) {}
        let uri: Uri = "/tmp/x".parse().unwrap();
        let (progress, cancel) = (crate::Progress::none(), CancellationToken::new());
        can_be_sent(crate::stage(&uri, "/tmp/y".as_ref(), &progress, &cancel));
        can_be_sent(crate::verify(&uri, &progress, &cancel));
        can_be_sent(listing_digest(&uri));
    }
}

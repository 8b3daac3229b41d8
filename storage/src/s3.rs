//! A bucket behind the S3 protocol, through `object_store`.

mod multipart;
mod resumable;
mod upload;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutPayload, RetryConfig,
};

use self::wire::Wire;
use crate::credentials::Chain;
use crate::fault::{self, Request};
use crate::store::Options;
use crate::transfer::http;
use crate::{Error, Listed, S3Access, Uri};

/// How often a download is begun again after its connection broke.
const RESTARTS: u32 = 6;

/// S3 takes no parts below this size, but for the last.
const SMALLEST_PART: u64 = 5 << 20;

/// S3 takes no more parts of one object.
const MOST_PARTS: u64 = 10_000;

/// One bucket.
pub(crate) struct S3 {
    /// For requests without a body, which are answered soon.
    client: AmazonS3,
    /// For what is sent: the bound on silence also counts the time in which a part is on its way.
    sender: AmazonS3,
    wire: Wire,
    bucket: String,
    endpoint: String,
    stall: Duration,
    part_bytes: u64,
}

impl S3 {
    pub(crate) fn open(bucket: &str, access: S3Access, options: &Options) -> Result<Self, Error> {
        let endpoint = access.endpoint_text();
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&access.region)
            .with_allow_http(true);
        if let Some(url) = &access.endpoint {
            builder = builder.with_endpoint(url);
        }
        let credentials = access.credentials.clone();
        let credentials = credentials.map(|provider| Arc::new(Chain::new(provider)));
        builder = match &credentials {
            Some(chain) => builder.with_credentials(Arc::clone(chain) as _),
            None => builder.with_skip_signature(true),
        };
        let client = |silence, retry_for| {
            let builder = builder
                .clone()
                .with_client_options(client_options(&access, silence)?)
                .with_retry(retries(retry_for));
            builder.build().map_err(|_| Error::Settings {
                reason: format!("no S3 client can be made for bucket {bucket} at {endpoint}"),
            })
        };
        // A request that was met with silence is made once more at least.
        let sending = options.stall * 4;
        Ok(Self {
            client: client(options.stall, options.retry_for)?,
            sender: client(sending, options.retry_for + sending)?,
            wire: Wire::open(bucket, &access, credentials)?,
            bucket: bucket.to_owned(),
            endpoint,
            stall: options.stall,
            part_bytes: options.part_bytes.max(SMALLEST_PART),
        })
    }

    /// The length of the parts of an object of `size` bytes.
    fn part_bytes_of(&self, size: u64) -> u64 {
        self.part_bytes.max(size.div_ceil(MOST_PARTS))
    }

    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Every object below `uri`, ordered by path.
    pub(crate) async fn list(&self, uri: &Uri, at_once: usize) -> Result<Vec<Listed>, Error> {
        let prefix = self.key(uri, "")?;
        let prefix = (!uri.is_root()).then_some(&prefix);
        let found: Vec<_> = again(|| self.client.list(prefix).try_collect())
            .await
            .map_err(|error| self.fault(uri, &error))?;
        let below = format!("{}/", uri.key());
        let mut listed = Vec::with_capacity(found.len());
        let mut empty = Vec::new();
        for object in found {
            let key: &str = object.location.as_ref();
            let path = if uri.is_root() {
                Some(key)
            } else {
                key.strip_prefix(&below)
            };
            // The client cuts a trailing `/`: what has the name of the folder itself is the
            // empty object with which some tools stand in for a folder.
            let Some(path) = path else { continue };
            let object = Listed {
                path: path.to_owned(),
                size: object.size,
                etag: object.e_tag.as_deref().map(plain_etag),
                modified: nanoseconds(&object),
            };
            if object.size == 0 {
                empty.push(object)
            } else {
                listed.push(object)
            }
        }
        // An empty object `a` may be listed for `a/`; only the first can be read as `a`.
        let real: Vec<Option<Listed>> = stream::iter(empty)
            .map(|object| async move {
                let key = self.key(uri, &object.path)?;
                match again(|| self.client.head(&key)).await {
                    Ok(_) => Ok(Some(object)),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(self.fault(uri, &error)),
                }
            })
            .buffer_unordered(at_once)
            .try_collect()
            .await?;
        listed.extend(real.into_iter().flatten());
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listed)
    }

    /// The object at `uri`, `None` if there is none.
    pub(crate) async fn head(&self, uri: &Uri) -> Result<Option<Listed>, Error> {
        let key = self.key(uri, "")?;
        match again(|| self.client.head(&key)).await {
            Ok(object) => Ok(Some(Listed {
                path: uri.name().to_owned(),
                size: object.size,
                etag: object.e_tag.as_deref().map(plain_etag),
                modified: nanoseconds(&object),
            })),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.fault(uri, &error)),
        }
    }

    /// The content of an object of at most `limit` bytes, `None` if there is none.
    pub(crate) async fn read_small(&self, uri: &Uri, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let key = self.key(uri, "")?;
        let read = again(|| async {
            let found = self.client.get(&key).await?;
            if found.meta.size > limit {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        });
        match read.await {
            Ok(Some(bytes)) => Ok(Some(bytes.into())),
            Ok(None) => Err(Error::TooLarge {
                uri: uri.to_string(),
                limit,
            }),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.fault(uri, &error)),
        }
    }

    /// `length` bytes of an object from `start`. A connection that breaks or falls silent is begun
    /// again; an object that is no longer the one that was listed is an error.
    pub(crate) async fn read_part(
        &self,
        folder: &Uri,
        object: &Listed,
        start: u64,
        length: u64,
    ) -> Result<Vec<Bytes>, Error> {
        let uri = folder.join(&object.path)?;
        let key = self.key(&uri, "")?;
        let mut restarts = 0;
        loop {
            let whole = length == object.size;
            let options = GetOptions {
                if_match: object.etag.as_ref().map(|etag| format!("\"{etag}\"")),
                range: (!whole).then(|| (start..start + length).into()),
                ..GetOptions::default()
            };
            let answer = self.client.get_opts(&key, options).await;
            // The client has repeated the request itself as long as that made sense.
            let answer = answer.map_err(|error| {
                if is_missing(&error) {
                    Error::Changed {
                        uri: uri.to_string(),
                    }
                } else {
                    self.fault(&uri, &error)
                }
            })?;
            let etag = answer.meta.e_tag.as_deref().map(plain_etag);
            let other = etag.is_some() && object.etag.is_some() && etag != object.etag;
            if answer.meta.size != object.size || other {
                return Err(Error::Changed {
                    uri: uri.to_string(),
                });
            }
            let broken = match self.collect(answer.into_stream(), length).await {
                Ok(pieces) => return Ok(pieces),
                Err(broken) => broken,
            };
            if restarts == RESTARTS || !broken.may_pass() {
                return Err(match broken {
                    Broken::Client(error) => self.fault(&uri, &error),
                    Broken::Silent => Error::TimedOut {
                        uri: uri.to_string(),
                        endpoint: self.endpoint.clone(),
                    },
                    Broken::Length => Error::Service {
                        uri: uri.to_string(),
                        endpoint: self.endpoint.clone(),
                        reason: "it sent fewer or more bytes than it announced".to_owned(),
                    },
                });
            }
            tokio::time::sleep(backoff(restarts)).await;
            restarts += 1;
        }
    }

    async fn collect(
        &self,
        mut body: stream::BoxStream<'static, object_store::Result<Bytes>>,
        length: u64,
    ) -> Result<Vec<Bytes>, Broken> {
        let mut pieces = Vec::new();
        let mut count = 0;
        loop {
            let next = tokio::time::timeout(self.stall, body.try_next()).await;
            match next.map_err(|_| Broken::Silent)?.map_err(Broken::Client)? {
                Some(piece) => {
                    count += piece.len() as u64;
                    if count > length {
                        return Err(Broken::Length);
                    }
                    pieces.push(piece);
                }
                None if count == length => return Ok(pieces),
                None => return Err(Broken::Length),
            }
        }
    }

    /// Writes a small object in place of whatever is there.
    pub(crate) async fn put(&self, uri: &Uri, bytes: Bytes) -> Result<(), Error> {
        let key = self.key(uri, "")?;
        let put = self.sender.put(&key, bytes.into()).await;
        put.map(|_| ()).map_err(|error| self.fault(uri, &error))
    }

    /// Writes a small object unless there is one; whether it did.
    pub(crate) async fn create(&self, uri: &Uri, bytes: Bytes) -> Result<bool, Error> {
        let key = self.key(uri, "")?;
        let payload = PutPayload::from(bytes.clone());
        // If the answer to a successful request is lost, the next one finds the object there; the
        // caller then looks whose it is.
        let put = again(|| {
            self.sender
                .put_opts(&key, payload.clone(), PutMode::Create.into())
        });
        match put.await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) if fault::status(&error) == Some(501) => {
                self.put(uri, bytes).await.map(|()| true)
            }
            Err(error) => Err(self.fault(uri, &error)),
        }
    }

    /// Removes objects below `uri`.
    pub(crate) async fn delete(&self, uri: &Uri, names: &[String]) -> Result<(), Error> {
        let keys: Vec<_> = names
            .iter()
            .map(|name| self.key(uri, name))
            .collect::<Result<_, _>>()?;
        let deleted = again(|| async {
            let keys = stream::iter(keys.clone().into_iter().map(Ok)).boxed();
            let mut deleted = self.sender.delete_stream(keys);
            loop {
                match deleted.try_next().await {
                    Ok(Some(_)) | Err(object_store::Error::NotFound { .. }) => {}
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        });
        deleted.await.map_err(|error| self.fault(uri, &error))
    }

    /// Removes the object at `uri`, if there is one.
    pub(crate) async fn remove(&self, uri: &Uri) -> Result<(), Error> {
        let key = self.key(uri, "")?;
        match again(|| self.client.delete(&key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.fault(uri, &error)),
        }
    }

    fn key(&self, uri: &Uri, name: &str) -> Result<Key, Error> {
        let text = match (uri.key(), name) {
            (key, "") => key.to_owned(),
            ("", name) => name.to_owned(),
            (key, name) => format!("{key}/{name}"),
        };
        Key::parse(&text).map_err(|_| Error::InvalidUri {
            uri: uri.to_string(),
            reason: "it cannot be a key".to_owned(),
        })
    }

    fn fault(&self, uri: &Uri, error: &object_store::Error) -> Error {
        fault::classify(
            error,
            &Request {
                uri: uri.to_string(),
                endpoint: &self.endpoint,
            },
        )
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{} at {}", self.bucket, self.endpoint)
    }
}

/// Repeats a request whose answer broke off. The client itself repeats only what fails before the
/// answer has begun; and that not for requests which might then be carried out twice.
async fn again<R, F>(request: impl Fn() -> F) -> object_store::Result<R>
where
    F: Future<Output = object_store::Result<R>>,
{
    let mut restarts = 0;
    loop {
        match request().await {
            Err(error) if restarts < RESTARTS && fault::is_broken_connection(&error) => {
                tokio::time::sleep(backoff(restarts)).await;
                restarts += 1;
            }
            result => return result,
        }
    }
}

/// Whether the object, but not the bucket, is missing.
fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
        && fault::code(error).as_deref() != Some("NoSuchBucket")
}

/// Why a download ended early.
enum Broken {
    Client(object_store::Error),
    Silent,
    Length,
}

impl Broken {
    fn may_pass(&self) -> bool {
        match self {
            Self::Client(error) => fault::is_transient(error),
            Self::Silent | Self::Length => true,
        }
    }
}

fn retries(retry_for: Duration) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            base: 2.0,
        },
        max_retries: 8,
        retry_timeout: retry_for,
    }
}

fn client_options(access: &S3Access, silence: Duration) -> Result<ClientOptions, Error> {
    let mut client = ClientOptions::new()
        .with_allow_http(true)
        // There is no bound on the time of a whole transfer, only on silence.
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_read_timeout(silence);
    let encrypted = access
        .endpoint
        .as_ref()
        .is_none_or(|url| url.starts_with("https://"));
    if let Some(path) = access.ca_bundle.as_ref().filter(|_| encrypted) {
        let certificates = http::certificates(path, |pem| Certificate::from_pem_bundle(pem).ok())?;
        for certificate in certificates {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}

/// Doubling from 0.2 s to 10 s, shortened at random by up to a half so that many downloads that
/// broke together do not come back together.
fn backoff(restarts: u32) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    let longest = Duration::from_millis(200 << restarts.min(6)).min(Duration::from_secs(10));
    let random = RandomState::new().hash_one(restarts) as f64 / u64::MAX as f64;
    longest.mul_f64(0.5 + 0.5 * random)
}

/// When an object was written, in nanoseconds since 1970-01-01.
fn nanoseconds(object: &ObjectMeta) -> i128 {
    let time = object.last_modified.timestamp_nanos_opt();
    time.map_or(0, i128::from)
}

/// Entity tags are quoted in some answers and not in others.
fn plain_etag(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

//! One file over HTTP: what broke off goes on where it was, as long as the server still has the same version.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use mlwm_spec::{Digest, ExitCode};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE,
    TRANSFER_ENCODING,
};
use reqwest::{Client, Response, StatusCode, Url, Version};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// A file that came whole.
pub(super) struct Came {
    pub(super) bytes: u64,
    pub(super) sha256: Digest,
    pub(super) etag: Option<String>,
}

/// Why an attempt ended before the file did.
enum Broken {
    /// It may go better next time.
    Passing(String),
    /// It will not.
    Final(Error),
}

/// A download under way.
struct Download<'a> {
    url: &'a Url,
    shown: &'a str,
    path: &'a Path,
    file: File,
    hash: Sha256,
    bytes: u64,
    total: Option<u64>,
    etag: Option<String>,
    /// What the server calls this version, if it promises to change that with the content.
    version: Option<String>,
    /// Whether a digest is compared when all is there.
    has_digest: bool,
}

/// Downloads a file; failures that may pass are put up with for so long without progress. Unless `has_digest`, the
/// server must say how long it is.
pub(super) async fn download(
    url: &Url,
    shown: &str,
    path: &Path,
    has_digest: bool,
    patience: Duration,
) -> Result<Came, Error> {
    let failed = |source: io::Error| Error::Write {
        path: path.to_owned(),
        source,
    };
    let client = Client::builder()
        .read_timeout(patience)
        .connect_timeout(patience)
        .build()
        .map_err(|error| fault(shown, chain(&error), ExitCode::StorageFailed))?;
    let mut download = Download {
        url,
        shown,
        path,
        file: File::create(path).map_err(failed)?,
        hash: Sha256::new(),
        bytes: 0,
        total: None,
        etag: None,
        version: None,
        has_digest,
    };
    let (mut waits, mut since, mut before) = (waits(), Instant::now(), 0);
    loop {
        let reason = match download.attempt(&client).await {
            Ok(()) => break,
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Passing(reason)) => reason,
        };
        if download.bytes > before {
            (waits, since) = (self::waits(), Instant::now());
        }
        before = download.bytes;
        match waits.next() {
            Some(wait) if since.elapsed() + wait <= patience => tokio::time::sleep(wait).await,
            _ => return Err(fault(shown, reason, ExitCode::StorageFailed)),
        }
    }
    download.file.sync_all().map_err(failed)?;
    Ok(Came {
        bytes: download.bytes,
        sha256: Digest::from_hasher(download.hash),
        etag: download.etag,
    })
}

/// The waits double from 0.2 s to 10 s.
fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .with_jitter()
        .build()
}

impl Download<'_> {
    /// Reads on until the file is whole.
    async fn attempt(&mut self, client: &Client) -> Result<(), Broken> {
        let mut request = client
            .get(self.url.clone())
            .header(ACCEPT_ENCODING, "identity");
        if let Some(version) = self.version.as_ref().filter(|_| self.bytes > 0) {
            request = request
                .header(RANGE, format!("bytes={}-", self.bytes))
                .header(IF_RANGE, version);
        }
        let response = request.send().await.map_err(|error| passing(&error))?;
        let mut response = self.accept(response)?;
        loop {
            let chunk = response.chunk().await.map_err(|error| passing(&error))?;
            let Some(chunk) = chunk else {
                break;
            };
            self.hash.update(&chunk);
            self.file
                .write_all(&chunk)
                .map_err(|source| self.unwritable(source))?;
            self.bytes += chunk.len() as u64;
        }
        match self.total {
            Some(total) if total != self.bytes => Err(Broken::Passing(format!(
                "{} of {total} bytes came",
                self.bytes
            ))),
            _ => Ok(()),
        }
    }

    /// An answer that goes on where the file is, or begins anew.
    fn accept(&mut self, response: Response) -> Result<Response, Broken> {
        let status = response.status();
        let headers = response.headers();
        match status {
            StatusCode::PARTIAL_CONTENT => match range(headers) {
                Some((start, total)) if start == self.bytes => {
                    self.total = total.or(self.total);
                    // A part may be less than was asked for, however well its own length is known.
                    match self.total.is_some() || self.has_digest {
                        true => Ok(response),
                        false => Err(self.endless()),
                    }
                }
                _ => Err(Broken::Final(fault(
                    self.shown,
                    "the server answers with another part than was asked for".to_owned(),
                    ExitCode::StorageFailed,
                ))),
            },
            StatusCode::OK => {
                if !has_end(&response) && !self.has_digest {
                    return Err(self.endless());
                }
                self.restart(headers, response.content_length())?;
                Ok(response)
            }
            status if is_passing(status) => {
                Err(Broken::Passing(format!("the server says {status}")))
            }
            status => Err(Broken::Final(fault(
                self.shown,
                format!("the server says {status}"),
                ExitCode::InputMissing,
            ))),
        }
    }

    /// The whole file comes: what came before is forgotten.
    fn restart(&mut self, headers: &HeaderMap, total: Option<u64>) -> Result<(), Broken> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|source| self.unwritable(source))?;
        self.hash = Sha256::new();
        self.bytes = 0;
        self.total = total;
        self.etag = text(headers, ETAG);
        // A weak tag stays when bytes change; a date is only as good as its seconds.
        let strong = self.etag.clone().filter(|etag| !etag.starts_with("W/"));
        self.version = strong.or_else(|| text(headers, LAST_MODIFIED));
        Ok(())
    }

    /// What ends with the connection is like what broke off with it.
    fn endless(&self) -> Broken {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let reason = format!(
            "the server does not say how long it is, so that no one could tell if a part of it is lost: say what it \
             must be, with `--sha256 {name}=…`"
        );
        Broken::Final(fault(self.shown, reason, ExitCode::StorageFailed))
    }

    fn unwritable(&self, source: io::Error) -> Broken {
        Broken::Final(Error::Write {
            path: self.path.to_owned(),
            source,
        })
    }
}

/// Whether an answer's end is known: by its length, by chunks, or by the frames of HTTP/2.
fn has_end(response: &Response) -> bool {
    let coding = text(response.headers(), TRANSFER_ENCODING).unwrap_or_default();
    response.content_length().is_some()
        || coding.to_lowercase().ends_with("chunked")
        || response.version() >= Version::HTTP_2
}

/// Where the part of an answer begins, and how long the whole is.
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = text(headers, CONTENT_RANGE)?;
    let (part, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = part.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        )
}

fn passing(error: &reqwest::Error) -> Broken {
    Broken::Passing(chain(error))
}

/// What an error and its causes say. The URL, which may have secrets, is not among it.
fn chain(error: &reqwest::Error) -> String {
    let mut said = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    match said.is_empty() {
        true => "the connection broke".to_owned(),
        false => said.join(": "),
    }
}

fn fault(shown: &str, reason: String, code: ExitCode) -> Error {
    Error::Fetch {
        uri: shown.to_owned(),
        reason,
        code,
    }
}

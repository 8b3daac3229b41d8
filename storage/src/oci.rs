//! A client of registries that speak the OCI distribution protocol, version 1.1.
//!
//! It is built on the HTTP client and the transfer machinery of this crate, not on a library for
//! the protocol: those at hand send blobs in one go or in chunks of a fixed size, cannot continue
//! an upload, keep a token that the server no longer takes, and put URLs (which may be signed, or
//! be an upload session) and the answers of token servers into their errors.
//!
//! Chapter numbers in comments are those of the [distribution specification][spec].
//!
//! [spec]: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md

mod blobs;
mod connection;
mod credentials;
mod manifests;
mod token;
mod upload;
mod uri;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::manifests::{Manifest, repositories};
pub use self::uri::OciUri;

use self::connection::Connection;
use crate::Error;

/// How a registry is used.
#[derive(Clone, Debug)]
pub struct OciOptions {
    /// Blobs are sent in chunks of this many bytes, unless the registry wants others: what is lost
    /// when a connection breaks, against a round trip for each. A chunk is never in memory as a
    /// whole.
    pub chunk_bytes: u64,
    /// Silence after which a request is given up and begun again.
    pub stall: Duration,
    /// How long a request that fails in a way that may pass is repeated.
    pub retry_for: Duration,
    /// Registries (`host` or `host:port`) that are spoken to without encryption, beside those on
    /// this computer.
    pub insecure: Vec<String>,
    /// A file of logins as Docker and Podman write it, in the place of those that the environment
    /// names (`REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`, and where the two programs keep them).
    pub logins: Option<PathBuf>,
}

impl Default for OciOptions {
    /// `insecure` is the list, separated by commas, in `MLWM_INSECURE_REGISTRIES`.
    fn default() -> Self {
        let insecure = std::env::var("MLWM_INSECURE_REGISTRIES").unwrap_or_default();
        let hosts = insecure.split(',').map(str::trim);
        Self {
            chunk_bytes: 64 << 20,
            stall: Duration::from_secs(30),
            retry_for: Duration::from_secs(60),
            insecure: hosts
                .filter(|host| !host.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
            logins: None,
        }
    }
}

/// A repository in a registry: manifests, tags and blobs.
///
/// Certificates are checked against those of the system, or of `SSL_CERT_FILE`. Clones share
/// connections and tokens.
#[derive(Clone, Debug)]
pub struct Repository {
    connection: Arc<Connection>,
    options: OciOptions,
}

impl Repository {
    /// Prepares to speak with the registry; nothing is sent yet.
    pub fn open(uri: &OciUri, options: &OciOptions) -> Result<Self, Error> {
        if uri.repository().is_empty() {
            return Err(Error::InvalidUri {
                uri: uri.to_string(),
                reason: "the repository is missing: write oci://host[:port]/path".to_owned(),
            });
        }
        Ok(Self {
            connection: Arc::new(Connection::open(uri, options)?),
            options: options.clone(),
        })
    }

    /// Its name.
    pub fn uri(&self) -> &OciUri {
        self.connection.uri()
    }
}

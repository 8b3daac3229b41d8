//! Where Google Cloud Storage is and who asks: the standard settings.
//!
//! Credentials come from where Google's own tools take them: the file that
//! `GOOGLE_APPLICATION_CREDENTIALS` names, else the one that `gcloud auth application-default login`
//! wrote, else the metadata of the machine. `STORAGE_EMULATOR_HOST` names another server, which is
//! asked without credentials. `GOOGLE_SKIP_SIGNATURE=true` sends none, for public buckets.

use std::fmt;
use std::time::Duration;

use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, RetryConfig};

use crate::Error;
use crate::credentials::{checked_endpoint, is_true};

/// Google's own server.
const GOOGLE: &str = "https://storage.googleapis.com";

/// Where Google Cloud Storage is and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsAccess {
    endpoint: String,
    anonymous: bool,
}

impl GcsAccess {
    /// What the environment says.
    pub fn from_environment() -> Result<Self, Error> {
        match std::env::var("STORAGE_EMULATOR_HOST") {
            Ok(host) if !host.is_empty() => Self::emulator(&host),
            _ => Ok(Self {
                endpoint: GOOGLE.to_owned(),
                anonymous: is_true("GOOGLE_SKIP_SIGNATURE")?,
            }),
        }
    }

    /// A server that speaks the same language, at `host:port` or a URL, and is asked without
    /// credentials.
    pub fn emulator(host: &str) -> Result<Self, Error> {
        let url = if host.contains("://") {
            host.to_owned()
        } else {
            format!("http://{host}")
        };
        Ok(Self {
            endpoint: checked_endpoint("STORAGE_EMULATOR_HOST", &url)?,
            anonymous: true,
        })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What makes tokens; `None` asks anonymously.
    pub(super) fn credentials(&self, bucket: &str) -> Result<Option<Tokens>, Error> {
        if self.anonymous {
            return Ok(None);
        }
        let retry = RetryConfig {
            max_retries: 2,
            retry_timeout: Duration::from_secs(20),
            ..RetryConfig::default()
        };
        let client = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(ClientOptions::new().with_timeout(Duration::from_secs(15)))
            .with_retry(retry)
            .build();
        // The client's error may quote the file.
        let client = client.map_err(|_| Error::Settings {
            reason: "the credentials that GOOGLE_APPLICATION_CREDENTIALS or gcloud's \
                     application_default_credentials.json hold cannot be read"
                .to_owned(),
        })?;
        Ok(Some(Tokens(client.credentials().clone())))
    }
}

/// What makes tokens.
pub(super) struct Tokens(pub(super) GcpCredentialProvider);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_is_named_with_and_without_scheme() {
        for host in ["127.0.0.1:9023", "http://127.0.0.1:9023/"] {
            let access = GcsAccess::emulator(host).unwrap();
            assert_eq!(access.endpoint(), "http://127.0.0.1:9023");
            assert!(access.credentials("b").unwrap().is_none());
        }
        let error = GcsAccess::emulator("http://KEY:SECRET@host").unwrap_err();
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
}

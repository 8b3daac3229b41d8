//! Where S3 is and who asks: the standard AWS settings, made fit for `object_store`.
//!
//! Credentials come from the chain every AWS tool uses: the `AWS_` variables, the shared files
//! (`AWS_PROFILE`, `AWS_SHARED_CREDENTIALS_FILE`, `AWS_CONFIG_FILE`, with SSO, assumed roles and
//! `credential_process`), web identity, and the metadata of ECS and EC2. The endpoint comes from
//! `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or the profile's `endpoint_url`; the region from
//! `AWS_REGION`, `AWS_DEFAULT_REGION` or the profile, else `us-east-1`, which most servers that
//! are not Amazon's accept. `AWS_SKIP_SIGNATURE=true` sends no credentials at all, for public
//! buckets; that is never guessed. `AWS_CA_BUNDLE` adds certificates to the system's.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_types::region::Region;
use aws_types::service_config::ServiceConfigKey;
use futures::future::BoxFuture;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use crate::Error;

/// Credentials are renewed when they end within this time.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// What errors call the endpoint.
const S3_ENDPOINT: &str = "the S3 endpoint";

/// Where S3 is and who asks.
#[derive(Clone)]
pub struct S3Access {
    /// The endpoint; `None` is Amazon's of the region.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    /// `None` asks anonymously.
    pub(crate) credentials: Option<SharedCredentialsProvider>,
    pub(crate) ca_bundle: Option<PathBuf>,
}

impl S3Access {
    /// What the environment and the shared AWS files say.
    pub async fn from_environment() -> Result<Self, Error> {
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static("us-east-1"));
        let anonymous = is_true("AWS_SKIP_SIGNATURE")?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).region(region);
        if anonymous {
            loader = loader.no_credentials();
        }
        let config = loader.load().await;
        let endpoint_key = ServiceConfigKey::builder()
            .service_id("s3")
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let endpoint = endpoint_key
            .ok()
            .and_then(|key| config.service_config()?.load_config(key))
            .filter(|endpoint| !endpoint.is_empty());
        Ok(Self {
            endpoint: endpoint
                .as_deref()
                .map(|endpoint| checked_endpoint(S3_ENDPOINT, endpoint))
                .transpose()?,
            region: config
                .region()
                .map_or_else(|| "us-east-1".to_owned(), ToString::to_string),
            credentials: config.credentials_provider(),
            ca_bundle: std::env::var_os("AWS_CA_BUNDLE")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        })
    }

    /// A server with a fixed key.
    pub fn with_key(
        endpoint: &str,
        region: &str,
        key_id: &str,
        secret: &str,
    ) -> Result<Self, Error> {
        let credentials = Credentials::new(key_id, secret, None, None, "mlwm");
        Ok(Self {
            endpoint: Some(checked_endpoint(S3_ENDPOINT, endpoint)?),
            region: region.to_owned(),
            credentials: Some(SharedCredentialsProvider::new(credentials)),
            ca_bundle: None,
        })
    }

    /// A server that is asked without credentials.
    pub fn anonymous(endpoint: &str, region: &str) -> Result<Self, Error> {
        Ok(Self {
            endpoint: Some(checked_endpoint(S3_ENDPOINT, endpoint)?),
            region: region.to_owned(),
            credentials: None,
            ca_bundle: None,
        })
    }

    /// The endpoint for people.
    pub(crate) fn endpoint_text(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("Amazon S3 in {}", self.region),
        }
    }
}

impl fmt::Debug for S3Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Access")
            .field("endpoint", &self.endpoint_text())
            .field("region", &self.region)
            .field("anonymous", &self.credentials.is_none())
            .finish_non_exhaustive()
    }
}

pub(crate) fn is_true(variable: &'static str) -> Result<bool, Error> {
    match std::env::var(variable)
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "" | "0" | "false" | "no" | "off" => Ok(false),
        "1" | "true" | "yes" | "on" => Ok(true),
        _ => Err(Error::Settings {
            reason: format!("{variable} must be `true` or `false`"),
        }),
    }
}

/// An endpoint is an `http` or `https` URL of a host, and holds no secret.
pub(crate) fn checked_endpoint(name: &str, endpoint: &str) -> Result<String, Error> {
    let wrong = |reason: &str| Error::Settings {
        reason: format!("{name} {reason}: write https://host or http://host:port"),
    };
    let url = url::Url::parse(endpoint).map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not hold a user or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not have a query or fragment"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Why there are no credentials; made to pass through `object_store`'s errors.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct CredentialFailure {
    pub(crate) reason: String,
}

/// The AWS chain as `object_store` wants it. It holds credentials until shortly before they end.
pub(crate) struct Chain {
    provider: SharedCredentialsProvider,
    held: Mutex<Option<(Arc<AwsCredential>, Option<SystemTime>)>>,
}

impl Chain {
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            held: Mutex::new(None),
        }
    }

    /// Takes new credentials the next time: the server says that these have ended.
    pub(crate) async fn forget(&self) {
        *self.held.lock().await = None;
    }

    pub(crate) async fn current(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        if let Some((credential, end)) = held.as_ref()
            && end.is_none_or(|end| SystemTime::now() + RENEW_BEFORE < end)
        {
            return Ok(Arc::clone(credential));
        }
        let loaded = self.provider.provide_credentials().await.map_err(|error| {
            object_store::Error::Generic {
                store: "S3",
                source: Box::new(CredentialFailure {
                    reason: reason(&error),
                }),
            }
        })?;
        let credential = Arc::new(AwsCredential {
            key_id: loaded.access_key_id().to_owned(),
            secret_key: loaded.secret_access_key().to_owned(),
            token: loaded.session_token().map(ToOwned::to_owned),
        });
        *held = Some((Arc::clone(&credential), loaded.expiry()));
        Ok(credential)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    // Written out because the trait is an `async_trait`.
    fn get_credential<'a, 'b>(&'a self) -> BoxFuture<'b, object_store::Result<Arc<AwsCredential>>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.current())
    }
}

/// The texts of the chain's own errors may quote a file or a program's output; the kind is enough.
fn reason(error: &CredentialsError) -> String {
    let profile = std::env::var("AWS_PROFILE").map_or_else(
        |_| String::new(),
        |name| format!(" (AWS_PROFILE is `{name}`)"),
    );
    let what = match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            "none in the environment, the shared AWS files or the machine's metadata"
        }
        CredentialsError::ProviderTimedOut(_) => "their provider did not answer in time",
        CredentialsError::InvalidConfiguration(_) => {
            "the shared AWS files are wrong, or have not the profile"
        }
        _ => "their provider failed; a session may have ended, so log in again",
    };
    format!("{what}{profile}")
}

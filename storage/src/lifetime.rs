//! How long credentials for S3 last that nothing renews.

use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::ProvideCredentials;
use jiff::Timestamp;

use crate::{Error, S3Access};

/// Where the end of the credentials in the environment is said, as `aws configure export-credentials` writes it.
const EXPIRATION: &str = "AWS_CREDENTIAL_EXPIRATION";

/// When the credentials for S3 end that the environment and the shared AWS files give. `None` if they are renewed,
/// have no end, or it is not known; also if there are none, which whoever asks a store with them is told.
///
/// # Errors
/// If `AWS_CREDENTIAL_EXPIRATION` is no time.
pub async fn s3_credentials_end() -> Result<Option<Timestamp>, Error> {
    let Ok(access) = S3Access::from_environment().await else {
        return Ok(None);
    };
    let Some(provider) = access.credentials else {
        return Ok(None);
    };
    let said = std::env::var(EXPIRATION).ok();
    end(&provider, said.as_deref()).await
}

/// When credentials of a provider end; `said` is what the environment says of those in it.
async fn end(
    provider: &impl ProvideCredentials,
    said: Option<&str>,
) -> Result<Option<Timestamp>, Error> {
    let Ok(found) = provider.provide_credentials().await else {
        return Ok(None);
    };
    let Some(expiry) = found.expiry() else {
        return said_end(&found, said);
    };
    if is_of_machine(&found) {
        return Ok(None);
    }
    // A role or a login gives other ones each time it is asked.
    let again = provider.provide_credentials().await;
    let is_renewed = again.is_ok_and(|again| {
        again.access_key_id() != found.access_key_id() || again.expiry() != Some(expiry)
    });
    Ok(match is_renewed {
        true => None,
        false => Timestamp::try_from(expiry).ok(),
    })
}

/// The end of credentials in the environment. A key without a session has none, whatever is said there.
fn said_end(found: &Credentials, said: Option<&str>) -> Result<Option<Timestamp>, Error> {
    if !came_from(found, &AwsCredentialFeature::CredentialsEnvVars)
        || found.session_token().is_none()
    {
        return Ok(None);
    }
    let said = said.map(str::trim).filter(|said| !said.is_empty());
    said.map(|said| {
        said.parse().map_err(|_| Error::Settings {
            reason: format!(
                "{EXPIRATION} must be a time such as 2026-01-31T12:00:00Z: correct or unset it"
            ),
        })
    })
    .transpose()
}

/// Whether the machine gives new ones some time before they end, and the same until then.
fn is_of_machine(found: &Credentials) -> bool {
    came_from(found, &AwsCredentialFeature::CredentialsImds)
        || came_from(found, &AwsCredentialFeature::CredentialsHttp)
}

fn came_from(found: &Credentials, source: &AwsCredentialFeature) -> bool {
    found
        .get_property::<Vec<AwsCredentialFeature>>()
        .is_some_and(|sources| sources.contains(source))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::future;

    use super::*;

    const END: u64 = 1_800_000_000;
    const PLANTED: &str = "PLANTED";

    fn credentials(key: &str, expiry: Option<u64>, source: AwsCredentialFeature) -> Credentials {
        let expiry = expiry.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut made = Credentials::new(key, PLANTED, Some(PLANTED.to_owned()), expiry, "test");
        made.get_property_mut_or_default::<Vec<AwsCredentialFeature>>()
            .push(source);
        made
    }

    /// Gives other credentials each time.
    #[derive(Debug, Default)]
    struct Role(AtomicU64);

    impl ProvideCredentials for Role {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let key = format!("key{}", self.0.fetch_add(1, Ordering::Relaxed));
            future::ProvideCredentials::ready(Ok(credentials(
                &key,
                Some(END),
                AwsCredentialFeature::CredentialsStsAssumeRole,
            )))
        }
    }

    #[derive(Debug)]
    struct Nobody;

    impl ProvideCredentials for Nobody {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded(PLANTED)))
        }
    }

    async fn seconds(provider: &impl ProvideCredentials, said: Option<&str>) -> Option<i64> {
        let found = end(provider, said).await.unwrap();
        found.map(Timestamp::as_second)
    }

    #[tokio::test]
    async fn a_session_in_the_environment_ends_when_that_says() {
        let in_environment = credentials("key", None, AwsCredentialFeature::CredentialsEnvVars);
        for said in ["2027-01-15T08:00:00Z", " 2027-01-15T10:00:00+02:00 "] {
            assert_eq!(
                seconds(&in_environment, Some(said)).await,
                Some(END.cast_signed())
            );
        }
        assert_eq!(seconds(&in_environment, None).await, None);
        assert_eq!(seconds(&in_environment, Some("")).await, None);
        let wrong = end(&in_environment, Some("PLANTED tomorrow")).await;
        let text = wrong.unwrap_err().to_string();
        assert!(
            text.contains(EXPIRATION) && !text.contains(PLANTED),
            "{text}"
        );
    }

    #[tokio::test]
    async fn what_the_environment_says_is_of_no_other_credentials() {
        let said = Some("2027-01-15T08:00:00Z");
        let profile = credentials("key", None, AwsCredentialFeature::CredentialsProfile);
        assert_eq!(seconds(&profile, said).await, None);
        let mut key = Credentials::new("key", PLANTED, None, None, "test");
        key.get_property_mut_or_default::<Vec<AwsCredentialFeature>>()
            .push(AwsCredentialFeature::CredentialsEnvVars);
        assert_eq!(seconds(&key, said).await, None);
        assert_eq!(seconds(&Nobody, said).await, None);
    }

    #[tokio::test]
    async fn what_is_renewed_has_no_end() {
        let of = |source| credentials("key", Some(END), source);
        // A program that gives the same again does not renew them.
        let program = of(AwsCredentialFeature::CredentialsProcess);
        assert_eq!(seconds(&program, None).await, Some(END.cast_signed()));
        assert_eq!(seconds(&Role::default(), None).await, None);
        for machine in [
            AwsCredentialFeature::CredentialsImds,
            AwsCredentialFeature::CredentialsHttp,
        ] {
            assert_eq!(seconds(&of(machine), None).await, None);
        }
    }
}

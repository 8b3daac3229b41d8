//! Passwords, tokens, token refresh, and secrets.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mlwm_spec::ExitCode;
use mlwm_storage::oci::repositories;
use mlwm_storage::{Content, Error, Progress};
use mlwm_tests::registry::{Breaker, Registry};
use serde_json::json;

use crate::common::{CHUNK, Sender, fetch, noise, options, repository, repository_with};

fn assert_refused(error: &Error, host: &str) {
    let text = error.to_string();
    assert!(matches!(error, Error::RegistryAccess { .. }), "{text}");
    assert_eq!(error.exit_code(), ExitCode::StorageFailed);
    let advice = format!("docker login {host}");
    assert!(text.contains(&advice), "{text}");
    let all = format!("{text} {error:?}");
    for secret in ["pass", "dXNlcjpwYXNz", "wrong", "eyJ"] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[tokio::test]
async fn a_password_is_shown_where_it_is_wanted() {
    let registry = Registry::with_password();
    let host = registry.host.as_str();
    let error = repository(host, "a")
        .push_blob_bytes("x")
        .await
        .unwrap_err();
    assert_refused(&error, host);

    let logins = registry.logins(&[host]);
    let good = repository_with(host, "a", &options(Some(&logins)));
    let bytes = noise(3 << 20, 5);
    let digest = Sender::new().send(&good, &bytes).await.unwrap();
    assert!(fetch(&good, &digest, 3 << 20).await == bytes);
    let error = repository(host, "a").blob_size(&digest).await.unwrap_err();
    assert_refused(&error, host);

    // user:wrong
    let logins = registry.logins_of(&[host], &json!({"auth": "dXNlcjp3cm9uZw=="}));
    let wrong = repository_with(host, "a", &options(Some(&logins)));
    let error = wrong.blob_size(&digest).await.unwrap_err();
    assert_refused(&error, host);
}

#[tokio::test]
async fn tokens_are_got_with_a_password_an_identity_or_nothing() {
    let registry = Registry::with_tokens(300.0, 300);
    let host = registry.host.as_str();
    let logins = registry.logins(&[host]);
    let known = repository_with(host, "public/a", &options(Some(&logins)));
    let digest = known.push_blob_bytes("content").await.unwrap();
    assert_eq!(known.blob_size(&digest).await.unwrap(), Some(7));
    assert_eq!(
        registry.token_requests(),
        [
            "GET repository:public/a:pull user",
            "GET repository:public/a:pull,push user"
        ]
    );

    let nobody = repository(host, "public/a");
    assert_eq!(nobody.blob_size(&digest).await.unwrap(), Some(7));
    let error = nobody.push_blob_bytes("other").await.unwrap_err();
    assert_refused(&error, host);
    let error = repository(host, "closed/a").tags().await.unwrap_err();
    assert_refused(&error, host);

    let other = repository_with(host, "b", &options(Some(&logins)));
    assert!(other.mount_blob(&digest, "public/a").await.unwrap());
    let below = format!("oci://{host}").parse().unwrap();
    let names = repositories(&below, &options(Some(&logins))).await.unwrap();
    assert_eq!(names, ["b", "public/a"]);

    let logins = registry.logins_of(&[host], &json!({"identitytoken": "identity"}));
    let identity = repository_with(host, "c", &options(Some(&logins)));
    let digest = identity.push_blob_bytes("third").await.unwrap();
    assert_eq!(identity.blob_size(&digest).await.unwrap(), Some(5));
    let logins = registry.logins_of(&[host], &json!({"identitytoken": "wrong"}));
    let wrong = repository_with(host, "c", &options(Some(&logins)));
    let error = wrong.blob_size(&digest).await.unwrap_err();
    assert_refused(&error, host);
}

/// Tokens are good for two seconds and the transfer takes six. Where the token server says so,
/// they are renewed in time; where it says that they are good for an hour, the registry's 401 is
/// what tells.
#[tokio::test]
async fn tokens_are_renewed_in_the_midst_of_an_upload() {
    for claimed in [2, 3600] {
        let registry = Registry::with_tokens(2.0, claimed);
        let host = registry.host.clone();
        let logins = registry.logins(&[&host]);
        let repository = repository_with(&host, "a", &options(Some(&logins)));
        let bytes = noise(usize::try_from(12 * CHUNK).unwrap(), claimed);
        let slow = Arc::new(Slow(bytes.clone(), Arc::default()));
        let progress = Progress::none();
        let sender = Sender::new();
        let digest = sender.send_content(&repository, slow, &progress).await;
        let digest = digest.unwrap_or_else(|error| panic!("{claimed}: {error}"));
        assert!(fetch(&repository, &digest, 12 * CHUNK).await == bytes);
        let requests = registry.token_requests();
        let pushes = requests.iter().filter(|line| line.contains("push"));
        assert!(pushes.count() >= 3, "{claimed}: {requests:?}");
        assert!(!registry.log().contains("upload resumed at wrong"));
    }
}

/// Content that comes at two chunks a second, but at once where it is read again.
struct Slow(Vec<u8>, Arc<AtomicU64>);

impl Content for Slow {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn fingerprint(&self) -> String {
        "slow".to_owned()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(SlowReader {
            content: io::Cursor::new(self.0.clone()),
            read_before: Arc::clone(&self.1),
        }))
    }
}

struct SlowReader {
    content: io::Cursor<Vec<u8>>,
    read_before: Arc<AtomicU64>,
}

impl Read for SlowReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(64 << 10);
        let count = self.content.read(&mut buffer[..count])?;
        let position = self.content.position();
        if self.read_before.fetch_max(position, Ordering::SeqCst) < position {
            std::thread::sleep(Duration::from_millis(125));
        }
        Ok(count)
    }
}

#[tokio::test]
async fn a_token_server_that_fails_is_asked_again() {
    let registry = Registry::with_tokens(300.0, 300);
    let logins = registry.logins(&[&registry.host]);
    let breaker = Breaker::to(&registry.host);
    let text = std::fs::read_to_string(&logins).unwrap();
    let text = text.replace(&registry.host, &breaker.host);
    std::fs::write(&logins, text).unwrap();
    let repository = repository_with(&breaker.host, "a", &options(Some(Path::new(&logins))));
    breaker.answer(&["503 Service Unavailable", "429 Too Many\r\nRetry-After: 1"]);
    let digest = repository.push_blob_bytes("x").await.unwrap();
    assert_eq!(breaker.answers_left(), 0);
    assert_eq!(repository.blob_size(&digest).await.unwrap(), Some(1));
}

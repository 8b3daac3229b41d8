//! Uploads, to registries that take them in different ways.

use std::sync::{Arc, Mutex};

use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::{BytesContent, Content, Progress, ProgressEvent};
use mlwm_tests::registry::Registry;
use serde_json::json;

use crate::common::{CHUNK, Sender, Short, fetch, noise, options, repository, repository_with};

/// Four chunks and a bit.
const SIZE: u64 = 4 * CHUNK + 1000;

fn content() -> Vec<u8> {
    noise(usize::try_from(SIZE).unwrap(), 7)
}

#[tokio::test]
async fn a_blob_goes_in_chunks_and_comes_back() {
    let registry = Registry::open();
    let repository = repository(&registry.host, "a");
    for size in [0, 1, 2, CHUNK - 1, CHUNK, CHUNK + 1, SIZE] {
        let sender = Sender::new();
        let bytes = noise(usize::try_from(size).unwrap(), size);
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let progress = Progress::new(move |event: ProgressEvent| {
            seen.lock().unwrap().push(event.done_bytes);
        });
        let blob = Arc::new(BytesContent::new(bytes.clone()));
        let digest = sender.send_content(&repository, blob, &progress).await;
        let digest = digest.unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(repository.blob_size(&digest).await.unwrap(), Some(size));
        assert!(fetch(&repository, &digest, size).await == bytes, "{size}");
        assert_eq!(sender.left_over(), 0);
        let events = events.lock().unwrap();
        assert!(events.is_sorted(), "{events:?}");
        assert_eq!(events.last(), Some(&size));
    }
}

#[tokio::test]
async fn a_blob_that_is_known_and_there_is_not_sent() {
    let registry = Registry::imitation(&json!({}));
    let repository = repository(&registry.host, "a");
    let (sender, bytes) = (Sender::new(), content());
    let blob: Arc<dyn Content> = Arc::new(BytesContent::new(bytes.clone()));
    let known = Digest::of(&bytes);
    for _ in 0..2 {
        let journals = sender.journals();
        let (progress, cancel) = (Progress::none(), &sender.cancel);
        let sent = repository.upload_blob(
            Arc::clone(&blob),
            Some(&known),
            &journals,
            &progress,
            cancel,
        );
        assert_eq!(sent.await.unwrap(), known);
        assert_eq!(registry.counts()["posts"], 1);
        assert_eq!(registry.counts()["kept"], SIZE);
    }
    // It is something else than was said.
    let other = Digest::of("other");
    let (journals, progress) = (sender.journals(), Progress::none());
    let sent = repository.upload_blob(blob, Some(&other), &journals, &progress, &sender.cancel);
    assert_eq!(sent.await.unwrap_err().exit_code(), ExitCode::InputCorrupt);
    assert_eq!(repository.blob_size(&other).await.unwrap(), None);
}

#[tokio::test]
async fn registries_get_a_blob_as_they_want_it() {
    for (options, patches) in [
        // All but the last are at least as long: 1 MiB holds the first four.
        (json!({"least": 1 << 20}), 2..=2),
        // After the second is refused, one `PATCH` with everything.
        // (An answer that comes before its request has been sent may be lost with the connection.)
        (json!({"patches": 1}), 3..=5),
        // None at all: everything with `PUT`.
        (json!({"patches": 0}), 2..=4),
        // The upload is lost after three, and sent anew.
        (json!({"forget": 3}), 8..=8),
    ] {
        let registry = Registry::imitation(&options);
        let repository = repository(&registry.host, "a");
        let (sender, bytes) = (Sender::new(), content());
        let digest = sender.send(&repository, &bytes).await;
        let digest = digest.unwrap_or_else(|error| panic!("{options}: {error}"));
        assert!(
            fetch(&repository, &digest, SIZE).await == bytes,
            "{options}"
        );
        let count = registry.counts()["patches"].as_u64().unwrap();
        assert!(patches.contains(&count), "{options}: {count}");
        assert_eq!(sender.left_over(), 0);
    }
}

#[tokio::test]
async fn requests_shrink_to_what_a_proxy_lets_through() {
    let registry = Registry::imitation(&json!({"most": 5 << 20}));
    let mut options = options(None);
    options.chunk_bytes = 64 << 20;
    let repository = repository_with(&registry.host, "a", &options);
    let (sender, bytes) = (Sender::new(), noise(24 << 20, 3));
    let digest = sender.send(&repository, &bytes).await.unwrap();
    assert_eq!(repository.blob_size(&digest).await.unwrap(), Some(24 << 20));
    assert_eq!(registry.counts()["kept"], 24 << 20);
}

#[tokio::test]
async fn a_blob_that_the_registry_damaged_is_sent_again() {
    let registry = Registry::imitation(&json!({"corrupt": true}));
    let repository = repository(&registry.host, "a");
    let (sender, bytes) = (Sender::new(), content());
    let digest = sender.send(&repository, &bytes).await.unwrap();
    assert!(fetch(&repository, &digest, SIZE).await == bytes);
    assert_eq!(registry.counts()["posts"], 2);
}

#[tokio::test]
async fn content_that_cannot_be_read_is_the_error() {
    for options in [json!({}), json!({"patches": 0})] {
        let registry = Registry::imitation(&options);
        let repository = repository(&registry.host, "a");
        let sender = Sender::new();
        let progress = Progress::none();
        let sent = sender.send_content(&repository, Arc::new(Short(SIZE)), &progress);
        let error = sent.await.unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Incomplete, "{error}");
    }
}

#[tokio::test]
async fn a_session_is_in_the_journal_only() {
    let registry = Registry::imitation(&json!({"patches": 1}));
    let repository = repository(&registry.host, "a");
    let sender = Sender::new();
    let cancel = sender.cancel.clone();
    let progress = Progress::new(move |event: ProgressEvent| {
        if event.done_bytes > 0 {
            cancel.cancel();
        }
    });
    let blob = Arc::new(BytesContent::new(content()));
    let sent = sender.send_content(&repository, blob, &progress).await;
    let error = sent.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Interrupted);
    assert_eq!(sender.left_over(), 1);
    let all = format!("{error} {error:?} {repository:?}");
    assert!(!all.contains("SECRET"), "{all}");
}

//! Registries and networks that break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlwm_spec::ExitCode;
use mlwm_storage::{ByteRange, BytesContent, Error, Progress};
use mlwm_tests::registry::{Breaker, Registry};
use mlwm_tests::s3::free_port;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::common::{CHUNK, Sender, fetch, noise, options, repository, repository_with};

const SIZE: u64 = 8 * CHUNK;

fn content() -> Vec<u8> {
    noise(usize::try_from(SIZE).unwrap(), 11)
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let registry = Registry::open();
    let breaker = Breaker::to(&registry.host);
    let repository = repository(&breaker.host, "a");
    let passing = [
        "500 Oh",
        "503 Busy",
        "429 Slow\r\nRetry-After: 1",
        "408 Late",
    ];
    let began = Instant::now();
    breaker.answer(&passing);
    let digest = repository.push_blob_bytes("content").await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(1));
    breaker.answer(&passing[..2]);
    let part = repository
        .read_blob_range(&digest, ByteRange::Last(3))
        .await;
    assert_eq!(&part.unwrap().bytes[..], b"ent");

    for lasting in ["403 No", "400 What", "501 Never"] {
        breaker.answer(&[lasting, lasting]);
        let error = repository.blob_size(&digest).await.unwrap_err();
        assert_eq!(breaker.answers_left(), 1, "{lasting}: {error}");
        assert!(error.to_string().contains(&lasting[..3]), "{error}");
    }
    breaker.answer(&[]);
}

#[tokio::test]
async fn an_upload_goes_on_after_errors_between_chunks() {
    let registry = Registry::open();
    let breaker = Arc::new(Breaker::to(&registry.host));
    let repository = repository(&breaker.host, "a");
    let (bytes, sender) = (content(), Sender::new());
    // The first is for `POST`; the others hit chunks and the questions that follow.
    breaker.answer(&["503 Busy"]);
    let (later, begun) = (Arc::clone(&breaker), AtomicBool::new(false));
    let progress = Progress::new(move |event| {
        if event.done_bytes > 0 && !begun.swap(true, Ordering::SeqCst) {
            later.answer(&["500 Oh", "429 Slow", "502 Oh", "503 Busy"]);
        }
    });
    let sent = Arc::new(BytesContent::new(bytes.clone()));
    let digest = sender.send_content(&repository, sent, &progress).await;
    assert!(fetch(&repository, &digest.unwrap(), SIZE).await == bytes);
    assert_eq!(breaker.answers_left(), 0);
}

/// Whatever the registry keeps of a chunk that breaks off, no more than the rest is sent again.
#[tokio::test]
async fn an_upload_goes_on_where_a_connection_broke() {
    for keep in ["all", "half", "nothing"] {
        let registry = Registry::imitation(&json!({"keep": keep}));
        let breaker = Breaker::to(&registry.host);
        let repository = repository(&breaker.host, "a");
        let (bytes, sender) = (content(), Sender::new());
        breaker.cut_sending(3, CHUNK * 3 / 2);
        let digest = sender.send(&repository, &bytes).await;
        let digest = digest.unwrap_or_else(|error| panic!("{keep}: {error}"));
        assert!(fetch(&repository, &digest, SIZE).await == bytes, "{keep}");
        let counts = registry.counts();
        assert_eq!(counts["posts"], 1, "{keep}: {counts}");
        assert_eq!(counts["kept"], SIZE, "{keep}: {counts}");
        assert!(counts["statuses"].as_u64() >= Some(3), "{keep}: {counts}");
    }
}

/// This registry refuses an upload of which it got part of a chunk.
#[tokio::test]
async fn a_broken_chunk_begins_anew_at_docker_registry() {
    let registry = Registry::open();
    let breaker = Breaker::to(&registry.host);
    let repository = repository(&breaker.host, "a");
    let (bytes, sender) = (content(), Sender::new());
    breaker.cut_sending(2, CHUNK * 3 / 2);
    let digest = sender.send(&repository, &bytes).await.unwrap();
    assert!(fetch(&repository, &digest, SIZE).await == bytes);
}

#[tokio::test]
async fn silence_ends_and_the_transfer_goes_on() {
    let registry = Registry::imitation(&json!({}));
    let breaker = Breaker::to(&registry.host);
    let repository = repository(&breaker.host, "a");
    let (bytes, sender) = (content(), Sender::new());
    breaker.stall(1, CHUNK * 3 / 2);
    let began = Instant::now();
    let digest = sender.send(&repository, &bytes).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(2));
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(fetch(&repository, &digest, SIZE).await == bytes);
}

#[tokio::test]
async fn a_download_goes_on_where_a_connection_broke() {
    let registry = Registry::open();
    let breaker = Breaker::to(&registry.host);
    let repository = repository(&breaker.host, "a");
    let (bytes, sender) = (content(), Sender::new());
    let digest = sender.send(&repository, &bytes).await.unwrap();
    breaker.cut_receiving(5, CHUNK * 3 / 2);
    assert!(fetch(&repository, &digest, SIZE).await == bytes);
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let mut options = options(None);
    options.retry_for = Duration::from_secs(1);
    let host = format!("127.0.0.1:{}", free_port());
    let repository = repository_with(&host, "a", &options);
    let error = Sender::new().send(&repository, b"x").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&host), "{error}");
}

#[tokio::test]
async fn calling_off_keeps_what_was_acknowledged() {
    let registry = Registry::open();
    let repository = repository(&registry.host, "a");
    let bytes = content();
    let mut sender = Sender::new();
    let mut resumed = 0;
    // Each time, two more chunks arrive before it is called off.
    loop {
        sender.cancel = CancellationToken::new();
        let cancel = sender.cancel.clone();
        let enough = (resumed + 1) * 2 * CHUNK;
        let progress = Progress::new(move |event: mlwm_storage::ProgressEvent| {
            if event.done_bytes >= enough {
                cancel.cancel();
            }
        });
        let blob = std::sync::Arc::new(mlwm_storage::BytesContent::new(bytes.clone()));
        match sender.send_content(&repository, blob, &progress).await {
            Ok(digest) => {
                assert!(fetch(&repository, &digest, SIZE).await == bytes);
                break;
            }
            Err(error) => assert_eq!(error.exit_code(), ExitCode::Interrupted, "{error}"),
        }
        resumed += 1;
    }
    assert_eq!(resumed, 4);
    assert!(
        !registry.log().contains("wrong offest"),
        "{}",
        registry.log()
    );
}

//! Uploads that a registry refuses at one point or another.

use std::sync::Arc;
use std::time::Duration;

use mlwm_spec::Digest;
use mlwm_storage::{BytesContent, Content, Error, Progress};
use mlwm_tests::registry::{Breaker, Registry};
use serde_json::json;

use crate::common::{CHUNK, Sender, fetch, noise, options, repository, repository_with};
use crate::faulty::{Fault, Faulty, once_each};

const SIZE: u64 = 4 * CHUNK + 1000;

fn content() -> Vec<u8> {
    noise(usize::try_from(SIZE).unwrap(), 13)
}

/// Whether a request ends an upload.
const END: &[&str] = &["PUT ", "digest="];

/// What became of an upload of `size` bytes through a proxy with this rule, how many sessions were
/// begun, and how many journals are left.
async fn sent(
    options: &serde_json::Value,
    bytes: &[u8],
    rule: impl FnMut(&str) -> Option<Fault> + Send + 'static,
) -> (Result<Digest, Error>, u64, usize) {
    let registry = Registry::imitation(options);
    let proxy = Faulty::to(&registry.endpoint(), rule);
    let repository = repository(&proxy.endpoint["http://".len()..], "a");
    let sender = Sender::new();
    let result = sender.send(&repository, bytes).await;
    if let Ok(digest) = &result {
        assert!(fetch(&repository, digest, bytes.len() as u64).await == bytes);
    }
    let posts = registry.counts()["posts"].as_u64().unwrap();
    (result, posts, sender.left_over())
}

fn always(parts: &'static [&'static str], status: u16) -> impl FnMut(&str) -> Option<Fault> {
    let fault = Fault::Answer(status, None);
    move |line| {
        parts
            .iter()
            .all(|part| line.contains(part))
            .then_some(fault)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_refused_for_good_is_the_error() {
    for bytes in [content(), Vec::new()] {
        // Only a registry that has forgotten the upload gets the blob again, once.
        for (status, sessions) in [(400, 1), (403, 1), (405, 1), (404, 2)] {
            let (result, posts, left) = sent(&json!({}), &bytes, always(END, status)).await;
            let error = result.unwrap_err();
            assert!(error.to_string().contains(&status.to_string()), "{error}");
            let denied = matches!(error, Error::RegistryAccess { .. });
            assert_eq!(denied, status == 403, "{error}");
            assert_eq!((posts, left), (sessions, 1), "{status}");
        }
        for fault in [Fault::Answer(404, None), Fault::Answer(503, None)] {
            let (result, ..) = sent(&json!({}), &bytes, once_each(END, [fault])).await;
            result.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_refused_is_no_reason_to_send_everything_at_once() {
    let chunk: &[&str] = &["PATCH "];
    // After 401, the same is tried with a new proof.
    for (status, sessions) in [(401, 2), (403, 1), (402, 1), (307, 1)] {
        let (result, posts, left) = sent(&json!({}), &content(), always(chunk, status)).await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        // It is continued when the right to do it is there.
        assert_eq!((posts, left), (sessions, 1), "{status}");
    }
    for status in [400, 405, 411, 416, 501] {
        let (result, posts, _) = sent(&json!({}), &content(), always(chunk, status)).await;
        result.unwrap_or_else(|error| panic!("{status}: {error}"));
        assert!(posts >= 2, "{status}: {posts}");
    }
    // A session that is unknown is begun anew, but not for ever.
    let once = once_each(chunk, [Fault::Answer(404, None)]);
    let (result, posts, _) = sent(&json!({}), &content(), once).await;
    result.unwrap();
    assert_eq!(posts, 2);
    let (result, posts, _) = sent(&json!({}), &content(), always(chunk, 404)).await;
    result.unwrap_err();
    assert_eq!(posts, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_in_one_request_whose_answer_is_lost_is_not_sent_again() {
    let whole = json!({"patches": 0});
    let lost = once_each(END, [Fault::LoseAnswer]);
    let (result, posts, left) = sent(&whole, &content(), lost).await;
    result.unwrap();
    // One for chunks, one for a single `PATCH`, one for `PUT`.
    assert_eq!((posts, left), (3, 0));
}

/// Failures that come late are not failures in a row.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_in_one_request_may_break_after_a_long_way() {
    let registry = Registry::imitation(&json!({"patches": 0}));
    let breaker = Breaker::to(&registry.host);
    let mut options = options(None);
    // In a row, the fourth would be later than that: the waits double from 0.2 s.
    options.retry_for = Duration::from_millis(2500);
    let repository = repository_with(&breaker.host, "a", &options);
    let bytes = noise(8 << 20, 17);
    breaker.cut_sending(4, 6 << 20);
    let digest = Sender::new().send(&repository, &bytes).await.unwrap();
    assert!(fetch(&repository, &digest, 8 << 20).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_blob_that_is_there_is_removed() {
    let registry = Registry::imitation(&json!({}));
    let to = repository(&registry.host, "a");
    let blob: Arc<dyn Content> = Arc::new(BytesContent::new(content()));
    let progress = Progress::none();
    let mut sender = Sender::new();
    let cancel = sender.cancel.clone();
    let stopped = Progress::new(move |event: mlwm_storage::ProgressEvent| {
        if event.done_bytes > 0 {
            cancel.cancel();
        }
    });
    let called_off = sender.send_content(&to, Arc::clone(&blob), &stopped).await;
    called_off.unwrap_err();
    assert_eq!(sender.left_over(), 1);
    sender.cancel = Default::default();
    let digest = Sender::new().send(&to, &content()).await.unwrap();
    let journals = sender.journals();
    let again = to.upload_blob(blob, Some(&digest), &journals, &progress, &sender.cancel);
    assert_eq!(again.await.unwrap(), digest);
    assert_eq!(sender.left_over(), 0);
}

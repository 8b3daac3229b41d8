//! Blobs: presence, parts, mounting, downloads.

use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::{ByteRange, Progress};
use mlwm_tests::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::common::{fetch, noise, repository};

#[tokio::test]
async fn parts_of_a_blob() {
    let content = noise(100_000, 1);
    for options in [None, Some(serde_json::json!({"no_ranges": true}))] {
        let registry = match &options {
            None => Registry::open(),
            Some(options) => Registry::imitation(options),
        };
        let repository = repository(&registry.host, "a");
        let digest = repository.push_blob_bytes(content.clone()).await.unwrap();
        assert_eq!(repository.blob_size(&digest).await.unwrap(), Some(100_000));
        let absent = Digest::of("absent");
        assert_eq!(repository.blob_size(&absent).await.unwrap(), None);
        let all = 0..100_000;
        for (range, expected) in [
            (
                ByteRange::From {
                    start: 0,
                    length: 10,
                },
                0..10,
            ),
            (
                ByteRange::From {
                    start: 99_990,
                    length: 100,
                },
                99_990..100_000,
            ),
            (
                ByteRange::From {
                    start: 5,
                    length: u64::MAX,
                },
                5..100_000,
            ),
            (
                ByteRange::From {
                    start: 5,
                    length: 0,
                },
                0..0,
            ),
            (
                ByteRange::From {
                    start: 100_000,
                    length: 1,
                },
                0..0,
            ),
            (ByteRange::Last(7), 99_993..100_000),
            (ByteRange::Last(200_000), all),
            (ByteRange::Last(0), 0..0),
        ] {
            let part = repository.read_blob_range(&digest, range).await.unwrap();
            assert_eq!(part.object_size, 100_000);
            assert!(part.bytes == content[expected.clone()], "{range:?}");
        }
        let error = repository
            .read_blob_range(&absent, ByteRange::Last(1))
            .await
            .unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::InputMissing, "{error}");
    }
}

#[tokio::test]
async fn a_blob_is_mounted_where_the_registry_can() {
    let content = noise(1000, 2);
    let registry = Registry::open();
    let from = repository(&registry.host, "models/a");
    let to = repository(&registry.host, "models/b");
    let digest = from.push_blob_bytes(content.clone()).await.unwrap();
    assert_eq!(to.blob_size(&digest).await.unwrap(), None);
    assert!(to.mount_blob(&digest, "models/a").await.unwrap());
    assert_eq!(fetch(&to, &digest, 1000).await, content);
    let absent = Digest::of("absent");
    assert!(!to.mount_blob(&absent, "models/a").await.unwrap());

    let imitation = Registry::imitation(&serde_json::json!({}));
    let to = repository(&imitation.host, "b");
    assert!(!to.mount_blob(&digest, "a").await.unwrap());
}

/// The storage behind a registry gets no proof, since the URL is one.
#[tokio::test]
async fn redirected_downloads_do_not_take_the_login_along() {
    let content = noise(3 << 20, 3);
    let registry = Registry::imitation(&serde_json::json!({"storage": true}));
    let repository = repository(&registry.host, "a");
    let digest = repository.push_blob_bytes(content.clone()).await.unwrap();
    assert!(fetch(&repository, &digest, 3 << 20).await == content);
    let part = repository
        .read_blob_range(&digest, ByteRange::Last(10))
        .await
        .unwrap();
    assert_eq!(part.bytes, content[content.len() - 10..]);
    assert_eq!(registry.counts()["leaked"], 0);
}

#[tokio::test]
async fn what_is_not_the_blob_does_not_become_a_file() {
    let registry = Registry::imitation(&serde_json::json!({"corrupt": false}));
    let repository = repository(&registry.host, "a");
    let digest = repository.push_blob_bytes("content").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("blob");
    let (progress, cancel) = (Progress::none(), CancellationToken::new());
    let wrong_size = repository.download_blob(&digest, 8, &file, &progress, &cancel);
    let error = wrong_size.await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::InputCorrupt, "{error}");
    let absent = Digest::of("absent");
    let missing = repository.download_blob(&absent, 8, &file, &progress, &cancel);
    let error = missing.await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::InputMissing, "{error}");
    assert!(!file.exists());
}

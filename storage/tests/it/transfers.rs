//! Single big objects: brought, read by ranges and fetched, in every kind of store.

use std::fs;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::{
    ByteRange, BytesContent, Content, Error, Expected, FileContent, Journals, Progress,
    ProgressEvent, Uri,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::common::{Place, noise};

/// A place, and a folder for journals and files.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) async fn all(name: &str) -> Vec<Self> {
        let places = Place::all(name).await;
        places.into_iter().map(Self::new).collect()
    }

    pub(crate) fn journals(&self) -> Journals {
        Journals::at(self.folder.path().join("journals"))
    }

    pub(crate) fn uri(&self, name: &str) -> Uri {
        self.place.uri.join(name).unwrap()
    }

    pub(crate) async fn upload(&self, name: &str, content: &[u8]) -> Result<Digest, Error> {
        let content = Arc::new(BytesContent::new(content.to_vec()));
        self.upload_content(name, content, &Progress::none(), &CancellationToken::new())
            .await
    }

    pub(crate) async fn upload_content(
        &self,
        name: &str,
        content: Arc<dyn Content>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Digest, Error> {
        let target = self.uri(name);
        self.place
            .store
            .upload_content(&target, content, &self.journals(), progress, cancel)
            .await
    }

    pub(crate) async fn download(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, Error> {
        let expected = Expected {
            size: content.len() as u64,
            digest: Digest::of(content),
        };
        let destination = self.folder.path().join("fetched");
        self.place
            .store
            .download(
                &self.uri(name),
                &expected,
                &destination,
                &Progress::none(),
                &CancellationToken::new(),
            )
            .await?;
        let fetched = fs::read(&destination).unwrap();
        fs::remove_file(&destination).unwrap();
        Ok(fetched)
    }

    /// Names of the files in the folder, and of the journals.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let names = |folder: &std::path::Path| -> Vec<String> {
            let Ok(entries) = fs::read_dir(folder) else {
                return Vec::new();
            };
            let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
            entries
                .map(|entry| name(entry).into_string().unwrap())
                .filter(|name| name != "journals")
                .collect()
        };
        let mut left = names(self.folder.path());
        left.extend(names(&self.folder.path().join("journals")));
        left
    }
}

#[tokio::test]
async fn objects_of_any_size_go_up_and_come_back() {
    for bench in Bench::all("transfer").await {
        for size in [0, 1, 300_000, 8 << 20, (8 << 20) + 1, 20_000_003] {
            let content = noise(size as u64 + 1, size);
            let name = format!("models/a b+ø%#{size}.zip");
            let digest = bench.upload(&name, &content).await.unwrap();
            assert_eq!(digest, Digest::of(&content), "{size}");
            let found = bench.place.store.head(&bench.uri(&name)).await.unwrap();
            let found = found.unwrap();
            assert_eq!(found.size, size as u64);
            assert_eq!(found.path, format!("a b+ø%#{size}.zip"));
            assert_eq!(bench.download(&name, &content).await.unwrap(), content);
        }
        let listed = bench.place.store.list(&bench.place.uri).await.unwrap();
        assert_eq!(listed.len(), 6, "{listed:?}");
        assert_eq!(bench.left_over(), [""; 0]);
    }
}

#[tokio::test]
async fn what_is_there_stays_and_the_same_again_is_no_error() {
    for bench in Bench::all("again").await {
        for size in [1000, 9_000_000] {
            let name = format!("object-{size}");
            let content = noise(1, size);
            let digest = bench.upload(&name, &content).await.unwrap();
            if bench.place.uri.scheme() == mlwm_storage::Scheme::File || size > 1000 {
                assert_eq!(bench.upload(&name, &content).await.unwrap(), digest);
                for other in [noise(2, size), noise(1, size + 1)] {
                    let error = bench.upload(&name, &other).await.unwrap_err();
                    assert!(matches!(error, Error::Exists { .. }), "{error}");
                    assert_eq!(error.exit_code(), ExitCode::Conflict);
                }
                assert_eq!(bench.download(&name, &content).await.unwrap(), content);
            }
        }
    }
}

#[tokio::test]
async fn ranges_are_what_they_say() {
    for bench in Bench::all("ranges").await {
        let content = noise(3, 100_000);
        bench.upload("object", &content).await.unwrap();
        let from = |start, length| ByteRange::From { start, length };
        for (range, expected) in [
            (from(0, 10), &content[..10]),
            (from(99_990, 10), &content[99_990..]),
            (from(99_990, 1000), &content[99_990..]),
            (from(5, u64::MAX), &content[5..]),
            (from(100_000, 5), &[]),
            (from(200_000, 5), &[]),
            (from(7, 0), &[]),
            (ByteRange::Last(7), &content[99_993..]),
            (ByteRange::Last(200_000), &content[..]),
            (ByteRange::Last(0), &[]),
        ] {
            let uri = bench.uri("object");
            let part = bench.place.store.read_range(&uri, range).await.unwrap();
            let part = part.unwrap();
            assert!(part.bytes == expected, "{range:?} of {uri}");
            assert_eq!(part.object_size, 100_000, "{range:?} of {uri}");
        }
        let nothing = bench.uri("nothing");
        let part = bench.place.store.read_range(&nothing, from(0, 5)).await;
        assert_eq!(part.unwrap(), None);
        assert_eq!(bench.place.store.head(&nothing).await.unwrap(), None);
    }
}

#[tokio::test]
async fn only_what_was_expected_is_kept() {
    for bench in Bench::all("expected").await {
        let content = noise(4, 300_000);
        bench.upload("object", &content).await.unwrap();
        for other in [noise(5, 300_000), noise(4, 299_999), noise(4, 300_001)] {
            let error = bench.download("object", &other).await.unwrap_err();
            assert!(matches!(error, Error::NotExpected { .. }), "{error}");
            assert_eq!(error.exit_code(), ExitCode::InputCorrupt);
            assert!(!bench.folder.path().join("fetched").exists());
        }
        let error = bench.download("nothing", &content).await.unwrap_err();
        assert!(matches!(error, Error::NothingAt { .. }), "{error}");
        assert_eq!(bench.left_over(), [""; 0]);
    }
}

#[tokio::test]
async fn the_condition_of_a_create_is_found_out() {
    let expected = [true, false, true, false];
    for (bench, expected) in Bench::all("probe").await.into_iter().zip(expected) {
        let store = &bench.place.store;
        let probe = bench.uri("probe");
        assert_eq!(
            store.has_conditional_create(&probe).await.unwrap(),
            expected
        );
        assert!(store.list(&bench.place.uri).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_create_one_wins() {
    for bench in [
        Bench::new(Place::file().await),
        Bench::new(Place::s3(&crate::common::MOTO, "moto-creators").await),
    ] {
        // moto looks at the condition of a simple write only, Amazon's at that of parts, too.
        let is_file = bench.place.folder.is_some();
        for (size, rounds) in [(1000, 20), (9_000_000, if is_file { 5 } else { 0 })] {
            for round in 0..rounds {
                let name = format!("object-{size}-{round}");
                let (one, two) = (noise(1, size), noise(2, size));
                // Of other content, so that their journals are apart.
                let (a, b) = tokio::join!(bench.upload(&name, &one), bench.upload(&name, &two));
                let winner = match (a, b) {
                    (Ok(_), Err(error)) => {
                        assert!(matches!(error, Error::Exists { .. }), "{error}");
                        one
                    }
                    (Err(error), Ok(_)) => {
                        assert!(matches!(error, Error::Exists { .. }), "{error}");
                        two
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!(bench.download(&name, &winner).await.unwrap(), winner);
            }
        }
    }
}

#[tokio::test]
async fn called_off_then_continued() {
    for bench in Bench::all("call-off-upload").await {
        let outside = tempfile::tempdir().unwrap();
        let source = outside.path().join("source");
        let content = noise(9, 60_000_000);
        fs::write(&source, &content).unwrap();
        let content_of = || Arc::new(FileContent::open(&source).unwrap());
        for stop_at in [1, 20_000_000, 45_000_000] {
            let cancel = CancellationToken::new();
            let stop = cancel.clone();
            let progress = Progress::new(move |event: ProgressEvent| {
                if event.done_bytes >= stop_at {
                    stop.cancel();
                }
            });
            let error = bench
                .upload_content("object", content_of(), &progress, &cancel)
                .await
                .unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Interrupted, "{error}");
            assert_eq!(
                bench.place.store.head(&bench.uri("object")).await.unwrap(),
                None
            );
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::clone(&seen);
        let progress = Progress::new(move |event: ProgressEvent| {
            events.lock().unwrap().push(event.done_bytes);
        });
        let digest = bench
            .upload_content("object", content_of(), &progress, &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(digest, Digest::of(&content));
        let seen = seen.lock().unwrap().clone();
        assert!(seen.is_sorted(), "{seen:?}");
        assert_eq!(seen.last(), Some(&60_000_000));
        assert_eq!(bench.download("object", &content).await.unwrap(), content);
        assert_eq!(bench.left_over(), [""; 0]);
    }
}

/// Content that is something else each time it is opened, and does not know it.
struct Exchanged {
    versions: [Vec<u8>; 2],
    opened: AtomicUsize,
}

impl Content for Exchanged {
    fn size(&self) -> u64 {
        self.versions[0].len() as u64
    }

    fn fingerprint(&self) -> String {
        "exchanged".to_owned()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let number = self.opened.fetch_add(1, Ordering::SeqCst).min(1);
        Ok(Box::new(io::Cursor::new(self.versions[number].clone())))
    }
}

/// Even if a fingerprint stays the same: what is there in the end is one content.
#[tokio::test]
async fn what_was_sent_of_another_content_is_not_kept() {
    for bench in Bench::all("exchanged").await {
        let old = noise(21, 60_000_000);
        let mut new = old.clone();
        new[9_000_000] ^= 1;
        let content = Arc::new(Exchanged {
            versions: [old, new.clone()],
            opened: AtomicUsize::new(0),
        });
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let progress = Progress::new(move |event: ProgressEvent| {
            if event.done_bytes >= 30_000_000 {
                stop.cancel();
            }
        });
        let first = bench.upload_content("object", content.clone(), &progress, &cancel);
        assert_eq!(first.await.unwrap_err().exit_code(), ExitCode::Interrupted);
        let (progress, cancel) = (Progress::none(), CancellationToken::new());
        let second = bench.upload_content("object", content, &progress, &cancel);
        assert_eq!(second.await.unwrap(), Digest::of(&new));
        assert_eq!(bench.download("object", &new).await.unwrap(), new);
        assert_eq!(bench.left_over(), [""; 0]);
    }
}

/// As if a process were killed between giving an object its name and tidying up.
#[tokio::test]
async fn what_is_left_beside_a_file_that_is_there_is_removed() {
    let bench = Bench::new(Place::file().await);
    let content = noise(22, 20_000_000);
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let progress = Progress::new(move |event: ProgressEvent| {
        if event.done_bytes > 0 {
            stop.cancel();
        }
    });
    let same = Arc::new(BytesContent::new(content.clone()));
    let called_off = bench.upload_content("object", same, &progress, &cancel);
    called_off.await.unwrap_err();
    let path = bench.uri("object").local_path().unwrap();
    let beside = || fs::read_dir(path.parent().unwrap()).unwrap().count();
    fs::write(&path, &content).unwrap();
    assert_eq!(beside(), 2);
    bench.upload("object", &content).await.unwrap();
    assert_eq!(beside(), 1);
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() {
    for bench in Bench::all("abandon").await {
        let content: Arc<dyn Content> = Arc::new(BytesContent::new(noise(9, 30_000_000)));
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let progress = Progress::new(move |event: ProgressEvent| {
            if event.done_bytes > 0 {
                stop.cancel();
            }
        });
        let uploaded = bench
            .upload_content("object", Arc::clone(&content), &progress, &cancel)
            .await;
        uploaded.unwrap_err();
        bench
            .place
            .store
            .abandon(
                &bench.uri("object"),
                &content.fingerprint(),
                &bench.journals(),
            )
            .await
            .unwrap();
        assert_eq!(bench.left_over(), [""; 0]);
        assert!(
            bench
                .place
                .store
                .list(&bench.place.uri)
                .await
                .unwrap()
                .is_empty()
        );
        if let Some(server) = bench.place.server() {
            let pending = pending_uploads(server, bench.place.bucket()).await;
            assert!(!pending.contains("<UploadId>"), "{pending}");
        }
    }
}

/// The server's list of incomplete multipart uploads (of moto, which asks for no signature).
async fn pending_uploads(server: &mlwm_tests::s3::S3Server, bucket: &str) -> String {
    let url = format!("{}/{bucket}?uploads", server.endpoint);
    let answer = reqwest::get(url).await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test]
async fn a_content_that_changes_meanwhile_is_not_uploaded() {
    for bench in Bench::all("content-changes").await {
        let outside = tempfile::tempdir().unwrap();
        let source = outside.path().join("source");
        fs::write(&source, noise(1, 90_000_000)).unwrap();
        let content = Arc::new(FileContent::open(&source).unwrap());
        let victim = source.clone();
        let changed = std::sync::atomic::AtomicBool::new(false);
        let progress = Progress::new(move |event: ProgressEvent| {
            use std::sync::atomic::Ordering;
            if event.done_bytes > 0 && !changed.swap(true, Ordering::SeqCst) {
                let mut other = noise(2, 90_000_000);
                other.push(0);
                fs::write(&victim, other).unwrap();
            }
        });
        let error = bench
            .upload_content("object", content, &progress, &CancellationToken::new())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Content { .. }), "{error}");
        assert!(error.to_string().contains("has changed"), "{error}");
        assert_eq!(
            bench.place.store.head(&bench.uri("object")).await.unwrap(),
            None
        );
    }
}

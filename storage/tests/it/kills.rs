//! Uploads and downloads of single objects in processes that are killed, and continued by others.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mlwm_spec::Digest;
use mlwm_tests::counting_proxy::{CountingProxy, Direction};

use crate::child::{command, printed};
use crate::common::{GARAGE, GCS, MOTO, Place, noise};

const SIZE: usize = 26_000_003;
const PART: u64 = 8 << 20;

/// How often each kind of transfer is killed.
const KILLS: u64 = 20;

/// A place whose traffic is counted; the variables that lead a child there.
struct Counted {
    place: Place,
    proxy: Option<CountingProxy>,
    environment: Vec<(&'static str, String)>,
}

async fn counted(name: &str) -> Vec<Counted> {
    let mut all = vec![Counted {
        place: Place::file().await,
        proxy: None,
        environment: mlwm_tests::s3::bare_environment(),
    }];
    for (server, kind) in [(&*GARAGE, "garage"), (&*MOTO, "moto")] {
        let proxy = CountingProxy::to(&server.endpoint);
        let mut environment = server.environment();
        environment.push(("AWS_ENDPOINT_URL", proxy.endpoint.clone()));
        all.push(Counted {
            place: Place::s3(server, &format!("{kind}-{name}")).await,
            proxy: Some(proxy),
            environment,
        });
    }
    let proxy = CountingProxy::to(&GCS.endpoint);
    let mut environment = GCS.environment();
    environment.push(("STORAGE_EMULATOR_HOST", proxy.endpoint.clone()));
    all.push(Counted {
        place: Place::gcs(&GCS.endpoint, &GCS.bucket(&format!("gcs-{name}"))).await,
        proxy: Some(proxy),
        environment,
    });
    all
}

/// Pseudo-random numbers that are the same in every run.
fn spread(index: u64, below: u64) -> u64 {
    let bytes = noise(index + 77, 8);
    u64::from_le_bytes(bytes.try_into().unwrap()) % below
}

impl Counted {
    fn child(&self, job: &str, name: &str, folder: &Path) -> std::process::Command {
        let uri = self.place.uri.join(name).unwrap();
        let mut child = command(job, &uri, folder, &self.environment);
        child.stdout(Stdio::piped()).stderr(Stdio::null());
        child
    }

    /// Starts a child and kills it when `bytes` have passed, or (without a proxy) after a time.
    fn kill(&self, job: &str, name: &str, folder: &Path, direction: Direction, bytes: u64) {
        if let Some(proxy) = &self.proxy {
            proxy.reset();
            proxy.hold_after(direction, bytes);
            let mut child = self.child(job, name, folder).spawn().unwrap();
            assert!(
                proxy.wait_until_held(Duration::from_secs(60)),
                "{job} {bytes}"
            );
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            let mut child = self.child(job, name, folder).spawn().unwrap();
            let wait = 20 + bytes * 120 / SIZE as u64;
            std::thread::sleep(Duration::from_millis(wait));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_killed_go_on_where_they_were() {
    uploads_go_on(counted("killed-up").await.drain(..2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_to_imitations_that_are_killed_go_on_where_they_were() {
    uploads_go_on(counted("killed-up-too").await.drain(2..)).await;
}

async fn uploads_go_on(places: impl Iterator<Item = Counted>) {
    for counted in places {
        for kill in 0..KILLS {
            let folder = tempfile::tempdir().unwrap();
            let source = folder.path().join("source");
            let content = noise(kill, SIZE);
            fs::write(&source, &content).unwrap();
            let name = format!("object-{kill}");
            let at = 1 + spread(kill, SIZE as u64 - 1);
            counted.kill("upload", &name, folder.path(), Direction::Sent, at);
            // What the server answered before the child died, and may have got nevertheless.
            let had = counted.proxy.as_ref().map(|proxy| {
                let counts = proxy.counts();
                proxy.reset();
                counts.acknowledged
            });
            let output = counted
                .child("upload", &name, folder.path())
                .output()
                .unwrap();
            let digest = Digest::of(&content);
            assert_eq!(printed(&output, "JOB"), format!("ok {digest}"), "{kill}");
            if let (Some(proxy), Some(had)) = (&counted.proxy, had) {
                let sent = proxy.counts().sent;
                // Besides the content, a few hundred bytes name the parts.
                let most = SIZE as u64 - had + PART + 4096;
                assert!(
                    sent <= most,
                    "{kill}: {sent} sent again though {had} were there"
                );
            }
            let uri = counted.place.uri.join(&name).unwrap();
            let got = counted.place.store.get(&uri, SIZE as u64).await.unwrap();
            assert!(got.unwrap() == content, "{kill}");
            counted.place.store.remove(&uri).await.unwrap();
            let journals = fs::read_dir(folder.path().join("journals"));
            assert_eq!(journals.map_or(0, Iterator::count), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_are_killed_go_on_where_they_were() {
    for counted in counted("killed-down").await {
        let content = noise(5, SIZE);
        counted.place.plant("object", &content).await;
        for kill in 0..KILLS {
            let folder = tempfile::tempdir().unwrap();
            let digest = Digest::of(&content);
            fs::write(folder.path().join("expected"), format!("{SIZE} {digest}")).unwrap();
            let at = 1 + spread(kill, SIZE as u64 - 1);
            let direction = Direction::Received;
            counted.kill("download", "object", folder.path(), direction, at);
            let kept = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap())
                .find(|entry| entry.file_name().to_str().unwrap().ends_with(".mlwm-part"))
                .map_or(0, |entry| entry.metadata().unwrap().len());
            if let Some(proxy) = &counted.proxy {
                // What passed the proxy may still have been in the buffers of two sockets.
                let received = proxy.counts().received;
                assert!(
                    kept + 2 * PART >= received,
                    "{kill}: {kept} of {received} were kept"
                );
                proxy.reset();
            }
            let output = counted
                .child("download", "object", folder.path())
                .output()
                .unwrap();
            assert_eq!(printed(&output, "JOB"), format!("ok {digest}"), "{kill}");
            if let Some(proxy) = &counted.proxy {
                let received = proxy.counts().received;
                assert!(
                    received <= SIZE as u64 - kept,
                    "{kill}: {received} after {kept}"
                );
            }
            assert!(fs::read(folder.path().join("fetched")).unwrap() == content);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        }
    }
}

//! What goes over the network.

use std::io::{self, Read};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mlwm_artifacts::{Artifact, ReadAt};
use mlwm_registries::{PushContent, PushRequest, StoredZip};
use mlwm_spec::Digest;
use mlwm_storage::Content;

use crate::common::{NAME, Place, name, push_of, tag, zip};

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_artifact_is_looked_at_with_three_requests() {
    for (place, proxy) in Place::counted("inspect") {
        let publisher = place.open().await;
        publisher.push(push_of(zip(1), "latest")).await.unwrap();
        let registry = place.open().await;
        proxy.reset();
        let publication = registry.publication(&name(), None, None).await.unwrap();
        let artifact = registry.artifact(&publication).await.unwrap();
        let read = tokio::task::spawn_blocking(move || {
            assert_eq!(artifact.files(), Artifact::open(&zip(1)).unwrap().files());
            artifact.interface().unwrap().unwrap();
            artifact.datastores().unwrap();
        });
        read.await.unwrap();
        let requests = proxy.counts().requests;
        assert!((1..=3).contains(&requests.len()), "{requests:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_again_sends_nothing() {
    for (place, proxy) in Place::counted("again") {
        let registry = place.open().await;
        registry.push(push_of(zip(1), "latest")).await.unwrap();
        proxy.reset();
        let again = registry.push(push_of(zip(1), "latest")).await.unwrap();
        assert!(!again.new);
        let counts = proxy.counts();
        assert_eq!(counts.sent, 0, "{:?}", counts.requests);
    }
}

/// Another client of the protocol reads what mlwm published, copies it, and mlwm reads the copy.
#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_a_publication() {
    let place = Place::oci("skopeo");
    let registry = place.open().await;
    let publication = registry
        .push(push_of(zip(1), "v1"))
        .await
        .unwrap()
        .publication;
    let at = |path: &str| format!("docker://{}/{path}/{NAME}:v1", &place.uri["oci://".len()..]);
    let skopeo = |arguments: &[&str]| {
        let output = Command::new("skopeo").args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        output.stdout
    };
    let source = at("").replace("//tiny", "/tiny");
    let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &source]);
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        manifest["artifactType"],
        "application/vnd.mlwm.inference-artifact.v1"
    );
    assert_eq!(
        manifest["layers"][0]["digest"],
        publication.digest.to_string()
    );
    let title = "org.opencontainers.image.title";
    assert_eq!(
        manifest["layers"][0]["annotations"][title],
        format!("{NAME}.zip")
    );

    let (from, to) = ("--src-tls-verify=false", "--dest-tls-verify=false");
    skopeo(&["copy", from, to, &source, &at("copied")]);
    let copies = Place::oci("skopeo/copied").open().await;
    let copy = copies
        .publication(&name(), Some(&tag("v1")), None)
        .await
        .unwrap();
    assert_eq!(copy.digest, publication.digest);
    let to = place.scratch().join("copy.zip");
    copies.pull(&copy, &to).await.unwrap();
    assert_eq!(std::fs::read(to).unwrap(), std::fs::read(zip(1)).unwrap());
}

/// A zip that is read slowly but for its end, and cannot be sent.
struct Slow {
    zip: Vec<u8>,
    read: AtomicU64,
}

impl ReadAt for Slow {
    fn size(&self) -> u64 {
        self.zip.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset > 0 && offset + buffer.len() as u64 == ReadAt::size(self) {
            return self.zip.read_at(buffer, offset);
        }
        std::thread::sleep(Duration::from_millis(1));
        self.read.fetch_add(1, Ordering::SeqCst);
        let few = buffer.len().min(1000);
        self.zip.read_at(&mut buffer[..few], offset)
    }
}

impl Content for Slow {
    fn size(&self) -> u64 {
        self.zip.len() as u64
    }

    fn fingerprint(&self) -> String {
        "slow".to_owned()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Err(io::Error::other("nobody may send it"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_fails_at_once_stops_reading() {
    let place = Place::directory();
    let bytes = std::fs::read(zip(1)).unwrap();
    let slow = Arc::new(Slow {
        zip: bytes.clone(),
        read: AtomicU64::new(0),
    });
    let request = PushRequest {
        content: PushContent::Stored(StoredZip {
            label: "slow".to_owned(),
            content: slow.clone(),
            source: slow.clone(),
            digest: Digest::of(&bytes),
        }),
        ..push_of(zip(1), "latest")
    };
    let error = place.open().await.push(request).await.unwrap_err();
    assert!(error.to_string().contains("nobody may send it"), "{error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let read = slow.read.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(slow.read.load(Ordering::SeqCst), read);
    let all = bytes.len() as u64 / 1000;
    assert!(read < all / 2, "{read} reads of {all}");
}

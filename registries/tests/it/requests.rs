//! What goes over the network.

use std::process::Command;

use mlwm_artifacts::Artifact;

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

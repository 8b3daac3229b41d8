//! Manifests, tags, catalog, deletion.

use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::oci::{OciUri, repositories};
use mlwm_tests::registry::Registry;

use crate::common::{Sender, noise, options, repository};

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(config: &Digest, size: usize, note: &str) -> Vec<u8> {
    serde_json::to_vec_pretty(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": KIND,
        "artifactType": "application/vnd.mlwm.inference-artifact.v1",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": config.to_string(), "size": size,
        },
        "layers": [],
        "annotations": {"note": note},
    }))
    .unwrap()
}

#[tokio::test]
async fn manifests_and_tags_come_back_as_they_were_written() {
    let registry = Registry::open();
    let repository = repository(&registry.host, "models/gefion-1");
    assert_eq!(repository.manifest("latest").await.unwrap(), None);
    assert_eq!(repository.tags().await.unwrap(), Vec::<String>::new());

    let config = repository.push_blob_bytes("{}").await.unwrap();
    assert_eq!(config, Digest::of("{}"));
    let (one, two) = (manifest(&config, 2, "one"), manifest(&config, 2, "two"));
    let first = repository.push_manifest("v1", KIND, one.clone()).await;
    let first = first.unwrap();
    assert_eq!(first, Digest::of(&one));
    let second = Digest::of(&two);
    let by_digest = second.to_string();
    let pushed = repository.push_manifest(&by_digest, KIND, two.clone());
    assert_eq!(pushed.await.unwrap(), second);
    assert_eq!(repository.tags().await.unwrap(), ["v1"]);

    for reference in ["v1", &first.to_string()] {
        let found = repository.manifest(reference).await.unwrap().unwrap();
        assert_eq!((found.digest, &found.bytes[..]), (first, &one[..]));
        assert_eq!(found.media_type, KIND);
    }
    // A tag is moved by writing it again.
    repository
        .push_manifest("v1", KIND, two.clone())
        .await
        .unwrap();
    let found = repository.manifest("v1").await.unwrap().unwrap();
    assert_eq!(found.digest, second);

    assert!(repository.delete_manifest(&second).await.unwrap());
    assert!(!repository.delete_manifest(&second).await.unwrap());
    assert_eq!(repository.manifest("v1").await.unwrap(), None);
    let found = repository.manifest(&first.to_string()).await.unwrap();
    assert_eq!(found.unwrap().digest, first);
}

/// What was pushed can be looked at and copied with another program.
#[tokio::test]
async fn skopeo_inspects_and_copies_what_was_pushed() {
    let registry = Registry::open();
    let repository = repository(&registry.host, "models/gefion-1");
    let layer = noise(3_000_000, 9);
    let digest = Sender::new().send(&repository, &layer).await.unwrap();
    let config = repository.push_blob_bytes("{}").await.unwrap();
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&manifest(&config, 2, "copied")).unwrap();
    manifest["layers"] = serde_json::json!([{
        "mediaType": "application/vnd.mlwm.inference-artifact.v1+zip",
        "digest": digest.to_string(), "size": layer.len(),
        "annotations": {"org.opencontainers.image.title": "gefion-1.zip"},
    }]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    repository
        .push_manifest("v1", KIND, manifest.clone())
        .await
        .unwrap();

    let source = format!("docker://{}/models/gefion-1:v1", registry.host);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &source]);
    assert_eq!(raw, manifest);
    let folder = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", folder.path().display());
    skopeo(&["copy", "--src-tls-verify=false", &source, &target]);
    let copied = std::fs::read(folder.path().join(digest.hex())).unwrap();
    assert!(copied == layer);
}

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("skopeo")
        .args(arguments)
        .output()
        .expect("`skopeo` must be there: run ci/setup");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    output.stdout
}

#[tokio::test]
async fn a_manifest_that_the_registry_refuses_is_an_error_with_its_code() {
    let registry = Registry::open();
    let repository = repository(&registry.host, "a");
    let absent = manifest(&Digest::of("absent"), 6, "");
    let error = repository.push_manifest("v1", KIND, absent).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("HTTP 404") || error.contains("HTTP 400"),
        "{error}"
    );
    assert!(
        error.contains("MANIFEST") || error.contains("BLOB"),
        "{error}"
    );
}

#[tokio::test]
async fn listings_go_over_many_pages() {
    let registry = Registry::open();
    let config = repository(&registry.host, "models/a");
    let config = config.push_blob_bytes("{}").await.unwrap();
    for name in ["models/a", "models/b", "modelsx/c", "d"] {
        let repository = repository(&registry.host, name);
        repository.push_blob_bytes("{}").await.unwrap();
        let manifest = manifest(&config, 2, name);
        repository
            .push_manifest("v1", KIND, manifest)
            .await
            .unwrap();
    }
    let below = |uri: &str| {
        let uri: OciUri = format!("oci://{}{uri}", registry.host).parse().unwrap();
        async move { repositories(&uri, &options(None)).await.unwrap() }
    };
    assert_eq!(below("/models").await, ["models/a", "models/b"]);
    assert_eq!(below("/models/a").await, ["models/a"]);
    assert_eq!(below("").await, ["d", "models/a", "models/b", "modelsx/c"]);

    // docker-registry gives at most 1000 at once.
    let many = repository(&registry.host, "many");
    many.push_blob_bytes("{}").await.unwrap();
    let manifest = manifest(&config, 2, "");
    for number in 0..3 {
        let tag = format!("v{number}");
        many.push_manifest(&tag, KIND, manifest.clone())
            .await
            .unwrap();
    }
    assert_eq!(many.tags().await.unwrap(), ["v0", "v1", "v2"]);
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let registry = Registry::imitation(&serde_json::json!({"corrupt_manifest": true}));
    let repository = repository(&registry.host, "a");
    let digest = repository.push_manifest("v1", KIND, "{}").await.unwrap();
    let error = repository.manifest(&digest.to_string()).await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::InputCorrupt, "{error}");
    // A tag promises nothing.
    let found = repository.manifest("v1").await.unwrap().unwrap();
    assert_eq!(found.digest, Digest::of("{} "));
}

//! Zips that are larger than one blob of an OCI registry may be.

use std::fs;
use std::process::Command;

use mlwm_artifacts::Artifact;
use mlwm_registries::Registry;
use mlwm_tests::counting_proxy::CountingProxy;
use serde_json::Value;

use crate::common::{NAME, OCI, Place, name, push_of, tag, zip};

/// The largest blob of these tests.
const PART: u64 = 100_000;

/// An OCI registry whose blobs are small, and what counts its requests.
fn of_small_blobs(path: &str) -> (Place, CountingProxy) {
    let proxy = CountingProxy::to(&OCI.endpoint());
    let mut place = Place::oci_at(&proxy.endpoint["http://".len()..], path);
    place.options.oci.chunk_bytes = PART;
    (place, proxy)
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    output.stdout
}

fn image(place: &Place, path: &str, tag: &str) -> String {
    format!(
        "docker://{}/{path}{NAME}:{tag}",
        &place.uri["oci://".len()..]
    )
}

fn manifest(place: &Place, tag: &str) -> Value {
    let source = image(place, "", tag);
    let bytes = run(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &source],
    );
    serde_json::from_slice(&bytes).unwrap()
}

async fn pulled(registry: &Registry, place: &Place, file: &str) -> Vec<u8> {
    let publication = registry
        .publication(&name(), Some(&tag("v1")), None)
        .await
        .unwrap();
    let to = place.scratch().join(file);
    registry.pull(&publication, &to).await.unwrap();
    fs::read(to).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_zip_is_several_blobs_that_other_clients_copy() {
    let (place, proxy) = of_small_blobs("parts");
    let registry = place.open().await;
    let bytes = fs::read(zip(1)).unwrap();
    let pushed = registry.push(push_of(zip(1), "v1")).await.unwrap();
    assert_eq!(pushed.publication.size, bytes.len() as u64);

    // Another client finds the zip in the layers.
    let manifest = manifest(&place, "v1");
    let layers = manifest["layers"].as_array().unwrap();
    let parts: Vec<&Value> = layers
        .iter()
        .filter(|layer| layer["mediaType"] == "application/vnd.mlwm.inference-artifact.v1+zip.part")
        .collect();
    let expected = bytes.len().div_ceil(usize::try_from(PART).unwrap());
    assert!(expected > 2);
    assert_eq!((parts.len(), layers.len()), (expected, expected + 1));
    let folder = place.scratch().join("copied");
    let folder = folder.to_str().unwrap();
    let source = image(&place, "", "v1");
    run(
        "skopeo",
        &[
            "copy",
            "--src-tls-verify=false",
            &source,
            &format!("dir:{folder}"),
        ],
    );
    let mut joined = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let hex = &part["digest"].as_str().unwrap()["sha256:".len()..];
        joined.extend(fs::read(format!("{folder}/{hex}")).unwrap());
        let title = &part["annotations"]["org.opencontainers.image.title"];
        assert_eq!(title, &format!("{NAME}.zip.{:03}", index + 1));
    }
    assert_eq!(joined, bytes);

    // Looked at over the borders of its parts, and whole.
    let fresh = place.open_elsewhere("fresh").await;
    let publication = fresh.publication(&name(), Some(&tag("v1")), None).await;
    let remote = fresh.artifact(&publication.unwrap()).await.unwrap();
    assert_eq!(remote.files(), Artifact::open(&zip(1)).unwrap().files());
    let verified = tokio::task::spawn_blocking(move || remote.verify());
    assert_eq!(
        verified.await.unwrap().unwrap().digest,
        pushed.publication.digest
    );
    assert_eq!(pulled(&fresh, &place, "again.zip").await, bytes);

    // A copy made by another client is the same publication.
    let (from, to) = ("--src-tls-verify=false", "--dest-tls-verify=false");
    run(
        "skopeo",
        &["copy", from, to, &source, &image(&place, "copies/", "v1")],
    );
    let copies = Place::oci("parts/copies");
    assert_eq!(
        pulled(&copies.open().await, &copies, "copy.zip").await,
        bytes
    );

    // Who sends larger blobs sends none, since these are there.
    let larger = Place::oci_at(&proxy.endpoint["http://".len()..], "parts");
    let larger = larger.open().await;
    proxy.reset();
    assert!(!larger.push(push_of(zip(1), "v1")).await.unwrap().new);
    assert_eq!(proxy.counts().sent, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_the_registry_lost_is_sent_again() {
    let (place, proxy) = of_small_blobs("lost");
    let registry = place.open().await;
    registry.push(push_of(zip(1), "v1")).await.unwrap();
    let lost = manifest(&place, "v1")["layers"][1]["digest"].clone();
    let blob = format!(
        "{}/v2/lost/{NAME}/blobs/{}",
        OCI.endpoint(),
        lost.as_str().unwrap()
    );
    run("curl", &["-sSf", "-X", "DELETE", &blob]);

    let larger = Place::oci_at(&proxy.endpoint["http://".len()..], "lost");
    proxy.reset();
    larger
        .open()
        .await
        .push(push_of(zip(1), "v1"))
        .await
        .unwrap();
    assert_eq!(proxy.counts().sent, PART, "the one part");
    let bytes = pulled(&registry, &place, "again.zip").await;
    assert_eq!(bytes, fs::read(zip(1)).unwrap());
}

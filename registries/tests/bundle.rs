//! Bundles of real artifacts, from registry to registry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use mlwm_artifacts::{Artifact, BuildRequest, build};
use mlwm_registries::bundle::{self, Bundle, Source, Watch, Written};
use mlwm_registries::signature::{self, PublicKey, SecretKey};
use mlwm_registries::{Error, Policy, Publication, Registry, RegistryOptions};
use mlwm_spec::{ExitCode, Tag};
use mlwm_storage::Progress;
use mlwm_tests::registry::Registry as OciServer;
use tempfile::TempDir;

const NAME: &str = "tiny-graph-lam";

/// Two artifacts, built from the bundled training run, with other training arguments each.
static BUILT: LazyLock<(TempDir, [PathBuf; 2])> = LazyLock::new(|| {
    let folder = mlwm_tests::scratch::folder();
    let zips = [1, 2].map(|variant| built(variant, folder.path()));
    (folder, zips)
});

fn built(variant: u32, folder: &Path) -> PathBuf {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
    let text = fs::read_to_string(case.join("train/training_cli_args.yaml")).unwrap();
    let arguments = folder.join(format!("arguments-{variant}.yaml"));
    // Big enough to be interrupted.
    let long: String = (0..60_000)
        .map(|line| format!("# variant {variant}, line {line} of many that say nothing\n"))
        .collect();
    fs::write(&arguments, format!("{text}\n{long}")).unwrap();
    let request = BuildRequest {
        name: NAME.into(),
        nl_config: Some(case.join("train/config.yaml")),
        configs: Vec::new(),
        training_args: Some(arguments),
        onnx: Some(case.join("onnx/graph_lam.onnx")),
        interface: Some(case.join("onnx/graph_lam.json")),
        output: folder.join(format!("{variant}.zip")),
        ..BuildRequest::default()
    };
    build(&request).unwrap().path
}

fn zips() -> &'static [PathBuf; 2] {
    &BUILT.1
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// A key pair in `folder`, and its signature of a zip.
fn sign(zip: &Path, folder: &Path) -> (PublicKey, String) {
    let (secret, public) = (folder.join("key"), folder.join("key.pub"));
    if !secret.exists() {
        signature::generate(&secret, &public, None).unwrap();
    }
    let key = SecretKey::read(&secret, || Ok(String::new())).unwrap();
    let artifact = Artifact::open(zip).unwrap();
    let digest = artifact.digest().unwrap();
    let signature = signature::sign(fs::File::open(zip).unwrap(), NAME, digest, &key).unwrap();
    (key.public_key().clone(), signature.to_text())
}

/// The first artifact as `latest`, signed, and the second as `v2`.
fn sources(folder: &Path) -> Vec<Source> {
    let (_, signature) = sign(&zips()[0], folder);
    let provenance = Some("host: node\n".to_owned());
    vec![
        Source::of_file(&zips()[0], Tag::latest(), provenance, &[signature]).unwrap(),
        Source::of_file(&zips()[1], tag("v2"), None, &[]).unwrap(),
    ]
}

fn write(sources: &[Source], path: &Path, part_size: Option<u64>) -> Written {
    bundle::write(sources, &[], path, part_size, &Watch::default()).unwrap()
}

fn options(folder: &Path) -> RegistryOptions {
    RegistryOptions {
        transfers: Some(folder.join("transfers")),
        ..RegistryOptions::default()
    }
}

async fn directory(folder: &Path, name: &str) -> Registry {
    let uri = folder.join(name);
    Registry::open(uri.to_str().unwrap(), options(folder))
        .await
        .unwrap()
}

/// What is published, but for when and where it lies.
fn facts(publication: &Publication) -> Publication {
    Publication {
        published_at: String::new(),
        object: String::new(),
        provenance: None,
        ..publication.clone()
    }
}

async fn bundle_again(registry: &Registry, path: &Path) -> Written {
    let mut sources = Vec::new();
    for publication in registry.list(None).await.unwrap() {
        sources.push(
            Source::of_publication(registry, &publication)
                .await
                .unwrap(),
        );
    }
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || write(&sources, &path, None));
    written.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_zips_to_a_registry_to_another_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = folder.join("first.tar");
    let written = write(&sources(folder), &first, Some(1_000_003));
    assert!(written.files.len() > 3);
    let bundle = Bundle::open(&first).unwrap();
    bundle.verify(&Watch::default()).unwrap();

    let server = OciServer::open();
    let uri = format!("oci://{}/models", server.host);
    let oci = Registry::open(&uri, options(folder)).await.unwrap();
    let mut before: Option<Vec<Publication>> = None;
    for (number, registry) in [directory(folder, "models").await, oci].iter().enumerate() {
        for round in 0..2 {
            let imported = bundle::import(&bundle, registry).await;
            assert_eq!(imported.len(), 2);
            for one in imported {
                let pushed = one.outcome.unwrap();
                assert_eq!(pushed.new, round == 0);
                assert_eq!(pushed.publication.digest, one.digest);
            }
        }
        let listed = registry.list(None).await.unwrap();
        let plain: Vec<Publication> = listed.iter().map(facts).collect();
        if let Some(before) = &before {
            assert_eq!(&plain, before);
        }
        before = Some(plain);
        let provenance = registry.provenance(&listed[0]).await.unwrap();
        assert_eq!(provenance.as_deref(), Some("host: node\n"));
        assert_eq!(registry.signatures(&listed[0]).await.unwrap().len(), 1);
        assert_eq!(registry.signatures(&listed[1]).await.unwrap().len(), 0);

        // A bundle of what arrived is the bundle that was brought.
        let path = folder.join(format!("again-{number}.tar"));
        let again = bundle_again(registry, &path).await;
        assert_eq!(again.digest, written.digest);

        let pulled = folder.join(format!("pulled-{number}"));
        fs::create_dir(&pulled).unwrap();
        let zip = registry.pull(&listed[1], &pulled).await.unwrap().zip;
        assert!(fs::read(zip).unwrap() == fs::read(&zips()[1]).unwrap());
    }
    let raw = Command::new("skopeo")
        .args(["inspect", "--raw"])
        .arg(format!(
            "oci-archive:{}:{NAME}:v2",
            folder.join("again-1.tar").display()
        ))
        .output()
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&raw.stdout).unwrap();
    let digest = Artifact::open(&zips()[1]).unwrap().digest().unwrap();
    assert_eq!(manifest["layers"][0]["digest"], digest.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_and_conflicts_hold_for_each_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("a.tar");
    write(&sources(folder), &path, None);
    let bundle = Bundle::open(&path).unwrap();

    let registry = directory(folder, "signed").await;
    let (key, _) = sign(&zips()[0], folder);
    let policy = Policy {
        require_signature_by: vec![key.to_base64()],
        ..Policy::default()
    };
    registry.set_policy(&policy).await.unwrap();
    let imported = bundle::import(&bundle, &registry).await;
    assert!(imported[0].outcome.as_ref().unwrap().new);
    let unsigned = imported[1].outcome.as_ref().unwrap_err();
    assert!(matches!(unsigned, Error::Unsigned { .. }), "{unsigned}");
    assert_eq!(registry.list(None).await.unwrap().len(), 1);

    // `latest` is something else there; `v2` is published all the same.
    let registry = directory(folder, "taken").await;
    let other = folder.join("other.tar");
    let source = Source::of_file(&zips()[1], Tag::latest(), None, &[]).unwrap();
    write(&[source], &other, None);
    let taken = bundle::import(&Bundle::open(&other).unwrap(), &registry).await;
    assert!(taken[0].outcome.as_ref().unwrap().new);
    let imported = bundle::import(&bundle, &registry).await;
    let conflict = imported[0].outcome.as_ref().unwrap_err();
    assert_eq!(conflict.exit_code(), ExitCode::Conflict, "{conflict}");
    assert!(imported[1].outcome.as_ref().unwrap().new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_zip_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("a.tar");
    write(&sources(folder), &path, None);
    let registry = directory(folder, "models").await;
    // In the middle of whichever zip is last.
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1_000_000;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();

    let bundle = Bundle::open(&path).unwrap();
    let error = bundle.verify(&Watch::default()).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::ArtifactMismatch, "{error}");
    let imported = bundle::import(&bundle, &registry).await;
    let failed: Vec<String> = imported
        .iter()
        .filter_map(|one| one.outcome.as_ref().err().map(Error::to_string))
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(registry.list(None).await.unwrap().len(), 1);
}

/// Files below `folder` that end in `ending`, with their inodes.
fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            let inode = fs::metadata(&path).unwrap().ino();
            found.push((path, inode));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    for (round, bytes) in [1_u64, 900_000, 1_500_000, 2_500_000]
        .into_iter()
        .enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let path = folder.join("a.tar");
        let part_size = (round % 2 == 0).then_some(700_001);
        write(&sources(folder), &path, part_size);
        let killed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "import_until_killed", "--ignored"])
            .env("MLWM_JOB", format!("{bytes}"))
            .env("MLWM_JOB_FOLDER", folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(killed.signal(), Some(9), "{killed}");
        let objects = folder.join("models/objects");
        let arriving = files(&objects, ".mlwm-upload");
        assert_eq!(arriving.len(), 1, "{arriving:?}");
        assert!(fs::metadata(&arriving[0].0).unwrap().len() >= bytes);

        let registry = directory(folder, "models").await;
        assert_eq!(registry.list(None).await.unwrap().len(), 0);
        let bundle = Bundle::open(&path).unwrap();
        for one in bundle::import(&bundle, &registry).await {
            assert!(one.outcome.unwrap().new);
        }
        // What had arrived was kept: it is the same file that was completed.
        let complete = files(&objects, ".zip");
        assert_eq!(complete.len(), 2);
        assert!(complete.iter().any(|(_, inode)| *inode == arriving[0].1));
        assert_eq!(files(&objects, ".mlwm-upload"), []);
        let again = bundle_again(&registry, &folder.join("again.tar")).await;
        assert!(!again.unchanged && again.size == bundle.size());
        let again = Bundle::open(&folder.join("again.tar")).unwrap();
        assert_eq!(again.artifacts(), bundle.artifacts());
        again.verify(&Watch::default()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child process of another test"]
async fn import_until_killed() {
    let Some(folder) = std::env::var_os("MLWM_JOB_FOLDER").map(PathBuf::from) else {
        return;
    };
    let bytes: u64 = std::env::var("MLWM_JOB").unwrap().parse().unwrap();
    let progress = Progress::new(move |event| {
        if event.done_bytes >= bytes {
            let this = std::process::id().to_string();
            Command::new("kill").args(["-9", &this]).status().unwrap();
        }
    });
    let options = RegistryOptions {
        progress,
        ..options(&folder)
    };
    let uri = folder.join("models");
    let registry = Registry::open(uri.to_str().unwrap(), options)
        .await
        .unwrap();
    let bundle = Bundle::open(&folder.join("a.tar")).unwrap();
    bundle::import(&bundle, &registry).await;
}

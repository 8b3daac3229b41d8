//! Images are assembled, and brought into layouts, registries and the Docker of this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use mlwm_artifacts::{Artifact, BuildRequest, Receipts};
use mlwm_engines::{Endpoint, Engine, Output, Request};
use mlwm_images::{
    BuildInputs, Error, Image, LayerDigests, Layout, Lock, Place, Platform, Runner, Transfers,
    assemble, find, labels, plan, push, secrets,
};
use mlwm_spec::configuration::Resources;
use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::oci::{OciOptions, OciUri};
use mlwm_storage::{Journals, Progress};
use mlwm_tests::registry::Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const BASE: &str = "mlwm-base:bookworm";
/// Stands in for the runner: it shows what the image holds.
const RUNNER: &str = "#!/bin/sh
cd / && find opt workspace -type f -exec stat -c '%a %u %n' {} + | sort -k3
cd /workspace/inference_artifact && sha256sum $(find . -type f | sort)
echo $ORT_DYLIB_PATH $*
";

struct Parts {
    folder: tempfile::TempDir,
    runner: Runner,
}

impl Parts {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("built-runner");
        std::fs::write(&binary, RUNNER).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o700)).unwrap();
        let library = folder.path().join("libonnxruntime.so.1.31.0");
        std::fs::write(&library, vec![7; 3 << 20]).unwrap();
        let provider = folder.path().join("libonnxruntime_providers_shared.so");
        std::fs::write(&provider, "provider").unwrap();
        Self {
            folder,
            runner: Runner {
                binary,
                libraries: vec![library, provider],
            },
        }
    }

    /// An artifact of the bundled training run, without the checkpoint; what is put before the
    /// training arguments makes it another one.
    fn artifact(&self, variant: &str) -> Artifact {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
        let arguments = std::fs::read_to_string(case.join("train/training_cli_args.yaml")).unwrap();
        let training_args = self.folder.path().join("arguments.yaml");
        std::fs::write(&training_args, variant.to_owned() + &arguments).unwrap();
        let output = self.folder.path().join("model.zip");
        let _ = std::fs::remove_file(&output);
        let request = BuildRequest {
            name: "tiny".into(),
            nl_config: Some(case.join("train/config.yaml")),
            configs: Vec::new(),
            training_args: Some(training_args),
            onnx: Some(case.join("onnx/graph_lam.onnx")),
            interface: Some(case.join("onnx/graph_lam.json")),
            output,
            ..BuildRequest::default()
        };
        Artifact::open(&mlwm_artifacts::build(&request).unwrap().path).unwrap()
    }

    fn small_artifact(&self) -> Artifact {
        self.artifact("")
    }
}

/// The model in the artifact.
fn artifact_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam/onnx/graph_lam.onnx")
}

/// An image with one small layer, written by hand; other machines than amd64 have it, too.
static SMALL_BASE: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = mlwm_tests::scratch::folder();
    let blobs = folder.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(5);
    tar.append_data(&mut header, "etc/base", &b"base\n"[..])
        .unwrap();
    let (layer, layer_size) = put(&tar.into_inner().unwrap());
    let image = |architecture: &str| {
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "docker_version": "20",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/bin", "ORT_DYLIB_PATH=/old"], "Cmd": ["sh"],
                "Healthcheck": {"Test": ["NONE"]}, "Labels": {"of": "base"}},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created_by": "made"}, {"created_by": "nothing", "empty_layer": true}],
        });
        let (config, config_size) = put(config.to_string().as_bytes());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size}],
        });
        let (digest, size) = put(manifest.to_string().as_bytes());
        serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
            "size": size, "platform": {"architecture": architecture, "os": "linux"}})
    };
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [image("arm64"), image("amd64")]});
    let (digest, size) = put(index.to_string().as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size,
         "annotations": {"org.opencontainers.image.ref.name": "v1"}}]});
    fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
    fs::write(
        folder.path().join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    folder
});

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

async fn found(place: &str) -> Result<Option<Image>, Error> {
    find(&place.parse()?, &amd64(), &OciOptions::default()).await
}

async fn small_base() -> Image {
    let place = format!("oci:{}:v1", SMALL_BASE.path().display());
    found(&place).await.unwrap().unwrap()
}

fn inputs<'a>(
    name: &'a str,
    base: Option<&'a Image>,
    runner: &'a Runner,
    artifact: Option<&'a Artifact>,
) -> BuildInputs<'a> {
    BuildInputs {
        configuration: name,
        configuration_digest: Digest::of("inputs: {}"),
        reference: None,
        base: BASE,
        base_image: base,
        runner: Some(runner),
        artifact,
        is_mounted: false,
        source: None,
        revision: None,
        allowed: &[],
        version: "0.1.0",
    }
}

/// The image of these parts.
fn image_of(parts: &Parts, base: &Image, artifact: &Arc<Artifact>) -> Result<Image, Error> {
    let planned = plan(&inputs("test", Some(base), &parts.runner, Some(artifact)))?;
    let digests = LayerDigests::at(parts.folder.path().join("layers"));
    assemble(
        &planned,
        base,
        Some(artifact),
        &digests,
        "1970-01-01T00:00:00Z",
    )
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn transfers(folder: &Path) -> Transfers {
    Transfers {
        options: OciOptions::default(),
        journals: Journals::at(folder.join("journals")),
        progress: Progress::none(),
        cancel: CancellationToken::new(),
    }
}

async fn engine() -> Engine {
    Engine::connect_to(Endpoint::Unix(PathBuf::from("/var/run/docker.sock")))
        .await
        .unwrap()
}

/// An image that is removed when the test ends.
struct Cleanup(&'static str);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", self.0]).output();
    }
}

async fn output_of(engine: &Engine, image: &str) -> Vec<String> {
    let request = Request {
        name: format!(
            "mlwm-images-test-{}-{}",
            std::process::id(),
            Digest::of(image).short()
        ),
        image: image.to_owned(),
        env: BTreeMap::new(),
        mounts: Vec::new(),
        resources: Resources::default(),
        timeout: None,
        labels: BTreeMap::new(),
        command: Some(vec!["--version".into()]),
        user: (65534, 65534),
        network: false,
        kill: CancellationToken::new(),
    };
    let mut lines = Vec::new();
    let mut print = |line| match line {
        Output::Stdout(text) | Output::Stderr(text) => lines.push(text),
    };
    let cancel = CancellationToken::new();
    engine.run(&request, &mut print, &cancel).await.unwrap();
    lines
}

/// What the stand-in for the runner says where all is as it should be.
fn expected_output(artifact: &Artifact) -> Vec<String> {
    let folder = "workspace/inference_artifact";
    let mut expected = vec![
        "755 0 opt/mlwm/bin/mlwm-runner".to_owned(),
        "644 0 opt/mlwm/lib/libonnxruntime.so".to_owned(),
        "644 0 opt/mlwm/lib/libonnxruntime_providers_shared.so".to_owned(),
    ];
    let mut files: Vec<String> = artifact
        .files()
        .iter()
        .map(|file| format!("644 0 {folder}/{}", file.path))
        .collect();
    files.sort();
    expected.extend(files);
    let mut digests: Vec<String> = artifact
        .files()
        .iter()
        .map(|file| format!("{}  ./{}", file.sha256.unwrap().hex(), file.path))
        .collect();
    digests.sort_by(|a, b| a[64..].cmp(&b[64..]));
    expected.extend(digests);
    expected.push("/opt/mlwm/lib/libonnxruntime.so --version".to_owned());
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_runs_an_image_made_on_one_of_its_own() {
    let reference = "mlwm/test-loaded:v1";
    let _cleanup = Cleanup(reference);
    let (engine, parts) = (engine().await, Parts::new());
    let artifact = Arc::new(parts.small_artifact());
    let kept = parts.folder.path().join("bases");
    let base = mlwm_images::engine::find(&engine, BASE, &amd64(), &kept)
        .await
        .unwrap()
        .unwrap();
    let there = engine.image(BASE).await.unwrap().unwrap();
    assert_eq!(base.id(), there.id);
    let again = mlwm_images::engine::find(&engine, BASE, &amd64(), &kept)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.digest(), base.digest());
    assert!(
        mlwm_images::engine::find(&engine, "mlwm-absent:none", &amd64(), &kept)
            .await
            .unwrap()
            .is_none()
    );

    let image = image_of(&parts, &base, &artifact).unwrap();
    mlwm_images::engine::load(&image, reference, &engine)
        .await
        .unwrap();
    let loaded = engine.image(reference).await.unwrap().unwrap();
    assert_eq!(loaded.id, image.id());
    assert_eq!(
        output_of(&engine, reference).await,
        expected_output(&artifact)
    );
    let label = |name: &str| loaded.labels[name].clone();
    assert_eq!(label(labels::CONFIGURATION), "test");
    assert_eq!(
        label(labels::ARTIFACT_DIGEST),
        artifact.digest().unwrap().to_string()
    );
    assert_eq!(label(labels::RUNNER_DIGEST), Digest::of(RUNNER).to_string());
    assert_eq!(label(labels::BASE_NAME), BASE);
    assert_eq!(label(labels::BASE_DIGEST), base.digest().to_string());
    assert_eq!(
        (label(labels::CONTRACT), label(labels::MLWM_VERSION)),
        ("1".into(), "0.1.0".into())
    );

    // What Docker has is not sent again: the layers of the base cannot be read any more.
    let blobs = kept.join(base.id().hex()).join("blobs/sha256");
    for layer in &base.summary().layers {
        fs::remove_file(blobs.join(layer.digest.hex())).unwrap();
    }
    let other = Arc::new(parts.artifact("# another\n"));
    let changed = image_of(&parts, &base, &other).unwrap();
    mlwm_images::engine::load(&changed, reference, &engine)
        .await
        .unwrap();
    let loaded = engine.image(reference).await.unwrap().unwrap();
    assert_eq!(loaded.id, changed.id());
    assert_eq!(output_of(&engine, reference).await, expected_output(&other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_holds_what_other_programs_read() {
    let parts = Parts::new();
    let (base, artifact) = (small_base().await, Arc::new(parts.small_artifact()));
    let image = image_of(&parts, &base, &artifact).unwrap();
    let folder = parts.folder.path().join("layout");
    let layout = Layout::at(&folder);
    assert!(layout.put(&image, "v1").unwrap());
    assert!(!layout.put(&image, "v1").unwrap(), "it was there");
    assert!(layout.put(&image, "v2").unwrap());

    let source = format!("oci:{}:v1", folder.display());
    assert_eq!(
        run("skopeo", &["inspect", "--format", "{{.Digest}}", &source]).trim(),
        image.digest().to_string()
    );
    let config: serde_json::Value =
        serde_json::from_str(&run("skopeo", &["inspect", "--config", &source])).unwrap();
    assert_eq!(
        config["config"]["Entrypoint"][0],
        "/opt/mlwm/bin/mlwm-runner"
    );
    let environment: Vec<&str> = config["config"]["Env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|v| v.as_str())
        .collect();
    assert_eq!(
        environment,
        [
            "PATH=/bin",
            "ORT_DYLIB_PATH=/opt/mlwm/lib/libonnxruntime.so"
        ]
    );
    assert_eq!(config["config"]["Labels"]["of"], "base");
    assert!(config["config"].get("Cmd").is_none());
    let raw: serde_json::Value =
        serde_json::from_str(&run("skopeo", &["inspect", "--config", "--raw", &source])).unwrap();
    assert_eq!(
        raw["config"]["Healthcheck"]["Test"][0], "NONE",
        "what mlwm does not know stays"
    );
    assert_eq!(raw["created"], "1970-01-01T00:00:00Z");

    // The archive of each layer, read by another program, has the files.
    let copied = parts.folder.path().join("copied");
    run(
        "skopeo",
        &["copy", &source, &format!("dir:{}", copied.display())],
    );
    let tree = parts.folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for layer in image.summary().layers {
        let archive = copied.join(layer.digest.hex());
        run(
            "tar",
            &[
                "-C",
                tree.to_str().unwrap(),
                "-xf",
                archive.to_str().unwrap(),
            ],
        );
    }
    assert_eq!(fs::read(tree.join("etc/base")).unwrap(), b"base\n");
    assert_eq!(
        fs::read_to_string(tree.join("opt/mlwm/bin/mlwm-runner")).unwrap(),
        RUNNER
    );
    for file in artifact.files() {
        let bytes = fs::read(tree.join("workspace/inference_artifact").join(&file.path)).unwrap();
        assert_eq!(Some(Digest::of(&bytes)), file.sha256, "{}", file.path);
    }
    let read_back = found(&source).await.unwrap().unwrap();
    assert_eq!(read_back.summary(), image.summary());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_parts_are_the_same_bytes_elsewhere() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let parts = Parts::new();
        let artifact = Arc::new(parts.small_artifact());
        let image = image_of(&parts, &small_base().await, &artifact).unwrap();
        // From the digests that were noted.
        let again = image_of(&parts, &small_base().await, &artifact).unwrap();
        assert_eq!(again.digest(), image.digest());
        digests.push(image.digest());
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_sent_what_it_has_not() {
    let server = Registry::open();
    let parts = Parts::new();
    let transfers = transfers(parts.folder.path());
    let repository = |name: &str| {
        format!("oci://{}/{name}", server.host)
            .parse::<OciUri>()
            .unwrap()
    };
    let base = small_base().await;
    push(&base, &repository("base"), "v1", &transfers)
        .await
        .unwrap();
    let base = found(&format!("{}/base:v1", server.host))
        .await
        .unwrap()
        .unwrap();

    let artifact = Arc::new(parts.small_artifact());
    let image = image_of(&parts, &base, &artifact).unwrap();
    let layers = image.summary().layers.len();
    let pushed = push(&image, &repository("models/a"), "v1", &transfers)
        .await
        .unwrap();
    assert_eq!(
        (pushed.mounted, pushed.sent, pushed.unchanged),
        (1, layers - 1, false)
    );
    let again = push(&image, &repository("models/a"), "v1", &transfers)
        .await
        .unwrap();
    assert!(again.unchanged);
    let source = format!("docker://{}/models/a:v1", server.host);
    let inspect = [
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        &source,
    ];
    assert_eq!(run("skopeo", &inspect).trim(), image.digest().to_string());

    // Another artifact with the same model: one layer of small files is another one.
    let other = Arc::new(parts.artifact("# another\n"));
    let changed = image_of(&parts, &base, &other).unwrap();
    let pushed = push(&changed, &repository("models/a"), "v2", &transfers)
        .await
        .unwrap();
    assert_eq!((pushed.sent, pushed.there), (1, layers - 1));

    let reference = format!("{}/models/a:v1", server.host);
    let removed = ["rmi", "-f", reference.as_str()];
    run("docker", &["pull", "--quiet", &reference]);
    let id = run(
        "docker",
        &["image", "inspect", "--format", "{{.Id}}", &reference],
    );
    run("docker", &removed);
    assert_eq!(id.trim(), image.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn bases_that_are_not_what_is_wanted_are_refused() {
    let at = SMALL_BASE.path().display();
    assert!(found(&format!("oci:{at}:absent")).await.unwrap().is_none());
    assert!(found("oci:/no/such/layout").await.unwrap().is_none());
    let wrong = format!("oci:{at}:v1@{}", Digest::of("other"));
    let error = found(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("not the pinned"), "{error}");
    let place: Place = format!("oci:{at}:v1").parse().unwrap();
    let platform = "linux/riscv64".parse().unwrap();
    let error = find(&place, &platform, &OciOptions::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("linux/arm64, linux/amd64"),
        "{error}"
    );
    let arm: Platform = "linux/arm64".parse().unwrap();
    let image = find(&place, &arm, &OciOptions::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(image.summary().platform, "linux/arm64");
    let server = Registry::open();
    assert!(
        found(&format!("{}/nothing/here:v1", server.host))
            .await
            .unwrap()
            .is_none()
    );

    // A blob that was changed.
    let copy = tempfile::tempdir().unwrap();
    run(
        "cp",
        &["-r", &format!("{at}/."), copy.path().to_str().unwrap()],
    );
    let layer = small_base().await.summary().layers[0].digest;
    fs::write(
        copy.path().join("blobs/sha256").join(layer.hex()),
        [0; 2048],
    )
    .unwrap();
    let base = found(&format!("oci:{}:v1", copy.path().display()))
        .await
        .unwrap()
        .unwrap();
    let target = tempfile::tempdir().unwrap();
    let error = Layout::at(target.path()).put(&base, "v1").unwrap_err();
    assert!(error.to_string().contains(&layer.to_string()), "{error}");
    assert!(!target.path().join("index.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_change_make_no_image() {
    let parts = Parts::new();
    let (base, artifact) = (small_base().await, Arc::new(parts.small_artifact()));
    let planned = plan(&inputs("test", Some(&base), &parts.runner, Some(&artifact))).unwrap();
    let digests = LayerDigests::at(parts.folder.path().join("layers"));
    let made = |digests| {
        assemble(
            &planned,
            &base,
            Some(&artifact),
            digests,
            "1970-01-01T00:00:00Z",
        )
    };
    for bytes in [vec![8; 3 << 20], vec![7; 4 << 20], vec![7; 100]] {
        fs::write(&parts.runner.libraries[0], bytes).unwrap();
        let error = made(&digests).unwrap_err().to_string();
        assert!(error.contains("libonnxruntime.so.1.31.0"), "{error}");
    }
    fs::write(&parts.runner.libraries[0], vec![7; 3 << 20]).unwrap();

    // After its digest was noted, too: the note is for the artifact as it was.
    let before = made(&digests).unwrap();
    let pinned = LayerDigests::at(parts.folder.path().join("pinned"));
    let pinned = pinned.of_pinned(Receipts::at(parts.folder.path().join("receipts")));
    assert_eq!(made(&pinned).unwrap().digest(), before.digest());
    let intact = fs::read(artifact.path()).unwrap();
    let mut bytes = intact.clone();
    let model = fs::read(artifact_model()).unwrap();
    let start = bytes.windows(64).position(|at| at == &model[..64]).unwrap();
    bytes[start + 100] ^= 1;
    fs::write(artifact.path(), bytes).unwrap();
    let damaged = Arc::new(Artifact::open(artifact.path()).unwrap());
    let refused = |artifact: &Arc<Artifact>, digests| {
        let created = "1970-01-01T00:00:00Z";
        let error = assemble(&planned, &base, Some(artifact), digests, created).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::ArtifactMismatch, "{error}");
        error.to_string()
    };
    let none = |name: &str| LayerDigests::at(parts.folder.path().join(name));
    let receipts = Receipts::at(parts.folder.path().join("receipts"));
    for digests in [
        &digests,
        &none("none"),
        &none("nothing").of_pinned(receipts),
    ] {
        let error = refused(&damaged, digests);
        assert!(error.contains("checkpoint.onnx"), "{error}");
    }

    // And when it has been hashed: nobody is brought another layer than was meant.
    fs::write(artifact.path(), intact).unwrap();
    fs::write(&parts.runner.libraries[0], vec![9; 3 << 20]).unwrap();
    let target = parts.folder.path().join("layout");
    let error = Layout::at(&target).put(&before, "v1").unwrap_err();
    assert!(error.to_string().contains("libonnxruntime.so"), "{error}");
    assert!(!target.join("index.json").exists());
    let server = Registry::open();
    let repository: OciUri = format!("oci://{}/a", server.host).parse().unwrap();
    let transfers = transfers(parts.folder.path());
    let pushed = push(&before, &repository, "v1", &transfers).await;
    let error = pushed.unwrap_err().to_string();
    assert!(error.contains("libonnxruntime.so"), "{error}");
    let name = format!("{}/a:v1", server.host);
    assert!(found(&name).await.unwrap().is_none());
    // Another file with the same bytes is as good.
    fs::write(&parts.runner.libraries[0], vec![7; 3 << 20]).unwrap();
    push(&before, &repository, "v1", &transfers).await.unwrap();
}

#[tokio::test]
async fn a_layout_is_mended_and_what_killed_writers_left_goes() {
    let parts = Parts::new();
    let (base, artifact) = (small_base().await, Arc::new(parts.small_artifact()));
    let image = image_of(&parts, &base, &artifact).unwrap();
    let layout = tempfile::tempdir().unwrap();
    let blobs = layout.path().join("blobs/sha256");
    let receipts = Receipts::at(parts.folder.path().join("receipts"));
    let put = |receipts: Receipts| {
        let layout = Layout::at(layout.path()).with_receipts(receipts);
        layout.put(&image, "v1").unwrap()
    };
    put(receipts.clone());
    for receipts in [receipts, Receipts::paranoid()] {
        for blob in fs::read_dir(&blobs).unwrap() {
            let path = blob.unwrap().path();
            let right = fs::read(&path).unwrap();
            let mut wrong = right.clone();
            wrong[0] ^= 1;
            // In the same tick of the clock a change would be none.
            std::thread::sleep(std::time::Duration::from_millis(20));
            fs::write(&path, wrong).unwrap();
            put(receipts.clone());
            assert!(fs::read(&path).unwrap() == right, "{}", path.display());
        }
    }
    let hour = std::time::Duration::from_secs(3600);
    let left = |name: &str, age| {
        let path = blobs.join(name);
        let file = fs::File::create(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age)
            .unwrap();
        (path, file)
    };
    let (abandoned, file) = left(".writing-a", hour);
    drop(file);
    let (young, _) = left(".writing-b", std::time::Duration::ZERO);
    let (written, file) = left(".writing-c", hour);
    file.lock().unwrap();
    put(Receipts::paranoid());
    assert!(!abandoned.exists() && young.exists() && written.exists());
}

#[tokio::test]
async fn a_runner_for_another_kind_of_machine_is_refused() {
    let parts = Parts::new();
    let base = small_base().await;
    let inputs = inputs("test", Some(&base), &parts.runner, None);
    plan(&inputs).unwrap();
    // What the header of a library for 64-bit Arm begins with.
    let mut library = b"\x7fELF\x02\x01\x01".to_vec();
    library.resize(18, 0);
    library.extend([183, 0]);
    library.resize(4096, 0);
    fs::write(&parts.runner.libraries[0], library).unwrap();
    let error = plan(&inputs).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Usage, "{error}");
    for named in ["libonnxruntime.so", "arm64", "amd64", "--onnxruntime"] {
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn secrets_are_found_where_they_are() {
    let parts = Parts::new();
    let base = small_base().await;
    let found = |artifact: Artifact| {
        let artifact = Arc::new(artifact);
        let planned = plan(&inputs("test", Some(&base), &parts.runner, Some(&artifact))).unwrap();
        let image = image_of(&parts, &base, &artifact).unwrap();
        secrets(&planned, &image, Some(&artifact)).unwrap()
    };
    assert_eq!(found(parts.small_artifact()), []);
    let key = ["AKIA", "Q3EGRIZ7LB5NXWTS"].concat();
    let leaky = parts.artifact(&format!("# aws_access_key_id: {key}\n"));
    let found = found(leaky);
    assert_eq!(found.len(), 1, "{found:?}");
    let place = &found[0].place;
    assert!(place.contains("training_cli_args.yaml"), "{place}");
    assert!(!format!("{found:?}").contains(&key), "it is not said again");
}

#[tokio::test]
async fn a_lock_holds_base_and_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mlwm.lock");
    assert_eq!(Lock::read(&path).unwrap(), None);
    let base = small_base().await;
    let lock = Lock::new(Some(("host.org/base:v1", &base)), Some(Digest::of("zip")));
    lock.write(&path).unwrap();
    let read = Lock::read(&path).unwrap().unwrap();
    assert_eq!(read, lock);
    read.check(&path, Some("host.org/base:v1"), Some(Digest::of("zip")))
        .unwrap();
    read.check_base(&path, &base).unwrap();
    for (base, artifact) in [
        ("host.org/base:v2", Some(Digest::of("zip"))),
        ("host.org/base:v1", None),
    ] {
        let error = read.check(&path, Some(base), artifact).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::ArtifactMismatch);
        assert!(error.to_string().contains("mlwm image lock"), "{error}");
    }
    fs::write(&path, "lock_version: 1\nbase: {}\n").unwrap();
    assert_eq!(
        Lock::read(&path).unwrap_err().exit_code(),
        ExitCode::BadConfiguration
    );
    let newer = "lock_version: 2\nbase: {image: a, digest: sha256:".to_owned()
        + &"0".repeat(64)
        + ", platform: x}\n";
    fs::write(&path, newer).unwrap();
    assert!(matches!(
        Lock::read(&path),
        Err(Error::LockVersion { version: 2, .. })
    ));
}

#[tokio::test]
async fn a_plan_depends_on_the_parts_alone() {
    let parts = Parts::new();
    let artifact = parts.small_artifact();
    let base = small_base().await;
    let inputs = inputs("a", Some(&base), &parts.runner, Some(&artifact));
    let planned = plan(&inputs).unwrap();
    assert_eq!(planned, plan(&inputs).unwrap());
    assert!(planned.files.is_sorted_by(|a, b| a.path < b.path));
    let identity = planned.identity().unwrap();
    assert_eq!(planned.labels[labels::BUILD], identity.to_string());

    let others = [
        BuildInputs {
            artifact: None,
            is_mounted: true,
            ..inputs
        },
        BuildInputs {
            artifact: None,
            ..inputs
        },
        BuildInputs {
            version: "0.2.0",
            ..inputs
        },
        BuildInputs {
            configuration_digest: Digest::of("other"),
            ..inputs
        },
    ];
    for other in others {
        assert_ne!(
            plan(&other).unwrap().identity(),
            Some(identity),
            "{other:?}"
        );
    }
    let said = BuildInputs {
        source: Some("https://x"),
        revision: Some("1"),
        ..inputs
    };
    let said = plan(&said).unwrap();
    assert_eq!(
        said.identity(),
        Some(identity),
        "who built it makes it no other image"
    );
    assert_eq!(said.labels[labels::REVISION], "1");
    let unknown = plan(&BuildInputs {
        base_image: None,
        ..inputs
    })
    .unwrap();
    assert_eq!(
        (unknown.identity(), unknown.labels.get(labels::BUILD)),
        (None, None)
    );
}

#[test]
fn names_and_parts_that_cannot_be_are_refused() {
    let parts = Parts::new();
    for bad in ["", "Upper", "a--b", "a/b", "-a", "a b"] {
        let error = plan(&inputs(bad, None, &parts.runner, None)).unwrap_err();
        assert!(matches!(error, Error::Name(_)), "{bad}: {error}");
    }
    let named = BuildInputs {
        reference: Some("x/y:1"),
        ..inputs("Upper", None, &parts.runner, None)
    };
    assert_eq!(plan(&named).unwrap().reference, "x/y:1");

    let absent = Runner {
        binary: Path::new("/no/such/runner").into(),
        libraries: vec![],
    };
    let error = plan(&inputs("a", None, &absent, None)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cargo build --release -p mlwm-runner"),
        "{error}"
    );

    let library = parts.runner.libraries[0].clone();
    let twice = Runner {
        libraries: vec![library.clone(), library],
        ..parts.runner.clone()
    };
    assert!(matches!(
        plan(&inputs("a", None, &twice, None)),
        Err(Error::SameName(_))
    ));
}

//! Builds images with the Docker of this machine, and runs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mlwm_artifacts::{Artifact, BuildRequest};
use mlwm_engines::{Endpoint, Engine, Output, Request};
use mlwm_images::{BuildInputs, Error, ImagePlan, Runner, build, labels, plan};
use mlwm_spec::configuration::Resources;
use mlwm_spec::{Digest, ExitCode};
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

    /// An artifact of the bundled training run, without the checkpoint; what follows the training
    /// arguments makes it another one.
    fn artifact(&self, variant: &str) -> Artifact {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
        let arguments = std::fs::read_to_string(case.join("train/training_cli_args.yaml")).unwrap();
        let training_args = self.folder.path().join("arguments.yaml");
        std::fs::write(&training_args, arguments + variant).unwrap();
        let output = self.folder.path().join("model.zip");
        let _ = std::fs::remove_file(&output);
        let request = BuildRequest {
            name: "tiny".into(),
            nl_config: case.join("train/config.yaml"),
            training_args,
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

fn inputs<'a>(
    name: &'a str,
    runner: &'a Runner,
    artifact: Option<&'a Artifact>,
) -> BuildInputs<'a> {
    BuildInputs {
        configuration: name,
        configuration_digest: Digest::of("inputs: {}"),
        reference: None,
        base: BASE,
        base_image: None,
        containerfile: None,
        runner: Some(runner),
        artifact,
        version: "0.1.0",
    }
}

async fn engine() -> Engine {
    static BASE_READY: OnceLock<()> = OnceLock::new();
    BASE_READY.get_or_init(|| {
        let found = Command::new("docker")
            .args(["image", "inspect", BASE])
            .output()
            .unwrap();
        if !found.status.success() {
            let make =
                format!("mmdebstrap --quiet --variant=minbase bookworm | docker import - {BASE}");
            let made = Command::new("bash")
                .args(["-o", "pipefail", "-c", &make])
                .status()
                .unwrap();
            assert!(made.success(), "could not make {BASE}");
        }
    });
    Engine::connect_to(Endpoint::Unix(PathBuf::from("/var/run/docker.sock")))
        .await
        .unwrap()
}

/// An image that is removed when the test ends.
struct Cleanup(&'static str);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let reference = format!("mlwm/{}:latest", self.0);
        let _ = Command::new("docker")
            .args(["rmi", "-f", &reference])
            .output();
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
    };
    let mut lines = Vec::new();
    let mut print = |line| match line {
        Output::Stdout(text) | Output::Stderr(text) => lines.push(text),
    };
    engine
        .run(&request, &mut print, &CancellationToken::new())
        .await
        .unwrap();
    lines
}

#[tokio::test]
async fn an_image_holds_what_was_planned() {
    let name = "test-holds";
    let _cleanup = Cleanup(name);
    let (engine, parts) = (engine().await, Parts::new());
    let artifact = parts.small_artifact();
    let base = engine.image(BASE).await.unwrap().unwrap();
    let inputs = BuildInputs {
        base_image: Some(&base),
        ..inputs(name, &parts.runner, Some(&artifact))
    };
    let plan = plan(&inputs).unwrap();
    let mut steps = Vec::new();
    let built = build(&engine, &plan, &mut |line| steps.push(line.to_owned()))
        .await
        .unwrap();
    assert_eq!(
        (built.reference.as_str(), built.unchanged),
        ("mlwm/test-holds:latest", false)
    );
    assert!(
        steps.iter().any(|step| step.contains("COPY opt/mlwm")),
        "{steps:?}"
    );

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
    assert_eq!(output_of(&engine, &built.reference).await, expected);

    let image = engine.image(&built.reference).await.unwrap().unwrap();
    assert_eq!(image.id, built.id);
    let label = |name: &str| image.labels[name].as_str();
    assert_eq!(label(labels::CONFIGURATION), name);
    assert_eq!(label(labels::TITLE), name);
    assert_eq!(
        label(labels::ARTIFACT_DIGEST),
        artifact.digest().unwrap().to_string()
    );
    assert_eq!(label(labels::ARTIFACT_NAME), "tiny");
    assert_eq!(label(labels::RUNNER_DIGEST), Digest::of(RUNNER).to_string());
    assert_eq!(
        label(labels::CONFIGURATION_DIGEST),
        Digest::of("inputs: {}").to_string()
    );
    assert_eq!(
        (label(labels::CONTRACT), label(labels::MLWM_VERSION)),
        ("1", "0.1.0")
    );
    assert_eq!(label(labels::BASE_NAME), BASE);
}

#[tokio::test]
async fn a_second_build_is_none_unless_a_part_changed() {
    let name = "test-again";
    let _cleanup = Cleanup(name);
    let (engine, parts) = (engine().await, Parts::new());
    let artifact = parts.small_artifact();
    let base = engine.image(BASE).await.unwrap().unwrap();
    let inputs = BuildInputs {
        base_image: Some(&base),
        ..inputs(name, &parts.runner, Some(&artifact))
    };
    let first = build(&engine, &plan(&inputs).unwrap(), &mut |_| ())
        .await
        .unwrap();
    let again = build(&engine, &plan(&inputs).unwrap(), &mut |_| panic!("built"))
        .await
        .unwrap();
    assert_eq!((again.id, again.unchanged), (first.id, true));

    std::fs::write(&parts.runner.binary, format!("{RUNNER}echo more\n")).unwrap();
    let changed = build(&engine, &plan(&inputs).unwrap(), &mut |_| ())
        .await
        .unwrap();
    assert!(!changed.unchanged);
    // The first image has lost its name, and would stay.
    let removed = Command::new("docker")
        .args(["rmi", &first.id.to_string()])
        .output()
        .unwrap();
    assert!(removed.status.success());
    assert_eq!(
        output_of(&engine, &changed.reference).await.last().unwrap(),
        "more"
    );
}

#[tokio::test]
async fn a_file_that_changes_after_planning_makes_no_image() {
    let name = "test-changes";
    let _cleanup = Cleanup(name);
    let (engine, parts) = (engine().await, Parts::new());
    let artifact = parts.small_artifact();
    let planned = plan(&inputs(name, &parts.runner, Some(&artifact))).unwrap();
    for bytes in [vec![8; 3 << 20], vec![7; 4 << 20], vec![7; 100]] {
        std::fs::write(&parts.runner.libraries[0], bytes).unwrap();
        let error = build(&engine, &planned, &mut |_| ()).await.unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
        assert!(
            error.to_string().contains("libonnxruntime.so.1.31.0"),
            "{error}"
        );
    }
    assert_eq!(engine.image(&planned.reference).await.unwrap(), None);

    std::fs::write(&parts.runner.libraries[0], vec![7; 3 << 20]).unwrap();
    let other = parts.artifact("# another\n");
    assert_eq!(other.path(), artifact.path());
    let error = build(&engine, &planned, &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(error.to_string().contains("model.zip"), "{error}");
    assert_eq!(engine.image(&planned.reference).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_artifact_makes_no_image() {
    let name = "test-damaged";
    let _cleanup = Cleanup(name);
    let (engine, parts) = (engine().await, Parts::new());
    let artifact = parts.small_artifact();
    let mut bytes = std::fs::read(artifact.path()).unwrap();
    let model = std::fs::read(artifact_model()).unwrap();
    let start = bytes.windows(64).position(|at| at == &model[..64]).unwrap();
    bytes[start + 100] ^= 1;
    std::fs::write(artifact.path(), bytes).unwrap();
    let planned = plan(&inputs(name, &parts.runner, Some(&artifact))).unwrap();
    let error = build(&engine, &planned, &mut |_| ()).await.unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::ArtifactMismatch, "{error}");
    assert!(error.to_string().contains("checkpoint.onnx"), "{error}");
    assert_eq!(engine.image(&planned.reference).await.unwrap(), None);
}

#[tokio::test]
async fn what_the_builder_says_is_the_error() {
    let name = "test-fails";
    let (engine, parts) = (engine().await, Parts::new());
    let text = "ARG BASE\nFROM ${BASE}\nCOPY no-such-file /x\n";
    let inputs = BuildInputs {
        containerfile: Some(text),
        ..inputs(name, &parts.runner, None)
    };
    let error = build(&engine, &plan(&inputs).unwrap(), &mut |_| ())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no-such-file"), "{error}");

    let text = "ARG BASE\nFROM ${BASE}\nRUN exit 7\n";
    let inputs = BuildInputs {
        containerfile: Some(text),
        ..inputs
    };
    let error = build(&engine, &plan(&inputs).unwrap(), &mut |_| ())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("non-zero code: 7"), "{error}");
    assert_eq!(engine.image("mlwm/test-fails").await.unwrap(), None);
}

#[tokio::test]
async fn a_base_that_is_missing_or_another_is_refused() {
    let (engine, parts) = (engine().await, Parts::new());
    let absent = BuildInputs {
        base: "mlwm-test-absent:none",
        ..inputs("a", &parts.runner, None)
    };
    let error = build(&engine, &plan(&absent).unwrap(), &mut |_| ())
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::ImageMissing);
    assert!(
        error
            .to_string()
            .contains("docker pull mlwm-test-absent:none"),
        "{error}"
    );

    let planned = plan(&inputs("a", &parts.runner, None)).unwrap();
    let moved = ImagePlan {
        base_id: Some(Digest::of("another")),
        ..planned
    };
    let error = build(&engine, &moved, &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, Error::BaseChanged { .. }), "{error}");
}

#[test]
fn a_plan_depends_on_the_parts_alone() {
    let parts = Parts::new();
    let artifact = parts.small_artifact();
    let base = |text: &str| mlwm_engines::Image {
        id: Digest::of(text),
        repo_digests: vec![format!("registry.example/base@{}", Digest::of("manifest"))],
        labels: BTreeMap::new(),
        size: 0,
    };
    let (base, other_base) = (base("one"), base("two"));
    let inputs = BuildInputs {
        base_image: Some(&base),
        ..inputs("a", &parts.runner, Some(&artifact))
    };
    let planned = plan(&inputs).unwrap();
    assert_eq!(planned, plan(&inputs).unwrap());
    assert!(planned.files.is_sorted_by(|a, b| a.path < b.path));
    assert_eq!(
        planned.labels[labels::BASE_DIGEST],
        Digest::of("manifest").to_string()
    );
    assert_eq!(
        planned.labels[labels::BUILD],
        planned.identity().unwrap().to_string()
    );

    let others = [
        BuildInputs {
            base_image: Some(&other_base),
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
            containerfile: Some("FROM scratch\n"),
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
            planned.identity(),
            "{other:?}"
        );
    }
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
        let error = plan(&inputs(bad, &parts.runner, None)).unwrap_err();
        assert!(matches!(error, Error::Name(_)), "{bad}: {error}");
    }
    let named = BuildInputs {
        reference: Some("x/y:1"),
        ..inputs("Upper", &parts.runner, None)
    };
    assert_eq!(plan(&named).unwrap().reference, "x/y:1");

    let absent = Runner {
        binary: Path::new("/no/such/runner").into(),
        libraries: vec![],
    };
    let error = plan(&inputs("a", &absent, None)).unwrap_err();
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
        plan(&inputs("a", &twice, None)),
        Err(Error::SameName(_))
    ));
}

//! Another base comes under an image, and nothing of its layers is read or sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_artifacts::{Artifact, BuildRequest};
use mlwm_images::{
    BuildInputs, Error, Image, LayerDigests, Layout, Platform, RebaseInputs, Runner, Transfers,
    assemble, find, labels, plan, push, rebase,
};
use mlwm_spec::{Digest, ExitCode};
use mlwm_storage::oci::{OciOptions, OciUri};
use mlwm_storage::{Journals, Progress};
use mlwm_tests::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CREATED: &str = "2024-02-03T04:05:06Z";

/// Two bases, the parts of an image, and the layout in which all of it lies.
struct Workshop {
    folder: TempDir,
    runner: Runner,
    artifact: Arc<Artifact>,
}

impl Workshop {
    fn new() -> Self {
        let folder = mlwm_tests::scratch::folder();
        let binary = folder.path().join("mlwm-runner");
        fs::write(&binary, "runner").unwrap();
        let library = folder.path().join("libonnxruntime.so");
        fs::write(&library, vec![7; 5 << 20]).unwrap();
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
        let request = BuildRequest {
            name: "tiny".into(),
            nl_config: Some(case.join("train/config.yaml")),
            configs: Vec::new(),
            training_args: Some(case.join("train/training_cli_args.yaml")),
            onnx: Some(case.join("onnx/graph_lam.onnx")),
            interface: Some(case.join("onnx/graph_lam.json")),
            output: folder.path().join("model.zip"),
            ..BuildRequest::default()
        };
        let artifact = Artifact::open(&mlwm_artifacts::build(&request).unwrap().path).unwrap();
        let workshop = Self {
            folder,
            runner: Runner {
                binary,
                libraries: vec![library],
            },
            artifact: Arc::new(artifact),
        };
        workshop.base("old", "amd64", &["one", "two"], "PATH=/bin");
        workshop.base("new", "amd64", &["one", "patched", "more"], "PATH=/usr/bin");
        workshop
    }

    fn layout(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    fn blob(&self, digest: &str) -> PathBuf {
        let name = digest.strip_prefix("sha256:").unwrap();
        self.layout().join("blobs/sha256").join(name)
    }

    /// Writes a blob and says how it is pointed to.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        let path = self.blob(&digest.to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Writes an image by hand.
    fn put_image(&self, tag: &str, config: &Value, layers: &Value) {
        let config = self.put(CONFIG, config.to_string().as_bytes());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut entry = self.put(MANIFEST, manifest.to_string().as_bytes());
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let path = self.layout().join("index.json");
        let mut index = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
            Err(_) => json!({"schemaVersion": 2, "manifests": []}),
        };
        index["manifests"].as_array_mut().unwrap().push(entry);
        fs::write(path, index.to_string()).unwrap();
    }

    fn base(&self, tag: &str, architecture: &str, files: &[&str], variable: &str) {
        let layer = |name: &&str| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(name.len() as u64);
            let path = format!("etc/{name}");
            tar.append_data(&mut header, path, name.as_bytes()).unwrap();
            self.put(LAYER, &tar.into_inner().unwrap())
        };
        let layers: Vec<Value> = files.iter().map(layer).collect();
        let ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let mut history: Vec<Value> = files.iter().map(|f| json!({"created_by": f})).collect();
        history.push(json!({"created_by": "nothing", "empty_layer": true}));
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2020-01-01T00:00:00Z",
            "config": {"Env": [variable, "ORT_DYLIB_PATH=/of/the/base"], "Cmd": ["sh"],
                "User": tag, "Labels": {"of": tag, "org.opencontainers.image.source": tag}},
            "rootfs": {"type": "layers", "diff_ids": ids}, "history": history,
        });
        self.put_image(tag, &config, &json!(layers));
    }

    async fn found(&self, tag: &str) -> Image {
        let architecture = if tag == "arm" { "arm64" } else { "amd64" };
        let platform: Platform = format!("linux/{architecture}").parse().unwrap();
        let place = format!("oci:{}:{tag}", self.layout().display());
        let found = find(&place.parse().unwrap(), &platform, &OciOptions::default()).await;
        found.unwrap().unwrap()
    }

    /// The image that a build makes on a base.
    fn build(&self, tag: &str, base: &Image) -> Image {
        let planned = plan(&BuildInputs {
            configuration: "test",
            configuration_digest: Digest::of("inputs: {}"),
            reference: None,
            base: tag,
            base_image: Some(base),
            runner: Some(&self.runner),
            artifact: Some(&self.artifact),
            is_mounted: false,
            source: None,
            revision: Some("5eed"),
            allowed: &[],
            version: "0.1.0",
        })
        .unwrap();
        let digests = LayerDigests::at(self.folder.path().join("digests"));
        assemble(&planned, base, Some(&self.artifact), &digests, CREATED).unwrap()
    }

    /// An image on the old base, in the layout as `model`.
    async fn model(&self) -> Image {
        let image = self.build("old", &self.found("old").await);
        Layout::at(self.layout()).put(&image, "model").unwrap();
        self.found("model").await
    }

    /// Another image out of that called `model`, changed by hand.
    async fn changed(&self, change: impl FnOnce(&mut Value, &mut Value)) -> Image {
        let model = self.model().await;
        let mut config = self.config(&model);
        let mut manifest = self.document(&model.digest().to_string());
        change(&mut config, &mut manifest["layers"]);
        self.put_image("changed", &config, &manifest["layers"]);
        self.found("changed").await
    }

    fn document(&self, digest: &str) -> Value {
        serde_json::from_slice(&fs::read(self.blob(digest)).unwrap()).unwrap()
    }

    fn config(&self, image: &Image) -> Value {
        self.document(&image.id().to_string())
    }

    /// The config of an image that is not in the layout yet.
    fn written_config(&self, image: &Image) -> Value {
        Layout::at(self.layout()).put(image, "written").unwrap();
        self.config(image)
    }
}

fn inputs<'a>(image: &'a Image, base_image: &'a Image) -> RebaseInputs<'a> {
    RebaseInputs {
        image,
        reference: "models/test:v1",
        old_base: None,
        base_image,
        base: "new",
        allowed: &[],
    }
}

#[track_caller]
fn refusal(inputs: &RebaseInputs<'_>, code: ExitCode, texts: &[&str]) {
    let error = rebase(inputs).expect_err("it should be refused");
    assert_eq!(error.exit_code(), code, "{error}");
    for text in texts {
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_rebased_image_is_what_a_build_on_the_new_base_makes() {
    let workshop = Workshop::new();
    let (old, new) = (workshop.found("old").await, workshop.found("new").await);
    let model = workshop.model().await;
    let rebased = rebase(&RebaseInputs {
        old_base: Some(&old),
        ..inputs(&model, &new)
    })
    .unwrap();
    assert_eq!(
        rebase(&inputs(&model, &new)).unwrap().digest(),
        rebased.digest(),
        "the old base is only compared"
    );

    let built = workshop.build("new", &new);
    let mut expected = workshop.written_config(&built);
    let label = &mut expected["config"]["Labels"];
    let dropped = label.as_object_mut().unwrap().shift_remove(labels::BUILD);
    assert!(dropped.is_some());
    let config = workshop.written_config(&rebased);
    assert_eq!(config.to_string(), expected.to_string());
    assert_eq!(config["config"]["User"], "new");
    assert_eq!(config["created"], CREATED);
    let of_layers = |image: &Image| image.summary().layers;
    assert_eq!(of_layers(&rebased), of_layers(&built));
    assert_eq!(of_layers(&rebased).len(), of_layers(&model).len() + 1);
    assert_eq!(
        rebased.label(labels::BASE_DIGEST),
        Some(new.digest().to_string())
    );

    // There and back again.
    let back = rebase(&RebaseInputs {
        base: "old",
        ..inputs(&rebased, &old)
    })
    .unwrap();
    let mut original = workshop.config(&model);
    let label = &mut original["config"]["Labels"];
    label.as_object_mut().unwrap().shift_remove(labels::BUILD);
    assert_eq!(
        workshop.written_config(&back).to_string(),
        original.to_string()
    );
    // On the base that it has, it stays as it is.
    let same = rebase(&RebaseInputs {
        base: "old",
        ..inputs(&model, &old)
    });
    assert_eq!(same.unwrap().digest(), model.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_layer_is_read() {
    let workshop = Workshop::new();
    let (old, new) = (workshop.found("old").await, workshop.found("new").await);
    let model = workshop.model().await;
    let server = Registry::open();
    let transfers = Transfers {
        options: OciOptions::default(),
        journals: Journals::at(workshop.folder.path().join("journals")),
        progress: Progress::none(),
        cancel: CancellationToken::new(),
    };
    let uri = |name: &str| -> OciUri { format!("oci://{}/{name}", server.host).parse().unwrap() };
    for (image, name) in [(&new, "base"), (&model, "models/test")] {
        push(image, &uri(name), "v1", &transfers).await.unwrap();
    }
    let there = async |name: &str| {
        let place = format!("{}/{name}:v1", server.host).parse().unwrap();
        let platform = "linux/amd64".parse().unwrap();
        let found = find(&place, &platform, &OciOptions::default()).await;
        found.unwrap().unwrap()
    };
    let (remote, base) = (there("models/test").await, there("base").await);
    let rebased = rebase(&inputs(&remote, &base)).unwrap();
    let uri = uri("models/test");
    let pushed = push(&rebased, &uri, "v2", &transfers).await.unwrap();
    let layers = rebased.summary().layers;
    // Of the new base, the repository has the layer that the old one has, too.
    assert_eq!(
        (pushed.sent, pushed.mounted, pushed.there),
        (0, 2, layers.len() - 2)
    );
    let log = server.log();
    assert!(log.contains("method=GET"), "the registry logs requests");
    for layer in &layers {
        let read = log
            .lines()
            .any(|line| line.contains(&layer.digest.hex()) && line.contains("method=GET"));
        assert!(!read, "{}", layer.what);
    }

    // Where the layers are gone, the documents still suffice.
    for layer in model.summary().layers {
        fs::remove_file(workshop.blob(&layer.digest.to_string())).unwrap();
    }
    let without = rebase(&RebaseInputs {
        old_base: Some(&old),
        ..inputs(&model, &new)
    });
    assert_eq!(without.unwrap().digest(), rebased.digest());
}

#[tokio::test]
async fn an_image_that_went_through_an_engine_is_rebased_too() {
    let workshop = Workshop::new();
    let new = workshop.found("new").await;
    // Engines keep no annotations; `changed` writes none.
    let plain = workshop.changed(|_, _| {}).await;
    let model = workshop.found("model").await;
    let rebased = rebase(&inputs(&plain, &new)).unwrap();
    assert_eq!(
        rebased.label(labels::ARTIFACT_DIGEST),
        model.label(labels::ARTIFACT_DIGEST)
    );
    assert_eq!(rebased.label(labels::REVISION), Some("5eed".to_owned()));
    assert_eq!(rebased.label("of"), Some("new".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_rebased_is_refused() {
    let workshop = Workshop::new();
    workshop.base("arm", "arm64", &["one"], "PATH=/bin");
    workshop.base("other", "amd64", &["one", "three"], "PATH=/bin");
    let (old, new) = (workshop.found("old").await, workshop.found("new").await);
    let (arm, other) = (workshop.found("arm").await, workshop.found("other").await);
    let model = workshop.model().await;
    let missing = ExitCode::ImageMissing;
    refusal(
        &inputs(&old, &new),
        missing,
        &["mlwm image build", "models/test:v1"],
    );
    refusal(
        &inputs(&model, &arm),
        missing,
        &["linux/arm64", "linux/amd64"],
    );
    refusal(&inputs(&model, &model), missing, &["not a base"]);
    let wrong = RebaseInputs {
        old_base: Some(&other),
        ..inputs(&model, &new)
    };
    refusal(
        &wrong,
        missing,
        &["lower layers", &other.digest().to_string()],
    );

    // What a Containerfile put onto its base would be lost, unless another environment has it.
    let environment = workshop.build("mlwm-environment/test:1", &old);
    refusal(&inputs(&environment, &new), missing, &["Containerfile"]);
    let moved = rebase(&RebaseInputs {
        base: "mlwm-environment/test:2",
        ..inputs(&environment, &new)
    });
    assert_eq!(moved.unwrap().label("of"), Some("new".to_owned()));

    // An image whose upper layers are not those of mlwm.
    let above = workshop.changed(|config, _| {
        let history = config["history"].as_array_mut().unwrap();
        history.push(json!({"created_by": "ENV X=1", "empty_layer": true}));
    });
    refusal(&inputs(&above.await, &new), missing, &["onto the layers"]);
}

#[tokio::test]
async fn a_history_that_does_not_fit_is_refused() {
    let missing = ExitCode::ImageMissing;
    let workshop = Workshop::new();
    let new = workshop.found("new").await;
    let squashed = workshop.changed(|config, _| {
        config["history"] = json!([{"created_by": "squashed"}]);
    });
    refusal(&inputs(&squashed.await, &new), missing, &["which layers"]);

    let workshop = Workshop::new();
    let short = workshop.changed(|config, layers| {
        config["rootfs"]["diff_ids"] = json!([layers[0]["digest"]]);
        *layers = json!([layers[0]]);
    });
    refusal(&inputs(&short.await, &new), missing, &["1 in all"]);
}

#[tokio::test]
async fn secrets_of_the_new_base_are_refused_or_recorded() {
    let workshop = Workshop::new();
    let key = ["AKIA", "Q3EGRIZ7LB5NXWTS"].concat();
    let variable = format!("AWS_ACCESS_KEY_ID={key}");
    workshop.base("leaky", "amd64", &["one"], &variable);
    let (model, leaky) = (workshop.model().await, workshop.found("leaky").await);
    let place = "environment AWS_ACCESS_KEY_ID";
    refusal(&inputs(&model, &leaky), ExitCode::Conflict, &[place]);
    let error = rebase(&inputs(&model, &leaky)).unwrap_err();
    assert!(matches!(error, Error::Secrets { .. }));
    assert!(!error.to_string().contains(&key));

    let allowed = [place.to_owned()];
    let once = rebase(&RebaseInputs {
        allowed: &allowed,
        ..inputs(&model, &leaky)
    })
    .unwrap();
    assert_eq!(once.label(labels::ALLOWED), Some(place.to_owned()));
    // What was recorded stays allowed.
    let again = rebase(&RebaseInputs {
        base: "renamed",
        ..inputs(&once, &leaky)
    });
    assert_eq!(
        again.unwrap().label(labels::ALLOWED),
        Some(place.to_owned())
    );
}

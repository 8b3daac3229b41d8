//! What the tests of images start from, and the programs that look at what came of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use mlwm_spec::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::site::{Ran, Site, example_artifact, python, ran, repository};

/// Runs another program, which must end well.
#[track_caller]
pub fn tool(program: &str, arguments: &[&str]) -> String {
    tried(program, arguments).expect(0, &[]).stdout
}

/// Runs another program.
pub fn tried(program: &str, arguments: &[&str]) -> Ran {
    let output = Command::new(program).args(arguments).output();
    ran(&output.unwrap_or_else(|error| panic!("{program}: {error}: run ci/setup")))
}

/// The base image that `ci/setup` makes, as an OCI layout with the tag `v1`: no engine is asked.
pub fn base_layout() -> &'static Path {
    static BASE: LazyLock<TempDir> = LazyLock::new(|| {
        let folder = crate::scratch::folder();
        let layout = format!("oci:{}:v1", folder.path().display());
        let base = "docker-daemon:mlwm-base:bookworm";
        tool("skopeo", &["copy", "--quiet", base, &layout]);
        folder
    });
    BASE.path()
}

/// The image of an example in Python, on a base called `environment` with the Python of these tests and some of its
/// packages: nothing is fetched.
pub fn example_on_python(example: &str, environment: &str, packages: &[&str]) -> String {
    let base = std::env::var("MLWM_TEST_BASE_IMAGE").unwrap_or("mlwm-base:bookworm".into());
    let mut context = Command::new(python())
        .arg(repository().join("tests/oracles/python_image.py"))
        .arg(base)
        .args(packages)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let environment = format!("mlwm-test/{environment}:latest");
    let stdin = context.stdout.take().unwrap();
    docker_build(&["--tag", &environment, "-"], stdin);
    assert!(context.wait().unwrap().success());
    let folder = repository().join("examples").join(example);
    let (file, base) = (folder.join("Containerfile"), format!("BASE={environment}"));
    let reference = format!("mlwm-test/{example}:latest");
    let from = ["--file", file.to_str().unwrap(), "--build-arg", &base];
    let to = ["--tag", &reference, folder.to_str().unwrap()];
    docker_build(&[&from[..], &to[..]].concat(), Stdio::null());
    reference
}

#[track_caller]
fn docker_build(arguments: &[&str], stdin: impl Into<Stdio>) {
    let mut command = Command::new("docker");
    let command = command.args(["build", "--quiet"]).args(arguments);
    ran(&command.stdin(stdin).output().unwrap()).expect(0, &[]);
}

/// Writes an OCI layout whose tag `v1` is an image with one file that holds `content`, for `architecture`.
pub fn small_base(folder: &Path, architecture: &str, content: &str) {
    small_base_as(folder, "v1", architecture, content);
}

/// Puts such an image into an OCI layout, over what had the tag.
pub fn small_base_as(folder: &Path, tag: &str, architecture: &str, content: &str) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let layer = put("layer.v1.tar", &archive(content));
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Env": ["PATH=/bin", format!("BASE={content}")]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "history": [{"created_by": content}],
    });
    let config = put("config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
    let mut entry = put("manifest.v1+json", manifest.to_string().as_bytes());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let path = folder.join("index.json");
    let index = fs::read_to_string(&path);
    let mut index: Value = index.map_or(json!({"schemaVersion": 2, "manifests": []}), |text| {
        serde_json::from_str(&text).unwrap()
    });
    let entries = index["manifests"].as_array_mut().unwrap();
    entries.retain(|other| other["annotations"] != entry["annotations"]);
    entries.push(entry);
    fs::write(path, index.to_string()).unwrap();
    let marker = r#"{"imageLayoutVersion":"1.0.0"}"#;
    fs::write(folder.join("oci-layout"), marker).unwrap();
}

/// A tar archive with one file.
fn archive(content: &str) -> Vec<u8> {
    let folder = crate::scratch::folder();
    fs::write(folder.path().join("base"), content).unwrap();
    let output = Command::new("tar")
        .args(["--mtime=@0", "--owner=0", "--group=0", "-cf", "-", "base"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// A configuration of the example's artifact on a base, whose image an engine calls `reference`.
pub fn configuration_on(base: &str, reference: &str) -> String {
    format!(
        "docker_image: {reference}\nartifact: danra.zip\nbase_image: \"{base}\"\ninputs: {{}}\noutputs:\n  surface:\n    uri: ./published/surface.zarr\n    internal_path: /volume/outputs/surface.zarr\n"
    )
}

/// A working folder with the example's artifact and the configuration `danra` on a base; its commands
/// cannot reach any engine.
pub fn site_on(base: &str) -> Site {
    let mut site = Site::new();
    fs::copy(example_artifact(), site.path("danra.zip")).unwrap();
    site.configure("danra", &configuration_on(base, "mlwm-test/danra:latest"));
    site.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    site
}

/// The digest of a manifest in a registry or a layout, as skopeo finds it; `None` if there is none.
/// `more` are options of skopeo.
pub fn digest_at(place: &str, more: &[&str]) -> Option<String> {
    let mut arguments = vec!["inspect", "--raw"];
    arguments.extend(more);
    arguments.push(place);
    let found = tried("skopeo", &arguments);
    match found.code {
        0 => Some(Digest::of(&found.stdout).to_string()),
        _ => {
            let absent = [
                "manifest unknown",
                "name unknown",
                "no such file",
                "no descriptor found",
            ];
            let said = found.stderr.to_lowercase();
            assert!(absent.iter().any(|text| said.contains(text)), "{said}");
            None
        }
    }
}

/// The digest that `mlwm image build` prints.
#[track_caller]
pub fn digest_in(text: &str) -> String {
    let digest = text.lines().find(|line| line.starts_with("sha256:"));
    digest
        .unwrap_or_else(|| panic!("no digest in:\n{text}"))
        .to_owned()
}

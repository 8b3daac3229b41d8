//! CI asks which images a change concerns, and puts a patched base under all of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use mlwm_tests::registry::Registry;
use mlwm_tests::site::{Ran, Site, example, example_artifact, example_configuration, ran};
use serde_json::{Value, json};

/// A site whose configuration `danra` starts from `oci:base:v1`, and cannot reach any engine.
fn site() -> Site {
    let mut site = Site::with_example();
    base(&site, "v1", "first");
    site.configure("danra", &on("oci:base:v1"));
    site.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    site
}

/// The example's configuration on a base.
fn on(base: &str) -> String {
    format!("{}base_image: \"{base}\"\n", example_configuration())
}

/// Puts an image with one file into the layout `base`, over what had the tag.
fn base(site: &Site, tag: &str, content: &str) {
    let blobs = site.path("base/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = mlwm_spec::Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let layer = put("layer.v1.tar", &archive(&site.path("tree"), content));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": [format!("BASE={content}")]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "history": [{"created_by": content}],
    });
    let config = put("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [layer]});
    let mut entry = put("manifest.v1+json", manifest.to_string().as_bytes());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let index = site.path("base/index.json");
    let mut entries: Vec<Value> = match fs::read_to_string(&index) {
        Ok(text) => {
            let index: Value = serde_json::from_str(&text).unwrap();
            index["manifests"].as_array().unwrap().clone()
        }
        Err(_) => Vec::new(),
    };
    entries.retain(|other| other["annotations"] != entry["annotations"]);
    entries.push(entry);
    let text = json!({"schemaVersion": 2, "manifests": entries}).to_string();
    fs::write(index, text).unwrap();
    fs::write(
        site.path("base/oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

/// A tar archive with one file.
fn archive(tree: &Path, content: &str) -> Vec<u8> {
    fs::create_dir_all(tree).unwrap();
    fs::write(tree.join("base"), content).unwrap();
    let output = Command::new("tar")
        .args(["--mtime=@0", "--owner=0", "--group=0", "-cf", "-", "base"])
        .current_dir(tree)
        .output()
        .unwrap();
    ran(&output).expect(0, &[]);
    output.stdout
}

fn decisions(site: &Site, more: &[&str]) -> Value {
    let mut arguments = vec!["image", "plan", "--all", "--json"];
    arguments.extend(more);
    let ran = site.mlwm(&arguments).expect(0, &[]);
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    ran.json()
}

fn another_artifact(site: &Site) -> Ran {
    let arguments = fs::read_to_string(example("train/training_cli_args.yaml")).unwrap();
    fs::write(site.path("arguments.yaml"), arguments + "# another\n").unwrap();
    fs::remove_file(site.path("danra.zip")).unwrap();
    let text = |relative: &str| example(relative).display().to_string();
    site.mlwm(&[
        "artifact",
        "build",
        "danra",
        "--nl-config",
        &text("train/config.yaml"),
        "--training-args",
        "arguments.yaml",
        "--onnx",
        &text("onnx/graph_lam.onnx"),
        "--interface",
        &text("onnx/graph_lam.json"),
        "--output",
        "danra.zip",
    ])
}

#[test]
fn what_changed_is_built_and_nothing_else() {
    let site = site();
    let plan = ["image", "plan", "danra", "--output", "oci:out"];
    site.mlwm(&plan)
        .expect(0, &["danra: rebuild: no image there"]);
    assert!(!site.path("out").exists(), "a plan writes nothing");
    site.mlwm(&["image", "build", "danra", "--output", "oci:out"])
        .expect(0, &[]);
    site.mlwm(&plan).expect(0, &["danra: up to date"]);

    // A second configuration is the only one that CI has to build.
    site.configure("second", &on("oci:base:v1"));
    let found = decisions(&site, &["--output", "oci:out"]);
    assert_eq!(
        found,
        json!([
            {"configuration": "danra", "place": "oci:out:danra", "rebuild": false, "reasons": []},
            {"configuration": "second", "place": "oci:out:second", "rebuild": true,
             "reasons": ["no image there"]},
        ])
    );

    // Each part that changes is named, with what it was and what it is.
    site.configure("danra", &format!("{}# changed\n", on("oci:base:v1")));
    let changed = site
        .mlwm(&plan)
        .expect(0, &["rebuild: configuration sha256:"]);
    assert!(!changed.stdout.contains("artifact"), "{}", changed.stdout);
    another_artifact(&site).expect(0, &[]);
    base(&site, "v1", "patched");
    let changed = site.mlwm(&plan).expect(
        0,
        &[
            "base sha256:",
            "artifact sha256:",
            "configuration sha256:",
            "… → sha256:",
        ],
    );
    assert!(!changed.stdout.contains("runner"), "{}", changed.stdout);
    site.mlwm(&["image", "build", "danra", "--output", "oci:out"])
        .expect(0, &[]);
    site.mlwm(&plan).expect(0, &["danra: up to date"]);

    // ONNX Runtime has no label of its own.
    fs::write(site.path("libonnxruntime.so"), "another").unwrap();
    let mut other = plan.to_vec();
    other.extend(["--onnxruntime", "libonnxruntime.so"]);
    site.mlwm(&other)
        .expect(0, &["rebuild: other parts sha256:"]);
}

#[test]
fn an_artifact_that_is_not_here_is_not_fetched() {
    let mut site = site();
    let registry = format!("file://{}", site.path("registry").display());
    site.mlwm(&["artifact", "push", "danra.zip", &registry, "--tag", "v1"])
        .expect(0, &[]);
    let digest = mlwm_tests::site::sha256(example_artifact());
    let pinned = format!("artifact: {registry}/danra:v1@{digest}");
    site.configure(
        "danra",
        &on("oci:base:v1").replace("artifact: danra.zip", &pinned),
    );
    let build = ["image", "build", "danra", "--output", "oci:out"];
    site.mlwm(&build).expect(0, &[]);
    // As in the next job of a CI, which has no cache; the registry is gone, too.
    site.env("XDG_CACHE_HOME", site.path("fresh").to_str().unwrap());
    fs::rename(site.path("registry"), site.path("gone")).unwrap();
    let plan = ["image", "plan", "danra", "--output", "oci:out"];
    site.mlwm(&plan).expect(0, &["danra: up to date"]);
    let other = pinned.replace(&digest, &mlwm_spec::Digest::of("other").to_string());
    site.configure(
        "danra",
        &on("oci:base:v1").replace("artifact: danra.zip", &other),
    );
    site.mlwm(&plan).expect(0, &["artifact sha256:"]);
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let site = site();
    site.configure("second", &on("oci:base:v1"));
    site.mlwm(&["image", "plan", "--all", "--push", "127.0.0.1:1/a:v1"])
        .expect(2, &["{name}"]);
    site.mlwm(&["image", "plan", "danra", "--push", "danra:v1"])
        .expect(2, &["HOST/PATH:TAG"]);
    site.mlwm(&["image", "plan", "danra", "--push", "127.0.0.1:1/a:v1"])
        .expect(30, &["127.0.0.1:1"]);
    site.mlwm(&["image", "plan", "danra"]).expect(15, &[]);
    site.configure("danra", &on("oci:base:absent"));
    site.mlwm(&["image", "plan", "danra", "--output", "oci:out"])
        .expect(14, &["oci:base:absent"]);
    // A lock that no longer holds stops a build, and so it stops the plan.
    site.configure("danra", &on("oci:base:v1"));
    site.mlwm(&["image", "lock", "danra"]).expect(0, &[]);
    base(&site, "v1", "patched");
    site.mlwm(&["image", "plan", "danra", "--output", "oci:out"])
        .expect(13, &["mlwm.lock"]);
    // What stands there and is no image of mlwm.
    site.mlwm(&["image", "plan", "second", "--output", "oci:base:v1"])
        .expect(
            0,
            &["second: rebuild: the image there was not made by mlwm"],
        );
}

#[test]
fn a_patched_base_comes_under_an_image_in_a_registry() {
    let server = Registry::open();
    let site = site();
    let at = |name: &str| format!("{}/{name}", server.host);
    base(&site, "v2", "patched");
    for tag in ["v1", "v2"] {
        let copy = ["copy", "--quiet", "--dest-tls-verify=false"];
        let output = Command::new("skopeo")
            .args(copy)
            .arg(format!("oci:{}:{tag}", site.path("base").display()))
            .arg(format!("docker://{}", at(&format!("base:{tag}"))))
            .output()
            .unwrap();
        ran(&output).expect(0, &[]);
    }
    site.configure("danra", &on(&at("base:v1")));
    let model = at("models/danra:v1");
    site.mlwm(&["image", "build", "danra", "--push", &model])
        .expect(0, &[]);
    let patched = at("base:v2");
    let rebase = ["image", "rebase", &model, "--onto", &patched, "--json"];
    let rebased = site.mlwm(&rebase).expect(0, &[]).json();
    assert_eq!(
        (&rebased["place"], &rebased["unchanged"]),
        (&json!(model), &json!(false))
    );
    assert_eq!(site.mlwm(&rebase).expect(0, &[]).json()["unchanged"], true);

    // skopeo sees the layers of the new base with ours on them.
    let inspect = |reference: &str, config: &[&str]| {
        let output = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false"])
            .args(config)
            .arg(format!("docker://{reference}"))
            .output()
            .unwrap();
        ran(&output).expect(0, &[]).json()
    };
    let (image, base) = (inspect(&model, &[]), inspect(&patched, &[]));
    assert_eq!(image["Digest"], rebased["digest"]);
    assert_eq!(image["Layers"][0], base["Layers"][0]);
    assert_eq!(
        image["Labels"]["org.opencontainers.image.base.digest"],
        base["Digest"]
    );
    assert_eq!(
        image["Labels"]["org.opencontainers.image.base.name"],
        patched
    );
    let config = inspect(&model, &["--config"]);
    let text = config.to_string();
    assert!(
        text.contains("BASE=patched") && !text.contains("BASE=first"),
        "{text}"
    );
    assert_eq!(
        config["config"]["Entrypoint"],
        json!(["/opt/mlwm/bin/mlwm-runner"])
    );

    // A build on that base would make the same layers; the plan sees that nothing is to be done but
    // for the configuration, which names the base.
    let built = at("models/danra:v2");
    site.configure("danra", &on(&patched));
    site.mlwm(&["image", "build", "danra", "--push", &built])
        .expect(0, &[]);
    assert_eq!(inspect(&built, &[])["Layers"], image["Layers"]);
    let planned = decisions(&site, &["--push", &model]);
    let reasons = planned[0]["reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), 1, "{planned}");
    assert!(
        reasons[0]
            .as_str()
            .unwrap()
            .starts_with("configuration sha256:")
    );
}

#[test]
fn what_cannot_be_rebased_is_refused() {
    let site = site();
    let onto = |image: &str, base: &str, more: &[&str]| {
        let mut arguments = vec!["image", "rebase", image, "--onto", base];
        arguments.extend(more);
        site.mlwm(&arguments)
    };
    onto("oci:base:v1", "oci:base:v1", &[]).expect(14, &["oci:base:v1", "mlwm image build"]);
    site.mlwm(&["image", "build", "danra", "--output", "oci:out"])
        .expect(0, &[]);
    onto("oci:out:danra", "oci:base:absent", &[]).expect(14, &["oci:base:absent"]);
    onto("oci:out:danra", "oci:out:danra", &[]).expect(14, &["danra"]);
    onto("oci:out", "oci:base:v1", &[]).expect(2, &["oci:out"]);
    let before = site.mlwm(&["image", "inspect", "oci:out:danra"]).stdout;
    onto("oci:out:danra", "oci:base:v1", &[]).expect(0, &["(unchanged)"]);
    base(&site, "v1", "patched");
    onto(
        "oci:out:danra",
        "oci:base:v1",
        &["--output", "oci:other:v2"],
    )
    .expect(0, &["oci:other:v2"]);
    let after = site.mlwm(&["image", "inspect", "oci:out:danra"]).stdout;
    assert_eq!(before, after, "the image that was rebased elsewhere");
}

#[test]
fn configurations_are_listed_for_a_matrix() {
    let site = site();
    let ensemble = on("oci:base:v1")
        .replace("artifact: danra.zip", "artifact: nowhere.zip")
        .replace("forecast_duration", "members: 0-2\nforecast_duration");
    site.configure("ensemble", &ensemble);
    let listed = site.mlwm(&["list", "--json"]).expect(0, &[]);
    assert_eq!(listed.stdout.lines().count(), 1);
    let image = mlwm_tests::site::example_image();
    assert_eq!(
        listed.json(),
        json!([
            {"name": "danra", "image": image, "artifact": "danra.zip", "base": "oci:base:v1"},
            {"name": "ensemble", "image": image, "artifact": "nowhere.zip", "base": "oci:base:v1",
             "members": "0-2"},
        ])
    );
    site.mlwm(&["list"])
        .expect(0, &["name", "ensemble", "nowhere.zip", "oci:base:v1"]);
    site.configure("broken", "inputs: [");
    site.mlwm(&["list"]).expect(10, &["broken"]);
    let empty = Site::new();
    empty.mlwm(&["list"]).expect(0, &["no configurations"]);
    assert_eq!(empty.mlwm(&["list", "--json"]).json(), json!([]));
}

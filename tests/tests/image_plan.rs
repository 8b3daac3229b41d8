//! CI asks which images a change concerns, and puts a patched base under all of them.

use std::fs;

use mlwm_tests::images::{configuration_on, digest_at, digest_in, small_base_as, tool};
use mlwm_tests::registry::Registry;
use mlwm_tests::site::{Ran, Site, example, example_artifact, example_configuration};
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
    small_base_as(&site.path("base"), tag, "amd64", content);
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
    for (place, said) in [
        ("danra:v1", "HOST/PATH:TAG"),
        ("https://host.org/danra:v1", "HOST/PATH:TAG"),
        ("host.org/Danra:v1", "lower case"),
        ("host.org/danra:v1:2", "not a tag"),
    ] {
        for command in ["plan", "build"] {
            site.mlwm(&["image", command, "danra", "--push", place])
                .expect(2, &[said]);
        }
    }
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
        let from = format!("oci:{}:{tag}", site.path("base").display());
        let to = format!("docker://{}", at(&format!("base:{tag}")));
        let copy = ["copy", "--quiet", "--dest-tls-verify=false", &from, &to];
        tool("skopeo", &copy);
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
    let inspect = |reference: &str, config: &[&str]| -> Value {
        let place = format!("docker://{reference}");
        let inspect = ["inspect", "--tls-verify=false", &place];
        serde_json::from_str(&tool("skopeo", &[&inspect, config].concat())).unwrap()
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

/// A configuration of an image that is made elsewhere, beside one whose image is made here.
#[test]
fn all_are_those_whose_images_are_made_here() {
    let site = site();
    let elsewhere = configuration_on("base", "registry.example.org/other:1");
    let lines = elsewhere.lines();
    let kept =
        lines.filter(|line| !line.starts_with("artifact:") && !line.starts_with("base_image:"));
    site.configure("elsewhere", &kept.collect::<Vec<_>>().join("\n"));
    let found = decisions(&site, &["--output", "oci:out"]);
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let build = ["image", "build", "--all", "--output", "oci:out"];
    let built = site.mlwm(&build).expect(0, &["oci:out:danra"]);
    assert!(built.stderr.contains("elsewhere"), "{}", built.stderr);
    site.mlwm(&["image", "lock", "--all"]).expect(0, &["danra"]);
    assert!(!site.path("configurations/elsewhere/mlwm.lock").exists());
    for command in ["build", "plan", "lock"] {
        site.mlwm(&["image", command, "elsewhere"])
            .expect(10, &["elsewhere", "artifact: PATH"]);
    }
}

#[test]
fn a_name_with_capitals_is_lowered_where_none_may_be() {
    let (site, server) = (site(), Registry::open());
    let yaml = configuration_on("oci:base:v1", "mlwm-test/capitals:latest");
    site.configure("Danra_DINI", &yaml);
    let place = format!("{}/models/{{name}}:v1", server.host);
    let both = ["--push", &place, "--output", "oci:{name}:{name}"];
    let build = [&["image", "build", "Danra_DINI"], &both[..]].concat();
    let built = site.mlwm(&build).expect(0, &["models/danra_dini:v1"]);
    let digest = Some(digest_in(&built.stdout));
    let there = format!("docker://{}/models/danra_dini:v1", server.host);
    assert_eq!(digest_at(&there, &["--tls-verify=false"]), digest);
    let layout = format!("oci:{}:Danra_DINI", site.path("Danra_DINI").display());
    assert_eq!(digest_at(&layout, &[]), digest);
    site.mlwm(&["image", "plan", "Danra_DINI", "--push", &place])
        .expect(0, &["up to date"]);
}

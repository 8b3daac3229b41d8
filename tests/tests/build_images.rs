//! CI builds the images of configured models: the same bytes everywhere, sent once, without secrets.

use std::fs;

use mlwm_tests::images::{base_layout, digest_in, tool};
use mlwm_tests::registry::Registry;
use mlwm_tests::site::{Site, example, example_artifact, example_configuration};

/// A site whose configuration `danra` starts from [`base_layout`], and cannot reach any engine.
fn site() -> Site {
    let mut site = Site::with_example();
    site.configure("danra", &on(&format!("oci:{}:v1", base_layout().display())));
    site.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    site
}

/// The example's configuration on another base.
fn on(base: &str) -> String {
    let yaml = example_configuration();
    let image = yaml.lines().find(|line| line.starts_with("base_image:"));
    let rest: String = match image {
        Some(line) => yaml.replace(line, ""),
        None => yaml,
    };
    format!("{rest}\nbase_image: \"{base}\"\n")
}

#[test]
fn the_same_bytes_on_any_machine_without_an_engine() {
    let build = ["image", "build", "danra", "--output", "oci:out"];
    let (one, other) = (site(), site());
    let first = one.mlwm(&build).expect(0, &["oci:out:danra"]);
    let second = other.mlwm(&build).expect(0, &[]);
    assert_eq!(digest_in(&first.stdout), digest_in(&second.stdout));
    one.mlwm(&build).expect(0, &["(unchanged)"]);
    let source = format!("oci:{}:danra", one.path("out").display());
    let by_skopeo = tool("skopeo", &["inspect", "--format", "{{.Digest}}", &source]);
    assert_eq!(by_skopeo.trim(), digest_in(&first.stdout));
    one.mlwm(&["image", "inspect", "oci:out:danra"]).expect(
        0,
        &[
            by_skopeo.trim(),
            "artifact: ",
            "runner: opt/mlwm/bin/mlwm-runner",
        ],
    );
    // Another base is another image.
    other.configure(
        "danra",
        &format!(
            "{}# changed\n",
            on(&format!("oci:{}:v1", base_layout().display()))
        ),
    );
    let changed = other.mlwm(&build).expect(0, &[]);
    assert_ne!(digest_in(&changed.stdout), digest_in(&first.stdout));
}

fn to_a_registry(server: &Registry, site: &Site) {
    let host = &server.host;
    let push = [
        "image",
        "build",
        "--all",
        "--push",
        &format!("{host}/models/{{name}}:v1"),
    ];
    let pushed = site.mlwm(&push).expect(0, &["models/danra:v1"]);
    assert!(!pushed.stdout.contains("unchanged"), "{}", pushed.stdout);
    site.mlwm(&push).expect(0, &["(unchanged)"]);
    let shown = site.mlwm(&[
        "image",
        "inspect",
        &format!("{host}/models/danra:v1"),
        "--json",
    ]);
    let shown = shown.expect(0, &[]).json();
    assert_eq!(shown["digest"], digest_in(&pushed.stdout));
    assert_eq!(shown["labels"]["io.mlwm.configuration"], "danra");
}

#[test]
fn to_an_open_registry() {
    let server = Registry::open();
    let site = site();
    to_a_registry(&server, &site);
    // The base is in the same registry: mounted, not sent.
    let copied = format!("docker://{}/base:v1", server.host);
    let layout = format!("oci:{}:v1", base_layout().display());
    tool(
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &layout,
            &copied,
        ],
    );
    site.configure("danra", &on(&format!("{}/base:v1", server.host)));
    let push = [
        "image",
        "build",
        "danra",
        "--push",
        &format!("{}/others/danra:v2", server.host),
    ];
    site.mlwm(&push).expect(0, &["others/danra:v2"]);
}

#[test]
fn to_a_registry_with_a_password_or_tokens() {
    for (server, place) in [
        (Registry::with_password(), "password"),
        (Registry::with_tokens(2.0, 300), "tokens"),
    ] {
        let mut site = site();
        let refused = [
            "image",
            "build",
            "danra",
            "--push",
            &format!("{}/a/b:v1", server.host),
        ];
        site.mlwm(&refused).expect(30, &["docker login"]);
        let logins = server.logins(&[&server.host]);
        site.env("DOCKER_CONFIG", logins.parent().unwrap().to_str().unwrap());
        to_a_registry(&server, &site);
        assert!(!place.is_empty());
    }
}

#[test]
fn locked_to_base_and_artifact() {
    let site = site();
    site.mlwm(&["image", "lock", "--all", "--check"])
        .expect(13, &["missing"]);
    site.mlwm(&["image", "lock", "--all"])
        .expect(0, &["mlwm.lock", "base oci:"]);
    site.mlwm(&["image", "lock", "--all", "--check"])
        .expect(0, &["as it was"]);
    let build = ["image", "build", "danra", "--output", "oci:out"];
    site.mlwm(&build).expect(0, &[]);
    // Another artifact under the same path.
    let arguments = fs::read_to_string(example("train/training_cli_args.yaml")).unwrap();
    fs::write(site.path("arguments.yaml"), arguments + "# another\n").unwrap();
    fs::remove_file(site.path("danra.zip")).unwrap();
    build_artifact(&site).expect(0, &[]);
    site.mlwm(&build)
        .expect(13, &["mlwm.lock", "the artifact", "mlwm image lock"]);
    site.mlwm(&["image", "lock", "danra", "--check"])
        .expect(13, &["now base"]);
}

fn build_artifact(site: &Site) -> mlwm_tests::site::Ran {
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
fn secrets_are_refused_or_recorded() {
    let site = site();
    let key = ["AKIA", "Q3EGRIZ7LB5NXWTS"].concat();
    let arguments = fs::read_to_string(example("train/training_cli_args.yaml")).unwrap();
    fs::write(
        site.path("arguments.yaml"),
        format!("# access_key: {key}\n{arguments}"),
    )
    .unwrap();
    fs::remove_file(site.path("danra.zip")).unwrap();
    build_artifact(&site).expect(0, &[]);
    let build = ["image", "build", "danra", "--output", "oci:out"];
    let refused = site
        .mlwm(&build)
        .expect(31, &["training_cli_args.yaml", "--allow-secret"]);
    assert!(!refused.stderr.contains(&key), "{}", refused.stderr);
    assert!(!site.path("out").exists());
    let mut allowing = build.to_vec();
    allowing.extend([
        "--allow-secret",
        "file /workspace/inference_artifact/training_cli_args.yaml*",
    ]);
    // Nothing asks for a secret here, which whoever gives one should know.
    allowing.extend(["--secret", "id=unused,env=PATH"]);
    let built = site.mlwm(&allowing).expect(0, &[]);
    assert!(
        built.stderr.contains("no Containerfile"),
        "{}",
        built.stderr
    );
    site.mlwm(&["image", "inspect", "oci:out"])
        .expect(0, &["io.mlwm.secrets.allowed=file /workspace"]);
}

#[test]
fn what_cannot_be_built_leaves_nothing() {
    let site = site();
    let build = ["image", "build", "danra", "--output", "oci:out"];
    site.configure("danra", &on("oci:/no/such/layout:v1"));
    site.mlwm(&build).expect(14, &["oci:/no/such/layout:v1"]);
    site.configure("danra", &on("127.0.0.1:1/base:v1"));
    site.mlwm(&build).expect(30, &["127.0.0.1:1"]);
    site.configure("danra", &on(&format!("oci:{}:v1", base_layout().display())));
    let mut other = build.to_vec();
    other.extend(["--platform", "linux/arm64"]);
    site.mlwm(&other)
        .expect(14, &["linux/amd64", "linux/arm64"]);
    site.mlwm(&["image", "build", "danra", "--push", "danra:v1"])
        .expect(2, &["HOST/PATH:TAG"]);
    fs::write(
        site.path("danra.zip"),
        &fs::read(example_artifact()).unwrap()[..1000],
    )
    .unwrap();
    site.mlwm(&build).expect(13, &["danra.zip"]);
    assert!(!site.path("out").exists());
}

/// A configuration with an environment of its own.
fn with_containerfile(text: &str) -> Site {
    let site = Site::with_example();
    let yaml = on("mlwm-base:bookworm").replace("mlwm-test/danra:latest", "mlwm-test/own:latest");
    site.configure("danra", &yaml);
    fs::write(site.path("configurations/danra/Containerfile"), text).unwrap();
    let script = "#!/bin/sh\nsha256sum /workspace/inference_artifact/checkpoint.onnx\n";
    fs::write(site.path("configurations/danra/run.sh"), script).unwrap();
    site
}

#[test]
fn an_environment_of_its_own() {
    let text =
        "ARG BASE\nFROM ${BASE}\nCOPY run.sh /opt/run.sh\nENTRYPOINT [\"sh\", \"/opt/run.sh\"]\n";
    let site = with_containerfile(text);
    let build = ["image", "build", "danra"];
    site.mlwm(&build).expect(0, &["mlwm-test/own:latest"]);
    site.mlwm(&build).expect(0, &["(unchanged)"]);
    let ran = tool(
        "docker",
        &["run", "--rm", "--network", "none", "mlwm-test/own:latest"],
    );
    let model = mlwm_tests::site::sha256(&example("onnx/graph_lam.onnx"));
    assert_eq!(ran.split_whitespace().next(), model.strip_prefix("sha256:"));
    // What runs it is its own: the built-in runner is not there.
    let shown = site
        .mlwm(&["image", "inspect", "mlwm-test/own:latest"])
        .expect(0, &["artifact: "]);
    assert!(!shown.stdout.contains("runner"), "{}", shown.stdout);
    tool("docker", &["rmi", "-f", "mlwm-test/own:latest"]);
}

#[test]
fn an_environment_that_fails_or_holds_a_secret() {
    let site = with_containerfile("ARG BASE\nFROM ${BASE}\nRUN echo about to fail; exit 7\n");
    let build = ["image", "build", "danra"];
    let failed = site.mlwm(&build);
    assert_ne!(failed.code, 0);
    assert!(failed.stderr.contains("about to fail"), "{}", failed.stderr);
    let token = ["ghp_", "Zq3vR8tLm5xW2nB7kD4jF9hG6sA1pC0eYuTi"].concat();
    let text =
        format!("ARG BASE\nFROM ${{BASE}}\nENV API_TOKEN={token}\nCOPY run.sh /opt/run.sh\n");
    let site = with_containerfile(&text);
    let refused = site.mlwm(&build).expect(31, &["environment API_TOKEN"]);
    assert!(!refused.stderr.contains(&token), "{}", refused.stderr);
    std::os::unix::fs::symlink("/etc/passwd", site.path("configurations/danra/link")).unwrap();
    site.mlwm(&build).expect(10, &["danra/link"]);
}

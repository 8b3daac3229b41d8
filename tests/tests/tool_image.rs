//! mlwm itself as an image: small, without a shell, as any user, on a read-only root.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use mlwm_tests::site::{Ran, Site, example_artifact, program, ran, repository};
use serde_json::Value;

const IMAGE: &str = "mlwm-test/tool:latest";

fn docker(arguments: &[&str]) -> Ran {
    ran(&Command::new("docker").args(arguments).output().unwrap())
}

/// A folder with what the build looks at, and much that it must not: the programs as a release has
/// them, without what is for debuggers.
static CONTEXT: LazyLock<Site> = LazyLock::new(|| {
    let site = Site::new();
    fs::create_dir_all(site.path("target/release/deps")).unwrap();
    for name in ["mlwm", "mlwm-runner"] {
        let output = Command::new("strip")
            .arg(program(name))
            .arg("-o")
            .arg(site.path("target/release").join(name))
            .output();
        ran(&output.unwrap()).expect(0, &[]);
    }
    // Those of this machine; the base need not have any.
    fs::copy(
        "/etc/ssl/certs/ca-certificates.crt",
        site.path("target/release/ca-certificates.crt"),
    )
    .unwrap();
    for file in ["Containerfile", ".containerignore", ".dockerignore"] {
        fs::copy(repository().join(file), site.path(file)).unwrap();
    }
    for file in [".env", "target/release/deps/large", "password.txt"] {
        fs::write(site.path(file), "nobody's business").unwrap();
    }
    site
});

fn build(containerfile: &str, tag: &str) {
    let context = CONTEXT.path("").display().to_string();
    docker(&[
        "build",
        "--file",
        containerfile,
        "--tag",
        tag,
        "--build-arg",
        "VERSION=1.2.3",
        &context,
    ])
    .expect(0, &[]);
}

static BUILT: LazyLock<&str> = LazyLock::new(|| {
    build(&CONTEXT.path("Containerfile").display().to_string(), IMAGE);
    IMAGE
});

/// Runs the image as a user that it does not know, with `folder` as its working folder.
fn run(folder: &Path, arguments: &[&str]) -> Ran {
    let volume = format!("{}:/work:ro", folder.display());
    let mut all = vec!["run", "--rm", "--read-only", "--network=none"];
    all.extend(["--cap-drop=ALL", "--user=12345:678", "--volume", &volume]);
    all.push(*BUILT);
    all.extend(arguments);
    docker(&all)
}

#[test]
fn it_runs_as_anybody_on_a_read_only_root() {
    let site = Site::with_example();
    let version = run(&site.path(""), &["--version"]).expect(0, &[]);
    assert_eq!(version.stdout, site.mlwm(&["--version"]).stdout);
    let listed = run(&site.path(""), &["list", "--json"]).expect(0, &[]);
    assert_eq!(listed.json()[0]["name"], "danra");
    assert_eq!(listed.stdout, site.mlwm(&["list", "--json"]).stdout);
    let digest = mlwm_tests::site::sha256(example_artifact());
    run(&site.path(""), &["artifact", "verify", "danra.zip"]).expect(0, &[&digest]);
    fs::write(site.path("danra.zip"), "damaged").unwrap();
    run(&site.path(""), &["artifact", "verify", "danra.zip"]).expect(13, &["danra.zip"]);
}

#[test]
fn it_holds_two_programs_and_what_they_need() {
    let created = docker(&["create", *BUILT]).expect(0, &[]);
    let container = created.stdout.trim();
    let export = format!("docker export {container} | tar -t");
    let output = Command::new("sh").args(["-c", &export]).output();
    let listed = ran(&output.unwrap()).expect(0, &[]).stdout;
    docker(&["rm", container]).expect(0, &[]);
    // What the engine puts into every container.
    let engine = [
        ".dockerenv",
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
        "etc/mtab",
    ];
    let files: BTreeSet<&str> = listed
        .lines()
        .filter(|name| !name.ends_with('/') && !engine.contains(name))
        .filter(|name| !name.starts_with("dev/"))
        .collect();
    let (libraries, others): (Vec<&str>, Vec<&str>) = files
        .iter()
        .partition(|name| name.starts_with("lib") && name.contains(".so"));
    assert_eq!(
        others,
        [
            "etc/nsswitch.conf",
            "etc/passwd",
            "etc/ssl/certs/ca-certificates.crt",
            "usr/bin/mlwm",
            "usr/bin/mlwm-runner",
        ]
    );
    assert!((2..8).contains(&libraries.len()), "{libraries:?}");
    let shell = docker(&["run", "--rm", "--entrypoint=sh", *BUILT, "-c", "true"]);
    assert_eq!(shell.code, 127, "{}", shell.stderr);
}

#[test]
fn it_is_small_not_root_and_says_what_it_is() {
    let described = docker(&["image", "inspect", *BUILT]).expect(0, &[]).json();
    let config = &described[0]["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/bin/mlwm"]));
    assert_eq!(config["Labels"]["org.opencontainers.image.title"], "mlwm");
    assert_eq!(
        config["Labels"]["org.opencontainers.image.version"],
        "1.2.3"
    );
    let variables: Vec<&str> = config["Env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter_map(|variable| variable.split('=').next())
        .collect();
    assert_eq!(
        variables,
        ["PATH", "HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE"]
    );
    let programs: u64 = ["mlwm", "mlwm-runner"]
        .map(|name| fs::metadata(CONTEXT.path("target/release").join(name)).unwrap())
        .iter()
        .map(fs::Metadata::len)
        .sum();
    let size = described[0]["Size"].as_u64().unwrap();
    assert!(
        (programs..programs + (10 << 20)).contains(&size),
        "{size} bytes with programs of {programs}"
    );
}

#[test]
fn nothing_of_a_clone_is_sent_to_the_engine_but_the_programs() {
    let probe = Site::new();
    fs::write(
        probe.path("Containerfile"),
        "FROM mlwm-base:bookworm\nCOPY . /context\nRUN find /context -type f > /found\n",
    )
    .unwrap();
    let tag = "mlwm-test/tool-context:latest";
    build(&probe.path("Containerfile").display().to_string(), tag);
    let found = docker(&["run", "--rm", tag, "sort", "/found"]).expect(0, &[]);
    docker(&["rmi", tag]).expect(0, &[]);
    assert_eq!(
        found.stdout,
        "/context/target/release/ca-certificates.crt\n\
         /context/target/release/mlwm\n\
         /context/target/release/mlwm-runner\n"
    );
    // Podman reads the other name, which is the same file.
    let of = |name: &str| fs::read(repository().join(name)).unwrap();
    assert_eq!(of(".dockerignore"), of(".containerignore"));
}

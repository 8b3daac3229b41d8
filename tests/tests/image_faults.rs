//! Whatever breaks while an image is built or sent, nothing names half of it, and the same command
//! again makes it whole.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mlwm_tests::counting_proxy::{CountingProxy, Direction};
use mlwm_tests::images::{configuration_on, digest_at, digest_in, site_on, small_base, tool};
use mlwm_tests::registry::{Breaker, Registry};
use mlwm_tests::site::{Ran, Site, example, oracle, ran};

/// How often a push is killed.
const KILLS: u64 = 10;
/// The library that stands in for a big file.
const LIBRARY: u64 = 160 << 20;
/// What is sent to a registry in one request.
const CHUNK: u64 = 64 << 20;
/// Requests that are not layers: configs and manifests.
const TALK: u64 = 64 << 10;

/// A site on a small base in the layout `base`.
fn site() -> Site {
    let site = site_on("oci:base:v1");
    small_base(&site.path("base"), "amd64", "first");
    site
}

/// Lets images have small files of the runner, and one that is `bytes` long.
fn with_library(site: &mut Site, bytes: u64) {
    let library = site.path("libonnxruntime.so");
    let noise = format!("head --bytes {bytes} /dev/urandom > {}", library.display());
    tool("sh", &["-c", &noise]);
    fs::write(site.path("runner"), "#!/bin/sh\n").unwrap();
    site.env("MLWM_ONNXRUNTIME", library.to_str().unwrap());
    site.env("MLWM_RUNNER", site.path("runner").to_str().unwrap());
}

fn started(site: &Site, arguments: &[&str]) -> Child {
    let mut command = site.command(arguments);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    ran(&child.wait_with_output().unwrap())
}

/// What a registry has under a name.
fn tagged(host: &str, name: &str) -> Option<String> {
    let options = ["--tls-verify=false", "--creds", "user:pass"];
    digest_at(&format!("docker://{host}/{name}"), &options)
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Points(u64);

impl Points {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[test]
fn a_push_that_is_killed_goes_on_where_it_was() {
    let server = Registry::open();
    let proxy = CountingProxy::to(&server.endpoint());
    let host = &proxy.endpoint["http://".len()..];
    let mut site = site();
    with_library(&mut site, LIBRARY);
    let built = site
        .mlwm(&["image", "build", "danra", "--output", "oci:out", "--json"])
        .expect(0, &[])
        .json();
    let length = built["size"].as_u64().unwrap();
    let digest = built["digest"].as_str().unwrap();
    let mut points = Points(1);
    for turn in 0..KILLS {
        let name = format!("turn{turn}/danra:v1");
        let to = format!("{host}/{name}");
        let push = ["image", "build", "danra", "--push", to.as_str()];
        let at = points.below(length);
        proxy.reset();
        proxy.hold_after(Direction::Sent, at);
        let mut child = started(&site, &push);
        let held = proxy.wait_until_held(Duration::from_secs(60));
        assert!(held, "turn {turn}, byte {at}");
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "turn {turn}");
        let acknowledged = proxy.counts().acknowledged;
        assert_eq!(tagged(&server.host, &name), None);
        proxy.reset();
        site.mlwm(&push).expect(0, &[digest]);
        let sent = proxy.counts().sent;
        assert!(
            sent <= length + CHUNK + TALK - acknowledged,
            "turn {turn}: killed at byte {at} with {acknowledged} acknowledged, then {sent} were sent"
        );
        assert_eq!(tagged(&server.host, &name).as_deref(), Some(digest));
    }
    // What arrived is what was built: skopeo checks each layer.
    let from = format!("docker://{}/turn0/danra:v1", server.host);
    let to = format!("oci:{}:v1", site.path("copied").display());
    tool(
        "skopeo",
        &["copy", "--quiet", "--src-tls-verify=false", &from, &to],
    );
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_push_is_asked_for_again() {
    // Good for two seconds, though it says five minutes.
    let server = Registry::with_tokens(2.0, 300);
    let proxy = CountingProxy::to(&server.endpoint());
    let host = &proxy.endpoint["http://".len()..];
    let mut site = site();
    with_library(&mut site, LIBRARY);
    let logins = server.logins(&[host]);
    site.env("DOCKER_CONFIG", logins.parent().unwrap().to_str().unwrap());
    let to = format!("{host}/models/danra:v1");
    proxy.hold_after(Direction::Sent, CHUNK / 2);
    let child = started(&site, &["image", "build", "danra", "--push", &to]);
    assert!(proxy.wait_until_held(Duration::from_secs(60)));
    let before = server.token_requests().len();
    std::thread::sleep(Duration::from_secs(3));
    proxy.release();
    let pushed = ended(child).expect(0, &[]);
    assert!(server.token_requests().len() > before, "no new token");
    let found = tagged(&server.host, "models/danra:v1");
    assert_eq!(found, Some(digest_in(&pushed.stdout)));
}

#[test]
fn a_registry_that_refuses_has_no_tag() {
    // Everybody may look into `public/`, and nobody may send anything there.
    let server = Registry::with_tokens(300.0, 300);
    let site = site();
    let to = format!("{}/public/danra:v1", server.host);
    let push = ["image", "build", "danra", "--push", to.as_str()];
    site.mlwm(&push).expect(30, &["docker login", &server.host]);
    assert_eq!(tagged(&server.host, "public/danra:v1"), None);

    let server = Registry::open();
    let breaker = Breaker::to(&server.host);
    let to = format!("{}/models/danra:v1", breaker.host);
    let push = ["image", "build", "danra", "--push", to.as_str()];
    breaker.answer(&["405 Method Not Allowed"]);
    site.mlwm(&push).expect(30, &["HTTP 405", &breaker.host]);
    assert_eq!(breaker.answers_left(), 0);
    assert_eq!(tagged(&server.host, "models/danra:v1"), None);
    // What passes is tried again.
    breaker.answer(&["503 Service Unavailable", "502 Bad Gateway"]);
    let pushed = site.mlwm(&push).expect(0, &[]);
    let found = tagged(&server.host, "models/danra:v1");
    assert_eq!(found, Some(digest_in(&pushed.stdout)));
}

/// Runs a script as this user where all that is mounted is gone with it.
fn with_mounts(site: &Site, script: &str) -> Ran {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", script]);
    let like = site.command(&[]);
    command.current_dir(site.path("."));
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("MLWM", mlwm_tests::site::program("mlwm"));
    ran(&command.output().unwrap())
}

#[test]
fn a_disk_that_is_full_or_read_only_keeps_what_it_had() {
    let mut site = site();
    with_library(&mut site, 8 << 20);
    let build = ["image", "build", "danra", "--output", "oci:out"];
    let first = digest_in(&site.mlwm(&build).expect(0, &[]).stdout);
    with_library(&mut site, 32 << 20);
    // Room for what is there and half of the new library.
    let script = |mount: &str| {
        format!(
            "cp -a out kept; mount -t tmpfs -o size=28m tmpfs out; cp -a kept/. out; {mount}
             code=0; \"$MLWM\" image build danra --output oci:out || code=$?
             cmp kept/index.json out/index.json; diff -r kept out >&2
             rm -r kept; exit $code"
        )
    };
    with_mounts(&site, &script("")).expect(30, &["out/blobs/sha256", "is full: make room"]);
    let read_only = script("mount -o remount,ro out");
    with_mounts(&site, &read_only).expect(30, &["out/", "can only be read"]);
    let source = format!("oci:{}:danra", site.path("out").display());
    assert_eq!(digest_at(&source, &[]), Some(first.clone()));
    // No room for the note of a layer's digest.
    let cache =
        "mount -t tmpfs -o size=4k tmpfs cache; exec \"$MLWM\" image build danra --output oci:new";
    with_mounts(&site, cache).expect(30, &["cache", "is full: make room"]);
    assert!(!site.path("new/index.json").exists());
    let second = digest_in(&site.mlwm(&build).expect(0, &[]).stdout);
    assert_ne!(first, second);
    assert_eq!(digest_at(&source, &[]), Some(second));
}

#[test]
fn a_base_for_another_kind_of_machine_is_refused_wherever_it_is() {
    let site = site_on("oci:base:v1");
    small_base(&site.path("base"), "arm64", "first");
    let server = Registry::open();
    let to = format!("{}/models/danra:v1", server.host);
    let push = ["image", "build", "danra", "--push", to.as_str()];
    let kinds = ["linux/arm64", "linux/amd64"];
    site.mlwm(&push).expect(14, &kinds);
    let (layout, base) = (site.path("base"), format!("{}/base:v1", server.host));
    let (layout, at) = (
        format!("oci:{}:v1", layout.display()),
        format!("docker://{base}"),
    );
    tool(
        "skopeo",
        &["copy", "--quiet", "--dest-tls-verify=false", &layout, &at],
    );
    site.configure("danra", &configuration_on(&base, "mlwm-test/danra:latest"));
    site.mlwm(&push).expect(14, &kinds);
    // One of the engine.
    site.configure(
        "danra",
        &configuration_on("mlwm-base:bookworm", "mlwm-test/danra:latest"),
    );
    let mut other = push.to_vec();
    other.extend(["--platform", "linux/arm64"]);
    let mut with_engine = site.command(&other);
    let refused = ran(&with_engine.env_remove("DOCKER_HOST").output().unwrap());
    refused.expect(14, &kinds);
    assert_eq!(tagged(&server.host, "models/danra:v1"), None);
}

#[test]
fn a_base_that_is_not_the_locked_one_is_refused() {
    let site = site();
    site.mlwm(&["image", "lock", "danra"]).expect(0, &[]);
    fs::remove_dir_all(site.path("base")).unwrap();
    small_base(&site.path("base"), "amd64", "second");
    let server = Registry::open();
    let to = format!("{}/models/danra:v1", server.host);
    let push = [
        "image", "build", "danra", "--push", &to, "--output", "oci:out",
    ];
    site.mlwm(&push)
        .expect(13, &["mlwm.lock", "the base", "mlwm image lock"]);
    assert_eq!(tagged(&server.host, "models/danra:v1"), None);
    assert!(!site.path("out").exists());
}

/// Changes a bit of a file in place.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Gives the site an artifact with a checkpoint of 16 MiB, and says where in it the checkpoint is.
fn with_checkpoint(site: &Site) -> usize {
    let checkpoint = site.path("noise.ckpt").display().to_string();
    oracle(
        "checkpoint.py",
        &[&checkpoint, &(16 << 20).to_string(), "7"],
    );
    let text = |relative: &str| example(relative).display().to_string();
    fs::remove_file(site.path("danra.zip")).unwrap();
    site.mlwm(&[
        "artifact",
        "build",
        "danra",
        "--nl-config",
        &text("train/config.yaml"),
        "--checkpoint",
        &checkpoint,
        "--training-args",
        &text("train/training_cli_args.yaml"),
        "--onnx",
        &text("onnx/graph_lam.onnx"),
        "--interface",
        &text("onnx/graph_lam.json"),
        "--output",
        "danra.zip",
    ])
    .expect(0, &[]);
    let archive = fs::read(site.path("danra.zip")).unwrap();
    let tail = &fs::read(checkpoint).unwrap()[8 << 20..][..64];
    archive.windows(64).position(|at| at == tail).unwrap()
}

#[test]
fn what_is_changed_before_or_during_a_push_is_not_tagged() {
    let server = Registry::open();
    let proxy = CountingProxy::to(&server.endpoint());
    let host = &proxy.endpoint["http://".len()..];
    let mut site = site();
    with_library(&mut site, 8 << 20);
    let artifact = site.path("danra.zip");
    let inside = with_checkpoint(&site);
    let layer = fs::read_dir(site.path("base/blobs/sha256"))
        .unwrap()
        .flatten();
    let layer = layer
        .map(|entry| entry.path())
        .max_by_key(|path| fs::metadata(path).unwrap().len());
    for (turn, (path, at, code, named)) in [
        (artifact.clone(), inside, 13, "checkpoint.pkl"),
        (
            site.path("libonnxruntime.so"),
            5 << 20,
            1,
            "libonnxruntime.so",
        ),
        (layer.unwrap(), 600, 14, "sha256:"),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, to) = (
            format!("{turn}/danra:v1"),
            format!("{host}/{turn}/danra:v1"),
        );
        let push = ["image", "build", "danra", "--push", to.as_str()];
        // The registry is asked what the tag names when all digests are known.
        proxy.reset();
        proxy.hold_answer_to("GET");
        let child = started(&site, &push);
        assert!(proxy.wait_until_held(Duration::from_secs(60)), "{named}");
        flip(&path, at);
        proxy.release();
        ended(child).expect(code, &[named]);
        assert_eq!(tagged(&server.host, &name), None, "{named}");
        flip(&path, at);
    }
    let to = format!("{host}/models/danra:v1");
    let push = ["image", "build", "danra", "--push", to.as_str()];
    // Found before anything is sent, though all digests have been noted.
    site.mlwm(&["image", "build", "danra", "--output", "oci:out"])
        .expect(0, &[]);
    flip(&artifact, inside);
    site.mlwm(&push).expect(13, &["danra.zip"]);
    site.mlwm(&["image", "build", "danra", "--output", "oci:new"])
        .expect(13, &["danra.zip"]);
    assert!(!site.path("new/index.json").exists());
    assert_eq!(tagged(&server.host, "models/danra:v1"), None);
    flip(&artifact, inside);
    let pushed = site.mlwm(&push).expect(0, &[]);
    let found = tagged(&server.host, "models/danra:v1");
    assert_eq!(found, Some(digest_in(&pushed.stdout)));
}

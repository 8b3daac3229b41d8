//! A user moves images that are made: to a registry, from one to another, and in a file to where no
//! network leads. Digests stay, nothing is sent twice, and what is damaged arrives nowhere.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mlwm_tests::counting_proxy::{CountingProxy, Direction};
use mlwm_tests::images::{configuration_on, digest_in, small_base, tool, tried};
use mlwm_tests::places::Place;
use mlwm_tests::registry::Registry;
use mlwm_tests::site::{Site, python, sha256};
use serde_json::json;

/// Requests that are not layers.
const TALK: u64 = 64 << 10;
const MIB: u64 = 1 << 20;

/// Writes the image `<folder>:<tag>` with Python: a layer of noise for each seed and number of MiB,
/// and what is given in its config.
fn noise_image(folder: &Path, tag: &str, layers: &[(u64, u64)], config: &serde_json::Value) {
    const SCRIPT: &str = r#"
import hashlib, json, os, random, sys
folder, tag, layers, run = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
os.makedirs(folder + "/blobs/sha256", exist_ok=True)
def put(kind, data):
    name = hashlib.sha256(data).hexdigest()
    open(folder + "/blobs/sha256/" + name, "wb").write(data)
    return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + name, "size": len(data)}
blobs = [put("layer.v1.tar", random.Random(seed).randbytes(mib << 20)) for seed, mib in layers]
config = {"architecture": "amd64", "os": "linux", "config": run,
          "rootfs": {"type": "layers", "diff_ids": [blob["digest"] for blob in blobs]}}
config = put("config.v1+json", json.dumps(config, indent=3).encode())
manifest = {"schemaVersion": 2, "config": config, "layers": blobs,
            "mediaType": "application/vnd.oci.image.manifest.v1+json"}
entry = put("manifest.v1+json", json.dumps(manifest, indent=3).encode())
entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
path = folder + "/index.json"
index = json.load(open(path)) if os.path.exists(path) else {"schemaVersion": 2, "manifests": []}
index["manifests"].append(entry)
json.dump(index, open(path, "w"))
open(folder + "/oci-layout", "w").write('{"imageLayoutVersion": "1.0.0"}')
"#;
    let layers = json!(layers).to_string();
    let folder = folder.display().to_string();
    let python = python().display().to_string();
    let arguments = ["-c", SCRIPT, &folder, tag, &layers, &config.to_string()];
    tool(&python, &arguments);
}

/// A site with the layout `here`, which has `one` and `two` with a common layer.
fn two_images() -> Site {
    let mut site = Site::new();
    site.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    let labels = |name: &str| json!({"Labels": {"io.mlwm.configuration": name}});
    noise_image(&site.path("here"), "one", &[(1, 5), (2, 3)], &labels("one"));
    noise_image(&site.path("here"), "two", &[(1, 5), (3, 2)], &labels("two"));
    site
}

/// The digest of an image, as skopeo has it.
fn digest(place: &str) -> String {
    let inspect = [
        "inspect",
        "--tls-verify=false",
        "--format",
        "{{.Digest}}",
        place,
    ];
    tool("skopeo", &inspect).trim().to_owned()
}

fn in_layout(site: &Site, name: &str) -> String {
    digest(&format!("oci:{}:{name}", site.path("here").display()))
}

/// Whether the registry has any tag in a repository.
fn has_tags(host: &str, repository: &str) -> bool {
    let place = format!("docker://{host}/{repository}");
    let list = tried("skopeo", &["list-tags", "--tls-verify=false", &place]);
    list.code == 0 && !list.stdout.contains("\"Tags\": []")
}

fn behind_proxy(server: &Registry) -> (CountingProxy, String) {
    let proxy = CountingProxy::to(&server.endpoint());
    let host = proxy.endpoint["http://".len()..].to_owned();
    (proxy, host)
}

#[test]
fn the_digest_stays_and_nothing_is_sent_twice() {
    let (site, server) = (two_images(), Registry::open());
    let (proxy, host) = behind_proxy(&server);
    let one = in_layout(&site, "one");
    let push = |image: &str, to: &str| site.mlwm(&["image", "push", image, "--to", to]);
    let first = format!("{host}/models/one:v1");
    let pushed = push("oci:here:one", &first).expect(0, &[&first, &one]);
    assert!(
        !pushed.stdout.contains("already there"),
        "{}",
        pushed.stdout
    );
    assert_eq!(digest(&format!("docker://{first}")), one);
    let sent = || {
        let sent = proxy.counts().sent;
        proxy.reset();
        sent
    };
    assert!(sent() > 8 * MIB);
    push("oci:here:one", &first).expect(0, &["(already there)", &one]);
    assert_eq!(sent(), 0);
    // Another repository of the registry: mounted.
    let second = format!("{host}/others/one:v2");
    push(&first, &second).expect(0, &[&one]);
    assert!(sent() < TALK);
    assert_eq!(digest(&format!("docker://{second}")), one);
    // Only what differs is sent, and the tag is moved.
    let two = in_layout(&site, "two");
    push("oci:here:two", &first).expect(0, &[&two]);
    let moved = sent();
    assert!((2 * MIB..2 * MIB + TALK).contains(&moved), "{moved}");
    assert_eq!(digest(&format!("docker://{first}")), two);
    // Back into a layout, and to another registry.
    push(&second, "oci:back:one").expect(0, &[&one]);
    assert_eq!(
        digest(&format!("oci:{}:one", site.path("back").display())),
        one
    );
    let other = Registry::open();
    let third = format!("{}/a/b:c", other.host);
    push(&second, &third).expect(0, &[&one]);
    assert_eq!(digest(&format!("docker://{third}")), one);
}

#[test]
fn a_place_that_is_none_is_said_before_anything_is_read() {
    let site = Site::new();
    for to in [
        "models:v1",
        "oci:folder",
        "host.org/a@sha256:12",
        "oci://host/a",
        "https://host.org/a:v1",
    ] {
        let push = ["image", "push", "oci:nowhere:v1", "--to", to];
        site.mlwm(&push).expect(2, &[to]);
    }
    site.mlwm(&["image", "inspect", "host.org/a@sha256:12"])
        .expect(2, &["64 hexadecimal digits"]);
    let missing = [
        "image",
        "push",
        "oci:nowhere:v1",
        "--to",
        "127.0.0.1:9/a:v1",
    ];
    site.mlwm(&missing).expect(14, &["oci:nowhere:v1"]);
}

/// Starts a command, kills it when so many bytes were sent, and gives how many were acknowledged.
fn kill_after(site: &Site, proxy: &CountingProxy, arguments: &[&str], bytes: u64) -> u64 {
    proxy.hold_after(Direction::Sent, bytes);
    let mut command = site.command(arguments);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    assert!(proxy.wait_until_held(Duration::from_secs(120)));
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = proxy.counts().acknowledged;
    proxy.reset();
    acknowledged
}

#[test]
fn a_push_that_is_killed_goes_on_in_the_middle_of_a_layer() {
    let (site, server) = (Site::new(), Registry::imitation(&json!({})));
    let (proxy, host) = behind_proxy(&server);
    let layers = [(1, 10), (2, 150), (3, 10)];
    noise_image(&site.path("here"), "big", &layers, &json!({}));
    let to = format!("{host}/models/big:v1");
    let push = ["image", "push", "oci:here:big", "--to", &to];
    // Within the second chunk of the second layer.
    let acknowledged = kill_after(&site, &proxy, &push, 100 * MIB);
    assert!(acknowledged >= 74 * MIB, "{acknowledged}");
    site.mlwm(&["image", "inspect", &to]).expect(14, &[]);
    let pushed = site.mlwm(&push).expect(0, &[]);
    assert!(pushed.stderr.contains("were there"), "{}", pushed.stderr);
    let sent = proxy.counts().sent;
    assert!(
        sent <= 170 * MIB - acknowledged + TALK,
        "{acknowledged} were acknowledged, then {sent} sent"
    );
    site.mlwm(&["image", "inspect", &to])
        .expect(0, &[&in_layout(&site, "big")]);
}

/// Debian's registry forgets an upload that broke off within a chunk, but never a whole layer.
#[test]
fn a_push_that_is_killed_sends_no_layer_again() {
    let (site, server) = (Site::new(), Registry::open());
    let (proxy, host) = behind_proxy(&server);
    let layers = [(1, 20), (2, 20), (3, 20)];
    noise_image(&site.path("here"), "big", &layers, &json!({}));
    let to = format!("{host}/models/big:v1");
    let push = ["image", "push", "oci:here:big", "--to", &to];
    let acknowledged = kill_after(&site, &proxy, &push, 50 * MIB);
    assert!(acknowledged >= 40 * MIB, "{acknowledged}");
    assert!(!has_tags(&server.host, "models/big"));
    site.mlwm(&push).expect(0, &[]);
    let sent = proxy.counts().sent;
    assert!(sent <= 20 * MIB + TALK, "{sent}");
    assert_eq!(digest(&format!("docker://{to}")), in_layout(&site, "big"));
}

#[test]
fn secrets_stay_unless_the_image_itself_allows_them() {
    let (site, server) = (Site::new(), Registry::open());
    let token = ["ghp_", "Zq3vR8tLm5xW2nB7kD4jF9hG6sA1pC0eYuTi"].concat();
    let environment = [format!("API_TOKEN={token}")];
    let allowed = json!({"io.mlwm.secrets.allowed": "environment API_TOKEN"});
    let here = site.path("here");
    noise_image(&here, "leaks", &[(1, 1)], &json!({"Env": environment}));
    noise_image(
        &here,
        "allowed",
        &[(1, 1)],
        &json!({"Env": environment, "Labels": allowed}),
    );
    let to = format!("{}/a/b:v1", server.host);
    for arguments in [
        ["image", "push", "oci:here:leaks", "--to", &to],
        ["image", "export", "oci:here:leaks", "--to", "a.tar"],
    ] {
        let refused = site
            .mlwm(&arguments)
            .expect(31, &["environment API_TOKEN", "oci:here:leaks"]);
        assert!(!refused.stderr.contains(&token), "{}", refused.stderr);
        let mut other = arguments;
        other[2] = "oci:here:allowed";
        assert!(!has_tags(&server.host, "a/b") && !site.path("a.tar").exists());
        if arguments[1] == "push" {
            continue;
        }
        site.mlwm(&other).expect(0, &[]);
    }
    site.mlwm(&["image", "push", "oci:here:allowed", "--to", &to])
        .expect(0, &[]);
}

#[test]
fn the_same_images_make_the_same_file_wherever_they_are() {
    let (site, server) = (two_images(), Registry::open());
    let export = |images: [&str; 2], to: &str| {
        let export = ["image", "export", images[0], images[1], "--to", to];
        site.mlwm(&export)
            .expect(0, &["images/one:latest@", "images/two:latest@", to]);
        sha256(&site.path(to))
    };
    let first = export(["oci:here:one", "oci:here:two"], "a.tar");
    assert_eq!(export(["oci:here:two", "oci:here:one"], "b.tar"), first);
    let place = |name: &str| format!("{}/models/{name}:latest", server.host);
    for name in ["one", "two"] {
        let from = format!("oci:here:{name}");
        site.mlwm(&["image", "push", &from, "--to", &place(name)])
            .expect(0, &[]);
    }
    assert_eq!(export([&place("one"), &place("two")], "c.tar"), first);
    // The common layer is there once.
    let size = fs::metadata(site.path("a.tar")).unwrap().len();
    assert!((10 * MIB..10 * MIB + TALK).contains(&size), "{size}");
    // A file that is there is left alone, or is in the way.
    let again = [
        "image",
        "export",
        "oci:here:one",
        "oci:here:two",
        "--to",
        "a.tar",
    ];
    site.mlwm(&again).expect(0, &[]);
    site.mlwm(&["image", "export", "oci:here:one", "--to", "a.tar"])
        .expect(31, &["a.tar"]);
    assert_eq!(sha256(&site.path("a.tar")), first);
    // By the name of a configuration.
    let output = "{uri: ./out.zarr, internal_path: /volume/out.zarr}";
    let yaml = format!(
        "docker_image: {}\ninputs: {{}}\noutputs: {{surface: {output}}}\n",
        place("two")
    );
    site.configure("two", &yaml);
    let shown = site.mlwm(&["image", "export", "two", "--to", "two.tar"]);
    shown.expect(
        0,
        &[&format!("images/two:latest@{}", in_layout(&site, "two"))],
    );
}

#[test]
fn what_was_carried_is_what_arrives() {
    let (site, server) = (two_images(), Registry::open());
    let export = [
        "image",
        "export",
        "oci:here:one",
        "oci:here:two",
        "--to",
        "a.tar",
    ];
    site.mlwm(&export).expect(0, &[]);
    let archive = site.path("a.tar").display().to_string();
    for name in ["one", "two"] {
        assert_eq!(
            digest(&format!("oci-archive:{archive}:images/{name}:latest")),
            in_layout(&site, name)
        );
    }
    let (proxy, host) = behind_proxy(&server);
    let push = format!("{host}/models/{{name}}");
    let import = [
        "image",
        "import",
        "a.tar",
        "--push",
        &push,
        "--output",
        "oci:there",
    ];
    let arrived = site
        .mlwm(&import)
        .expect(0, &["models/one:latest", "oci:there:two"]);
    assert!(
        !arrived.stdout.contains("already there"),
        "{}",
        arrived.stdout
    );
    for name in ["one", "two"] {
        let expected = in_layout(&site, name);
        assert_eq!(
            digest(&format!("docker://{host}/models/{name}:latest")),
            expected
        );
        assert_eq!(
            digest(&format!("oci:{}:{name}", site.path("there").display())),
            expected
        );
        // Every blob of it, not the manifest alone.
        let copied = site.path(&format!("copied-{name}")).display().to_string();
        let from = format!("docker://{host}/models/{name}:latest");
        tool(
            "skopeo",
            &[
                "copy",
                "--quiet",
                "--src-tls-verify=false",
                &from,
                &format!("oci:{copied}:x"),
            ],
        );
    }
    proxy.reset();
    let again = site.mlwm(&import).expect(0, &[]);
    assert_eq!(
        again.stdout.matches("already there").count(),
        4,
        "{}",
        again.stdout
    );
    assert_eq!(proxy.counts().sent, 0);
    site.mlwm(&["artifact", "import", "a.tar", "models"])
        .expect(11, &["mlwm image import"]);
    // Two images cannot be one.
    let one = format!("{host}/models/all:v1");
    site.mlwm(&["image", "import", "a.tar", "--push", &one])
        .expect(2, &["{name}"]);
    assert!(!has_tags(&server.host, "models/all"));
    site.mlwm(&["image", "import", "a.tar"])
        .expect(2, &["--push"]);
    site.mlwm(&["image", "import", "a.tar", "--artifacts", "models"])
        .expect(11, &["no artifact"]);
}

#[test]
fn an_import_that_is_killed_goes_on() {
    let (site, server) = (Site::new(), Registry::imitation(&json!({})));
    let (proxy, host) = behind_proxy(&server);
    noise_image(&site.path("here"), "big", &[(1, 10), (2, 90)], &json!({}));
    let export = ["image", "export", "oci:here:big", "--to", "a.tar"];
    let in_parts = [&export[..], &["--part-size", "30MB"]].concat();
    site.mlwm(&in_parts)
        .expect(0, &["a.tar.001", "a.tar.parts.json"]);
    let to = format!("{host}/models/{{name}}:{{tag}}");
    let import = ["image", "import", "a.tar", "--push", &to];
    let acknowledged = kill_after(&site, &proxy, &import, 85 * MIB);
    assert!(acknowledged >= 74 * MIB, "{acknowledged}");
    site.mlwm(&import).expect(0, &[]);
    let sent = proxy.counts().sent;
    assert!(
        sent <= 100 * MIB - acknowledged + TALK,
        "{acknowledged} were acknowledged, then {sent} sent"
    );
    let arrived = format!("{host}/models/big:latest");
    site.mlwm(&["image", "inspect", &arrived])
        .expect(0, &[&in_layout(&site, "big")]);
}

#[test]
fn what_is_damaged_arrives_nowhere() {
    let (site, server) = (two_images(), Registry::open());
    let export = [
        "image",
        "export",
        "oci:here:one",
        "oci:here:two",
        "--to",
        "a.tar",
    ];
    site.mlwm(&export).expect(0, &[]);
    let good = fs::read(site.path("a.tar")).unwrap();
    let to = format!("{}/models/{{name}}", server.host);
    let import = [
        "image",
        "import",
        "b.tar",
        "--push",
        &to,
        "--output",
        "oci:there",
    ];
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    for bytes in [
        good[..good.len() - 1].to_vec(),
        good[..good.len() / 2].to_vec(),
        good[..700].to_vec(),
        [&good[..], &[0; 512]].concat(),
        flipped(600),
        flipped(4000),
        flipped(good.len() / 2),
        flipped(good.len() - 2000),
        b"not a tar".to_vec(),
    ] {
        fs::write(site.path("b.tar"), bytes).unwrap();
        site.mlwm(&import).expect(13, &["b.tar"]);
        assert!(!has_tags(&server.host, "models/one") && !has_tags(&server.host, "models/two"));
        assert!(!site.path("there").exists());
    }
    // One that another program made has not what mlwm checks it by.
    let folder = site.path("here").display().to_string();
    let foreign = site.path("b.tar").display().to_string();
    fs::remove_file(&foreign).unwrap();
    tool("tar", &["-C", &folder, "-cf", &foreign, "."]);
    site.mlwm(&import).expect(13, &["not a bundle"]);
    // A layer that changes on this side does not go into a file.
    let raw = tool(
        "skopeo",
        &["inspect", "--raw", &format!("oci:{folder}:one")],
    );
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap();
    let layer = site
        .path("here/blobs/sha256")
        .join(&layer["sha256:".len()..]);
    let mut bytes = fs::read(&layer).unwrap();
    bytes[12345] ^= 1;
    fs::write(&layer, bytes).unwrap();
    site.mlwm(&["image", "export", "oci:here:one", "--to", "c.tar"])
        .expect(13, &["has the digest"]);
    assert!(!site.path("c.tar").exists());
    let to = format!("{}/models/bad:v1", server.host);
    let pushed = site.mlwm(&["image", "push", "oci:here:one", "--to", &to]);
    assert_ne!(pushed.code, 0, "{}", pushed.stdout);
    assert!(!has_tags(&server.host, "models/bad"));
}

/// An image that `mlwm image build` made, with its signed artifact, to another site: that site has
/// neither a network nor the first one's cache.
#[test]
fn image_and_signed_artifact_travel_together() {
    let place = Place::directory();
    let mut site = Site::with_example();
    site.env("MLWM_SIGNING_PASSWORD", "password");
    site.mlwm(&["artifact", "key", "new", "models"])
        .expect(0, &[]);
    let push = [
        "artifact",
        "push",
        "danra.zip",
        &place.uri,
        "--sign",
        "models.key",
    ];
    site.mlwm(&push).expect(0, &[]);
    site.mlwm(&["image", "build", "danra", "--output", "oci:out"])
        .expect(0, &[]);
    let export = ["image", "export", "oci:out:danra", "--artifacts", "--to"];
    // Nobody has fetched it: the registry must be named.
    site.mlwm(&[&export[..], &["a.tar"]].concat())
        .expect(11, &["--registry"]);
    let from = [&export[..], &["a.tar", "--registry", &place.uri]].concat();
    site.mlwm(&from)
        .expect(0, &["images/danra:latest@", "danra:latest@"]);
    // Now it is in the cache, with what came with it.
    site.mlwm(&[&export[..], &["b.tar"]].concat())
        .expect(0, &["danra:latest@"]);

    let other = Site::new();
    fs::copy(site.path("a.tar"), other.path("a.tar")).unwrap();
    fs::copy(site.path("models.pub"), other.path("models.pub")).unwrap();
    // What a run before may have left.
    tried("docker", &["rmi", "-f", "mlwm-test/moved:latest"]);
    let load = [
        "image",
        "import",
        "a.tar",
        "--load=mlwm-test/moved",
        "--artifacts",
        "models",
    ];
    let loaded = other
        .mlwm(&load)
        .expect(0, &["mlwm-test/moved:latest", "danra", "published"]);
    assert!(
        !loaded.stdout.contains("already there"),
        "{}",
        loaded.stdout
    );
    other
        .mlwm(&load)
        .expect(0, &["already there", "already-published"]);
    let verify = [
        "artifact",
        "verify",
        "./models/danra",
        "--key",
        "models.pub",
    ];
    other
        .mlwm(&verify)
        .expect(0, &[&sha256(&site.path("danra.zip")), "signature"]);

    let shown = site
        .mlwm(&["image", "inspect", "oci:out:danra", "--json"])
        .expect(0, &[])
        .json();
    let id = tool(
        "docker",
        &[
            "image",
            "inspect",
            "--format",
            "{{.Id}}",
            "mlwm-test/moved:latest",
        ],
    );
    assert_eq!(id.trim(), shown["id"]);
    // It runs there: the entry point refuses to do without its variables, and says so.
    let started = ["run", "--rm", "--network", "none", "mlwm-test/moved:latest"];
    let ran = tried("docker", &started);
    assert!(ran.stderr.contains("is not set"), "{}", ran.stderr);
    tool("docker", &["rmi", "-f", "mlwm-test/moved:latest"]);
}

#[test]
fn out_of_an_engine_an_image_has_the_digest_that_it_was_built_with() {
    let (site, server) = (Site::with_example(), Registry::open());
    small_base(&site.path("base"), "amd64", "of an engine");
    let image = format!("mlwm-test/moved-{}:latest", std::process::id());
    site.configure("danra", &configuration_on("oci:base:v1", &image));
    let built = site.mlwm(&["image", "build", "danra"]).expect(0, &[&image]);
    let built = digest_in(&built.stdout);
    // A configuration stands for its image.
    let to = format!("{}/models/danra:v1", server.host);
    site.mlwm(&["image", "push", "danra", "--to", &to])
        .expect(0, &[&to, &built]);
    tool("docker", &["rmi", &image]);
    assert_eq!(digest(&format!("docker://{to}")), built);
    site.mlwm(&["image", "inspect", "danra"])
        .expect(14, &[&image]);
}

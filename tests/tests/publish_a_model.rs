//! A user publishes a model, and another one finds out what it is and gets it back: the same story
//! with every kind of registry.

use std::fs;

use mlwm_tests::places::{Place, size};
use mlwm_tests::site::{Site, example_artifact, noise_artifact, sha256};

/// Looking into a remote artifact of any size takes this many requests: its record, its end, the
/// start of its checkpoint.
const INSPECT_REQUESTS: usize = 3;
/// A server that wants to know who asks refuses the first request, and one with a token that has
/// expired.
const CHALLENGES: usize = 2;
/// ... and this many bytes.
const INSPECT_BYTES: u64 = 2 << 20;

/// The whole story.
fn publish_and_get_back(place: &Place) {
    let site = place.site();
    fs::copy(example_artifact(), site.path("danra.zip")).unwrap();
    let digest = sha256(&site.path("danra.zip"));
    let reference = place.reference("danra");
    publish(place, &site, &digest);
    look_without_downloading(place, &site, &digest);
    get_back(&site, &reference, &digest);
    tag(&site, place, &digest);
    remove(&site, place);
}

fn publish(place: &Place, site: &Site, digest: &str) {
    let reference = place.reference("danra");
    let push = ["artifact", "push", "danra.zip", &place.uri, "--json"];
    let pushed = site.mlwm(&push).expect(0, &[]).json();
    assert_eq!(pushed["outcome"], "published");
    assert_eq!(pushed["digest"], digest);
    assert_eq!(pushed["reference"], format!("{reference}@{digest}"));

    // The same content again: nothing is sent.
    if let Some(proxy) = &place.proxy {
        proxy.reset();
    }
    let again = site.mlwm(&push).expect(0, &[]).json();
    assert_eq!(again["outcome"], "already-published");
    if let Some(proxy) = &place.proxy {
        let sent = proxy.counts().sent;
        assert!(sent < 16 << 10, "{sent} bytes were sent for nothing");
    }

    // Other content under the same name is refused, and changes nothing.
    let other = noise_artifact("danra", 100_000, 1);
    let other = other.to_str().unwrap();
    site.mlwm(&["artifact", "push", other, &place.uri])
        .expect(31, &["danra", digest]);
    // As another version it is welcome.
    site.mlwm(&["artifact", "push", other, &place.uri, "--tag", "v2"])
        .expect(0, &["danra:v2@sha256:"]);

    let listed = site
        .mlwm(&["artifact", "list", &place.uri, "--json"])
        .expect(0, &[])
        .json();
    let listed: Vec<(&str, &str, &str)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["name"].as_str().unwrap(),
                one["tag"].as_str().unwrap(),
                one["digest"].as_str().unwrap(),
            )
        })
        .collect();
    let other_digest = sha256(other.as_ref());
    assert_eq!(
        listed,
        [
            ("danra", "latest", digest),
            ("danra", "v2", other_digest.as_str())
        ]
    );
    site.mlwm(&["artifact", "list", &place.uri])
        .expect(0, &["danra", "v2"]);
}

fn look_without_downloading(place: &Place, site: &Site, digest: &str) {
    // A large one, so that a download would be seen.
    let large = noise_artifact("large", 24 << 20, 2);
    site.mlwm(&["artifact", "push", large.to_str().unwrap(), &place.uri])
        .expect(0, &[]);
    if let Some(proxy) = &place.proxy {
        proxy.reset();
    }
    let reference = place.reference("large");
    let inspected = site
        .mlwm(&["artifact", "inspect", &reference, "--json"])
        .expect(0, &[])
        .json();
    assert_eq!(inspected["name"], "large");
    assert_eq!(inspected["digest"], sha256(&large));
    assert_eq!(inspected["size"], size(&large));
    if let Some(proxy) = &place.proxy {
        let counts = proxy.counts();
        let allowed = INSPECT_REQUESTS + if place.needs_login() { CHALLENGES } else { 0 };
        assert!(counts.requests.len() <= allowed, "{:#?}", counts.requests);
        assert!(counts.received < INSPECT_BYTES, "{} bytes", counts.received);
    }
    site.mlwm(&["artifact", "inspect", &place.reference("danra")])
        .expect(0, &["checkpoint.onnx", digest]);

    // By its own hashes, byte for byte, without a copy on disk.
    site.mlwm(&["artifact", "verify", &reference])
        .expect(0, &["large"]);

    // Against a local file and against another version.
    let danra = place.reference("danra");
    site.mlwm(&["artifact", "diff", "danra.zip", &danra])
        .expect(0, &[]);
    site.mlwm(&["artifact", "diff", &danra, &format!("{danra}:v2")])
        .expect(13, &["checkpoint.onnx", "checkpoint.pkl"]);
    site.mlwm(&[
        "artifact",
        "extract",
        &danra,
        "stats",
        "--only",
        "configs/*.datastore.yaml",
    ])
    .expect(0, &[]);
    assert_eq!(site.files("stats"), ["configs/danra.datastore.yaml"]);
    let whole = site.files("whole");
    assert!(whole.is_empty());
    site.mlwm(&["artifact", "extract", &danra, "whole"])
        .expect(0, &[]);
    assert!(site.files("whole").contains(&"checkpoint.onnx".to_owned()));
}

fn get_back(site: &Site, reference: &str, digest: &str) {
    for (text, file) in [
        (reference.to_owned(), "by-name.zip"),
        (format!("{reference}@{digest}"), "by-digest.zip"),
    ] {
        site.mlwm(&["artifact", "pull", &text, "--output", file])
            .expect(0, &[digest]);
        assert_eq!(sha256(&site.path(file)), digest);
    }
    // There already: a no-op. Something else there: never overwritten.
    let pull = ["artifact", "pull", reference, "--output"];
    site.mlwm(&[&pull[..], &["by-name.zip"]].concat())
        .expect(0, &[]);
    fs::write(site.path("mine.zip"), "not yours").unwrap();
    let refused = site.mlwm(&[&pull[..], &["mine.zip"]].concat());
    refused.expect(31, &["mine.zip"]);
    assert_eq!(fs::read(site.path("mine.zip")).unwrap(), b"not yours");
    // A pin that the name does not fulfil.
    let wrong = format!("{reference}@sha256:{}", "0".repeat(64));
    let ran = site.mlwm(&["artifact", "pull", &wrong, "--output", "wrong.zip"]);
    assert!([11, 13].contains(&ran.code), "{}{}", ran.code, ran.stderr);
    assert!(!site.path("wrong.zip").exists());
    site.mlwm(&["artifact", "pull", &format!("{reference}-x")])
        .expect(11, &["danra-x"]);
    let parts = site.files(".");
    assert!(
        !parts.iter().any(|path| path.contains("mlwm-part")),
        "{parts:?}"
    );
}

fn tag(site: &Site, place: &Place, digest: &str) {
    let danra = place.reference("danra");
    let stable = format!("{danra}:stable");
    site.mlwm(&["artifact", "tag", &danra, "stable"])
        .expect(0, &["stable", digest]);
    site.mlwm(&["artifact", "pull", &stable, "--output", "stable.zip"])
        .expect(0, &[digest]);
    // A tag is moved only by someone who says so.
    let v2 = format!("{danra}:v2");
    site.mlwm(&["artifact", "tag", &v2, "stable"])
        .expect(31, &["stable", "--move"]);
    site.mlwm(&["artifact", "tag", &v2, "stable", "--move"])
        .expect(0, &["stable"]);
    // The last tag of a content, only by someone who wants to lose that.
    let lonely = noise_artifact("danra", 50_000, 3);
    let push = ["artifact", "push", lonely.to_str().unwrap(), &place.uri];
    site.mlwm(&[&push[..], &["--tag", "lonely"]].concat())
        .expect(0, &[]);
    let move_away = ["artifact", "tag", &v2, "lonely", "--move"];
    site.mlwm(&move_away).expect(31, &["lonely", "--yes"]);
    site.mlwm(&[&move_away[..], &["--yes"]].concat())
        .expect(0, &["lonely"]);
    site.mlwm(&["artifact", "remove", &format!("{danra}:lonely")])
        .expect(0, &["stays, for"]);
    site.mlwm(&["artifact", "pull", &stable, "--output", "moved.zip"])
        .expect(0, &[]);
    assert_ne!(sha256(&site.path("moved.zip")), digest);
    site.mlwm(&["artifact", "tag", &v2, "latest", "--move"])
        .expect(31, &["latest"]);
}

/// A configuration that runs an artifact from an image that is never asked for.
fn configuration(artifact: &str) -> String {
    format!(
        "docker_image: localhost/none:v1
artifact: {artifact}
forecast_duration: PT18H
inputs:
  surface:
    uri: ./store/single_levels.zarr
    internal_path: /volume/inputs/single_levels.zarr
    datastore_inputs: [danra.danra_surface, danra.danra_forcing, danra.danra_static]
outputs:
  surface:
    uri: ./published/{{analysis_time}}/member{{member}}/surface.zarr
    internal_path: /volume/outputs/surface.zarr
"
    )
}

fn remove(site: &Site, place: &Place) {
    let danra = place.reference("danra");
    let stable = format!("{danra}:stable");
    let names = |site: &Site| {
        let listed = site.mlwm(&["artifact", "list", &place.uri, "--json"]);
        let listed = listed.expect(0, &[]).json();
        let all = listed.as_array().unwrap().iter();
        all.map(|one| {
            format!(
                "{}:{}",
                one["name"].as_str().unwrap(),
                one["tag"].as_str().unwrap()
            )
        })
        .collect::<Vec<String>>()
    };
    let before = names(site);
    site.mlwm(&["artifact", "remove", &danra, "--dry-run"])
        .expect(0, &["danra"]);
    assert_eq!(names(site), before);
    // The only copy is not removed without a word.
    let refused = site.mlwm(&["artifact", "remove", &danra]);
    refused.expect(31, &["--yes"]);
    assert_eq!(names(site), before);
    // Another tag keeps the content.
    site.mlwm(&["artifact", "remove", &stable]).expect(0, &[]);
    site.mlwm(&["artifact", "remove", &danra, "--yes"])
        .expect(0, &[]);
    assert_eq!(names(site), ["danra:v2", "large:latest"]);

    // Everything that no configuration needs.
    site.mlwm(&["artifact", "tag", &place.reference("large"), "other"])
        .expect(0, &[]);
    let v2 = format!("{danra}:v2@{}", sha256(&site.path("moved.zip")));
    site.configure("forecast", &configuration(&v2));
    site.mlwm(&["artifact", "remove", &format!("{danra}:v2"), "--yes"])
        .expect(31, &["forecast"]);
    let sweep = |more: &[&str]| {
        let sweep = ["artifact", "remove", "--unreferenced", &place.uri];
        let folder = ["--configurations", "configurations"];
        site.mlwm(&[&sweep[..], &folder, more].concat())
    };
    // Two tags of one content do not keep each other.
    sweep(&[]).expect(31, &["--yes"]);
    assert_eq!(names(site), ["danra:v2", "large:latest", "large:other"]);
    let removed = sweep(&["--yes", "--json"]).expect(0, &[]).json();
    assert_eq!(removed["publications"].as_array().unwrap().len(), 2);
    assert_eq!(names(site), ["danra:v2"]);
    fs::remove_dir_all(site.path("configurations")).unwrap();
    site.mlwm(&["artifact", "remove", &format!("{danra}:v2"), "--yes"])
        .expect(0, &["no configurations were looked at"]);
    assert_eq!(names(site), Vec::<String>::new());
}

#[test]
fn in_a_directory() {
    publish_and_get_back(&Place::directory());
}

#[test]
fn in_garage() {
    publish_and_get_back(&Place::garage());
}

#[test]
fn in_moto() {
    publish_and_get_back(&Place::moto());
}

#[test]
fn in_gcs() {
    publish_and_get_back(&Place::gcs());
}

#[test]
fn in_an_oci_registry() {
    publish_and_get_back(&Place::oci());
}

#[test]
fn in_an_oci_registry_with_a_password() {
    publish_and_get_back(&Place::oci_with_password());
}

/// Every token expires before the story is over.
#[test]
fn in_an_oci_registry_with_tokens_that_expire() {
    publish_and_get_back(&Place::oci_with_tokens(2.0));
}

/// `--push` sends the bytes while they are packed: no zip appears on this machine.
#[test]
fn straight_from_the_training_run() {
    use mlwm_tests::site::example;
    let place = Place::garage();
    let site = place.site();
    let path = |relative: &str| example(relative).display().to_string();
    let (config, arguments) = (
        path("train/config.yaml"),
        path("train/training_cli_args.yaml"),
    );
    let (onnx, facts) = (path("onnx/graph_lam.onnx"), path("onnx/graph_lam.json"));
    let checkpoint = path("train/runs/graph_lam/checkpoints/last.ckpt");
    let build = |more: &[&str]| {
        let mut all = vec![
            "artifact",
            "build",
            "danra",
            "--nl-config",
            &config,
            "--training-args",
            &arguments,
            "--onnx",
            &onnx,
            "--interface",
            &facts,
            "--checkpoint",
            &checkpoint,
        ];
        all.extend(more);
        site.mlwm(&all)
    };
    let shown = build(&["--dry-run"]).expect(0, &["checkpoint.onnx", "interface.json"]);
    assert!(site.files(".").is_empty(), "{}", shown.stdout);
    build(&["--push", &place.uri]).expect(0, &["danra@sha256:"]);
    assert!(!site.files(".").iter().any(|path| path.ends_with(".zip")));
    let pull = [
        "artifact",
        "pull",
        &place.reference("danra"),
        "--output",
        "danra.zip",
    ];
    site.mlwm(&pull).expect(0, &[]);
    assert_eq!(sha256(&site.path("danra.zip")), sha256(example_artifact()));
}

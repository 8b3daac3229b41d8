//! A planted key reaches no image, container, log, published file or error text.

use std::fs;
use std::path::Path;
use std::process::Command;

use mlwm_tests::s3::S3Server;
use mlwm_tests::site::{Site, example, example_configuration};

const PLANTED: &str = "PLANTEDsecretKEY0123456789abcdefABCDEF42";
const PLANTED_ID: &str = "AKIAPLANTED0KEY0ID00";

fn holds_key(bytes: &[u8]) -> bool {
    [PLANTED, PLANTED_ID].iter().any(|key| {
        let key = key.as_bytes();
        bytes.windows(key.len()).any(|window| window == key)
    })
}

fn files_with_key(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if entry.is_dir() {
            files_with_key(&entry, found);
        } else if holds_key(&fs::read(&entry).unwrap()) {
            found.push(entry.display().to_string());
        }
    }
}

#[test]
fn a_planted_key_is_found_nowhere() {
    let mut site = Site::with_example();
    site.env("AWS_ACCESS_KEY_ID", PLANTED_ID);
    site.env("AWS_SECRET_ACCESS_KEY", PLANTED);
    site.env("AWS_SESSION_TOKEN", PLANTED);
    let mut said = String::new();
    let mut note = |ran: mlwm_tests::site::Ran| {
        said.push_str(&ran.stdout);
        said.push_str(&ran.stderr);
    };

    // An artifact and an image, built with the key in the environment.
    let (config, arguments) = (
        example("train/config.yaml"),
        example("train/training_cli_args.yaml"),
    );
    let (onnx, facts) = (
        example("onnx/graph_lam.onnx"),
        example("onnx/graph_lam.json"),
    );
    note(
        site.mlwm(&[
            "artifact",
            "build",
            "planted",
            "--nl-config",
            config.to_str().unwrap(),
            "--training-args",
            arguments.to_str().unwrap(),
            "--onnx",
            onnx.to_str().unwrap(),
            "--interface",
            facts.to_str().unwrap(),
        ])
        .expect(0, &[]),
    );
    let image = "mlwm-test/planted:latest";
    let yaml = example_configuration()
        .replace("danra.zip", "planted.zip")
        .replace("mlwm-test/danra:latest", image);
    site.configure("planted", &yaml);
    note(site.mlwm(&["image", "build", "planted"]).expect(0, &[]));

    // A forecast, and every kind of failure of a store.
    note(site.run("planted", &["--json"]).expect(0, &["published"]));
    let server = S3Server::garage();
    let bucket = server.bucket("open");
    for (bucket, endpoint) in [
        (bucket.as_str(), server.endpoint.as_str()),
        ("no-such-bucket", server.endpoint.as_str()),
        ("any", "http://127.0.0.1:9"),
    ] {
        site.env("AWS_ENDPOINT_URL", endpoint);
        site.env("AWS_REGION", server.region);
        let place = format!("s3://{bucket}/");
        site.configure(
            "failing",
            &yaml
                .replace("./store/", &place)
                .replace("./published/", &place),
        );
        note(site.run("failing", &[]).expect(30, &[]));
        note(site.run("failing", &["--json"]).expect(30, &[]));
    }

    assert!(!holds_key(said.as_bytes()), "{said}");
    let mut found = Vec::new();
    files_with_key(&site.path("."), &mut found);
    assert_eq!(found, Vec::<String>::new());
    let saved = site.path("image.tar");
    let save = Command::new("docker")
        .args(["save", "--output"])
        .arg(&saved)
        .arg(image)
        .status()
        .unwrap();
    assert!(save.success());
    assert!(
        !holds_key(&fs::read(&saved).unwrap()),
        "the image holds the key"
    );
}

/// The scan itself: it finds a key where there is one.
#[test]
fn the_scan_finds_a_key() {
    let site = Site::new();
    fs::create_dir(site.path("deep")).unwrap();
    fs::write(site.path("deep/file"), format!("aws_secret={PLANTED}\n")).unwrap();
    let mut found = Vec::new();
    files_with_key(&site.path("."), &mut found);
    assert_eq!(found.len(), 1);
}

#[test]
fn a_credential_in_a_configuration_or_uri_is_refused() {
    let site = Site::with_example();
    let yaml = example_configuration();
    let added = format!("{yaml}environment: {{AWS_SECRET_ACCESS_KEY: {PLANTED}}}\n");
    site.configure("danra", &added);
    let ran = site
        .run("danra", &[])
        .expect(10, &["AWS_SECRET_ACCESS_KEY"]);
    assert!(!holds_key(ran.stderr.as_bytes()), "{}", ran.stderr);
    let inside = yaml.replace("./store/", &format!("s3://{PLANTED_ID}:{PLANTED}@bucket/"));
    site.configure("danra", &inside);
    let ran = site.run("danra", &[]).expect(10, &["danra"]);
    assert!(!holds_key(ran.stderr.as_bytes()), "{}", ran.stderr);
}

//! A planted key reaches no image, container, log, published file or error text. Credentials that do not last are known
//! of before anything is begun.

use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use mlwm_tests::s3::S3Server;
use mlwm_tests::scripted::scripted;
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

/// The end of credentials in so many seconds, as `aws configure export-credentials` writes it.
fn end_in(seconds: i64) -> String {
    let end = Timestamp::now() + SignedDuration::from_secs(seconds);
    end.strftime("%FT%T+00:00").to_string()
}

/// How much of the beginning of a time is the same for reports, which write `Z`.
const WITHOUT_ZONE: usize = "2026-01-31T12:00:00".len();

#[test]
fn credentials_that_do_not_last_are_known_before_anything_is_begun() {
    let script =
        "if [ $MLWM_MEMBER = 0 ]; then sleep 5; fi; cp -r /in/surface.zarr/. /out/surface.zarr/";
    let mut site = scripted("first-member-is-slow", script, "");
    let server = S3Server::garage();
    let bucket = server.bucket("ends");
    let config = site.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(&config).unwrap();
    let place = format!("s3://{bucket}/member{{member}}/");
    site.configure("danra", &yaml.replace("./published/", &place));
    for (name, value) in server.environment() {
        site.env(name, &value);
    }
    site.env("AWS_SESSION_TOKEN", PLANTED);
    let end_at = |site: &mut Site, end: &str| site.env("AWS_CREDENTIAL_EXPIRATION", end);
    let refused = |site: &Site, more: &[&str], code: i32, texts: &[&str]| {
        let ran = site.run("danra", more).expect(code, texts);
        assert!(!holds_key(ran.stderr.as_bytes()), "{}", ran.stderr);
        assert!(
            !site.path("mlwm-work").exists(),
            "nothing should be created"
        );
    };

    let ended = end_in(-60);
    end_at(&mut site, &ended);
    let said = &ended[..WITHOUT_ZONE];
    refused(&site, &[], 30, &["ended at", said, "s3://ends/member0"]);
    end_at(&mut site, "soon");
    refused(&site, &[], 10, &["AWS_CREDENTIAL_EXPIRATION"]);
    let end = end_in(600);
    end_at(&mut site, &end);
    let said = &end[..WITHOUT_ZONE];
    let hour = ["--credentials-for", "PT1H"];
    refused(&site, &hour, 30, &[said, "--credentials-for PT1H"]);

    // They last: one member takes 5 s, so that more are expected to, which then do not.
    let minute = ["--credentials-for", "PT1M"];
    let ran = site.run("danra", &minute).expect(0, &["published"]);
    assert!(!ran.stderr.contains("the credentials"), "{}", ran.stderr);
    let end = end_in(30);
    end_at(&mut site, &end);
    let said = format!("the credentials for S3 end at {}Z", &end[..WITHOUT_ZONE]);
    let wanted = ["plan", "--analysis-time", "2022-04-07T03:00Z"];
    let table = [&wanted[..], &["--expect"]].concat();
    site.mlwm(&table).expect(0, &[&said]);
    let json = site.mlwm(&[&wanted[..], &["--expect=json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(
        json[0]["credentials_end"],
        format!("{}Z", &end[..WITHOUT_ZONE])
    );
    let ran = site.run("danra", &["--members", "1-9"]).expect(0, &[&said]);
    assert!(!holds_key(ran.stderr.as_bytes()), "{}", ran.stderr);
    end_at(&mut site, &end_in(600));
    let ran = site.run("danra", &["--members", "1-9"]);
    let ran = ran.expect(0, &["already published"]);
    assert!(!ran.stderr.contains("the credentials"), "{}", ran.stderr);
}

/// Where nothing is read or written in S3, credentials for it are nobody's concern.
#[test]
fn ended_credentials_do_not_matter_to_a_run_on_disk() {
    let mut site = scripted("copies", "cp -r /in/surface.zarr/. /out/surface.zarr/", "");
    site.env("AWS_ACCESS_KEY_ID", PLANTED_ID);
    site.env("AWS_SECRET_ACCESS_KEY", PLANTED);
    site.env("AWS_SESSION_TOKEN", PLANTED);
    site.env("AWS_CREDENTIAL_EXPIRATION", &end_in(-60));
    let more = ["--credentials-for", "PT1H"];
    site.run("danra", &more).expect(0, &["published"]);
}

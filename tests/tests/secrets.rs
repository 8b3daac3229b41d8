//! Planted credentials of registries are found in no log, error, journal, cache or command line.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mlwm_tests::counting_proxy::{CountingProxy, Direction};
use mlwm_tests::gcs::GcsServer;
use mlwm_tests::places::Place;
use mlwm_tests::s3::S3Server;
use mlwm_tests::site::{Ran, Site, noise_artifact};

const PASSWORD: &str = "PLANTED-signing-password-7Yq2";

fn holds(bytes: &[u8], secrets: &[&str]) -> bool {
    secrets.iter().any(|secret| {
        let secret = secret.as_bytes();
        bytes.windows(secret.len()).any(|window| window == secret)
    })
}

fn files_with(folder: &Path, secrets: &[&str], found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, secrets, found);
        } else if holds(&fs::read(&path).unwrap(), secrets) {
            found.push(path.display().to_string());
        }
    }
}

/// What commands said, to be searched for secrets.
#[derive(Default)]
struct Said(String);

impl Said {
    fn note(&mut self, ran: Ran) {
        self.0.push_str(&ran.stdout);
        self.0.push_str(&ran.stderr);
    }

    #[track_caller]
    fn is_free_of(&self, secrets: &[&str]) {
        assert!(!self.0.is_empty());
        assert!(!holds(self.0.as_bytes(), secrets), "{}", self.0);
    }
}

/// Starts a push, holds it in the middle, looks at the process, and kills it.
fn half_a_push(site: &Site, proxy: &CountingProxy, push: &[&str], secrets: &[&str]) {
    proxy.reset();
    proxy.hold_after(Direction::Sent, 12 << 20);
    let child = site
        .command(push)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    assert!(proxy.wait_until_held(Duration::from_secs(60)));
    let mut looked = 0;
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = fs::read(process.path().join("cmdline")) else {
            continue;
        };
        // The search itself is done in this process, and leaves no trace there.
        if holds(&line, &["artifact"]) && holds(&line, &["push"]) {
            looked += 1;
            assert!(!holds(&line, secrets), "{}", String::from_utf8_lossy(&line));
        }
    }
    assert!(looked > 0, "the push was not among the processes");
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    for said in [output.stdout, output.stderr] {
        assert!(!holds(&said, secrets), "{}", String::from_utf8_lossy(&said));
    }
    proxy.reset();
}

#[test]
fn keys_of_s3_and_of_signatures_are_found_nowhere() {
    let server = S3Server::garage();
    let bucket = server.bucket("open");
    let rightless = server.key_without_rights("rightless");
    let proxy = CountingProxy::to(&server.endpoint);
    let uri = format!("s3://{bucket}/models");
    let artifact = noise_artifact("noise", 24 << 20, 6);
    let push = [
        "artifact",
        "push",
        artifact.to_str().unwrap(),
        &uri,
        "--sign",
        "models.key",
    ];
    // The identifier of the server's own key is no secret, but is not printed either.
    let secrets = [
        server.key.secret.as_str(),
        server.key.id.as_str(),
        rightless.secret.as_str(),
        PASSWORD,
    ];

    let mut site = Site::new();
    for (name, value) in server.environment() {
        site.env(name, &value);
    }
    site.env("AWS_ENDPOINT_URL", &proxy.endpoint);
    site.env("MLWM_SIGNING_PASSWORD", PASSWORD);
    let mut said = Said::default();
    said.note(
        site.mlwm(&["artifact", "key", "new", "models"])
            .expect(0, &[]),
    );
    half_a_push(&site, &proxy, &push, &secrets);
    assert!(
        !site.files("cache/mlwm/transfers").is_empty(),
        "a journal must be there to be searched"
    );
    let mut found = Vec::new();
    files_with(&site.path("."), &secrets, &mut found);
    assert_eq!(found, Vec::<String>::new());
    said.note(site.mlwm(&push).expect(0, &[]));
    said.note(
        site.mlwm(&["artifact", "pull", &format!("{uri}/noise")])
            .expect(0, &[]),
    );

    // Failures of every kind.
    site.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    said.note(site.mlwm(&["artifact", "list", &uri]).expect(30, &[]));
    site.env("AWS_ENDPOINT_URL", &proxy.endpoint);
    said.note(
        site.mlwm(&["artifact", "list", "s3://no-such-bucket/models"])
            .expect(30, &[]),
    );
    site.env("AWS_ACCESS_KEY_ID", &rightless.id);
    site.env("AWS_SECRET_ACCESS_KEY", &rightless.secret);
    said.note(site.mlwm(&["artifact", "list", &uri]).expect(30, &[]));
    said.note(site.mlwm(&push).expect(30, &[]));
    said.is_free_of(&secrets);
    let mut found = Vec::new();
    files_with(&site.path("."), &secrets, &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// The URL of an upload session is as good as a password: whoever has it can write.
#[test]
fn the_session_of_an_upload_is_in_its_journal_alone() {
    use std::os::unix::fs::PermissionsExt;
    let server = GcsServer::start();
    let bucket = server.bucket("open");
    let proxy = CountingProxy::to(&server.endpoint);
    let mut site = Site::new();
    for (name, value) in server.environment() {
        site.env(name, &value);
    }
    site.env("STORAGE_EMULATOR_HOST", &proxy.endpoint);
    let artifact = noise_artifact("noise", 24 << 20, 6);
    let uri = format!("gs://{bucket}/models");
    let push = ["artifact", "push", artifact.to_str().unwrap(), &uri];
    half_a_push(&site, &proxy, &push, &["upload_id"]);
    let mut found = Vec::new();
    files_with(&site.path("."), &["upload_id"], &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("cache/mlwm/transfers"), "{found:?}");
    let mode = fs::metadata(&found[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The server is gone: the error does not hold the session.
    drop(server);
    let ran = site.mlwm(&push).expect(30, &[]);
    assert!(
        !holds(ran.stderr.as_bytes(), &["upload_id"]),
        "{}",
        ran.stderr
    );
}

/// What is typed by mistake into a URI is not said again.
#[test]
fn credentials_in_a_reference_are_refused_and_not_repeated() {
    let place = Place::directory();
    let site = place.site();
    let secret = "PLANTED-in-the-uri-9Xk1";
    for reference in [
        format!("s3://key:{secret}@bucket/models/danra"),
        format!("oci://user:{secret}@host/models/danra"),
        format!("gs://user:{secret}@bucket/danra"),
    ] {
        for command in ["pull", "inspect", "verify", "list", "policy"] {
            let ran = site.mlwm(&["artifact", command, &reference]);
            assert_ne!(ran.code, 0);
            assert!(!holds(ran.stderr.as_bytes(), &[secret]), "{}", ran.stderr);
        }
    }
}

//! Transfers that are killed, and then run again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mlwm_spec::Digest;
use mlwm_storage::oci::OciOptions;
use mlwm_storage::{FileContent, Journals, Progress};
use mlwm_tests::counting_proxy::{CountingProxy, Direction};
use mlwm_tests::registry::Registry;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::common::{CHUNK, fetch, noise, options, repository, repository_with};

/// Two dozen chunks, and a bit.
const SIZE: u64 = 24 * CHUNK + 12345;

const KILLS: u64 = 20;

/// What a server may have read that the client did not send as part of a chunk, and what is on
/// its way between them when it is killed.
const SLACK: u64 = 64 << 10;

/// The test program itself as a child process that does one transfer.
fn child(job: &str, host: &str, folder: &Path, environment: &[(&str, &Path)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "interruption::run";
    command
        .args([
            "--exact",
            name,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("MLWM_JOB", job)
        .env("MLWM_JOB_HOST", host)
        .env("MLWM_JOB_FOLDER", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in environment {
        command.env(name, value);
    }
    command
}

fn start(job: &str, host: &str, folder: &Path) -> Child {
    child(job, host, folder, &[]).spawn().unwrap()
}

fn finish(job: &str, host: &str, folder: &Path) {
    let output = start(job, host, folder).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("JOB ok"), "{job}: {text}{errors}");
}

#[test]
#[ignore = "the child process of other tests"]
#[expect(clippy::print_stdout, reason = "it answers its parent")]
fn run() {
    let Ok(job) = std::env::var("MLWM_JOB") else {
        return;
    };
    let host = std::env::var("MLWM_JOB_HOST").unwrap();
    let folder = std::path::PathBuf::from(std::env::var_os("MLWM_JOB_FOLDER").unwrap());
    let (source, target) = (folder.join("source"), folder.join("target"));
    let (progress, cancel) = (Progress::none(), CancellationToken::new());
    let journals = Journals::at(folder.join("journals"));
    let with_environment = OciOptions {
        logins: None,
        ..options(None)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(async {
        match job.as_str() {
            "push" => {
                let repository = repository(&host, "a");
                let content = Arc::new(FileContent::open(&source)?);
                let sent = repository.upload_blob(content, None, &journals, &progress, &cancel);
                sent.await.map(|_| ())
            }
            "pull" => {
                let digest = Digest::of(std::fs::read(&source).unwrap());
                let repository = repository(&host, "a");
                let pulled = repository.download_blob(&digest, SIZE, &target, &progress, &cancel);
                pulled.await
            }
            "environment" => {
                let repository = repository_with(&host, "a", &with_environment);
                repository.push_blob_bytes("content").await.map(|_| ())
            }
            _ => unreachable!("no such job"),
        }
    });
    println!();
    match result {
        Ok(()) => println!("JOB ok"),
        Err(error) => println!("JOB failed: {error} | {error:?}"),
    }
}

/// Points of a transfer, spread over it but at no regular places.
fn points() -> impl Iterator<Item = u64> {
    (0..KILLS).map(|number| {
        let random = u64::from_le_bytes(noise(8, number + 1).try_into().unwrap());
        number * SIZE / KILLS + random % (SIZE / KILLS)
    })
}

/// A folder with the file that is sent, and its content.
fn source(seed: u64) -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(usize::try_from(SIZE).unwrap(), seed);
    std::fs::write(folder.path().join("source"), &bytes).unwrap();
    (folder, bytes)
}

/// Kills a push when so many bytes of bodies have passed.
fn kill_at(point: u64, job: &str, proxy: &CountingProxy, host: &str, folder: &Path) {
    let direction = match job {
        "push" => Direction::Sent,
        _ => Direction::Received,
    };
    proxy.reset();
    proxy.hold_after(direction, point);
    let mut child = start(job, host, folder);
    assert!(proxy.wait_until_held(Duration::from_secs(60)), "{point}");
    // What has passed arrives, on a busy machine too.
    std::thread::sleep(Duration::from_millis(500));
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn push_is_continued(registry: &Registry, keep: u64, seed: u64) {
    let proxy = CountingProxy::to(&registry.endpoint());
    let host = proxy.endpoint["http://".len()..].to_owned();
    for point in points() {
        let (folder, bytes) = source(seed + point);
        kill_at(point, "push", &proxy, &host, folder.path());
        proxy.reset();
        finish("push", &host, folder.path());
        let counts = proxy.counts();
        // The first run sent `point` bytes; of these the registry has kept a part.
        let needed = SIZE - point / keep * keep;
        assert!(
            counts.sent <= needed + CHUNK + SLACK && counts.sent + SLACK >= SIZE - point,
            "killed at {point}: {} sent again, {needed} needed",
            counts.sent
        );
        let digest = Digest::of(&bytes);
        let direct = repository(&registry.host, "a");
        assert!(fetch(&direct, &digest, SIZE).await == bytes);
        let journals = std::fs::read_dir(folder.path().join("journals")).unwrap();
        assert_eq!(journals.count(), 0);
    }
}

#[tokio::test]
async fn a_push_that_is_killed_anywhere_is_continued() {
    let registry = Registry::imitation(&json!({"keep": "all"}));
    push_is_continued(&registry, 1, 1000).await;
    assert_eq!(registry.counts()["posts"], KILLS);
}

#[tokio::test]
async fn a_push_is_continued_where_partial_chunks_are_dropped() {
    let registry = Registry::imitation(&json!({"keep": "nothing"}));
    push_is_continued(&registry, CHUNK, 2000).await;
}

/// Where it is killed in the midst of a chunk, this registry refuses the upload, and what it had
/// is lost: then everything is sent again, which is the least that works. Between chunks it is
/// continued.
#[tokio::test]
async fn a_push_to_docker_registry_that_is_killed_anywhere_is_finished() {
    let registry = Registry::open();
    push_is_continued(&registry, SIZE + 1, 3000).await;
}

#[tokio::test]
async fn a_push_to_docker_registry_that_is_called_off_between_chunks_is_continued() {
    let registry = Registry::open();
    let proxy = CountingProxy::to(&registry.endpoint());
    let host = proxy.endpoint["http://".len()..].to_owned();
    let (folder, bytes) = source(5);
    let journals = Journals::at(folder.path().join("journals"));
    let content = Arc::new(FileContent::open(folder.path().join("source")).unwrap());
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let progress = Progress::new(move |event: mlwm_storage::ProgressEvent| {
        if event.done_bytes >= 10 * CHUNK {
            stop.cancel();
        }
    });
    let first = repository(&host, "a");
    let sent = first.upload_blob(content, None, &journals, &progress, &cancel);
    sent.await.unwrap_err();
    proxy.reset();
    finish("push", &host, folder.path());
    assert_eq!(proxy.counts().sent, SIZE - 10 * CHUNK);
    let digest = Digest::of(&bytes);
    assert!(fetch(&first, &digest, SIZE).await == bytes);
}

#[tokio::test]
async fn a_pull_that_is_killed_anywhere_is_continued() {
    let registry = Registry::open();
    let proxy = CountingProxy::to(&registry.endpoint());
    let host = proxy.endpoint["http://".len()..].to_owned();
    let (folder, bytes) = source(4);
    finish("push", &host, folder.path());
    for point in points() {
        let target = folder.path().join("target");
        kill_at(point, "pull", &proxy, &host, folder.path());
        assert!(!target.exists());
        proxy.reset();
        finish("pull", &host, folder.path());
        let received = proxy.counts().received;
        assert!(
            received <= SIZE - point + (1 << 20),
            "killed at {point}: {received} received again"
        );
        assert!(std::fs::read(&target).unwrap() == bytes);
        std::fs::remove_file(target).unwrap();
    }
}

/// Logins are found where the environment says, and a credential helper is asked.
#[test]
fn logins_of_the_environment() {
    let registry = Registry::with_password();
    let (host, folder) = (registry.host.as_str(), tempfile::tempdir().unwrap());
    let at = folder.path();
    let logins = registry.logins(&[host]);
    let helper = at.join("docker-credential-test");
    let script = "#!/bin/sh\nread -r host\n[ \"$1\" = get ] && \
                  printf '{\"ServerURL\":\"%s\",\"Username\":\"user\",\"Secret\":\"pass\"}' \"$host\"\n";
    std::fs::write(&helper, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&helper, executable).unwrap();
    let with_helper = at.join("helper");
    std::fs::create_dir(&with_helper).unwrap();
    let text = json!({"credHelpers": {host: "test"}}).to_string();
    std::fs::write(with_helper.join("config.json"), text).unwrap();
    let (slow_helper, with_slow) = (at.join("docker-credential-slow"), at.join("slow"));
    std::fs::write(&slow_helper, "#!/bin/sh\nexec sleep 20\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&slow_helper, executable).unwrap();
    std::fs::create_dir(&with_slow).unwrap();
    let text = json!({"credsStore": "slow"}).to_string();
    std::fs::write(with_slow.join("config.json"), text).unwrap();
    let path = format!("{}:{}", at.display(), std::env::var("PATH").unwrap());

    let nowhere = at.join("nowhere");
    let clean: [(&str, &Path); 3] = [
        ("HOME", &nowhere),
        ("XDG_RUNTIME_DIR", &nowhere),
        ("PATH", Path::new(&path)),
    ];
    let login_folder = logins.parent().unwrap();
    for (name, value, expected) in [
        ("DOCKER_CONFIG", login_folder, true),
        ("REGISTRY_AUTH_FILE", &logins, true),
        ("DOCKER_CONFIG", &with_helper, true),
        ("DOCKER_CONFIG", &with_slow, false),
        ("DOCKER_CONFIG", &nowhere, false),
        ("REGISTRY_AUTH_FILE", &nowhere, false),
    ] {
        let environment = [&clean[..], &[(name, value)]].concat();
        let mut command = child("environment", host, at, &environment);
        for other in ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"] {
            if other != name {
                command.env_remove(other);
            }
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.lines().find(|line| line.starts_with("JOB")).unwrap();
        assert_eq!(text.contains("JOB ok"), expected, "{name}: {text}");
        assert!(!text.contains("pass"), "{text}");
        let slow = "`docker-credential-slow`";
        assert_eq!(text.contains(slow), value == with_slow, "{text}");
    }
}

/// Registries elsewhere are spoken to with encryption, and `SSL_CERT_FILE` says whom to trust.
#[test]
fn certificates_are_checked_against_ssl_cert_file() {
    let (registry, certificate) = Registry::with_tls();
    let folder = tempfile::tempdir().unwrap();
    let host = registry.host.as_str();
    for (trusted, expected) in [(certificate.as_path(), true), (Path::new(""), false)] {
        let mut command = child("environment", host, folder.path(), &[]);
        if expected {
            command.env("SSL_CERT_FILE", trusted);
        } else {
            command.env_remove("SSL_CERT_FILE");
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.lines().find(|line| line.starts_with("JOB")).unwrap();
        assert_eq!(text.contains("JOB ok"), expected, "{text}");
    }
}

//! The test program itself as a child process: with an environment of its own, and to be killed.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use mlwm_storage::{Error, Expected, FileContent, Journals, Options, Progress, Source, Store, Uri};
use mlwm_tests::s3::S3Server;
use tokio_util::sync::CancellationToken;

use crate::common::{WATCH, manifest, task};

/// A command that runs [`run`] with one job: `publish`, `stage`, `verify`, `list`, `upload` or
/// `download`.
pub(crate) fn command(
    job: &str,
    uri: &Uri,
    folder: &Path,
    environment: &[(&str, String)],
) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "child::run",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("MLWM_JOB", job)
        .env("MLWM_JOB_URI", uri.to_string())
        .env("MLWM_JOB_FOLDER", folder)
        .stdin(Stdio::null());
    for (name, _) in std::env::vars()
        .filter(|(name, _)| name.starts_with("AWS_") || name == "STORAGE_EMULATOR_HOST")
    {
        command.env_remove(name);
    }
    for (name, value) in environment {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    command
}

/// The text that a child printed after `label`.
pub(crate) fn printed(output: &Output, label: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| {
            line.split_once(label)
                .map(|(_, rest)| rest.trim().to_owned())
        })
        .unwrap_or_else(|| panic!("no `{label}` in: {text}\n{errors}"))
}

/// Runs one job in a child process that uses `server`.
pub(crate) fn run_job(job: &str, uri: &Uri, folder: &Path, server: Option<&S3Server>) -> Output {
    let environment = server.map_or_else(mlwm_tests::s3::bare_environment, S3Server::environment);
    command(job, uri, folder, &environment).output().unwrap()
}

#[test]
#[ignore = "the child process of other tests"]
#[expect(clippy::print_stdout, reason = "it answers its parent")]
fn run() {
    let Ok(job) = std::env::var("MLWM_JOB") else {
        return;
    };
    let uri: Uri = std::env::var("MLWM_JOB_URI").unwrap().parse().unwrap();
    let folder = std::path::PathBuf::from(std::env::var_os("MLWM_JOB_FOLDER").unwrap());
    let (progress, cancel) = (Progress::none(), CancellationToken::new());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let before = peak_kibibytes();
    let options = Options {
        watch: WATCH,
        ..Options::default()
    };
    let result = runtime.block_on(async {
        let store = Store::open_with(&uri, options).await?;
        match job.as_str() {
            "publish" => {
                let make = |objects| manifest(task("child"), &uri, objects);
                let notes = std::env::var_os("MLWM_JOB_NOTES").map(std::path::PathBuf::from);
                let source = Source {
                    folder: &folder,
                    notes: notes.as_deref(),
                };
                let published = store
                    .publish(source, &uri, task("child"), make, &progress, &cancel)
                    .await?;
                Ok(published.manifest.objects.len().to_string())
            }
            "stage" => Ok(store
                .stage(&uri, &folder, &progress, &cancel)
                .await?
                .objects
                .len()
                .to_string()),
            "verify" => Ok(store
                .verify(&uri, &progress, &cancel)
                .await?
                .manifest
                .objects
                .len()
                .to_string()),
            "list" => Ok(store.list(&uri).await?.len().to_string()),
            "upload" => {
                let content = Arc::new(FileContent::open(folder.join("source"))?);
                let journals = Journals::at(folder.join("journals"));
                let uploaded = store.upload_content(&uri, content, &journals, &progress, &cancel);
                Ok(uploaded.await?.to_string())
            }
            "download" => {
                let text = std::fs::read_to_string(folder.join("expected")).unwrap();
                let (size, digest) = text.split_once(' ').unwrap();
                let expected = Expected {
                    size: size.parse().unwrap(),
                    digest: digest.parse().unwrap(),
                };
                let to = folder.join("fetched");
                store
                    .download(&uri, &expected, &to, &progress, &cancel)
                    .await?;
                Ok(expected.digest.to_string())
            }
            _ => unreachable!("no such job"),
        }
    });
    let result: Result<String, Error> = result;
    println!();
    match result {
        Ok(count) => println!("JOB ok {count}"),
        Err(error) => println!(
            "JOB failed {}: {error} | {error:?}",
            error.exit_code().number()
        ),
    }
    println!("PEAK {}", peak_kibibytes() - before);
}

/// The largest resident memory this process has had.
fn peak_kibibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

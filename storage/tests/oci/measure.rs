//! Speed and memory against `curl`, not run by default:
//! `cargo test --release -p mlwm-storage --test oci -- --ignored --exact measure::blob --nocapture`

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use mlwm_spec::Digest;
use mlwm_storage::oci::OciOptions;
use mlwm_storage::{FileContent, Journals, Progress};
use mlwm_tests::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::common::{noise, options, repository_with};

/// Bytes of the blob; `MLWM_MEASURE_BYTES` sets another number.
const BYTES: u64 = 2 << 30;

fn resident(label: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(label)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        >> 10
}

/// Seconds this process and the children it waited for have used processors: its own, theirs.
fn processor_seconds() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, text) = text.rsplit_once(')').unwrap();
    let field = |number: usize| {
        let ticks = text.split_whitespace().nth(number - 3).unwrap();
        ticks.parse::<f64>().unwrap() / 100.0
    };
    (field(14) + field(15), field(16) + field(17))
}

fn shell(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).args(arguments);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// One `PATCH` and a `PUT`, with the digest known beforehand.
fn curl_push(host: &str, file: &Path, digest: &Digest) {
    const SCRIPT: &str = r#"
        url() { tr -d '\r' | sed -n 's/^[Ll]ocation: //p'; }
        session=$(curl -sfS -D - -o /dev/null -X POST "http://$1/v2/curl/blobs/uploads/" | url)
        session=$(curl -sfS -D - -o /dev/null -X PATCH -T "$2" \
            -H 'Content-Type: application/octet-stream' "$session" | url)
        curl -sfS -X PUT "$session&digest=$3""#;
    shell(SCRIPT, &[host, file.to_str().unwrap(), &digest.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
#[expect(clippy::print_stdout, reason = "it tells what it measured")]
async fn blob() {
    let bytes = std::env::var("MLWM_MEASURE_BYTES").map_or(BYTES, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (file, target) = (folder.path().join("file"), folder.path().join("target"));
    let piece = noise(1 << 20, 1);
    let mut writer = std::fs::File::create(&file).unwrap();
    for number in 0..bytes >> 20 {
        let mut piece = piece.clone();
        piece[..8].copy_from_slice(&number.to_le_bytes());
        std::io::Write::write_all(&mut writer, &piece).unwrap();
    }
    let sum = shell("sha256sum \"$1\"", &[file.to_str().unwrap()]);
    let digest: Digest = format!("sha256:{}", &sum[..64]).parse().unwrap();

    let registry = Registry::open();
    let host = registry.host.as_str();
    let options = OciOptions {
        chunk_bytes: OciOptions::default().chunk_bytes,
        ..options(None)
    };
    let (progress, cancel) = (Progress::none(), CancellationToken::new());
    println!();
    for round in 0..3 {
        let (_, before_curl) = processor_seconds();
        let began = Instant::now();
        // Registries of the same server do not share what was uploaded twice: each is a new name.
        curl_push(host, &file, &digest);
        let curl = began.elapsed().as_secs_f64();
        let (before, after_curl) = processor_seconds();

        let repository = repository_with(host, &format!("mlwm{round}"), &options);
        let journals = Journals::at(folder.path().join("journals"));
        let content = std::sync::Arc::new(FileContent::open(&file).unwrap());
        let began = Instant::now();
        let sent = repository.upload_blob(content, None, &journals, &progress, &cancel);
        assert_eq!(sent.await.unwrap(), digest);
        let ours = began.elapsed().as_secs_f64();
        let (after, _) = processor_seconds();
        println!(
            "push: curl {curl:.2} s (processor {:.2}), mlwm {ours:.2} s (processor {:.2}), \
             ratio {:.2}",
            after_curl - before_curl,
            after - before,
            curl / ours
        );

        let url = format!("http://{host}/v2/curl/blobs/{digest}");
        let began = Instant::now();
        let got = target.to_str().unwrap();
        shell("curl -sfS -o \"$1\" \"$2\"; sync \"$1\"", &[got, &url]);
        let curl = began.elapsed().as_secs_f64();
        std::fs::remove_file(&target).unwrap();
        let began = Instant::now();
        let pulled = repository.download_blob(&digest, bytes, &target, &progress, &cancel);
        pulled.await.unwrap();
        let ours = began.elapsed().as_secs_f64();
        std::fs::remove_file(&target).unwrap();
        println!(
            "pull: curl and sync {curl:.2} s, mlwm {ours:.2} s, ratio {:.2}",
            curl / ours
        );
        println!("resident at most: {} MiB", resident("VmHWM:"));
    }
}

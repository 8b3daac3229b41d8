//! A user's `mlwm artifact push` or `pull` is killed at any moment; the same command again goes on
//! where the server says it stopped.
//!
//! The proxy holds everything at a chosen byte; there the process gets SIGKILL. What the server had
//! acknowledged by then is not sent again, but for one part or chunk.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use mlwm_tests::counting_proxy::Direction;
use mlwm_tests::places::{Place, size};
use mlwm_tests::site::{Site, noise_artifact, sha256};

/// How often each transfer is killed.
const KILLS: u64 = 20;
/// The checkpoint in the artifact.
const BYTES: u64 = 64 << 20;
/// The same for the emulator of GCS, which copies all it has for every chunk.
const GCS_BYTES: u64 = 24 << 20;
/// A part of S3, a chunk of GCS.
const PART: u64 = 8 << 20;
/// For OCI registries: several blobs.
const OCI_BYTES: u64 = 160 << 20;
/// The largest blob that a zip is sent in to an OCI registry.
const BLOB: u64 = 64 << 20;
/// Requests that are not the artifact: listings, records, manifests.
const TALK: u64 = 256 << 10;

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

fn started(site: &Site, arguments: &[&str]) -> Child {
    site.command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn killed(mut child: Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.signal(),
        Some(9),
        "it ended before it was killed: {status}"
    );
}

/// The files below a folder that a half finished download is kept in.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".mlwm-part"))
        .collect()
}

/// Kills pushes at random bytes, each time finishes it, and pulls what arrived.
fn push_survives(place: &Place, bytes: u64, part: u64) {
    let site = place.site();
    let artifact = noise_artifact("noise", bytes, 3);
    let (length, digest) = (size(&artifact), sha256(&artifact));
    let proxy = place.proxy.as_ref().unwrap();
    let mut points = Points(1);
    for turn in 0..KILLS {
        let at = points.below(length);
        let uri = format!("{}/{turn}", place.uri);
        let push = ["artifact", "push", artifact.to_str().unwrap(), uri.as_str()];
        proxy.reset();
        proxy.hold_after(Direction::Sent, at);
        let child = started(&site, &push);
        assert!(
            proxy.wait_until_held(Duration::from_secs(60)),
            "turn {turn}, byte {at}"
        );
        killed(child);
        let acknowledged = proxy.counts().acknowledged;
        proxy.reset();
        site.mlwm(&push).expect(0, &[&digest]);
        let sent = proxy.counts().sent;
        let allowed = length + part + TALK - acknowledged.min(length);
        assert!(
            sent <= allowed,
            "turn {turn}: killed at byte {at} with {acknowledged} acknowledged, then {sent} were sent"
        );
        let reference = format!("{uri}/noise");
        site.mlwm(&["artifact", "verify", &reference])
            .expect(0, &[&digest]);
        site.mlwm(&["artifact", "remove", &reference, "--yes"])
            .expect(0, &[]);
    }
}

/// Kills pulls at random bytes, each time finishes it, and compares what arrived.
fn pull_survives(place: &Place) {
    let site = place.site();
    let artifact = noise_artifact("noise", BYTES, 3);
    let (length, digest) = (size(&artifact), sha256(&artifact));
    let proxy = place.proxy.as_ref().unwrap();
    proxy.reset();
    site.mlwm(&["artifact", "push", artifact.to_str().unwrap(), &place.uri])
        .expect(0, &[]);
    let reference = place.reference("noise");
    let pull = [
        "artifact",
        "pull",
        reference.as_str(),
        "--output",
        "noise.zip",
    ];
    let folder = site.path(".");
    let mut points = Points(2);
    for turn in 0..KILLS {
        let at = points.below(length);
        proxy.reset();
        proxy.hold_after(Direction::Received, at);
        let child = started(&site, &pull);
        assert!(
            proxy.wait_until_held(Duration::from_secs(60)),
            "turn {turn}, byte {at}"
        );
        killed(child);
        assert!(!site.path("noise.zip").exists(), "nothing half is visible");
        let kept: u64 = parts(&folder).iter().map(|path| size(path)).sum();
        proxy.reset();
        site.mlwm(&pull).expect(0, &[&digest]);
        let received = proxy.counts().received;
        assert!(
            received <= length - kept + PART + TALK,
            "turn {turn}: killed at byte {at} with {kept} kept, then {received} were received"
        );
        assert_eq!(sha256(&site.path("noise.zip")), digest);
        assert!(parts(&folder).is_empty());
        fs::remove_file(site.path("noise.zip")).unwrap();
    }
}

/// A directory has no server to hold: the process is killed after a while, at any moment.
#[test]
fn push_to_and_pull_from_a_directory() {
    let place = Place::directory();
    let site = place.site();
    let artifact = noise_artifact("noise", BYTES, 3);
    let digest = sha256(&artifact);
    let mut points = Points(3);
    let mut hits = 0;
    for turn in 0..KILLS {
        let uri = format!("{}/{turn}", place.uri);
        let reference = format!("{uri}/noise");
        let push = ["artifact", "push", artifact.to_str().unwrap(), uri.as_str()];
        let pull = [
            "artifact",
            "pull",
            reference.as_str(),
            "--output",
            "noise.zip",
        ];
        for arguments in [&push[..], &pull[..]] {
            let mut child = started(&site, arguments);
            std::thread::sleep(Duration::from_millis(points.below(120)));
            let _ = child.kill();
            hits += u32::from(child.wait().unwrap().signal() == Some(9));
            site.mlwm(arguments).expect(0, &[&digest]);
        }
        assert_eq!(sha256(&site.path("noise.zip")), digest);
        assert!(parts(&site.path(".")).is_empty());
        fs::remove_file(site.path("noise.zip")).unwrap();
    }
    assert!(hits > 5, "only {hits} of the kills came in time");
}

#[test]
fn push_to_garage() {
    push_survives(&Place::garage(), BYTES, PART);
}

#[test]
fn pull_from_garage() {
    pull_survives(&Place::garage());
}

#[test]
fn push_to_moto() {
    push_survives(&Place::moto(), BYTES, PART);
}

#[test]
fn push_to_gcs() {
    push_survives(&Place::gcs(), GCS_BYTES, PART);
}

#[test]
fn pull_from_gcs() {
    pull_survives(&Place::gcs());
}

#[test]
fn push_to_oci() {
    push_survives(&Place::oci(), OCI_BYTES, BLOB);
}

/// The registry has a blob, but the process is killed before it is told so.
#[test]
fn push_to_oci_killed_when_a_blob_is_there() {
    let place = Place::oci();
    let site = place.site();
    let artifact = noise_artifact("noise", OCI_BYTES, 3);
    let push = ["artifact", "push", artifact.to_str().unwrap(), &place.uri];
    let proxy = place.proxy.as_ref().unwrap();
    proxy.hold_answer_to("PUT");
    let child = started(&site, &push);
    assert!(proxy.wait_until_held(Duration::from_secs(60)));
    killed(child);
    proxy.reset();
    site.mlwm(&push).expect(0, &[&sha256(&artifact)]);
    let rest = size(&artifact) - BLOB;
    let sent = proxy.counts().sent;
    assert!((rest..rest + TALK).contains(&sent), "{sent} were sent");
    site.mlwm(&["artifact", "verify", &place.reference("noise")])
        .expect(0, &[&sha256(&artifact)]);
}

#[test]
fn pull_from_oci() {
    pull_survives(&Place::oci());
}

//! Many objects and big ones in bounded memory, measured in a child process.

use std::fs;

use crate::child::{printed, run_job};
use crate::common::{GARAGE, Place, noise, tree};

/// What 64 connections, the TLS library and the listing of 2,000 objects may take, beside
/// the bytes of objects in flight.
const OVERHEAD_MIB: u64 = 60;

fn peak_mib(output: &std::process::Output) -> u64 {
    assert!(
        printed(output, "JOB").starts_with("ok"),
        "{}",
        printed(output, "JOB")
    );
    printed(output, "PEAK").parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn two_thousand_small_objects() {
    let place = Place::s3(&GARAGE, "garage-many").await;
    let local = tempfile::tempdir().unwrap();
    for index in 0..2_000_u64 {
        let folder = local.path().join(format!("v{}/c", index % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(index.to_string()), noise(index, 50_000)).unwrap();
    }
    let up = peak_mib(&run_job("publish", &place.uri, local.path(), Some(&GARAGE)));
    let parent = tempfile::tempdir().unwrap();
    let dest = parent.path().join("in");
    let down = peak_mib(&run_job("stage", &place.uri, &dest, Some(&GARAGE)));
    assert!(tree(&dest) == tree(local.path()));
    // 100 MB of objects, of which 64 are in flight.
    assert!(
        up < OVERHEAD_MIB && down < OVERHEAD_MIB,
        "up {up} MiB, down {down} MiB"
    );
}

#[tokio::test]
async fn a_big_object() {
    let place = Place::s3(&GARAGE, "garage-big").await;
    let local = tempfile::tempdir().unwrap();
    let content = noise(3, 200_000_001);
    fs::write(local.path().join("big"), &content).unwrap();
    let up = peak_mib(&run_job("publish", &place.uri, local.path(), Some(&GARAGE)));
    let parent = tempfile::tempdir().unwrap();
    let dest = parent.path().join("in");
    let down = peak_mib(&run_job("stage", &place.uri, &dest, Some(&GARAGE)));
    let again = peak_mib(&run_job("verify", &place.uri, &dest, Some(&GARAGE)));
    assert!(fs::read(dest.join("big")).unwrap() == content);
    // Four parts of 8 MiB under way and one in hand, each once more in the HTTP client.
    let most = 100;
    assert!(
        up < most && down < most && again < most,
        "{up}, {down}, {again} MiB"
    );
}

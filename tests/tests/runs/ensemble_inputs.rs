//! Inputs of members that change in their store: a forecast is made of what the store listed, and its manifest says
//! of what.

use std::fs;

use mlwm_tests::bench::{Bench, SERVER, attempts, begun, put};
use mlwm_tests::faulty::Faulty;
use mlwm_tests::site::oracle;
use serde_json::Value;

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];

/// What the manifest of a member says of its input.
fn input(bench: &Bench, member: u32) -> Value {
    let name = format!("member{member}.zarr.manifest.json");
    let manifest: Value = serde_json::from_slice(&bench.objects("out")[&name]).unwrap();
    manifest["inputs"][0].clone()
}

/// What was listed and is another one when it is read is refused; what is there then is read by the next run.
#[test]
fn an_input_that_changes_while_it_is_staged_fails_its_member_alone() {
    let bench = Bench::new("changing");
    let (other, bucket) = (bench.site.path("store/member2"), bench.bucket.clone());
    let mut changed = false;
    let proxy = Faulty::to(&SERVER.endpoint, move |line| {
        let reads = line.starts_with("GET") && line.contains("/in/member1/");
        if reads && !std::mem::replace(&mut changed, true) {
            put(&other, &bucket, "in/member1");
        }
        None
    });
    let failed = bench.mlwm(&RUN, &proxy.endpoint);
    let failed = failed.expect(30, &["changed while it was being read"]);
    assert!(
        failed.stderr.contains("member 1: failed"),
        "{}",
        failed.stderr
    );
    let there = bench.objects("out");
    let published = |member| there.contains_key(&format!("member{member}.zarr.manifest.json"));
    assert_eq!([0, 1, 2].map(published), [true, false, true]);
    assert_eq!(begun(&bench.site, 3), [1, 0, 1], "no model got it");

    bench.mlwm(&RUN, &proxy.endpoint).expect(0, &["published"]);
    let got = bench.site.path("got");
    bench.bring("out", &got);
    let store = got.join("out/member1.zarr");
    // It has the numbers of the other member, since that is what its input has.
    oracle("windows.py", &["check", store.to_str().unwrap(), "2"]);
    assert_eq!(input(&bench, 1)["digest"], input(&bench, 2)["digest"]);
    assert_ne!(input(&bench, 1)["digest"], input(&bench, 0)["digest"]);
    bench.nothing_is_left();
}

/// What was published stays what it is; the others are not looked at again.
#[test]
fn an_input_that_changed_since_it_was_published_of_is_told_of() {
    let bench = Bench::new("changed");
    bench.mlwm(&RUN, &SERVER.endpoint).expect(0, &["published"]);
    let before = bench.objects("out");
    // One byte of one value.
    let file = bench.site.path("store/member0/h024-048/t2m/c/0/0");
    let mut bytes = fs::read(&file).unwrap();
    bytes[1] ^= 1;
    fs::write(&file, bytes).unwrap();
    put(
        &bench.site.path("store/member0"),
        &bench.bucket,
        "in/member0",
    );
    bench
        .mlwm(&RUN, &SERVER.endpoint)
        .expect(31, &["made from other inputs", "member0.zarr"]);
    assert!(bench.objects("out") == before, "nothing was touched");
    assert_eq!(begun(&bench.site, 3), [1, 1, 1]);
    let counts: Vec<usize> = attempts(&bench.site).iter().map(Vec::len).collect();
    assert_eq!(counts, [2, 1, 1]);
    bench.nothing_is_left();
}

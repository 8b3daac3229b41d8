//! Windows of an ensemble on their way to a real store: each byte goes once, nothing is removed here before the store
//! was asked for it, and what is wrong there is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mlwm_spec::Manifest;
use mlwm_tests::bench::{Bench, MEMBERS, SERVER, configuration};
use mlwm_tests::counting_proxy::CountingProxy;
use mlwm_tests::faulty::Faulty;
use mlwm_tests::scripted::{no_container_left, windowed};
use mlwm_tests::site::{Site, oracle, ran};

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];
const VARIABLES: u64 = 2;
/// Windows of 24, 24 and 12 hours, that is of 4, 4 and 2 steps.
const WINDOWS: [&str; 3] = ["h000-024", "h024-048", "h048-060"];
/// Bytes of the values that a member publishes: float32, 10 steps at 40,000 points.
const LOGICAL: u64 = VARIABLES * 10 * 40_000 * 4;

fn manifests(objects: &BTreeMap<String, Vec<u8>>) -> Vec<Manifest> {
    let manifests = objects.iter();
    manifests
        .filter(|(name, _)| name.ends_with(".manifest.json"))
        .map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
        .collect()
}

fn nothing_is_left(site: &Site) {
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left(site);
}

/// What a store will not take is known before a model has run for it.
#[test]
fn a_store_that_may_only_be_read_is_named_before_a_container_is_made() {
    let bench = Bench::new("only-read");
    let reader = SERVER.key_without_rights("only-read");
    SERVER.allow_reading(&bench.bucket, &reader.id);
    let mut run = bench.command(&RUN, &SERVER.endpoint);
    run.env("AWS_ACCESS_KEY_ID", &reader.id);
    run.env("AWS_SECRET_ACCESS_KEY", &reader.secret);
    let refused = ["refused access", "check the credentials and their rights"];
    ran(&run.output().unwrap()).expect(30, &refused);
    assert_eq!(
        bench.site.files("mlwm-work/log"),
        [""; 0],
        "nothing has run"
    );
    assert_eq!(bench.objects("out").len(), 0);
    bench.nothing_is_left();
    bench.mlwm(&RUN, &SERVER.endpoint).expect(0, &["published"]);
    bench.all_is_published("out");
}

/// I12: what moves is what there is, in either direction.
#[test]
fn each_byte_moves_once() {
    let bench = Bench::new("once");
    let proxy = CountingProxy::to(&SERVER.endpoint);
    bench.mlwm(&RUN, &proxy.endpoint).expect(0, &["published"]);
    let counts = proxy.counts();
    let input: u64 = bench
        .objects("in")
        .values()
        .map(|bytes| bytes.len() as u64)
        .sum();
    assert!(
        counts.received >= input && 100 * counts.received <= 105 * input,
        "{} of {input} bytes came",
        counts.received
    );
    let published = bench.objects("out");
    let output: u64 = published.values().map(|bytes| bytes.len() as u64).sum();
    assert!(
        counts.sent >= output && 100 * counts.sent <= 105 * output,
        "{} of {output} bytes went",
        counts.sent
    );
    let manifests = manifests(&published);
    assert_eq!(manifests.len() as u64, MEMBERS);
    for manifest in manifests {
        let bytes: u64 = manifest.objects.iter().map(|object| object.size).sum();
        assert!(100 * bytes <= 105 * LOGICAL, "{bytes}");
        let paths = manifest.objects.iter().map(|object| object.path.as_str());
        let is_shard = |path: &&str| path.starts_with("t2m/c/") || path.starts_with("msl/c/");
        let (shards, others): (Vec<&str>, Vec<&str>) = paths.partition(is_shard);
        assert_eq!(shards.len() as u64, VARIABLES * WINDOWS.len() as u64);
        // The group, each variable, and time with its values.
        assert_eq!(others.len(), 5, "{others:?}");
    }
    nothing_is_left(&bench.site);
}

/// The member and the shard of values that a request is about: `t2m/c/0/0`.
fn shard(line: &str) -> Option<(&str, &str)> {
    let (_, path) = line.split_once("/out/member")?;
    let (member, path) = path.split_once(".zarr/")?;
    let shard = path.split(['?', ' ']).next()?;
    let is_of_values = shard.starts_with("t2m/c/") || shard.starts_with("msl/c/");
    is_of_values.then_some((member, shard))
}

/// Whether a shard of a member is in the working folder.
fn is_here(work: &Path, member: &str, shard: &str) -> bool {
    let task = format!("member{member}");
    let mut folders = vec![work.join("tasks")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if name.to_string_lossy().ends_with(&task) {
                return path.join("output/surface").join(shard).is_file();
            }
            folders.push(path);
        }
    }
    false
}

/// I7: whatever is asked of the store, the window that it is about is still here, up to the last question, which is
/// whether the store has it.
#[test]
fn a_window_is_removed_after_the_store_was_asked_for_all_of_it() {
    let bench = Bench::new("asked");
    let work = bench.site.path("mlwm-work");
    let gone = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&gone);
    let proxy = Faulty::to(&SERVER.endpoint, move |line| {
        if let Some((member, shard)) = shard(line)
            && (line.starts_with("PUT") || line.starts_with("HEAD"))
            && !is_here(&work, member, shard)
        {
            noted.lock().unwrap().push(line.to_owned());
        }
        None
    });
    bench.mlwm(&RUN, &proxy.endpoint).expect(0, &["published"]);
    assert_eq!(*gone.lock().unwrap(), [""; 0]);
    let seen = proxy.seen();
    let asked = |method: &str| {
        let lines = seen.iter().map(|(line, _)| line.as_str());
        let of_method = lines.filter(|line| line.starts_with(method));
        of_method
            .filter(|line| shard(line).is_some())
            .map(|line| line.split([' ', '?']).nth(1).unwrap().to_owned())
            .collect::<BTreeSet<String>>()
    };
    let (sent, verified) = (asked("PUT"), asked("HEAD"));
    let shards = MEMBERS * VARIABLES * WINDOWS.len() as u64;
    assert_eq!(sent.len() as u64, shards);
    assert_eq!(verified, sent, "each is asked for after it was sent");
    nothing_is_left(&bench.site);
}

/// I16: a window that is gone, one too many, one of another cycle or member, a byte that is another.
#[test]
fn what_is_wrong_in_a_store_is_found() {
    let site = Site::new();
    let store = site.path("store");
    let members = MEMBERS.to_string();
    oracle("windows.py", &["make", store.to_str().unwrap(), &members]);
    let yaml = configuration(
        &windowed("to-a-store"),
        MEMBERS,
        "./store",
        "./published",
        "retries: 0\n",
    );
    site.configure("danra", &yaml);
    site.mlwm(&RUN).expect(0, &["published"]);
    let place = "published/member1.zarr";
    let path = |name: &str| site.path(place).join(name);
    let found = |name: &str, what: &str| {
        site.mlwm(&["verify", place]).expect(12, &[name, what]);
        site.mlwm(&["verify", "published/member0.zarr"])
            .expect(0, &["all as published"]);
    };
    let window = fs::read(path("t2m/c/1/0")).unwrap();

    fs::remove_file(path("t2m/c/1/0")).unwrap();
    found("t2m/c/1/0", "is missing");
    // What another cycle or member has in its place, by its name and length or not.
    fs::copy(
        site.path("published/member2.zarr/t2m/c/1/0"),
        path("t2m/c/1/0"),
    )
    .unwrap();
    found("t2m/c/1/0", "");
    let mut flipped = window.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(path("t2m/c/1/0"), flipped).unwrap();
    found("t2m/c/1/0", "has other content");
    fs::write(path("t2m/c/1/0"), &window).unwrap();
    for foreign in ["t2m/c/3/0", "aifs_20220331_0000_member001_h000-024.grib"] {
        fs::create_dir_all(path(foreign).parent().unwrap()).unwrap();
        fs::write(path(foreign), &window).unwrap();
        found(foreign, "does not belong to it");
        fs::remove_file(path(foreign)).unwrap();
    }
    site.mlwm(&["verify", place])
        .expect(0, &["all as published"]);
}

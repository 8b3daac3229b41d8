//! I7: windows that a store does not take stay until it does; what is complete is published without the model.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlwm_tests::bench::{Bench, MEMBERS, SERVER, attempts, begun, put};
use mlwm_tests::faulty::{Fault, Faulty};
use mlwm_tests::scripted::{no_container_left, windowed};
use mlwm_tests::site::{oracle, ran};
use serde_json::Value;

const RUN: [&str; 4] = ["run", "--analysis-time", "2022-04-07T03:00Z", "--json"];
const TASKS: &str = "mlwm-work/tasks";
const WINDOWS: &str = "danra/2022-04-07T0300Z/member1/windows/surface";
/// Space for the inputs of a member, 4.8 MB, and one of its windows with what is made of it, 3.1 MB.
const DISK: &str = "10MB";

/// Whether the second window of member 1 is brought with a request.
fn is_second_window(line: &str) -> bool {
    line.starts_with("PUT") && line.contains("/member1.zarr/t2m/c/1")
}

/// A proxy that does not let it through.
fn failing(status: u16) -> Faulty {
    Faulty::to(&SERVER.endpoint, move |line| {
        is_second_window(line).then_some(Fault::Answer(status, None))
    })
}

fn values(objects: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let is_data = |(name, _): &(String, Vec<u8>)| !name.ends_with(".manifest.json");
    objects.into_iter().filter(is_data).collect()
}

/// Fails unless a window lies here as the model wrote it.
#[track_caller]
fn is_here(bench: &Bench, window: &str) {
    let written = format!("store/member1/{window}");
    let kept = format!("{TASKS}/{WINDOWS}/{window}");
    let files = bench.site.files(&written);
    assert!(!files.is_empty());
    assert_eq!(bench.site.files(&kept), files);
    for file in files {
        let read = |folder: &str| fs::read(bench.site.path(folder).join(&file)).unwrap();
        assert!(read(&written) == read(&kept), "{window}/{file}");
    }
}

fn events(stdout: &str, kind: &str) -> Vec<Value> {
    let events = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == kind).collect()
}

fn is_published(bench: &Bench, folder: &str) -> Vec<bool> {
    let there = bench.objects(folder);
    let members = (0..MEMBERS).map(|member| format!("member{member}.zarr.manifest.json"));
    members.map(|name| there.contains_key(&name)).collect()
}

#[test]
fn what_is_complete_stays_until_it_is_published_without_the_model() {
    let bench = Bench::new("stays");
    bench.mlwm(&RUN, &SERVER.endpoint).expect(0, &["published"]);
    let undisturbed = values(bench.objects("out"));
    bench.publish_to("again");
    for run in 1..=2 {
        let proxy = failing(503);
        let failed = bench.mlwm(&RUN, &proxy.endpoint);
        assert_eq!(failed.code, 30, "{}{}", failed.stdout, failed.stderr);
        for part in ["HTTP 503", "the complete output is kept in"] {
            assert!(failed.stdout.contains(part), "{part}: {}", failed.stdout);
        }
        let refused = proxy
            .seen()
            .iter()
            .filter(|(_, fault)| fault.is_some())
            .count();
        assert!(refused > 2, "it is sent again and again: {refused}");
        assert_eq!(is_published(&bench, "again"), [true, false, true]);
        // The one before them went to the store.
        assert!(
            !bench
                .site
                .path(&format!("{TASKS}/{WINDOWS}/h000-024"))
                .exists()
        );
        is_here(&bench, "h024-048");
        is_here(&bench, "h048-060");
        let left = bench.site.files(TASKS);
        assert!(
            left.iter().all(|file| file.contains("/member1/")),
            "{left:?}"
        );
        assert_eq!(bench.site.files("mlwm-work/warm"), [""; 0]);
        no_container_left(&bench.site);
        assert_eq!(begun(&bench.site, MEMBERS), [2, 2, 2], "run {run}");
    }
    let proxy = Faulty::to(&SERVER.endpoint, |_| None);
    bench.mlwm(&RUN, &proxy.endpoint).expect(0, &["published"]);
    assert_eq!(begun(&bench.site, MEMBERS), [2, 2, 2], "none is made again");
    let seen = proxy.seen();
    let sent = |shard: &str| {
        let shard = format!("/member1.zarr/{shard}");
        let puts = seen.iter().filter(|(line, _)| line.starts_with("PUT"));
        puts.filter(|(line, _)| line.contains(&shard)).count()
    };
    assert_eq!(
        (sent("t2m/c/0"), sent("msl/c/0")),
        (0, 0),
        "the store has it"
    );
    assert_eq!((sent("t2m/c/1"), sent("t2m/c/2")), (1, 1));
    assert_eq!(values(bench.objects("again")), undisturbed);
    bench.all_is_published("again");
    bench.nothing_is_left();
}

/// Windows are looked at when they are sent: one that waited and is refused then is not kept for ever.
#[test]
fn what_is_complete_but_not_what_it_should_be_is_made_again() {
    let bench = Bench::new("late");
    let bad = bench.site.path("bad");
    oracle(
        "windows.py",
        &["make", bad.to_str().unwrap(), "3", "late-nan"],
    );
    put(&bad, &bench.bucket, "in");
    let proxy = failing(503);
    assert_eq!(bench.mlwm(&RUN, &proxy.endpoint).code, 30);
    let kept = bench.site.path(&format!("{TASKS}/{WINDOWS}/h048-060"));
    assert!(kept.is_dir());
    bench
        .mlwm(&RUN, &SERVER.endpoint)
        .expect(23, &["h048-060", "is refused"]);
    assert_eq!(bench.site.files(TASKS), [""; 0]);
    assert_eq!(begun(&bench.site, MEMBERS), [1, 1, 1]);

    put(&bench.site.path("store"), &bench.bucket, "in");
    bench
        .mlwm(&[&RUN[..], &["--members", "1"]].concat(), &SERVER.endpoint)
        .expect(0, &["published"]);
    assert_eq!(begun(&bench.site, MEMBERS), [1, 2, 1]);
    bench.all_is_published("out");
    bench.nothing_is_left();
}

/// All windows are there, and then the store fails, or mlwm is killed: no model runs again for that.
#[test]
fn a_store_that_fails_at_the_very_end_costs_no_forecast() {
    let bench = Bench::new("very-end");
    let proxy = Faulty::to(&SERVER.endpoint, |line| {
        let is_last = line.starts_with("PUT") && line.contains("/member1.zarr/zarr.json");
        is_last.then_some(Fault::Answer(503, None))
    });
    let failed = bench.mlwm(&RUN, &proxy.endpoint);
    assert_eq!(failed.code, 30, "{}{}", failed.stdout, failed.stderr);
    let said = "the complete output is kept in";
    assert!(failed.stdout.contains(said), "{}", failed.stdout);
    bench.mlwm(&RUN, &SERVER.endpoint).expect(0, &["published"]);
    assert_eq!(begun(&bench.site, MEMBERS), [1, 1, 1]);
    bench.all_is_published("out");
    bench.nothing_is_left();
}

#[test]
fn a_model_that_has_no_space_waits_for_its_store_and_goes_on() {
    let retries = "retries: {infrastructure: 5, delay: PT1S}\n";
    let bench = Bench::of("waits", MEMBERS, &windowed("to-a-store"), retries);
    let heals = Arc::new(AtomicBool::new(false));
    let is_healed = Arc::clone(&heals);
    let proxy = Faulty::to(&SERVER.endpoint, move |line| {
        let is_refused = is_second_window(line) && !is_healed.load(Ordering::Relaxed);
        is_refused.then_some(Fault::Answer(503, None))
    });
    let run = [&RUN[..], &["--disk", DISK]].concat();
    let mut command = bench.command(&run, &proxy.endpoint);
    let mut child = command.env("MLWM_PATIENCE", "PT2S").spawn().unwrap();
    let mut stdout = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // It waits now, with a window that is here.
        if line.contains("windows-again") {
            is_here(&bench, "h024-048");
            heals.store(true, Ordering::Relaxed);
        }
        stdout.push_str(&line);
        stdout.push('\n');
    }
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{stdout}{stderr}");
    let again = events(&stdout, "windows-again");
    assert!(!again.is_empty() && again[0]["error"].to_string().contains("503"));
    assert_eq!(begun(&bench.site, MEMBERS), [1, 1, 1], "in its one attempt");
    let counts: Vec<usize> = attempts(&bench.site).iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 1, 1]);
    within_budget(&stdout);
    bench.all_is_published("out");
    bench.nothing_is_left();
}

fn within_budget(stdout: &str) {
    let disk = &events(stdout, "disk-used")[0];
    let bytes = |key: &str| disk[key].as_u64().unwrap();
    assert_eq!(bytes("budget"), 10_000_000);
    assert!((5_000_000..=10_000_000).contains(&bytes("most")), "{disk}");
}

#[test]
fn what_is_not_complete_stays_too_and_its_member_is_made_again() {
    let retries = "retries: {infrastructure: 1, delay: PT1S}\n";
    let bench = Bench::of("ends", MEMBERS, &windowed("to-a-store"), retries);
    let proxy = failing(503);
    let run = [&RUN[..], &["--scratch-budget", DISK]].concat();
    let mut command = bench.command(&run, &proxy.endpoint);
    let failed = ran(&command.env("MLWM_PATIENCE", "PT2S").output().unwrap());
    assert_eq!(failed.code, 30, "{}{}", failed.stdout, failed.stderr);
    let said = "leave no space for another one";
    assert!(failed.stdout.contains(said), "{}", failed.stdout);
    assert_eq!(events(&failed.stdout, "windows-again").len(), 1);
    is_here(&bench, "h024-048");
    assert!(
        !bench
            .site
            .path(&format!("{TASKS}/{WINDOWS}/h048-060"))
            .exists()
    );
    assert!(!is_published(&bench, "out")[1]);
    assert_eq!(
        begun(&bench.site, MEMBERS)[1],
        1,
        "it waited, and was not made again"
    );
    within_budget(&failed.stdout);
    no_container_left(&bench.site);

    bench.mlwm(&run, &SERVER.endpoint).expect(0, &["published"]);
    assert_eq!(begun(&bench.site, MEMBERS)[1], 2);
    bench.all_is_published("out");
    bench.nothing_is_left();
}

/// I11: what a store refuses is not tried again, by default either.
#[test]
fn what_a_store_refuses_is_not_tried_again() {
    let bench = Bench::of("forbidden", MEMBERS, &windowed("to-a-store"), "");
    let failed = bench.mlwm(&RUN, &failing(403).endpoint);
    assert_eq!(failed.code, 30, "{}{}", failed.stdout, failed.stderr);
    for part in ["refused access", "the complete output is kept in"] {
        assert!(failed.stdout.contains(part), "{part}: {}", failed.stdout);
    }
    let attempts: Vec<Vec<Value>> = attempts(&bench.site);
    let counts: Vec<usize> = attempts.iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 1, 1], "{attempts:?}");
    assert_eq!(attempts[1][0]["exit_code"], 30, "{attempts:?}");
    assert_eq!(is_published(&bench, "out"), [true, false, true]);
    is_here(&bench, "h024-048");
    is_here(&bench, "h048-060");
    no_container_left(&bench.site);

    bench.mlwm(&RUN, &SERVER.endpoint).expect(0, &["published"]);
    assert_eq!(begun(&bench.site, MEMBERS), [1, 1, 1], "none is made again");
    bench.all_is_published("out");
    bench.nothing_is_left();
}

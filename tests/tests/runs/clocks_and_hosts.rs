//! One task, asked for at once on several hosts, and by clocks that jump: it is done once.
//!
//! Another host is played by a host name and process numbers of its own (`unshare`, which needs root),
//! a clock that jumps by `libfaketime`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mlwm_tests::scripted::scripted;
use mlwm_tests::site::{Site, ran};
use serde_json::Value;

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];
/// Ends when a file comes among the staged inputs.
const WAITS: &str = "echo begun; while [ ! -e /in/surface.zarr/go ]; do sleep 0.1; done; \
                     cp -r /in/surface.zarr/. /out/surface.zarr/; rm /out/surface.zarr/go; echo done";

/// It ends also if its test fails and nobody brings the file.
const ENDS: &str = "timeout: PT4M\n";

/// A command as it would run on the host `node2`.
fn on_node2(command: &Command) -> Command {
    let mut elsewhere = Command::new("unshare");
    elsewhere
        .args(["--uts", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args([
            "sh",
            "-c",
            "echo node2 >/proc/sys/kernel/hostname && exec \"$@\"",
            "sh",
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => elsewhere.env(name, value),
            None => elsewhere.env_remove(name),
        };
    }
    elsewhere
}

/// Has a command live by the clock of the file `clock`, which says how far it is off; what only goes
/// on, and the times of files, are true.
fn by_clock(site: &Site, command: &mut Command) {
    let libraries = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut libraries = libraries.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|path| path.is_file());
    command
        .env("LD_PRELOAD", library.expect("run `ci/setup --tests`"))
        .env("FAKETIME_TIMESTAMP_FILE", site.path("clock"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("NO_FAKE_STAT", "1");
}

fn set_clock(site: &Site, offset: &str) {
    // At once: it is read again and again.
    fs::write(site.path("clock.new"), offset).unwrap();
    fs::rename(site.path("clock.new"), site.path("clock")).unwrap();
}

fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[track_caller]
fn wait_for(mut there: impl FnMut() -> bool) {
    for _ in 0..600 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it does not come");
}

fn staged(site: &Site, workdir: &str) -> PathBuf {
    site.path(workdir)
        .join("tasks/danra/2022-04-07T0300Z/member0/input/surface")
}

/// The containers of a run in a site.
fn containers(site: &Site) -> Vec<String> {
    let mounted = staged(site, "mlwm-work").canonicalize().unwrap();
    let listed = Command::new("docker")
        .args(["ps", "--quiet", "--filter", "label=io.mlwm.contract=1"])
        .args(["--filter", &format!("volume={}", mounted.display())])
        .output()
        .unwrap();
    let listed = ran(&listed).expect(0, &[]);
    listed.stdout.lines().map(str::to_owned).collect()
}

/// What a run with `--json` prints.
fn events_of(child: &mut Child) -> impl Iterator<Item = Value> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// Waits until a run finds its task held by `holder`; returns what else it prints.
fn wait_until_it_waits(child: &mut Child, holder: &str) -> impl Iterator<Item = Value> + use<> {
    let mut events = events_of(child);
    let waits = events.find(|event| event["event"] == "task-waits").unwrap();
    assert_eq!(waits["holder"], holder);
    events
}

fn outcome(mut events: impl Iterator<Item = Value>) -> Value {
    let finished = events.find(|event| event["event"] == "task-finished");
    finished.unwrap()["outcome"].clone()
}

#[test]
fn two_hosts_with_folders_of_their_own_and_shared_claims_do_a_task_once() {
    let site = scripted("two-hosts", WAITS, ENDS);
    fs::create_dir_all(site.path("shared")).unwrap();
    for workdir in ["work1", "work2"] {
        fs::create_dir(site.path(workdir)).unwrap();
        std::os::unix::fs::symlink("../shared", site.path(workdir).join("claims")).unwrap();
    }
    let there = [&RUN[..], &["--workdir", "work2"]].concat();
    let first = start(&mut on_node2(&site.command(&there)));
    wait_for(|| site.files("work2/log").len() == 1);
    let here = [&RUN[..], &["--workdir", "work1", "--json"]].concat();
    let mut second = start(&mut site.command(&here));
    let events = wait_until_it_waits(&mut second, "node2");
    File::create(staged(&site, "work2").join("go")).unwrap();
    assert_eq!(outcome(events), "already-published");
    assert!(second.wait().unwrap().success());
    let first = ran(&first.wait_with_output().unwrap()).expect(0, &["published"]);
    assert!(!first.stdout.contains("already"), "{}", first.stdout);
    assert!(site.files("work1/log").is_empty(), "the container ran once");
    let manifest = fs::read(site.path("published/surface.zarr.manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["run"]["host"], "node2");
}

#[test]
fn a_clock_that_jumps_during_a_run_neither_frees_its_task_nor_confuses_its_history() {
    for jump in ["-1h", "+1d"] {
        let site = scripted("clock-jumps", WAITS, ENDS);
        set_clock(&site, "+0");
        let mut first = site.command(&RUN);
        by_clock(&site, &mut first);
        let first = start(&mut first);
        wait_for(|| site.files("mlwm-work/log").len() == 1);
        set_clock(&site, jump);
        // One elsewhere judges a holder by its touches alone, and its own clock is right.
        let mut second = start(&mut on_node2(
            &site.command(&[&RUN[..], &["--json"]].concat()),
        ));
        let here = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let events = wait_until_it_waits(&mut second, here.trim());
        // One here sees its process.
        let mut third = site.command(&[&RUN[..], &["--json"]].concat());
        by_clock(&site, &mut third);
        let mut third = start(&mut third);
        let others = wait_until_it_waits(&mut third, here.trim());
        File::create(staged(&site, "mlwm-work").join("go")).unwrap();
        assert_eq!(outcome(events), "already-published");
        assert_eq!(outcome(others), "already-published");
        assert!(second.wait().unwrap().success() && third.wait().unwrap().success());
        ran(&first.wait_with_output().unwrap()).expect(0, &["published"]);
        assert_eq!(
            site.files("mlwm-work/log").len(),
            1,
            "the container ran once"
        );
        history_is_right(&site, jump);
    }
}

#[test]
#[ignore = "takes as long as a lease, two minutes"]
fn what_a_host_that_died_had_begun_is_done_by_another_after_its_lease() {
    let site = scripted("host-dies", WAITS, ENDS);
    let mut first = start(&mut on_node2(&site.command(&RUN)));
    wait_for(|| site.files("mlwm-work/log").len() == 1);
    let mut second = start(&mut site.command(&[&RUN[..], &["--json"]].concat()));
    let mut events = wait_until_it_waits(&mut second, "node2");
    let begun = containers(&site);
    assert_eq!(begun.len(), 1);
    first.kill().unwrap();
    first.wait().unwrap();
    let died = Instant::now();
    let killed = Command::new("docker")
        .args(["rm", "--force", &begun[0]])
        .output();
    ran(&killed.unwrap()).expect(0, &[]);
    assert!(events.any(|event| event["event"] == "log" && event["line"] == "begun"));
    // It touched its claim when it had it, and not after.
    assert!(died.elapsed() > Duration::from_secs(100));
    File::create(staged(&site, "mlwm-work").join("go")).unwrap();
    assert_eq!(outcome(events), "published");
    assert!(second.wait().unwrap().success());
}

#[track_caller]
fn history_is_right(site: &Site, jump: &str) {
    let status = ["status", "--analysis-time", TIME, "--json"];
    let task = site.mlwm(&status).expect(0, &[]).json()["tasks"][0].clone();
    assert_eq!(task["state"], "published");
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task}");
    let attempt = &task["attempts"][0];
    let (started, ended) = (
        attempt["started"].as_i64().unwrap(),
        attempt["ended"].as_i64().unwrap(),
    );
    let took = ended - started;
    assert!((0..1_800_000).contains(&took), "{took} ms with {jump}");
    let phases = attempt["phases"].as_array().unwrap();
    let names: Vec<_> = phases.iter().map(|phase| phase["name"].as_str()).collect();
    let order = ["stage", "check", "queue", "run", "verify", "publish"].map(Some);
    assert_eq!(names, order, "with {jump}");
    for phase in phases {
        let began = phase["started"].as_i64().unwrap();
        assert!((started..=ended).contains(&began), "{phase} with {jump}");
        let seconds = phase["seconds"].as_f64().unwrap();
        assert!((0.0..1800.0).contains(&seconds), "{phase} with {jump}");
    }
    let log = site.mlwm(&["logs", "--analysis-time", TIME]).expect(0, &[]);
    assert_eq!(log.stdout, "begun\ndone\n");
    site.mlwm(&["status"]).expect(0, &[TIME, "published"]);
}

#[test]
fn a_run_that_was_killed_after_its_clock_jumped_is_followed_at_once() {
    let site = scripted("clock-jumps-killed", WAITS, ENDS);
    set_clock(&site, "+0");
    let mut first = site.command(&RUN);
    by_clock(&site, &mut first);
    let mut first = start(&mut first);
    wait_for(|| site.files("mlwm-work/log").len() == 1);
    set_clock(&site, "+1d");
    first.kill().unwrap();
    first.wait().unwrap();
    set_clock(&site, "-1h");
    let mut second = site.command(&[&RUN[..], &["--json"]].concat());
    by_clock(&site, &mut second);
    let mut second = start(&mut second);
    let mut events = events_of(&mut second);
    assert!(events.any(|event| event["event"] == "log" && event["line"] == "begun"));
    File::create(staged(&site, "mlwm-work").join("go")).unwrap();
    assert_eq!(outcome(events), "published");
    assert!(second.wait().unwrap().success());
    let status = ["status", "--analysis-time", TIME, "--json"];
    let task = site.mlwm(&status).expect(0, &[]).json()["tasks"][0].clone();
    let attempts = task["attempts"].as_array().unwrap();
    let states: Vec<_> = attempts.iter().map(|one| one["state"].as_str()).collect();
    assert_eq!(states, [Some("lost"), Some("published")]);
    for attempt in attempts {
        let took = attempt["ended"].as_i64().unwrap() - attempt["started"].as_i64().unwrap();
        assert!((0..1_800_000).contains(&took), "{attempt}");
    }
    // The clock did jump, and the order of attempts is right all the same.
    let began = |index: usize| attempts[index]["started"].as_i64().unwrap();
    assert!(began(1) < began(0) - 1_800_000, "{attempts:?}");
}

//! Killed anywhere, the same command finishes the work: nothing is lost, done twice or half seen.
//!
//! `mlwm-kill-points` is `mlwm` with the feature `kill-points`: it ends itself, as abruptly as SIGKILL
//! would, at the place that `MLWM_KILL_AT` counts to. Some places are tried, and some moments; with
//! `MLWM_TEST_KILLS=all`, every place and many moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mlwm_spec::Manifest;
use mlwm_tests::scripted::{no_container_left, scripted};
use mlwm_tests::site::{Site, ran};
use mlwm_tests::witness::{Witness, container_of, containers, kill_containers, watched};

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];
const MANIFEST: &str = "zarr.manifest.json";
const MODEL: &str = "echo one; echo two; cp -r /in/surface.zarr/. /out/surface.zarr/; echo three";
/// How many of the places and moments are tried, unless `MLWM_TEST_KILLS` says otherwise.
const FEW: usize = 6;
/// How many moments are tried if it does.
const MANY: usize = 50;

/// Path and content of all that is published, but for times and names of hosts in the manifest.
fn published(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let files = site.files("published").into_iter();
    let mut published: BTreeMap<String, Vec<u8>> = files
        .map(|file| {
            let bytes = fs::read(site.path("published").join(&file)).unwrap();
            (file, bytes)
        })
        .collect();
    let manifests = published.iter_mut();
    for (_, manifest) in manifests.filter(|(file, _)| file.ends_with(MANIFEST)) {
        let mut stripped: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        // Logs are named by attempts; the plan names the folder.
        for key in ["run", "uri", "plan", "inputs"] {
            stripped.as_object_mut().unwrap().remove(key);
        }
        *manifest = serde_json::to_vec(&stripped).unwrap();
    }
    published
}

/// The identities of the tasks that are published.
fn tasks(site: &Site) -> BTreeSet<String> {
    let files = site.files("published").into_iter();
    let manifests = files.filter(|file| file.ends_with(MANIFEST));
    let read = |file: String| fs::read(site.path("published").join(file)).unwrap();
    manifests
        .map(|file| serde_json::from_slice::<Manifest>(&read(file)).unwrap())
        .map(|manifest| manifest.task.to_string())
        .collect()
}

/// Nothing is left of a run but logs, its history, and claims that were let go.
#[track_caller]
fn nothing_leaks(site: &Site, tasks: &BTreeSet<String>, killed: &str) {
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0], "killed at {killed}");
    let left = containers(tasks, &["--all"]);
    assert_eq!(left, [""; 0], "containers are left: killed at {killed}");
    // One that never got its name is none; it is removed when it is old.
    let has_name = |claim: &String| !claim.contains("/.claim-");
    for claim in site.files("mlwm-work/claims").into_iter().filter(has_name) {
        let text = fs::read_to_string(site.path("mlwm-work/claims").join(&claim)).unwrap();
        let released = text.contains("\"released\":true");
        assert!(released, "killed at {killed}: {claim} {text}");
    }
}

fn forget(site: &Site) {
    for folder in ["published", "mlwm-work"] {
        match fs::remove_dir_all(site.path(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

/// The names of the places that an undisturbed run comes to, in their order.
fn places(site: &Site, arguments: &[&str]) -> Vec<String> {
    let list = site.path("places");
    let output = site
        .command_of("mlwm-kill-points", arguments)
        .env("MLWM_KILL_LIST", &list)
        .output()
        .unwrap();
    ran(&output).expect(0, &[]);
    let text = fs::read_to_string(&list).unwrap();
    fs::remove_file(list).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Runs until it comes to a place, and is killed there.
fn kill_at(site: &Site, arguments: &[&str], place: usize) {
    let killed = killed_at(site, arguments, place);
    assert!(killed, "it did not come to place {place}");
}

/// The same; `false` if it came to its end before, as it may if what is done at once comes in
/// another order.
fn killed_at(site: &Site, arguments: &[&str], place: usize) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let status = site
        .command_of("mlwm-kill-points", arguments)
        .env("MLWM_KILL_AT", place.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success() || status.signal() == Some(6), "{status}");
    !status.success()
}

fn everything() -> bool {
    match std::env::var("MLWM_TEST_KILLS").as_deref() {
        Ok("all") => true,
        Ok(other) => panic!("MLWM_TEST_KILLS is {other}: it can be all"),
        Err(_) => false,
    }
}

/// Some of the places, evenly, and the last; all of them if the environment wants so.
fn some(places: Range<usize>) -> Vec<usize> {
    let count = places.len();
    let wanted = if everything() { count } else { FEW.min(count) };
    let chosen = (1..=wanted).map(|index| places.start + index * count / wanted - 1);
    chosen.collect()
}

/// Moments at random, from the beginning of something that takes about `long`.
fn moments(long: Duration) -> Vec<Duration> {
    let count = if everything() { MANY } else { FEW / 2 };
    let random = |index| RandomState::new().hash_one(index) as f64 / u64::MAX as f64;
    (0..count)
        .map(|index| long.mul_f64(random(index)))
        .collect()
}

/// What was tried, for who asks with `--show-output`.
fn report(test: &str, kills: usize, looks: u64, containers: usize) {
    println!("{test}: {kills} kills, {looks} looks of a reader, {containers} containers");
}

fn logs(site: &Site) -> usize {
    site.files("mlwm-work/log").len()
}

#[test]
fn killed_at_any_place_the_same_command_finishes() {
    let site = scripted("killed-at-places", MODEL, "");
    let places = places(&site, &RUN);
    assert!(places.len() > 40, "{places:?}");
    let (undisturbed, tasks) = (published(&site), tasks(&site));
    let complete = 1 + places
        .iter()
        .position(|name| name == "attempt: complete")
        .unwrap();
    let witness = Witness::begin();
    let (mut looks, mut chosen) = (0, some(1..places.len() + 1));
    // Where little is left to be done, and easily forgotten.
    chosen.extend(
        places
            .iter()
            .position(|name| name == "publish: visible")
            .map(|index| 1 + index),
    );
    for &place in &chosen {
        let name = &places[place - 1];
        forget(&site);
        looks += watched(&site, &["surface.zarr"], || {
            kill_at(&site, &RUN, place);
            let was_complete = place >= complete;
            site.mlwm(&RUN).expect(0, &["published"]);
            assert_eq!(published(&site), undisturbed, "killed at {place}, {name}");
            if was_complete {
                assert_eq!(logs(&site), 1, "killed at {name}: the model ran again");
            }
            let again = site.mlwm(&RUN).expect(0, &["already published"]);
            assert!(!again.stderr.contains("run "), "{}", again.stderr);
        });
        nothing_leaks(&site, &tasks, name);
        let status = site.mlwm(&["status", "--json"]).expect(0, &[]).json();
        let cell = &status["cycles"][0]["cells"]["danra"];
        assert_eq!(
            *cell,
            serde_json::json!({"published": 1}),
            "killed at {name}"
        );
    }
    let containers = witness.saw_one_at_a_time(&tasks);
    assert!(containers >= chosen.len(), "{containers}");
    assert!(looks > 100 * chosen.len() as u64, "{looks}");
    report("at any place", chosen.len(), looks, containers);
    no_container_left(&site);
}

#[test]
fn killed_while_it_replaces_an_output_the_same_command_finishes() {
    let site = scripted("killed-replacing", MODEL, "");
    let first = published_by(&site, &RUN);
    let mut both = tasks(&site);
    site.configure("danra", &changed(&site));
    site.mlwm(&RUN).expect(31, &["--republish"]);
    let republish = [&RUN[..], &["--republish"]].concat();
    let places = places(&site, &republish);
    both.extend(tasks(&site));
    assert_eq!(both.len(), 2);
    let withdrawn = |file: &&String| file.contains("withdrawn");
    assert_eq!(published(&site).keys().filter(withdrawn).count(), 1);
    let from = places
        .iter()
        .position(|name| name.starts_with("withdraw"))
        .unwrap();
    let original = site_config_of_first(&site);
    let mut chosen = vec![from + 1, from + 2, from + 3, places.len()];
    if everything() {
        chosen = (1..=places.len()).collect();
    }
    let witness = Witness::begin();
    let mut looks = 0;
    for &place in &chosen {
        let name = &places[place - 1];
        forget(&site);
        site.configure("danra", &original);
        assert_eq!(published_by(&site, &RUN), first);
        site.configure("danra", &changed(&site));
        looks += watched(&site, &["surface.zarr"], || {
            kill_at(&site, &republish, place);
            site.mlwm(&republish).expect(0, &["published"]);
        });
        let manifest = fs::read(site.path("published/surface.zarr.manifest.json")).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest.replaces.len(), 1, "{name}");
        site.mlwm(&["verify", "published/surface.zarr"])
            .expect(0, &["all as published"]);
        nothing_leaks(&site, &both, name);
    }
    let containers = witness.saw_one_at_a_time(&both);
    report("while it replaces", chosen.len(), looks, containers);
}

/// Two models with two members each, side by side: what one does lies between what others do.
#[test]
fn killed_while_it_does_several_tasks_the_same_command_finishes() {
    let site = scripted("killed-several", MODEL, "");
    let several = "members: 0-1\nresources: {cpus: 0.25, memory: 64MiB}\n";
    let yaml = configuration(&site) + several;
    site.configure("danra", &of_members(&yaml, "danra"));
    site.configure("other", &of_members(&yaml, "other"));
    let run = [&RUN[..], &["--jobs", "4", "--cpus", "4"]].concat();
    let count = places(&site, &run).len();
    let (undisturbed, tasks) = (published(&site), tasks(&site));
    assert_eq!(tasks.len(), 4);
    let outputs = ["danra0.zarr", "danra1.zarr", "other0.zarr", "other1.zarr"];
    let witness = Witness::begin();
    let (mut looks, mut kills) = (0, 0);
    for moment in moments(Duration::from_nanos(count as u64)) {
        // At random; but for the last one, which comes in no order.
        let place = 1 + (moment.as_nanos() as usize).min(count - 2);
        forget(&site);
        looks += watched(&site, &outputs, || {
            kills += usize::from(killed_at(&site, &run, place));
            let complete = tasks_that_are_complete(&site);
            site.mlwm(&run).expect(0, &["published"]);
            assert_eq!(published(&site), undisturbed, "killed at {place}");
            let attempts = logs(&site);
            assert!(attempts <= 8 - complete, "{attempts}, killed at {place}");
            site.mlwm(&run).expect(0, &["already published"]);
            assert_eq!(logs(&site), attempts, "killed at {place}");
        });
        nothing_leaks(&site, &tasks, &place.to_string());
    }
    let containers = witness.saw_one_at_a_time(&tasks);
    report("while it does several tasks", kills, looks, containers);
}

/// How many tasks need not run again: complete, or published.
fn tasks_that_are_complete(site: &Site) -> usize {
    let published = site.files("published").into_iter();
    let published = published.filter(|file| file.ends_with(MANIFEST)).count();
    let noted = site.files("mlwm-work/tasks").into_iter();
    // What is published is noted until it is cleared.
    let noted = noted.filter(|file| file.ends_with("complete.json"));
    published.max(noted.count())
}

fn of_members(yaml: &str, name: &str) -> String {
    yaml.replace(
        "./published/surface.zarr",
        &format!("./published/{name}{{member}}.zarr"),
    )
}

fn published_by(site: &Site, arguments: &[&str]) -> BTreeMap<String, Vec<u8>> {
    site.mlwm(arguments).expect(0, &[]);
    published(site)
}

fn configuration(site: &Site) -> String {
    fs::read_to_string(site.path("configurations/danra/config.yaml")).unwrap()
}

fn changed(site: &Site) -> String {
    configuration(site) + "environment: {CHANGED: 1}\n"
}

fn site_config_of_first(site: &Site) -> String {
    configuration(site).replace("environment: {CHANGED: 1}\n", "")
}

/// SIGKILL from outside, at random moments, of mlwm alone and together with its container.
#[test]
fn killed_from_outside_at_any_moment_the_same_command_finishes() {
    let script = format!("echo begun; sleep 0.3; {MODEL}; sleep 0.2");
    let site = scripted("killed-outside", &script, "");
    let clock = Instant::now();
    let undisturbed = published_by(&site, &RUN);
    let (long, tasks) = (clock.elapsed(), tasks(&site));
    let witness = Witness::begin();
    let (mut looks, chosen) = (0, moments(long));
    for (index, moment) in chosen.iter().enumerate() {
        forget(&site);
        looks += watched(&site, &["surface.zarr"], || {
            let mut child = quiet(&mut site.command(&RUN));
            std::thread::sleep(*moment);
            child.kill().unwrap();
            if index % 2 == 0 {
                kill_containers(&tasks);
            }
            child.wait().unwrap();
            site.mlwm(&RUN).expect(0, &["published"]);
            assert_eq!(published(&site), undisturbed, "killed after {moment:?}");
        });
        nothing_leaks(&site, &tasks, &format!("{moment:?}"));
    }
    let containers = witness.saw_one_at_a_time(&tasks);
    report("from outside", chosen.len(), looks, containers);
}

/// Wherever mlwm is while its container runs, both are gone.
#[test]
fn killed_together_with_its_container_while_the_model_runs_the_same_command_finishes() {
    let slow = MODEL.replace("; ", "; sleep 0.15; ");
    let site = scripted("killed-both", &slow, "");
    let places = places(&site, &RUN);
    let (undisturbed, tasks) = (published(&site), tasks(&site));
    let of = |wanted: &str| 1 + places.iter().position(|name| name == wanted).unwrap();
    let run = of("attempt: before the container")..of("attempt: ran") + 1;
    let witness = Witness::begin();
    let (mut looks, chosen) = (0, some(run));
    for &place in &chosen {
        let name = &places[place - 1];
        forget(&site);
        looks += watched(&site, &["surface.zarr"], || {
            kill_at(&site, &RUN, place);
            kill_containers(&tasks);
            site.mlwm(&RUN).expect(0, &["published"]);
            assert_eq!(published(&site), undisturbed, "killed at {place}, {name}");
        });
        nothing_leaks(&site, &tasks, name);
    }
    let containers = witness.saw_one_at_a_time(&tasks);
    assert!(containers >= chosen.len(), "{containers}");
    report("with its container", chosen.len(), looks, containers);
}

fn quiet(command: &mut Command) -> Child {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_container_that_is_killed_is_a_model_that_failed() {
    let site = scripted(
        "killed-container",
        &format!("echo begun; sleep 1; {MODEL}"),
        "",
    );
    let undisturbed = published_by(&site, &RUN);
    // It is not tried again by itself.
    forget(&site);
    let child = site
        .command(&RUN)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let id = container_of(&site);
    assert!(
        Command::new("docker")
            .args(["kill", &id])
            .output()
            .unwrap()
            .status
            .success()
    );
    let failed = ran(&child.wait_with_output().unwrap()).expect(20, &["exit code 137"]);
    assert!(failed.stdout.contains("failed"), "{}", failed.stdout);
    assert!(site.files("published").is_empty());
    site.mlwm(&RUN).expect(0, &["published"]);
    assert_eq!(published(&site), undisturbed);
    let status = ["status", "--analysis-time", "2022-04-07T03:00Z", "--json"];
    let attempts = site.mlwm(&status).json()["tasks"][0]["attempts"].clone();
    let states: Vec<_> = attempts
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].clone())
        .collect();
    assert_eq!(states, ["failed", "published"]);
    no_container_left(&site);
}

#[test]
fn of_two_runs_at_once_one_does_the_task_and_both_succeed() {
    let site = scripted("shared", &format!("sleep 1; {MODEL}"), "");
    let start = || {
        let mut command = site.command(&RUN);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let all: Vec<_> = (0..3).map(|_| start()).collect();
    let mut outcomes = Vec::new();
    for child in all {
        let done = ran(&child.wait_with_output().unwrap()).expect(0, &["published"]);
        outcomes.push(done.stdout.contains("already published"));
    }
    outcomes.sort_unstable();
    assert_eq!(outcomes, [false, true, true]);
    assert_eq!(logs(&site), 1, "the container ran once");
}

#[test]
fn a_killed_run_is_seen_as_lost() {
    let site = scripted("lost", &format!("sleep 3; {MODEL}"), "");
    let mut child = site
        .command(&RUN)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    container_of(&site);
    site.mlwm(&["status"]).expect(0, &["running"]);
    child.kill().unwrap();
    child.wait().unwrap();
    site.mlwm(&["status"]).expect(0, &["lost"]);
    site.mlwm(&RUN).expect(0, &["published"]);
    let done = site
        .mlwm(&["status", "--analysis-time", "2022-04-07T03:00Z"])
        .expect(0, &["published", "stage"]);
    assert!(!done.stdout.contains("lost"), "{}", done.stdout);
    let log = site
        .mlwm(&["logs", "--analysis-time", "2022-04-07T03:00Z"])
        .expect(0, &[]);
    assert_eq!(log.stdout, "one\ntwo\nthree\n");
    assert!(Path::new(&site.path("mlwm-work/ledger.sqlite")).is_file());
}

//! Killed anywhere, the same command finishes the work: nothing is lost, done twice or half seen.
//!
//! `mlwm-kill-points` is `mlwm` with the feature `kill-points`: it ends itself, as abruptly as SIGKILL
//! would, at the place that `MLWM_KILL_AT` counts to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mlwm_spec::Manifest;
use mlwm_tests::scripted::{no_container_left, scripted};
use mlwm_tests::site::{Site, ran};

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];
const MODEL: &str = "echo one; echo two; cp -r /in/surface.zarr/. /out/surface.zarr/; echo three";
/// How many of the places are tried, unless `MLWM_TEST_KILLS` says otherwise.
const PLACES: usize = 14;

/// Path and content of all that is published, but for times and names of hosts in the manifest.
fn published(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let files = site.files("published").into_iter();
    let mut published: BTreeMap<String, Vec<u8>> = files
        .map(|file| {
            let bytes = fs::read(site.path("published").join(&file)).unwrap();
            (file, bytes)
        })
        .collect();
    let manifest = published.get_mut("surface.zarr.manifest.json").unwrap();
    let mut stripped: serde_json::Value = serde_json::from_slice(manifest).unwrap();
    // Logs are named by attempts; the plan names the folder.
    for key in ["run", "uri", "plan", "inputs"] {
        stripped.as_object_mut().unwrap().remove(key);
    }
    *manifest = serde_json::to_vec(&stripped).unwrap();
    published
}

/// Looks at what is published again and again while `work` is done: whatever the manifest lists must
/// be there, whole. Returns how often it looked.
fn watched<T>(site: &Site, work: impl FnOnce() -> T) -> (T, u64) {
    let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let folder = site.path("published/surface.zarr");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                if let Ok(text) = fs::read(folder.with_extension("zarr.manifest.json")) {
                    let manifest: Manifest =
                        serde_json::from_slice(&text).expect("a manifest appears whole");
                    for object in &manifest.objects {
                        let size = fs::metadata(folder.join(&object.path)).map(|found| found.len());
                        assert_eq!(size.ok(), Some(object.size), "{}", object.path);
                    }
                } else {
                    // Without a manifest there is no root that a reader could open as a whole store
                    // and take for a forecast of this task.
                    std::thread::yield_now();
                }
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        let result = work();
        done.store(true, Ordering::SeqCst);
        (result, looks.load(Ordering::SeqCst))
    })
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

fn kill_at(site: &Site, arguments: &[&str], place: usize) {
    use std::os::unix::process::ExitStatusExt;
    let status = site
        .command_of("mlwm-kill-points", arguments)
        .env("MLWM_KILL_AT", place.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(6), "place {place}: {status}");
}

/// Some places, evenly, and the last; all of them if the environment wants so.
fn some(count: usize) -> Vec<usize> {
    let wanted = std::env::var("MLWM_TEST_KILLS").ok();
    let wanted = wanted.map_or(PLACES, |wanted| wanted.parse().unwrap());
    let wanted = wanted.min(count);
    (1..=wanted).map(|index| index * count / wanted).collect()
}

fn logs(site: &Site) -> usize {
    site.files("mlwm-work/log").len()
}

#[test]
fn killed_at_any_place_the_same_command_finishes() {
    let site = scripted("killed", MODEL, "");
    let places = places(&site, &RUN);
    assert!(places.len() > 40, "{places:?}");
    let undisturbed = published(&site);
    let complete = 1 + places
        .iter()
        .position(|name| name == "attempt: complete")
        .unwrap();
    let mut looks = 0;
    for place in some(places.len()) {
        let name = &places[place - 1];
        forget(&site);
        let (_, looked) = watched(&site, || {
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
        looks += looked;
        assert_eq!(site.files("mlwm-work/tasks"), [""; 0], "killed at {name}");
        let status = site.mlwm(&["status", "--json"]).expect(0, &[]).json();
        let cell = &status["cycles"][0]["cells"]["danra"];
        assert_eq!(
            *cell,
            serde_json::json!({"published": 1}),
            "killed at {name}"
        );
    }
    assert!(looks > 1000, "{looks}");
    no_container_left();
}

#[test]
fn killed_while_it_replaces_an_output_the_same_command_finishes() {
    let site = scripted("killed-replacing", MODEL, "");
    let first = published_by(&site, &RUN);
    site.configure("danra", &changed(&site));
    site.mlwm(&RUN).expect(31, &["--republish"]);
    let republish = [&RUN[..], &["--republish"]].concat();
    let places = places(&site, &republish);
    let replaced = published(&site);
    let withdrawn: Vec<_> = replaced
        .keys()
        .filter(|file| file.contains("withdrawn"))
        .collect();
    assert_eq!(withdrawn.len(), 1);
    let from = places
        .iter()
        .position(|name| name.starts_with("withdraw"))
        .unwrap();
    let original = site_config_of_first(&site);
    for place in [from + 1, from + 2, from + 3, places.len()] {
        forget(&site);
        site.configure("danra", &original);
        assert_eq!(published_by(&site, &RUN), first);
        site.configure("danra", &changed(&site));
        watched(&site, || {
            kill_at(&site, &republish, place);
            site.mlwm(&republish).expect(0, &["published"]);
        });
        let mut now = published(&site);
        let record = now
            .keys()
            .find(|file| file.contains("withdrawn"))
            .cloned()
            .unwrap();
        now.remove(&record);
        let manifest = fs::read(site.path("published/surface.zarr.manifest.json")).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest.replaces.len(), 1, "{}", places[place - 1]);
        site.mlwm(&["verify", "published/surface.zarr"])
            .expect(0, &["all as published"]);
    }
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

/// SIGKILL from outside, at random moments, of mlwm and of its container.
#[test]
fn killed_from_outside_while_the_model_runs() {
    let script = format!("echo begun; sleep 0.6; {MODEL}");
    let site = scripted("killed-outside", &script, "");
    let undisturbed = published_by(&site, &RUN);
    for milliseconds in [150, 450, 750, 1050] {
        forget(&site);
        let mut child = site
            .command(&RUN)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        site.mlwm(&RUN).expect(0, &["published"]);
        assert_eq!(
            published(&site),
            undisturbed,
            "killed after {milliseconds} ms"
        );
    }
    // The container alone: a model that dies is not tried again by itself.
    forget(&site);
    let child = site
        .command(&RUN)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let id = container(&site);
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
    no_container_left();
}

/// The container of the run of a site.
fn container(site: &Site) -> String {
    let folder = site.path("").canonicalize().unwrap();
    for _ in 0..200 {
        let listed = Command::new("docker")
            .args([
                "ps",
                "--quiet",
                "--no-trunc",
                "--filter",
                "label=io.mlwm.contract=1",
            ])
            .output()
            .unwrap();
        for id in ran(&listed).stdout.lines() {
            let mounts = Command::new("docker")
                .args(["inspect", "--format", "{{json .Mounts}}", id])
                .output()
                .unwrap();
            if ran(&mounts).stdout.contains(folder.to_str().unwrap()) {
                return id.to_owned();
            }
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("no container comes")
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
    container(&site);
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

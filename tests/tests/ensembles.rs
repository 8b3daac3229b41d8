//! Ensembles: the members of a configuration in one container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mlwm_tests::scripted::{image, no_container_left};
use mlwm_tests::site::{Ran, Site, copy, oracle, ran};
use mlwm_tests::synthetic;

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];

/// A streaming model as a shell script: it copies each member's input, after what `each` does, which
/// knows `$member`, `$seed` and `$work`.
fn streaming(name: &str, each: &str) -> String {
    let writes = r#"
  window=h000-006
  while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
  out=$s/out/$work/surface
  cp -r $s/in/$work/inputs/surface $out/.$window
  echo "{\"member\": $member, \"seed\": $seed}" > $out/.$window/.zattrs
  mv $out/.$window $out/$window
  say '"window":"h000-006"'"#;
    image_that(name, &format!("{each}\n{writes}"))
}

/// A streaming model whose windows lie in its input, one folder each.
fn windowed(name: &str) -> String {
    let writes = r#"
  for path in $s/in/$work/inputs/surface/*; do
    window=$(basename $path)
    while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
    cp -r $path $s/out/$work/surface/.$window
    mv $s/out/$work/surface/.$window $s/out/$work/surface/$window
    say "\"window\":\"$window\""
  done"#;
    image_that(name, writes)
}

/// The image of a streaming model that does `writes` for each member.
fn image_that(name: &str, writes: &str) -> String {
    let script = format!(
        r#"echo "loads the model"
s=$MLWM_STREAM
n=0
say() {{ echo "::mlwm {{\"work\":\"$work\",$1}}"; }}
fact() {{ sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" $s/in/$work/work.json; }}
while true; do
  work=$(printf %04d $n)
  if [ ! -e $s/in/$work ]; then
    if [ -e $s/in/end ]; then exit 0; fi
    sleep 0.05
    continue
  fi
  member=$(fact member)
  seed=$(fact seed)
  echo "member $member with $seed"
  say '"step":1,"of":2'
  {writes}
  say '"done":true'
  n=$((n + 1))
done"#
    );
    let plain = image(&format!("{name}-plain"), &script);
    let reference = format!("mlwm-test/{name}:latest");
    let mut build = Command::new("docker")
        .args(["build", "--quiet", "--tag", &reference, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = format!("FROM {plain}\nLABEL io.mlwm.streaming=1\n");
    build
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(build.wait().unwrap().success());
    reference
}

fn site(name: &str, each: &str, more: &str) -> Site {
    let site = Site::with_example();
    let image = streaming(name, each);
    let yaml = format!(
        "docker_image: {image}
members: 0-3
forecast_duration: PT6H
inputs:
  surface: {{uri: ./store/single_levels.zarr, internal_path: /in/surface.zarr}}
outputs:
  surface:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/surface.zarr
{more}"
    );
    site.configure("danra", &yaml);
    site
}

/// How many containers there were: each says that it loads its model, in the log of the member
/// that it is at first.
fn containers(site: &Site) -> usize {
    let logs = site.files("mlwm-work/log");
    let text =
        |file: &String| fs::read_to_string(site.path(&format!("mlwm-work/log/{file}"))).unwrap();
    let lines = logs
        .iter()
        .map(|file| text(file).matches("loads the model").count());
    lines.sum()
}

fn published(site: &Site, member: u32) -> bool {
    site.path(&format!("published/member{member}.zarr.manifest.json"))
        .is_file()
}

/// The member whose numbers lie where those of a member should.
fn member_in(site: &Site, member: u32) -> serde_json::Value {
    let path = site.path(&format!("published/member{member}.zarr/.zattrs"));
    let attributes: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    attributes["member"].clone()
}

fn nothing_is_left(site: &Site) {
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left();
}

fn failed_member(ran: &Ran, member: u32) {
    let named = format!("member {member}");
    assert!(
        ran.stderr.contains(&named) || ran.stdout.contains(&named),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
}

#[test]
fn members_are_served_by_one_container_each_with_its_own_seed() {
    let site = site("streams", "", "");
    site.mlwm(&RUN).expect(0, &["published"]);
    let mut seeds = BTreeSet::new();
    for member in 0..4 {
        assert_eq!(member_in(&site, member), member);
        let place = format!("published/member{member}.zarr");
        site.mlwm(&["verify", &place])
            .expect(0, &["all as published"]);
        let manifest = fs::read(site.path(&format!("{place}.manifest.json"))).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        seeds.insert(manifest["seed"].as_u64().unwrap());
    }
    assert_eq!(seeds.len(), 4);
    assert_eq!(containers(&site), 1);
    nothing_is_left(&site);
    site.mlwm(&RUN).expect(0, &[]);
    assert_eq!(containers(&site), 1, "what is published is not made again");
}

#[test]
fn a_container_that_crashes_costs_one_member() {
    let site = site(
        "crashes",
        "if [ $member = 1 ]; then echo no idea >&2; exit 3; fi",
        "retries: 0\n",
    );
    let ran = site.mlwm(&RUN).expect(20, &["no idea"]);
    failed_member(&ran, 1);
    assert_eq!(
        [0, 1, 2, 3].map(|member| published(&site, member)),
        [true, false, true, true]
    );
    assert_eq!(containers(&site), 2);
    nothing_is_left(&site);
}

#[test]
fn a_member_that_the_model_gives_up_does_not_end_its_container() {
    let each =
        r#"if [ $member = 2 ]; then say '"failed":"it blew up"'; n=$((n + 1)); continue; fi"#;
    let site = site("gives-up", each, "retries: 0\n");
    let ran = site.mlwm(&RUN).expect(20, &["it blew up"]);
    failed_member(&ran, 2);
    assert_eq!(
        [0, 1, 2, 3].map(|member| published(&site, member)),
        [true, true, false, true]
    );
    assert_eq!(containers(&site), 1);
    nothing_is_left(&site);
}

#[test]
fn a_member_that_hangs_is_stopped_at_its_timeout() {
    let each = "if [ $member = 1 ]; then sleep 1000; fi";
    let site = site("hangs", each, "retries: 0\ntimeout: PT6S\n");
    let ran = site.mlwm(&RUN).expect(22, &["PT6S"]);
    failed_member(&ran, 1);
    assert_eq!(
        [0, 1, 2, 3].map(|member| published(&site, member)),
        [true, false, true, true]
    );
    nothing_is_left(&site);
}

#[test]
fn killed_in_the_middle_the_same_command_finishes() {
    let undisturbed = site("killed", "sleep 1", "");
    undisturbed.mlwm(&RUN).expect(0, &["published"]);
    let site = site("killed", "sleep 1", "");
    let mut child = site
        .command(&RUN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !published(&site, 1) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "member 1 does not come"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    ran(&child.wait_with_output().unwrap());
    site.mlwm(&RUN).expect(0, &["published"]);
    for member in 0..4 {
        for file in undisturbed.files(&format!("published/member{member}.zarr")) {
            let read =
                |site: &Site| fs::read(site.path(&format!("published/member{member}.zarr/{file}")));
            assert_eq!(read(&site).unwrap(), read(&undisturbed).unwrap(), "{file}");
        }
        site.mlwm(&["verify", &format!("published/member{member}.zarr")])
            .expect(0, &["all as published"]);
    }
    nothing_is_left(&site);
}

/// A site whose models' windows are in their inputs.
fn cut(name: &str, fault: &[&str]) -> Site {
    let site = Site::new();
    let store = site.path("store");
    oracle(
        "windows.py",
        &[&["make", store.to_str().unwrap(), "4"], fault].concat(),
    );
    let yaml = format!(
        "docker_image: {}
members: 0-3
forecast_duration: PT60H
time_layout: time
retries: 0
inputs:
  surface: {{uri: './store/member{{member}}', internal_path: /in/surface}}
outputs:
  surface:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/surface.zarr
    variables: [t2m, msl]
    ranges: {{msl: [90000, 110000]}}
    windows: {{length: PT24H}}
",
        windowed(name)
    );
    site.configure("danra", &yaml);
    site
}

/// The files below a folder with their bytes, each once, however many names it has.
fn files(folder: &Path, found: &mut BTreeMap<u64, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(file) if file.is_dir() => files(&entry.path(), found),
            Ok(file) => drop(found.insert(file.ino(), file.len())),
            // Removed in the meantime.
            Err(_) => {}
        }
    }
}

#[test]
fn windows_are_published_while_the_model_runs_within_the_space_there_is() {
    let site = cut("cut", &[]);
    let budget: u64 = 16 << 20;
    let run = [&RUN[..], &["--disk", "16MiB"]].concat();
    let mut child = site
        .command(&run)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let tasks = ["tasks", "warm"].map(|name| site.path("mlwm-work").join(name));
    let mut most: u64 = 0;
    while child.try_wait().unwrap().is_none() {
        let mut found = BTreeMap::new();
        tasks.iter().for_each(|folder| files(folder, &mut found));
        most = most.max(found.values().sum::<u64>());
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran = ran(&child.wait_with_output().unwrap()).expect(0, &["published"]);
    assert!(ran.stderr.contains("held at most"), "{}", ran.stderr);
    assert!(most > 1 << 20 && most <= budget, "{most}");
    for member in ["0", "1", "2", "3"] {
        let store = format!("published/member{member}.zarr");
        let path = site.path(&store);
        oracle("windows.py", &["check", path.to_str().unwrap(), member]);
        site.mlwm(&["verify", &store])
            .expect(0, &["all as published"]);
        let shards = site
            .files(&store)
            .into_iter()
            .filter(|file| file.contains("/c/") && !file.starts_with("time"));
        assert_eq!(shards.count(), 2 * 3, "a file for each variable and window");
    }
    assert_eq!(containers(&site), 1);
    nothing_is_left(&site);
}

#[test]
fn a_window_that_is_wrong_fails_its_member() {
    for (fault, code, text) in [("nan", 23, "msl"), ("time", 23, "where the schedule has")] {
        let site = cut("cut", &[fault]);
        let ran = site.mlwm(&RUN).expect(code, &["window h024-048", text]);
        failed_member(&ran, 1);
        assert_eq!(
            [0, 1, 2, 3].map(|member| published(&site, member)),
            [true, false, true, true]
        );
        nothing_is_left(&site);
    }
}

/// An image that does not know windows: its container writes the whole forecast, and mlwm cuts it.
#[test]
fn a_model_that_writes_its_forecast_at_once_is_published_in_windows_too() {
    let streamed = cut("cut", &[]);
    streamed.mlwm(&RUN).expect(0, &["published"]);
    let site = cut("cut", &["whole"]);
    let copies = image("cut-whole", "cp -r /in/surface/whole/. /out/surface.zarr/");
    let config = site.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(&config).unwrap();
    site.configure("danra", &yaml.replace("mlwm-test/cut:latest", &copies));
    site.mlwm(&RUN).expect(0, &["published"]);
    assert!(stores(&site) == stores(&streamed), "the same bytes");
    nothing_is_left(&site);
}

/// What the members' stores hold.
fn stores(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for member in 0..4 {
        let store = format!("published/member{member}.zarr");
        for file in site.files(&store) {
            let file = format!("{store}/{file}");
            let bytes = fs::read(site.path(&file)).unwrap();
            found.insert(file, bytes);
        }
    }
    found
}

/// Killed at some of the places at which it can be, or at all that `MLWM_TEST_KILLS=all` asks for.
#[test]
fn killed_between_windows_the_same_command_publishes_the_same() {
    let site = cut("cut", &[]);
    let list = site.path("places");
    let counted = site
        .command_of("mlwm-kill-points", &RUN)
        .env("MLWM_KILL_LIST", &list)
        .output();
    ran(&counted.unwrap()).expect(0, &["published"]);
    let places = fs::read_to_string(&list).unwrap().lines().count();
    let undisturbed = stores(&site);
    assert!(places > 100 && undisturbed.len() > 4 * 6, "{places}");
    let all = std::env::var("MLWM_TEST_KILLS").is_ok_and(|text| text == "all");
    let each = if all { 1 } else { places / 5 };
    for place in (each / 2 + 1..=places).step_by(each) {
        for folder in ["published", "mlwm-work"] {
            fs::remove_dir_all(site.path(folder)).unwrap();
        }
        let mut command = site.command_of("mlwm-kill-points", &RUN);
        let killed = command
            .env("MLWM_KILL_AT", place.to_string())
            .output()
            .unwrap();
        // How often windows are looked for is not the same twice: it may end before it comes there.
        assert!(
            killed.status.code().is_none_or(|code| code == 0),
            "{place}: {killed:?}"
        );
        site.mlwm(&RUN).expect(0, &["published"]);
        assert!(stores(&site) == undisturbed, "killed at place {place}");
        nothing_is_left(&site);
    }
}

const SYNTHETIC_TIME: &str = "2026-10-01T00:00Z";

/// A site with five members of the synthetic ensemble.
fn synthetic() -> Site {
    let site = Site::new();
    let case = site.path("case");
    oracle("synthetic.py", &["make", case.to_str().unwrap()]);
    for member in 0..5 {
        let from = case.join(format!("states/member{member:03}.zarr"));
        copy(
            &from,
            &site.path(&format!("store/2026-10-01T0000Z/member{member}.zarr")),
        );
    }
    let yaml = format!(
        "docker_image: {}
members: 0-4
forecast_duration: P33D
time_layout: time
retries: 0
inputs:
  state: {{uri: './store/{{analysis_time}}/member{{member}}.zarr', internal_path: /in/state}}
outputs:
  fields:
    uri: ./published/{{analysis_time}}/member{{member}}.zarr
    internal_path: /out/fields.zarr
    windows: {{length: PT72H, missing: [sd]}}
  surface:
    uri: ./published/{{analysis_time}}/member{{member}}.surface.zarr
    internal_path: /out/surface.zarr
    variables: [2t, tp]
    windows: {{length: PT72H, hours: 432-792}}
",
        synthetic::image("synthetic", &case)
    );
    site.configure("aifs", &yaml);
    site
}

/// Five members of 132 steps from their states to their stores, every value of which is known.
#[test]
fn the_ensemble_of_a_model_of_states_is_exact_and_made_once() {
    let site = synthetic();
    let run = ["run", "--analysis-time", SYNTHETIC_TIME];
    site.mlwm(&run).expect(0, &["published"]);
    for member in ["0", "1", "2", "3", "4"] {
        let store = format!("published/2026-10-01T0000Z/member{member}.zarr");
        let manifest = fs::read(site.path(&format!("{store}.manifest.json"))).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let seed = manifest["seed"].to_string();
        let path = site.path(&store);
        let all = [
            "check", "--member", member, "--seed", &seed, "--steps", "132",
        ];
        oracle(
            "synthetic.py",
            &[&all[..], &[path.to_str().unwrap()]].concat(),
        );
        let shards = site
            .files(&store)
            .into_iter()
            .filter(|file| file.contains("/c/"));
        let of = |name: &str| format!("{name}/");
        let coordinates = ["time", "elapsed_forecast_duration", "latitude", "longitude"].map(of);
        let shards = shards.filter(|file| !coordinates.iter().any(|name| file.starts_with(name)));
        assert_eq!(
            shards.count(),
            10 * 11,
            "a file for each variable and window"
        );

        let store = format!("published/2026-10-01T0000Z/member{member}.surface.zarr");
        let path = site.path(&store);
        let late = [
            "check", "--member", member, "--seed", &seed, "--steps", "132", "--first", "73",
        ];
        let few = ["--variables", "2t,tp", path.to_str().unwrap()];
        oracle("synthetic.py", &[&late[..], &few[..]].concat());
        site.mlwm(&["verify", &store])
            .expect(0, &["all as published"]);
    }
    site.mlwm(&run).expect(0, &["already published"]);
    nothing_is_left(&site);
}

/// A state of another cycle under the right name, and one with a hole.
#[test]
fn a_state_that_is_wrong_fails_its_member_alone() {
    let site = synthetic();
    let state = |member: u32| site.path(&format!("store/2026-10-01T0000Z/member{member}.zarr"));
    for (member, kind) in [(1, "date"), (3, "nan")] {
        let spoiled = site.path("spoiled");
        let source = state(member);
        let arguments = [
            "spoil",
            source.to_str().unwrap(),
            spoiled.to_str().unwrap(),
            kind,
        ];
        oracle("synthetic.py", &arguments);
        fs::remove_dir_all(&source).unwrap();
        copy(&spoiled.join(kind), &source);
        fs::remove_dir_all(&spoiled).unwrap();
    }
    let short = [
        "run",
        "--analysis-time",
        SYNTHETIC_TIME,
        "--forecast-duration",
        "P3D",
    ];
    site.mlwm(&short)
        .expect(10, &["the forecast has 72 hours, and 432-792"]);
    let ran = site.mlwm(&short[..3]);
    let ran = ran.expect(20, &[]);
    failed_member(&ran, 1);
    failed_member(&ran, 3);
    let is_published = |member: u32| {
        site.path(&format!(
            "published/2026-10-01T0000Z/member{member}.zarr.manifest.json"
        ))
        .is_file()
    };
    assert_eq!(
        [0, 1, 2, 3, 4].map(is_published),
        [true, false, true, false, true]
    );
    for member in [1, 3] {
        let folder = format!("published/2026-10-01T0000Z/member{member}.zarr");
        assert_eq!(site.files(&folder), [""; 0], "nothing was begun");
        assert!(!site.path(&format!("{folder}.publishing.json")).exists());
    }
    nothing_is_left(&site);
}

//! Ensembles: the members of a configuration in one container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mlwm_tests::scripted::{image, no_container_left, streaming_image, windowed};
use mlwm_tests::site::{Ran, Site, oracle, ran};
use mlwm_tests::space::most_taken;

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
    streaming_image(name, &format!("{each}\n{writes}"))
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
    no_container_left(site);
}

fn failed_member(ran: &Ran, member: u32) {
    let said = format!("member {member}: failed");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
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

#[test]
fn windows_are_published_while_the_model_runs_within_the_space_there_is() {
    let site = cut("cut", &[]);
    let budget: u64 = 16 << 20;
    let run = [&RUN[..], &["--disk", "16MiB"]].concat();
    let mut run = site.command(&run);
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let (ran, most) = most_taken(&site, run.unwrap());
    let ran = ran.expect(0, &["published"]);
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

/// I10: a forecast that ends before its last window, or has another one, is none.
#[test]
fn a_rollout_that_ends_early_or_goes_astray_fails_its_member() {
    for (name, fault, code, text) in [
        (
            "ends-done",
            "break",
            23,
            "did not write the window h024-048",
        ),
        (
            "ends-well",
            "exit 0",
            20,
            "ended before it had served this member",
        ),
        (
            "strays",
            r#"say '"window":"h700-724"'"#,
            23,
            "`h700-724`, which is none of this forecast",
        ),
    ] {
        let writes = format!(
            r#"
  for path in $s/in/$work/inputs/surface/*; do
    window=$(basename $path)
    while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
    if [ $member = 1 ] && [ $window = h024-048 ]; then {fault}; fi
    cp -r $path $s/out/$work/surface/.$window
    mv $s/out/$work/surface/.$window $s/out/$work/surface/$window
    say "\"window\":\"$window\""
  done"#
        );
        let site = cut("cut", &[]);
        let image = streaming_image(name, &writes);
        let yaml = fs::read_to_string(site.path("configurations/danra/config.yaml")).unwrap();
        site.configure("danra", &yaml.replace("mlwm-test/cut:latest", &image));
        let ran = site.mlwm(&RUN).expect(code, &[text]);
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

/// Killed at a few of the places at which it can be, or at all that `MLWM_TEST_KILLS=all` asks for; those that matter are
/// in `ensemble_places`.
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
    let each = if all { 1 } else { places / 2 };
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

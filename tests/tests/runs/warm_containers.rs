//! What a container that serves several members is given, what it may do, and what goes on beside it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use mlwm_tests::bench::{attempts, begun, configuration, logs, wait_until};
use mlwm_tests::scripted::{
    WAITS, ended, labelled, let_on, no_container_left, signal, windowed_with,
};
use mlwm_tests::site::{
    Site, example_configuration, example_image, noise_artifact, oracle, ran, sha256,
};
use mlwm_tests::witness::container_of;
use serde_json::Value;

const RUN: [&str; 3] = ["run", "--analysis-time", "2022-04-07T03:00Z"];

/// A site with members whose windows lie in their inputs.
fn site(image: &str, members: u64, more: &str) -> Site {
    let site = Site::new();
    let store = site.path("store");
    let count = members.to_string();
    oracle("windows.py", &["make", store.to_str().unwrap(), &count]);
    let yaml = configuration(image, members, "./store", "./published", more);
    site.configure("danra", &yaml);
    site
}

#[track_caller]
fn all_is_published(site: &Site, members: u64) {
    for member in 0..members {
        let store = format!("published/member{member}.zarr");
        let (path, member) = (site.path(&store), member.to_string());
        oracle("windows.py", &["check", path.to_str().unwrap(), &member]);
        site.mlwm(&["verify", &store])
            .expect(0, &["all as published"]);
    }
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
    assert_eq!(site.files("mlwm-work/warm"), [""; 0]);
    no_container_left(site);
}

fn manifest(site: &Site, store: &str) -> Value {
    let text = fs::read(site.path(&format!("{store}.manifest.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    ran(&output).expect(0, &[]).stdout.trim().to_owned()
}

/// Whether its container goes on after it, as one that says what is wrong, or ends: others are not made again.
#[test]
fn a_member_that_fails_once_is_tried_again_alone() {
    let says = r#"if [ $member = 2 ] && [ ! -e /tmp/said ]; then
      touch /tmp/said
      say '"failed":"not yet"'
      n=$((n + 1))
      continue 2
    fi"#;
    let ends = r#"if [ $member = 2 ] && [ $window = h024-048 ]; then
      echo asks
      until [ -e $s/in/on ]; do
        if [ -e $s/in/fails ]; then echo "not yet" >&2; exit 3; fi
        sleep 0.05
      done
    fi"#;
    for (name, before, containers) in [("says-once", says, 1), ("ends-once", ends, 2)] {
        let image = windowed_with(name, before);
        let site = site(&image, 4, "retries: {model: 1, delay: PT1S}\n");
        let mut run = site.command(&RUN);
        let run = run.stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = run.spawn().unwrap();
        if containers == 2 {
            wait_until("member 2 asks", || logs(&site, 2).contains("asks"));
            signal(&site, "fails");
        }
        wait_until("member 2 has failed", || {
            let attempts = attempts(&site);
            let first = attempts.get(2).and_then(|attempts| attempts.first());
            first.is_some_and(|first| first["state"] == "failed")
        });
        ended(&site, run).expect(0, &["published", "not yet"]);
        all_is_published(&site, 4);
        assert_eq!(begun(&site, 4), [1, 1, 2, 1], "{name}");
        let attempts = attempts(&site);
        let counts: Vec<usize> = attempts.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 1, 2, 1], "{name}");
        let [failed, published] = &attempts[2][..] else {
            panic!("two attempts")
        };
        assert_eq!(failed["exit_code"], 20);
        assert!(failed["error"].as_str().unwrap().contains("not yet"));
        assert_eq!(published["state"], "published");
        let all = (0..4).map(|member| logs(&site, member));
        let loads = all.map(|text| text.matches("loads the model").count());
        assert_eq!(loads.sum::<usize>(), containers, "{name}");
    }
}

/// I15: by what it can do itself, and by what the engine says of it.
#[test]
fn it_is_isolated_as_the_contract_says() {
    let looks = r#"fail() { echo "NOT ISOLATED: $*"; exit 9; }
    input=$s/in/$work/inputs/surface
    for place in /here $s/here $s/in/here $s/in/$work/here $s/in/$work/go/here $input/here $path/here; do
      if touch $place 2>/dev/null; then fail $place can be written; fi
    done
    if rm $s/in/$work/work.json 2>/dev/null; then fail its work can be removed; fi
    if cat "$ELSEWHERE" 2>/dev/null; then fail the host can be read; fi
    [ "$(ls /sys/class/net)" = lo ] || fail there is a network
    for kind in Inh Prm Eff Bnd Amb; do
      grep -q "^Cap$kind:.*0000000000000000$" /proc/self/status || fail Cap$kind
    done
    grep -q '^NoNewPrivs:.*1$' /proc/self/status || fail new privileges
    [ "$(id -u):$(id -g)" = "$CALLER" ] || fail it is $(id -u):$(id -g)
    for name in MLWM_MEMBER MLWM_SEED MLWM_TASK MLWM_INPUTS MLWM_OUTPUTS DATASTORE_INPUT_PATHS; do
      if [ -n "${!name+set}" ]; then fail $name is set; fi
    done
    if env | grep -q AWS_; then fail a credential; fi"#;
    let before = format!("{looks}\n    if [ $member = 0 ]; then {WAITS}; fi");
    let image = windowed_with("looks-around-warm", &before);
    let mut site = site(&image, 2, "retries: 0\n");
    site.env("AWS_SECRET_ACCESS_KEY", "planted");
    let me = fs::metadata("/proc/self").unwrap();
    let caller = format!("{}:{}", me.uid(), me.gid());
    let secret = site.path("secret");
    fs::write(&secret, "a line that only this host has").unwrap();
    let config = site.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(config).unwrap();
    let more = format!(
        "environment: {{CALLER: '{caller}', ELSEWHERE: {}}}\n",
        secret.display()
    );
    site.configure("danra", &(yaml + &more));
    let mut run = site.command(&RUN);
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = run.spawn().unwrap();
    wait_until("the model waits", || logs(&site, 0).contains("waits"));
    let told = docker(&["inspect", "--format", "{{json .}}", &container_of(&site)]);
    let ran = ended(&site, run).expect(0, &["published"]);
    assert!(!ran.stderr.contains("NOT ISOLATED"), "{}", ran.stderr);

    let told: Value = serde_json::from_str(&told).unwrap();
    let host = &told["HostConfig"];
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(told["Config"]["User"], caller);
    let mounts = told["Mounts"].as_array().unwrap().iter().map(|mount| {
        let target = mount["Destination"].as_str().unwrap();
        (target.to_owned(), mount["RW"].as_bool().unwrap())
    });
    let mut mounts = Vec::from_iter(mounts);
    mounts.sort();
    let wanted = [("/mlwm/stream/in", false), ("/mlwm/stream/out", true)];
    assert_eq!(
        mounts,
        wanted.map(|(at, writable)| (at.to_owned(), writable))
    );
    all_is_published(&site, 2);
}

/// I13, by what comes before what: the model stands still before the last window of the member that it serves
/// first, until the inputs of the other are staged and windows of the first are sent.
#[test]
fn inputs_of_the_next_and_windows_of_this_member_move_while_it_is_served() {
    let before = format!("if [ $window = h048-060 ]; then {WAITS}; fi");
    let image = windowed_with("waits-at-its-end", &before);
    let site = site(&image, 2, "retries: 0\n");
    let mut run = site.command(&[&RUN[..], &["--json"]].concat());
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    let mut events: Vec<Value> = Vec::new();
    let task = |member: u32| format!("danra 2022-04-07T03:00Z member {member}");
    let find = |events: &[Value], kind: &str, task: &str, phase: &str| {
        events.iter().position(|event| {
            event["event"] == kind && event["task"] == *task && event["phase"] == phase
        })
    };
    let sends = |events: &[Value], member: u32| find(events, "progress", &task(member), "publish");
    let mut tasks = None;
    for line in BufReader::new(run.stdout.take().unwrap()).lines() {
        events.push(serde_json::from_str(&line.unwrap()).unwrap());
        if tasks.is_some() {
            continue;
        }
        for (first, next) in [(0, 1), (1, 0)] {
            let staged = find(&events, "phase-finished", &task(next), "stage");
            if sends(&events, first).and(staged).is_some() {
                // Once: the folder of the container goes when all is served.
                let_on(&site);
                tasks = Some((task(first), task(next)));
            }
        }
    }
    assert!(run.wait().unwrap().success());
    let (first, next) = tasks.unwrap();
    let at = |kind, task: &str, phase| find(&events, kind, task, phase).unwrap();
    let served = at("phase-finished", &first, "run");
    assert!(at("phase-finished", &next, "stage") < served);
    assert!(at("progress", &first, "publish") < served);
    assert!(served < at("phase-finished", &next, "run"));
    all_is_published(&site, 2);
}

/// I15: what windows are published with is what the container had.
#[test]
fn windows_name_the_artifact_that_was_mounted() {
    let zip = noise_artifact("noise", 4096, 8);
    let prints = "find /workspace/inference_artifact -type f -exec sha256sum {} +";
    let image = labelled(
        &windowed_with("prints-its-artifact", prints),
        "io.mlwm.artifact.delivery=mount",
    );
    let more = format!(
        "artifact: {}\nartifact_delivery: mount\nretries: 0\n",
        zip.display()
    );
    let site = site(&image, 2, &more);
    site.mlwm(&RUN).expect(0, &["published"]);
    all_is_published(&site, 2);
    let unpacked = site.path("unpacked");
    let unzip = [
        "-c",
        "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])",
    ];
    let unzipped = Command::new(mlwm_tests::site::python())
        .args(unzip)
        .args([&zip, &unpacked])
        .status();
    assert!(unzipped.unwrap().success());
    let files = site.files("unpacked");
    assert!(files.len() > 2, "{files:?}");
    for member in 0..2 {
        let manifest = manifest(&site, &format!("published/member{member}.zarr"));
        assert_eq!(manifest["artifact"]["digest"], *sha256(&zip));
        let printed = logs(&site, member);
        for file in &files {
            let hash = sha256(&unpacked.join(file));
            let hash = hash.strip_prefix("sha256:").unwrap();
            let line = format!("{hash}  /workspace/inference_artifact/{file}");
            assert!(printed.contains(&line), "{line}");
        }
    }
}

#[test]
fn windows_name_the_artifact_that_is_in_the_image() {
    let site = Site::with_example();
    let cut = "    variables: [t2m]\n    windows: {length: PT6H}\ntime_layout: time\n";
    site.configure("danra", &(example_configuration() + cut));
    site.run("danra", &[]).expect(0, &["published"]);
    let label = "{{index .Config.Labels \"io.mlwm.artifact.digest\"}}";
    let of_image = docker(&["image", "inspect", "--format", label, example_image()]);
    assert_eq!(of_image, sha256(&site.path("danra.zip")));
    let store = "published/2022-04-07T0300Z/member0/surface.zarr";
    assert_eq!(manifest(&site, store)["artifact"]["digest"], *of_image);
    let shards = site.files(&format!("{store}/t2m/c"));
    assert_eq!(shards.len(), 3, "a file for each window: {shards:?}");
}

//! Cycles as a forecaster runs them: planned, side by side, looked at, explained, made again.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use mlwm_tests::scripted::{image, scripted};
use mlwm_tests::site::{Site, copy, example, oracle, ran};
use serde_json::{Value, json};

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];
const COPIES: &str = "cp -r /in/surface.zarr/. /out/surface.zarr/";
const PUBLISHED: &str = "published/surface.zarr";

/// A configuration that publishes each time and member in a place of its own.
fn many(image: &str, name: &str, more: &str) -> String {
    format!(
        "docker_image: {image}
inputs:
  surface: {{uri: ./store/single_levels.zarr, internal_path: /in/surface.zarr}}
outputs:
  surface:
    uri: ./published/{name}/{{analysis_time}}/member{{member}}.zarr
    internal_path: /out/surface.zarr
{more}"
    )
}

fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

#[test]
fn a_plan_is_printed_divided_and_carried_out() {
    let site = Site::with_example();
    let image = image("copies", COPIES);
    site.configure("danra", &many(&image, "danra", "members: 0-1\n"));
    let plan = [
        "plan",
        "--analysis-time",
        TIME,
        "--to",
        "2022-04-07T15:00Z",
        "--every",
        "6h",
    ];
    let printed = site.mlwm(&plan).expect(0, &[]);
    assert_eq!(printed.stdout, site.mlwm(&plan).stdout, "the same plan");
    let twice = [&plan[..], &["--model", "danra", "--model", "danra"]].concat();
    assert_eq!(printed.stdout, site.mlwm(&twice).stdout, "named twice");
    let mut plan = printed.json();
    let tasks = plan["tasks"].as_array_mut().unwrap();
    let named: Vec<_> = tasks
        .iter()
        .map(|task| (task["analysis_time"].clone(), task["member"].clone()))
        .collect();
    let times = [
        "2022-04-07T03:00Z",
        "2022-04-07T09:00Z",
        "2022-04-07T15:00Z",
    ];
    let expected: Vec<_> = times
        .iter()
        .flat_map(|time| [(json!(time), json!(0)), (json!(time), json!(1))])
        .collect();
    assert_eq!(named, expected);
    assert!(site.files("published").is_empty());

    // Half of it, by hand.
    tasks.retain(|task| task["member"] == 1);
    fs::write(site.path("half.json"), plan.to_string()).unwrap();
    site.mlwm(&["run", "--plan", "half.json"])
        .expect(0, &["published"]);
    let status = site.mlwm(&["status", "--json"]).json();
    let cycles = status["cycles"].as_array().unwrap();
    assert_eq!(cycles.len(), 3);
    assert_eq!(cycles[0]["analysis_time"], times[2]);
    assert_eq!(cycles[0]["cells"]["danra"], json!({"published": 1}));
    site.mlwm(&["status"])
        .expect(0, &[times[0], "danra", "published"]);

    let text = plan.to_string().replace("\"member\":1", "\"membre\":1");
    fs::write(site.path("bad.json"), text).unwrap();
    site.mlwm(&["run", "--plan", "bad.json"])
        .expect(10, &["bad.json", "membre"]);
    site.mlwm(&["run", "--plan", "none.json"])
        .expect(11, &["none.json"]);
    site.mlwm(&["run", "--plan", "half.json", "--members", "0"])
        .expect(2, &["--members"]);
    let back = [
        "plan",
        "--analysis-time",
        TIME,
        "--to",
        "2022-04-06T00:00Z",
        "--every",
        "6h",
    ];
    site.mlwm(&back).expect(2, &["before"]);
}

#[test]
fn three_configurations_of_fifty_that_are_wrong_do_not_keep_the_others_from_running() {
    let site = Site::with_example();
    fs::remove_dir_all(site.path("configurations/danra")).unwrap();
    let (good, fails) = (image("copies", COPIES), image("fails", "exit 7"));
    let small = "resources: {cpus: 0.1, memory: 64MiB}\nretries: 0\n";
    for index in 0..47 {
        let name = format!("good{index}");
        site.configure(&name, &many(&good, &name, small));
    }
    site.configure("bad-yaml", "docker_image: [\n");
    site.configure("bad-model", &many(&fails, "a", small));
    let elsewhere = many(&good, "b", small).replace("single_levels", "pressure_levels");
    site.configure("bad-input", &elsewhere);
    let done = site.mlwm(&[&RUN[..], &["--jobs", "6"]].concat());
    let done = done.expect(20, &["exit code 7", "store/pressure_levels.zarr"]);
    for name in ["bad-yaml/config.yaml", "bad-model", "bad-input"] {
        assert!(done.stderr.contains(name), "{}", done.stderr);
    }
    let failed = done.stdout.lines().filter(|line| line.contains("failed"));
    assert_eq!(failed.count(), 2, "{}", done.stdout);
    let status = site.mlwm(&["status", "--json"]).json();
    let cells = status["cycles"][0]["cells"].as_object().unwrap();
    assert_eq!(cells.len(), 49);
    for (name, cell) in cells {
        let good = name.starts_with("good");
        let expected = if good { "published" } else { "failed" };
        assert_eq!(*cell, json!({expected: 1}), "{name}");
    }
    let files = site.files("published").into_iter();
    let manifests = files.filter(|file| file.ends_with("member0.zarr.manifest.json"));
    let of = |file: String| file.split('/').next().unwrap().to_owned();
    let published: Vec<String> = manifests.map(of).collect();
    let mut expected: Vec<String> = (0..47).map(|index| format!("good{index}")).collect();
    expected.sort();
    assert_eq!(published, expected);
}

#[test]
fn containers_run_side_by_side_as_far_as_they_fit() {
    let site = Site::with_example();
    let image = image("copies-slowly", &format!("sleep 1.5; {COPIES}"));
    let small = "members: 0-3\nresources: {cpus: 1, memory: 64MiB}\n";
    site.configure("danra", &many(&image, "danra", small));
    let arguments = [&RUN[..], &["--cpus", "2", "--jobs", "9"]].concat();
    site.mlwm(&arguments).expect(0, &["published"]);
    let status = site
        .mlwm(&["status", "--analysis-time", TIME, "--json"])
        .json();
    let mut changes = Vec::new();
    for task in status["tasks"].as_array().unwrap() {
        let phases = task["attempts"][0]["phases"].as_array().unwrap();
        let run = phases.iter().find(|phase| phase["name"] == "run").unwrap();
        let started = run["started"].as_f64().unwrap() / 1000.0;
        changes.push((started, 1));
        // Times are kept in milliseconds: one that follows another at once may seem to begin before its end.
        changes.push((started + run["seconds"].as_f64().unwrap() - 0.05, -1));
    }
    changes.sort_by(|one, other| one.partial_cmp(other).unwrap());
    let mut running = 0;
    let most = changes.iter().map(|(_, change)| {
        running += change;
        running
    });
    assert_eq!(most.max(), Some(2));
}

#[test]
fn what_is_published_is_explained_verified_and_made_again() {
    let site = scripted("copies", COPIES, "");
    site.mlwm(&RUN).expect(0, &["published"]);
    let why = site
        .mlwm(&["why", PUBLISHED])
        .expect(0, &["made of", "single_levels.zarr", "seed", TIME]);
    let manifest: Value = serde_json::from_slice(
        &fs::read(site.path("published/surface.zarr.manifest.json")).unwrap(),
    )
    .unwrap();
    assert!(why.stdout.contains(manifest["task"].as_str().unwrap()));
    let statement = site
        .mlwm(&["why", "published/surface.zarr.manifest.json", "--json"])
        .json();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let objects = manifest["objects"].as_array().unwrap();
    assert_eq!(
        statement["subject"].as_array().unwrap().len(),
        objects.len()
    );
    let digest = statement["subject"][0]["digest"]["sha256"]
        .as_str()
        .unwrap();
    let name = statement["subject"][0]["name"].as_str().unwrap();
    let file = site.path(PUBLISHED).join(name);
    let summed = std::process::Command::new("sha256sum")
        .arg(&file)
        .output()
        .unwrap();
    assert!(ran(&summed).stdout.starts_with(digest), "{name}");
    site.mlwm(&["why", "published/other.zarr"])
        .expect(11, &["nothing is published"]);

    site.mlwm(&["verify", PUBLISHED])
        .expect(0, &["all as published"]);
    site.mlwm(&["replay", PUBLISHED])
        .expect(0, &["the same to the bit"]);
    let left = site.files("mlwm-work");
    assert!(
        !left.iter().any(|file| file.starts_with("replay-")),
        "{left:?}"
    );

    let bytes = fs::read(&file).unwrap();
    let flipped: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    fs::write(&file, flipped).unwrap();
    site.mlwm(&["verify", PUBLISHED]).expect(12, &[name]);
    // The same command makes it again only if it is told to.
    site.mlwm(&[&RUN[..], &["--republish"]].concat())
        .expect(0, &["published"]);
    site.mlwm(&["verify", PUBLISHED]).expect(0, &[]);
    assert_eq!(fs::read(&file).unwrap(), bytes);

    let input = site.path("store/single_levels.zarr/.zattrs");
    fs::write(&input, fs::read_to_string(&input).unwrap() + " ").unwrap();
    site.mlwm(&["replay", PUBLISHED])
        .expect(11, &["input `surface`", "bring back"]);
}

#[test]
fn a_model_that_is_not_the_same_twice_is_found_by_a_replay() {
    let site = Site::with_example();
    let flip = seconds() + 12;
    let script = format!(
        "{COPIES}; if [ $(date +%s) -ge {flip} ]; then cp /in/other.zarr/t2m/0.0.0 /out/surface.zarr/t2m/0.0.0; fi"
    );
    let image = image("flips", &script);
    copy(
        &site.path("store/single_levels.zarr"),
        &site.path("store/other.zarr"),
    );
    let other = oracle(
        "warm.py",
        &[
            site.path("store/other.zarr").to_str().unwrap(),
            "t2m",
            "1.5",
        ],
    );
    let values: u64 = other.trim().parse().unwrap();
    site.configure(
        "danra",
        &format!(
            "docker_image: {image}
inputs:
  surface: {{uri: ./store/single_levels.zarr, internal_path: /in/surface.zarr}}
  other: {{uri: ./store/other.zarr, internal_path: /in/other.zarr}}
outputs:
  surface: {{uri: ./published/surface.zarr, internal_path: /out/surface.zarr}}
"
        ),
    );
    site.mlwm(&RUN).expect(0, &["published"]);
    assert!(seconds() < flip, "this machine is too slow for this test");
    std::thread::sleep(Duration::from_secs(flip + 1 - seconds()));
    let report = site
        .mlwm(&["replay", PUBLISHED, "--json"])
        .expect(24, &[])
        .json();
    assert_eq!(report["different"], json!(["t2m/0.0.0"]));
    assert_eq!(report["variables"][0]["variable"], "t2m");
    assert_eq!(report["variables"][0]["different"], values);
    let largest = report["variables"][0]["largest"].as_f64().unwrap();
    assert!((largest - 1.5).abs() < 1e-4, "{largest}");
    site.mlwm(&["replay", PUBLISHED])
        .expect(24, &["t2m", "largest difference"]);
}

#[test]
fn a_task_that_fails_is_tried_again_as_the_configuration_says() {
    let site = Site::with_example();
    let good = seconds() + 8;
    let script = format!("echo tries; test $(date +%s) -ge {good} || exit 7; {COPIES}");
    let image = image("recovers", &script);
    let retries = "retries: {model: 9, delay: PT1S}\n";
    site.configure("danra", &many(&image, "danra", retries));
    let done = site.mlwm(&RUN).expect(0, &["tried again", "published"]);
    let status = site
        .mlwm(&["status", "--analysis-time", TIME, "--json"])
        .json();
    let attempts = status["tasks"][0]["attempts"].as_array().unwrap();
    assert!(attempts.len() > 1, "{}", done.stderr);
    for (index, attempt) in attempts.iter().enumerate() {
        let last = index + 1 == attempts.len();
        assert_eq!(attempt["number"], index + 1);
        assert_eq!(attempt["state"], if last { "published" } else { "failed" });
        assert_eq!(attempt["exit_code"], if last { 0 } else { 20 });
        let number = attempt["number"].to_string();
        let logs = site.mlwm(&["logs", "--analysis-time", TIME, "--attempt", &number]);
        assert_eq!(logs.expect(0, &[]).stdout, "tries\n");
    }
    // A model that fails is not tried again by itself.
    let image = mlwm_tests::scripted::image("fails-always", "exit 7");
    site.configure("danra", &many(&image, "fails", ""));
    let failed = site.mlwm(&RUN).expect(20, &["exit code 7"]);
    assert!(!failed.stderr.contains("tried again"), "{}", failed.stderr);
}

#[test]
fn values_out_of_range_are_not_published() {
    let ranges = "    ranges: {t2m: [0, 1]}\n";
    let site = scripted("copies", COPIES, ranges);
    site.mlwm(&RUN)
        .expect(23, &["`t2m`", "from 0 to 1", "nothing is published"]);
    site.expect_nothing_left();
    let site = scripted("copies", COPIES, "    ranges: {t2m: [180, 340]}\n");
    site.mlwm(&RUN).expect(0, &["published"]);
}

#[test]
fn a_log_is_followed_to_its_end() {
    let script = format!("for i in 1 2 3; do echo line $i; sleep 0.7; done; {COPIES}; echo end");
    let site = scripted("talks", &script, "");
    let run = site
        .command(&RUN)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let follow = [
        "logs",
        "--analysis-time",
        TIME,
        "--model",
        "danra",
        "--follow",
    ];
    let mut followed = site.mlwm(&follow);
    for _ in 0..100 {
        if followed.code == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        followed = site.mlwm(&follow);
    }
    assert_eq!(
        followed.stdout, "line 1\nline 2\nline 3\nend\n",
        "{}",
        followed.stderr
    );
    ran(&run.wait_with_output().unwrap());
    site.mlwm(&["logs", "--analysis-time", TIME, "--member", "3"])
        .expect(11, &["member 3"]);
    site.mlwm(&["logs", "--analysis-time", "2022-04-08T00:00Z"])
        .expect(2, &["no cycle"]);
}

#[test]
fn a_lost_ledger_is_made_from_what_is_published() {
    let site = Site::with_example();
    let image = image("copies", COPIES);
    site.configure("danra", &many(&image, "danra", "members: 0-1\n"));
    copy(
        &example("source/single_levels.zarr"),
        &site.path("published/danra/not-ours.zarr"),
    );
    for time in [TIME, "2022-04-07T09:00Z"] {
        site.mlwm(&["run", "--analysis-time", time])
            .expect(0, &["published"]);
    }
    let before = site.mlwm(&["status", "--json"]).json();
    fs::remove_dir_all(site.path("mlwm-work")).unwrap();
    site.mlwm(&["status"])
        .expect(11, &["no ledger", "--rebuild"]);
    let again = site
        .mlwm(&["status", "--rebuild", "--json"])
        .expect(0, &["found 4 tasks"]);
    assert_eq!(again.json(), before);
    let tasks = site
        .mlwm(&["status", "--analysis-time", TIME, "--json"])
        .json();
    assert_eq!(tasks["tasks"][1]["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(tasks["tasks"][1]["attempts"][0]["state"], "published");
    // What is known stays.
    site.mlwm(&["status", "--rebuild"]).expect(0, &[]);
    let same = site
        .mlwm(&["status", "--analysis-time", TIME, "--json"])
        .json();
    assert_eq!(same, tasks);
}

#[test]
fn data_of_another_analysis_time_are_refused_on_their_way_in_and_out() {
    let site = Site::with_example();
    let image = image("copies", COPIES);
    let store = |place: &str, time: &str| {
        oracle("dated.py", &[site.path(place).to_str().unwrap(), time]);
    };
    let configure = |uri: &str| {
        let yaml = many(&image, "danra", "retries: 0\n");
        let quoted = format!("'{uri}'");
        site.configure(
            "danra",
            &yaml.replace("./store/single_levels.zarr", &quoted),
        );
    };
    // Where this cycle's data should be, the last cycle's are still.
    store("store/2022-04-07T0300Z/levels.zarr", "2022-04-06T21:00");
    configure("./store/{analysis_time}/levels.zarr");
    let texts = ["2022-04-06T21:00Z", "not 2022-04-07T03:00Z", "levels.zarr"];
    site.mlwm(&RUN).expect(12, &texts);
    site.expect_nothing_left();
    // So it is where the place has the time in a form of its own; what that says decides.
    store("store/20220407_00/levels.zarr", "2022-04-06T21:00");
    configure("./store/{analysis_time:%Y%m%d}_00/levels.zarr");
    let texts = ["2022-04-06T21:00Z", "not 2022-04-07T03:00Z", "20220407_00"];
    site.mlwm(&RUN).expect(12, &texts);
    site.expect_nothing_left();
    let dry = [&RUN[..], &["--dry-run"]].concat();
    let plan = site.mlwm(&dry).expect(0, &[]).json();
    assert_eq!(plan["tasks"][0]["inputs"][0]["dated"], "%Y%m%d");
    store("store/20220407_00/levels.zarr", "2022-04-07T00:00");
    // It is of this day, as its place says; that the model makes another forecast of it is found out at the end.
    site.mlwm(&RUN)
        .expect(23, &["2022-04-07T00:00Z", "nothing is published"]);
    // A model that passes them on is found out at the end.
    store("store/newest.zarr", "2022-04-06T21:00");
    configure("./store/newest.zarr");
    site.mlwm(&RUN)
        .expect(23, &["2022-04-06T21:00Z", "nothing is published"]);
    site.expect_nothing_left();
    store("store/2022-04-07T0300Z/levels.zarr", "2022-04-07T03:00");
    configure("./store/{analysis_time}/levels.zarr");
    site.mlwm(&RUN).expect(0, &["published"]);
}

//! What a run says of itself: how far it is, what it took, what it cost; and what a plan may be expected to take.

use std::fs;
use std::path::Path;

use mlwm_tests::scripted::{image, no_container_left, windowed};
use mlwm_tests::site::{Site, example_configuration, oracle};
use serde_json::Value;

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];

const PRICES: &str = "currency: EUR
machine_hour: 36
gpu_hour: 7200
cpu_hour: 720
gb_in: 1000
gb_out: 2000
";

/// Four members, of which the third fails at once. The others take their time for three steps.
fn members(name: &str) -> Site {
    let site = Site::with_example();
    let script = r#"if [ $MLWM_MEMBER = 2 ]; then echo no idea >&2; exit 3; fi
echo '::mlwm {"step":1,"of":3}'
sleep 1.2
echo '::mlwm {"step":2,"of":3}'
cp -r /in/surface.zarr/. /out/surface.zarr/
echo "{\"member\": $MLWM_MEMBER}" > /out/surface.zarr/.zattrs
echo '::mlwm {"step":3,"of":3}'"#;
    let yaml = format!(
        "docker_image: {}
members: 0-3
forecast_duration: PT18H
retries: 0
resources: {{cpus: 2, memory: 256MiB}}
inputs:
  surface: {{uri: ./store/single_levels.zarr, internal_path: /in/surface.zarr}}
outputs:
  surface:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/surface.zarr
",
        image(name, script)
    );
    site.configure("danra", &yaml);
    site
}

/// The bytes of all files below a folder.
fn bytes(site: &Site, folder: &str) -> u64 {
    let files = site.files(folder);
    let size = |file: &String| fs::metadata(site.path(&format!("{folder}/{file}")));
    files.iter().map(|file| size(file).unwrap().len()).sum()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn events(stdout: &str) -> Vec<Value> {
    let lines = stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let events = events.iter();
    events.filter(|event| event["event"] == kind).collect()
}

#[track_caller]
fn close(found: &Value, wanted: f64) {
    let found = found.as_f64().unwrap();
    assert!(
        (found - wanted).abs() <= 1e-9 * wanted.abs().max(1e-9),
        "{found} {wanted}"
    );
}

#[test]
fn the_report_of_a_run_says_how_each_member_went_and_what_it_cost() {
    let site = members("reports");
    fs::write(site.path("prices.yaml"), PRICES).unwrap();
    let told = [
        "--report",
        "report.json",
        "--prices",
        "prices.yaml",
        "--jobs",
        "1",
    ];
    let ran = site.mlwm(&[&RUN[..], &told, &["--json"]].concat());
    let ran = ran.expect(20, &[]);

    let report = read(&site.path("report.json"));
    assert_eq!(report["version"], 1);
    assert_eq!(report["exit_code"], "container-failed");
    let tasks = report["tasks"].as_array().unwrap();
    let all = |key: &str| {
        tasks
            .iter()
            .map(|task| task[key].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("member"), [0, 1, 2, 3]);
    assert_eq!(
        all("outcome"),
        ["published", "published", "failed", "published"]
    );
    assert!(tasks[2]["error"].as_str().unwrap().contains("no idea"));

    // What was moved, by what lies there.
    let staged = bytes(&site, "store/single_levels.zarr");
    assert!(tasks.iter().all(|task| task["bytes_in"] == staged));
    let mut published = 0;
    for member in [0, 1, 3] {
        let there = bytes(&site, &format!("published/member{member}.zarr"));
        assert_eq!(tasks[member]["bytes_out"], there);
        published += there;
    }
    let totals = &report["totals"];
    assert_eq!(totals["bytes_in"], 4 * staged);
    assert_eq!(totals["bytes_out"], published);
    assert_eq!(
        (&totals["published"], &totals["failed"]),
        (&3.into(), &1.into())
    );

    // Models ran one after the other: as long as any of them did.
    let ran_for: f64 = tasks
        .iter()
        .map(|task| task["model_seconds"].as_f64().unwrap())
        .sum();
    let model = &report["model"];
    close(&model["busy_seconds"], ran_for);
    let seconds = model["seconds"].as_f64().unwrap();
    close(&model["idle_share"], (seconds - ran_for) / seconds);
    assert_eq!(model["of_gpus"], false);
    assert!(ran_for > 3.0 * 1.2, "three slept: {ran_for}");
    assert!(report["seconds"].as_f64().unwrap() > seconds);

    // By hand: seconds at 36 an hour are a cent each, two processors at 720 an hour 40 cents.
    let run_seconds = report["seconds"].as_f64().unwrap();
    for task in tasks {
        let model_seconds = task["model_seconds"].as_f64().unwrap();
        let bytes_out = task["bytes_out"].as_u64().unwrap();
        let parts = &task["cost"]["parts"];
        close(
            &parts["machine_hour"],
            0.01 * run_seconds * model_seconds / ran_for,
        );
        close(&parts["gpu_hour"], 0.0);
        close(&parts["cpu_hour"], 0.4 * model_seconds);
        close(&parts["gb_in"], staged as f64 / 1e6);
        close(&parts["gb_out"], bytes_out as f64 / 5e5);
    }
    let total =
        0.01 * run_seconds + 0.4 * ran_for + 4.0 * staged as f64 / 1e6 + published as f64 / 5e5;
    close(&report["cost"]["total"], total);
    assert_eq!(report["cost"]["prices"]["currency"], "EUR");

    progress_of(&events(&ran.stdout), &report);

    // The same again publishes nothing: the table for people, with the summary of what has ended.
    let again = site.mlwm(&[&RUN[..], &told].concat());
    let again = again.expect(20, &["it cost", "EUR", "3 of 4 tasks published, 1 failed"]);
    assert!(
        again.stdout.contains("3 of 4 are published, 3 were before"),
        "{}",
        again.stdout
    );
    assert_eq!(
        read(&site.path("report.json"))["totals"]["already_published"],
        3
    );
    let left = site.files("");
    assert!(
        !left.iter().any(|file| file.contains(".writing-")),
        "{left:?}"
    );
    no_container_left(&site);
}

/// What is told while it runs.
fn progress_of(events: &[Value], report: &Value) {
    let told = of_kind(events, "run-progress");
    let ends: Vec<&&Value> = told
        .iter()
        .filter(|told| told["after"].is_string())
        .collect();
    assert_eq!(ends.len(), 4);
    let done =
        |told: &Value| told["published"].as_u64().unwrap() + told["failed"].as_u64().unwrap();
    assert_eq!(
        ends.iter().map(|told| done(told)).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    let first = told.iter().find(|told| told["published"] == 1).unwrap();
    assert_eq!(first["eta_from"], "this-run");
    assert!(first["eta_seconds"].as_f64().unwrap() > 1.2, "{first}");
    assert!(ends[3]["eta_seconds"].is_null(), "{}", ends[3]);
    let rates = &ends[3]["rates"];
    for name in ["stage", "publish", "seconds_per_step"] {
        assert!(rates[name].as_f64().unwrap() > 0.0, "{name}: {rates}");
    }
    // More than a second goes by after the first step of each: one of the two is told.
    let running: Vec<&Value> = told
        .iter()
        .flat_map(|told| told["running"].as_array().unwrap())
        .collect();
    assert!(!running.is_empty());
    for running in running {
        let step = running["step"].as_u64().unwrap();
        assert_eq!(running["steps"], 3);
        assert_eq!(running["lead_seconds"], step * 6 * 3600);
        assert_eq!(running["last_lead_seconds"], 18 * 3600);
    }
    let last = events.last().unwrap();
    assert_eq!(last["event"], "run-finished");
    assert_eq!(last["totals"], report["totals"]);
    assert_eq!(last["cost"], report["cost"]);
}

#[test]
fn before_the_first_success_the_ledger_says_how_long_it_takes() {
    let site = members("reports");
    let first_eta = |stdout: &str| {
        let events = events(stdout);
        let told = of_kind(&events, "run-progress");
        (told[0]["eta_from"].clone(), told[0]["eta_seconds"].clone())
    };
    let json = [&RUN[..], &["--members", "0,1", "--json"]].concat();
    let ran = site.mlwm(&json).expect(0, &[]);
    assert_eq!(first_eta(&ran.stdout), (Value::Null, Value::Null));
    fs::remove_dir_all(site.path("published")).unwrap();
    let ran = site.mlwm(&json).expect(0, &[]);
    let (from, seconds) = first_eta(&ran.stdout);
    assert_eq!(from, "earlier-runs");
    assert!(seconds.as_f64().unwrap() > 1.2, "{seconds}");
}

#[test]
fn what_cannot_be_reported_or_priced_is_refused_before_anything_is_made() {
    let site = members("reports");
    for (prices, said) in [
        ("currency: EUR\ngpu_hours: 3\n", "gpu_hour"),
        ("currency: EUR\ngb_in: -3\n", "0 or more"),
        ("currency: EUR\ngb_in: .nan\n", "line 2"),
        ("gb_in: 3\n", "currency"),
    ] {
        fs::write(site.path("prices.yaml"), prices).unwrap();
        let run = [&RUN[..], &["--prices", "prices.yaml"]].concat();
        site.mlwm(&run).expect(10, &["prices.yaml", said]);
    }
    let run = [&RUN[..], &["--prices", "none.yaml"]].concat();
    site.mlwm(&run).expect(11, &["none.yaml"]);
    for (file, said) in [("none/report.json", "none"), ("store", "store")] {
        let run = [&RUN[..], &["--report", file]].concat();
        site.mlwm(&run).expect(30, &[said]);
    }
    assert!(!site.path("mlwm-work").exists());
    site.expect_nothing_left();
}

/// What `mlwm plan --expect=json` says of its only configuration.
fn expected(site: &Site, more: &[&str]) -> Value {
    let plan = ["plan", "--analysis-time", TIME, "--expect=json"];
    let ran = site.mlwm(&[&plan[..], more].concat()).expect(0, &[]);
    assert_eq!(ran.json()["version"], 1, "the plan is on standard output");
    let expected: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(expected.as_array().unwrap().len(), 1);
    expected[0].clone()
}

#[test]
fn what_a_plan_is_expected_to_publish_is_what_is_then_published() {
    let site = Site::with_example();
    let size = |store: &str| -> u64 {
        let path = site.path(store);
        oracle("sizes.py", &[path.to_str().unwrap()])
            .trim()
            .parse()
            .unwrap()
    };
    let before = expected(&site, &[]);
    assert!(!site.path("mlwm-work").exists(), "nothing is made");
    assert_eq!((&before["tasks"], &before["steps"]), (&1.into(), &6.into()));
    for unknown in ["seconds", "phases"] {
        assert!(before[unknown].is_null(), "{unknown}: {before}");
    }
    let staged = bytes(&site, "store/single_levels.zarr");
    assert_eq!(before["bytes_in"], staged);
    site.run("danra", &[]).expect(0, &["published"]);
    let published = size("published/2022-04-07T0300Z/member0/surface.zarr");
    assert!(published > 10_000, "{published}");
    assert_eq!(before["bytes_out"], published);
    assert_eq!(before["bytes_out_from"], "interface");
    assert_eq!(before["disk"], staged + published);

    // What one task took says what many will.
    let after = expected(&site, &["--members", "0-9"]);
    assert_eq!(
        (&after["tasks"], &after["from_tasks"]),
        (&10.into(), &1.into())
    );
    assert_eq!(after["bytes_in"], 10 * staged);
    assert_eq!(after["bytes_out"], 10 * published);
    assert_eq!(after["disk"], 2 * staged + published);
    let phases = after["phases"].as_object().unwrap();
    let seconds: Vec<f64> = phases
        .values()
        .map(|seconds| seconds.as_f64().unwrap())
        .collect();
    let of = |names: &[&str]| -> f64 {
        let seconds = names.iter().map(|name| phases[*name].as_f64());
        seconds.map(Option::unwrap_or_default).sum()
    };
    let before = of(&["stage", "convert", "check", "unpack"]);
    let slowest = of(&["run"]).max(before).max(of(&["verify", "publish"]));
    close(
        &after["seconds"],
        seconds.iter().sum::<f64>() + 9.0 * slowest,
    );
    // Of another length nothing is known.
    let other = expected(&site, &["--forecast-duration", "PT36H"]);
    assert_eq!(other["bytes_out"], 2 * published);
    assert!(other["seconds"].is_null());
    let dry = [&RUN[..], &["--dry-run", "--expect"]].concat();
    site.mlwm(&dry).expect(0, &["1 task", "up to"]);

    // Windows of some hours, one variable in half the bytes.
    let more = "    variables: [t2m, u10m]
    windows: {length: PT6H, hours: 6-18, stored_as: {u10m: float16}}
time_layout: time
";
    let yaml = example_configuration().replace("member{member}", "cut{member}");
    site.configure("danra", &format!("{yaml}{more}"));
    let cut = expected(&site, &[]);
    assert_eq!(cut["windows"], 3);
    site.run("danra", &["--republish"])
        .expect(0, &["published"]);
    assert_eq!(
        cut["bytes_out"],
        size("published/2022-04-07T0300Z/cut0/surface.zarr")
    );
}

#[test]
fn an_unknown_model_is_expected_to_do_what_it_did() {
    let site = members("reports");
    let before = expected(&site, &[]);
    for unknown in ["seconds", "bytes_out", "bytes_out_from", "steps"] {
        assert!(before[unknown].is_null(), "{unknown}: {before}");
    }
    let staged = bytes(&site, "store/single_levels.zarr");
    assert_eq!(before["bytes_in"], 4 * staged);
    site.mlwm(&[&RUN[..], &["--members", "0"]].concat())
        .expect(0, &["published"]);
    let after = expected(&site, &[]);
    assert_eq!(
        after["bytes_out"],
        4 * bytes(&site, "published/member0.zarr")
    );
    assert_eq!(after["bytes_out_from"], "earlier-runs");
    let published = bytes(&site, "published/member0.zarr");
    assert_eq!(after["disk"], 2 * staged + published);
    // A ledger that cannot be read is said, and keeps no plan from being made.
    fs::write(
        site.path("mlwm-work/ledger.sqlite"),
        "no ledger, but a text of some length",
    )
    .unwrap();
    let plan = ["plan", "--analysis-time", TIME, "--expect"];
    let ran = site
        .mlwm(&plan)
        .expect(0, &["what earlier runs took is not known"]);
    assert_eq!(ran.json()["tasks"].as_array().unwrap().len(), 4);
}

#[test]
fn members_in_windows_report_the_space_they_took_and_what_was_sent_meanwhile() {
    let site = Site::new();
    let store = site.path("store");
    oracle("windows.py", &["make", store.to_str().unwrap(), "3"]);
    let yaml = format!(
        "docker_image: {}
members: 0-2
forecast_duration: PT60H
time_layout: time
inputs:
  surface: {{uri: './store/member{{member}}', internal_path: /in/surface}}
outputs:
  surface:
    uri: ./published/member{{member}}.zarr
    internal_path: /out/surface.zarr
    variables: [t2m, msl]
    windows: {{length: PT24H}}
",
        windowed("reports-cut")
    );
    site.configure("danra", &yaml);
    // Space for the inputs of a member and one window: the next one waits until that is sent.
    let report = ["--disk", "8000000", "--report", "report.json", "--json"];
    let ran = site.mlwm(&[&RUN[..], &report].concat()).expect(0, &[]);
    let events = events(&ran.stdout);
    let report = read(&site.path("report.json"));
    let disk = &report["disk"];
    let most = disk["most"].as_u64().unwrap();
    assert_eq!(disk["budget"], 8_000_000);
    // A window of three variables at 40,000 points and four steps lay there, and never more than there is room for.
    assert!((3 * 4 * 40_000 * 4..=8_000_000).contains(&most), "{most}");
    for (member, task) in report["tasks"].as_array().unwrap().iter().enumerate() {
        assert_eq!(
            task["bytes_out"],
            bytes(&site, &format!("published/member{member}.zarr"))
        );
        assert!(task["published_while_running"].as_f64().unwrap() > 0.0);
        let names = |phase: &Value| phase[0].as_str().unwrap().to_owned();
        let phases: Vec<String> = task["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(names)
            .collect();
        assert_eq!(phases, ["stage", "check", "queue", "run", "publish"]);
        // While it waits for space it does not run.
        let run = task["phases"][3][1].as_f64().unwrap();
        assert!(
            task["model_seconds"].as_f64().unwrap() <= run + 0.01,
            "{task}"
        );
    }
    // Of three windows each member waits for the second and the third at least.
    assert!(of_kind(&events, "waits-for-space").len() >= 3 * 2);
    assert!(of_kind(&events, "has-space").len() >= 3 * 2);
    let idle = &report["model"]["idle_share"];
    assert!((0.0..1.0).contains(&idle.as_f64().unwrap()), "{idle}");
    no_container_left(&site);
}

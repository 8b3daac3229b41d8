//! A model of states, which is no neural-lam model: from its ONNX file and its interface to the forecasts of an
//! ensemble, every value of which is known.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mlwm_tests::counting_proxy::{CountingProxy, Direction};
use mlwm_tests::s3::S3Server;
use mlwm_tests::scripted::no_container_left;
use mlwm_tests::site::{Ran, Site, copy, oracle, python, ran, repository};
use mlwm_tests::space::{most_taken, taken};

static SERVER: LazyLock<S3Server> = LazyLock::new(S3Server::garage);
const TIME: &str = "2026-10-01T00:00Z";

/// Packs the synthetic model, which lies in `case`.
fn build(site: &Site, more: &[&str]) -> Ran {
    let [onnx, interface] = ["checkpoint.onnx", "interface.json"].map(|name| {
        site.path(&format!("case/artifact/{name}"))
            .display()
            .to_string()
    });
    let model = [
        "artifact",
        "build",
        "aifs",
        "--onnx",
        &onnx,
        "--interface",
        &interface,
    ];
    site.mlwm(&[&model[..], more].concat())
}

/// A site with five members of the synthetic ensemble, whose image is built.
fn synthetic(image: &str) -> Site {
    synthetic_at(image, "./published", 8)
}

/// The same with another place for what is published, and so many rows of the grid in each hemisphere.
fn synthetic_at(image: &str, published: &str, rows: u32) -> Site {
    let site = Site::new();
    let case = site.path("case");
    let rows = rows.to_string();
    oracle(
        "synthetic.py",
        &["make", case.to_str().unwrap(), "--rows", &rows],
    );
    let golden = site.path("golden");
    oracle("synthetic.py", &["golden", golden.to_str().unwrap()]);
    for member in 0..5 {
        let from = case.join(format!("states/member{member:03}.zarr"));
        copy(
            &from,
            &site.path(&format!("store/2026-10-01T0000Z/member{member}.zarr")),
        );
    }
    // The golden case is on the small grid.
    let golden = ["--golden", golden.to_str().unwrap()];
    let golden = if rows == "8" { &golden[..] } else { &[] };
    build(&site, golden).expect(0, &["sha256:"]);
    let yaml = format!(
        "docker_image: mlwm-test/{image}:latest
artifact: aifs.zip
members: 0-4
forecast_duration: P33D
retries: 0
inputs:
  state: {{uri: './store/{{analysis_time}}/member{{member}}.zarr', internal_path: /in/state}}
outputs:
  fields:
    uri: {published}/{{analysis_time}}/member{{member}}.zarr
    internal_path: /out/fields.zarr
    windows: {{length: PT72H, missing: [sd]}}
  surface:
    uri: {published}/{{analysis_time}}/member{{member}}.surface.zarr
    internal_path: /out/surface.zarr
    variables: [2t, tp]
    windows: {{length: PT72H, hours: 432-792}}
"
    );
    site.configure("aifs", &yaml);
    site.mlwm(&["image", "build", "aifs"])
        .expect(0, &["sha256:"]);
    site
}

fn nothing_is_left(site: &Site) {
    for folder in ["tasks", "warm"] {
        assert_eq!(site.files(&format!("mlwm-work/{folder}")), [""; 0]);
    }
    no_container_left(site);
}

fn failed_member(ran: &Ran, member: u32) {
    let said = format!("member {member}: failed");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
}

/// From the files of the model to an image that makes the forecast of its golden case.
#[test]
fn a_model_without_datastores_is_packed_and_its_image_tested() {
    let site = synthetic("states-golden");
    site.mlwm(&["artifact", "verify", "aifs.zip"])
        .expect(0, &[]);
    let inspected = site.mlwm(&["artifact", "inspect", "aifs.zip", "--json"]);
    let inspected = inspected.expect(0, &[]).json();
    assert_eq!(inspected["datastores"], serde_json::json!([]));
    assert_eq!(inspected["interface"]["model"], "synthetic");
    let tested = site.mlwm(&["image", "test", "aifs", "--json"]);
    let tested = tested.expect(0, &[]).json();
    assert_eq!(tested["passed"], true);
    let compared = tested["report"]["variables"].as_array().unwrap();
    // Two outputs, one with 2t alone of what is expected; its noise is not.
    assert_eq!(compared.len(), 9 + 1, "{tested:#}");
    nothing_is_left(&site);

    // Its own configurations go along, and what is not a state is refused.
    let text = "variables: [2t]\n";
    fs::write(site.path("training.yaml"), text).unwrap();
    build(&site, &["--config", "training.yaml", "-o", "more.zip"]).expect(0, &["sha256:"]);
    let only = ["--only", "configs/*"];
    site.mlwm(&[&["artifact", "extract", "more.zip", "more"], &only[..]].concat())
        .expect(0, &[]);
    let packed = fs::read_to_string(site.path("more/configs/training.yaml"));
    assert_eq!(packed.unwrap(), text);
    build(
        &site,
        &[
            "--config",
            "training.yaml",
            "--config",
            "case/../training.yaml",
            "-o",
            "twice.zip",
        ],
    )
    .expect(13, &["training.yaml"]);
    fs::copy(site.path("training.yaml"), site.path("config.yaml")).unwrap();
    build(&site, &["--config", "config.yaml", "-o", "taken.zip"])
        .expect(13, &["configs/config.yaml", "--nl-config"]);
    let state = site.path("golden/inputs/state.zarr");
    let spoiled = site.path("spoiled");
    let [from, to] = [&state, &spoiled].map(|path| path.to_str().unwrap());
    oracle("synthetic.py", &["spoil", from, to, "date"]);
    fs::remove_dir_all(&state).unwrap();
    copy(&spoiled.join("date"), &state);
    build(&site, &["--golden", "golden", "-o", "wrong.zip"])
        .expect(13, &["a state that the model cannot use"]);
    for name in ["twice.zip", "taken.zip", "wrong.zip"] {
        assert!(!site.path(name).exists());
    }
}

/// Five members of 132 steps from their states to their stores, every value of which is known.
#[test]
fn the_ensemble_of_a_model_of_states_is_exact_and_made_once() {
    let site = synthetic("states");
    let run = ["run", "--analysis-time", TIME];
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
    let site = synthetic("wrong-states");
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
    let short = ["run", "--analysis-time", TIME, "--forecast-duration", "P3D"];
    site.mlwm(&short)
        .expect(10, &["the forecast has 72 hours, and 432-792"]);
    let ran = site.mlwm(&short[..3]);
    let ran = ran.expect(12, &["member1.zarr)", "member3.zarr)"]);
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
        let logs = site.files("mlwm-work/log");
        let is_of_it = |log: &String| log.contains(&format!("_member{member}."));
        assert!(!logs.iter().any(is_of_it), "no container had it: {logs:?}");
    }
    nothing_is_left(&site);
}

/// A site that publishes to a bucket through a proxy, and its run.
fn at_a_store(name: &str, rows: u32, more: [&str; 4], proxy: &CountingProxy) -> (Site, Child) {
    let mut site = synthetic_at(name, &format!("s3://{}", SERVER.bucket(name)), rows);
    for (variable, value) in SERVER.environment() {
        site.env(variable, &value);
    }
    site.env("AWS_ENDPOINT_URL", &proxy.endpoint);
    let mut run = site.command(&[&["run", "--analysis-time", TIME], &more[..]].concat());
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    (site, run.unwrap())
}

/// Brings what was published in a bucket with another client, and checks every value.
fn check_published(site: &Site, bucket: &str, rows: &str, members: &[&str]) {
    for member in members {
        let folder = site.path("brought");
        let prefix = format!("2026-10-01T0000Z/member{member}.zarr");
        let mut get = Command::new(python());
        get.arg(repository().join("tests/oracles/objects.py"))
            .args(["get", bucket, &prefix])
            .arg(&folder)
            .envs(SERVER.environment())
            .env_remove("AWS_CA_BUNDLE");
        ran(&get.output().unwrap()).expect(0, &[]);
        let manifest = fs::read(folder.join(format!("{prefix}.manifest.json"))).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let seed = manifest["seed"].to_string();
        let about = [
            "check", "--member", member, "--seed", &seed, "--steps", "132",
        ];
        let store = folder.join(&prefix);
        let place = ["--rows", rows, store.to_str().unwrap()];
        oracle("synthetic.py", &[&about[..], &place[..]].concat());
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// How long a store takes nothing.
const STALL: Duration = Duration::from_secs(30);

/// I6: the store takes nothing any more, for a while.
#[test]
fn while_uploads_stall_the_model_waits_and_keeps_within_its_space() {
    let proxy = CountingProxy::to(&SERVER.endpoint);
    proxy.hold_after(Direction::Sent, 100_000);
    let (site, run) = at_a_store("stalled", 8, ["--disk", "2MB", "--members", "0-1"], &proxy);
    let (held, waits, (ran, most)) = std::thread::scope(|scope| {
        let ended = scope.spawn(|| most_taken(&site, run));
        let held = proxy.wait_until_held(Duration::from_secs(120));
        let since = Instant::now();
        let waits = comes_to_rest(&site);
        std::thread::sleep(STALL.saturating_sub(since.elapsed()));
        let waits = waits.filter(|waits| taken(&site) == *waits);
        proxy.release();
        (held, waits, ended.join().unwrap())
    });
    ran.expect(0, &["published", "held at most"]);
    assert!(
        held && waits.is_some_and(|taken| taken > 400_000),
        "{waits:?}"
    );
    assert!(most <= 2_000_000, "{most}");
    check_published(&site, "stalled", "8", &["0", "1"]);
    nothing_is_left(&site);
}

/// What is taken of the disk when nothing is written or removed any more; `None` if that does not come.
fn comes_to_rest(site: &Site) -> Option<u64> {
    (0..10).find_map(|_| {
        let before = taken(site);
        std::thread::sleep(Duration::from_secs(3));
        (taken(site) == before).then_some(before)
    })
}

/// Five times 213 MB of output in a working folder that may hold 60 MB.
#[test]
#[ignore = "takes minutes: see ci/bench"]
fn a_gigabyte_goes_through_sixty_megabytes() {
    let proxy = CountingProxy::to(&SERVER.endpoint);
    let (site, run) = at_a_store("large", 96, ["--disk", "60MB", "--members", "0-4"], &proxy);
    let (ran, most) = most_taken(&site, run);
    ran.expect(0, &["published", "held at most"]);
    println!(
        "{} bytes sent, at most {most} on the disk",
        proxy.counts().sent
    );
    assert!(most <= 60_000_000, "{most}");
    check_published(&site, "large", "96", &["0", "1", "2", "3", "4"]);
    nothing_is_left(&site);
}

//! Stores that fail: what passes by itself is put up with, what lasts ends the run with the right
//! exit code, and nobody sees a part of a forecast.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mlwm_spec::Manifest;
use mlwm_tests::faulty::{Fault, Faulty};
use mlwm_tests::s3::S3Server;
use mlwm_tests::scripted::image;
use mlwm_tests::site::{Ran, Site, example, python, ran, repository};
use serde_json::Value;

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];

/// The example's objects, and one that is so big that it is sent in parts.
const MODEL: &str = "cp -r /in/surface.zarr/. /out/surface.zarr/; \
     head -c 9000000 /dev/zero > /out/surface.zarr/big";

/// How often one request is made: once, and 8 times again.
const TRIES: usize = 9;

static SERVER: LazyLock<S3Server> = LazyLock::new(S3Server::garage);

/// A bucket with the example's data, and a site that reads it and publishes to it.
struct Bench {
    site: Site,
    bucket: String,
    image: String,
}

impl Bench {
    fn new(bucket: &str) -> Self {
        let bench = Self {
            site: Site::with_example(),
            bucket: SERVER.bucket(bucket),
            image: image("with-a-big-object", MODEL),
        };
        let source = example("source/single_levels.zarr");
        bench.oracle(&["put", source.to_str().unwrap(), bucket, "in.zarr"]);
        bench
    }

    /// From now on the forecast is made from and published to `s3://<bucket>/<folder>/`.
    fn publish_to(&self, folder: &str) {
        let (image, bucket) = (&self.image, &self.bucket);
        let yaml = format!(
            "docker_image: {image}
inputs:
  surface: {{uri: 's3://{bucket}/in.zarr', internal_path: /in/surface.zarr}}
outputs:
  surface: {{uri: 's3://{bucket}/{folder}/out.zarr', internal_path: /out/surface.zarr}}
retries: 0
"
        );
        self.site.configure("danra", &yaml);
    }

    fn mlwm(&self, arguments: &[&str], endpoint: &str, patience: &str) -> Ran {
        let mut command = self.site.command(arguments);
        command.envs(SERVER.environment());
        command.env("AWS_ENDPOINT_URL", endpoint);
        command.env("MLWM_PATIENCE", patience);
        ran(&command.output().unwrap())
    }

    /// The run, through a proxy.
    fn run(&self, proxy: &Faulty) -> Ran {
        self.mlwm(&RUN, &proxy.endpoint, "PT1M")
    }

    /// The same command when the store is well again.
    fn run_undisturbed(&self) -> Ran {
        self.mlwm(&RUN, &SERVER.endpoint, "PT1M")
    }

    fn oracle(&self, arguments: &[&str]) -> String {
        let output = Command::new(python())
            .arg(repository().join("tests/oracles/objects.py"))
            .args(arguments)
            .envs(SERVER.environment())
            .env_remove("AWS_CA_BUNDLE")
            .output()
            .unwrap();
        ran(&output).expect(0, &[]).stdout
    }

    /// Names of the objects of a folder, by a client that is not ours.
    fn objects(&self, folder: &str) -> BTreeSet<String> {
        let listed = self.oracle(&["list", &self.bucket, &format!("{folder}/")]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Fails unless a folder holds one forecast, all of it, with the bytes of the input.
    #[track_caller]
    fn expect_published(&self, folder: &str) {
        let got = tempfile::tempdir().unwrap();
        let to = got.path().to_str().unwrap();
        self.oracle(&["get", &self.bucket, &format!("{folder}/"), to]);
        let got = got.path().join(folder);
        let manifest = std::fs::read(got.join("out.zarr.manifest.json")).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        for object in &manifest.objects {
            let bytes = std::fs::read(got.join("out.zarr").join(&object.path)).unwrap();
            let source = example("source/single_levels.zarr").join(&object.path);
            match object.path.as_str() {
                "big" => assert!(bytes == vec![0; 9_000_000]),
                path => assert!(bytes == std::fs::read(source).unwrap(), "{path}"),
            }
        }
        let mut expected: BTreeSet<String> = manifest
            .objects
            .iter()
            .map(|object| format!("{folder}/out.zarr/{}", object.path))
            .collect();
        expected.insert(format!("{folder}/out.zarr.manifest.json"));
        assert_eq!(self.objects(folder), expected);
        let uri = format!("s3://{}/{folder}/out.zarr", self.bucket);
        self.mlwm(&["verify", &uri], &SERVER.endpoint, "")
            .expect(0, &["all as published"]);
    }

    /// Fails if a folder holds what a reader could take for a forecast.
    #[track_caller]
    fn expect_unpublished(&self, folder: &str) {
        let objects = self.objects(folder);
        for name in [
            "out.zarr.manifest.json",
            "out.zarr/.zmetadata",
            "out.zarr/zarr.json",
        ] {
            assert!(!objects.contains(&format!("{folder}/{name}")), "{name}");
        }
    }

    /// State and exit code of the newest attempt, and whether its model ran.
    fn newest_attempt(&self) -> (String, Value, bool) {
        let status = ["status", "--analysis-time", TIME, "--json"];
        let status = self.mlwm(&status, &SERVER.endpoint, "").json();
        let attempts = status["tasks"][0]["attempts"].as_array().unwrap();
        let newest = attempts.last().unwrap();
        let phases = newest["phases"].as_array().unwrap();
        let state = newest["state"].as_str().unwrap().to_owned();
        let has_run = phases.iter().any(|phase| phase["name"] == "run");
        (state, newest["exit_code"].clone(), has_run)
    }
}

/// Requests for objects of the input.
fn of_input(line: &str) -> bool {
    line.starts_with("GET") && line.contains("/in.zarr/")
}

/// Requests that bring objects of the output.
fn of_output(line: &str) -> bool {
    line.starts_with("PUT") && line.contains("/out.zarr/")
}

/// A rule that applies each fault once, to each third of these requests.
fn now_and_then(
    meant: fn(&str) -> bool,
    faults: &'static [Fault],
) -> impl FnMut(&str) -> Option<Fault> + Send {
    let (mut count, mut faults) = (0, faults.iter());
    move |line| {
        count += u32::from(meant(line));
        let due = meant(line) && count % 3 == 0;
        due.then(|| faults.next().copied()).flatten()
    }
}

/// How often each request was made that met a fault.
fn faulted(proxy: &Faulty) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for (line, fault) in proxy.seen() {
        if fault.is_some() {
            *found.entry(line).or_insert(0) += 1;
        }
    }
    found
}

#[test]
fn faults_that_pass_are_put_up_with() {
    const OF_INPUT: [Fault; 8] = [
        Fault::Answer(500, None),
        Fault::Answer(503, None),
        Fault::Answer(429, Some(1)),
        Fault::CutAnswer(40),
        Fault::CutAnswer(20_000),
        Fault::ResetAnswer(0),
        Fault::ResetAnswer(20_000),
        Fault::LoseAnswer,
    ];
    const OF_OUTPUT: [Fault; 7] = [
        Fault::Answer(500, None),
        Fault::Answer(503, None),
        Fault::Answer(429, Some(1)),
        Fault::CutRequest(0),
        Fault::CutRequest(10_000),
        Fault::ResetAnswer(0),
        Fault::LoseAnswer,
    ];
    let bench = Bench::new("pass");
    let undisturbed = Faulty::to(&SERVER.endpoint, |_| None);
    bench.publish_to("undisturbed");
    bench.run(&undisturbed).expect(0, &["published"]);
    let usual = undisturbed.seen().len();

    let (mut input, mut output) = (
        now_and_then(of_input, &OF_INPUT),
        now_and_then(of_output, &OF_OUTPUT),
    );
    let proxy = Faulty::to(&SERVER.endpoint, move |line| {
        input(line).or_else(|| output(line))
    });
    bench.publish_to("disturbed");
    bench.run(&proxy).expect(0, &["published"]);
    let met = faulted(&proxy).values().sum::<usize>();
    assert_eq!(met, OF_INPUT.len() + OF_OUTPUT.len());
    // Each is asked again, and so may be what was under way; the marker is looked at all the time.
    let asked = proxy.seen().len();
    assert!(asked <= usual + 3 * met + 100, "{asked}, usually {usual}");
    bench.expect_published("disturbed");
    assert_eq!(bench.newest_attempt().0, "published");
}

#[test]
fn a_store_that_fails_for_ever_ends_the_run() {
    let bench = Bench::new("for-ever");
    for (status, of) in [(500, "in"), (429, "in"), (503, "out")] {
        let folder = format!("{of}-{status}");
        bench.publish_to(&folder);
        let meant = if of == "in" { of_input } else { of_output };
        let rule = move |line: &str| meant(line).then_some(Fault::Answer(status, None));
        let proxy = Faulty::to(&SERVER.endpoint, rule);
        let said = format!("(HTTP {status}");
        bench.run(&proxy).expect(30, &[&said, &bench.bucket]);
        for (line, times) in faulted(&proxy) {
            assert!(times <= TRIES, "{line}: {times} times");
        }
        let most = faulted(&proxy).into_values().max();
        assert_eq!(most, Some(TRIES), "it is asked again, but not for ever");
        bench.expect_unpublished(&folder);
        let (state, code, has_run) = bench.newest_attempt();
        assert_eq!((state.as_str(), code), ("failed", 30.into()));
        assert_eq!(has_run, of == "out");
    }
    // What is complete is not made again.
    bench.run_undisturbed().expect(0, &["published"]);
    bench.expect_published("out-503");
    assert!(!bench.newest_attempt().2, "the model ran again");
}

#[test]
fn a_store_that_says_nothing_ends_the_run_in_time() {
    let bench = Bench::new("silent");
    for of in ["all", "in", "out"] {
        let meant = move |line: &str| match of {
            "in" => of_input(line),
            "out" => of_output(line),
            _ => true,
        };
        bench.publish_to(of);
        let silence = Fault::Silence(Duration::from_secs(3600));
        let rule = move |line: &str| meant(line).then_some(silence);
        let proxy = Faulty::to(&SERVER.endpoint, rule);
        bench
            .mlwm(&RUN, &proxy.endpoint, "PT2S")
            .expect(30, &["did not answer in time", &bench.bucket]);
        for (line, times) in faulted(&proxy) {
            assert!(times <= TRIES, "{line}: {times} times");
        }
        bench.expect_unpublished(of);
    }
    bench.run_undisturbed().expect(0, &["published"]);
    bench.expect_published("out");
}

#[test]
fn silence_in_the_middle_is_not_waited_out() {
    let bench = Bench::new("pauses");
    bench.publish_to("out");
    // One answer of each kind never comes; that to the same request does.
    let (mut input, mut output) = (Some(()), Some(()));
    let rule = move |line: &str| {
        let met = match (of_input(line), of_output(line)) {
            (true, _) => input.take(),
            (_, true) => output.take(),
            _ => None,
        };
        met.map(|()| Fault::Silence(Duration::from_secs(3600)))
    };
    let proxy = Faulty::to(&SERVER.endpoint, rule);
    bench
        .mlwm(&RUN, &proxy.endpoint, "PT5S")
        .expect(0, &["published"]);
    assert_eq!(faulted(&proxy).values().sum::<usize>(), 2);
    bench.expect_published("out");
}

#[test]
fn a_slow_link_is_no_fault() {
    let bench = Bench::new("slow");
    bench.publish_to("out");
    // An object takes longer than a store may say nothing, and longer than requests are repeated.
    let pause = Duration::from_millis(300);
    let rule = move |line: &str| match (of_input(line), of_output(line)) {
        (true, _) => Some(Fault::Trickle(2_000, pause)),
        (_, true) => Some(Fault::LateAnswer(pause)),
        _ => None,
    };
    let proxy = Faulty::to(&SERVER.endpoint, rule);
    bench
        .mlwm(&RUN, &proxy.endpoint, "PT4S")
        .expect(0, &["published"]);
    let most = faulted(&proxy).into_values().max();
    assert_eq!(most, Some(1), "nothing was asked for twice");
    bench.expect_published("out");
}

#[test]
fn credentials_that_end_while_publishing_leave_nothing_to_be_seen() {
    let bench = Bench::new("expires");
    for (folder, fault, code) in [
        ("expired", Fault::Expired, "ExpiredToken"),
        ("forbidden", Fault::Answer(403, None), "HTTP 403"),
    ] {
        bench.publish_to(folder);
        let brought = AtomicU32::new(0);
        let rule = move |line: &str| {
            let brought = brought.fetch_add(u32::from(of_output(line)), Ordering::SeqCst);
            (brought >= 20).then_some(fault)
        };
        let proxy = Faulty::to(&SERVER.endpoint, rule);
        let complete = "the complete output is kept in";
        let said = ["refused access", code, "check the credentials", complete];
        bench.run(&proxy).expect(30, &said);
        let (asked, seen) = (faulted(&proxy).values().sum::<usize>(), proxy.seen().len());
        assert!(asked < 200, "{asked} of {seen}");
        let part = bench.objects(folder);
        assert!(
            part.iter().any(|name| name.contains("/out.zarr/")),
            "{part:?}"
        );
        bench.expect_unpublished(folder);
        let (state, code, has_run) = bench.newest_attempt();
        assert_eq!((state.as_str(), code, has_run), ("failed", 30.into(), true));

        bench.run_undisturbed().expect(0, &["published"]);
        bench.expect_published(folder);
        assert!(!bench.newest_attempt().2, "the model ran again");
    }
}

#[test]
fn credentials_that_end_while_staging_are_named() {
    let bench = Bench::new("ends");
    bench.publish_to("out");
    let mut count = 0;
    let rule = move |line: &str| {
        count += u32::from(of_input(line));
        (count > 10).then_some(Fault::Expired)
    };
    let proxy = Faulty::to(&SERVER.endpoint, rule);
    let said = ["refused access", "ExpiredToken", "/in.zarr/"];
    bench.run(&proxy).expect(30, &said);
    let (state, code, has_run) = bench.newest_attempt();
    assert_eq!(
        (state.as_str(), code, has_run),
        ("failed", 30.into(), false)
    );
    bench.expect_unpublished("out");
    bench.run_undisturbed().expect(0, &["published"]);
    bench.expect_published("out");
}

#[test]
fn a_patience_that_is_no_duration_is_refused() {
    let site = Site::with_example();
    let mut command = site.command(&RUN);
    command.env("MLWM_PATIENCE", "soon");
    let said = ["MLWM_PATIENCE is `soon`", "such as PT1M"];
    ran(&command.output().unwrap()).expect(2, &said);
}

//! The streaming mode of the contract, served by the runner and by the example in Python.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod synthetic_case;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use mlwm_spec::contract::stream::Event;
use serde_json::{Value, json};
use synthetic_case::{ANALYSIS_TIME, Case, check, oracle, python};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// Steps of 6 h: windows of 72 h, 72 h and 36 h.
const STEPS: u64 = 30;
const WINDOWS: [&str; 3] = ["h000-072", "h072-144", "h144-180"];

/// The host's side of a stream.
struct Host {
    folder: TempDir,
    child: Child,
    events: Receiver<Event>,
}

impl Host {
    fn environment(folder: &Path) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("MLWM_CONTRACT", "1".to_owned()),
            ("ANALYSIS_TIME", ANALYSIS_TIME.to_owned()),
            ("NUM_EVAL_STEPS", STEPS.to_string()),
            ("TIME_DIMENSIONS", "time".to_owned()),
            ("MLWM_STREAM", folder.to_str().unwrap().to_owned()),
        ])
    }

    /// Starts what `command` makes for a stream's environment.
    fn start(command: impl FnOnce(&BTreeMap<&str, String>) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        let mut child = command(&Self::environment(folder.path()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (send, events) = channel();
        std::thread::spawn(move || {
            let events = lines
                .map_while(Result::ok)
                .filter_map(|line| Event::parse(&line));
            events.for_each(|event| drop(send.send(event)));
        });
        Self {
            folder,
            child,
            events,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Hands over a work, complete, with leave for some windows.
    fn hand_over(&self, work: &str, member: u32, state: &Path, outputs: &Value, windows: &[&str]) {
        let making = self.path(&format!("in/.{work}"));
        fs::create_dir_all(making.join("go")).unwrap();
        let description = json!({
            "work": work, "member": member, "seed": 7, "task": format!("sha256:{member}"),
            "inputs": {"state": state}, "datastore_inputs": {}, "outputs": outputs,
        });
        fs::write(making.join("work.json"), description.to_string()).unwrap();
        for window in windows {
            fs::write(making.join("go").join(window), "").unwrap();
        }
        fs::rename(making, self.path(&format!("in/{work}"))).unwrap();
    }

    fn go(&self, work: &str, window: &str) {
        fs::write(self.path(&format!("in/{work}/go/{window}")), "").unwrap();
    }

    /// The next that is not a step.
    fn next(&self) -> Event {
        loop {
            match self.events.recv_timeout(LONG).expect("something is said") {
                Event::Step { .. } => {}
                event => return event,
            }
        }
    }

    #[track_caller]
    fn expect_windows(&self, work: &str, windows: &[&str]) {
        for window in windows {
            let (work, window) = (work.to_owned(), (*window).to_owned());
            assert_eq!(self.next(), Event::Window { work, window });
        }
    }

    #[track_caller]
    fn expect_done(&self, work: &str) {
        assert_eq!(
            self.next(),
            Event::Done {
                work: work.to_owned()
            }
        );
    }

    #[track_caller]
    fn expect_failed(&self, work: &str, part: &str) {
        match self.next() {
            Event::Failed {
                work: failed, why, ..
            } if failed == work => {
                assert!(why.contains(part), "{why}");
            }
            event => panic!("{event:?}"),
        }
    }

    fn stores(&self, work: &str, output: &str, windows: &[&str]) -> Vec<PathBuf> {
        let store = |window: &&str| self.path(&format!("out/{work}/{output}/{window}"));
        windows.iter().map(store).collect()
    }

    /// Says that no more works will come, and waits for the end.
    fn end(mut self) {
        fs::write(self.path("in/end"), "").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Has ended already, if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn outputs(host: &Host, work: &str) -> Value {
    json!([
        {"name": "all", "path": host.path(&format!("out/{work}/all")), "zarr_format": 3, "window": "PT72H"},
        {"name": "few", "path": host.path(&format!("out/{work}/few")), "variables": ["tp", "2t"]},
    ])
}

/// All windows: those of `all`, and that of `few`.
const ALL: [&str; 4] = ["h000-072", "h072-144", "h144-180", "h000-180"];

#[test]
fn one_runner_serves_many_members_with_the_model_loaded_once() {
    let case = Case::new(3);
    let wrong = case.path().join("wrong");
    fs::create_dir(&wrong).unwrap();
    oracle([
        "spoil",
        case.state(1).to_str().unwrap(),
        wrong.to_str().unwrap(),
        "date",
    ])
    .unwrap();
    let host = Host::start(|environment| case.runner(environment));

    // No window is begun before the host gives leave.
    host.hand_over(
        "0000",
        0,
        &case.state(0),
        &outputs(&host, "0000"),
        &["h000-072", "h000-180"],
    );
    host.expect_windows("0000", &WINDOWS[..1]);
    check(0, 7, 12, None, &host.stores("0000", "all", &WINDOWS[..1])).unwrap();
    assert!(!host.path("out/0000/all/.h072-144").exists());
    host.go("0000", "h072-144");
    host.expect_windows("0000", &WINDOWS[1..2]);
    // Once it is published, the host removes it.
    fs::remove_dir_all(host.path("out/0000/all/h000-072")).unwrap();
    assert!(!host.path("out/0000/all/.h144-180").exists());
    host.go("0000", "h144-180");
    host.expect_windows("0000", &["h144-180", "h000-180"]);
    host.expect_done("0000");
    check(
        0,
        7,
        30,
        Some("2t,tp"),
        &host.stores("0000", "few", &["h000-180"]),
    )
    .unwrap();

    // From here on the model cannot be loaded again.
    fs::remove_file(case.path().join("artifact/checkpoint.onnx")).unwrap();

    // Yesterday's state, an output in the way, and a work that is none, fail alone.
    host.hand_over(
        "0001",
        1,
        &wrong.join("date"),
        &outputs(&host, "0001"),
        &ALL,
    );
    host.expect_failed("0001", "2026-09-30T00:00Z");
    assert!(!host.path("out/0001").exists());
    fs::create_dir_all(host.path("out/0002/all/h072-144")).unwrap();
    host.hand_over("0002", 1, &case.state(1), &outputs(&host, "0002"), &ALL);
    host.expect_windows("0002", &WINDOWS[..1]);
    host.expect_failed("0002", "h072-144");
    assert!(!host.path("out/0002/few/.h000-180").exists());
    fs::create_dir(host.path("in/0003")).unwrap();
    host.expect_failed("0003", "work.json");

    // Several at once are served in the order of their numbers.
    host.hand_over("0005", 2, &case.state(2), &outputs(&host, "0005"), &[]);
    host.hand_over("0004", 1, &case.state(1), &outputs(&host, "0004"), &[]);
    // Whichever was seen first; neither can end before it has leave.
    for work in ["0004", "0005"] {
        ALL.iter().for_each(|window| host.go(work, window));
    }
    let mut done = Vec::new();
    while done.len() < 2 {
        match host.next() {
            Event::Done { work } => done.push(work),
            Event::Window { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    for (work, member) in [("0004", 1), ("0005", 2)] {
        check(member, 7, 30, None, &host.stores(work, "all", &WINDOWS)).unwrap();
    }
    host.end();
}

#[test]
fn windows_hold_the_same_values_as_the_whole_and_the_first_work_is_the_lowest() {
    let case = Case::new(2);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("waiting")).unwrap();
    let host = Host::start(|environment| {
        // Works that are there before the container is.
        let stream = Path::new(&environment["MLWM_STREAM"]).to_owned();
        for (work, member) in [("0001", 1u32), ("0000", 0)] {
            let path = stream.join(format!("in/{work}"));
            fs::create_dir_all(path.join("go")).unwrap();
            let out = stream.join(format!("out/{work}/all"));
            let description = json!({
                "work": work, "member": member, "seed": 9, "task": "sha256:0",
                "inputs": {"state": case.state(member)},
                "outputs": [{"name": "all", "path": out, "window": "PT72H"}],
            });
            fs::write(path.join("work.json"), description.to_string()).unwrap();
            for window in WINDOWS {
                fs::write(path.join("go").join(window), "").unwrap();
            }
        }
        case.runner(environment)
    });
    for (work, member) in [("0000", 0), ("0001", 1)] {
        host.expect_windows(work, &WINDOWS);
        host.expect_done(work);
        check(member, 9, 30, None, &host.stores(work, "all", &WINDOWS)).unwrap();
    }
    host.end();
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_runner_with_its_reason() {
    let case = Case::new(1);
    fs::write(case.path().join("artifact/checkpoint.onnx"), "no model").unwrap();
    let mut host = Host::start(|environment| case.runner(environment));
    host.hand_over("0000", 0, &case.state(0), &outputs(&host, "0000"), &ALL);
    host.expect_failed("0000", "cannot be loaded");
    let code = mlwm_spec::ExitCode::ArtifactMismatch.number();
    assert_eq!(host.child.wait().unwrap().code(), Some(i32::from(code)));
}

#[test]
fn the_example_in_python_obeys_the_mode() {
    let case = Case::new(2);
    let host = Host::start(|environment| {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/streaming/model.py");
        let mut command = python();
        command.arg(example).envs(environment);
        // It is no artifact's model: how long the forecast is says the configuration.
        command.env("FORECAST_DURATION", "PT180H");
        command.env_remove("NUM_EVAL_STEPS");
        command
    });
    let outputs = |work: &str| {
        json!([{"name": "all", "path": host.path(&format!("out/{work}/all")), "window": "PT72H",
                "variables": ["2t", "sd"]}])
    };
    host.hand_over("0000", 0, &case.state(0), &outputs("0000"), &WINDOWS[..1]);
    host.expect_windows("0000", &WINDOWS[..1]);
    assert!(!host.path("out/0000/all/.h072-144").exists());
    WINDOWS.iter().for_each(|window| host.go("0000", window));
    host.expect_windows("0000", &WINDOWS[1..]);
    host.expect_done("0000");
    host.hand_over(
        "0001",
        1,
        &case.path().join("none"),
        &outputs("0001"),
        &WINDOWS,
    );
    host.expect_failed("0001", "none");
    host.hand_over("0002", 1, &case.state(1), &outputs("0002"), &WINDOWS);
    host.expect_windows("0002", &WINDOWS);
    host.expect_done("0002");

    let script = "
import sys
import numpy as np
import xarray as xr
state, *windows = (xr.open_zarr(path).load() for path in sys.argv[1:])
forecast = xr.concat(windows, 'time')
lead = (forecast.time - state.time[-1]) / np.timedelta64(1, 'h')
np.testing.assert_array_equal(lead, np.arange(6, 181, 6))
assert set(forecast.data_vars) == {'2t', 'sd'}, forecast
for name in forecast.data_vars:
    expected = np.broadcast_to(state[name].values[-1], forecast[name].shape)
    np.testing.assert_array_equal(forecast[name].values, expected)
";
    for (work, member) in [("0000", 0), ("0002", 1)] {
        let output = python()
            .args(["-c", script])
            .arg(case.state(member))
            .args(host.stores(work, "all", &WINDOWS))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    host.end();
}

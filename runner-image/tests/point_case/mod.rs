//! A model of points (`tests/oracles/points.py`) in a folder, and the runner as a process.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

#[path = "../synthetic_case/mod.rs"]
mod synthetic_case;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mlwm_datasets::Dataset;
use serde_json::{Value, json};
pub use synthetic_case::{files, stderr};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Runs a program of the workspace; returns what it said if it failed.
fn run_python(
    script: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<(), String> {
    let script = Path::new(ROOT).join(script);
    let output = synthetic_case::python()
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(stderr(&output)),
    }
}

pub fn oracle(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(), String> {
    run_python("tests/oracles/points.py", arguments)
}

/// Checks a month of the synthetic land surface.
pub fn check_months(folder: &Path, month: &str, hours: u64) -> Result<(), String> {
    let hours = hours.to_string();
    let arguments = [folder.as_os_str(), OsStr::new(month), OsStr::new(&hours)];
    run_python("tests/oracles/land_months.py", arguments)
}

/// A step of `configurations/ai-land`.
pub fn land_emulator(program: &str, arguments: &[&str]) -> Result<(), String> {
    run_python(
        &format!("configurations/ai-land/python/{program}"),
        arguments,
    )
}

/// The real store of the ai-land project, where it lies beside the workspace.
pub fn real_store() -> Option<PathBuf> {
    let beside = Path::new(ROOT).join("../shared/cases");
    let cases = std::env::var_os("MLWM_TEST_CASES").map_or(beside, PathBuf::from);
    let store = cases.join("ai-land/ecland_cy49r2_2020_2022.zarr");
    // Where there are cases, this one is not left out.
    assert!(
        !cases.exists() || store.exists(),
        "there is no {}",
        store.display()
    );
    store.exists().then_some(store)
}

/// All values of a variable.
pub fn variable(dataset: &Dataset, name: &str) -> Vec<f64> {
    let values = dataset.variable(name).unwrap().read().unwrap();
    values.into_f64().unwrap().into_iter().collect()
}

pub struct Case {
    folder: TempDir,
}

impl Case {
    pub fn new() -> Self {
        let case = Self::empty();
        oracle(["make", case.path().to_str().unwrap()]).unwrap();
        case
    }

    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The stores of land and weather in a folder.
    pub fn stores(&self, folder: &Path) -> Value {
        json!({"land": folder.join("land"), "weather": folder.join("weather")})
    }

    /// Makes what was trained the artifact.
    pub fn take_artifact(&self, trained: &Path) {
        let artifact = self.path().join("artifact");
        fs::create_dir(&artifact).unwrap();
        fs::copy(trained.join("model.onnx"), artifact.join("checkpoint.onnx")).unwrap();
        fs::copy(
            trained.join("interface.json"),
            artifact.join("interface.json"),
        )
        .unwrap();
    }

    pub fn run(&self, environment: &BTreeMap<&str, String>) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mlwm-runner"))
            .arg("--artifact")
            .arg(self.path().join("artifact"))
            .env_clear()
            .env("ORT_DYLIB_PATH", synthetic_case::library())
            .envs(environment)
            .output()
            .unwrap()
    }

    /// Compares a forecast from the case's own stores with the loop in Python.
    pub fn check(&self, start: &str, steps: u64, out: &Path) -> Result<(), String> {
        self.compare(&self.stores(self.path()), start, steps, out)
    }

    pub fn compare(
        &self,
        stores: &Value,
        start: &str,
        steps: u64,
        out: &Path,
    ) -> Result<(), String> {
        let artifact = self.path().join("artifact");
        let rolled = self.path().join("rolled.npy");
        let (stores, steps) = (stores.to_string(), steps.to_string());
        oracle([
            OsStr::new("roll"),
            artifact.as_os_str(),
            OsStr::new(&stores),
            OsStr::new(start),
            OsStr::new(&steps),
            rolled.as_os_str(),
        ])?;
        oracle([
            OsStr::new("compare"),
            rolled.as_os_str(),
            artifact.as_os_str(),
            out.as_os_str(),
        ])
    }
}

/// The environment of a forecast from stores.
pub fn environment(
    stores: &Value,
    start: &str,
    steps: u64,
    output: &Path,
) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("MLWM_CONTRACT", "1".to_owned()),
        ("ANALYSIS_TIME", start.to_owned()),
        ("NUM_EVAL_STEPS", steps.to_string()),
        ("TIME_DIMENSIONS", "time".to_owned()),
        ("MLWM_INPUTS", stores.to_string()),
        ("MLWM_MEMBER", "0".to_owned()),
        (
            "MLWM_OUTPUTS",
            json!([{"name": "all", "path": output}]).to_string(),
        ),
    ])
}

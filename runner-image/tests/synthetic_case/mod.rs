//! The synthetic case (`tests/oracles/synthetic.py`) in a folder, and the runner as a process.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub const ANALYSIS_TIME: &str = "2026-10-01T00:00Z";

fn home() -> PathBuf {
    std::env::var_os("HOME").unwrap().into()
}

pub fn python() -> Command {
    let python = std::env::var_os("MLWM_TEST_PYTHON").map_or_else(
        || home().join(".cache/mlwm/python/bin/python"),
        PathBuf::from,
    );
    Command::new(python)
}

/// ONNX Runtime of the test environment.
pub fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let folder = home().join(".cache/mlwm/python/lib/python3.11/site-packages/onnxruntime/capi");
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let is_library = |path: &PathBuf| path.to_string_lossy().contains("libonnxruntime.so");
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(is_library).expect("ONNX Runtime is installed")
}

/// Runs the oracle; returns what it said if it failed.
pub fn oracle(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracles/synthetic.py");
    let output = python().arg(script).args(arguments).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The case with some members.
pub struct Case {
    folder: TempDir,
}

impl Case {
    pub fn new(members: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let members = members.to_string();
        let path = folder.path().to_str().unwrap();
        oracle(["make", path, "--members", members.as_str()]).unwrap();
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self, member: u32) -> PathBuf {
        self.path().join(format!("states/member{member:03}.zarr"))
    }

    /// The runner on the case's artifact.
    pub fn runner(&self, environment: &BTreeMap<&str, String>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlwm-runner"));
        command
            .arg("--artifact")
            .arg(self.path().join("artifact"))
            .env_clear()
            .env("ORT_DYLIB_PATH", library())
            .envs(environment);
        command
    }

    /// Runs one member to the end.
    pub fn run(&self, environment: &BTreeMap<&str, String>) -> Output {
        self.runner(environment).output().unwrap()
    }
}

/// The environment of one member that starts from a state and is written to `output`.
pub fn environment(
    state: &Path,
    member: u32,
    seed: u64,
    steps: u64,
    output: &Path,
) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("MLWM_CONTRACT", "1".to_owned()),
        ("ANALYSIS_TIME", ANALYSIS_TIME.to_owned()),
        ("NUM_EVAL_STEPS", steps.to_string()),
        ("TIME_DIMENSIONS", "time".to_owned()),
        (
            "MLWM_INPUTS",
            serde_json::json!({"state": state}).to_string(),
        ),
        ("MLWM_MEMBER", member.to_string()),
        ("MLWM_SEED", seed.to_string()),
        (
            "MLWM_OUTPUTS",
            serde_json::json!([{"name": "all", "path": output}]).to_string(),
        ),
    ])
}

/// Compares stores, one after the other in time, with the closed form.
pub fn check(
    member: u32,
    seed: u64,
    steps: u64,
    variables: Option<&str>,
    stores: &[PathBuf],
) -> Result<(), String> {
    let mut arguments = vec!["check".to_owned()];
    for (name, value) in [
        ("--member", u64::from(member)),
        ("--seed", seed),
        ("--steps", steps),
    ] {
        arguments.extend([name.to_owned(), value.to_string()]);
    }
    if let Some(variables) = variables {
        arguments.extend(["--variables".to_owned(), variables.to_owned()]);
    }
    arguments.extend(
        stores
            .iter()
            .map(|store| store.to_str().unwrap().to_owned()),
    );
    oracle(arguments)
}

/// Contents of all files of a folder by path.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(current).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_owned();
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    files
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

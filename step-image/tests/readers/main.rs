//! The steps that read, run as people run them: what they write is compared with what Python's libraries say of
//! the same files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod fetch;
mod grib;
mod grib_points;
mod grib_refusals;
mod grib_table;
mod joining;
mod memory;
mod metadata;
mod netcdf;
mod zarr_2;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn interpreter() -> PathBuf {
    match std::env::var_os("MLWM_TEST_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set"))
            .join(".cache/mlwm/python/bin/python"),
    }
}

/// Runs a script of Python that prints JSON.
fn python(script: &str, arguments: &[&str]) -> Value {
    printed(
        Command::new(interpreter())
            .args(["-c", script])
            .args(arguments),
    )
}

/// The same with the packages of a folder before those that are installed.
fn python_of(packages: &Path, script: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(interpreter());
    command.env("PYTHONPATH", packages).args(["-c", script]);
    printed(command.args(arguments))
}

fn printed(command: &mut Command) -> Value {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?} ({error})"));
    assert!(
        output.status.success(),
        "the script failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// The step with these arguments.
fn step(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlwm-step"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    step(arguments).output().expect("the step can be run")
}

/// Runs a step that must succeed.
fn succeed(arguments: &[&str]) {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a step that must fail with a code and write nothing; what it says.
fn refuse(arguments: &[&str], code: i32, target: &Path) -> String {
    let before = entries(target.parent().unwrap());
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(before, entries(target.parent().unwrap()), "{said}");
    said
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

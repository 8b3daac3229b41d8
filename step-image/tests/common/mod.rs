//! Helps tests to run the command, and to ask Python (xarray, zarr, numpy) for data and answers.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub(crate) mod kills;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command with these arguments.
pub(crate) fn step(arguments: &[&str], paths: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlwm-step"));
    command.args(arguments).args(paths);
    command
}

/// Runs the command, which has to succeed; returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the command, which has to fail; returns its exit code and message.
pub(crate) fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded");
    (output.status.code().unwrap(), stderr(&output))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a Python script; returns what it printed.
pub(crate) fn python(script: &str, paths: &[&Path]) -> String {
    let interpreter = match std::env::var_os("MLWM_TEST_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/mlwm/python/bin/python")
        }
    };
    let output = Command::new(&interpreter)
        .arg("-c")
        .arg(script)
        .args(paths)
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "cannot run {} ({error}): set MLWM_TEST_PYTHON to a Python with xarray and zarr",
            interpreter.display()
        )
    });
    assert!(
        output.status.success(),
        "the script failed:\n{}",
        stderr(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The files below a folder with their content, by relative path.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Asserts that two stores have the same files with the same bytes.
pub(crate) fn assert_same_files(one: &Path, other: &Path) {
    let (one, other) = (files(one), files(other));
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        other.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &one {
        assert!(bytes == &other[name], "{} differs", name.display());
    }
}

/// What is in a folder besides stores: nothing may be left of an attempt that failed.
pub(crate) fn left_over(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

/// Runs the command to its end; returns the most memory that it had, in bytes.
pub(crate) fn peak_memory(command: &mut Command) -> u64 {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) << 10);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    peak
}

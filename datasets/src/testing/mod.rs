//! Helps tests to ask Python (xarray and zarr-python) what a Zarr store holds.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The Python interpreter with xarray, zarr and numpy: `MLWM_TEST_PYTHON`, or the one that the
/// setup of the project installs.
fn interpreter() -> PathBuf {
    match std::env::var_os("MLWM_TEST_PYTHON") {
        Some(path) => path.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set"))
            .join(".cache/mlwm/python/bin/python"),
    }
}

/// Runs a script and returns what it printed; fails the test if it fails.
pub(crate) fn python(script: &str, arguments: &[&Path]) -> String {
    let interpreter = interpreter();
    let output = Command::new(&interpreter)
        .arg("-c")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {} ({error}): set MLWM_TEST_PYTHON to a Python with xarray and zarr",
                interpreter.display()
            )
        });
    assert!(
        output.status.success(),
        "the script failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("Python prints UTF-8")
}

/// Runs a script that prints JSON.
pub(crate) fn python_json(script: &str, arguments: &[&Path]) -> Value {
    serde_json::from_str(&python(script, arguments)).expect("the script prints JSON")
}

/// The files below a folder with their content, by relative path.
pub(crate) fn files(folder: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut files = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it is below").to_owned();
                files.insert(name, std::fs::read(&path).expect("the file can be read"));
            }
        }
    }
    files
}

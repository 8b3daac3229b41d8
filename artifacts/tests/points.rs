//! An artifact of a model of points: ONNX, interface and golden case, without datastores.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::fs;
use std::path::Path;

use common::{case, python, replace, request, succeeded};
use mlwm_artifacts::{Artifact, BuildRequest, Inspection, build};
use mlwm_spec::ExitCode;

/// Runs a command of the oracle of models of points.
fn oracle(arguments: &[&Path]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracles/points.py");
    let run = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')";
    let all: Vec<&Path> = [script.as_path()]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    succeeded(&python(run, &all));
}

/// The model with its golden case in a folder, and what an artifact is built from there.
fn model(folder: &Path) -> BuildRequest {
    for command in ["make", "golden"] {
        oracle(&[Path::new(command), folder]);
    }
    BuildRequest {
        name: "points".to_owned(),
        onnx: Some(folder.join("artifact/checkpoint.onnx")),
        interface: Some(folder.join("artifact/interface.json")),
        golden: Some(folder.join("golden")),
        output: folder.join("output"),
        ..BuildRequest::default()
    }
}

#[test]
fn a_model_of_points_is_packed_with_its_golden_case() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&model(folder.path())).unwrap();
    let artifact = Artifact::open(&built.path).unwrap();
    let interface = artifact.interface().unwrap().unwrap();
    assert_eq!(interface.version, 3);
    assert!(interface.points.is_some() && interface.validate().is_ok());
    assert!(
        artifact.contains("golden/inputs/weather.zarr/.zmetadata")
            || artifact.contains("golden/inputs/weather.zarr/zarr.json")
    );
    let inspected = Inspection::of(&artifact).unwrap();
    assert!(inspected.datastores.is_empty() && inspected.interface.is_some());
}

#[test]
fn what_does_not_fit_a_model_of_points_is_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let request = model(folder);
    let refused = |request: &BuildRequest, expected: &str| {
        let error = build(request).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(expected),
            "expected `{expected}` in: {message}"
        );
        assert_eq!(error.exit_code(), ExitCode::ArtifactMismatch, "{message}");
        assert!(!folder.join("output").exists(), "something was written");
    };
    let interface = folder.join("artifact/interface.json");
    let told = fs::read_to_string(&interface).unwrap();
    for (from, to, expected) in [
        (
            r#""input": "table""#,
            r#""input": "rows""#,
            "`rows`, the ONNX model has table",
        ),
        (
            r#"{"name": "lai", "role": "forcing"}, "#,
            "",
            "has shape [point?, 7], the interface makes it [any number of points, 6]",
        ),
        (
            r#""lower": 0.0, "upper": 0.5"#,
            r#""lower": 1.0, "upper": 0.5"#,
            "bounds of `swvl1`",
        ),
        (
            r#""name": "met_rainf""#,
            r#""name": "met_snowf""#,
            "no variable `met_snowf`",
        ),
    ] {
        replace(&interface, from, to);
        refused(&request, expected);
        fs::write(&interface, &told).unwrap();
    }
    let golden = folder.join("golden/case.yaml");
    let told = fs::read_to_string(&golden).unwrap();
    for (from, to, expected) in [
        (r#""weather": {}"#, r#""other": {}"#, "`weather`"),
        ("PT18H", "PT17H", "no whole number of steps"),
        ("2020-02-01", "2020-02-19", "steps are possible"),
    ] {
        replace(&golden, from, to);
        if from.contains("weather") {
            fs::rename(
                folder.join("golden/inputs/weather.zarr"),
                folder.join("golden/inputs/other.zarr"),
            )
            .unwrap();
        }
        refused(&request, expected);
        if from.contains("weather") {
            fs::rename(
                folder.join("golden/inputs/other.zarr"),
                folder.join("golden/inputs/weather.zarr"),
            )
            .unwrap();
        }
        fs::write(&golden, &told).unwrap();
    }
    let with_datastores = BuildRequest {
        onnx: request.onnx.clone(),
        interface: request.interface.clone(),
        ..self::request(&case(), &folder.join("output"))
    };
    refused(&with_datastores, "reads no datastores");
    let fixed = folder.join("fixed.onnx");
    oracle(&[Path::new("fixed"), &fixed, Path::new("7")]);
    let fixed = BuildRequest {
        onnx: Some(fixed),
        ..request
    };
    refused(
        &fixed,
        "has shape [7, 7], the interface makes it [any number of points, 7]",
    );
}

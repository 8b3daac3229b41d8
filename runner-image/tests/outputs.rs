//! What the runner writes: physical values in the layout of the source, as xarray reads them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod case;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use case::{
    CaseArtifact, case_folder, environment, floats, interface, largest_difference, library, source,
    task,
};
use mlwm_datasets::Dataset;
use mlwm_runner::{RunnerError, Timing};
use mlwm_spec::ExitCode;
use serde_json::{Value, json};

/// Runs a task; returns what it logged.
fn run(
    artifact: &CaseArtifact,
    environment: &std::collections::BTreeMap<String, String>,
) -> Result<(Timing, Vec<String>), RunnerError> {
    let lines = Mutex::new(Vec::new());
    let log = |line: &str| lines.lock().unwrap().push(line.to_owned());
    let timing = mlwm_runner::run(&task(environment), artifact.path(), &library(), &log)?;
    Ok((timing, lines.into_inner().unwrap()))
}

/// What xarray says of a dataset.
fn xarray(path: &Path) -> Value {
    let python = std::env::var_os("MLWM_TEST_PYTHON").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/mlwm/python/bin/python"),
        Into::into,
    );
    let script = r#"
import json, sys, warnings
import xarray as xr
warnings.simplefilter("error", xr.SerializationWarning)
ds = xr.open_zarr(sys.argv[1], consolidated=True, decode_timedelta=True)
print(json.dumps({
    "variables": {k: [list(v.dims), str(v.dtype), {a: str(b) for a, b in v.attrs.items()}] for k, v in ds.data_vars.items()},
    "coords": {k: [list(v.dims), v.values.astype("datetime64[s]").astype(str).tolist() if v.dtype.kind == "M"
                   else (v.values.astype("timedelta64[s]").astype("i8").tolist() if v.dtype.kind == "m"
                   else v.values.ravel()[:3].tolist())] for k, v in ds.coords.items()},
    "chunks": {k: [list(c) for c in v.chunks] for k, v in ds.data_vars.items() if v.chunks},
    "attrs": ds.attrs,
}))
"#;
    let output = Command::new(python)
        .args(["-c", script])
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_forecast_is_that_of_neural_lam_in_the_layout_of_the_source() {
    let artifact = CaseArtifact::new();
    let folder = tempfile::tempdir().unwrap();
    for format in [2, 3] {
        let path = folder.path().join(format!("v{format}.zarr"));
        fs::create_dir(&path).unwrap(); // As a mount is.
        let mut environment = environment(&source(), &path);
        let outputs = json!([{"name": "forecast", "path": path, "zarr_format": format}]);
        environment.insert("MLWM_OUTPUTS".into(), outputs.to_string());
        let (timing, lines) = run(&artifact, &environment).unwrap();
        let progress: Vec<&String> = lines.iter().filter(|l| l.starts_with("::mlwm ")).collect();
        assert_eq!(progress.len(), 6);
        assert_eq!(progress[5], r#"::mlwm {"step":6,"of":6}"#);
        assert!(
            timing.line().starts_with("timing: {\"steps\":6,"),
            "{}",
            timing.line()
        );
        assert!(timing.peak_rss.unwrap() > 1 << 20);
        println!("{}", timing.line());

        let oracle = Dataset::open(&case_folder().join("oracle/graph_lam/forecast.zarr")).unwrap();
        let forecast = Dataset::open(&path).unwrap();
        for name in ["t2m", "u10m", "v10m"] {
            let (expected, found) = (
                oracle.variable(name).unwrap(),
                forecast.variable(name).unwrap(),
            );
            assert_eq!(found.dims(), expected.dims());
            assert_eq!(
                found.text_attribute("units"),
                expected.text_attribute("units")
            );
            assert_eq!(
                found.text_attribute("long_name"),
                expected.text_attribute("long_name")
            );
            let difference = largest_difference(&floats(&forecast, name), &floats(&oracle, name));
            println!("zarr v{format}, {name}: differs by at most {difference:e}");
            assert!(difference <= 1e-4, "{name}: {difference}");
        }
        for name in ["x", "y"] {
            assert_eq!(floats(&forecast, name), floats(&oracle, name));
        }
        assert_eq!(
            forecast.times("time").unwrap(),
            oracle.times("time").unwrap()
        );
    }
}

#[test]
fn xarray_reads_times_coordinates_and_provenance() {
    let artifact = CaseArtifact::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forecast.zarr");
    run(&artifact, &environment(&source(), &path)).unwrap();
    let found = xarray(&path);
    assert_eq!(found["variables"]["t2m"][0], json!(["time", "y", "x"]));
    assert_eq!(found["variables"]["t2m"][1], "float32");
    assert_eq!(found["variables"]["t2m"][2]["units"], "K");
    assert_eq!(found["variables"].as_object().unwrap().len(), 3);
    assert_eq!(
        found["chunks"]["u10m"],
        json!([[1, 1, 1, 1, 1, 1], [28], [30]])
    );
    let coords = &found["coords"];
    assert_eq!(coords["time"][1][0], "2022-04-07T06:00:00");
    assert_eq!(coords["time"][1][5], "2022-04-07T21:00:00");
    assert_eq!(coords["analysis_time"], json!([[], "2022-04-07T03:00:00"]));
    let hours: Vec<i64> = (1..=6).map(|step| step * 10_800).collect();
    assert_eq!(
        coords["elapsed_forecast_duration"],
        json!([["time"], hours])
    );
    assert_eq!(coords["lat"][0], json!(["y", "x"]));
    assert!(coords["x"].is_array() && coords["y"].is_array() && coords["lon"].is_array());
    let attrs = &found["attrs"];
    assert_eq!(attrs["Conventions"], "CF-1.11");
    assert_eq!(attrs["artifact"], "tiny-graph-lam");
    assert_eq!(attrs["mlwm_task"], "sha256:0123");
    assert_eq!((&attrs["member"], &attrs["seed"]), (&json!(0), &json!(42)));
    assert_eq!(attrs["analysis_time"], "2022-04-07T03:00Z");
}

#[test]
fn the_same_task_writes_the_same_bytes() {
    let artifact = CaseArtifact::new();
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.zarr", "b.zarr"].map(|name| folder.path().join(name));
    for path in &paths {
        run(&artifact, &environment(&source(), path)).unwrap();
    }
    let difference = Command::new("diff")
        .arg("-r")
        .args(&paths)
        .output()
        .unwrap();
    assert!(
        difference.status.success(),
        "{}",
        String::from_utf8_lossy(&difference.stdout)
    );
}

#[test]
fn outputs_take_a_subset_and_unknown_variables_are_refused() {
    let artifact = CaseArtifact::new();
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.zarr"), folder.path().join("b.zarr"));
    let mut environment = environment(&source(), &first);
    let mut ask = |variables: Value| {
        let outputs = json!([
            {"name": "wind", "path": first, "variables": ["v10m", "u10m"]},
            {"name": "other", "path": second, "variables": variables}
        ]);
        environment.insert("MLWM_OUTPUTS".into(), outputs.to_string());
        run(&artifact, &environment)
    };
    let error = ask(json!(["t2m", "t3m"])).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::BadConfiguration);
    assert!(
        error.to_string().contains("t3m") && error.to_string().contains("t2m, u10m"),
        "{error}"
    );
    ask(json!(["t2m"])).unwrap();
    let (wind, other) = (
        Dataset::open(&first).unwrap(),
        Dataset::open(&second).unwrap(),
    );
    assert!(wind.contains("u10m") && wind.contains("v10m") && !wind.contains("t2m"));
    assert!(other.contains("t2m") && !other.contains("u10m"));
    let error = ask(json!(["t2m"])).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Conflict);
}

#[test]
fn a_model_that_does_not_match_its_interface_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let environment = environment(&source(), &folder.path().join("out.zarr"));
    let mut renamed = interface();
    renamed.inputs[0].name = "previous".into();
    let mut wide = interface();
    if let mlwm_spec::interface::InputRole::Forcing { future, .. } = &mut wide.inputs[2].role {
        *future = 2;
    }
    let mut output = interface();
    output.outputs[0].name = "state".into();
    let mut missing = interface();
    missing.inputs.remove(1);
    for (wrong, says) in [
        (renamed, "prev_state"),
        (wide, "[1, 840, 16]"),
        (output, "`state`"),
        (missing, "prev_prev_state"),
    ] {
        let error = run(&CaseArtifact::with(&wrong, |c| c), &environment).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::ArtifactMismatch, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was left behind"
    );
}

#[test]
fn a_gpu_that_cannot_be_used_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut environment = environment(&source(), &folder.path().join("out.zarr"));
    environment.insert("MLWM_GPUS".into(), "1".into());
    let error = run(&CaseArtifact::new(), &environment).unwrap_err();
    assert!(error.to_string().contains("a GPU was asked for"), "{error}");
    assert_eq!(error.exit_code(), ExitCode::EngineUnavailable);
}

#[test]
fn the_command_reports_and_classifies() {
    let artifact = CaseArtifact::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.zarr");
    let mut environment = environment(&source(), &path);
    let command = |environment: &std::collections::BTreeMap<String, String>| {
        let output = Command::new(env!("CARGO_BIN_EXE_mlwm-runner"))
            .args(["--artifact".as_ref(), artifact.path()])
            .envs(environment)
            .env("ORT_DYLIB_PATH", library())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, stdout, stderr) = command(&environment);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("\n::mlwm {\"step\":1,\"of\":6}\n"),
        "{stdout}"
    );
    assert!(
        stdout.lines().last().unwrap().starts_with("timing: "),
        "{stdout}"
    );
    assert!(path.join("zarr.json").is_file());

    environment.insert("NUM_EVAL_STEPS".into(), "60".into());
    environment.remove("FORECAST_DURATION");
    let (code, _, stderr) = command(&environment);
    assert_eq!(
        code,
        Some(i32::from(ExitCode::InputMissing.number())),
        "{stderr}"
    );
    assert!(
        stderr.starts_with("error: ") && stderr.trim().lines().count() == 1,
        "{stderr}"
    );
    assert!(stderr.contains("9 of 60 steps"), "{stderr}");
}

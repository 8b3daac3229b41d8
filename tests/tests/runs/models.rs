//! Other architectures, grids, feature lists, windows, layouts and numbers of datastores than the
//! example's, from artifact to published forecast, without a change of code. The oracles are
//! neural-lam's own forecasts (see `tests/cases/README.md`).

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use mlwm_spec::yaml;
use mlwm_tests::site::{Site, oracle, repository};
use serde_json::Value;

fn case_folder(name: &str) -> PathBuf {
    repository().join("tests/cases").join(name)
}

/// Builds the case's artifact and image, runs every forecast, compares every feature.
fn forecast(name: &str) {
    let folder = case_folder(name);
    let text = fs::read_to_string(folder.join("case.yaml")).unwrap();
    let case: Value = yaml::parse(&text, "case.yaml").unwrap();
    let path = |key: &str| {
        folder
            .join(case[key].as_str().unwrap())
            .display()
            .to_string()
    };
    let site = Site::new();
    let (config, arguments) = (path("nl_config"), path("training_args"));
    let (onnx, interface) = (path("onnx"), path("interface"));
    site.mlwm(&[
        "artifact",
        "build",
        name,
        "--nl-config",
        &config,
        "--training-args",
        &arguments,
        "--onnx",
        &onnx,
        "--interface",
        &interface,
    ])
    .expect(0, &["sha256:"]);

    let layout = case["time_layout"].as_str().unwrap();
    let mut yaml = format!(
        "docker_image: mlwm-test/{name}:latest\nartifact: {name}.zip\ntime_layout: {layout}\ninputs:\n"
    );
    for (index, (source, fed)) in case["inputs"].as_object().unwrap().iter().enumerate() {
        writeln!(yaml, "  input{index}:").unwrap();
        writeln!(
            yaml,
            "    uri: file://{}",
            folder.join(source).canonicalize().unwrap().display()
        )
        .unwrap();
        writeln!(yaml, "    internal_path: /volume/inputs/{index}.zarr").unwrap();
        writeln!(yaml, "    datastore_inputs: {fed}").unwrap();
    }
    yaml.push_str("outputs:\n  forecast:\n    uri: ./published/{analysis_time}.zarr\n    internal_path: /volume/outputs/forecast.zarr\n");
    site.configure(name, &yaml);
    site.mlwm(&["image", "build", name]).expect(0, &["sha256:"]);

    let step = step_seconds(&folder, &case);
    let duration = format!("PT{}S", step * case["steps"].as_i64().unwrap());
    for entry in case["forecasts"].as_array().unwrap() {
        let time = entry["analysis_time"].as_str().unwrap();
        site.mlwm(&[
            "run",
            "--analysis-time",
            time,
            "--forecast-duration",
            &duration,
        ])
        .expect(0, &["published"]);
        let published = site.path(&format!("published/{}.zarr", time.replace(':', "")));
        let arguments = [folder.to_str().unwrap(), time, published.to_str().unwrap()];
        println!("{name} {time}\n{}", oracle("compare_case.py", &arguments));
    }
}

fn step_seconds(folder: &std::path::Path, case: &Value) -> i64 {
    let text = fs::read_to_string(folder.join(case["interface"].as_str().unwrap())).unwrap();
    let facts: Value = serde_json::from_str(&text).unwrap();
    facts["step_seconds"].as_i64().unwrap()
}

#[test]
fn every_case() {
    let mut names: Vec<String> = fs::read_dir(repository().join("tests/cases"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("case.yaml").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        forecast(&name);
    }
}

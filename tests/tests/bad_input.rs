//! A user gives something wrong. Each time: a clear error, before a container starts or an output
//! exists; nothing is published, nothing is left in the working folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mlwm_tests::site::{Site, example_configuration, oracle};

/// Runs `danra` and expects this exit code and these texts, and that no container was started.
#[track_caller]
fn refused(site: &Site, code: i32, texts: &[&str]) {
    site.run("danra", &[]).expect(code, texts);
    site.expect_nothing_left();
    assert_eq!(
        site.files("mlwm-work/log"),
        Vec::<String>::new(),
        "a container was started"
    );
}

/// The example's configuration with one text replaced by another.
fn changed(from: &str, to: &str) -> Site {
    let site = Site::with_example();
    let yaml = example_configuration();
    assert!(yaml.contains(from), "{from}");
    site.configure("danra", &yaml.replace(from, to));
    site
}

/// The example with its source data changed by `tests/oracles/spoil.py`.
fn spoiled(how: &[&str]) -> Site {
    let site = Site::with_example();
    let path = site.path("store/single_levels.zarr");
    let mut arguments = vec![path.to_str().unwrap()];
    arguments.extend(how);
    oracle("spoil.py", &arguments);
    site
}

#[test]
fn unknown_key_names_the_nearest_key_and_the_line() {
    let site = changed("forecast_duration: PT18H", "forecast_durration: PT18H");
    refused(
        &site,
        10,
        &["forecast_durration", "forecast_duration`", "line 3"],
    );
}

#[test]
fn missing_field() {
    let site = changed("    internal_path: /volume/inputs/single_levels.zarr\n", "");
    refused(&site, 10, &["config.yaml", "internal_path"]);
}

#[test]
fn ill_typed_field() {
    let site = changed(
        "forecast_duration: PT18H",
        "forecast_duration: eighteen hours",
    );
    refused(
        &site,
        10,
        &["config.yaml", "line 3", "eighteen hours", "ISO 8601"],
    );
}

#[test]
fn unknown_configuration() {
    let site = Site::with_example();
    site.run("danra2", &[]).expect(10, &["danra2", "danra"]);
}

#[test]
fn duration_that_is_no_whole_number_of_steps() {
    refused(&changed("PT18H", "PT17H"), 10, &["PT17H", "10800 s"]);
}

#[test]
fn datastore_input_that_nothing_feeds() {
    refused(
        &changed("danra.danra_forcing, ", ""),
        10,
        &["danra.danra_forcing", "datastore_inputs"],
    );
}

#[test]
fn analysis_time_absent_from_the_data() {
    let site = Site::with_example();
    site.mlwm(&[
        "run",
        "--analysis-time",
        "2031-01-01T00:00Z",
        "--model",
        "danra",
    ])
    .expect(11, &["2031-01-01T00:00Z", "single_levels"]);
    site.expect_nothing_left();
}

#[test]
fn too_few_steps_says_how_many_are_possible() {
    let site = Site::with_example();
    site.run("danra", &["--forecast-duration", "P5D"])
        .expect(11, &["2022-04-08T09:00Z"]);
    site.expect_nothing_left();
}

#[test]
fn missing_variable() {
    refused(&spoiled(&["drop", "u10m"]), 11, &["u10m", "t2m"]);
}

#[test]
fn nan_in_an_input() {
    refused(&spoiled(&["nan", "t2m"]), 12, &["t2m", "2022-04-07T"]);
}

#[test]
fn shifted_grid() {
    refused(&spoiled(&["shift", "x"]), 12, &["grid"]);
}

#[test]
fn wrong_time_step() {
    refused(&spoiled(&["thin", "time"]), 11, &["2022-04-07T"]);
}

#[test]
fn truncated_chunk_of_an_input() {
    let site = Site::with_example();
    let chunk = site.path("store/single_levels.zarr/t2m/4.0.0");
    let bytes = fs::read(&chunk).unwrap();
    fs::write(&chunk, &bytes[..bytes.len() / 2]).unwrap();
    refused(&site, 12, &["t2m"]);
}

#[test]
fn truncated_artifact() {
    let site = Site::with_example();
    let bytes = fs::read(site.path("danra.zip")).unwrap();
    fs::write(site.path("danra.zip"), &bytes[..bytes.len() - 1000]).unwrap();
    refused(&site, 13, &["danra.zip"]);
    site.mlwm(&["artifact", "verify", "danra.zip"])
        .expect(13, &["danra.zip"]);
}

#[test]
fn tampered_artifact() {
    let site = Site::with_example();
    let mut bytes = fs::read(site.path("danra.zip")).unwrap();
    // In the middle of the largest members.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(site.path("danra.zip"), bytes).unwrap();
    site.mlwm(&["artifact", "verify", "danra.zip"])
        .expect(13, &["checkpoint"]);
    // It is not what the image was made from.
    refused(&site, 13, &["mlwm image build danra"]);
}

#[test]
fn artifact_that_is_not_the_pinned_one() {
    let pin = format!("artifact: danra.zip@sha256:{}", "0".repeat(64));
    refused(
        &changed("artifact: danra.zip", &pin),
        13,
        &["pins", "danra.zip"],
    );
}

#[test]
fn image_missing() {
    let site = changed("mlwm-test/danra:latest", "mlwm-test/no-such-image:latest");
    refused(
        &site,
        14,
        &["mlwm-test/no-such-image:latest", "mlwm image build danra"],
    );
}

#[test]
fn image_that_holds_no_artifact() {
    let site = changed("mlwm-test/danra:latest", "mlwm-base:bookworm");
    refused(&site, 13, &["mlwm-base:bookworm", "mlwm image build danra"]);
}

#[test]
fn variable_that_the_model_does_not_predict() {
    let site = Site::with_example();
    site.configure(
        "danra",
        &format!("{}    variables: [t2m, snow]\n", example_configuration()),
    );
    refused(&site, 10, &["`snow`", "t2m, u10m, v10m"]);
}

#[test]
fn engine_not_reachable_says_how_to_start_it() {
    let mut site = Site::with_example();
    site.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    refused(&site, 15, &["/nonexistent/docker.sock", "start"]);
}

#[test]
fn gpu_where_the_engine_has_none() {
    let site = changed(
        "forecast_duration: PT18H",
        "forecast_duration: PT18H\nresources: {gpus: 1}",
    );
    refused(&site, 15, &["GPU"]);
}

/// A program `nvidia-smi` of the site, before all others, that says this.
fn with_nvidia_smi(site: &mut Site, answer: &str) {
    let folder = site.path("bin");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("nvidia-smi");
    let asked =
        "--query-gpu=index,uuid,name,memory.total,memory.free --format=csv,noheader,nounits";
    fs::write(
        &program,
        format!("#!/bin/sh\n[ \"$*\" = '{asked}' ] || exit 9\n{answer}\n"),
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    site.env("PATH", &format!("{}:{path}", folder.display()));
}

#[test]
fn gpu_without_the_memory_that_the_model_needs() {
    let mut site = changed(
        "forecast_duration: PT18H",
        "forecast_duration: PT18H\nresources: {gpus: 1, gpu_memory: 40GB}",
    );
    let gpus = |free: u32| {
        format!("echo '0, GPU-a, One, 81559, {free}'; echo '1, GPU-b, Two, 81559, 81000'")
    };
    with_nvidia_smi(&mut site, &gpus(38_146));
    let ran = site.run("danra", &["--json"]).expect(15, &[]);
    assert!(!ran.stdout.contains("task-again"), "{}", ran.stdout);
    refused(
        &site,
        15,
        &["GPU 0 (One, GPU-a)", "38146 MiB", "40GB", "no container"],
    );
    with_nvidia_smi(&mut site, "echo 'NVIDIA-SMI has failed'; exit 9");
    refused(&site, 15, &["NVIDIA-SMI has failed"]);
    // With enough it is the engine that is asked, which has none.
    with_nvidia_smi(&mut site, &gpus(38_147));
    refused(&site, 15, &["nvidia-ctk"]);
    fs::remove_file(site.path("bin/nvidia-smi")).unwrap();
    let only = site.path("bin").display().to_string();
    site.env("PATH", &only);
    refused(&site, 15, &["nvidia-smi", "cannot be run", "gpu_memory"]);
}

#[test]
fn input_that_is_not_there() {
    let site = changed(
        "uri: ./store/single_levels.zarr",
        "uri: ./store/pressure_levels.zarr",
    );
    refused(&site, 11, &["store/pressure_levels.zarr"]);
}

#[test]
fn store_that_is_not_reachable() {
    let mut site = changed(
        "uri: ./store/single_levels.zarr",
        "uri: s3://forecasts/single_levels.zarr",
    );
    site.env("AWS_ACCESS_KEY_ID", "key");
    site.env("AWS_SECRET_ACCESS_KEY", "secret");
    site.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    refused(&site, 30, &["http://127.0.0.1:9"]);
}

#[test]
fn two_outputs_at_one_place() {
    let site = changed("member{member}/", "");
    site.run("danra", &["--members", "0-1"])
        .expect(10, &["member 0", "member 1", "surface.zarr"]);
    site.expect_nothing_left();
}

#[test]
fn disk_full() {
    let site = Site::with_example();
    // A file system of its own, smaller than the input.
    let small = site.path("small");
    fs::create_dir(&small).unwrap();
    let mount = |arguments: &[&str]| {
        let done = std::process::Command::new(arguments[0])
            .args(&arguments[1..])
            .status()
            .unwrap();
        assert!(
            done.success(),
            "{arguments:?}: this test mounts a file system and needs root"
        );
    };
    let folder = small.to_str().unwrap();
    mount(&["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder]);
    let ran = site.run("danra", &["--workdir", "small"]);
    let left = site.files("small/tasks");
    mount(&["umount", folder]);
    ran.expect(30, &["bytes free", "small/tasks"]);
    // The next attempt goes on there.
    let staging = |file: &String| file.contains(".surface.mlwm-staging/");
    assert!(left.iter().all(staging), "{left:?}");
    site.expect_nothing_left();
}

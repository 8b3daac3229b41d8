use super::*;
use crate::dataset_path::Number;

/// A configuration that uses every key.
const FULL: &str = "\
docker_image: registry.example/model:1
artifact: artifacts/tiny.zip@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
base_image: mlwm/runner:latest
inputs:
  danra:
    uri: s3://bucket/{analysis_time}/danra.zarr
    internal_path: /volume/inputs/danra.zarr
    datastore_inputs: [danra.danra_surface, danra.danra_forcing]
  levels:
    uri_args:
      bbox: {lon_min: -10.0, lat_min: 50, lon_max: 10.0, lat_max: 60.0}
      resolution: {lon_resolution: 2.5, lat_resolution: 2.5, unit: km}
      data_kind: pressure_levels
      model_name: harmonie
      model_config: dini
      bucket_name: forecast-data-public
    internal_path: /volume/inputs/levels.zarr
outputs:
  forecast:
    uri: file:///data/{analysis_time}/member{member}/forecast.zarr
    internal_path: /volume/outputs/forecast.zarr
    variables: [t2m, u10m]
    ranges:
      t2m: [180, 340]
    zarr_format: 2
forecast_duration: PT18H
time_layout: forecast
members: 0-3
resources:
  gpus: [nvidia.com/gpu=0]
  cpus: 2
  memory: 4GiB
  shm_size: 1073741824
timeout: PT1H
retries:
  infrastructure: 3
  out_of_memory: 1
environment:
  OMP_NUM_THREADS: 2
  GREETING: hello
artifact_delivery: mount
";

/// The same as DMI's deployment repository has for its dummy model, in other words.
const DEPLOYED: &str = "\
docker_image: ghcr.io/example/model1:latest

inputs:
  levels:
    uri_args:
      bbox:
        lon_min: -10.0
        lat_min: 50.0
        lon_max: 10.0
        lat_max: 60.0
      resolution:
        lon_resolution: 2.5
        lat_resolution: 2.5
        unit: km
      data_kind: pressure_levels
      model_name: harmonie
      model_config: dini
      bucket_name: public-data
    internal_path: /volume/inputs/dini/pressure_levels.zarr

outputs:
  levels:
    internal_path: /volume/output/pressure_levels.zarr
    uri_args:
      bbox:
        lon_min: -10.0
        lat_min: 50.0
        lon_max: 10.0
        lat_max: 60.0
      resolution:
        lon_resolution: 2.5
        lat_resolution: 2.5
        unit: km
      data_kind: pressure_levels
      model_name: model1
      model_config: FakeDINI+FakeIFS
      bucket_name: public-data
";

fn read(text: &str) -> Configuration {
    Configuration::parse(text, "config.yaml").unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    Configuration::parse(text, "config.yaml")
        .unwrap_err()
        .to_string()
}

/// [`FULL`] with one text replaced.
fn altered(from: &str, to: &str) -> String {
    assert_eq!(FULL.matches(from).count(), 1, "{from}");
    FULL.replace(from, to)
}

#[test]
fn every_key_is_read() {
    let configuration = read(FULL);
    assert_eq!(
        configuration.docker_image.as_deref(),
        Some("registry.example/model:1")
    );
    assert_eq!(
        configuration.forecast_duration.map(Period::seconds),
        Some(64_800)
    );
    assert_eq!(configuration.timeout.map(Period::seconds), Some(3_600));
    assert_eq!(configuration.time_layout, Some(TimeLayout::Forecast));
    let members: Vec<u32> = configuration
        .members
        .iter()
        .flat_map(Members::iter)
        .collect();
    assert_eq!(members, [0, 1, 2, 3]);
    let resources = &configuration.resources;
    assert_eq!(
        resources.gpus,
        Some(Gpus::Devices(vec!["nvidia.com/gpu=0".into()]))
    );
    assert_eq!(resources.cpus, Some(2.0));
    assert_eq!(resources.memory, Some(ByteSize(4 << 30)));
    assert_eq!(resources.shm_size, Some(ByteSize(1 << 30)));
    assert_eq!(configuration.environment["OMP_NUM_THREADS"], "2");
    assert_eq!(configuration.outputs["forecast"].zarr_format, Some(2));
    let bbox = configuration.inputs["levels"]
        .uri_args
        .as_ref()
        .unwrap()
        .bbox;
    assert_eq!(
        (bbox.lat_min, bbox.lat_max),
        (Number::Integer(50), Number::Float(60.0))
    );
    let order: Vec<&String> = configuration.inputs.keys().collect();
    assert_eq!(order, ["danra", "levels"]);
}

#[test]
fn other_ways_to_write_values() {
    for (from, to) in [
        ("members: 0-3", "members: 7"),
        ("members: 0-3", "members: '1-5,7,10-12'"),
        ("gpus: [nvidia.com/gpu=0]", "gpus: 1"),
        ("gpus: [nvidia.com/gpu=0]", "gpus: all"),
        ("cpus: 2", "cpus: 0.5"),
        ("memory: 4GiB", "memory: 512MiB"),
        ("time_layout: forecast", "time_layout: time"),
        ("GREETING: hello", "GREETING: true"),
        ("docker_image:", "image:"),
    ] {
        read(&altered(from, to));
    }
    let one = read(&altered("gpus: [nvidia.com/gpu=0]", "gpus: all"));
    assert_eq!(one.resources.gpus, Some(Gpus::One("all".into())));
    let count = "gpus: 1\n  gpu_memory: 40GB";
    let count = read(&altered("gpus: [nvidia.com/gpu=0]", count));
    assert_eq!(count.resources.gpus, Some(Gpus::Count(1)));
    assert_eq!(count.resources.gpu_memory, Some(ByteSize(40_000_000_000)));
    let image = read(&altered("docker_image:", "image:"));
    assert_eq!(image.image_reference("x"), "registry.example/model:1");
}

#[test]
fn an_artifact_in_a_registry_is_read() {
    let pinned = format!("s3://bucket/models/tiny:v2@{}", Digest::of(""));
    let configuration = read(&altered(
        &format!("artifacts/tiny.zip@{}", Digest::of("")),
        &pinned,
    ));
    assert_eq!(configuration.artifact.unwrap().to_string(), pinned);
}

#[test]
fn a_configuration_survives_json() {
    let configuration = read(FULL);
    let text = serde_json::to_string(&configuration).unwrap();
    assert_eq!(
        serde_json::from_str::<Configuration>(&text).unwrap(),
        configuration
    );
}

#[test]
fn a_deployed_configuration_is_read_unchanged() {
    let mut texts = vec![DEPLOYED.to_owned()];
    // The file of the deployment repository itself, where it lies beside the workspace.
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/cases/dmi/config.yaml"
    );
    texts.extend(std::fs::read_to_string(file));
    let time = "2025-09-22T12:00Z".parse().unwrap();
    for text in texts {
        let configuration = read(&text);
        let input = configuration.inputs.values().next().unwrap();
        let bucket = &input.uri_args.as_ref().unwrap().bucket_name;
        let expected = format!(
            "s3://{bucket}/harmonie/dini/w-10p0_s50p0_e10p0_n60p0/dx2p5km_dy2p5km/\
             2025-09-22T1200Z/member0/pressure_levels.zarr"
        );
        assert_eq!(input.uri(time, 0), Ok(expected));
        let output = configuration
            .outputs
            .values()
            .next()
            .unwrap()
            .uri(time, 4)
            .unwrap();
        assert!(output.contains("/FakeDINI+FakeIFS/"), "{output}");
        assert!(
            output.ends_with("/2025-09-22T1200Z/member4/pressure_levels.zarr"),
            "{output}"
        );
    }
}

#[test]
fn what_is_wrong_is_told_with_line_and_key() {
    let cases: Vec<&str> = include_str!("refusals.txt").split("\n\n").skip(1).collect();
    assert!(cases.len() > 60);
    for case in cases {
        let line = |sign: &str| {
            let found = case.lines().find_map(|line| line.strip_prefix(sign));
            found.unwrap_or_default().replace("\\n", "\n")
        };
        let error = refusal(&altered(&line("- "), &line("+ ")));
        assert_eq!(error, line("> "), "{case}");
    }
    let missing = "config.yaml: `outputs`: there is no output: add at least one";
    assert_eq!(refusal("inputs: {}\n"), missing);
    let none = "config.yaml, line 2: `outputs`: there is no output: add at least one";
    assert_eq!(refusal("inputs: {}\noutputs: {}\n"), none);
}

#[test]
fn places_and_mount_points_that_only_look_alike_are_kept() {
    for (from, to) in [
        (
            "file:///data/{analysis_time}/member{member}/forecast.zarr",
            "s3://bucket/{analysis_time}/danra.zarr{member}",
        ),
        (
            "file:///data/{analysis_time}/member{member}/forecast.zarr",
            "s3://bucket/{analysis_time:%Y%m%d}/{member:03}.zarr",
        ),
        (
            "internal_path: /volume/inputs/danra.zarr",
            "internal_path: /volume/inputs/levels.zarr2",
        ),
        (
            "internal_path: /volume/inputs/danra.zarr",
            "internal_path: /workspaces/danra.zarr",
        ),
    ] {
        read(&altered(from, to));
    }
}

#[test]
fn all_broken_rules_are_told_at_once() {
    let text = FULL
        .replace("cpus: 2", "cpus: 0")
        .replace("zarr_format: 2", "zarr_format: 1");
    let Err(ConfigurationError::Rules(violations)) = Configuration::parse(&text, "x") else {
        panic!("accepted");
    };
    let keys: Vec<(&str, Option<u64>)> = violations
        .iter()
        .map(|v| (v.key.as_str(), v.line))
        .collect();
    assert_eq!(
        keys,
        [
            ("outputs.forecast.zarr_format", Some(25)),
            ("resources.cpus", Some(31))
        ]
    );
}

#[test]
fn the_image_of_a_configuration_is_an_oci_reference() {
    let configuration = read(&FULL.replace("docker_image: registry.example/model:1\n", ""));
    for (name, reference) in [
        (
            "surface-dummy-model_DINI",
            "mlwm/surface-dummy-model_dini:latest",
        ),
        ("FakeDINI+FakeIFS", "mlwm/fakedini-fakeifs:latest"),
        ("_a..b--c.", "mlwm/a-b-c:latest"),
        ("v1.2", "mlwm/v1.2:latest"),
        ("\u{c5}land", "mlwm/land:latest"),
        ("+", "mlwm/model:latest"),
    ] {
        assert_eq!(configuration.image_reference(name), reference);
    }
}

#[test]
fn the_schema_knows_every_key_and_refuses_others() {
    let schema = Configuration::json_schema();
    let written = serde_json::to_value(read(FULL)).unwrap();
    for key in written
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .chain(["image"])
    {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
    assert_eq!(schema["additionalProperties"], Value::Bool(false));
    assert_eq!(schema["$defs"]["Input"]["oneOf"][1]["required"][0], "uri");
}

#[test]
fn the_digest_is_that_of_the_bytes() {
    assert_eq!(Configuration::digest(FULL), Digest::of(FULL.as_bytes()));
    assert_ne!(
        Configuration::digest(FULL),
        Configuration::digest(&format!("{FULL}\n"))
    );
}

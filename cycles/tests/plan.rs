//! Plans are made of configurations and artifacts alone: no disk, no clock, no network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mlwm_cycles::{ArtifactFacts, Error, Loaded, PlanOptions, plan};
use mlwm_spec::contract::{parse_input_paths, parse_outputs};
use mlwm_spec::interface::{
    Features, Grid, InputRole, Interface, ModelInput, ModelOutput, Source, Standardization,
};
use mlwm_spec::{AnalysisTime, Configuration, DatastoreConfig, Digest, ExitCode, yaml};

const DATASTORE: &str = "
schema_version: v0.6.0
dataset_version: v0.1.0
output:
  variables:
    state: [time, grid_index, state_feature]
inputs:
  surface:
    path: a.zarr
    dims: [time, x, y]
    variables: [t2m]
    dim_mapping:
      time: {method: rename, dim: time}
      grid_index: {method: stack, dims: [x, y]}
      state_feature: {method: stack_variables_by_var_name, name_format: '{var_name}'}
    target_output_variable: state
";

const CONFIGURATION: &str = "
artifact: model.zip
forecast_duration: PT18H
inputs:
  surface:
    uri: s3://bucket/{analysis_time}/surface.zarr
    internal_path: /volume/inputs/surface.zarr
    datastore_inputs: [danra.surface]
outputs:
  surface:
    uri: s3://bucket/out/{analysis_time}/member{member}.zarr
    internal_path: /volume/outputs/surface.zarr
    variables: [t2m]
";

fn facts(datastore: &str) -> ArtifactFacts {
    let config: DatastoreConfig = yaml::parse(datastore, "danra.datastore.yaml").unwrap();
    let state = |name: &str, steps_back| ModelInput::new(name, InputRole::state(steps_back));
    ArtifactFacts {
        name: "model".into(),
        path: "model.zip".into(),
        digest: Digest::of("model"),
        interface: Some(Interface {
            version: 1,
            model: None,
            step_seconds: 10_800,
            standardization: Standardization::Statistics,
            statistics_split: "train".into(),
            input_state: None,
            points: None,
            program: None,
            state: Features {
                sources: vec![Source {
                    datastore: "danra".into(),
                    variable: "state".into(),
                }],
                names: vec!["t2m".into()],
            },
            grid: Grid {
                dims: vec!["x".into(), "y".into()],
                shape: vec![30, 28],
                coordinates: Vec::new(),
            },
            boundary_width: 4,
            inputs: vec![state("prev_state", 0), state("prev_prev_state", 1)],
            outputs: vec![ModelOutput::next_state("new_state")],
            attributes: Default::default(),
        }),
        datastores: vec![("danra".into(), config)],
        held: None,
    }
}

fn loaded(yaml: &str, artifact: Option<ArtifactFacts>) -> Loaded {
    Loaded {
        name: "model".into(),
        digest: Digest::of(yaml),
        configuration: Configuration::parse(yaml, "config.yaml").unwrap(),
        artifact,
        parts: Default::default(),
    }
}

fn time() -> AnalysisTime {
    "2022-04-07T03:00Z".parse().unwrap()
}

#[test]
fn a_task_has_all_that_its_container_is_told() {
    let model = loaded(CONFIGURATION, Some(facts(DATASTORE)));
    let made = plan(&[model], &[time()], &PlanOptions::default()).unwrap();
    let [task] = made.tasks.as_slice() else {
        panic!("{made:?}")
    };
    assert_eq!(
        task.inputs[0].uri,
        "s3://bucket/2022-04-07T0300Z/surface.zarr"
    );
    assert_eq!(
        task.outputs[0].uri,
        "s3://bucket/out/2022-04-07T0300Z/member0.zarr"
    );
    let env = |name: &str| task.environment[name].as_str();
    assert_eq!(env("ANALYSIS_TIME"), "2022-04-07T03:00Z");
    assert_eq!(env("FORECAST_DURATION"), "PT18H");
    assert_eq!(env("NUM_EVAL_STEPS"), "6");
    assert_eq!(env("TIME_DIMENSIONS"), "time");
    assert_eq!(env("MLWM_CONTRACT"), "1");
    let paths = parse_input_paths(env("DATASTORE_INPUT_PATHS")).unwrap();
    assert_eq!(paths[0].path, "/volume/inputs/surface.zarr");
    let outputs = parse_outputs(env("MLWM_OUTPUTS")).unwrap();
    assert_eq!(
        outputs[0].variables.as_deref(),
        Some(&["t2m".to_owned()][..])
    );
    assert_eq!(task.image, "mlwm/model:latest");
    let steps = task.steps.clone().unwrap();
    let valid: Vec<i64> = steps.valid_times(0).collect();
    assert_eq!(valid, [3, 6, 9, 12, 15, 18].map(|hours| hours * 3600));
}

#[test]
fn the_same_configurations_give_the_same_plan() {
    let text = || {
        let model = loaded(CONFIGURATION, Some(facts(DATASTORE)));
        serde_json::to_string(&plan(&[model], &[time()], &PlanOptions::default()).unwrap()).unwrap()
    };
    assert_eq!(text(), text());
}

#[test]
fn forecast_shaped_datastores_start_after_their_first_states() {
    let forecast = DATASTORE.replace(
        "[time, grid_index",
        "[analysis_time, elapsed_forecast_duration, grid_index",
    );
    let model = loaded(CONFIGURATION, Some(facts(&forecast)));
    let made = plan(&[model], &[time()], &PlanOptions::default()).unwrap();
    let task = &made.tasks[0];
    assert_eq!(
        task.environment["TIME_DIMENSIONS"],
        "analysis_time,elapsed_forecast_duration"
    );
    assert_eq!(task.steps.clone().unwrap().first_lead_seconds, 2 * 10_800);
}

#[test]
fn members_are_tasks_of_their_own() {
    let options = PlanOptions {
        members: Some("0-2".parse().unwrap()),
        ..PlanOptions::default()
    };
    let model = loaded(CONFIGURATION, Some(facts(DATASTORE)));
    let made = plan(&[model], &[time()], &options).unwrap();
    let seeds: std::collections::BTreeSet<u64> = made.tasks.iter().map(|t| t.seed).collect();
    assert_eq!((made.tasks.len(), seeds.len()), (3, 3));
    assert!(made.tasks[2].outputs[0].uri.ends_with("member2.zarr"));
}

/// The same configuration with its output as GRIB, in windows of 6 h.
fn as_grib(more: &str) -> String {
    format!(
        "{CONFIGURATION}    windows: {{length: PT6H, grib: {{prefix: x}}}}\ntime_layout: time\n{more}"
    )
}

#[test]
fn what_a_configuration_does_not_say_is_not_in_its_tasks() {
    let planned = |more: &str| {
        let model = loaded(&format!("{CONFIGURATION}{more}"), Some(facts(DATASTORE)));
        let made = plan(&[model], &[time()], &PlanOptions::default()).unwrap();
        serde_json::to_value(&made.tasks[0]).unwrap()
    };
    let (plain, told) = (planned(""), planned("deterministic: true\n"));
    let environment = &plain["environment"];
    assert!(environment.get("MLWM_DETERMINISTIC").is_none());
    assert_eq!(told["environment"]["MLWM_DETERMINISTIC"], "1");
    let gpus = planned("resources: {gpus: 1}\n");
    assert_eq!(gpus["resources"], serde_json::json!({"gpus": 1}));
    let memory = planned("resources: {gpus: 1, gpu_memory: 40GB}\n");
    assert_eq!(memory["resources"]["gpu_memory"], "40GB");
    // Not in what the container is told, and so in no identity but by the file that says it.
    assert_eq!(memory["environment"], gpus["environment"]);
}

#[test]
fn files_of_grib_say_how_many_members_there_are_whichever_are_asked_for() {
    let size = |more: &str, members: Option<&str>| {
        let options = PlanOptions {
            members: members.map(|members| members.parse().unwrap()),
            ..PlanOptions::default()
        };
        let yaml = as_grib(more).replace("{prefix: x}", "{prefix: x, bits_per_value: 12}");
        let model = loaded(&yaml, Some(facts(DATASTORE)));
        let made = plan(&[model], &[time()], &options).unwrap();
        let windows = made.tasks[0].outputs[0].windows.clone().unwrap();
        let grib = windows.grib.unwrap();
        assert_eq!(grib.bits_per_value, 12);
        grib.ensemble_size
    };
    assert_eq!(size("members: 0-49\n", None), Some(50));
    assert_eq!(size("members: 0-49\n", Some("3")), Some(50));
    assert_eq!(size("", Some("0-4")), None);
    assert_eq!(size("", None), None);
}

#[track_caller]
fn refused(yaml: &str, options: &PlanOptions, texts: &[&str]) -> Error {
    let model = loaded(yaml, Some(facts(DATASTORE)));
    let error = plan(&[model], &[time()], options).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::BadConfiguration);
    for text in texts {
        assert!(error.to_string().contains(text), "{error}");
    }
    error
}

#[test]
fn grib_has_lead_times_in_whole_hours() {
    let mut half = facts(DATASTORE);
    half.interface.as_mut().unwrap().step_seconds = 1800;
    let model = loaded(&as_grib(""), Some(half));
    let error = plan(&[model], &[time()], &PlanOptions::default()).unwrap_err();
    assert!(error.to_string().contains("whole hours"), "{error}");
}

#[test]
fn what_cannot_be_run_is_refused() {
    let none = PlanOptions::default();
    refused(
        &CONFIGURATION.replace("PT18H", "PT17H"),
        &none,
        &["PT17H", "10800 s"],
    );
    refused(
        &CONFIGURATION.replace("forecast_duration: PT18H\n", ""),
        &none,
        &["forecast_duration"],
    );
    refused(
        &CONFIGURATION.replace("    datastore_inputs: [danra.surface]\n", ""),
        &none,
        &["danra.surface", "datastore_inputs"],
    );
    refused(
        &CONFIGURATION.replace("danra.surface", "danra.surfaces"),
        &none,
        &["danra.surfaces", "danra.surface"],
    );
    let members = PlanOptions {
        members: Some("0-1".parse().unwrap()),
        ..PlanOptions::default()
    };
    refused(
        &CONFIGURATION.replace("member{member}", "all"),
        &members,
        &["member 0", "member 1"],
    );
}

#[test]
fn a_configuration_without_an_artifact_leaves_the_steps_to_its_image() {
    let yaml = CONFIGURATION
        .replace("artifact: model.zip\n", "docker_image: example/model:1\n")
        .replace("forecast_duration: PT18H\n", "");
    let made = plan(&[loaded(&yaml, None)], &[time()], &PlanOptions::default()).unwrap();
    let task = &made.tasks[0];
    assert_eq!(task.image, "example/model:1");
    assert!(!task.environment.contains_key("NUM_EVAL_STEPS"));
    assert!(!task.environment.contains_key("FORECAST_DURATION"));
}

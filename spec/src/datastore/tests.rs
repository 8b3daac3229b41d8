use serde_json::json;

use super::*;
use crate::yaml;

const DANRA: &str = include_str!("../cases/danra.datastore.yaml");
const NEURAL_LAM: &str = include_str!("../cases/neural-lam.yaml");

/// Selections, attributes and ranges, as mllam-data-prep's own example has them.
const LEVELS: &str = "\
schema_version: v0.5.0
dataset_version: v0.1.0
output:
  variables:
    state: [time, grid_index, state_feature]
inputs:
  height_levels:
    path: https://example.org/height_levels.zarr
    dims: [time, x, y, altitude]
    variables:
      u:
        altitude:
          values: [100, 50.5]
          units: m
      v:
        altitude:
          values: 100
      w:
        altitude:
          values: {start: 0, end: 100, step: 10}
      t:
    attributes:
      expver: 1
    coord_ranges:
      x: {start: -50000.0, end: 50000}
    dim_mapping:
      time: {method: rename, dim: time}
      state_feature:
        method: stack_variables_by_var_name
        dims: [altitude]
        name_format: \"{var_name}{altitude}m\"
      grid_index: {method: stack, dims: [x, y]}
    target_output_variable: state
";

#[test]
fn a_datastore_configuration_is_read() {
    let config: DatastoreConfig = yaml::parse(DANRA, "danra.datastore.yaml").unwrap();
    assert!(SCHEMA_VERSIONS.contains(&config.schema_version.as_str()));
    assert_eq!(
        config.output.variables["state"],
        ["time", "grid_index", "state_feature"]
    );
    let range = &config.output.coord_ranges.as_ref().unwrap()["time"];
    assert_eq!(
        (&range.start, &range.step),
        (&json!("2022-04-01T00:00"), &Some(json!("PT3H")))
    );
    let split = &config.output.splitting.as_ref().unwrap().splits["train"];
    assert_eq!(split.end, json!("2022-04-05T09:00"));
    assert_eq!(
        split.compute_statistics.as_ref().unwrap().ops,
        ["mean", "std", "diff_mean", "diff_std"]
    );
    let inputs: Vec<&String> = config.inputs.keys().collect();
    assert_eq!(inputs, ["danra_surface", "danra_forcing", "danra_static"]);
    let forcing = &config.inputs["danra_forcing"];
    assert_eq!(
        forcing.variables,
        Some(Variables::Names(vec!["swavr0m".into()]))
    );
    let derived = forcing.derived_variables.as_ref().unwrap();
    let names: Vec<&String> = derived.keys().collect();
    assert_eq!(
        names,
        ["toa_radiation", "hour_of_day_sin", "day_of_year_cos"]
    );
    assert_eq!(derived["hour_of_day_sin"].kwargs["component"], json!("sin"));
    assert_eq!(
        forcing.dim_mapping["forcing_feature"]
            .name_format
            .as_deref(),
        Some("{var_name}")
    );
    let extra = config.extra.unwrap();
    assert_eq!(
        extra["projection"]["kwargs"]["standard_parallels"],
        json!([56.7, 56.7])
    );
    assert_eq!(
        extra["projection"]["kwargs"]["globe"]["semimajor_axis"],
        json!(6_367_470.0)
    );
}

#[test]
fn selections_of_levels_are_read() {
    let config: DatastoreConfig = yaml::parse(LEVELS, "levels.datastore.yaml").unwrap();
    let input = &config.inputs["height_levels"];
    let Some(Variables::Selections(variables)) = &input.variables else {
        panic!("{:?}", input.variables);
    };
    let altitude = |name: &str| &variables[name].as_ref().unwrap()["altitude"];
    assert_eq!(
        altitude("u").values,
        SelectedValues::List(vec![100.0, 50.5])
    );
    assert_eq!(altitude("u").units.as_deref(), Some("m"));
    assert_eq!(altitude("v").values, SelectedValues::One(100.0));
    let SelectedValues::Range(range) = &altitude("w").values else {
        panic!("{:?}", altitude("w"));
    };
    assert_eq!((&range.start, &range.end), (&json!(0), &json!(100)));
    assert_eq!(variables["t"], None);
    assert_eq!(input.attributes.as_ref().unwrap()["expver"], json!(1));
    assert_eq!(
        input.coord_ranges.as_ref().unwrap()["x"].start,
        json!(-50000.0)
    );
}

#[test]
fn configurations_survive_json() {
    for text in [DANRA, LEVELS] {
        let config: DatastoreConfig = yaml::parse(text, "test").unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<DatastoreConfig>(&json).unwrap(),
            config
        );
    }
}

#[test]
fn what_does_not_fit_is_told_with_line_and_key() {
    for (text, from, to, told) in [
        (
            DANRA,
            "    target_output_variable: static",
            "    target_output_var: static",
            "x, line 93: in `inputs.danra_static`, `target_output_var` is not a known key: did you mean `target_output_variable`?",
        ),
        (
            DANRA,
            "dims: [grid_index, time]",
            "dim: [grid_index, time]",
            "x, line 24: in `output.splitting.splits.train.compute_statistics`, `dim` is not a known key: did you mean `dims`?",
        ),
        (
            DANRA,
            "variables: [t2m, u10m, v10m]",
            "variables: 3",
            "x, line 36: `inputs.danra_surface.variables`: expected a list of variable names, or variables with selections",
        ),
        (
            DANRA,
            "variables: [orography, lsm]",
            "variables: {lsm: {level: {value: 3}}}",
            "x, line 85: `inputs.danra_static.variables`: expected a list of variable names",
        ),
        (
            DANRA,
            "schema_version: v0.6.0\n",
            "",
            "x: the key `schema_version` is missing",
        ),
        (
            DANRA,
            "  chunking:\n    time: 12",
            "  chunking:\n    time: many",
            "x, line 15: `output.chunking.time`: the value does not fit: write a whole number",
        ),
        (
            LEVELS,
            "values: 100\n",
            "values: high\n",
            "x, line 11: `inputs.height_levels.variables`: expected a list of variable names",
        ),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        let error = yaml::parse::<DatastoreConfig>(&text.replace(from, to), "x")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(told),
            "told:     {error}\nexpected: {told}"
        );
    }
}

#[test]
fn datastores_are_named_by_the_neural_lam_configuration() {
    let config: NeuralLamConfig = yaml::parse(NEURAL_LAM, "config.yaml").unwrap();
    let named = config.named_datastores().unwrap();
    assert_eq!(named.len(), 1);
    assert_eq!(
        (named[0].0.as_str(), named[0].1.config_path.as_str()),
        ("danra", "danra.datastore.yaml")
    );
    assert_eq!(
        config.rest["training"]["state_feature_weighting"]["weights"]["t2m"],
        json!(1.0)
    );

    let several = "datastores:\n  b: {kind: mdp, config_path: configs/x.yaml}\n  a: {kind: mdp, config_path: y.yaml}\n";
    let config: NeuralLamConfig = yaml::parse(several, "config.yaml").unwrap();
    let names: Vec<String> = config
        .named_datastores()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn wrongly_named_datastores_are_refused() {
    let refusal = |text: &str| {
        let config: NeuralLamConfig = yaml::parse(text, "config.yaml").unwrap();
        config.named_datastores().map(|_| ()).unwrap_err()
    };
    assert_eq!(refusal("training: {}\n"), DatastoreNamesError::None);
    assert_eq!(refusal("datastores: {}\n"), DatastoreNamesError::None);
    let one = "datastore: {kind: mdp, config_path: a.yaml}\n";
    assert_eq!(
        refusal(&format!("{one}datastores: {{}}\n")),
        DatastoreNamesError::Both
    );
    assert!(matches!(
        refusal(&one.replace("mdp", "npyfilesmeps")),
        DatastoreNamesError::Kind { .. }
    ));
    assert_eq!(
        refusal(&one.replace("a.yaml", "a.b.yaml")),
        DatastoreNamesError::Name("a.b".into())
    );
}

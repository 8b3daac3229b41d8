//! What does not fit together is not packed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::fs;
use std::path::Path;

use common::{copy_of_case, python, replace, request, succeeded};
use mlwm_artifacts::{Artifact, BuildRequest, build};
use mlwm_spec::ExitCode;

const FACTS: &str = "onnx/graph_lam.json";
const DATASTORE: &str = "train/danra.datastore.yaml";

/// Builds from a copy of the case after a change, which must fail with this exit code and a
/// message that has `expected` in it, and leave nothing behind.
fn refused(change: impl FnOnce(&Path, &mut BuildRequest), code: ExitCode, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let output = folder.path().join("output");
    let mut request = request(&copy, &output);
    change(&copy, &mut request);
    let error = build(&request).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains(expected),
        "expected `{expected}` in: {message}"
    );
    assert_eq!(error.exit_code(), code, "{message}");
    assert!(!output.exists(), "something was written");
}

/// Replaces text in one file of the case.
fn edited(file: &str, from: &str, to: &str, code: ExitCode, expected: &str) {
    refused(
        |case, _| replace(&case.join(file), from, to),
        code,
        expected,
    );
}

#[test]
fn facts_that_contradict_the_training_run() {
    let mismatch = ExitCode::ArtifactMismatch;
    for (from, to, expected) in [
        (
            "\"t2m\",\n  \"u10m\"",
            "\"u10m\",\n  \"t2m\"",
            "state features of the interface are [u10m, t2m, v10m]",
        ),
        ("\"swavr0m\",", "", "forcing features"),
        ("\"orography\",", "", "static features"),
        (
            "\"num_past_forcing_steps\": 1",
            "\"num_past_forcing_steps\": 2",
            "[1, 840, 16]",
        ),
        (
            "\"step_seconds\": 10800",
            "\"step_seconds\": 3600",
            "time step of PT3H",
        ),
        (
            "\"step_seconds\": 10800",
            "\"step_seconds\": 0",
            "must be positive",
        ),
        (
            "\"num_grid_nodes\": 840",
            "\"num_grid_nodes\": 841",
            "840 points",
        ),
        (
            "\"x\": 30,\n  \"y\": 28",
            "\"x\": 42,\n  \"y\": 20",
            "is {x: 42, y: 20}, the training dataset has {x: 30, y: 28}",
        ),
        ("\"x\",\n  \"y\"\n", "\"y\",\n  \"x\"\n", "grid"),
        (
            "\"n_boundary_points\": 4",
            "\"n_boundary_points\": 14",
            "copy of its input",
        ),
        ("278.2523193359375", "278.25", "another training run"),
        ("0.02255978062748909", "0.02256", "`forcing_std`"),
    ] {
        edited(FACTS, from, to, mismatch, expected);
    }
}

/// neural-lam 0.7 calls the length of the first stacked dimension `x`, whatever its name.
#[test]
fn lengths_of_the_grid_are_those_of_the_training_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let swapped = "\"x\": 28,\n  \"y\": 30";
    replace(&copy.join(FACTS), "\"x\": 30,\n  \"y\": 28", swapped);
    let built = build(&request(&copy, folder.path())).unwrap();
    let artifact = Artifact::open(&built.path).unwrap();
    let grid = artifact.interface().unwrap().unwrap().grid;
    assert_eq!((&grid.dims[0][..], &grid.shape[..]), ("x", &[30, 28][..]));
    assert_eq!(grid.coordinates[0].len(), 30);
}

#[test]
fn a_window_that_the_model_was_not_trained_with() {
    let arguments = "train/training_cli_args.yaml";
    let mismatch = ExitCode::ArtifactMismatch;
    edited(
        arguments,
        "num_past_forcing_steps: 1",
        "num_past_forcing_steps: 2",
        mismatch,
        "trained with `num_past_forcing_steps` 2",
    );
    edited(
        arguments,
        "num_future_forcing_steps: 1",
        "num_future_forcing_steps: 0",
        mismatch,
        "trained with `num_future_forcing_steps` 0",
    );
    edited(
        arguments,
        "num_future_forcing_steps: 1",
        "num_future_forcing_steps: one",
        ExitCode::BadConfiguration,
        "whole number",
    );
    edited(
        arguments,
        "- model: graph_lam",
        "- model: [",
        ExitCode::BadConfiguration,
        "training_cli_args.yaml",
    );
}

#[test]
fn datastore_configurations_that_did_not_make_the_training_dataset() {
    let mismatch = ExitCode::ArtifactMismatch;
    edited(
        DATASTORE,
        "[t2m, u10m, v10m]",
        "[u10m, t2m, v10m]",
        mismatch,
        "its configuration makes [u10m, t2m, v10m]",
    );
    edited(
        DATASTORE,
        "[swavr0m]",
        "[swavr0m, extra]",
        mismatch,
        "extra",
    );
    edited(
        DATASTORE,
        "\"{var_name}\"",
        "\"{var_name}_x\"",
        mismatch,
        "orography_x",
    );
    edited(
        DATASTORE,
        "        dims: [x, y]",
        "        dims: [y, x]",
        mismatch,
        "stacks its grid in the order y, x",
    );
    edited(DATASTORE, "step: PT3H", "step: PT1H", mismatch, "time step");
    let bad = ExitCode::BadConfiguration;
    edited(
        DATASTORE,
        "schema_version: v0.6.0",
        "schema_version: v9.0.0",
        bad,
        "v9.0.0",
    );
    edited(
        DATASTORE,
        "target_output_variable: static",
        "target_output_varible: static",
        bad,
        "did you mean `target_output_variable`",
    );
    edited(
        "train/config.yaml",
        "kind: mdp",
        "kind: npyfiles",
        bad,
        "npyfiles",
    );
    edited(
        "train/config.yaml",
        "danra.datastore.yaml",
        "danra.v1.datastore.yaml",
        bad,
        "name it under `datastores:`",
    );
    edited(
        "train/config.yaml",
        "datastore:",
        "datastor:",
        bad,
        "datastores",
    );
}

/// Levels are part of the names of features, written as an integer or as a float.
#[test]
fn features_on_levels_are_compared_too() {
    let build_with = |variables: &str| {
        let folder = tempfile::tempdir().unwrap();
        let copy = copy_of_case(folder.path());
        let config = copy.join(DATASTORE);
        replace(
            &config,
            "variables: [t2m, u10m, v10m]",
            &format!("variables: {variables}"),
        );
        let text = fs::read_to_string(&config).unwrap();
        // The first one is that of the state.
        fs::write(
            &config,
            text.replacen("\"{var_name}\"", "\"{var_name}{height}m\"", 1),
        )
        .unwrap();
        build(&request(&copy, folder.path())).map(|built| built.files.len())
    };
    let wind = "u: {height: {values: [10]}}, v: {height: {values: [10], units: m}}";
    build_with(&format!("{{t: {{height: {{values: [2]}}}}, {wind}}}")).unwrap();
    // A float32 level is spelt otherwise than the configuration does.
    build_with(&format!(
        "{{t: {{height: {{values: [2.0000001]}}}}, {wind}}}"
    ))
    .unwrap();
    // A range of levels is known only to the source.
    let range = "{t: {height: {values: {start: 2, end: 3}}}}";
    build_with(range).unwrap();
    let error = build_with(&format!("{{t: {{height: {{values: [3]}}}}, {wind}}}")).unwrap_err();
    assert!(
        error.to_string().contains("makes [t3m, u10m, v10m]"),
        "{error}"
    );
    let error =
        build_with("{t: {height: {values: [2, 10]}}, u: {height: {values: [10]}}}").unwrap_err();
    assert!(
        error.to_string().contains("makes [t2m, t10m, u10m]"),
        "{error}"
    );
}

#[test]
fn statistics_that_are_not_there() {
    let without = |name: &'static str| {
        move |case: &Path, _: &mut BuildRequest| {
            let script = "import sys, json; p = sys.argv[1] + '/zarr.json'; d = json.load(open(p))\n\
                m = d['consolidated_metadata']['metadata']\n\
                for k in list(m):\n\
                \x20   if sys.argv[2] in k: del m[k]\n\
                json.dump(d, open(p, 'w'))";
            let zarr = case.join("train/danra.datastore.zarr");
            succeeded(&python(script, &[&zarr, Path::new(name)]));
        }
    };
    let mismatch = ExitCode::ArtifactMismatch;
    refused(
        without("state__train__std"),
        mismatch,
        "no `state__train__std`",
    );
    refused(without("__train__"), mismatch, "state__train__mean");
    let without_onnx = |case: &Path, request: &mut BuildRequest| {
        without("state__train__diff_mean")(case, request);
        (request.onnx, request.interface) = (None, None);
    };
    refused(without_onnx, mismatch, "no `state__train__diff_mean`");
    let gone = |case: &Path, _: &mut BuildRequest| {
        fs::remove_dir_all(case.join("train/danra.datastore.zarr")).unwrap();
    };
    refused(gone, ExitCode::InputMissing, "danra.datastore.zarr");
}

/// Runs `script` on the ONNX model `m` and its graph `g`.
fn onnx_changed(script: &str) -> impl FnOnce(&Path, &mut BuildRequest) {
    let script = format!(
        "import sys, onnx, os\nfrom onnx import helper, TensorProto, external_data_helper\n\
         path = sys.argv[1]; m = onnx.load(path); g = m.graph\n{script}\nonnx.save(m, path)\n"
    );
    move |case: &Path, _: &mut BuildRequest| {
        succeeded(&python(&script, &[&case.join("onnx/graph_lam.onnx")]));
    }
}

#[test]
fn onnx_models_that_are_not_the_one_described() {
    let mismatch = ExitCode::ArtifactMismatch;
    for (script, expected) in [
        (
            "g.input[0].type.tensor_type.shape.dim[1].dim_value = 841",
            "[1, 841, 3]",
        ),
        (
            "g.output[0].type.tensor_type.shape.dim[2].dim_value = 4",
            "[1, 840, 4]",
        ),
        (
            "g.input[2].type.tensor_type.elem_type = TensorProto.DOUBLE",
            "element type 11",
        ),
        ("del g.input[2].type.tensor_type.shape.dim[0]", "[840, 12]"),
        (
            "g.input[2].type.tensor_type.ClearField('shape')",
            "input `forcing` of the ONNX model has no shape",
        ),
        (
            "g.output[0].type.tensor_type.ClearField('shape')",
            "output `new_state` of the ONNX model has no shape",
        ),
        (
            "for n in g.node:\n    n.input[:] = ['other' if i == g.input[0].name else i for i in n.input]\ng.input[0].name = 'other'",
            "`other` is not one of",
        ),
        (
            "for n in g.node:\n    n.output[:] = ['other' if o == g.output[0].name else o for o in n.output]\ng.output[0].name = 'other'",
            "`new_state`, the ONNX model has other",
        ),
        (
            "external_data_helper.convert_model_to_external_data(m, size_threshold=0, location='w.bin')",
            "stored in another file",
        ),
    ] {
        refused(onnx_changed(script), mismatch, expected);
    }
    for bytes in [&b"not a model"[..], b""] {
        let overwrite = |case: &Path, _: &mut BuildRequest| {
            fs::write(case.join("onnx/graph_lam.onnx"), bytes).unwrap();
        };
        refused(overwrite, mismatch, "not an ONNX model");
    }
}

/// An unknown length fits any, and a model need not look at the forcing.
#[test]
fn onnx_models_with_free_dimensions_or_fewer_inputs() {
    for (script, inputs) in [
        (
            "g.input[0].type.tensor_type.shape.dim[0].dim_param = 'batch'",
            3,
        ),
        (
            "import numpy\nzeros = numpy.zeros((1, 840, 12), 'float32')\ng.initializer.append(onnx.numpy_helper.from_array(zeros, g.input[2].name))\ndel g.input[2]",
            2,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let copy = copy_of_case(folder.path());
        let mut request = request(&copy, folder.path());
        onnx_changed(script)(&copy, &mut request);
        let artifact = Artifact::open(&build(&request).unwrap().path).unwrap();
        assert_eq!(artifact.interface().unwrap().unwrap().inputs.len(), inputs);
    }
}

/// The interface that the case gives, to be changed.
fn interface_changed(from: &str, to: &str, expected: &str) {
    let change = |case: &Path, request: &mut BuildRequest| {
        let made = case.join("made");
        let path = build(&common::request(case, &made)).unwrap().path;
        let json = Artifact::open(&path)
            .unwrap()
            .read("interface.json", 1 << 20)
            .unwrap();
        let given = case.join("interface.json");
        fs::write(&given, json).unwrap();
        replace(&given, from, to);
        request.interface = Some(given);
    };
    refused(change, ExitCode::ArtifactMismatch, expected);
}

#[test]
fn interfaces_that_contradict_the_training_run() {
    for (from, to, expected) in [
        (
            "\"datastore\": \"danra\"",
            "\"datastore\": \"era5\"",
            "datastore `era5`",
        ),
        (
            "\"statistics_split\": \"train\"",
            "\"statistics_split\": \"val\"",
            "state__val__mean",
        ),
        (
            "\"name\": \"prev_prev_state\"",
            "\"name\": \"older\"",
            "`older`",
        ),
        (
            "\"output\": \"new_state\"",
            "\"output\": \"prev_state\"",
            "output `prev_state`",
        ),
        ("\"future\": 1", "\"future\": 2", "[1, 840, 16]"),
        ("\"hour_of_day_sin\",\n", "", "`forcing`"),
    ] {
        interface_changed(from, to, expected);
    }
}

#[test]
fn interface_files_of_no_known_kind() {
    for text in [
        "{}",
        "[1]",
        "not json",
        "{\"version\": 2}",
        "{\"version\": 1}",
        "{\"num_grid_nodes\": 1, \"state_features\": 3}",
    ] {
        let overwrite =
            |case: &Path, _: &mut BuildRequest| fs::write(case.join(FACTS), text).unwrap();
        refused(
            overwrite,
            ExitCode::BadConfiguration,
            "`num_grid_nodes` and `state_features`",
        );
    }
}

#[test]
fn requests_that_cannot_be_met() {
    type Change = fn(&Path, &mut BuildRequest);
    let usage: [(Change, &str); 7] = [
        (|_, r| r.training_args = None, "--training-args"),
        (
            |_, r| (r.nl_config, r.training_args) = (None, None),
            "--nl-config",
        ),
        (|_, r| r.name = ".hidden".into(), "`.hidden`"),
        (|_, r| r.name = "a/b".into(), "`a/b`"),
        (|_, r| r.interface = None, "needs an interface"),
        (|_, r| r.onnx = None, "give the ONNX file with --onnx"),
        (
            |_, r| (r.checkpoint, r.onnx, r.interface) = (None, None, None),
            "no model",
        ),
    ];
    for (change, expected) in usage {
        refused(change, ExitCode::Usage, expected);
    }
    let missing: [(Change, &str); 3] = [
        (
            |_, r| r.nl_config = Some("absent.yaml".into()),
            "absent.yaml",
        ),
        (
            |_, r| r.checkpoint = Some("absent.ckpt".into()),
            "absent.ckpt",
        ),
        (
            |c, _| fs::remove_file(c.join(DATASTORE)).unwrap(),
            "danra.datastore.yaml",
        ),
    ];
    for (change, expected) in missing {
        refused(change, ExitCode::InputMissing, expected);
    }
    let text: Change = |c, r| {
        fs::write(
            r.checkpoint.as_ref().unwrap_or(&c.to_owned()),
            "version https://git-lfs",
        )
        .unwrap()
    };
    refused(text, ExitCode::ArtifactMismatch, "not a PyTorch checkpoint");
}

//! An artifact of a checkpoint without ONNX whose interface declares what its program starts from.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::fs;
use std::path::Path;

use common::{case, request};
use mlwm_artifacts::{Artifact, BuildRequest, Inspection, build};
use mlwm_spec::ExitCode;
use serde_json::{Value, json};

fn interface() -> Value {
    json!({
        "version": 4,
        "model": "aifs-ens",
        "step_seconds": 21600,
        "input_state": {
            "schema": "state/1",
            "input": "state",
            "offsets_seconds": [-21600, 0],
            "fields": [
                {"name": "2t", "range": [150.0, 400.0]},
                {"name": "sd", "missing": {"where": {"field": "lsm", "equals": 0.0}}},
                {"name": "lsm", "constant": true},
            ],
        },
        "grid": {"dims": ["cell"], "shape": [40]},
        "predicted": ["2t", "sd", "tp"],
    })
}

/// What is built from the checkpoint of the case and this interface.
fn model(folder: &Path, interface: &Value) -> BuildRequest {
    let given = request(&case(), &folder.join("output"));
    let path = folder.join("interface.json");
    fs::write(&path, interface.to_string()).unwrap();
    BuildRequest {
        name: "aifs".to_owned(),
        checkpoint: given.checkpoint,
        interface: Some(path),
        output: folder.join("output"),
        ..BuildRequest::default()
    }
}

#[test]
fn a_checkpoint_is_packed_with_what_it_starts_from() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&model(folder.path(), &interface())).unwrap();
    let artifact = Artifact::open(&built.path).unwrap();
    artifact.verify().unwrap();
    assert!(artifact.contains("checkpoint.pkl") && !artifact.contains("checkpoint.onnx"));
    let packed = artifact.interface().unwrap().unwrap();
    assert_eq!(packed.validate(), Ok(()));
    assert!(packed.predicted().eq(["2t", "sd", "tp"].iter()));
    let inspected = serde_json::to_value(Inspection::of(&artifact).unwrap()).unwrap();
    assert_eq!(inspected["interface"]["input_state"]["input"], "state");
    assert_eq!(inspected["interface"]["predicted"][2], "tp");
    let again = build(&model(folder.path(), &interface())).unwrap();
    assert!(again.unchanged);
}

#[track_caller]
fn refused(request: &BuildRequest, code: ExitCode, expected: &str) {
    let error = build(request).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(error.exit_code(), code, "{error}");
    assert!(!request.output.exists(), "something was written");
}

#[test]
fn what_does_not_fit_a_model_without_onnx_is_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = request(&case(), &folder.join("output"));
    for (pointer, value, expected) in [
        ("/inputs", json!([]), "`inputs` describes an ONNX model"),
        (
            "/standardization",
            json!("none"),
            "`standardization` describes",
        ),
        ("/predicted", json!([]), "`predicted` is empty"),
        (
            "/input_state/fields/1/missing/fill",
            json!(0.0),
            "`fill` of `sd`",
        ),
        (
            "/input_state/offsets_seconds",
            json!([0, -21600]),
            "must ascend",
        ),
        ("/grid/shape", json!([40, 2]), "one length in `shape`"),
        ("/version", json!(9), "its version is 9"),
    ] {
        let mut changed = interface();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        refused(
            &model(folder, &changed),
            ExitCode::BadConfiguration,
            expected,
        );
    }
    let described = BuildRequest {
        interface: whole.interface.clone(),
        ..model(folder, &interface())
    };
    refused(
        &described,
        ExitCode::Usage,
        "give the ONNX file with --onnx",
    );
    let general = json!({"version": 2, "step_seconds": 21600, "grid": {"dims": ["cell"], "shape": [4]},
        "inputs": [], "outputs": []});
    refused(&model(folder, &general), ExitCode::Usage, "of version 4");
    let with_onnx = BuildRequest {
        onnx: whole.onnx.clone(),
        ..model(folder, &interface())
    };
    refused(&with_onnx, ExitCode::Usage, "leave --onnx out");
    let nothing = BuildRequest {
        checkpoint: None,
        ..model(folder, &interface())
    };
    refused(&nothing, ExitCode::Usage, "no model to pack");
    let with_datastores = BuildRequest {
        nl_config: whole.nl_config,
        training_args: whole.training_args,
        ..model(folder, &interface())
    };
    refused(
        &with_datastores,
        ExitCode::ArtifactMismatch,
        "reads no datastores",
    );
}

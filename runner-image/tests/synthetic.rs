//! A model that starts from an input state of two times, with noise, diagnostics and a field that
//! is missing over sea: every value against its closed form.
#![allow(clippy::unwrap_used, clippy::panic)]

mod synthetic_case;

use std::fs;

use mlwm_spec::ExitCode;
use synthetic_case::{Case, check, environment, files, oracle, stderr};

#[test]
fn every_value_is_that_of_the_closed_form_and_another_seed_changes_tp_only() {
    let case = Case::new(3);
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    for (member, seed, steps, name) in [
        (0, 7, 30, "control"),
        (2, 7, 12, "first"),
        (2, 7, 12, "again"),
        (2, 8, 12, "other"),
    ] {
        let environment = environment(&case.state(member), member, seed, steps, &out(name));
        let output = case.run(&environment);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let last = format!(r#"::mlwm {{"step":{steps},"of":{steps}}}"#);
        assert!(text.contains(&last), "{text}");
    }
    check(0, 7, 30, None, &[out("control")]).unwrap();
    check(2, 7, 12, None, &[out("first")]).unwrap();
    // The closed form of all but `tp` does not know the seed.
    check(2, 8, 12, None, &[out("other")]).unwrap();
    assert!(check(1, 7, 30, None, &[out("control")]).is_err());
    let (first, again, other) = (
        files(&out("first")),
        files(&out("again")),
        files(&out("other")),
    );
    assert_eq!(first, again);
    let differ = |(name, bytes): &(&std::path::PathBuf, &Vec<u8>)| other[*name] != **bytes;
    let changed = first.iter().filter(differ).map(|(name, _)| name);
    let changed: Vec<_> = changed.filter(|name| !name.starts_with("tp")).collect();
    // The seed is recorded there.
    assert_eq!(changed, [std::path::Path::new("zarr.json")]);
}

#[test]
fn a_state_in_an_npz_or_netcdf_gives_the_same_bytes() {
    let case = Case::new(1);
    let folder = case.path().join("forms");
    fs::create_dir(&folder).unwrap();
    let state = case.state(0);
    oracle([
        "spoil",
        state.to_str().unwrap(),
        folder.to_str().unwrap(),
        "npz",
        "npz-seconds",
        "netcdf-3",
        "netcdf-4",
        "netcdf-packed",
    ])
    .unwrap();
    let mut written = Vec::new();
    for state in [
        state,
        folder.join("npz.npz"),
        folder.join("npz-seconds.npz"),
        folder.join("netcdf-3.nc"),
        folder.join("netcdf-4.nc"),
        folder.join("netcdf-packed.nc"),
    ] {
        let out = case.path().join(format!("out{}", written.len()));
        let output = case.run(&environment(&state, 0, 1, 4, &out));
        assert!(output.status.success(), "{}", stderr(&output));
        let mut files = files(&out);
        // A `.npz` has no attributes: those of latitude and longitude.
        files.retain(|name, _| !name.ends_with("zarr.json"));
        written.push(files);
    }
    assert_eq!(written[0], written[1]);
    assert_eq!(written[0], written[2]);
}

/// What is wrong, what the message says, and the exit code.
const WRONG: [(&str, &[&str], ExitCode); 13] = [
    (
        "date",
        &["2026-09-30T00:00Z", "2026-10-01T00:00Z"],
        ExitCode::InputCorrupt,
    ),
    (
        "interval",
        &["2026-09-30T00:00Z", "2026-09-30T18:00Z"],
        ExitCode::InputCorrupt,
    ),
    ("missing-field", &["no `q_850`"], ExitCode::InputMissing),
    ("extra-field", &["`w_850`"], ExitCode::InputCorrupt),
    ("shape", &["cell: 543", "cell: 544"], ExitCode::InputCorrupt),
    ("order", &["(cell: 544, time: 2)"], ExitCode::InputCorrupt),
    (
        "dtype",
        &["`msl`", "float64", "float32"],
        ExitCode::InputCorrupt,
    ),
    (
        "nan",
        &["`2t`", "1 values", "everywhere"],
        ExitCode::InputCorrupt,
    ),
    (
        "inf",
        &["`2t`", "1 values", "everywhere"],
        ExitCode::InputCorrupt,
    ),
    (
        "nan-mask",
        &["`sd`", "must be NaN", "where `lsm` is 0"],
        ExitCode::InputCorrupt,
    ),
    (
        "nan-on-land",
        &["`sd`", "but where `lsm` is 0"],
        ExitCode::InputCorrupt,
    ),
    (
        "range",
        &["`msl`", "from 80000 to 200000"],
        ExitCode::InputCorrupt,
    ),
    (
        "not-constant",
        &["`z`", "same at all times"],
        ExitCode::InputCorrupt,
    ),
];

const WRONG_NETCDF: [(&str, &[&str], ExitCode); 9] = [
    (
        "netcdf-date",
        &["2026-09-29T18:00Z, 2026-09-30T00:00Z", "stage the state"],
        ExitCode::InputCorrupt,
    ),
    (
        "netcdf-order",
        &["(cell: 544, time: 2)", "(time: 2, cell: 544)"],
        ExitCode::InputCorrupt,
    ),
    (
        "netcdf-nan",
        &["`2t`", "1 values that are NaN"],
        ExitCode::InputCorrupt,
    ),
    (
        "netcdf-double",
        &["`msl`", "float64", "needs float32"],
        ExitCode::InputCorrupt,
    ),
    (
        "netcdf-text",
        &["`msl`", "of type text"],
        ExitCode::InputCorrupt,
    ),
    ("netcdf-missing", &["`q_850`"], ExitCode::InputMissing),
    ("netcdf-groups", &["it has groups"], ExitCode::InputCorrupt),
    (
        "netcdf-huge",
        &["(time: 2, many: 1099511627776)"],
        ExitCode::InputCorrupt,
    ),
    (
        "netcdf-unwritten",
        &["`msl` has values that were never written"],
        ExitCode::InputCorrupt,
    ),
];

#[test]
fn a_wrong_state_is_refused_before_the_model_is_loaded_and_nothing_is_written() {
    let case = Case::new(1);
    let folder = case.path().join("wrong");
    fs::create_dir(&folder).unwrap();
    let state = case.state(0);
    let mut arguments = vec!["spoil", state.to_str().unwrap(), folder.to_str().unwrap()];
    arguments.extend(WRONG.iter().chain(&WRONG_NETCDF).map(|(kind, _, _)| *kind));
    arguments.push("netcdf-3");
    oracle(arguments).unwrap();
    // A model that cannot be loaded: whoever tries says so.
    fs::write(case.path().join("artifact/checkpoint.onnx"), "no model").unwrap();
    let out = case.path().join("out");
    let refused = |state: &std::path::Path, code: ExitCode, parts: &[&str]| {
        let output = case.run(&environment(state, 0, 1, 4, &out));
        let message = stderr(&output);
        assert_eq!(
            output.status.code(),
            Some(i32::from(code.number())),
            "{message}"
        );
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert!(!out.exists(), "{message}");
    };
    for (kind, parts, code) in WRONG {
        refused(&folder.join(kind), code, parts);
    }
    for (kind, parts, code) in WRONG_NETCDF {
        refused(&folder.join(format!("{kind}.nc")), code, parts);
    }
    for start in [
        &b"CDF\x01"[..],
        b"CDF\x02torn",
        b"\x89HDF\r\n\x1a\n\x00\x08",
    ] {
        let torn = folder.join("torn.nc");
        fs::write(&torn, start).unwrap();
        refused(
            &torn,
            ExitCode::InputCorrupt,
            &["torn.nc", "cannot be read"],
        );
    }
    let whole = fs::read(folder.join("netcdf-3.nc")).unwrap();
    let torn = folder.join("half.nc");
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    refused(
        &torn,
        ExitCode::InputCorrupt,
        &["half.nc", "not written or copied whole"],
    );
    fs::write(folder.join("torn.npz"), b"PK\x03\x04 and no more").unwrap();
    refused(
        &folder.join("torn.npz"),
        ExitCode::InputCorrupt,
        &["torn.npz", "neither a Zarr store"],
    );
    refused(
        &folder.join("none"),
        ExitCode::InputMissing,
        &["no input state"],
    );
    refused(&state, ExitCode::ArtifactMismatch, &["cannot be loaded"]);
    let mut other = environment(&state, 0, 1, 4, &out);
    other.insert("MLWM_INPUTS", r#"{"states": "/x"}"#.to_owned());
    let message = stderr(&case.run(&other));
    assert!(
        message.contains("the input `state`") && message.contains("[states]"),
        "{message}"
    );
    let mut other = environment(&state, 0, 1, 4, &out);
    other.remove("MLWM_SEED");
    assert!(stderr(&case.run(&other)).contains("MLWM_SEED is not set"));
}

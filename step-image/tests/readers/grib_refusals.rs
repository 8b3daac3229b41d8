//! GRIB that cannot be converted without loss: what is wrong is named, and nothing is written.

use serde_json::{Value, json};

use crate::grib::{Case, land};
use crate::{refuse, report, run, succeed};

fn hours(param: i64, steps: &[i64]) -> Value {
    json!({"file": "a.grib", "edition": 2, "param": param, "runs": ["2020-02-01"], "steps": steps})
}

/// What is said of an input that is refused with the code of corrupt inputs.
fn said(case: &Case, options: &[&str]) -> String {
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    let arguments: Vec<&str> = ["grib2zarr", &input, &store]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    refuse(&arguments, 12, &case.path("out.zarr"))
}

#[track_caller]
fn assert_said(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

#[test]
fn a_missing_message_is_named_with_its_parameter_and_time() {
    let mut series = land();
    series[2]["leave_out"] = json!([["2020-02-02 03:00:00", 39]]);
    let case = Case::new(&series);
    let report_file = case.text("in/../failure.json");
    let mean = said(&case, &["--resample", "6h=mean", "--levels", "separate"]);
    assert_said(
        &mean,
        &[
            "`swvl1`: the window of 2020-02-02T00:00:00Z is incomplete",
            "from 2020-02-02T03:00:00Z to 2020-02-02T04:00:00Z",
        ],
    );
    let native = said(&case, &[]);
    assert_said(&native, &["`swvl1` has nothing at 2020-02-02T03:00:00Z"]);
    let output = run(&[
        "grib2zarr",
        &case.text("in"),
        &case.text("out.zarr"),
        "--report",
        &report_file,
    ]);
    assert!(!output.status.success());
    let failure = report(&case.path("failure.json"));
    assert_eq!(failure["problems"].as_array().unwrap().len(), 1);
    assert_eq!(failure["presence"]["fields"]["swvl1"][27], 0);
    succeed(&[
        "grib2zarr",
        &case.text("in"),
        &case.text("allowed.zarr"),
        "--allow-missing",
    ]);
    let allowed = report(&case.path("allowed.zarr/report.json"));
    assert_eq!(allowed["missing"].as_array().unwrap().len(), 1);
    assert_eq!(accounted(&allowed), 0);

    // What is left of a window that is not complete is in no value.
    succeed(&[
        "grib2zarr",
        &case.text("in"),
        &case.text("means.zarr"),
        "--resample",
        "6h=mean",
        "--levels",
        "separate",
        "--allow-missing",
    ]);
    let means = report(&case.path("means.zarr/report.json"));
    assert_eq!(accounted(&means), 5);
    let refused = means["files"].as_array().unwrap().iter();
    let mut refused = refused.flat_map(|file| file["refused"].as_array().unwrap());
    let of_it = |one: &Value| one["what"].as_str().unwrap().contains("`swvl1`");
    assert!(refused.all(of_it), "{means}");
}

/// How many messages were refused: all others are used.
fn accounted(report: &Value) -> u64 {
    let files = report["files"].as_array().unwrap().iter();
    let count = |file: &Value| {
        let refused = file["refused"].as_array().unwrap().len() as u64;
        let (read, used) = (
            file["read"].as_u64().unwrap(),
            file["used"].as_u64().unwrap(),
        );
        assert_eq!(read, used + refused, "{file}");
        refused
    };
    files.map(count).sum()
}

#[test]
fn uneven_steps_of_a_parameter_are_never_dropped() {
    let case = Case::new(&json!([hours(167, &[0, 1, 2, 3]), hours(168, &[0, 3])]));
    assert_said(
        &said(&case, &[]),
        &["`d2m` has nothing at 2020-02-01T01:00:00Z, 2020-02-01T02:00:00Z"],
    );
    let case = Case::new(&json!([hours(167, &[0, 1, 2, 6])]));
    assert_said(
        &said(&case, &[]),
        &["not evenly spaced: 2020-02-01T06:00:00Z follows 2020-02-01T02:00:00Z after PT4H"],
    );
}

#[test]
fn a_truncated_file_and_garbage_are_named_with_their_bytes() {
    let case = Case::new(&json!([hours(167, &[0, 1, 2])]));
    let path = case.path("in/a.grib");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let third = whole.len() / 3 * 2;
    assert_said(
        &said(&case, &[]),
        &["a.grib", "from byte", "the file ends too early"],
    );
    let mut torn = whole[..third].to_vec();
    torn.extend(b"<html>not found</html>");
    torn.extend(&whole[third..]);
    std::fs::write(&path, torn).unwrap();
    assert_said(
        &said(&case, &[]),
        &["the 22 bytes from byte", "belong to no GRIB message"],
    );
    std::fs::write(&path, "").unwrap();
    assert_said(&said(&case, &[]), &["a.grib` is empty"]);
    // An edition that does not exist is no message.
    let mut wrong = whole.clone();
    wrong[7] = 9;
    std::fs::write(&path, wrong).unwrap();
    assert_said(
        &said(&case, &[]),
        &["from byte 0 of", "belong to no GRIB message"],
    );
    // Nor is one of edition 2 that calls itself edition 1, whatever its bytes would mean there.
    let mut wrong = whole;
    wrong[7] = 1;
    std::fs::write(&path, wrong).unwrap();
    assert_said(&said(&case, &[]), &["a.grib", "from byte 0"]);
}

#[test]
fn a_field_that_is_there_twice_is_named_with_both_places() {
    let case = Case::new(&json!([hours(167, &[0, 1]), hours(167, &[1])]));
    assert_said(
        &said(&case, &[]),
        &[
            "another field of `t2m` at the same level and time",
            "2020-02-01T01:00:00Z",
            "a.grib",
        ],
    );
}

#[test]
fn another_grid_is_named() {
    let mut other = hours(168, &[0]);
    other["n"] = json!(20);
    let case = Case::new(&json!([hours(167, &[0]), other]));
    assert_said(
        &said(&case, &[]),
        &[
            "`2d` (168)",
            "it is on the grid O20, but the first field",
            "on O16",
        ],
    );
}

#[test]
fn what_no_table_explains_is_a_failure() {
    let case = Case::new(&json!([hours(167, &[0]), hours(168, &[0])]));
    let table = case.write("table.yaml", "variables:\n  t2m: {param: 2t}\n");
    assert_said(
        &said(&case, &["--table", &table]),
        &[
            "`2d` (168) at heightAboveGround 2 of 2020-02-01T00:00:00Z: nothing says what becomes of it",
            "from byte",
        ],
    );
    let failure = case.text("failure.json");
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    let arguments = [
        "grib2zarr",
        &input,
        &store,
        "--table",
        &table,
        "--report",
        &failure,
    ];
    assert!(!run(&arguments).status.success());
    assert_eq!(accounted(&report(&case.path("failure.json"))), 1);
    let table = case.write(
        "table.yaml",
        "variables:\n  t2m: {param: 2t}\n  x1: {param: 39}\nothers: leave_out\n",
    );
    assert_said(
        &said(&case, &["--table", &table]),
        &["there is no field for `x1`"],
    );
    let table = case.write("table.yaml", "variables:\n  t2m: {parm: 2t}\n");
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    let arguments = ["grib2zarr", &input, &store, "--table", &table];
    let wrong = refuse(&arguments, 10, &case.path("out.zarr"));
    assert_said(&wrong, &["table.yaml", "parm"]);
}

#[test]
fn points_and_chunks_that_are_not_there_are_refused() {
    let case = Case::new(&json!([hours(167, &[0])]));
    let script = "import sys, numpy; numpy.save(sys.argv[1], numpy.array([1, 1601])); print('{}')";
    crate::python(script, &[&case.text("points.npy")]);
    let points = case.text("points.npy");
    let wrong = said(&case, &["--points", &points, "--chunk", "level=3"]);
    assert_said(
        &wrong,
        &[
            "has the point 1601, but the fields have 1600",
            "`--chunk` has `level`",
        ],
    );
}

#[test]
fn the_place_of_the_result_must_be_free() {
    let case = Case::new(&json!([hours(167, &[0])]));
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    succeed(&["grib2zarr", &input, &store]);
    let again = refuse(&["grib2zarr", &input, &store], 31, &case.path("out.zarr"));
    assert_said(&again, &["exists already"]);
}

#[test]
fn what_is_stored_once_must_not_change() {
    let case = Case::new(&json!([hours(167, &[0, 1])]));
    let table = case.write(
        "table.yaml",
        "variables:\n  t2m: {param: 2t, static: true}\n",
    );
    let failure = case.text("in/../failure.json");
    assert_said(
        &said(&case, &["--table", &table]),
        &["`t2m` is `static` in the table", "a.grib", "differs from"],
    );
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    let arguments = ["grib2zarr", &input, &store, "--table", &table, "--report"];
    assert!(
        !run(&[&arguments[..], &[&*failure]].concat())
            .status
            .success()
    );
    let problems = &report(&case.path("failure.json"))["problems"];
    assert_said(problems[0].as_str().unwrap(), &["differs from"]);
}

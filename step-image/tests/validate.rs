//! `validate`: every fault of a store is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::kills::{UnderWay, kill_and_run_again};
use common::{python, refused, run, step};

const MAKE: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
rng = np.random.default_rng(6)
t, x = 40, 30
times = pd.date_range("2020-02-01", periods=t, freq="6h")
what = sys.argv[2].split("/")[-1]
if what == "faulty":
    times = times.delete(11)
    times = times.append(pd.DatetimeIndex([times[-1] + pd.Timedelta("6h")]))
a = rng.random((t, x), dtype="f4")
b = rng.random((t, x), dtype="f4")
if what == "faulty":
    b[7, 3] = np.nan
    b[20:22] = np.nan
    a[3, 4] = 1.5
ds = xr.Dataset({"a": (("time", "x"), a, {"units": "m3 m-3"}), "b": (("time", "x"), b, {"units": "K"})},
    coords={"time": times, "x": np.arange(x), "lat": (("x",), np.linspace(0, 9, x), {"units": "degrees_north"})})
ds.to_zarr(sys.argv[1], zarr_format=2, consolidated=True, encoding={"a": {"chunks": (8, 30)}, "b": {"chunks": (8, 30)}})
"#;

const SCHEMA: &str = r#"
times: {from: 2020-02-01T00:00Z, to: "2020-02-10T18:00Z", step: 6h}
lengths: {x: 30}
variables:
  a: {dims: [time, x], type: float32, units: m3 m-3, range: [0, 1]}
  b: {dims: [time, x], type: float32, units: K}
  lat: {units: degrees_north}
others: refuse
"#;

#[test]
fn a_good_store_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let (store, schema, report) = (
        folder.path().join("good"),
        folder.path().join("schema.yaml"),
        folder.path().join("report.json"),
    );
    python(MAKE, &[&store, Path::new("good")]);
    std::fs::write(&schema, SCHEMA).unwrap();
    run(&mut step(&["validate"], &[&store]));
    let said = run(step(&["validate", "--schema"], &[&schema, &store])
        .arg("--report")
        .arg(&report));
    assert!(said.contains("all 40") && said.contains("m3 m-3"), "{said}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["valid"], true);
    assert_eq!(report["times"]["step"], "6 h");
    assert_eq!(report["variables"]["b"]["presence"][0]["times"], 40);
}

#[test]
fn every_problem_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, schema, report) = (
        folder.path().join("faulty"),
        folder.path().join("schema.yaml"),
        folder.path().join("report.json"),
    );
    python(MAKE, &[&store, Path::new("faulty")]);
    std::fs::remove_file(store.join("a/2.0")).unwrap();
    let strict = SCHEMA
        .replace("type: float32, units: K", "type: float64, units: degC")
        .replace("x: 30", "x: 31");
    std::fs::write(&schema, strict + "  # end\n").unwrap();
    let mut validate = step(&["validate", "--schema"], &[&schema, &store]);
    let output = validate.arg("--report").arg(&report).output().unwrap();
    assert_eq!(output.status.code(), Some(12));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("is not valid: "), "{message}");
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let problems: Vec<&str> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_str().unwrap())
        .collect();
    let said = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "1 time(s) are missing, from 2020-02-03T18:00Z to 2020-02-03T18:00Z",
        "the last time is 2020-02-11T00:00Z, but should be 2020-02-10T18:00Z",
        "the dimension `x` of `a` has the length 30, but should have 31",
        "1 chunk(s) of `a` were never written, the first of them",
        "`a` is missing at 8 time(s) from 2020-02-05T06:00Z to 2020-02-07T00:00Z",
        "the values of `a` reach from",
        "`b` is float32, but should be float64",
        "`b` has the units `K`, but should have `degC`",
        "`b` is partly missing at 1 time(s) from 2020-02-02T18:00Z to 2020-02-02T18:00Z, and in 1 more span(s)",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(expected)),
            "{expected}: {problems:#?}"
        );
        assert!(said.contains(expected), "{said}");
    }
    let states: Vec<&str> = report["variables"]["b"]["presence"]
        .as_array()
        .unwrap()
        .iter()
        .map(|span| span["state"].as_str().unwrap())
        .collect();
    assert_eq!(
        states,
        [
            "complete",
            "partly missing",
            "complete",
            "missing",
            "complete"
        ]
    );
    // What may be missing is no problem.
    let (_, message) = refused(step(&["validate"], &[&store]).args(["--allow-missing", "a,b"]));
    assert!(
        message.contains("1 problem(s)") && message.contains("1 time(s) are missing"),
        "{message}"
    );
}

/// A store of 12 MB, in chunks of one time, without holes.
const LARGE: &str = r#"
import sys, numpy as np, zarr
g = zarr.create_group(sys.argv[1], zarr_format=3)
a = g.create_array("a", shape=(100, 30000), chunks=(1, 30000), dtype="f4", dimension_names=("time", "x"))
a[...] = np.random.default_rng(2).random((100, 30000), dtype="f4")
"#;

#[test]
fn who_was_killed_writes_the_same_report() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    python(LARGE, &[&store]);
    kill_and_run_again(UnderWay::Nothing, |place| {
        let mut command = step(&["validate", "--report"], &[&place.join("report.json")]);
        command.arg(&store);
        command
    });
}

#[test]
fn what_a_schema_says_of_variables_holds() {
    let folder = tempfile::tempdir().unwrap();
    let (store, schema) = (
        folder.path().join("faulty"),
        folder.path().join("schema.yaml"),
    );
    python(MAKE, &[&store, Path::new("faulty")]);
    python(
        "import sys, zarr; zarr.open_group(sys.argv[1])['a'][1, 2] = float('-inf')",
        &[&store],
    );
    // The times of the store have a hole, and `b` has values that are missing.
    let hole = "1 time(s) are missing";
    let infinite = "1 value(s) of `a` are infinite";
    let missing = "`b` is partly missing at 1 time(s)";
    for (text, expected) in [
        ("{}", &[hole, infinite, missing][..]),
        ("variables: {b: {missing: allow}}", &[hole, infinite]),
        (
            "variables: {b: {missing: allow}, lat: {}}\nothers: refuse",
            &[hole, infinite, "the schema has no variable `a`"],
        ),
        (
            "variables: {b: {missing: allow}, c: {}}",
            &[hole, infinite, "there is no variable `c`"],
        ),
        (
            "variables: {b: {missing: allow, dims: [x, time]}}",
            &[
                hole,
                infinite,
                "`b` has the dimensions [\"time\", \"x\"], but should have [\"x\", \"time\"]",
            ],
        ),
    ] {
        std::fs::write(&schema, text).unwrap();
        let output = step(&["validate", "--schema"], &[&schema, &store]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(12));
        let said = String::from_utf8(output.stdout).unwrap();
        let problems = said.lines().filter(|line| line.starts_with("problem: "));
        assert_eq!(problems.count(), expected.len(), "{text}: {said}");
        for part in expected {
            assert!(said.contains(part), "{text}: {part} is not in {said}");
        }
    }
}

/// Numbers of all kinds, of which each has a chunk that is lost below, in versions 2 and 3.
const KINDS: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
values = np.arange(1, 25).reshape(4, 6)
kinds = ["int16", "int32", "int64", "uint8", "float32", "float64"]
data = {name: (("time", "x"), values.astype(name)) for name in kinds}
data["static"] = (("x",), values[0].astype("i4"))
data["name"] = (("x",), np.array(list("abcdef")))
ds = xr.Dataset(data, coords={"time": pd.date_range("2020-01-01", periods=4, freq="6h")})
for version in [2, 3]:
    ds.to_zarr(f"{sys.argv[1]}/{version}", zarr_format=version, encoding={name: {"chunks": (2, 6)} for name in kinds})
"#;

#[test]
fn lost_chunks_of_all_types_are_missing() {
    let folder = tempfile::tempdir().unwrap();
    python(KINDS, &[folder.path()]);
    let names = ["int16", "int32", "int64", "uint8", "float32", "float64"];
    for (format, file, once) in [("2", "1.0", "0"), ("3", "c/1/0", "c/0")] {
        let store = folder.path().join(format);
        run(&mut step(&["validate"], &[&store]));
        for name in names {
            std::fs::remove_file(store.join(name).join(file)).unwrap();
        }
        for name in ["static", "name"] {
            std::fs::remove_file(store.join(name).join(once)).unwrap();
        }
        let output = step(&["validate"], &[&store]).output().unwrap();
        assert_eq!(output.status.code(), Some(12));
        let said = String::from_utf8(output.stdout).unwrap();
        for name in names {
            let file = store.join(name).join(file);
            let lost = format!(
                "1 chunk(s) of `{name}` were never written, the first of them {} (2020-01-01T12:00Z to \
                 2020-01-01T18:00Z)",
                file.display()
            );
            assert!(said.contains(&lost), "{lost}: {said}");
            let missing = format!("`{name}` is missing at 2 time(s) from 2020-01-01T12:00Z");
            assert!(said.contains(&missing), "{missing}: {said}");
        }
        for name in ["static", "name"] {
            let lost = format!("1 chunk(s) of `{name}` were never written");
            assert!(said.contains(&lost), "{said}");
        }
    }
}

#[test]
fn schemas_and_options_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let (store, schema) = (
        folder.path().join("good"),
        folder.path().join("schema.yaml"),
    );
    python(MAKE, &[&store, Path::new("good")]);
    for (text, expected) in [
        ("variable: {}", "variable"),
        ("times: {from: soon}", "`soon` is not a time"),
        ("times: {step: often}", "`often` is not a step"),
    ] {
        std::fs::write(&schema, text).unwrap();
        let (code, message) = refused(&mut step(&["validate", "--schema"], &[&schema, &store]));
        assert!(code == 2 && message.contains(expected), "{message}");
    }
    let (_, message) = refused(step(&["validate"], &[&store]).args(["--from", "2020-01-31"]));
    assert!(
        message.contains("the first time is 2020-02-01T00:00Z, but should be 2020-01-31T00:00Z"),
        "{message}"
    );
    std::fs::write(store.join("b/1.0"), "garbage").unwrap();
    let (code, message) = refused(&mut step(&["validate"], &[&store]));
    assert!(code == 12 && message.contains("b/1.0"), "{message}");
}

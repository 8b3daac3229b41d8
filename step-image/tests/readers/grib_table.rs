//! What a table says of fields, against eccodes and numpy: which are taken, and how they become one.

use serde_json::{Value, json};

use crate::grib::Case;
use crate::{python, refuse, report, succeed};

/// Converts with a table, and compares the store with what the messages are.
fn converted(case: &Case, table: &str, options: &[&str], expected: &Value) -> Value {
    let table = case.write("table.yaml", table);
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    let arguments = ["grib2zarr", &input, &store, "--table", &table];
    succeed(&[&arguments[..], options].concat());
    let mut arguments = vec![store, expected.to_string()];
    let files = crate::entries(&case.path("in"));
    arguments.extend(files.iter().map(|file| file.to_str().unwrap().to_owned()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    python(include_str!("check_table.py"), &arguments)
}

/// What is said of a table with which an input cannot be converted.
fn said(case: &Case, table: &str, options: &[&str], code: i32) -> String {
    let table = case.write("table.yaml", table);
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    let arguments = ["grib2zarr", &input, &store, "--table", &table];
    refuse(
        &[&arguments[..], options].concat(),
        code,
        &case.path("out.zarr"),
    )
}

/// Half a day of a parameter, hour by hour, that goes up and down.
fn instants(edition: i64, param: i64) -> Value {
    let hours: Vec<i64> = (0..12).collect();
    json!({"file": "instants.grib", "edition": edition, "param": param, "runs": ["2020-02-01"], "steps": hours,
           "wavy": true})
}

/// The same of what is over each hour.
fn intervals(edition: i64, param: i64, kind: &str) -> Value {
    let hours: Vec<i64> = (1..=12).collect();
    json!({"file": "intervals.grib", "edition": edition, "param": param, "kind": kind, "interval": 1,
           "runs": ["2020-02-01"], "steps": hours, "wavy": true})
}

#[test]
fn each_method_makes_of_a_window_what_numpy_does() {
    let case = Case::new(&json!([
        instants(1, 139),
        instants(2, 167),
        instants(2, 168),
        instants(1, 165),
        intervals(2, 228_228, "accum"),
        intervals(1, 201, "max"),
        intervals(1, 202, "min"),
        intervals(1, 147, "avg"),
        {"file": "since.grib", "edition": 2, "param": 228_205, "kind": "accum", "runs": ["2020-02-01"],
         "steps": (1..=12).collect::<Vec<i64>>(), "wavy": true},
    ]));
    let table = "
variables:
  soil: {param: 139}
  coldest: {param: 2t, resample: min}
  dampest: {param: 168, resample: max}
  wind: {param: 10u, resample: last}
  rain: {param: tp, resample: sum}
  hot: {param: 201, resample: max}
  cold: {param: 202, resample: min, step_type: min}
  flux: {param: 147}
  runoff: {param: 228205, resample: deaccumulate}
";
    let variables = json!({
        "soil": {"param": 139, "method": "mean"},
        "coldest": {"param": 167, "method": "min"},
        "dampest": {"param": 168, "method": "max"},
        "wind": {"param": 165, "method": "last"},
        "rain": {"param": 228_228, "method": "sum"},
        "hot": {"param": 201, "method": "max"},
        "cold": {"param": 202, "method": "min"},
        "flux": {"param": 147, "method": "mean"},
        "runoff": {"param": 228_205, "method": "deaccumulate"},
    });
    let expected = json!({"hours": 6, "variables": variables});
    let found = converted(&case, table, &["--resample", "6h=mean"], &expected);
    assert_eq!(found["checked"], 9 * 2);
    assert_eq!(found["times"], json!(["2020-02-01T00", "2020-02-01T06"]));
    for (name, methods) in [
        ("soil", "time: mean (interval: 3600 s comment: mean of"),
        ("coldest", "time: minimum (interval: 3600 s comment: min of"),
        ("dampest", "time: maximum (interval: 3600 s comment: max of"),
        ("wind", "time: point (interval: 3600 s comment: last of"),
        ("rain", "time: sum (sum of"),
        ("hot", "time: maximum (max of"),
        ("cold", "time: minimum (min of"),
        ("flux", "time: mean (mean of"),
        ("runoff", "time: sum (deaccumulate of"),
    ] {
        let text = found["attrs"][name]["cell_methods"].as_str().unwrap();
        assert!(text.starts_with(methods), "{name}: {text}");
    }
}

#[test]
fn a_point_that_is_missing_in_one_field_is_missing_in_the_window() {
    let mut series = [
        instants(1, 139),
        instants(2, 167),
        instants(2, 168),
        instants(1, 165),
        intervals(2, 228_228, "accum"),
    ];
    for one in &mut series {
        one["holes"] = json!(true);
    }
    let case = Case::new(&json!(series));
    let table = "
variables:
  mean: {param: 139}
  least: {param: 2t, resample: min}
  greatest: {param: 168, resample: max}
  last: {param: 10u, resample: last}
  sum: {param: tp, resample: sum}
";
    let expected = json!({"hours": 6, "variables": {
        "mean": {"param": 139, "method": "mean"},
        "least": {"param": 167, "method": "min"},
        "greatest": {"param": 168, "method": "max"},
        "last": {"param": 165, "method": "last"},
        "sum": {"param": 228_228, "method": "sum"},
    }});
    let found = converted(&case, table, &["--resample", "6h=mean"], &expected);
    assert_eq!(found["checked"], 5 * 2);
    for (name, missing) in found["missing"].as_object().unwrap() {
        // Of the 1600 points a part is missing in each field; other ones in each but the last.
        let missing = missing.as_u64().unwrap();
        let (least, most) = if name == "last" {
            (200, 400)
        } else {
            (1000, 3000)
        };
        assert!((least..most).contains(&missing), "{name}: {missing}");
    }
}

#[test]
fn methods_are_not_used_on_what_they_make_no_sense_of() {
    let case = Case::new(&json!([instants(2, 167), intervals(2, 228_228, "accum")]));
    for (air, rain, expected) in [
        (
            "sum",
            "sum",
            "`air`: its values are instants, of which there is no `sum`",
        ),
        (
            "deaccumulate",
            "sum",
            "`air`: its values are instants, of which there is no `deaccumulate`",
        ),
        (
            "mean",
            "min",
            "`rain`: its values are amounts over intervals, of which there is no `min`",
        ),
        (
            "mean",
            "last",
            "`rain`: its values are amounts over intervals, of which there is no `last`",
        ),
        (
            "mean",
            "deaccumulate",
            "is not one since the beginning of its run: `sum` takes such",
        ),
    ] {
        let table = format!(
            "variables:\n  air: {{param: 2t, resample: {air}}}\n  rain: {{param: tp, resample: {rain}}}\n"
        );
        let said = said(&case, &table, &["--resample", "6h=mean"], 12);
        assert!(said.contains(expected), "{said}");
    }
    let table = "variables:\n  air: {param: 2t, resample: max}\n  rain: {param: tp}\n";
    let said = said(&case, table, &[], 12);
    assert!(
        said.contains("`air`") && said.contains("say it with `--resample`"),
        "{said}"
    );
}

/// Temperatures at three pressures.
fn pressures() -> Value {
    let level = |level: i64| {
        json!({"file": "levels.grib", "edition": 2, "param": 130, "level_type": "isobaricInhPa", "level": level,
               "runs": ["2020-02-01"], "steps": [0, 6], "wavy": true})
    };
    json!([level(850), level(500), level(300)])
}

#[test]
fn levels_are_selected_and_laid_out() {
    let case = Case::new(&pressures());
    let table = "
variables:
  t: {param: t, levels: [850, 500]}
  high: {param: t, levels: 300, level_type: isobaricInhPa}
";
    let expected = json!({"hours": 0, "variables": {
        "t": {"param": 130, "levels": [850, 500], "dim": "isobaricInhPa"},
        "high": {"param": 130, "level": 300},
    }});
    let found = converted(&case, table, &[], &expected);
    assert_eq!(found["checked"], 3 * 2);
    assert_eq!(found["dims"]["t"], json!(["time", "isobaricInhPa", "x"]));
    assert_eq!(found["attrs"]["high"]["GRIB_level"], "300.0");

    // What the command line says is for those of which the table says nothing.
    let case = Case::new(&pressures());
    let table = "
variables:
  low: {param: t, levels: [850, 500]}
  high: {param: t, levels: [300], layout: dimension}
";
    let expected = json!({"hours": 0, "variables": {
        "low_l850": {"param": 130, "level": 850},
        "low_l500": {"param": 130, "level": 500},
        "high": {"param": 130, "levels": [300], "dim": "isobaricInhPa"},
    }});
    converted(&case, table, &["--levels", "separate"], &expected);
    let case = Case::new(&pressures());
    let table = "
variables:
  low: {param: t, levels: [850, 500]}
  high: {param: t, levels: [300], layout: separate}
";
    let expected = json!({"hours": 0, "variables": {
        "low": {"param": 130, "levels": [500, 850], "dim": "isobaricInhPa"},
        "high_l300": {"param": 130, "level": 300},
    }});
    converted(&case, table, &[], &expected);
}

#[test]
fn levels_that_are_not_one_dimension_are_named() {
    let case = Case::new(&pressures());
    let all = "variables:\n  t: {param: t, levels: [850, 500]}\n";
    let text = said(&case, all, &[], 12);
    assert!(
        text.contains("`t` (130) at isobaricInhPa 300")
            && text.contains("nothing says what becomes of it"),
        "{text}"
    );
    let twice = "variables:\n  t: {param: t}\n  high: {param: t, levels: 300}\n";
    let text = said(&case, twice, &[], 12);
    assert!(text.contains("it fits both `t` and `high`"), "{text}");
    let other = "variables:\n  t: {param: t, levels: [850, 500]}\n  high: {param: t, levels: 300, layout: dimension}\n";
    let text = said(&case, other, &[], 12);
    assert!(
        text.contains("[500.0, 850.0] of isobaricInhPa") && text.contains("has [300.0]"),
        "{text}"
    );
    let none = "variables:\n  t: {param: t, levels: 1000}\nothers: leave_out\n";
    let text = said(&case, none, &[], 12);
    assert!(
        text.contains("there is no field for `t` of the table"),
        "{text}"
    );
}

#[test]
fn steps_and_members_are_selected() {
    let steps: Vec<i64> = (0..=12).collect();
    // Two runs that overlap: of each only the first six hours are wanted, and analyses by themselves.
    let runs = json!({"file": "runs.grib", "edition": 2, "param": 167, "runs": ["2020-02-01T00:00", "2020-02-01T06:00"],
                      "steps": steps, "wavy": true});
    let case = Case::new(&json!([runs]));
    let table = "
variables:
  t2m: {param: 2t, from_step: 1h, to_step: 6h}
leave_out:
  - {param: 2t, before_step: 1h, reason: they are analyses}
  - {param: 2t, reason: a later run has them}
";
    let expected = json!({"hours": 0, "variables": {"t2m": {"param": 167, "from": 1, "to": 6}}});
    let found = converted(&case, table, &[], &expected);
    assert_eq!(found["checked"], 12);
    let said_of = report(&case.path("out.zarr/report.json"));
    let refused = said_of["files"][0]["refused"].as_array().unwrap();
    let analyses = refused
        .iter()
        .filter(|one| one["reason"] == "they are analyses");
    assert_eq!((refused.len(), analyses.count()), (14, 2));

    let table = "variables:\n  t2m: {param: 2t, to_step: 0h}\nothers: leave_out\n";
    std::fs::remove_dir_all(case.path("out.zarr")).unwrap();
    let expected = json!({"hours": 0, "variables": {"t2m": {"param": 167, "to": 0}}});
    let found = converted(&case, table, &[], &expected);
    assert_eq!(found["times"], json!(["2020-02-01T00", "2020-02-01T06"]));

    let member = |member: i64| {
        json!({"file": "members.grib", "edition": 2, "param": 167, "member": member, "type": "pf",
               "runs": ["2020-02-01"], "steps": [0, 6], "wavy": true})
    };
    let case = Case::new(&json!([member(1), member(2), member(3)]));
    let table = "
variables:
  one: {param: 2t, member: 1}
  three: {param: 2t, member: 3}
leave_out:
  - {param: 2t, reason: member 2 is not wanted}
";
    let expected = json!({"hours": 0, "variables": {
        "one": {"param": 167, "member": 1}, "three": {"param": 167, "member": 3}}});
    let found = converted(&case, table, &[], &expected);
    assert_eq!(found["checked"], 4);
    let all = said(&case, "variables:\n  all: {param: 2t}\n", &[], 12);
    assert!(
        all.contains("member 2: there is another field of `all` at the same level and time"),
        "{all}"
    );
}

#[test]
fn a_step_type_that_is_wrong_is_put_right() {
    // Edition 1 has one number for the least and the greatest value, which ecCodes reads as the greatest.
    let least = intervals(1, 202, "min");
    // Amounts since the beginning of the run, which say that they are instants.
    let amounts = json!({"file": "amounts.grib", "edition": 1, "param": 8, "runs": ["2020-02-01"],
                         "steps": (0..=12).collect::<Vec<i64>>(), "wavy": true});
    let case = Case::new(&json!([least, amounts]));
    let wrong = "variables:\n  cold: {param: 202, resample: min}\n  runoff: {param: 8, resample: deaccumulate}\n";
    let text = said(&case, wrong, &["--resample", "6h=mean"], 12);
    assert!(
        text.contains(
            "`cold`: its values are largest values of intervals, of which there is no `min`"
        ) && text
            .contains("`runoff`: its values are instants, of which there is no `deaccumulate`"),
        "{text}"
    );
    let table = "
variables:
  cold: {param: 202, step_type: min, resample: min}
  runoff: {param: 8, step_type: accum, resample: deaccumulate}
";
    let expected = json!({"hours": 6, "variables": {
        "cold": {"param": 202, "method": "min"}, "runoff": {"param": 8, "method": "deaccumulate"}}});
    let found = converted(&case, table, &["--resample", "6h=mean"], &expected);
    assert_eq!(found["checked"], 4);
    let cold = &found["attrs"]["cold"];
    assert_eq!(
        (&cold["GRIB_stepType"], &cold["step_type"]),
        (&json!("max"), &json!("min"))
    );
    let unknown = said(
        &case,
        "variables:\n  cold: {param: 202, step_type: least}\n",
        &[],
        10,
    );
    assert!(
        unknown.contains("table.yaml") && unknown.contains("least"),
        "{unknown}"
    );
}

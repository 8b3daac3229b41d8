//! Points that are selected are numbered, so that what belongs to other points is not joined to them.

use serde_json::{Value, json};

use crate::grib::Case;
use crate::{python, refuse, succeed};

/// Forcing at points of the grid, as land models have it: its latitudes and longitudes have names of their own.
const FORCING: &str = r#"
import json, sys, netCDF4, numpy
points = json.loads(sys.argv[2])
with netCDF4.Dataset(sys.argv[1], "w") as file:
    file.createDimension("time", 3)
    file.createDimension("x", len(points))
    time = file.createVariable("time", "f8", ("time",))
    time.units, time[:] = "hours since 2020-02-01", [0, 6, 12]
    x = file.createVariable("x", "i4", ("x",))
    x.units, x.long_name, x[:] = "1", "index of the point", points
    for name in ["lat", "lon"]:
        place = file.createVariable(name, "f4", ("x",))
        place.long_name, place[:] = name, numpy.zeros(len(points))
    air = file.createVariable("Tair", "f4", ("time", "x"))
    air.units, air[:] = "K", 280
print("{}")
"#;

fn case() -> Case {
    let case = Case::new(&json!([
        {"file": "a.grib", "edition": 1, "param": 167, "runs": ["2020-02-01"], "steps": [0, 6, 12]},
    ]));
    let forcing = |name: &str, points: &Value| {
        let file = case.text(&format!("{name}.nc"));
        python(FORCING, &[&file, &points.to_string()]);
        succeed(&["nc2zarr", &file, &case.text(name)]);
    };
    forcing("same", &json!([1600, 3, 4, 900]));
    forcing("other", &json!([1600, 3, 5, 900]));
    // The points are those of a file of the forcing.
    let (mask, input, model) = (case.text("same.nc"), case.text("in"), case.text("model"));
    succeed(&["grib2zarr", "--points", &mask, &input, &model]);
    case
}

#[test]
fn what_belongs_to_other_points_is_not_merged() {
    let case = case();
    let [model, same, other] = ["model", "same", "other"].map(|name| case.text(name));
    let all = case.text("all");
    succeed(&["concat", "--merge", &model, &same, &all]);
    let script = r#"
import json, sys, xarray
found = xarray.open_zarr(sys.argv[1])
print(json.dumps({"x": found["x"].values.tolist(), "type": str(found["x"].dtype), "names": sorted(found.data_vars),
                  "attributes": found["x"].attrs}))
"#;
    let said = python(script, &[&all]);
    assert_eq!(said["x"], json!([1600, 3, 4, 900]));
    assert_eq!(said["type"], "int64");
    assert_eq!(
        said["attributes"],
        json!({"long_name": "number of the point in the grid, from 1"})
    );
    assert!(said["names"].as_array().unwrap().contains(&json!("Tair")));
    let there = case.path("there");
    for (first, second) in [(&model, &other), (&other, &model)] {
        let said = refuse(
            &["concat", "--merge", first, second, &case.text("there")],
            12,
            &there,
        );
        assert!(
            said.contains("the values of `x` differ by up to 1 (at number 2)"),
            "{said}"
        );
    }
}

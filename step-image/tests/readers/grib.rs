//! GRIB into Zarr, against eccodes, cfgrib and xarray.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::kills::{UnderWay, kill_and_run_again};
use crate::{python, report, step, succeed};

/// A folder with GRIB files, and room for stores.
pub(crate) struct Case {
    folder: TempDir,
}

impl Case {
    pub(crate) fn new(series: &Value) -> Self {
        let case = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(case.path("in")).unwrap();
        case.make(series);
        case
    }

    pub(crate) fn make(&self, series: &Value) {
        let script = include_str!("make_grib.py");
        python(script, &[&self.text("in"), &series.to_string()]);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.text(name)
    }

    fn check(&self, store: &str, options: &Value) -> Value {
        let mut arguments = vec![self.text(store), options.to_string()];
        let files = crate::entries(&self.path("in"));
        arguments.extend(files.iter().map(|file| file.to_str().unwrap().to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        python(include_str!("check_grib.py"), &arguments)
    }
}

/// Two days of a land model: a forecast with the last step of the run before, soil of both editions, and snow in two
/// layers.
pub(crate) fn land() -> Value {
    let hours: Vec<i64> = (1..48).collect();
    let analyses: Vec<String> = (0..48)
        .map(|hour| format!("2020-02-{:02}T{:02}:00", 1 + hour / 24, hour % 24))
        .collect();
    let snow = |level: i64| {
        json!({"file": "snow.grib", "edition": 2, "param": 228_141, "level_type": "snowLayer", "level": level,
               "type": "an", "runs": analyses, "steps": [0]})
    };
    json!([
        {"file": "fc.grib", "edition": 1, "param": 167, "runs": ["2020-02-01"], "steps": hours},
        {"file": "last.grib", "edition": 1, "param": 167, "runs": ["2020-01-30"], "steps": [48]},
        {"file": "soil.grib", "edition": 2, "param": 39, "type": "an", "runs": analyses, "steps": [0]},
        {"file": "soil.grib", "edition": 1, "param": 139, "type": "an", "runs": analyses, "steps": [0]},
        snow(1), snow(2),
    ])
}

const LAND: [(i64, i64, &str); 5] = [
    (167, 0, "t2m"),
    (39, 0, "swvl1"),
    (139, 0, "stl1"),
    (228_141, 1, "sd_l1"),
    (228_141, 2, "sd_l2"),
];

/// Numbers of land points, counted from 1, out of order.
fn land_points() -> Vec<i64> {
    let mut points: Vec<i64> = (1..=1600).filter(|point| point % 7 < 2).collect();
    points.swap(0, 200);
    points
}

pub(crate) fn write_mask(path: &Path) {
    let script = r#"
import json, sys, netCDF4
with netCDF4.Dataset(sys.argv[1], "w") as file:
    points = json.loads(sys.argv[2])
    file.createDimension("x", len(points))
    file.createVariable("x", "f8", ("x",))[:] = points
print("{}")
"#;
    python(
        script,
        &[path.to_str().unwrap(), &json!(land_points()).to_string()],
    );
}

#[test]
fn a_land_case_becomes_six_hour_means_on_land_points() {
    let case = Case::new(&land());
    write_mask(&case.path("mask.nc"));
    for format in ["3", "2"] {
        let store = format!("out{format}.zarr");
        succeed(&[
            "grib2zarr",
            &case.text("in"),
            &case.text(&store),
            "--points",
            &case.text("mask.nc"),
            "--resample",
            "6h=mean",
            "--levels",
            "separate",
            "--wrap-longitudes",
            "--zarr-format",
            format,
        ]);
        let names: Vec<Value> = LAND.iter().map(|name| json!(name)).collect();
        let options = json!({"names": names, "hours": 6, "points": land_points(), "wrapped": true});
        let said = case.check(&store, &options);
        assert_eq!(said["checked"], 40);
        let times: Vec<&str> = said["times"]
            .as_array()
            .unwrap()
            .iter()
            .map(|time| time.as_str().unwrap())
            .collect();
        assert_eq!(times.len(), 8);
        assert_eq!(
            (times[0], times[7]),
            ("2020-02-01T00:00", "2020-02-02T18:00")
        );
        assert_eq!(said["dims"]["sd_l2"], json!(["time", "x"]));
        assert_eq!(
            said["coords"],
            json!(["latitude", "longitude", "time", "x"])
        );
        let attrs = &said["attrs"]["t2m"];
        assert_eq!(attrs["units"], "K");
        assert_eq!(attrs["GRIB_paramId"], "167");
        assert_eq!(attrs["GRIB_stepType"], "instant");
        assert_eq!(
            attrs["cell_methods"],
            "time: mean (interval: 3600 s comment: mean of windows of 21600 s, labelled by their beginning)"
        );
    }
    let said = report(&case.path("out3.zarr/report.json"));
    let read: Vec<u64> = said["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["used"].as_u64().unwrap())
        .collect();
    assert_eq!(read, [47, 1, 96, 96]);
    assert_eq!(
        said["presence"]["fields"]["sd_l1"],
        json!([6, 6, 6, 6, 6, 6, 6, 6])
    );
}

#[test]
fn fields_are_those_that_cfgrib_reads() {
    for (dim, levels) in [
        ("isobaricInhPa", [500, 850]),
        ("isobaricInPa", [30, 50]),
        ("hybrid", [90, 91]),
        ("heightAboveGround", [50, 80]),
        ("depthBelowLandLayer", [0, 1]),
    ] {
        check_with_cfgrib(dim, levels);
    }
}

/// Compares the values of two parameters at two levels, and what is said of the values and levels.
fn check_with_cfgrib(dim: &str, levels: [i64; 2]) {
    let series = |param: i64, level: i64| {
        json!({"file": "levels.grib", "edition": 2, "param": param, "level_type": dim, "level": level,
               "runs": ["2020-02-01"], "steps": [0, 6, 12]})
    };
    let [low, high] = levels;
    let case = Case::new(&json!([
        series(130, low),
        series(130, high),
        series(131, low),
        series(131, high)
    ]));
    let store = case.text("out.zarr");
    let chunk = format!("time=2,{dim}=2");
    succeed(&["grib2zarr", &case.text("in"), &store, "--chunk", &chunk]);
    let script = r#"
import json, sys, numpy, xarray
ours, dim = xarray.open_zarr(sys.argv[1]), sys.argv[3]
theirs = xarray.open_dataset(sys.argv[2], engine="cfgrib", backend_kwargs={"indexpath": ""})
theirs = theirs.sortby(dim)
for name in ["t", "u"]:
    a, b = ours[name], theirs[name]
    assert a.dtype == b.dtype and a.values.tobytes() == b.values.tobytes(), name
    for key in ["units", "long_name", "GRIB_paramId", "GRIB_shortName", "GRIB_stepType", "GRIB_typeOfLevel"]:
        assert a.attrs[key] == b.attrs[key], (key, a.attrs[key], b.attrs[key])
assert (ours["time"].values == theirs["valid_time"].values).all()
assert (ours[dim].values == theirs[dim].values).all()
for key in ["units", "positive", "long_name", "standard_name"]:
    assert ours[dim].attrs[key] == theirs[dim].attrs[key], (key, ours[dim].attrs)
for name in ["latitude", "longitude"]:
    assert numpy.abs(ours[name].values - theirs[name].values).max() <= 1e-6
print(json.dumps({"dims": list(ours["t"].dims), "chunks": list(ours["t"].encoding["chunks"])}))
"#;
    let said = python(script, &[&store, &case.text("in/levels.grib"), dim]);
    assert_eq!(said["dims"], json!(["time", dim, "x"]));
    assert_eq!(said["chunks"], json!([2, 2, 1600]));
}

#[test]
fn values_are_those_of_eccodes_in_both_editions_packings_and_with_a_bitmap() {
    let series = |edition: i64, param: i64, packing: &str, bitmap: bool| {
        json!({"file": "all.grib", "edition": edition, "param": param, "packing": packing, "bitmap": bitmap,
               "runs": ["2020-02-01"], "steps": [0, 6, 12]})
    };
    let case = Case::new(&json!([
        series(1, 139, "", false),
        series(1, 235, "", true),
        series(2, 134, "grid_simple", false),
        series(2, 39, "grid_ccsds", false),
        series(2, 172, "grid_ccsds", true),
    ]));
    let names = [
        (139, "stl1"),
        (235, "skt"),
        (134, "sp"),
        (39, "swvl1"),
        (172, "lsm"),
    ];
    let names = names.map(|(param, name)| json!([param, 0, name]));
    let script = r#"
import json, sys, zarr
array = zarr.open_group(sys.argv[1])["stl1"]
codec = array.compressors[0].to_dict()["configuration"] if array.compressors else {}
print(json.dumps({name: codec.get(name) for name in ["cname", "shuffle"]}))
"#;
    for (compression, cname, shuffle) in [
        (None, Some("lz4"), Some("bitshuffle")),
        (Some("small"), Some("zstd"), Some("bitshuffle")),
        (Some("none"), None, None),
    ] {
        let name = format!("{}.zarr", compression.unwrap_or("fast"));
        let (input, store) = (case.text("in"), case.text(&name));
        let asked = compression.map(|compression| ["--compression", compression]);
        let mut arguments = vec!["grib2zarr", &input, &store];
        arguments.extend(asked.into_iter().flatten());
        succeed(&arguments);
        let said = case.check(&name, &json!({"names": names}));
        assert_eq!(said["checked"], 5 * 3);
        let codec = python(script, &[&store]);
        assert_eq!(codec, json!({"cname": cname, "shuffle": shuffle}));
    }
}

#[test]
fn months_one_by_one_and_then_together_are_all_at_once() {
    let days = |month: i64| {
        let analyses: Vec<String> = (0..8)
            .map(|hour| format!("2020-02-{month:02}T{:02}:00", 3 * hour))
            .collect();
        json!({"file": format!("{month}.grib"), "edition": 1, "param": 139, "type": "an", "runs": analyses,
               "steps": [0]})
    };
    let case = Case::new(&json!([days(1), days(2)]));
    for (input, target) in [
        ("in/1.grib", "1.zarr"),
        ("in/2.grib", "2.zarr"),
        ("in", "all.zarr"),
    ] {
        let options = ["--resample", "6h=mean", "--chunk", "time=4"];
        let paths = [case.text(input), case.text(target)];
        succeed(&[&["grib2zarr"], &options[..], &[&*paths[0], &*paths[1]]].concat());
    }
    let paths = ["2.zarr", "1.zarr", "joined.zarr"].map(|name| case.text(name));
    succeed(&[
        "concat", "--chunk", "time=4", &paths[0], &paths[1], &paths[2],
    ]);
    let script = r#"
import json, sys, xarray
joined, whole = (xarray.open_zarr(path) for path in sys.argv[1:])
xarray.testing.assert_identical(joined.load(), whole.load())
print(json.dumps({"times": len(whole.time)}))
"#;
    let said = python(script, &[&case.text("joined.zarr"), &case.text("all.zarr")]);
    assert_eq!(said["times"], 8);
}

#[test]
fn regular_grids_have_rows_and_columns_in_any_order() {
    let case = Case::new(&json!([]));
    let script = r#"
import json, sys, eccodes, numpy
with open(sys.argv[1], "wb") as file:
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    for key, value in [("Ni", 12), ("Nj", 7), ("latitudeOfFirstGridPointInDegrees", 90),
                       ("latitudeOfLastGridPointInDegrees", -90), ("longitudeOfFirstGridPointInDegrees", 0),
                       ("longitudeOfLastGridPointInDegrees", 330), ("iDirectionIncrementInDegrees", 30),
                       ("jDirectionIncrementInDegrees", 30), ("shortName", "2t"), ("jPointsAreConsecutive", 1)]:
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, numpy.arange(84.0))
    eccodes.codes_write(handle, file)
print("{}")
"#;
    python(script, &[&case.text("in/regular.grib")]);
    succeed(&[
        "grib2zarr",
        &case.text("in/regular.grib"),
        &case.text("out.zarr"),
    ]);
    let script = r#"
import json, sys, numpy, xarray
ours = xarray.open_zarr(sys.argv[1])
assert (ours["t2m"].values[0] == numpy.arange(84.0).reshape(12, 7).T).all()
print(json.dumps({"dims": list(ours["t2m"].dims), "latitude": ours["latitude"].values.tolist(),
                  "longitude": ours["longitude"].values.tolist()}))
"#;
    let said = python(script, &[&case.text("out.zarr")]);
    assert_eq!(said["dims"], json!(["time", "latitude", "longitude"]));
    assert_eq!(said["latitude"][0], 90.0);
    assert_eq!(said["longitude"][11], 330.0);
}

#[test]
fn amounts_since_the_beginning_become_those_of_windows() {
    let hours: Vec<i64> = (1..=12).collect();
    let case = Case::new(&json!([
        {"file": "sro.grib", "edition": 2, "param": 228_228, "accumulated": true, "runs": ["2020-02-01"], "steps": hours},
    ]));
    let store = case.text("out.zarr");
    let target = case.path("out.zarr");
    let mean = [
        "grib2zarr",
        &case.text("in"),
        &store,
        "--resample",
        "6h=mean",
    ];
    let said = crate::refuse(&mean, 12, &target);
    assert!(
        said.contains("`tp`") && said.contains("amounts over intervals"),
        "{said}"
    );
    let sum = [
        "grib2zarr",
        &case.text("in"),
        &store,
        "--resample",
        "6h=sum",
    ];
    let said = crate::refuse(&sum, 12, &target);
    assert!(
        said.contains("two of its fields stand for the time"),
        "{said}"
    );
    succeed(&[
        "grib2zarr",
        &case.text("in"),
        &store,
        "--resample",
        "6h=deaccumulate",
    ]);
    let script = r#"
import json, sys, eccodes, numpy, xarray
steps = {0: 0.0}
with open(sys.argv[2], "rb") as file:
    while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
        steps[eccodes.codes_get(handle, "endStep", int)] = eccodes.codes_get_values(handle)
ours = xarray.open_zarr(sys.argv[1])
for number, end in enumerate([6, 12]):
    expected = steps[end] - steps[end - 6]
    off = numpy.abs(ours["tp"].values[number] - expected) / numpy.spacing(expected.astype("f4"))
    assert off.max() <= 1, off.max()
print(json.dumps([str(time)[:13] for time in ours["time"].values]))
"#;
    let said = python(script, &[&store, &case.text("in/sro.grib")]);
    assert_eq!(said, json!(["2020-02-01T00", "2020-02-01T06"]));
}

#[test]
fn a_table_names_leaves_out_and_stores_once() {
    let hours: Vec<i64> = (0..6).collect();
    let case = Case::new(&json!([
        {"file": "a.grib", "edition": 1, "param": 167, "runs": ["2020-02-01"], "steps": hours},
        {"file": "a.grib", "edition": 1, "param": 168, "runs": ["2020-02-01"], "steps": [0, 3]},
        {"file": "a.grib", "edition": 2, "param": 172, "runs": ["2020-02-01"], "steps": [0]},
    ]));
    let table = case.write(
        "table.yaml",
        "variables:\n  air: {param: 2t, resample: max}\n  land: {param: lsm, static: true}\n\
         leave_out:\n  - {param: 168, reason: it is not wanted}\n",
    );
    let store = case.text("out.zarr");
    succeed(&[
        "grib2zarr",
        &case.text("in"),
        &store,
        "--table",
        &table,
        "--resample",
        "6h=mean",
    ]);
    let script = r#"
import json, sys, xarray
ours = xarray.open_zarr(sys.argv[1])
print(json.dumps({"air": list(ours["air"].dims), "land": list(ours["land"].dims), "names": sorted(ours.data_vars),
                  "last": float(ours["air"][0, 0] - ours["air"][0, 0].round()), "t": float(ours["air"][0, 0])}))
"#;
    let said = python(script, &[&store]);
    assert_eq!(said["air"], json!(["time", "x"]));
    assert_eq!(said["land"], json!(["x"]));
    assert_eq!(said["names"], json!(["air", "land"]));
    // 1000 * (167 % 97) + the hour, of which the largest is 31 * 24 + 5.
    assert!(
        (said["t"].as_f64().unwrap() - 70_749.0).abs() < 0.01,
        "{said}"
    );
    let said = report(&case.path("out.zarr/report.json"));
    let refused = said["files"][0]["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0]["reason"], "it is not wanted");
    assert_eq!(said["files"][0]["read"], 9);
}

#[test]
fn killed_and_run_again_it_writes_the_same_bytes() {
    let case = Case::new(&land());
    kill_and_run_again(UnderWay::Parts, |place| {
        let mut command = step(&["grib2zarr", &case.text("in")]);
        command.arg(place.join("out"));
        command
    });
}

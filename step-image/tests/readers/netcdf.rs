//! NetCDF into Zarr, against netCDF4 and xarray.

use serde_json::json;
use tempfile::TempDir;

use crate::common::kills::{UnderWay, kill_and_run_again};
use crate::{python, refuse, report, run, step, succeed};

/// A folder with two files of forcing, the second with a first time of the next month.
struct Case {
    folder: TempDir,
}

const MAKE: &str = r#"
import json, sys, netCDF4, numpy
folder, options = sys.argv[1], json.loads(sys.argv[2])
kind = options.get("format", "NETCDF4")
points = options.get("points", 5)
for number, hours in enumerate(options["hours"]):
    with netCDF4.Dataset(f"{folder}/{number}.nc", "w", format=kind) as file:
        file.createDimension("time", None)
        file.createDimension("x", points)
        time = file.createVariable("time", "f8", ("time",))
        time.units = options.get("units", "hours since 2020-02-01 00:00:00")
        time.calendar = options.get("calendar", "standard")
        time[:] = numpy.array(hours)
        values = numpy.array(hours)[:, None] + numpy.arange(points)[None, :] / 7
        air = file.createVariable("Tair", "f4", ("time", "x"))
        air.units, air.coordinates = "K", "lat"
        air[:] = 270 + values
        packed = file.createVariable("Qair", "i2", ("time", "x"), fill_value=-9)
        packed.scale_factor, packed.add_offset = numpy.float32(0.01), numpy.float32(3)
        packed.set_auto_maskandscale(False)
        packed[:] = (10 * values).astype("i2")
        packed[0, 3] = -9
        doubles = file.createVariable("PSurf", "i4", ("time", "x"))
        doubles.scale_factor, doubles.add_offset = 0.1, 1e5
        doubles.set_auto_maskandscale(False)
        doubles[:] = (100 * values).astype("i4")
        count = file.createVariable("Ctpf", "i4", ("time", "x"))
        count[:] = (100 * values).astype("i4")
        lat = file.createVariable("lat", "f8", ("x",))
        lat[:] = numpy.arange(points) + options.get("shift", 0) * number
        if options.get("methods"):
            air.cell_methods = options["methods"]
print("{}")
"#;

impl Case {
    fn new(options: &serde_json::Value) -> Self {
        let case = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(case.folder.path().join("in")).unwrap();
        python(MAKE, &[&case.text("in"), &options.to_string()]);
        case
    }

    fn text(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn said(&self, options: &[&str]) -> String {
        let (input, store) = (self.text("in"), self.text("out.zarr"));
        let arguments: Vec<&str> = ["nc2zarr", &input, &store]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        refuse(&arguments, 12, &self.folder.path().join("out.zarr"))
    }
}

fn two_days() -> [Vec<i64>; 2] {
    [(24..49).collect(), (0..24).collect()]
}

#[test]
fn values_are_those_that_netcdf4_and_xarray_read() {
    for kind in ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET"] {
        let case = Case::new(&json!({"hours": two_days(), "format": kind}));
        let store = case.text("out.zarr");
        succeed(&[
            "nc2zarr",
            &case.text("in"),
            &store,
            "--until",
            "2020-02-03",
            "--lowercase",
            "--prefix",
            "met_",
            "--rename",
            "Ctpf=kind",
            "--chunk",
            "time=7",
        ]);
        let script = r#"
import json, sys, netCDF4, numpy, xarray
ours = xarray.open_zarr(sys.argv[1])
theirs = xarray.concat([xarray.open_dataset(f"{sys.argv[2]}/{number}.nc") for number in [1, 0]], "time",
                       data_vars="minimal").isel(time=slice(0, 48))
assert (ours["time"].values == theirs["time"].values).all()
for name, old in [("met_tair", "Tair"), ("met_qair", "Qair"), ("met_psurf", "PSurf"), ("kind", "Ctpf"), ("lat", "lat")]:
    a, b = ours[name], theirs[old]
    expected = b.values.astype("i8") if old == "Ctpf" else b.values
    assert a.values.dtype == expected.dtype, (name, a.values.dtype, expected.dtype)
    assert numpy.array_equal(a.values, expected, equal_nan=old != "Ctpf"), name
    assert {k: v for k, v in a.attrs.items()} == {k: v for k, v in b.attrs.items()}, name
with netCDF4.Dataset(f"{sys.argv[2]}/1.nc") as file:
    raw = numpy.ma.filled(file["Qair"][:], numpy.nan)
assert raw.dtype == numpy.float32 and numpy.array_equal(raw, ours["met_qair"].values[:24], equal_nan=True)
print(json.dumps({"names": sorted(ours.variables), "coords": sorted(ours.coords), "dims": list(ours["lat"].dims)}))
"#;
        let said = python(script, &[&store, &case.text("in")]);
        assert_eq!(
            said["names"],
            json!(["kind", "lat", "met_psurf", "met_qair", "met_tair", "time"])
        );
        assert_eq!(said["coords"], json!(["lat", "time"]));
        assert_eq!(said["dims"], json!(["x"]));
    }
}

#[test]
fn means_are_those_of_double_precision() {
    let case = Case::new(&json!({"hours": two_days()}));
    let store = case.text("out.zarr");
    succeed(&[
        "nc2zarr",
        &case.text("in"),
        &store,
        "--until",
        "2020-02-03",
        "--resample",
        "6h=mean",
        "--variables",
        "Tair,PSurf",
    ]);
    let script = r#"
import json, sys, numpy, xarray
ours = xarray.open_zarr(sys.argv[1])
theirs = xarray.open_mfdataset([f"{sys.argv[2]}/{number}.nc" for number in [1, 0]], data_vars="minimal",
                               coords="minimal", compat="override").isel(time=slice(0, 48)).load()
for name in ["Tair", "PSurf"]:
    expected = theirs[name].values.astype("f8").reshape(8, 6, 5).mean(axis=1)
    found = ours[name].values
    assert found.dtype == theirs[name].dtype
    assert (numpy.abs(found - expected) <= numpy.spacing(expected.astype(found.dtype))).all(), name
assert (ours["time"].values == theirs["time"].values[::6]).all()
print(json.dumps([sorted(ours.variables), ours["Tair"].attrs["cell_methods"]]))
"#;
    let said = python(script, &[&store, &case.text("in")]);
    assert_eq!(said[0], json!(["PSurf", "Tair", "lat", "time"]));
    assert!(
        said[1]
            .as_str()
            .unwrap()
            .starts_with("time: mean (interval: 3600 s")
    );
    let said = report(&case.folder.path().join("out.zarr/report.json"));
    let refused = said["files"][0]["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(said["presence"]["fields"]["Tair"][7], 6);
}

#[test]
fn other_methods_are_those_of_numpy() {
    let case = Case::new(&json!({"hours": two_days()}));
    let script = r#"
import json, sys, numpy, xarray
ours = xarray.open_zarr(sys.argv[1])
theirs = xarray.open_mfdataset([f"{sys.argv[2]}/{number}.nc" for number in [1, 0]], data_vars="minimal",
                               coords="minimal", compat="override").isel(time=slice(0, 48)).load()
method = {"min": lambda of: of.min(axis=1), "max": lambda of: of.max(axis=1), "last": lambda of: of[:, -1]}[sys.argv[3]]
for name in ["Tair", "Qair"]:
    expected = method(theirs[name].values.reshape(8, 6, 5))
    assert numpy.array_equal(ours[name].values, expected, equal_nan=True), name
print(json.dumps([int(ours["Qair"].isnull().sum()), ours["Tair"].attrs["cell_methods"]]))
"#;
    for (method, missing, methods) in [
        ("min", 2, "time: minimum (interval: 3600 s"),
        ("max", 2, "time: maximum (interval: 3600 s"),
        ("last", 0, "time: point (interval: 3600 s"),
    ] {
        let store = case.text(&format!("{method}.zarr"));
        let resample = format!("6h={method}");
        succeed(&[
            "nc2zarr",
            &case.text("in"),
            &store,
            "--until",
            "2020-02-03",
            "--resample",
            &resample,
            "--variables",
            "Tair,Qair",
        ]);
        let said = python(script, &[&store, &case.text("in"), method]);
        // Each file misses a value of its first time.
        assert_eq!(said[0], missing, "{method}");
        assert!(said[1].as_str().unwrap().starts_with(methods), "{said}");
    }
}

#[test]
fn what_does_not_fit_together_is_named() {
    let same = Case::new(&json!({"hours": [[0, 1], [1, 2]]}));
    let said = same.said(&[]);
    assert!(
        said.contains("it has a field at 2020-02-01T01:00:00Z that"),
        "{said}"
    );
    let gap = Case::new(&json!({"hours": [[0, 1], [5, 6]]}));
    let said = gap.said(&[]);
    assert!(
        said.contains("2020-02-01T05:00:00Z follows 2020-02-01T01:00:00Z after PT4H"),
        "{said}"
    );
    let moved = Case::new(&json!({"hours": [[0, 1], [2, 3]], "shift": 1}));
    let said = moved.said(&[]);
    assert!(said.contains("`lat`") && said.contains("differ"), "{said}");
    let trailing = Case::new(&json!({"hours": two_days()}));
    let said = trailing.said(&["--resample", "6h=mean"]);
    assert!(
        said.contains("the window of 2020-02-03T00:00:00Z is incomplete"),
        "{said}"
    );
    let amounts = Case::new(&json!({"hours": [[0, 1], [2, 3]], "methods": "time: sum"}));
    let said = amounts.said(&["--resample", "2h=mean", "--variables", "Tair"]);
    assert!(
        said.contains("amounts over intervals, of which there is no `mean`"),
        "{said}"
    );
    let said = amounts.said(&["--variables", "Tari"]);
    assert!(said.contains("no file has a variable `Tari`"), "{said}");
}

#[test]
fn killed_and_run_again_it_writes_the_same_bytes() {
    let hours: [Vec<i64>; 2] = [(0..60).collect(), (60..120).collect()];
    let case = Case::new(&json!({"hours": hours, "points": 2000}));
    kill_and_run_again(UnderWay::Parts, |place| {
        let mut command = step(&["nc2zarr", &case.text("in")]);
        command.arg(place.join("out"));
        command
    });
}

#[test]
fn times_that_are_left_out_are_in_the_report() {
    let case = Case::new(&json!({"hours": [[24, 25, 48, 49], [0, 1], [72]]}));
    let (input, store) = (case.text("in"), case.text("out.zarr"));
    let until = ["--until", "2020-02-03", "--uneven-times"];
    succeed(&[&["nc2zarr", &*input, &*store], &until[..]].concat());
    let said = report(&case.folder.path().join("out.zarr/report.json"));
    let reason = "`--until 2020-02-03T00:00Z` leaves out this time and later ones";
    let left_out = |times: i64, from: &str, to: &str| json!({"times": times, "from": from, "to": to, "reason": reason});
    assert_eq!(
        said["files"][0]["left_out"],
        left_out(2, "2020-02-03T00:00:00Z", "2020-02-03T01:00:00Z")
    );
    assert_eq!(said["files"][1].get("left_out"), None);
    let third = &said["files"][2];
    assert_eq!(
        third["left_out"],
        left_out(1, "2020-02-04T00:00:00Z", "2020-02-04T00:00:00Z")
    );
    // Nothing is taken of it but what has no times, and its coordinate of time.
    assert_eq!((&third["read"], &third["used"]), (&json!(6), &json!(2)));
    let refused = third["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 4);
    for one in refused {
        assert_eq!(one["reason"], "all of its times are left out");
    }
    assert_eq!(said["presence"]["times"].as_array().unwrap().len(), 4);

    let said = case.said(&["--until", "2020-02-01", "--variables", "Tair"]);
    assert!(
        said.contains("`--until` leaves out all times of `Tair`"),
        "{said}"
    );
}

#[test]
fn calendars_and_damage_are_refused() {
    let calendar = Case::new(&json!({"hours": [[0, 1]], "calendar": "360_day"}));
    let (input, store) = (calendar.text("in"), calendar.text("out.zarr"));
    let target = calendar.folder.path().join("out.zarr");
    let said = refuse(&["nc2zarr", &input, &store], 12, &target);
    assert!(said.contains("360_day"), "{said}");
    let zone =
        Case::new(&json!({"hours": [[0, 1]], "units": "hours since 2020-02-01 00:00:00 +01:00"}));
    succeed(&["nc2zarr", &zone.text("in"), &zone.text("out.zarr")]);
    let said = report(&zone.folder.path().join("out.zarr/report.json"));
    assert_eq!(said["presence"]["times"][0], "2020-01-31T23:00:00Z");
    let torn = Case::new(&json!({"hours": [[0, 1]], "format": "NETCDF3_CLASSIC"}));
    let file = torn.text("in/0.nc");
    let whole = std::fs::read(&file).unwrap();
    for (bytes, reason) in [
        (whole.len() / 3, "cannot be read as NetCDF"),
        (whole.len() - 4, "not written or copied whole"),
    ] {
        std::fs::write(&file, &whole[..bytes]).unwrap();
        let said = torn.said(&[]);
        assert!(said.contains("0.nc") && said.contains(reason), "{said}");
    }
    std::fs::write(&file, "GRIB, or what").unwrap();
    let said = torn.said(&[]);
    assert!(said.contains("cannot be read as NetCDF"), "{said}");
}

#[test]
fn where_nothing_can_be_written_it_is_said_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // Not even the superuser writes below a file.
    std::fs::write(path("file"), "").unwrap();
    let nc = Case::new(&json!({"hours": [[0, 1, 2]]}));
    let grib = crate::grib::Case::new(&json!([
        {"file": "a.grib", "edition": 1, "param": 167, "runs": ["2020-02-01"], "steps": [0]},
    ]));
    succeed(&["nc2zarr", &nc.text("in"), &path("there.zarr")]);
    let (input, store, below) = (nc.text("in"), path("there.zarr"), path("file/out"));
    for arguments in [
        &["nc2zarr", &input, &below][..],
        &["grib2zarr", &grib.text("in"), &below],
        &["fetch", &store, &below],
        &["concat", &store, &below],
        &["rechunk", "--chunk", "time=1", &store, &below],
        &["stats", &store, &below],
        &["plot", "--kind", "presence", "--out", &below, &store],
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(30), "{arguments:?}: {said}");
        assert!(said.contains("file"), "{said}");
    }
    assert_eq!(std::fs::read(path("file")).unwrap(), b"");
}

//! What `concat` makes of the stores of the readers, where these say different things of themselves.

use serde_json::json;

use crate::common::assert_same_files;
use crate::grib::Case;
use crate::{python, refuse, run, succeed};

/// Runs `concat`, which must succeed; what it says.
fn concat(options: &[&str], stores: &[&str]) -> String {
    let output = run(&[&["concat"], options, stores].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn statics_of_different_origins_are_joined() {
    let month = |number: i64, expver: &str, process: i64| {
        let keys = json!({"expver": expver, "class": "ea", "generatingProcessIdentifier": process});
        let (skt, lsm) = (format!("{number}-skt.grib"), format!("{number}-lsm.grib"));
        let runs = [
            format!("2020-02-0{number}T00:00"),
            format!("2020-02-0{number}T12:00"),
        ];
        json!([
            {"file": skt, "edition": 2, "param": 235, "type": "an", "steps": [0], "runs": runs, "keys": keys},
            {"file": lsm, "edition": 2, "param": 172, "type": "an", "steps": [0], "runs": ["2020-01-01"], "keys": keys},
        ])
    };
    let case = Case::new(&month(1, "0001", 145));
    case.make(&month(2, "0005", 9));
    let table = case.write(
        "table.yaml",
        "variables: {lsm: {param: 172, static: true}}\nothers: keep\n",
    );
    for number in [1, 2] {
        let [skt, lsm] = ["skt", "lsm"].map(|name| case.text(&format!("in/{number}-{name}.grib")));
        let store = case.text(&format!("{number}.zarr"));
        succeed(&["grib2zarr", "--table", &table, &skt, &lsm, &store]);
    }
    let stores = [
        "1.zarr",
        "2.zarr",
        "joined.zarr",
        "turned.zarr",
        "grown.zarr",
    ];
    let [first, second, joined, turned, grown] = stores.map(|name| case.text(name));
    concat(&[], &[&first, &grown]);
    for (options, stores) in [
        (&[][..], &[&*first, &second, &joined][..]),
        (&[], &[&second, &first, &turned]),
        (&["--append"], &[&second, &grown]),
    ] {
        let said = concat(options, stores);
        for name in ["lsm", "skt"] {
            let expver = format!(
                "note: the fields of `{name}` differ in GRIB_expver, which is \"0001\" or \"0005\"\n"
            );
            assert!(said.contains(&expver), "{said}");
        }
    }
    assert_same_files(
        case.path("joined.zarr").as_path(),
        case.path("turned.zarr").as_path(),
    );
    assert_same_files(
        case.path("joined.zarr").as_path(),
        case.path("grown.zarr").as_path(),
    );
    let script = r#"
import json, sys, xarray
one, joined = (xarray.open_zarr(path).load() for path in sys.argv[1:])
assert joined["lsm"].dims == one["lsm"].dims and joined["lsm"].values.tobytes() == one["lsm"].values.tobytes()
keys = ["GRIB_expver", "GRIB_generatingProcessIdentifier", "GRIB_centre"]
print(json.dumps([joined["lsm"].attrs[key] for key in keys] + [joined.attrs.get(key) for key in keys]))
"#;
    assert_eq!(
        python(script, &[&first, &joined]),
        json!([["0001", "0005"], [9, 145], "ecmf", null, null, "ecmf"])
    );
}

/// Four times, each 12 hours after the one before, that say much of themselves.
const STATIONS: &str = r#"
import sys, netCDF4, numpy
with netCDF4.Dataset(sys.argv[1], "w") as file:
    file.createDimension("time", None)
    file.createDimension("station", 3)
    time = file.createVariable("time", "i4", ("time",))
    time.units, time.calendar, time.axis = "hours since 2020-02-01 00:00:00", "gregorian", "T"
    time.long_name, time.comment = "time of the measurement", "by hand"
    # In the units of the file, which the store has not.
    time.valid_min, time.valid_max, time.valid_range = numpy.int32(0), numpy.int32(99), numpy.array([0, 99], "i4")
    time.time_origin, time.delta_t = "2020-02-01 00:00:00", "0000-00-00 12:00:00"
    time[:] = 12 * numpy.arange(4)
    gauge = file.createVariable("gauge", "f4", ("time", "station"))
    gauge.units = "m"
    gauge[:] = numpy.arange(12.0).reshape(4, 3)
print("{}")
"#;

#[test]
fn what_times_say_of_themselves_may_differ_but_for_windows() {
    let runs = [
        "2020-02-01T00:00",
        "2020-02-01T12:00",
        "2020-02-02T00:00",
        "2020-02-02T12:00",
    ];
    let case = Case::new(&json!([
        {"file": "skt.grib", "edition": 2, "param": 235, "type": "an", "steps": [0], "runs": runs},
    ]));
    let (grib, stations) = (case.text("in/skt.grib"), case.text("stations.nc"));
    python(STATIONS, &[&stations]);
    let windows = ["--resample", "12h=mean"];
    let names = ["grib", "grib-windows", "nc", "nc-windows"].map(|name| case.text(name));
    let [of_grib, grib_windows, of_nc, nc_windows] = &names;
    succeed(&["grib2zarr", &grib, of_grib]);
    succeed(&["nc2zarr", &stations, of_nc]);
    succeed(&[&["grib2zarr", &grib, grib_windows], &windows[..]].concat());
    succeed(&[&["nc2zarr", &stations, nc_windows], &windows[..]].concat());
    let times = |store: &str| {
        let script = "import json, sys, xarray; print(json.dumps(xarray.open_zarr(sys.argv[1])['time'].attrs))";
        python(script, &[store])
    };
    let said = json!({"standard_name": "time", "long_name": "time of the measurement", "comment": "by hand", "axis": "T"});
    assert_eq!(times(of_nc), said);
    let window = json!({"standard_name": "time", "long_name": times(grib_windows)["long_name"]});
    assert!(
        window["long_name"]
            .as_str()
            .unwrap()
            .starts_with("beginning of a window of ")
    );
    for (name, one, other, dropped, left) in [
        (
            "plain",
            of_grib,
            of_nc,
            "axis, comment, long_name",
            json!({"standard_name": "time"}),
        ),
        ("windows", grib_windows, nc_windows, "axis, comment", window),
    ] {
        let targets = ["there", "turned"].map(|kind| case.path(&format!("{name}-{kind}")));
        let [there, turned] = targets.each_ref().map(|path| path.to_str().unwrap());
        for stores in [[&**one, other, there], [other, one, turned]] {
            let said = concat(&["--merge"], &stores);
            let note = format!(
                "note: the stores differ in these attributes of `time`, which the result has not: {dropped}\n"
            );
            assert!(said.contains(&note), "{said}");
        }
        assert_same_files(&targets[0], &targets[1]);
        assert_eq!(times(there), left);
    }
    // Times that are beginnings of windows are no instants.
    for [one, other] in [[of_grib, nc_windows], [nc_windows, of_grib]] {
        let target = case.path("none");
        let said = refuse(
            &["concat", "--merge", one, other, target.to_str().unwrap()],
            12,
            &target,
        );
        assert!(
            said.contains("the attribute `long_name` of `time` is")
                && said.contains("beginning of a window of"),
            "{said}"
        );
    }
}

//! What stores say of themselves, against cfgrib, xarray and netCDF4: all attributes, types and coordinates, but for
//! the differences that are listed here.

use serde_json::{Value, json};

use crate::grib::Case;
use crate::{python, report, run, succeed};

/// Two months of a variable, of which the first is final and the second, of another edition, is not.
fn preliminary() -> Value {
    let month = |name: &str, edition: i64, expver: &str, day: &str, process: i64| {
        json!({"file": name, "edition": edition, "param": 235, "type": "an", "steps": [0],
               "runs": [format!("{day}T00:00"), format!("{day}T12:00")],
               "keys": {"expver": expver, "class": "ea", "generatingProcessIdentifier": process}})
    };
    json!([
        month("1.grib", 1, "0001", "2020-02-01", 145),
        month("2.grib", 2, "0005", "2020-02-02", 9),
    ])
}

#[test]
fn fields_that_differ_in_where_they_are_from_say_so() {
    let case = Case::new(&preliminary());
    let mut said = Vec::new();
    for (input, target) in [
        ("in/1.grib", "1.zarr"),
        ("in/2.grib", "2.zarr"),
        ("in", "all.zarr"),
    ] {
        let paths = [case.text(input), case.text(target)];
        let options = ["grib2zarr", "--chunk", "time=2"];
        let output = run(&[&options[..], &[&*paths[0], &*paths[1]]].concat());
        assert!(output.status.success());
        said.push(String::from_utf8(output.stdout).unwrap());
    }
    assert_eq!(said[0], "");
    let notes = [
        "the fields of `skt` differ in GRIB_edition, which is 1 or 2",
        "the fields of `skt` differ in GRIB_expver, which is \"0001\" or \"0005\"",
        "the fields of `skt` differ in GRIB_generatingProcessIdentifier, which is 9 or 145",
    ];
    let lines: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    assert_eq!(said[2], lines);
    assert_eq!(
        report(&case.path("all.zarr/report.json"))["notes"],
        json!(notes)
    );
    // Month by month it is the same, also appended, and that is said, too.
    let stores = ["1.zarr", "2.zarr", "all.zarr", "joined.zarr", "grown.zarr"];
    let [first, second, _, joined, grown] = stores.map(|name| case.text(name));
    let stores_of = [first.as_str(), second.as_str()];
    for arguments in [
        &["concat", "--chunk", "time=2", &first, &second, &joined][..],
        &["concat", "--chunk", "time=2", &first, &grown],
        &["concat", "--append", &second, &grown],
    ] {
        let output = run(arguments);
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        let dropped = "note: the stores differ in these attributes of their own, which the result has not: \
                       GRIB_edition, GRIB_expver\n";
        let expected = format!("{dropped}{lines}");
        assert_eq!(said.starts_with(&expected), arguments.contains(&&*second));
    }
    // What fields there are, too.
    let whole = report(&case.path("all.zarr/report.json"));
    assert_eq!(whole["presence"]["fields"], json!({"skt": [1, 1, 1, 1]}));
    for name in ["joined", "grown"] {
        let said = report(&case.path(&format!("{name}.zarr/report.json")));
        assert_eq!(said["presence"], whole["presence"], "{name}");
        let (store, picture) = (case.text(&format!("{name}.zarr")), case.text(name));
        succeed(&["validate", "--step", "12h", &store]);
        succeed(&["plot", "--kind", "presence", "--out", &picture, &store]);
    }
    // What is ignored stays as the first has it.
    let kept = case.text("kept.zarr");
    let ignored = ["concat", "--ignore-attribute", "GRIB_expver"];
    let output = run(&[&ignored[..], &[stores_of[0], stores_of[1], &kept]].concat());
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        !said.contains("differ in GRIB_expver") && said.contains("`skt` differ in GRIB_edition"),
        "{said}"
    );
    let script = "import json, sys, xarray; print(json.dumps(xarray.open_zarr(sys.argv[1]).skt.attrs[\"GRIB_expver\"]))";
    assert_eq!(python(script, &[&kept]), json!("0001"));
    // A matrix that cannot be read is not taken for none.
    let copy = case.path("2.zarr/report.json");
    let text = std::fs::read_to_string(&copy).unwrap();
    let refused = case.path("refused.zarr");
    let arguments = [
        "concat",
        stores_of[0],
        stores_of[1],
        refused.to_str().unwrap(),
    ];
    let mut short = report(&copy);
    short["presence"]["fields"]["skt"] = json!([1]);
    for damaged in [&text[..text.len() / 2], &short.to_string()] {
        std::fs::write(&copy, damaged).unwrap();
        let said = crate::refuse(&arguments, 12, &refused);
        assert!(
            said.contains("2.zarr: its report.json is damaged"),
            "{said}"
        );
    }
    std::fs::write(&copy, text).unwrap();
    let script = r#"
import json, sys, xarray
one, two, whole, joined, grown = (xarray.open_zarr(path).load() for path in sys.argv[1:])
xarray.testing.assert_identical(joined, whole)
xarray.testing.assert_identical(grown, whole)
assert one.attrs["GRIB_edition"] == 1 and two.attrs["GRIB_edition"] == 2 and "GRIB_edition" not in whole.attrs
print(json.dumps({key[5:]: value for key, value in whole["skt"].attrs.items() if key.startswith("GRIB_")}))
"#;
    let stores = stores.map(|name| case.text(name));
    let attributes = python(script, &stores.each_ref().map(String::as_str));
    assert_eq!(
        attributes,
        json!({"paramId": 235, "level": 0.0, "edition": [1, 2], "centre": "ecmf", "subCentre": 0,
               "dataType": "an", "stepType": "instant", "typeOfLevel": "surface", "shortName": "skt",
               "class": "ea", "stream": "oper", "expver": ["0001", "0005"],
               "generatingProcessIdentifier": [9, 145], "gridType": "reduced_gg"})
    );
}

/// Compares all that a store and cfgrib say. What cfgrib says and the store does not, and why, is in the script.
const CFGRIB: &str = r#"
import json, sys, numpy, xarray
ours = xarray.open_zarr(sys.argv[1])
theirs = xarray.open_dataset(sys.argv[2], engine="cfgrib", backend_kwargs={"indexpath": ""})

# The store has one time, that of validity, where cfgrib has the run, the step and the sum of both; and levels and
# members of which there is but one are attributes or nothing.
renamed = theirs.rename({"valid_time": "validity"})
single = [name for name in renamed.coords if renamed[name].ndim == 0]
renamed = renamed.drop_vars([*single, "step"], errors="ignore")
along = renamed["validity"].dims
renamed = renamed.rename({"validity": "time"}) if not along else renamed.rename({"validity": "time"}).swap_dims({along[0]: "time"})
if "values" in renamed.dims:
    renamed = renamed.rename({"values": "x"})
assert set(ours.coords) == set(renamed.coords), (set(ours.coords), set(renamed.coords))
assert set(ours.data_vars) == set(renamed.data_vars)

# Of the dataset: cfgrib says that it made it, and when.
found = dict(ours.attrs)
assert found.pop("Conventions") == "CF-1.11" and found.pop("grid")
# What it says of variables, all of which agree here.
for key in ["GRIB_dataType", "GRIB_gridType", "GRIB_class", "GRIB_stream", "GRIB_expver"]:
    said = [variable.attrs.get(key) for variable in ours.data_vars.values()]
    assert found.pop(key, None) == said[0] and len(set(said)) == 1, key
expected = dict(theirs.attrs)
assert expected.pop("Conventions") == "CF-1.7" and "cfgrib" in expected.pop("history")
assert found == expected, (found, expected)

# How points lie and are packed is in the coordinates and the values; the step is in the time.
left_out = {"numberOfPoints", "stepUnits", "uvRelativeToGrid", "N", "pl", "NV", "Nx", "Ny", "gridDefinitionDescription",
    "missingValue", "totalNumber", "iDirectionIncrementInDegrees", "iScansNegatively", "jDirectionIncrementInDegrees",
    "jPointsAreConsecutive", "jScansPositively", "latitudeOfFirstGridPointInDegrees",
    "latitudeOfLastGridPointInDegrees", "longitudeOfFirstGridPointInDegrees", "longitudeOfLastGridPointInDegrees"}
# What cfgrib leaves out, or says of the dataset or with a coordinate.
beside = {"cell_methods", "GRIB_level", "GRIB_edition", "GRIB_centre", "GRIB_subCentre", "GRIB_class", "GRIB_stream",
    "GRIB_expver", "GRIB_generatingProcessIdentifier"}
for name, variable in ours.data_vars.items():
    found = {key: value for key, value in variable.attrs.items() if key not in beside}
    expected = {key: value for key, value in renamed[name].attrs.items() if key.removeprefix("GRIB_") not in left_out}
    # These are there under the names of the CF conventions, or as the name of the variable.
    assert expected.pop("GRIB_name") == found["long_name"] and expected.pop("GRIB_units") == found["units"]
    assert expected.pop("GRIB_cfVarName") == name
    if expected.pop("GRIB_cfName") == "unknown":
        assert expected.pop("standard_name") == "unknown"
    assert found == expected, (name, found, expected)
    assert variable.dtype == renamed[name].dtype == numpy.float32
    assert variable.dims == renamed[name].dims, (variable.dims, renamed[name].dims)
    # cfgrib keeps what is missing as NaN, too, but has no encoding to say so.
    assert numpy.isnan(variable.encoding["_FillValue"]) and "_FillValue" not in renamed[name].encoding
    a, b = variable.sortby(list(variable.indexes)), renamed[name].sortby(list(variable.indexes))
    assert a.shape == b.shape and a.values.tobytes() == b.values.tobytes(), name
    for key, place in [("GRIB_edition", "edition"), ("GRIB_centre", "centre"), ("GRIB_subCentre", "subCentre")]:
        assert variable.attrs[key] == theirs.attrs["GRIB_" + place]
for name in ours.coords:
    found, expected = dict(ours[name].attrs), dict(renamed[name].attrs)
    # cfgrib writes pressures from the largest on, the store all levels from the least on.
    expected.pop("stored_direction", None)
    assert found == expected, (name, found, expected)
    assert ours[name].dtype == renamed[name].dtype and ours[name].dims == renamed[name].dims, name
assert ours["time"].encoding["units"].startswith("seconds since 1970-01-01")
assert ours["time"].encoding["calendar"] == "proleptic_gregorian" == theirs["valid_time"].encoding["calendar"]
print(json.dumps(sorted(ours.variables)))
"#;

/// A regular grid of an edition at two times, of messages that say nothing of MARS.
const REGULAR: &str = r#"
import sys, eccodes, numpy
with open(sys.argv[1], "wb") as file:
    for step in [0, 6]:
        handle = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{sys.argv[2]}")
        for key, value in [("Ni", 12), ("Nj", 7), ("latitudeOfFirstGridPointInDegrees", 90),
                           ("latitudeOfLastGridPointInDegrees", -90), ("longitudeOfFirstGridPointInDegrees", 0),
                           ("longitudeOfLastGridPointInDegrees", 330), ("iDirectionIncrementInDegrees", 30),
                           ("jDirectionIncrementInDegrees", 30), ("centre", "edzw"), ("paramId", 167), ("step", step)]:
            eccodes.codes_set(handle, key, value)
        eccodes.codes_set_values(handle, 250 + step + numpy.arange(84.0))
        eccodes.codes_write(handle, file)
print("{}")
"#;

#[test]
fn grib_says_what_cfgrib_says_of_it() {
    // Versions of Zarr are read alike: each edition is written in one.
    for (edition, format) in [(1, "2"), (2, "3")] {
        let series = |file: &str, param: i64, level_type: &str, level: i64| {
            json!({"file": file, "edition": edition, "param": param, "runs": ["2020-02-01"], "steps": [0, 6],
                   "level_type": level_type, "level": level, "bitmap": true})
        };
        let case = Case::new(&json!([
            series("surface.grib", 134, "surface", 0),
            series("surface.grib", 235, "surface", 0),
            series("levels.grib", 130, "isobaricInhPa", 500),
            series("levels.grib", 130, "isobaricInhPa", 850),
        ]));
        let regular = case.text("in/regular.grib");
        python(REGULAR, &[&regular, &edition.to_string()]);
        for (name, expected) in [
            (
                "surface",
                json!(["latitude", "longitude", "skt", "sp", "time"]),
            ),
            (
                "levels",
                json!(["isobaricInhPa", "latitude", "longitude", "t", "time"]),
            ),
            ("regular", json!(["latitude", "longitude", "t2m", "time"])),
        ] {
            let file = case.text(&format!("in/{name}.grib"));
            let store = case.text(&format!("{name}.zarr"));
            succeed(&["grib2zarr", "--zarr-format", format, &file, &store]);
            assert_eq!(python(CFGRIB, &[&store, &file]), expected);
        }
    }
}

/// A file of a format with all kinds of attributes; of a second file some differ.
pub(crate) const MAKE_NC: &str = r#"
import sys, netCDF4, numpy
for number in range(2):
    with netCDF4.Dataset(f"{sys.argv[1]}/{number}.nc", "w", format=sys.argv[2]) as file:
        file.title, file.history = "Forcing", f"made on day {number}"
        file.version, file.numbers = numpy.float32(1.5), numpy.array([1, 2, 3], "i4")
        file.createDimension("time", None)
        file.createDimension("lat", 3)
        file.createDimension("lon", 4)
        time = file.createVariable("time", "i4", ("time",))
        time.units, time.calendar = "hours since 2020-02-01 00:00:00", "gregorian"
        time.long_name, time.standard_name, time.axis, time.comment = "end of the hour", "time", "T", "of the model"
        time[:] = numpy.arange(4) + 4 * number
        for name, units, length in [("lat", "degrees_north", 3), ("lon", "degrees_east", 4)]:
            place = file.createVariable(name, "f4", (name,))
            place.units, place.long_name, place.axis = units, name, "Y" if name == "lat" else "X"
            place[:] = numpy.arange(length)
        mask = file.createVariable("mask", "f8", ("lat", "lon"))
        mask.units, mask.comment = "1", "land"
        mask[:] = 0.25
        values = numpy.arange(48.0).reshape(4, 3, 4)
        air = file.createVariable("air", "f4", ("time", "lat", "lon"), fill_value=numpy.float32(-999))
        air.units, air.long_name, air.cell_methods, air.coordinates = "K", "air", "time: point", "mask"
        air.comment, air.levels, air.height = f"of day {number}", numpy.array([2, 10], "i4"), numpy.float32(2.5)
        air[:] = numpy.where(values == 5, -999, values)
        double = file.createVariable("double", "f8", ("time", "lat", "lon"))
        double.units = "Pa"
        double[:] = values / 3
        packed = file.createVariable("packed", "i2", ("time", "lat", "lon"), fill_value=-9)
        packed.scale_factor, packed.add_offset, packed.units = numpy.float32(0.5), numpy.float32(10), "1"
        packed.missing_value = numpy.int16(-9)
        packed.valid_range = numpy.array([0, 40], "i2")
        packed.set_auto_maskandscale(False)
        packed[:] = numpy.where(values == 7, -9, values).astype("i2")
        # Unsigned, which the type of the classic format does not say; as -56 stands for 200.
        shade = file.createVariable("shade", "i1", ("time", "lat", "lon"))
        shade.setncattr("_Unsigned", "true")
        shade.scale_factor, shade.valid_min, shade.valid_max = numpy.float32(0.5), numpy.int8(0), numpy.int8(-56)
        shade.set_auto_maskandscale(False)
        shade[:] = values.astype("i1")
        level = file.createVariable("level", "i1", ("time", "lat", "lon"))
        level.setncattr("_Unsigned", "true")
        level.valid_range = numpy.array([0, -1], "i1")
        level.set_auto_maskandscale(False)
        level[:] = -values.astype("i1")
        # By the conventions a range in the type of the scale is of values that are not packed.
        rate = file.createVariable("rate", "i2", ("time", "lat", "lon"), fill_value=-9)
        rate.scale_factor, rate.valid_range = numpy.float32(0.5), numpy.array([-1.5, 24], "f4")
        rate.set_auto_maskandscale(False)
        rate[:] = values.astype("i2")
        count = file.createVariable("count", "i4", ("time", "lat", "lon"))
        count.long_name = "how many"
        if number == 1:
            count.note = "only here"
        count[:] = values.astype("i4")
print("{}")
"#;

/// Compares all that a store and xarray say of the same file.
const XARRAY: &str = r#"
import json, sys, numpy, xarray
ours, theirs = xarray.open_zarr(sys.argv[1]), xarray.open_dataset(sys.argv[2])
assert set(ours.coords) == set(theirs.coords) and set(ours.data_vars) == set(theirs.data_vars)

def plain(attributes):
    return {key: value.tolist() if isinstance(value, (numpy.ndarray, numpy.generic)) else value
            for key, value in attributes.items()}

found = plain(ours.attrs)
# The store is of this version of the conventions, whatever the file was of.
assert found.pop("Conventions") == "CF-1.11"
assert found == plain(theirs.attrs)
for name in theirs.variables:
    found, expected = plain(ours[name].attrs), plain(theirs[name].attrs)
    # Ranges of packed values, which the store does not have.
    if name == "packed":
        assert expected["valid_range"] == [0, 40]
        expected["valid_range"] = [10.0, 30.0]
    if name == "shade":
        assert expected["valid_min"] == 0 and expected["valid_max"] == -56
        expected.update({"valid_min": 0.0, "valid_max": 100.0})
    if name == "level":
        assert expected["valid_range"] == [0, -1]
        expected["valid_range"] = [0, 255]
    assert found == expected, (name, found, expected)
    # The store has integers of 64 bits only.
    dtype = numpy.dtype("i8") if theirs[name].dtype.kind in "iu" else theirs[name].dtype
    assert ours[name].dtype == dtype and ours[name].dims == theirs[name].dims, name
    assert numpy.array_equal(ours[name].values, theirs[name].values, equal_nan=dtype.kind == "f"), name
    # Values are stored as they are, and what is missing as NaN.
    assert not {"scale_factor", "add_offset"} & set(ours[name].encoding), name
    if dtype.kind == "f":
        assert numpy.isnan(ours[name].encoding["_FillValue"]), name
    else:
        assert "_FillValue" not in ours[name].encoding, name
time = ours["time"].encoding
assert time["units"].startswith("seconds since 1970-01-01") and time["calendar"] == "proleptic_gregorian"
print(json.dumps(sorted(ours.variables)))
"#;

#[test]
fn levels_that_are_apart_say_where_each_is_from() {
    let level = |level: i64, expver: &str| {
        json!({"file": "snow.grib", "edition": 2, "param": 228_141, "level_type": "snowLayer", "level": level,
               "type": "an", "runs": ["2020-02-01", "2020-02-02"], "steps": [0], "keys": {"expver": expver}})
    };
    let case = Case::new(&json!([level(1, "0001"), level(2, "0005")]));
    let (input, apart, whole) = (
        case.text("in"),
        case.text("apart.zarr"),
        case.text("whole.zarr"),
    );
    let said = |options: &[&str]| String::from_utf8(run(options).stdout).unwrap();
    let separate = ["grib2zarr", "--levels", "separate"];
    assert_eq!(said(&[&separate[..], &[&*input, &apart]].concat()), "");
    assert_eq!(
        said(&["grib2zarr", &input, &whole]),
        "note: the fields of `sd` differ in GRIB_expver, which is \"0001\" or \"0005\"\n"
    );
    let script = r#"
import json, sys, xarray
stores = [xarray.open_zarr(path) for path in sys.argv[1:]]
print(json.dumps({name: store[name].attrs["GRIB_expver"] for store in stores for name in store.data_vars}))
"#;
    assert_eq!(
        python(script, &[&apart, &whole]),
        json!({"sd_l1": "0001", "sd_l2": "0005", "sd": ["0001", "0005"]})
    );
}

#[test]
fn netcdf_says_what_xarray_says_of_it() {
    for (kind, format) in [
        ("NETCDF4", "3"),
        ("NETCDF3_CLASSIC", "2"),
        ("NETCDF3_64BIT_OFFSET", "3"),
    ] {
        let case = Case::new(&json!([]));
        python(MAKE_NC, &[&case.text("in"), kind]);
        let [first, second] = ["in/0.nc", "in/1.nc"].map(|name| case.text(name));
        let store = case.text("first.zarr");
        succeed(&["nc2zarr", "--zarr-format", format, &first, &store]);
        let expected = json!([
            "air", "count", "double", "lat", "level", "lon", "mask", "packed", "rate", "shade",
            "time"
        ]);
        assert_eq!(python(XARRAY, &[&store, &first]), expected);
        let store = case.text("both.zarr");
        let output = run(&["nc2zarr", &first, &second, &store]);
        let notes = [
            format!("the attribute `history` of the files is kept as it is in `{first}`; in 1 more file(s) it differs"),
            format!("the attribute `comment` of `air` is \"of day 0\" in `{first}`, which is kept, but \"of day 1\" in `{second}`"),
            format!("the attribute `note` of `count` is not there in `{first}`, which is kept, but \"only here\" in `{second}`"),
            "`level` has a valid_range, which is kept, but values outside of it are not made missing".to_owned(),
            "`packed` has a valid_range, which is kept, but values outside of it are not made missing".to_owned(),
            "`rate` has a valid_range, which is kept, but values outside of it are not made missing".to_owned(),
            "`shade` has a valid_min, which is kept, but values outside of it are not made missing".to_owned(),
        ];
        let lines: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
        let said = report(&case.path("both.zarr/report.json"));
        assert_eq!(said["notes"], json!(notes));
    }
}

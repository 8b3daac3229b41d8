//! Stores of Zarr format 2, as the last zarr that knows no other format and an xarray of its time open them.

use std::path::Path;

use serde_json::{Value, json};

use crate::grib::{Case, land, write_mask};
use crate::metadata::MAKE_NC;
use crate::{interpreter, python, python_of, succeed};

/// All that a store says and holds.
const DESCRIBE: &str = r#"
import sys, json, hashlib, warnings
import numpy as np, xarray as xr, zarr
warnings.simplefilter("ignore")
def plain(value):
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    return "NaN" if value != value else value
said = {"zarr": zarr.__version__.split(".")[0], "stores": []}
for path in sys.argv[1:]:
    for options in ({"consolidated": True}, {"consolidated": True, "decode_cf": False}):
        store = xr.open_zarr(path, **options).load()
        of = lambda array: {
            "dims": list(array.dims), "type": array.dtype.kind, "attrs": {k: plain(v) for k, v in array.attrs.items()},
            "values": hashlib.sha256((array.values.astype("M8[ns]") if array.dtype.kind == "M" else array.values).tobytes()).hexdigest(),
            "fill": plain(array.encoding.get("_FillValue")), "calendar": array.encoding.get("calendar"),
        }
        said["stores"].append({"attrs": {k: plain(v) for k, v in store.attrs.items()},
            "dims": {str(name): int(length) for name, length in store.sizes.items()},
            "coords": sorted(store.coords), "variables": {name: of(store[name].variable) for name in store.variables}})
print(json.dumps(said))
"#;

fn described(older: bool, stores: &[&str]) -> Value {
    if !older {
        return python(DESCRIBE, stores);
    }
    let interpreter = interpreter();
    let python = interpreter.parent().and_then(Path::parent).unwrap();
    let folder = python.join("zarr-2");
    assert!(folder.is_dir(), "{folder:?} is missing: run ci/setup");
    python_of(&folder, DESCRIBE, stores)
}

#[test]
fn stores_of_format_2_are_the_same_to_the_older_zarr_and_xarray() {
    let case = Case::new(&land());
    write_mask(&case.path("mask.nc"));
    python(MAKE_NC, &[&case.text("in"), "NETCDF4"]);
    let [first, second] = ["in/0.nc", "in/1.nc"].map(|name| case.text(name));
    let names = ["land", "0", "1", "both", "again"];
    let stores = names.map(|name| case.text(&format!("{name}.zarr")));
    let [land, day, next, both, again] = stores.each_ref().map(String::as_str);
    let format = ["--zarr-format", "2"];
    let mut files = Vec::new();
    for name in ["fc", "last", "soil", "snow"] {
        files.push(case.text(&format!("in/{name}.grib")));
    }
    let mut convert = vec!["grib2zarr"];
    convert.extend(files.iter().map(String::as_str));
    let mask = case.text("mask.nc");
    convert.extend([
        land,
        "--points",
        &mask,
        "--resample",
        "6h=mean",
        "--levels",
        "separate",
    ]);
    convert.extend(["--wrap-longitudes", "--chunk", "time=3"]);
    for arguments in [
        &convert[..],
        &["nc2zarr", &first, day],
        &["nc2zarr", &second, next],
        &[
            "concat",
            "--chunk",
            "time=3",
            "--ignore-attribute",
            "comment",
            "--ignore-attribute",
            "note",
            day,
            next,
            both,
        ],
        &["rechunk", "--chunk", "time=-1,x=7", land, again],
    ] {
        succeed(&[arguments, &format].concat());
    }
    let stores = stores.each_ref().map(String::as_str);
    let (newest, older) = (described(false, &stores), described(true, &stores));
    assert_eq!(
        (&newest["zarr"], &older["zarr"]),
        (&json!("3"), &json!("2"))
    );
    assert_eq!(older["stores"], newest["stores"]);
    // They say something.
    let land = &older["stores"][0];
    assert_eq!(land["variables"]["t2m"]["attrs"]["units"], "K");
    assert_eq!(land["variables"]["time"]["type"], "M");
    assert_eq!(older["stores"][6]["dims"]["time"], 8);
}

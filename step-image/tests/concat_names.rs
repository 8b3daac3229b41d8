//! `concat`: names of variables, and attributes that name others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{assert_same_files, python, run, step};

/// Two months whose points have latitudes and longitudes, and one variable that names a grid mapping.
const MAKE: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
for month in ["2020-02", "2020-03"]:
    times = pd.date_range(month, periods=4 * pd.Timestamp(month).days_in_month, freq="6h")
    t, x = len(times), 9
    ds = xr.Dataset({
        "swvl1": (("time", "x"), np.random.default_rng(1).random((t, x), dtype="f4"), {"units": "1", "grid_mapping": "crs"}),
        "soil": (("x",), np.arange(1.0, x + 1)),
        "crs": ((), np.int32(7), {"grid_mapping_name": "latitude_longitude"}),
    }, coords={"time": times, "x": np.arange(1, x + 1), "name": (("x",), list("abcdefghi")), "height": ((), 2.5),
        "lat": (("x",), np.linspace(-60, 80, x), {"units": "degrees_north"}),
        "lon": (("x",), np.linspace(-180, 179, x), {"units": "degrees_east"})})
    ds.to_zarr(f"{sys.argv[1]}/{month}", zarr_format=int(sys.argv[2][-1]), consolidated=True)
"#;

const CHECK: &str = r#"
import sys, xarray as xr, zarr
new = {"lat": "latitude", "lon": "longitude", "crs": "projection"}
months, found = sys.argv[1:3], xr.open_zarr(sys.argv[3], consolidated=True).load()
opened = [xr.open_zarr(p, consolidated=True) for p in months]
expected = xr.concat(opened, "time", data_vars="minimal", coords="minimal", compat="override", join="override").load()
expected = expected.rename(new)
expected.swvl1.attrs["grid_mapping"] = "projection"
if len(sys.argv) > 4:
    expected = expected.drop_vars("soil").drop_vars("projection")
assert set(found.coords) == set(expected.coords), (list(found.coords), list(expected.coords))
xr.testing.assert_identical(found, expected)
"#;

#[test]
fn attributes_say_the_new_names_so_that_coordinates_stay_coordinates() {
    for format in ["2", "3"] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let version = std::path::Path::new(format);
        python(MAKE, &[folder.path(), version]);
        let (february, march) = (path("2020-02"), path("2020-03"));
        let options = ["--rename", "lat=latitude,lon=longitude,crs=projection"];
        let concat = ["concat", "--chunk", "time=10"];
        run(step(&concat, &[&february, &march, &path("all")]).args(options));
        python(CHECK, &[&february, &march, &path("all")]);
        // A store that grows has the new names already.
        run(step(&concat, &[&february, &path("grown")]).args(options));
        for _ in ["it grows", "it has these times already"] {
            let mut append = step(&["concat", "--append"], &[&march, &path("grown")]);
            run(append.args(options));
            assert_same_files(&path("all"), &path("grown"));
        }
        // Coordinates belong to what is selected, also under their new names.
        let mut selection = step(&concat, &[&february, &march, &path("selected")]);
        run(selection.args(options).args(["--variables", "swvl1"]));
        python(CHECK, &[&february, &march, &path("selected"), version]);
    }
}

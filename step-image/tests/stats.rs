//! `stats`: compared with numpy, and the same bytes whoever does the work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::kills::{UnderWay, kill_and_run_again};
use common::{assert_same_files, left_over, python, refused, run, step};

const MAKE: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
rng = np.random.default_rng(5)
t, x = 97, 61
a = (rng.normal(280, 10, (t, x)) + 1e4).astype("f4")
b = rng.normal(size=(2, t, x))
holes = rng.normal(size=(t, x)).astype("f4")
holes[5, 3] = holes[40:60, 7] = np.nan
holes[:, 9] = np.nan
ds = xr.Dataset({
    "a": (("time", "x"), a, {"units": "K"}), "b": (("level", "time", "x"), b), "holes": (("time", "x"), holes),
    "packed": (("time", "x"), rng.normal(size=(t, x))), "count": (("time", "x"), rng.integers(-5, 5, (t, x))),
    "static": (("x",), rng.normal(size=x)),
}, coords={"time": pd.date_range("2020-01-01", periods=t, freq="6h"), "x": np.arange(x), "level": [1, 2],
    "lat": (("x",), np.linspace(-90, 90, x), {"units": "degrees_north"})})
ds.to_zarr(sys.argv[1], zarr_format=3, consolidated=True, encoding={
    "a": {"chunks": (10, 61)}, "b": {"chunks": (1, 13, 20)}, "holes": {"chunks": (97, 8)},
    "packed": {"dtype": "i2", "scale_factor": 0.001, "_FillValue": -32768, "chunks": (7, 61)}})
"#;

const COMPARE: &str = r#"
import sys, numpy as np, xarray as xr
ds, found = (xr.open_zarr(p, consolidated=True).load() for p in sys.argv[1:3])
names = ["a", "b", "count", "holes", "packed", "static"]
assert list(found["variable"].values) == names, found["variable"].values
assert list(found["units"].values)[0] == "K"
def close(x, y, scale=1.0):
    np.testing.assert_allclose(np.asarray(x, "f8"), np.asarray(y, "f8"), rtol=1e-12, atol=1e-12 * scale)
for name in names:
    v, one = ds[name].astype("f8"), found.sel(variable=name)
    scale = float(np.abs(v).max())
    close(one["mean"], v.mean(), scale); close(one["std"], v.std(), scale)
    assert one["min"] == v.min() and one["max"] == v.max()
    assert one["count"] == v.notnull().sum() and one["missing"] == v.isnull().sum()
    if name == "static":
        assert one["diff_count"] == 0 and np.isnan(one["diff_mean"])
        assert "static_mean" not in found
        continue
    d = v.diff("time")
    assert one["diff_count"] == d.notnull().sum()
    close(one["diff_mean"], d.mean(), scale); close(one["diff_std"], d.std(), scale)
    if len(sys.argv) > 3:
        assert found[f"{name}_mean"].dims == tuple(x for x in v.dims if x != "time")
        close(found[f"{name}_mean"], v.mean("time"), scale); close(found[f"{name}_std"], v.std("time"), scale)
        close(found[f"{name}_min"], v.min("time")); close(found[f"{name}_max"], v.max("time"))
        close(found[f"{name}_diff_mean"], d.mean("time"), scale); close(found[f"{name}_diff_std"], d.std("time"), scale)
        assert (found[f"{name}_missing"] == v.isnull().sum("time")).all()
        assert (found[f"{name}_diff_count"] == d.notnull().sum("time")).all()
        assert (found.lat == ds.lat).all() and (found.x == ds.x).all()
"#;

#[test]
fn statistics_are_those_of_numpy() {
    let folder = tempfile::tempdir().unwrap();
    let (store, all, points) = (
        folder.path().join("store"),
        folder.path().join("all"),
        folder.path().join("points"),
    );
    python(MAKE, &[&store]);
    run(&mut step(&["stats"], &[&store, &all]));
    python(COMPARE, &[&store, &all]);
    run(&mut step(&["stats", "--per-point"], &[&store, &points]));
    python(COMPARE, &[&store, &points, Path::new("points")]);
    for threads in ["1", "3"] {
        let again = folder.path().join(threads);
        run(step(
            &["stats", "--per-point", "--threads", threads],
            &[&store, &again],
        )
        .args(["--missing", "skip"]));
        assert_same_files(&points, &again);
    }
    assert!(left_over(folder.path()).is_empty());
}

/// A store of 12 MB, in chunks of one time.
const LARGE: &str = r#"
import sys, numpy as np, zarr
g = zarr.create_group(sys.argv[1], zarr_format=3)
a = g.create_array("a", shape=(100, 30000), chunks=(1, 30000), dtype="f4", dimension_names=("time", "x"))
a[...] = np.random.default_rng(2).random((100, 30000), dtype="f4")
"#;

#[test]
fn who_was_killed_writes_the_same_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    python(LARGE, &[&store]);
    kill_and_run_again(UnderWay::Parts, |place| {
        step(&["stats", "--per-point"], &[&store, &place.join("out")])
    });
}

#[test]
fn what_has_no_statistics_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, there) = (folder.path().join("store"), folder.path().join("there"));
    python(MAKE, &[&store]);
    let (code, message) = refused(&mut step(
        &["stats", "--missing", "refuse"],
        &[&store, &there],
    ));
    assert!(
        code == 12 && message.contains("`holes` has 118 missing value(s)"),
        "{message}"
    );
    let (code, message) = refused(&mut step(
        &["stats", "--variables", "nothing"],
        &[&store, &there],
    ));
    assert!(
        code == 11 && message.contains("no variable `nothing`"),
        "{message}"
    );
    python(
        "import sys, zarr; zarr.open_group(sys.argv[1])['a'][50, 2] = float('inf')",
        &[&store],
    );
    let (code, message) = refused(&mut step(&["stats"], &[&store, &there]));
    assert!(
        code == 12 && message.contains("`a` has the value inf"),
        "{message}"
    );
    assert!(!there.exists());
}

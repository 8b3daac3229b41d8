//! Steps on the store that a land model of ECMWF was trained with, as it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use common::{python, run, step};

/// The real store, where there are cases.
fn real_store() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/cases");
    let cases = std::env::var_os("MLWM_TEST_CASES").map_or(beside, PathBuf::from);
    let store = cases.join("ai-land/ecland_cy49r2_2020_2022.zarr");
    // Where there are cases, this one is not left out.
    assert!(
        !cases.exists() || store.exists(),
        "there is no {}",
        store.display()
    );
    store.exists().then_some(store)
}

const SAME: &str = r#"
import sys, zarr, xarray as xr
one, there, back = (zarr.open_group(p, mode="r") for p in sys.argv[1:])
assert sorted(one) == sorted(there) == sorted(back) and len(list(one)) == 41, len(list(one))
for name in one:
    for other in (there, back):
        assert one[name].dtype == other[name].dtype and one[name][...].tobytes() == other[name][...].tobytes(), name
assert there["swvl1"].chunks == (100, 3) and back["swvl1"].chunks == (4384, 10)
for path in sys.argv[2:]:
    xr.testing.assert_identical(xr.open_zarr(sys.argv[1]).load(), xr.open_zarr(path).load())
"#;

const STATS: &str = r#"
import sys, numpy as np, xarray as xr
store, found = (xr.open_zarr(p).load() for p in sys.argv[1:])
names = list(found["variable"].values)
assert names == sorted(store.data_vars) and len(names) == 37, names
for name in names:
    v, one = store[name].values.astype("f8"), found.sel(variable=name)
    d = np.diff(v, axis=0)
    scale = np.abs(v).max()
    for key, expected in [("mean", v.mean()), ("std", v.std()), ("diff_mean", d.mean()), ("diff_std", d.std())]:
        np.testing.assert_allclose(float(one[key]), expected, rtol=1e-12, atol=1e-12 * scale, err_msg=f"{name} {key}")
    assert one["min"] == v.min() and one["max"] == v.max(), name
    assert one["count"] == v.size and one["missing"] == 0, name
    # What is called climate does not change with time.
    if name.startswith("clim_"):
        assert one["diff_std"] == 0 and one["diff_mean"] == 0, name
"#;

#[test]
fn the_store_of_a_land_model_stays_what_it_is() {
    let Some(store) = real_store() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let [there, back, stats] = ["there", "back", "stats"].map(|name| folder.path().join(name));
    let options = ["rechunk", "--chunk", "time=100,x=3"];
    run(step(&options, &[&store, &there]).args(["--zarr-format", "3"]));
    let options = ["rechunk", "--chunk", "time=-1,x=-1"];
    run(step(&options, &[&there, &back]).args(["--zarr-format", "2"]));
    python(SAME, &[&store, &there, &back]);
    run(&mut step(&["stats"], &[&store, &stats]));
    python(STATS, &[&store, &stats]);
    run(&mut step(&["validate", "--step", "6h"], &[&store]));
}

//! `plot`: pictures that show what they should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{python, refused, run, step};

/// Points spread over a sphere, and a regular grid.
const MAKE: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
kind = sys.argv[2].split("/")[-1]
t = pd.date_range("2020-01-01", periods=60, freq="6h")
if kind == "points":
    n = 6000
    i = np.arange(n) + 0.5
    lat = np.degrees(np.arcsin(1 - 2 * i / n)); lon = (i * 137.50776) % 360
    land = np.sin(np.radians(3 * lon)) + np.cos(np.radians(2 * lat)) > 0.2
    lat, lon = lat[land], lon[land]
    place, dims, coords = lat, ("time", "x"), {"lat": (("x",), lat, {"units": "degrees_north"}), "lon": (("x",), lon, {"units": "degrees_east"})}
else:
    lat, lon = np.arange(70, 29.9, -0.5), np.arange(-20, 40.1, 0.5)
    place, dims, coords = np.repeat(lat[:, None], len(lon), 1), ("time", "lat", "lon"), {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
day = np.arange(60).reshape((60,) + (1,) * place.ndim)
values = (300 - 0.6 * np.abs(place) + 5 * np.sin(day / 4 * 2 * np.pi)).astype("f4")
if kind == "points":
    values[20:24] = np.nan
    values[40, :100] = np.nan
ds = xr.Dataset({"t2m": (dims, values, {"units": "K", "long_name": "2 metre temperature"}), "other": (dims, values * 0)}, coords={"time": t, **coords})
ds.to_zarr(sys.argv[1], zarr_format=2, consolidated=True)
"#;

fn size(file: &Path) -> (u32, u32) {
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(&bytes[1..4], b"PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn maps_series_and_presence() {
    let folder = tempfile::tempdir().unwrap();
    let out = match std::env::var_os("MLWM_TEST_PICTURES") {
        Some(folder) => folder.into(),
        None => folder.path().join("pictures"),
    };
    for kind in ["points", "grid"] {
        let store = folder.path().join(kind);
        python(MAKE, &[&store, Path::new(kind)]);
        let out = out.join(kind);
        let map = [
            "plot",
            "--kind",
            "map",
            "--time",
            "2020-01-02T12:00Z",
            "--variables",
            "t2m",
            "--out",
        ];
        run(&mut step(&map, &[&out, &store]));
        let (width, height) = size(&out.join("t2m_20200102T1200Z.png"));
        assert!(width > 800 && height > 500);
        let series = [
            "plot",
            "--kind",
            "series",
            "--point",
            "51.5,7.3",
            "--point=40,-10",
            "--out",
        ];
        run(&mut step(&series, &[&out, &store]));
        size(&out.join("t2m_series.png"));
        size(&out.join("other_series.png"));
        let file = out.join("is-there.png");
        run(&mut step(
            &["plot", "--kind", "presence", "--out"],
            &[&file, &store],
        ));
        size(&file);
        let again = folder.path().join("again.png");
        run(&mut step(
            &["plot", "--kind", "presence", "--out"],
            &[&again, &store],
        ));
        assert!(std::fs::read(file).unwrap() == std::fs::read(again).unwrap());
    }
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, out) = (folder.path().join("grid"), folder.path().join("out"));
    python(MAKE, &[&store, Path::new("grid")]);
    let file = folder.path().join("one.png");
    for (options, out, expected) in [
        (
            &["--kind", "map", "--time", "2021-01-01"][..],
            &out,
            "has no time 2021-01-01T00:00Z; it has 60 times",
        ),
        (
            &["--kind", "map", "--variables", "lat"],
            &out,
            "`lat` has no latitudes and longitudes",
        ),
        (
            &["--kind", "map", "--variables", "nothing"],
            &out,
            "no variable `nothing`",
        ),
        (
            &["--kind", "map"],
            &file,
            "2 pictures do not fit into one file",
        ),
        (&["--kind", "series"], &out, "--point 51.5,7.3"),
        (
            &["--kind", "series", "--point", "95,0"],
            &out,
            "is not a point",
        ),
    ] {
        let (_, message) = refused(
            step(&["plot"], &[&store])
                .args(options)
                .arg("--out")
                .arg(out),
        );
        assert!(message.contains(expected), "{message}");
        assert!(!out.exists());
    }
}

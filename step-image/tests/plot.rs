//! `plot`: pictures that show what they should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::kills::{UnderWay, kill_and_run_again};
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
fn who_was_killed_draws_the_same_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("points");
    python(MAKE, &[&store, Path::new("points")]);
    kill_and_run_again(UnderWay::Parts, |place| {
        let map = ["plot", "--kind", "map", "--out"];
        step(&map, &[&place.join("pictures"), &store])
    });
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

/// A store whose values are known: a grid, points, and variables of which something is missing.
const KNOWN: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
folder = sys.argv[1]
time = pd.date_range("2020-01-01", periods=8, freq="6h")
lat, lon = np.arange(60, 29, -10.0), np.arange(-20, 31, 10.0)
field = np.arange(24, dtype="f4").reshape(4, 6) + 250
field[1, 2] = np.nan
place = {"lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})}
xr.Dataset({"t": (("lat", "lon"), field), "turned": (("lon", "lat"), field.T)}, coords=place).to_zarr(f"{folder}/grid")

lat, lon = np.array([0.0, 40, -40, 20, -20]), np.array([0.0, 40, 350, 340, 30])
values = np.array([[3, 0, 10, np.nan, 7]], "f4")
xr.Dataset({"t": (("time", "x"), values)}, coords={"time": time[:1], "lat": (("x",), lat, {"units": "degrees_north"}),
    "lon": (("x",), lon, {"units": "degrees_east"})}).to_zarr(f"{folder}/points")

all = np.ones((8, 10), "f4")
holes, late = all.copy(), all.copy()
holes[2:4] = np.nan
holes[6, 3] = np.nan
late[0] = np.nan
xr.Dataset({"all": (("time", "x"), all), "holes": (("time", "x"), holes), "late": (("time", "x"), late)},
    coords={"time": time, "x": np.arange(10)}).to_zarr(f"{folder}/holes")
"#;

/// Finds the frames of a picture, and the colours in them.
const FIND: &str = r#"
import sys, numpy as np, xarray as xr
from PIL import Image
pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB")).astype(int)
store = xr.open_zarr(sys.argv[1])
frame = (pixels == 60).all(axis=2)

def runs(lines, least):
    """The numbers of lines with so many pixels of a frame, those beside each other as their first and last."""
    found = [at for at in range(len(lines)) if lines[at].sum() >= least]
    groups = []
    for at in found:
        if groups and groups[-1][1] == at - 1:
            groups[-1][1] = at
        else:
            groups.append([at, at])
    return groups

def common(area):
    """The colour that most pixels have: lines and letters may be in the way."""
    colours, counts = np.unique(area.reshape(-1, 3), axis=0, return_counts=True)
    return tuple(int(part) for part in colours[counts.argmax()])

height = max(column.sum() for column in frame.T)
sides = runs(frame.T, height - 4)
edges = runs(frame, 400)
top, bottom = edges[0][1] + 1, edges[1][0]
left, right = sides[0][1] + 1, sides[1][0]

def at(x, y, half=2):
    """The colour around a place, from the left and from the top of the field, as parts of it."""
    column, row = left + x * (right - left), top + y * (bottom - top)
    return common(pixels[round(row) - half:round(row) + half + 1, round(column) - half:round(column) + half + 1])

VIRIDIS_ENDS = (68, 1, 84), (253, 231, 37)
MISSING = (198, 198, 198)
"#;

/// The colours of maps: those that the colour bar has for the value at that place.
const MAP: &str = r#"
assert len(sides) == 4, sides
bar = pixels[top:bottom, (sides[2][1] + sides[3][0]) // 2]
low, high = float(store.t.min()), float(store.t.max())
# The frame lies on the first and the last of its pixels.
for end, colour in zip([bar[-3], bar[2]], VIRIDIS_ENDS):
    assert np.abs(end - colour).max() <= 3, (end, colour)
assert not (bar == MISSING).all(axis=1).any()

def of_bar(value):
    return bar[::-1][round((value - low) / (high - low) * (len(bar) - 1))]

def check(value, colour):
    if np.isnan(value):
        assert colour == MISSING, colour
    elif value == low:
        assert colour == VIRIDIS_ENDS[0], colour
    elif value == high:
        assert colour == VIRIDIS_ENDS[1], colour
    else:
        assert np.abs(of_bar(value) - colour).max() <= 3, (value, colour, of_bar(value))
"#;

const GRID: &str = r#"
field = store.t.values
for row in range(4):
    for column in range(6):
        # A little beside the middle, where the lines of the axes are.
        check(field[row, column], at((column + 0.4) / 6, (row + 0.4) / 4, 6))
"#;

const POINTS: &str = r#"
lon = np.where(store.lon > 180, store.lon - 360, store.lon)
def inside(values):
    margin = 0.015 * (values.max() - values.min())
    return (values - values.min() + margin) / (values.max() - values.min() + 2 * margin)
for value, x, y in zip(store.t.values[0], inside(lon), inside(store.lat.values)):
    check(value, at(x, 1 - y))
assert at(0.97, 0.97) == (243, 243, 243), "there is no point"
"#;

const PRESENCE: &str = r#"
GREEN, ORANGE, RED = (0, 158, 115), (230, 159, 0), (190, 30, 45)
names = ["all", "holes", "late"]
assert sorted(store.data_vars) == names
there = {name: store[name].notnull().mean("x").values for name in names}
for row, name in enumerate(names):
    for column, part in enumerate(there[name]):
        expected = GREEN if part == 1 else ORANGE if part > 0 else RED
        for side in [0.1, 0.5, 0.9]:
            found = at((column + side) / 8, (row + 0.5) / 3, 6)
            assert found == expected, (name, column, side, found)
"#;

#[test]
fn colours_are_those_of_the_values_at_their_places() {
    let folder = tempfile::tempdir().unwrap();
    python(KNOWN, &[folder.path()]);
    for (store, kind, variable, check) in [
        ("grid", "map", Some("t"), [MAP, GRID].concat()),
        ("grid", "map", Some("turned"), [MAP, GRID].concat()),
        ("points", "map", Some("t"), [MAP, POINTS].concat()),
        ("holes", "presence", None, PRESENCE.to_owned()),
    ] {
        let (store, file) = (folder.path().join(store), folder.path().join("one.png"));
        let mut plot = step(&["plot", "--kind", kind, "--out"], &[&file, &store]);
        if let Some(variable) = variable {
            plot.args(["--variables", variable]);
        }
        run(&mut plot);
        python(&[FIND, &check].concat(), &[&store, &file]);
    }
}

#[test]
fn a_range_that_is_given_is_that_of_the_colours() {
    let folder = tempfile::tempdir().unwrap();
    python(KNOWN, &[folder.path()]);
    let (store, file) = (folder.path().join("grid"), folder.path().join("one.png"));
    // What is beyond an end has the colour of the end.
    let mut plot = step(&["plot", "--kind", "map", "--out"], &[&file, &store]);
    run(plot.args(["--variables", "t", "--range", "255,260"]));
    let check = r#"
for row in range(4):
    for column in range(6):
        value, colour = store.t.values[row, column], at((column + 0.4) / 6, (row + 0.4) / 4, 6)
        if value <= 255 or value >= 260:
            assert colour == VIRIDIS_ENDS[int(value >= 260)], (value, colour)
        elif not np.isnan(value):
            assert colour not in VIRIDIS_ENDS, (value, colour)
"#;
    python(&[FIND, check].concat(), &[&store, &file]);
}

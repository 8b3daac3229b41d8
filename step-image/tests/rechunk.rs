//! `rechunk`: the same bits in other chunks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use common::kills::kill_when;
use common::{assert_same_files, files, left_over, peak_memory, python, refused, run, step};

/// A store of many kinds of numbers, with NaNs of several payloads.
const MAKE: &str = r#"
import sys, numpy as np, xarray as xr
path, kind = sys.argv[1], sys.argv[2].split("/")[-1]
rng = np.random.default_rng(1)
t, x, level = 50, 83, 3
f = rng.normal(280, 10, (t, x)).astype("f4")
f.view("u4")[3, 5] = 0x7fc01234
f.view("u4")[4, 6] = 0xffc00001
f.view("u4")[49, 82] = 0x7f801234
d = rng.normal(size=(t, level, x))
d[0, 0, 0] = -0.0
ds = xr.Dataset({
    "t2m": (("time", "x"), f, {"units": "K"}),
    "q": (("time", "level", "x"), d),
    "packed": (("time", "x"), rng.normal(size=(t, x))),
    "mask": (("x",), rng.integers(0, 2, x).astype(bool)),
    "kind": (("x",), rng.integers(0, 9, x).astype("u1")),
    "scalar": ((), np.float32(4.5)),
}, coords={
    "time": np.datetime64("2020-02-01") + np.arange(t) * np.timedelta64(6, "h"),
    "x": np.arange(x, dtype="i4"), "level": [1, 2, 3], "name": (("level",), ["one", "two", "three"]),
    "lat": (("x",), np.linspace(-90, 90, x), {"units": "degrees_north"}),
}, attrs={"title": "a test"})
encoding = {
    "packed": {"dtype": "i2", "scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -32768, "chunks": (7, 83)},
    "t2m": {"chunks": (10, 83)}, "q": {"chunks": (10, 3, 83)},
}
if kind == "sharded":
    encoding["t2m"] = {"chunks": (5, 20), "shards": (20, 40)}
ds.to_zarr(path, zarr_format=2 if kind == "v2" else 3, encoding=encoding, consolidated=True)
"#;

/// Compares two stores bit by bit as zarr reads them, and what xarray makes of them.
const SAME: &str = r#"
import sys, numpy as np, xarray as xr, zarr
for path in sys.argv[2:]:
    one, other = (zarr.open_group(p, mode="r") for p in (sys.argv[1], path))
    assert sorted(one) == sorted(other), (sorted(one), sorted(other))
    for name in one:
        a, b = one[name], other[name]
        assert a.shape == b.shape, name
        if a.dtype.kind in "UTO" or str(a.dtype).startswith("String"):
            assert (np.asarray(a[...]).astype("U") == np.asarray(b[...]).astype("U")).all(), name
            continue
        assert a.dtype == b.dtype, (name, a.dtype, b.dtype)
        assert a[...].tobytes() == b[...].tobytes(), name
    x, y = (xr.open_zarr(p, consolidated=True) for p in (sys.argv[1], path))
    xr.testing.assert_identical(x.load(), y.load())
    print({name: (b.chunks, getattr(b, "shards", None)) for name, b in other.arrays()})
"#;

fn make(folder: &Path, kind: &str) -> PathBuf {
    let store = folder.join(format!("{kind}.zarr"));
    python(MAKE, &[&store, Path::new(kind)]);
    store
}

#[test]
fn the_same_bits_in_every_format_and_back() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["v2", "v3", "sharded"] {
        let store = make(folder.path(), kind);
        let mut stores = vec![store.clone()];
        for (format, to) in [("2", "time=-1,x=8"), ("3", "time=7,x=-1,level=1")] {
            let there = folder.path().join(format!("{kind}-{format}.zarr"));
            let back = folder.path().join(format!("{kind}-{format}-back.zarr"));
            let options = ["rechunk", "--chunk", to, "--zarr-format", format];
            run(&mut step(&options, &[&store, &there]));
            let options = ["rechunk", "--chunk", "time=10,x=-1", "--zarr-format", "3"];
            run(&mut step(&options, &[&there, &back]));
            stores.extend([there, back]);
        }
        let sharded = folder.path().join(format!("{kind}-to-shards.zarr"));
        let options = [
            "rechunk",
            "--chunk",
            "time=10,x=8",
            "--shard",
            "time=20,x=-1",
        ];
        run(step(&options, &[&store, &sharded]).args(["--zarr-format", "3"]));
        stores.push(sharded);
        let stores: Vec<&Path> = stores.iter().map(PathBuf::as_path).collect();
        let chunks = python(SAME, &stores);
        for expected in ["((50, 8), None)", "((7, 83), None)", "((10, 8), (20, 88))"] {
            assert!(chunks.contains(&format!("'t2m': {expected}")), "{chunks}");
        }
    }
    assert!(left_over(folder.path()).is_empty());
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = make(folder.path(), "v3");
    let sharded = ["rechunk", "--chunk", "time=-1,x=8", "--shard", "x=24"];
    let places = ["1", "2", "5"].map(|threads| {
        let place = folder.path().join(threads);
        run(step(&sharded, &[&store, &place]).args(["--threads", threads]));
        place
    });
    assert!(files(&places[0]).len() > 20);
    assert_same_files(&places[0], &places[1]);
    assert_same_files(&places[0], &places[2]);
}

/// A store of 96 MB in chunks of (8, 30000), of which one series takes the whole time.
const LARGE: &str = r#"
import sys, numpy as np, zarr
g = zarr.open_group(sys.argv[1], mode="w", zarr_format=2)
a = g.create_array("a", shape=(800, 30000), chunks=(8, 30000), dtype="f4", compressors=None)
a.attrs["_ARRAY_DIMENSIONS"] = ["time", "x"]
rng = np.random.default_rng(2)
for i in range(100):
    a[8 * i:8 * i + 8] = rng.random((8, 30000), dtype="f4")
zarr.consolidate_metadata(sys.argv[1])
"#;

#[test]
fn memory_stays_within_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let (store, there) = (folder.path().join("large"), folder.path().join("there"));
    python(LARGE, &[&store]);
    let options = |memory| {
        [
            "rechunk",
            "--chunk",
            "time=-1,x=500",
            "--memory",
            memory,
            "--compression",
            "fast",
        ]
    };
    let (code, message) = refused(&mut step(&options("20MiB"), &[&store, &there]));
    assert_eq!(code, 10);
    assert!(
        message.contains("`a`") && message.contains("give at least "),
        "{message}"
    );
    let least = message
        .split("give at least ")
        .nth(1)
        .unwrap()
        .split(',')
        .next()
        .unwrap()
        .to_owned();
    assert!(!there.exists() && left_over(folder.path()).is_empty());
    for (number, memory) in [&least, "72MiB", "100MiB", "1GiB"].into_iter().enumerate() {
        let there = folder.path().join(format!("there{number}"));
        let peak = peak_memory(&mut step(&options(memory), &[&store, &there]));
        let limit: u64 = memory.trim_end_matches("MiB").parse().unwrap_or(1024);
        assert!(peak <= limit << 20, "{} MiB of {memory}", peak >> 20);
        assert!(peak > 1 << 20);
        python(
            "import sys, zarr; a, b = (zarr.open_group(p, mode='r')['a'] for p in sys.argv[1:]); \
             assert a[...].tobytes() == b[...].tobytes() and b.chunks == (800, 500)",
            &[&store, &there],
        );
    }
}

#[test]
fn who_is_killed_leaves_nothing_and_may_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, whole, there) = (
        folder.path().join("large"),
        folder.path().join("whole"),
        folder.path().join("there"),
    );
    python(LARGE, &[&store]);
    let options = ["rechunk", "--chunk", "time=-1,x=500", "--memory", "100MiB"];
    run(&mut step(&options, &[&store, &whole]));
    let unfinished = folder.path().join(".there.unfinished");
    for file in ["", "a/0.0", "a/0.30"] {
        let killed = kill_when(&mut step(&options, &[&store, &there]), || {
            unfinished.join(file).exists()
        });
        assert!(killed, "it was done before {file:?}");
        assert!(!there.exists());
    }
    run(&mut step(&options, &[&store, &there]));
    assert_same_files(&whole, &there);
    assert!(left_over(folder.path()).is_empty());
}

#[test]
fn bad_input_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = make(folder.path(), "v2");
    let there = folder.path().join("there");
    let fails = |options: &[&str], paths: &[&Path], code: i32, expected: &str| {
        let (found, message) = refused(&mut step(options, paths));
        assert!(message.contains(expected), "{message}");
        assert_eq!(found, code, "{message}");
        assert!(!there.exists() && left_over(folder.path()).is_empty());
    };
    let chunk = ["rechunk", "--chunk", "time=5"];
    fails(
        &["rechunk", "--chunk", "y=5"],
        &[&store, &there],
        2,
        "dimension `y`; there are: level, time, x",
    );
    fails(&["rechunk", "--chunk", "x=0"], &[&store, &there], 2, "x=0");
    fails(
        &[
            "rechunk",
            "--chunk",
            "time=7,x=8",
            "--shard",
            "time=10",
            "--zarr-format",
            "3",
        ],
        &[&store, &there],
        2,
        "whole chunks of 7",
    );
    fails(
        &chunk,
        &[&folder.path().join("nowhere"), &there],
        11,
        "not a Zarr group",
    );
    let (code, message) = refused(&mut step(&chunk, &[&store, &store]));
    assert!(
        code == 31 && message.contains("exists already"),
        "{message}"
    );
    std::fs::write(store.join("t2m/2.0"), "garbage").unwrap();
    let (code, message) = refused(&mut step(&chunk, &[&store, &there]));
    assert!(code == 12 && message.contains("t2m/2.0"), "{message}");
    assert!(!there.exists());
    std::fs::remove_file(store.join("t2m/2.0")).unwrap();
    let (code, message) = refused(&mut step(&chunk, &[&store, &there]));
    assert!(
        code == 12 && message.contains("1 chunk(s) of `t2m`"),
        "{message}"
    );
    assert!(!there.exists());
    // What a failed attempt left is not in the way of the next.
    run(step(&chunk, &[&store, &there]).arg("--allow-missing"));
    // A chunk that was never written is missing values, as Zarr defines.
    python(
        "import sys, xarray as xr; t = xr.open_zarr(sys.argv[1]).t2m; assert int(t.isnull().sum()) >= 830",
        &[&there],
    );
}

//! Stores that lost files: every step that would read them as the fill value refuses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;

use common::{assert_same_files, files, left_over, python, refused, run, step};

/// Two days of integers, floats and texts, whole: in version 2, in version 3, and in shards.
const MAKE: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
for kind in ["v2", "v3", "sharded"]:
    for number, day in enumerate(["2020-01-01", "2020-01-02"]):
        values = np.arange(1, 25, dtype="i4").reshape(4, 6) + 100 * number
        ds = xr.Dataset({
            "count": (("time", "x"), values),
            "t2m": (("time", "x"), values.astype("f4"), {"units": "K"}),
            "height": ((), np.float32(2.5)),
        }, coords={"time": pd.date_range(day, periods=4, freq="6h"), "x": np.arange(1, 7),
            "lat": (("x",), np.linspace(40, 50, 6), {"units": "degrees_north"}), "name": (("x",), list("abcdef"))})
        chunks = {"chunks": (2, 3)}
        if kind == "sharded":
            chunks["shards"] = (2, 6)
        ds.to_zarr(f"{sys.argv[1]}/{kind}-{number}", zarr_format=2 if kind == "v2" else 3, consolidated=True,
            encoding={"count": chunks, "t2m": chunks})
"#;

/// Files of chunks: which store, which file, and what the refusal says of it.
const LOST: [(&str, &str, &str); 8] = [
    ("v2", "count/1.0", "1 chunk(s) of `count`"),
    ("v2", "t2m/1.1", "1 chunk(s) of `t2m`"),
    ("v2", "name/0", "1 chunk(s) of `name`"),
    ("v2", "time/0", "1 chunk(s) of `time`"),
    ("v3", "count/c/0/1", "1 chunk(s) of `count`"),
    ("v3", "height/c", "1 chunk(s) of `height`"),
    ("v3", "lat/c/0", "1 chunk(s) of `lat`"),
    ("sharded", "count/c/1/0", "1 chunk(s) of `count`"),
];

#[test]
fn a_store_that_lost_a_file_is_refused_by_whoever_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    python(MAKE, &[folder.path()]);
    let there = folder.path().join("there");
    for (kind, file, expected) in LOST {
        let [first, second] = [0, 1].map(|number| folder.path().join(format!("{kind}-{number}")));
        let file = second.join(file);
        let bytes = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let mut all: Vec<(&[&str], Vec<&Path>)> = vec![
            (&["concat"], vec![&first, &second, &there]),
            (&["rechunk", "--chunk", "time=4"], vec![&second, &there]),
        ];
        // Statistics read neither the times nor the names.
        if !expected.contains("time") && !expected.contains("name") {
            all.push((&["stats", "--per-point"], vec![&second, &there]));
        }
        for (options, paths) in all {
            let (code, message) = refused(&mut step(options, &paths));
            let store = format!("{kind}-1");
            assert!(
                message.contains(expected) && message.contains(&store),
                "{options:?} of {file:?}: {message}"
            );
            assert_eq!(code, 12, "{message}");
            assert!(!there.exists() && left_over(folder.path()).is_empty());
        }
        fs::write(&file, bytes).unwrap();
    }
}

#[test]
fn what_was_left_out_on_purpose_is_the_fill_value() {
    let folder = tempfile::tempdir().unwrap();
    python(MAKE, &[folder.path()]);
    let path = |name: &str| folder.path().join(name);
    fs::remove_file(path("v3-1").join("count/c/1/0")).unwrap();
    let allowed = "--allow-missing";
    run(step(&["concat"], &[&path("v3-0"), &path("v3-1"), &path("all")]).arg(allowed));
    run(step(
        &["rechunk", "--chunk", "time=3"],
        &[&path("v3-1"), &path("again")],
    )
    .arg(allowed));
    run(step(&["stats"], &[&path("v3-1"), &path("stats")]).arg(allowed));
    python(
        r#"
import sys, xarray as xr, zarr
first, second, joined, again, stats = (xr.open_zarr(p, consolidated=True).load() for p in sys.argv[1:])
assert (second["count"].values[2:, :3] == 0).all() and (second["count"].values[2:, 3:] > 100).all()
xr.testing.assert_identical(again, second)
xr.testing.assert_identical(joined.isel(time=slice(4, 8)), second)
assert float(stats.sel(variable="count")["mean"]) == second["count"].values.mean()
for name, array in zarr.open_group(sys.argv[3], mode="r").arrays():
    assert array.nchunks == array.nchunks_initialized, name
"#,
        &["v3-0", "v3-1", "all", "again", "stats"]
            .map(path)
            .each_ref()
            .map(|path| path.as_path()),
    );
}

#[test]
fn a_store_that_grows_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    python(MAKE, &[folder.path()]);
    for (kind, file, chunk) in [
        ("v2", "count/0.1", "time=2"),
        // The last file, which is written again as it is not full.
        ("v3", "count/c/1/0", "time=3"),
    ] {
        let [first, second] = [0, 1].map(|number| folder.path().join(format!("{kind}-{number}")));
        let (grown, all) = (
            folder.path().join(format!("{kind}-grown")),
            folder.path().join(format!("{kind}-all")),
        );
        run(&mut step(
            &["concat", "--chunk", chunk],
            &[&first, &second, &all],
        ));
        run(&mut step(&["concat", "--chunk", chunk], &[&first, &grown]));
        let whole = files(&grown);
        fs::remove_file(grown.join(file)).unwrap();
        let before = files(&grown);
        let append = ["concat", "--append"];
        let (code, message) = refused(&mut step(&append, &[&second, &grown]));
        assert!(
            code == 12 && message.contains("grown: it is incomplete: 1 chunk(s) of `count`"),
            "{message}"
        );
        assert!(files(&grown) == before && left_over(folder.path()).is_empty());
        fs::write(grown.join(file), &whole[Path::new(file)]).unwrap();
        run(&mut step(&append, &[&second, &grown]));
        assert_same_files(&all, &grown);
    }
}

/// A store of snow: numbers of which most are 0, the fill value, whole in its files.
const ZEROS: &str = r#"
import sys, numpy as np, zarr
group = zarr.create_group(sys.argv[1], zarr_format=3)
values = np.zeros((8, 6))
values[2:4, 3:6] = np.arange(1, 7).reshape(2, 3)
for name, kind in [("count", "i4"), ("snow", "f4")]:
    array = group.create_array(name, shape=(8, 6), chunks=(2, 3), dtype=kind, fill_value=0,
        dimension_names=("time", "x"), config={"write_empty_chunks": True})
    array[...] = values.astype(kind)
time = group.create_array("time", shape=(8,), chunks=(8,), dtype="i8", dimension_names=("time",))
time.attrs.update({"units": "seconds since 2020-01-01", "calendar": "proleptic_gregorian"})
time[...] = np.arange(8) * 21600
"#;

#[test]
fn what_shards_leave_out_is_the_fill_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    python(ZEROS, &[&path("whole")]);
    let shards = ["--chunk", "time=2,x=3", "--shard", "time=4,x=6"];
    let rechunk = [&["rechunk"], &shards[..]].concat();
    run(&mut step(&rechunk, &[&path("whole"), &path("sharded")]));
    let said = run(&mut step(&["validate"], &[&path("sharded")]));
    assert!(
        said.contains("0.000000") && said.contains("6.000000"),
        "{said}"
    );
    run(&mut step(&["stats"], &[&path("sharded"), &path("stats")]));
    let concat = [&["concat"], &shards[..]].concat();
    run(&mut step(&concat, &[&path("sharded"), &path("joined")]));
    let plain = ["rechunk", "--chunk", "time=2,x=3"];
    run(&mut step(&plain, &[&path("joined"), &path("again")]));
    // Each shard is a file, that of nothing but zeros, too; seven of eight chunks inside are left out.
    python(
        r#"
import pathlib, sys, numpy as np, xarray as xr
paths = sys.argv[1:]
whole, sharded, joined, again = (xr.open_zarr(p, mask_and_scale=False, consolidated=False).load() for p in paths[:4])
stats = xr.open_zarr(paths[4]).load()
for name in ["count", "snow"]:
    assert (whole[name].values == 0).sum() == 42
    for other in [sharded, joined, again]:
        assert other[name].values.tobytes() == whole[name].values.tobytes() and other[name].dtype == whole[name].dtype
    # An index of four chunks, of 16 bytes each and with a check sum, of which one shard has nothing else.
    files = [file for file in pathlib.Path(paths[1], name, "c").rglob("*") if file.is_file()]
    sizes = sorted(file.stat().st_size for file in files)
    assert len(sizes) == 2 and sizes[0] == 4 * 16 + 4 < sizes[1], sizes
    assert float(stats.sel(variable=name)["mean"]) == whole[name].values.mean()
"#,
        &["whole", "sharded", "joined", "again", "stats"]
            .map(path)
            .each_ref()
            .map(|path| path.as_path()),
    );
}

//! `concat`: many stores to one along time, and its growth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use common::kills::{UnderWay, kill_and_run_again, kill_when};
use common::{assert_same_files, files, left_over, peak_memory, python, refused, run, step};

/// Months of a model, six-hourly, each a store with times counted from its own begin; and of its forcing, whose
/// coordinates are a little off.
const MONTHS: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
folder = sys.argv[1]
rng = np.random.default_rng(3)
x = 460
lat, lon = np.linspace(-60, 80, x), np.linspace(-180, 179, x)
kind = rng.integers(0, 9, x).astype("u1")
for number, month in enumerate(["2020-02", "2020-03", "2020-04"]):
    times = pd.date_range(month, pd.Timestamp(month) + pd.offsets.MonthBegin(1), freq="6h", inclusive="left")
    t = len(times)
    swvl1 = rng.random((t, x), dtype="f4")
    swvl1.view("u4")[1, 7] = 0x7fc00042
    ds = xr.Dataset({
        "swvl1": (("time", "x"), swvl1, {"units": "m3 m-3"}),
        "rsn": (("time", "level", "x"), rng.random((t, 2, x))),
        "clim_kind": (("x",), kind, {"long_name": "kind"}),
    }, coords={"time": ("time", times, {"standard_name": "time"}), "x": np.arange(1, x + 1), "level": ["upper", "lower"],
        "lat": (("x",), lat, {"units": "degrees_north"}), "lon": (("x",), lon, {"units": "degrees_east"})},
        attrs={"source": "synthetic", "month": month})
    encoding = {"time": {"units": f"hours since {month}-01", "dtype": "i8"}, "swvl1": {"chunks": (t, x)}}
    ds.to_zarr(f"{folder}/model-{month}.zarr", zarr_format=2, encoding=encoding, consolidated=True)
    forcing = xr.Dataset({"Tair": (("time", "x"), rng.normal(280, 10, (t, x)).astype("f4"), {"units": "K"})},
        coords={"time": ("time", times, {"standard_name": "time"}), "x": np.arange(1, x + 1),
        "lat": (("x",), lat + 3e-6, {"units": "degrees_north"}), "lon": (("x",), lon - 4e-5, {"units": "degrees_east"})},
        attrs={"source": "synthetic"})
    forcing.to_zarr(f"{folder}/forcing-{month}.zarr", zarr_format=3, encoding={"Tair": {"chunks": (31, 230)}}, consolidated=True)
"#;

/// What xarray makes of the months is what the store holds, bit by bit.
const SAME: &str = r#"
import sys, glob, numpy as np, xarray as xr, zarr
folder, result, kind = sys.argv[1], sys.argv[2], sys.argv[3].split("/")[-1]
months = sorted(glob.glob(f"{folder}/model-*.zarr"))
expected = xr.concat([xr.open_zarr(m, consolidated=True) for m in months], "time", data_vars="minimal", coords="minimal", compat="override", join="override").load()
expected.attrs.pop("month")
if kind == "merged":
    forcing = sorted(glob.glob(f"{folder}/forcing-*.zarr"))
    f = xr.concat([xr.open_zarr(m, consolidated=True) for m in forcing], "time", data_vars="minimal", coords="minimal", compat="override", join="override").load()
    expected["met_tair"] = (("time", "x"), f.Tair.values, f.Tair.attrs)
found = xr.open_zarr(result, consolidated=True).load()
xr.testing.assert_identical(found, expected)
for name in expected.data_vars:
    assert found[name].values.tobytes() == expected[name].values.tobytes(), name
g = zarr.open_group(result, mode="r")
assert g["clim_kind"].ndim == 1
print({name: (a.chunks, getattr(a, "shards", None)) for name, a in g.arrays()})
"#;

fn months(folder: &Path) -> [PathBuf; 3] {
    python(MONTHS, &[folder]);
    ["02", "03", "04"].map(|month| folder.join(format!("model-2020-{month}.zarr")))
}

const CHUNK: [&str; 3] = ["concat", "--chunk", "time=10,x=-1"];

#[test]
fn months_become_one_store_whatever_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = months(folder.path());
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    run(&mut step(&CHUNK, &[&a, &b, &c, &one]));
    let chunks = python(SAME, &[folder.path(), &one, Path::new("model")]);
    assert!(
        chunks.contains("'swvl1': ((10, 460)") && chunks.contains("'rsn': ((10, 1, 460)"),
        "{chunks}"
    );
    run(step(&CHUNK, &[&c, &a, &b, &other]).args(["--threads", "1"]));
    assert_same_files(&one, &other);
    // Series at points, in shards, of a selection.
    let sharded = folder.path().join("sharded");
    let options = [
        "concat",
        "--chunk",
        "time=40,x=46",
        "--shard",
        "time=80,x=-1",
        "--zarr-format",
        "3",
    ];
    run(&mut step(&options, &[&a, &b, &c, &sharded]));
    let chunks = python(SAME, &[folder.path(), &sharded, Path::new("model")]);
    assert!(
        chunks.contains("'swvl1': ((40, 46), (80, 460))"),
        "{chunks}"
    );
    let selected = folder.path().join("selected");
    run(step(&CHUNK, &[&a, &b, &selected]).args(["--variables", "swvl1"]));
    let names = files(&selected);
    assert!(
        names.keys().any(|name| name.starts_with("swvl1"))
            && names.keys().any(|name| name.starts_with("lat"))
    );
    assert!(
        !names
            .keys()
            .any(|name| name.starts_with("rsn") || name.starts_with("clim_kind"))
    );
    assert!(left_over(folder.path()).is_empty());
}

#[test]
fn a_store_that_grew_is_the_store_of_all_at_once() {
    let months_in = tempfile::tempdir().unwrap();
    let [a, b, c] = months(months_in.path());
    for options in [
        &CHUNK[..],
        &["concat", "--chunk", "time=124,x=-1", "--zarr-format", "3"],
        &[
            "concat",
            "--chunk",
            "time=9,x=46",
            "--shard",
            "time=27,x=230",
            "--zarr-format",
            "3",
        ],
    ] {
        let folder = tempfile::tempdir_in(months_in.path()).unwrap();
        let (all, grown) = (folder.path().join("all"), folder.path().join("grown"));
        run(&mut step(options, &[&a, &b, &c, &all]));
        run(&mut step(options, &[&a, &grown]));
        run(&mut step(&["concat", "--append"], &[&b, &grown]));
        run(&mut step(&["concat", "--append"], &[&c, &grown]));
        assert_same_files(&all, &grown);
        let said = run(&mut step(&["concat", "--append"], &[&c, &grown]));
        assert!(said.contains("has these times already"), "{said}");
        assert_same_files(&all, &grown);
        assert!(left_over(folder.path()).is_empty());
    }
}

#[test]
fn who_is_killed_leaves_the_old_store_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = months(folder.path());
    let (all, old) = (folder.path().join("all"), folder.path().join("old"));
    let options = ["concat", "--chunk", "time=5,x=115"];
    run(&mut step(&options, &[&a, &b, &c, &all]));
    run(&mut step(&options, &[&a, &b, &old]));
    let before = files(&old);
    let unfinished = folder.path().join(".grown.unfinished");
    let grown = folder.path().join("grown");
    let mut in_time = 0;
    for file in ["", "rsn/10.0.0", "swvl1/71.0", ".zmetadata"] {
        let _ = std::fs::remove_dir_all(&grown);
        python(
            "import sys, shutil; shutil.copytree(*sys.argv[1:])",
            &[&old, &grown],
        );
        let mut append = step(&["concat", "--append"], &[&c, &grown]);
        let killed = kill_when(&mut append, || unfinished.join(file).exists());
        in_time += u32::from(killed);
        let after = files(&grown);
        let is_old = after == before;
        assert!(
            is_old || after == files(&all),
            "neither the old store nor the new one ({file}, {killed})"
        );
        run(&mut append);
        assert_same_files(&all, &grown);
        assert!(left_over(folder.path()).is_empty());
    }
    assert!(in_time >= 2, "{in_time} kills came in time");
}

#[test]
fn a_new_store_is_the_same_whoever_was_killed_before() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = months(folder.path());
    kill_and_run_again(UnderWay::Parts, |place| {
        let options = ["concat", "--chunk", "time=10,x=230"];
        step(&options, &[&a, &b, &c, &place.join("out")])
    });
}

/// Three stores of 20 MB, each in chunks of 8 times.
const LARGE: &str = r#"
import sys, numpy as np, pandas as pd, xarray as xr
rng = np.random.default_rng(4)
for number in range(3):
    times = pd.date_range("2020-02-01", periods=240, freq="6h")[80 * number:80 * (number + 1)]
    values = rng.random((80, 65536), dtype="f4")
    xr.Dataset({"a": (("time", "x"), values)}, coords={"time": times}).to_zarr(
        f"{sys.argv[1]}/{number}", zarr_format=2, consolidated=True, encoding={"a": {"chunks": (8, 65536)}})
"#;

#[test]
fn memory_is_kept_to_and_does_not_change_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    python(LARGE, &[folder.path()]);
    let [a, b, c] = ["0", "1", "2"].map(|name| folder.path().join(name));
    let (much, there) = (folder.path().join("much"), folder.path().join("there"));
    // Of each point a series: all chunks of the sources go into each of those.
    let options = |memory| ["concat", "--chunk", "time=240,x=512", "--memory", memory];
    run(&mut step(&options("1GiB"), &[&a, &b, &c, &much]));
    let (code, message) = refused(&mut step(&options("20MiB"), &[&a, &b, &c, &there]));
    assert_eq!(code, 10);
    assert!(
        message.contains("`a`") && message.contains("in 20MiB of memory"),
        "{message}"
    );
    assert!(!there.exists() && left_over(folder.path()).is_empty());
    let least_of = |message: &str| {
        let least = message.split("give at least ").nth(1).unwrap();
        least.split(',').next().unwrap().to_owned()
    };
    let least = least_of(&message);
    let mebibytes: u64 = least.trim_end_matches("MiB").parse().unwrap();
    assert!(mebibytes < 128, "{message}");
    let peak = peak_memory(&mut step(&options(&least), &[&a, &b, &c, &there]));
    assert!(peak <= mebibytes << 20, "{} MiB of {least}", peak >> 20);
    assert_same_files(&much, &there);
    // The same of a store that grows; where it is refused, it stays as it was.
    let grown = folder.path().join("grown");
    run(&mut step(&options("1GiB"), &[&a, &b, &grown]));
    let before = files(&grown);
    let append = |memory| ["concat", "--append", "--memory", memory];
    let (code, message) = refused(&mut step(&append("20MiB"), &[&c, &grown]));
    assert_eq!(code, 10, "{message}");
    assert!(files(&grown) == before && left_over(folder.path()).is_empty());
    run(&mut step(&append(&least_of(&message)), &[&c, &grown]));
    assert_same_files(&much, &grown);
}

#[test]
fn forcing_and_model_become_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let model = months(folder.path());
    let forcing = model.clone().map(|path| {
        let name = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace("model", "forcing");
        path.with_file_name(name)
    });
    let merged = folder.path().join("merged");
    let mut stores: Vec<&Path> = model.iter().chain(&forcing).map(PathBuf::as_path).collect();
    stores.push(&merged);
    let said = run(step(&CHUNK, &stores).args(["--merge", "--rename", "Tair=met_tair"]));
    assert!(
        said.contains("`lon` differs by up to 0.0000") || said.contains("`lon` differs by up to 4"),
        "{said}"
    );
    python(SAME, &[folder.path(), &merged, Path::new("merged")]);
    // The same in two steps.
    let grown = folder.path().join("grown");
    let options = ["--merge", "--rename", "Tair=met_tair"];
    run(step(
        &CHUNK,
        &[&model[0], &model[1], &forcing[0], &forcing[1], &grown],
    )
    .args(options));
    run(step(&["concat", "--append"], &[&model[2], &forcing[2], &grown]).args(options));
    assert_same_files(&merged, &grown);
    // The model alone would leave the forcing behind.
    let half = folder.path().join("half");
    run(step(&CHUNK, &[&model[0], &forcing[0], &half]).args(options));
    let (code, message) = refused(&mut step(&["concat", "--append"], &[&model[1], &half]));
    assert!(
        code == 12 && message.contains("`met_tair`, which has to be appended to"),
        "{message}"
    );
}

/// What does not change, as a store of its own; and stores that do not fit the months.
const STATIC: &str = r#"
import sys, numpy as np, xarray as xr
model, folder = sys.argv[1:3]
month = xr.open_zarr(model, consolidated=True)
x = month.sizes["x"]
soil = (("x",), np.random.default_rng(8).random(x), {"units": "1"})
place = {name: month[name].variable.load() for name in ["x", "lat", "lon"]}
for variable in place.values():
    variable.encoding = {}
for name, dataset in {
    "static": xr.Dataset({"soil": soil}, coords=place),
    "other-place": xr.Dataset({"soil": soil}, coords={**place, "lat": place["lat"] + 1}),
    "other-length": xr.Dataset({"soil": (("x",), np.ones(x - 1))}),
    "same-name": xr.Dataset({"swvl1": soil}, coords=place),
}.items():
    dataset.to_zarr(f"{folder}/{name}", zarr_format=2, consolidated=True)
"#;

#[test]
fn what_does_not_change_comes_from_a_store_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, _] = months(folder.path());
    let path = |name: &str| folder.path().join(name);
    python(STATIC, &[&a, folder.path()]);
    let concat = |fixed: &str, target: &Path| {
        let mut command = step(&CHUNK, &[&a, &b, target]);
        command.arg("--static").arg(path(fixed));
        command
    };
    run(&mut concat("static", &path("all")));
    python(
        "import sys, xarray as xr\n\
         found, static, model = (xr.open_zarr(p, consolidated=True).load() for p in sys.argv[1:])\n\
         xr.testing.assert_identical(found.soil, static.soil)\n\
         assert found.swvl1.isel(time=slice(0, model.sizes['time'])).equals(model.swvl1)",
        &[&path("all"), &path("static"), &a],
    );
    let there = path("there");
    for (fixed, expected) in [
        (
            "other-place",
            &["other-place does not fit", "`lat` differ by up to 1"][..],
        ),
        (
            "other-length",
            &["other-length", "the dimension `x`", "459", "460"],
        ),
        ("same-name", &["same-name", "`swvl1`"]),
        (
            "model-2020-04.zarr",
            &["changes with `time`, and the store is given as static"],
        ),
    ] {
        let (code, message) = refused(&mut concat(fixed, &there));
        for part in expected {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert_eq!(code, 12, "{message}");
        assert!(!there.exists() && left_over(folder.path()).is_empty());
    }
}

/// Copies of a month in which one thing is changed.
const CHANGE: &str = r#"
import sys, numpy as np, xarray as xr
source, folder = sys.argv[1:3]
ds = xr.open_zarr(source, consolidated=True).load()
for v in ds.variables.values():
    v.encoding = {}
for what, changed in {
    "shift": ds.assign_coords(time=("time", ds.time.values + np.timedelta64(1, "h"), ds.time.attrs)),
    "hole": ds.drop_isel(time=[5]),
    "twice": ds.isel(time=np.r_[0:5, 4, 5:20]),
    "fewer-points": ds.isel(x=slice(0, 459)),
    "moved": ds.assign_coords(lat=("x", ds.lat.values + 1e-3, ds.lat.attrs)),
    "double": ds.assign(swvl1=ds.swvl1.astype("f8").assign_attrs(ds.swvl1.attrs)),
    "units": ds.assign(swvl1=ds.swvl1.assign_attrs(units="%")),
    "static": ds.assign(clim_kind=ds.clim_kind * 2),
    "without": ds.drop_vars("rsn"),
    "beside": ds.assign(extra=ds.swvl1 * 2),
    "calendar": ds,
}.items():
    time = {"dtype": "i8", "units": "hours since 2020-03-01"}
    if what == "calendar":
        time["calendar"] = "noleap"
    changed.to_zarr(f"{folder}/{what}.zarr", zarr_format=2, encoding={"time": time}, consolidated=True)
"#;

#[test]
fn stores_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = months(folder.path());
    let there = folder.path().join("there");
    let fails = |stores: &[&Path], expected: &[&str]| {
        let mut stores = stores.to_vec();
        stores.push(&there);
        let (code, message) = refused(&mut step(&CHUNK, &stores));
        for part in expected {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert_eq!(code, 12, "{message}");
        assert!(!there.exists() && left_over(folder.path()).is_empty());
    };
    fails(
        &[&a, &c],
        &[
            "model-2020-04.zarr does not fit",
            "124 time(s) are missing, from 2020-03-01T00:00Z to 2020-03-31T18:00Z",
        ],
    );
    fails(
        &[&a, &a],
        &["both have the times 2020-02-01T00:00Z to 2020-02-29T18:00Z"],
    );
    python(CHANGE, &[&b, folder.path()]);
    for (what, expected) in [
        ("shift", vec!["shift.zarr", "is 7 h, but 6 h before"]),
        (
            "hole",
            vec!["hole.zarr", "1 time(s) are missing, from 2020-03-02T06:00Z"],
        ),
        (
            "twice",
            vec!["twice.zarr", "the time 2020-03-02T00:00Z is there twice"],
        ),
        (
            "fewer-points",
            vec!["fewer-points.zarr", "the dimension `x`", "459, but 460"],
        ),
        (
            "moved",
            vec!["moved.zarr", "`lat` differ by up to 0.001", "--tolerance"],
        ),
        (
            "double",
            vec!["double.zarr", "`swvl1` is float64", "but float32"],
        ),
        (
            "units",
            vec![
                "units.zarr",
                "the attribute `units` of `swvl1` is \"%\", but \"m3 m-3\"",
            ],
        ),
        ("static", vec!["static.zarr", "`clim_kind`"]),
        ("without", vec!["without.zarr", "it lacks `rsn`"]),
        ("beside", vec!["beside.zarr", "has `extra` beside"]),
        ("calendar", vec!["calendar.zarr", "noleap"]),
    ] {
        let changed = folder.path().join(format!("{what}.zarr"));
        fails(&[&a, &changed], &expected);
    }
    // The same when appending: the store stays as it was.
    let grown = folder.path().join("grown");
    run(&mut step(&CHUNK, &[&a, &b, &grown]));
    let before = files(&grown);
    for (store, expected) in [
        (&b, None),
        (&a, Some("overlap")),
        (
            &folder.path().join("units.zarr"),
            Some("units.zarr does not fit"),
        ),
    ] {
        let mut append = step(&["concat", "--append"], &[store, &grown]);
        match expected {
            None => drop(run(&mut append)),
            Some(expected) => {
                let (_, message) = refused(&mut append);
                assert!(message.contains(expected), "{message}");
            }
        }
        assert!(files(&grown) == before);
    }
    // Codecs that are not written here.
    let foreign = folder.path().join("foreign");
    python(
        "import sys, xarray as xr, numcodecs\n\
         ds = xr.open_zarr(sys.argv[1], consolidated=True).load()\n\
         ds.swvl1.encoding['compressors'] = [numcodecs.GZip(5)]\n\
         ds.to_zarr(sys.argv[2], zarr_format=2, consolidated=True)",
        &[&a, &foreign],
    );
    let (code, message) = refused(&mut step(&["concat", "--append"], &[&b, &foreign]));
    assert!(
        code == 12 && message.contains("was not written by `mlwm-step`"),
        "{message}"
    );
}

//! Stores as other readers see them, and their files.

use super::*;

/// What xarray and zarr-python find; values are compared with the closed form right there.
const READ: &str = r#"
import json, sys, warnings, numpy as np, xarray as xr, zarr
warnings.simplefilter("error")
path, step = sys.argv[1], str(sys.argv[2])
ds = xr.open_zarr(path, consolidated=True)
assert xr.open_zarr(path, consolidated=False).identical(ds)
k = np.arange(1, ds.sizes[step] + 1)
start = np.datetime64("2026-06-04T00:00", "ns")
six = np.timedelta64(6, "h")
assert (ds.time.values.ravel() == start + k * six).all()
assert (ds.elapsed_forecast_duration.values == k * six).all()
assert ds.analysis_time.values.ravel().tolist() == start.ravel().tolist()
for number, name in enumerate(["t2m", "z", "sd"]):
    v = ds[name].squeeze("analysis_time") if "analysis_time" in ds[name].dims else ds[name]
    rest = np.arange(np.prod(v.shape[1:])).reshape(v.shape[1:])
    want = (1000 * number + 10 * k.reshape(-1, *[1] * (v.ndim - 1)) + rest).astype("f4")
    if name == "sd":
        want[..., 0] = np.nan
    np.testing.assert_array_equal(v.values, want)
    assert (v.values.dtype, v.attrs["units"]) == (np.dtype("f4"), "1")
group = zarr.open_group(path, mode="r")
print(json.dumps({
    "attributes": ds.attrs,
    "dims": {name: ds[name].dims for name in ["t2m", "z"]},
    "chunks": {name: group[name].chunks for name in ["t2m", "z"]},
    "shards": {name: group[name].shards for name in ["t2m", "z"]},
    "coordinates": sorted(ds.coords),
}))
"#;

#[test]
fn xarray_reads_the_published_store_with_one_shard_per_window_and_one_chunk_per_step() {
    let folder = tempfile::tempdir().unwrap();
    for (number, style) in STYLES.into_iter().enumerate() {
        let path = publish(folder.path(), &number.to_string(), style, &[0, 1, 2]);
        let step = match style.is_elapsed {
            true => "elapsed_forecast_duration",
            false => "time",
        };
        let read = python_json(READ, &[&path, Path::new(step)]);
        assert_eq!(read["attributes"], json!({"title": "a model", "member": 3}));
        let coordinates = ["analysis_time", step, "level", "y"];
        let mut coordinates = coordinates.map(str::to_owned);
        coordinates.sort();
        assert_eq!(read["coordinates"], json!(coordinates));
        let (dims, chunks, shards) = match style.is_elapsed {
            true => (
                json!(["analysis_time", step, "level", "y", "x"]),
                json!([1, 1, 2, 5, 4]),
                json!([1, 4, 2, 5, 4]),
            ),
            false => (
                json!([step, "level", "y", "x"]),
                json!([1, 2, 5, 4]),
                json!([4, 2, 5, 4]),
            ),
        };
        assert_eq!(read["dims"]["z"], dims);
        assert_eq!(read["chunks"]["z"], chunks);
        assert_eq!(read["shards"]["z"], shards);
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_order_of_windows_or_how_the_model_chunks_them() {
    let folder = tempfile::tempdir().unwrap();
    let first = files(&publish(folder.path(), "a", PLAIN, &[0, 1, 2]));
    for (name, style, order) in [
        ("b", PLAIN, [2, 0, 1]),
        ("c", STYLES[2], [1, 2, 0]),
        ("d", PLAIN, [2, 1, 0]),
    ] {
        let other = files(&publish(folder.path(), name, style, &order));
        assert!(first == other, "{name}");
    }
    let shards = first.keys().filter(|path| {
        ["t2m/c", "z/c", "sd/c"]
            .iter()
            .any(|shards| path.starts_with(shards))
    });
    assert_eq!(shards.count(), 3 * 3);
    // `zarr.json` of eight arrays and the group, one chunk of each of five coordinates.
    assert_eq!(first.len(), 9 + 9 + 5);
}

#[test]
fn mlwm_reads_single_steps_without_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = publish(folder.path(), "store", PLAIN, &[0, 1, 2]);
    let shard = path.join("t2m/c/1/0/0");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[..20].fill(0xff);
    std::fs::write(&shard, &bytes).unwrap();
    let dataset = Dataset::open(&path).unwrap();
    let t2m = dataset.variable("t2m").unwrap();
    assert_eq!(t2m.missing_chunks().unwrap(), 0);
    let read = |step: u64| t2m.read_range(&[step..step + 1, 0..5, 0..4]);
    let plane = read(5).unwrap().into_f32().unwrap();
    assert_eq!(plane.into_raw_vec_and_offset().0[..3], [60.0, 61.0, 62.0]);
    assert!(read(4).is_err(), "a damaged plane is found");
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    assert!(read(5).is_err(), "a damaged index is found");
}

#[test]
fn files_are_few_and_no_larger_than_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = Windows::new(analysis(), 21_600, 132, 259_200).unwrap();
    assert_eq!(schedule.count(), 11);
    let mut names = Vec::new();
    let target = folder.path().join("store");
    let mut logical = 0;
    for window in 0..schedule.count() {
        let path = folder.path().join(format!("w{window}"));
        let mut writer = Writer::create(&path, ZarrFormat::V3, Map::new()).unwrap();
        let time = Definition::new("time", &[("time", 12)], Element::I64);
        let time = time.attributes(time_attributes());
        writer.define(&time).unwrap();
        let times = schedule.steps(window).map(|step| schedule.valid_time(step));
        let times = Array1::from_iter(times).into_dyn();
        writer.write("time", Values::I64(times)).unwrap();
        for name in ["a", "b"] {
            let dims = [("time", 12), ("cell", 544)];
            writer
                .define(&Definition::new(name, &dims, Element::F32))
                .unwrap();
            // Noise, which no codec makes smaller.
            let mut noise = 0x9e37_79b9_u32 ^ window as u32;
            let values = ArrayD::from_shape_fn(IxDyn(&[12, 544]), |_| {
                noise ^= noise << 13;
                noise ^= noise >> 17;
                noise ^= noise << 5;
                f32::from_bits(noise & 0xbfff_ffff)
            });
            logical += values.len() * 4;
            writer.write(name, Values::F32(values)).unwrap();
        }
        writer.finish().unwrap();
        let dataset = Dataset::open(&path).unwrap();
        let variables = ["a", "b"].map(|name| (name.to_owned(), VariableOptions::default()));
        let options = StoreOptions {
            variables: BTreeMap::from(variables),
            ..StoreOptions::default()
        };
        let store = ForecastStore::plan(&dataset, schedule, &options).unwrap();
        names.extend(store.write_window(&target, window, &dataset).unwrap());
        if window + 1 == schedule.count() {
            assert_eq!(names.len(), 11 * 2, "objects are windows x variables");
            let bytes: u64 = names.iter().map(|file| file.bytes).sum();
            assert!(
                bytes as f64 <= 1.05 * logical as f64,
                "{bytes} of {logical}"
            );
            let expected: u64 = store.windows().map(|w| store.expected_bytes(w)).sum();
            assert!(bytes <= expected && expected as f64 <= 1.05 * logical as f64);
            names.extend(store.finish(&target).unwrap());
        }
    }
    let mut listed: Vec<PathBuf> = names.iter().map(|file| PathBuf::from(&file.path)).collect();
    listed.sort();
    let there: Vec<PathBuf> = files(&target).into_keys().collect();
    assert_eq!(listed, there, "every file is reported, none twice");
    assert_eq!(there.len(), 22 + 4 + 1);
}

#[test]
fn a_sidecar_has_fewer_variables_and_hours() {
    let folder = tempfile::tempdir().unwrap();
    let made: Vec<Dataset> = (0..3)
        .map(|window| Made::new(PLAIN, window).write(&folder.path().join(format!("w{window}"))))
        .collect();
    let options = StoreOptions {
        variables: BTreeMap::from([("t2m".to_owned(), VariableOptions::default())]),
        hours: Some(24..60),
        ..StoreOptions::default()
    };
    let store = ForecastStore::plan(&made[0], windows(), &options).unwrap();
    assert_eq!(store.windows(), 1..3);
    assert_eq!(store.expected_bytes(0), 0);
    let target = folder.path().join("store");
    let error = store.write_window(&target, 0, &made[0]).unwrap_err();
    assert!(matches!(error, StoreError::NoWindow { window: 0, .. }));
    assert!(!target.exists());
    for window in [2, 1] {
        let dataset = &made[window as usize];
        store.write_window(&target, window, dataset).unwrap();
    }
    store.finish(&target).unwrap();
    let read = python_json(
        r#"
import json, sys, xarray as xr
ds = xr.open_zarr(sys.argv[1])
print(json.dumps([str(ds.time.values[0])[:13], ds.elapsed_forecast_duration.size,
    ds.t2m.values[:, 0, 1].tolist(), "z" in ds]))
"#,
        &[&target],
    );
    assert_eq!(
        read,
        json!(["2026-06-05T06", 6, [51., 61., 71., 81., 91., 101.], false])
    );
}

#[test]
fn what_a_killed_writer_left_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let expected = files(&publish(folder.path(), "a", PLAIN, &[0, 1, 2]));
    let target = folder.path().join("b");
    std::fs::create_dir_all(target.join("t2m/c/0/0")).unwrap();
    std::fs::write(target.join("t2m/c/0/0/.0.partial"), [7; 100_000]).unwrap();
    std::fs::create_dir_all(target.join(".coordinates.partial/y")).unwrap();
    publish(folder.path(), "b", PLAIN, &[0, 1, 2]);
    assert!(files(&target) == expected);
}

/// Who writes another format gets the planes of a window, checked and with NaN where they are missing.
#[test]
fn planes_are_handed_over_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    for (number, style) in STYLES.into_iter().enumerate() {
        let window = Made::new(style, 1).write(&folder.path().join(number.to_string()));
        let store = ForecastStore::plan(&window, windows(), &options()).unwrap();
        let dims: Vec<(&str, u64)> = vec![("y", 5), ("x", 4)];
        let once = u64::from(style.is_elapsed);
        assert_eq!(store.plane("t2m").unwrap()[once as usize..], dims);
        let mut steps = Vec::new();
        let mut read = |name: &str| {
            store.read_variable::<StoreError>(name, 1, &window, |step, values| {
                steps.push((name.to_owned(), step, values[0].to_bits(), values[19]));
                Ok(())
            })
        };
        read("t2m").unwrap();
        read("sd").unwrap();
        // Window 1 has the steps 5 to 8, counted from 1.
        let nan = f32::NAN.to_bits();
        let due = (4..8).map(|step| {
            let first = 10.0 * (step + 1) as f32;
            ("t2m".to_owned(), step, first.to_bits(), first + 19.0)
        });
        let missing = (4..8).map(|step| ("sd".to_owned(), step, nan, 2029.0 + 10.0 * step as f32));
        assert_eq!(steps, due.chain(missing).collect::<Vec<_>>(), "{style:?}");
        let heights = store.coordinates().find(|(found, _)| found.name == "y");
        assert_eq!(heights.unwrap().1.shape(), [5]);
        let mut plain = options();
        plain.variables.get_mut("sd").unwrap().missing = Missing::Nowhere;
        let store = ForecastStore::plan(&window, windows(), &plain).unwrap();
        let refused = store.read_variable::<StoreError>("sd", 1, &window, |_, _| Ok(()));
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("missing") && error.contains("30 h"),
            "{error}"
        );
    }
}

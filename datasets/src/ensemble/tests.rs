//! Products, compared with NumPy, and whatever the order of members.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_spec::{AnalysisTime, Digest, ExitCode};
use ndarray::{Array1, ArrayD, IxDyn};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::{Ensemble, EnsembleError, Product};
use crate::forecast_store::{ForecastStore, Missing, StoreOptions, VariableOptions, Windows};
use crate::testing::{files, python_json};
use crate::{Dataset, Definition, Element, Values, Writer, ZarrFormat, time_attributes};

const ALL: [Product; 8] = [
    Product::Mean,
    Product::Spread,
    Product::Minimum,
    Product::Maximum,
    Product::Above(280.0),
    Product::Above(-0.5),
    Product::Percentile(90.0),
    Product::Percentile(50.0),
];

/// Three steps of six hours, in windows of two.
fn windows() -> Windows {
    let analysis: AnalysisTime = "2026-06-04T00:00Z".parse().unwrap();
    Windows::new(analysis, 21_600, 3, 43_200).unwrap()
}

/// A member's window with the variable `t2m`.
fn write(path: &Path, window: u64, cells: usize, value: impl Fn(u64, usize) -> f32) -> Dataset {
    let mut writer = Writer::create(path, ZarrFormat::V3, Map::new()).unwrap();
    let steps: Vec<u64> = windows().steps(window).collect();
    let dims = [("time", steps.len() as u64), ("cell", cells as u64)];
    let time = Definition::new("time", &dims[..1], Element::I64).attributes(time_attributes());
    let t2m = Definition::new("t2m", &dims, Element::F32)
        .chunks(&[1, cells as u64])
        .attribute("units", "K")
        .attribute("standard_name", "air_temperature")
        .attribute("long_name", "2 m temperature")
        .attribute("cell_methods", "time: point");
    for definition in [&time, &t2m] {
        writer.define(definition).unwrap();
    }
    let times = steps.iter().map(|&step| windows().valid_time(step));
    let times = Array1::from_iter(times).into_dyn();
    writer.write("time", Values::I64(times)).unwrap();
    let values = ArrayD::from_shape_fn(IxDyn(&[steps.len(), cells]), |index| {
        value(steps[index[0]], index[1])
    });
    writer.write("t2m", Values::F32(values)).unwrap();
    writer.finish().unwrap();
    Dataset::open(path).unwrap()
}

fn plan(window: &Dataset, missing: Missing) -> ForecastStore {
    let declared = VariableOptions {
        missing,
        ..VariableOptions::default()
    };
    let options = StoreOptions {
        variables: BTreeMap::from([("t2m".to_owned(), declared)]),
        ..StoreOptions::default()
    };
    ForecastStore::plan(window, windows(), &options).unwrap()
}

fn products(products: &[Product]) -> BTreeMap<String, Vec<Product>> {
    BTreeMap::from([("t2m".to_owned(), products.to_vec())])
}

fn digest(member: u32) -> Digest {
    Digest::of(format!("member {member}"))
}

/// Members whose values a function gives; both windows of each.
fn members(
    folder: &Path,
    count: u32,
    cells: usize,
    value: impl Fn(u32, u64, usize) -> f32,
) -> Vec<[Dataset; 2]> {
    (0..count)
        .map(|member| {
            [0, 1].map(|window| {
                let path = folder.join(format!("member{member}.{window}"));
                write(&path, window, cells, |step, cell| value(member, step, cell))
            })
        })
        .collect()
}

/// Accumulates members in an order and writes their products; returns both folders.
fn accumulate(
    folder: &Path,
    name: &str,
    members: &[[Dataset; 2]],
    order: &[u32],
    missing: Missing,
) -> [PathBuf; 2] {
    let [state, target] = ["state", "store"].map(|kind| folder.join(format!("{name}.{kind}")));
    let store = plan(&members[0][0], missing);
    let ensemble = Ensemble::new(&store, products(&ALL)).unwrap();
    for &member in order {
        for window in [1, 0] {
            let dataset = &members[member as usize][window];
            let window = window as u64;
            let added = ensemble.add(&state, member, digest(member), window, dataset);
            assert!(added.unwrap());
        }
    }
    let due: BTreeSet<u32> = order.iter().copied().collect();
    let output = ensemble.store(&due, &Map::new()).unwrap();
    for window in 0..2 {
        let length = std::fs::metadata(ensemble.path(&state, "t2m", window)).unwrap();
        assert!(length.len() <= ensemble.expected_bytes(window, order.len()));
        let written = ensemble.write_window(&state, window, &due, &output, &target);
        let bytes: u64 = written.unwrap().iter().map(|file| file.bytes).sum();
        assert!(bytes <= output.expected_bytes(window));
    }
    output.finish(&target).unwrap();
    [state, target]
}

/// Values with every kind of trouble: signs, zeros, tiny and large ones.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        Just(0.0),
        Just(-0.0),
        Just(1e-30),
        Just(280.0),
        -1e9_f32..1e9,
        -1e-12_f32..1e-12,
        270_f32..290.0,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn the_order_of_members_changes_no_byte(
        values in prop::collection::vec(value(), 6 * 3 * 5),
        order in Just((0..6).collect::<Vec<u32>>()).prop_shuffle(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let at = |member: u32, step: u64, cell: usize| {
            values[(member as usize * 3 + step as usize) * 5 + cell]
        };
        let made = members(folder.path(), 6, 5, at);
        let sorted: Vec<u32> = (0..6).collect();
        let one = accumulate(folder.path(), "one", &made, &sorted, Missing::Nowhere);
        let two = accumulate(folder.path(), "two", &made, &order, Missing::Nowhere);
        for (one, two) in one.iter().zip(&two) {
            prop_assert!(files(one) == files(two));
        }
    }
}

/// Compares with NumPy in float64. The mean and the spread of NumPy are rounded several times in
/// float64, ours once or twice; both are then rounded to float32, so that they may be neighbours
/// where the result lies between two of them. Everything else must be the same.
const NUMPY: &str = r#"
import json, sys, warnings, numpy as np, xarray as xr
warnings.simplefilter("error")
ds = xr.open_zarr(sys.argv[1])
x = np.stack([np.concatenate([xr.open_zarr(f"{sys.argv[2]}/member{m}.{w}").t2m.values for w in (0, 1)])
              for m in ds.attrs["ensemble_members"]]).astype("f8")
def near(name, want):
    want = want.astype("f4")
    got = ds[name].values
    assert got.dtype == np.dtype("f4")
    assert (abs(got - want) <= np.spacing(abs(want))).all(), name
    return int((got != want).sum())
differ = [near("t2m_mean", x.mean(0)), near("t2m_spread", x.std(0, ddof=1)),
          near("t2m_p90", np.percentile(x, 90, axis=0)), near("t2m_p50", np.percentile(x, 50, axis=0))]
np.testing.assert_array_equal(ds.t2m_min.values, x.min(0))
np.testing.assert_array_equal(ds.t2m_max.values, x.max(0))
for limit in (280, -0.5):
    np.testing.assert_array_equal(ds[f"t2m_above_{limit}"].values, (x > limit).mean(0).astype("f4"))
print(json.dumps({"differ": differ, "size": int(ds.t2m_mean.size), "members": len(x),
    "attributes": {name: v.attrs for name, v in ds.data_vars.items()}}))
"#;

#[test]
fn products_are_those_of_numpy() {
    let folder = tempfile::tempdir().unwrap();
    // More points than a block has.
    let cells = 20_000;
    let at = |member: u32, step: u64, cell: usize| {
        let mixed = (u64::from(member) << 40 | step << 32 | cell as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        280.0 + ((mixed >> 40) as f32 / (1 << 20) as f32 - 8.0)
    };
    let made = members(folder.path(), 7, cells, at);
    let order = [3, 0, 6, 1, 5, 2, 4];
    let [_, target] = accumulate(folder.path(), "all", &made, &order, Missing::Nowhere);
    let read = python_json(NUMPY, &[&target, folder.path()]);
    assert_eq!(
        (&read["size"], &read["members"]),
        (&json!(60_000), &json!(7))
    );
    for differ in read["differ"].as_array().unwrap() {
        assert!(
            differ.as_u64().unwrap() < 60,
            "more than 0.1 % differ: {read}"
        );
    }
    let attributes = |name: &str| &read["attributes"][name];
    assert_eq!(
        attributes("t2m_mean"),
        &json!({
            "units": "K", "standard_name": "air_temperature",
            "long_name": "2 m temperature, ensemble mean",
            "cell_methods": "time: point realization: mean",
        })
    );
    assert_eq!(
        attributes("t2m_above_280"),
        &json!({
            "units": "1", "threshold": 280.0,
            "long_name": "2 m temperature, probability of more than 280",
        })
    );
    assert_eq!(attributes("t2m_p90")["percentile"], json!(90.0));
    let spread = &attributes("t2m_spread")["cell_methods"];
    assert_eq!(spread, "time: point realization: standard_deviation");
}

#[test]
fn integers_give_exact_products() {
    let folder = tempfile::tempdir().unwrap();
    // The members lie at -3, -1, 1 and 3 times the step around a large value.
    let at = |member: u32, step: u64, cell: usize| {
        101_325.0 + cell as f32 + (2.0 * member as f32 - 3.0) * (step + 1) as f32
    };
    let made = members(folder.path(), 4, 3, at);
    let [_, target] = accumulate(folder.path(), "all", &made, &[2, 3, 0, 1], Missing::Nowhere);
    let dataset = Dataset::open(&target).unwrap();
    let read = |name: &str| {
        dataset
            .variable(name)
            .unwrap()
            .read()
            .unwrap()
            .into_f32()
            .unwrap()
    };
    for step in 0..3 {
        for cell in 0..3 {
            let (k, middle) = ((step + 1) as f32, 101_325.0 + cell as f32);
            let at = [step, cell];
            assert_eq!(read("t2m_mean")[at], middle);
            // Squares 9, 1, 1, 9 over three.
            assert_eq!(
                read("t2m_spread")[at],
                (f64::from(k) * (20.0_f64 / 3.0).sqrt()) as f32
            );
            assert_eq!(read("t2m_min")[at], middle - 3.0 * k);
            assert_eq!(read("t2m_max")[at], middle + 3.0 * k);
            assert_eq!(read("t2m_p50")[at], middle);
            assert_eq!(read("t2m_above_280")[at], 1.0);
        }
    }
}

#[test]
fn a_member_counts_once_and_other_content_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let made = members(folder.path(), 3, 4, |member, _, _| member as f32);
    let store = plan(&made[0][0], Missing::Nowhere);
    let ensemble = Ensemble::new(&store, products(&ALL)).unwrap();
    let state = folder.path().join("state");
    let add = |member: u32, content: u32| {
        let dataset = &made[member as usize][0];
        ensemble.add(&state, member, digest(content), 0, dataset)
    };
    assert_eq!(ensemble.included(&state, 0).unwrap(), BTreeMap::new());
    assert!(add(1, 1).unwrap());
    assert!(add(0, 0).unwrap());
    let before = files(&state);
    assert!(!add(1, 1).unwrap(), "it is included already");
    let error = add(1, 7).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Conflict);
    assert!(error.to_string().contains("member 1"), "{error}");
    assert!(files(&state) == before);
    let both = BTreeMap::from([(0, digest(0)), (1, digest(1))]);
    assert_eq!(ensemble.included(&state, 0).unwrap(), both);

    let output = |members: &[u32]| {
        let due = members.iter().copied().collect();
        let output = ensemble.store(&due, &Map::new()).unwrap();
        let target = folder.path().join("target");
        ensemble.write_window(&state, 0, &due, &output, &target)
    };
    assert_eq!(output(&[0, 1]).unwrap().len(), ALL.len());
    for (members, expected) in [
        (vec![0, 1, 2], "2 missing"),
        (vec![1, 2, 3], "2, 3 missing, 0 too many"),
    ] {
        let error = output(&members).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Incomplete);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let alone = ensemble
        .store(&BTreeSet::from([0]), &Map::new())
        .unwrap_err();
    assert!(alone.to_string().contains("no spread"), "{alone}");
}

#[test]
fn missing_in_every_member_stays_missing_and_in_some_is_refused_or_declared() {
    let folder = tempfile::tempdir().unwrap();
    // Point 0 has no value in any member, point 1 none in member 1.
    let at = |member: u32, _: u64, cell: usize| match (member, cell) {
        (_, 0) | (1, 1) => f32::NAN,
        _ => 10.0 * member as f32,
    };
    let made = members(folder.path(), 3, 3, at);
    let store = plan(&made[0][0], Missing::Anywhere);
    let ensemble = Ensemble::new(&store, products(&ALL)).unwrap();
    for (number, order) in [[0, 1, 2], [1, 0, 2]].into_iter().enumerate() {
        let state = folder.path().join(format!("refused{number}"));
        let mut result = Ok(true);
        let mut intact = BTreeMap::new();
        for member in order {
            intact = if state.exists() {
                files(&state)
            } else {
                intact
            };
            let dataset = &made[member as usize][0];
            result = ensemble.add(&state, member, digest(member), 0, dataset);
            if result.is_err() {
                break;
            }
        }
        let error = result.unwrap_err();
        let EnsembleError::Mixed { point: 1, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(intact.len(), 1);
        assert!(files(&state) == intact, "what was there stays as it was");
    }
    let mask = Missing::Within(Arc::from([true, true, false]));
    let [_, target] = accumulate(folder.path(), "masked", &made, &[1, 2, 0], mask);
    let dataset = Dataset::open(&target).unwrap();
    let read = |name: &str| {
        let values = dataset.variable(name).unwrap().read().unwrap();
        values.into_f32().unwrap().into_raw_vec_and_offset().0[..3].to_vec()
    };
    let expected = [
        ("mean", 10.0, 10.0),
        ("spread", 200_f32.sqrt(), 10.0),
        ("min", 0.0, 0.0),
        ("max", 20.0, 20.0),
        ("p50", 10.0, 10.0),
        ("above_-0.5", 1.0, 1.0),
    ];
    for (name, partly, whole) in expected {
        let values = read(&format!("t2m_{name}"));
        assert!(values[0].is_nan(), "{name}");
        assert_eq!(values[1..], [partly, whole], "{name}");
    }
    let strict = plan(&made[0][0], Missing::Nowhere);
    let ensemble = Ensemble::new(&strict, products(&ALL)).unwrap();
    let state = folder.path().join("strict");
    let error = ensemble
        .add(&state, 0, digest(0), 0, &made[0][0])
        .unwrap_err();
    assert!(matches!(error, EnsembleError::Store(_)), "{error}");
    assert!(files(&state).is_empty());
}

#[test]
fn a_published_member_counts_as_its_windows_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = |member: u32, step: u64, cell: usize| {
        (u64::from(member) * 7 + step * 3 + cell as u64) as f32 / 3.0
    };
    let made = members(folder.path(), 3, 30, at);
    let order = [0, 1, 2];
    let [expected, _] = accumulate(folder.path(), "windows", &made, &order, Missing::Nowhere);
    let store = plan(&made[0][0], Missing::Nowhere);
    let ensemble = Ensemble::new(&store, products(&ALL)).unwrap();
    let state = folder.path().join("state");
    for member in [2, 0, 1] {
        let target = folder.path().join(format!("published{member}"));
        for window in [0, 1] {
            let dataset = &made[member as usize][window];
            store.write_window(&target, window as u64, dataset).unwrap();
        }
        store.finish(&target).unwrap();
        let published = Dataset::open(&target).unwrap();
        let add = |window: u64| {
            ensemble.add_published(&state, member, digest(member), window, &published)
        };
        assert!(add(0).unwrap());
        // A shard that was removed after it was published is not needed any more.
        std::fs::remove_file(target.join("t2m/c/0/0")).unwrap();
        assert!(add(1).unwrap());
        assert!(!add(0).unwrap(), "it is included already");
    }
    assert!(files(&state) == files(&expected));
    let gone = Dataset::open(&folder.path().join("published1")).unwrap();
    let again = folder.path().join("again");
    let error = ensemble
        .add_published(&again, 1, digest(1), 0, &gone)
        .unwrap_err();
    assert!(error.to_string().contains("never written"), "{error}");
}

#[test]
fn a_damaged_file_is_found_wherever_the_damage_is() {
    let folder = tempfile::tempdir().unwrap();
    let made = members(folder.path(), 2, 30, |member, step, cell| {
        (u64::from(member) + step) as f32 * 0.7 + cell as f32
    });
    let store = plan(&made[0][0], Missing::Nowhere);
    let ensemble = Ensemble::new(&store, products(&ALL)).unwrap();
    let state = folder.path().join("state");
    for member in [0, 1] {
        let dataset = &made[member as usize][0];
        ensemble
            .add(&state, member, digest(member), 0, dataset)
            .unwrap();
    }
    let due = BTreeSet::from([0, 1]);
    let output = ensemble.store(&due, &Map::new()).unwrap();
    let target = folder.path().join("target");
    let read = || ensemble.write_window(&state, 0, &due, &output, &target);
    read().unwrap();
    let expected = files(&target);
    let path = ensemble.path(&state, "t2m", 0);
    let whole = std::fs::read(&path).unwrap();
    let damages = (0..whole.len()).step_by(7).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cuts = (0..whole.len()).step_by(31).map(|at| whole[..at].to_vec());
    let longer = [whole.as_slice(), &[0]].concat();
    for bytes in damages.chain(cuts).chain([longer]) {
        std::fs::write(&path, &bytes).unwrap();
        let error = read().unwrap_err();
        let is_found = matches!(
            error,
            EnsembleError::Damaged { .. } | EnsembleError::Other { .. }
        );
        assert!(is_found, "{error}");
        assert!(files(&target) == expected, "products stay as they were");
    }
    // What a killed writer leaves does not matter.
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(state.join(".t2m.0000.ensemble.partial"), &whole[..50]).unwrap();
    read().unwrap();
    assert!(!ensemble.add(&state, 1, digest(1), 0, &made[1][0]).unwrap());
}

#[test]
fn files_of_other_products_or_another_cycle_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let made = members(folder.path(), 2, 4, |member, _, _| member as f32);
    let store = plan(&made[0][0], Missing::Nowhere);
    let state = folder.path().join("state");
    let mean = Ensemble::new(&store, products(&[Product::Mean])).unwrap();
    mean.add(&state, 0, digest(0), 0, &made[0][0]).unwrap();
    let more = Ensemble::new(&store, products(&ALL)).unwrap();
    let error = more.add(&state, 1, digest(1), 0, &made[1][0]).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::Conflict);
    assert!(error.to_string().contains("remove it"), "{error}");
    let wrong = [
        vec![],
        vec![Product::Mean, Product::Mean],
        vec![Product::Above(f64::NAN)],
        vec![Product::Percentile(100.5)],
    ];
    for declared in wrong {
        let error = Ensemble::new(&store, products(&declared)).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::BadConfiguration, "{error}");
    }
    let huge = write(&folder.path().join("huge"), 0, 4, |_, cell| match cell {
        2 => 2e9,
        _ => 1.0,
    });
    let error = mean.add(&state, 1, digest(1), 0, &huge).unwrap_err();
    let EnsembleError::Overflow { point: 2, .. } = error else {
        panic!("{error}");
    };
}

//! Statistics, compared with xarray.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::testing::{files, python, python_json};
use crate::{Dataset, Element, Error, Statistics, extract_statistics};

/// A training dataset as mllam-data-prep writes it, in both versions of Zarr.
const TRAINING: &str = r#"
import sys, numpy as np, xarray as xr
rng = np.random.default_rng(3)
def feature(name, names):
    dim = f"{name}_feature"
    return {
        dim: (dim, np.array(names)),
        f"{dim}_units": (dim, np.array(["K", "m s-1", "1"][: len(names)])),
        f"{dim}_long_name": (dim, np.array([f"long {n}" for n in names])),
        f"{dim}_source_dataset": (dim, np.array(["danra"] * len(names))),
    }
ds = xr.Dataset(
    coords={**feature("state", ["t2m", "u10m", "v10m"]), **feature("forcing", ["toa", "hour_sin"]), "time": np.arange(4)},
    attrs={"schema_version": "v0.6.0", "creation_config": "output: {}\n"},
)
attrs = {"units": "K", "long_name": "2 metre temperature", "variables_mapping_dim": "state_feature"}
for name, kind, count in [("state", "f4", 3), ("forcing", "f8", 2)]:
    dim = f"{name}_feature"
    ds[name] = ((dim, "time"), rng.normal(size=(count, 4)).astype(kind), attrs)
    for op in ["mean", "std", "diff_mean", "diff_std"]:
        ds[f"{name}__train__{op}"] = (dim, rng.normal(size=count).astype(kind), attrs)
ds["state__train__mean"].encoding["chunks"] = (2,)
for zarr_format in [2, 3]:
    ds.to_zarr(f"{sys.argv[1]}/training_v{zarr_format}.zarr", zarr_format=zarr_format, consolidated=True)
"#;

/// Compares an extracted store with the dataset it came from, or with another extracted store.
const COMPARE: &str = r#"
import sys, json, numpy as np, xarray as xr
training, extracted = [xr.open_zarr(p, consolidated=True) for p in sys.argv[1:3]]
expected = training[[n for n in training.data_vars if len(n.split("__")) == 3]]
expected = expected.drop_vars([c for c in expected.coords if "_feature" not in c])
xr.testing.assert_identical(expected, extracted)
for name in expected.variables:
    a, b = expected[name], extracted[name]
    assert a.dtype == b.dtype or a.dtype.kind == b.dtype.kind == "U", name
    if a.dtype.kind == "f":
        assert a.values.tobytes() == b.values.tobytes(), name
assert extracted.attrs == training.attrs
print(json.dumps(sorted(extracted.variables)))
"#;

/// The example in the repository.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam/train/danra.datastore.zarr")
}

#[test]
fn extracted_statistics_are_those_of_the_training_dataset() {
    let folder = tempfile::tempdir().unwrap();
    python(TRAINING, &[folder.path()]);
    for version in ["v2", "v3"] {
        let training = folder.path().join(format!("training_{version}.zarr"));
        let [out, again] =
            ["out", "again"].map(|name| folder.path().join(format!("{name}_{version}")));
        extract_statistics(&training, &out).unwrap();
        extract_statistics(&training, &again).unwrap();
        assert_eq!(files(&out), files(&again));
        let names = python_json(COMPARE, &[&training, &out]);
        assert_eq!(names.as_array().unwrap().len(), 16);
        assert!(matches!(
            extract_statistics(&training, &out),
            Err(Error::Exists { .. })
        ));
        for store in [&training, &out] {
            let statistics = Statistics::open(store).unwrap();
            assert_eq!(statistics.variables(), ["forcing", "state"]);
            assert_eq!(
                statistics.features("state").unwrap(),
                ["t2m", "u10m", "v10m"]
            );
            assert_eq!(statistics.units("forcing").unwrap(), ["K", "m s-1"]);
            assert_eq!(
                statistics.long_names("forcing").unwrap()[1],
                "long hour_sin"
            );
            let mean = statistics.get("state", "train", "mean").unwrap();
            assert_eq!((mean.element, mean.values.len()), (Element::F32, 3));
            let dataset = Dataset::open(&training).unwrap();
            let stored = dataset
                .variable("state__train__mean")
                .unwrap()
                .read()
                .unwrap();
            assert_eq!(
                stored.into_f64().unwrap().into_raw_vec_and_offset().0,
                mean.values
            );
            let std = statistics.get("forcing", "train", "std").unwrap();
            assert_eq!((std.element, std.values.len()), (Element::F64, 2));
            assert!(statistics.get("state", "test", "mean").is_err());
            assert!(matches!(
                statistics.features("static"),
                Err(Error::Statistics { .. })
            ));
        }
    }
}

#[test]
fn a_store_without_statistics_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let script = "import sys, xarray as xr; xr.Dataset({'a__b': 1}).to_zarr(sys.argv[1])";
    let path = folder.path().join("empty.zarr");
    python(script, &[&path]);
    let out = folder.path().join("out.zarr");
    assert!(matches!(
        Statistics::open(&path),
        Err(Error::Statistics { .. })
    ));
    assert!(matches!(
        extract_statistics(&path, &out),
        Err(Error::Statistics { .. })
    ));
    assert!(!out.exists());
}

#[test]
fn statistics_of_the_example() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("stats.zarr");
    extract_statistics(&example(), &out).unwrap();
    let names = python_json(COMPARE, &[&example(), &out]);
    assert_eq!(names.as_array().unwrap().len(), 22);
    let statistics = Statistics::open(&out).unwrap();
    assert_eq!(statistics.variables(), ["forcing", "state", "static"]);
    assert_eq!(
        statistics.features("state").unwrap(),
        ["t2m", "u10m", "v10m"]
    );
    let std = statistics.get("state", "train", "std").unwrap();
    assert!((std.values[0] - 2.0).abs() < 5.0, "{std:?}");
    let dataset = Dataset::open(&example()).unwrap();
    assert!(dataset.attributes().contains_key("creation_config"));
    assert_eq!(
        json!(dataset.variable("state").unwrap().dims()),
        json!(["state_feature", "time", "grid_index"])
    );
}

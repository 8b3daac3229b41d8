//! Reading, compared with xarray.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::testing::{files, python};
use crate::{Dataset, Error, Values};

/// Everything in a dataset in the form in which `odd_stores.py` describes what xarray reads.
fn describe(dataset: &Dataset, name: &str, kind: &str) -> Result<Value, Error> {
    let variable = dataset.variable(name)?;
    let dims = variable.dims();
    let shape = variable.shape();
    let (kind, values) = match kind {
        "time" => ("time", json!(dataset.times(name)?)),
        "duration" => ("duration", json!(dataset.durations(name)?)),
        _ => {
            let values = variable.read()?;
            assert_eq!(values.element(), variable.element());
            let kind = values.element().name();
            match values {
                Values::F32(values) => (
                    kind,
                    values.iter().map(|&value| float(value.into())).collect(),
                ),
                Values::F64(values) => (kind, values.iter().map(|&value| float(value)).collect()),
                Values::I64(values) => (kind, values.into_iter().collect()),
                Values::Text(values) => (kind, values.into_iter().collect()),
            }
        }
    };
    Ok(json!({"kind": kind, "dims": dims, "shape": shape, "values": values}))
}

/// A float as Python's JSON has it: NaN is null, infinity a word.
fn float(value: f64) -> Value {
    if value.is_infinite() {
        return json!(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    json!(value)
}

/// How many variables were compared with what xarray reads, and where they differ.
#[derive(Default)]
struct Comparison {
    compared: usize,
    differences: Vec<String>,
}

impl Comparison {
    /// Compares every variable of a store with a description by `odd_stores.py`.
    fn add(&mut self, dataset: &Dataset, description: &Path) {
        let text = std::fs::read_to_string(description).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = dataset.names().collect();
        let mut expected_names: Vec<&String> = expected.as_object().unwrap().keys().collect();
        expected_names.sort();
        assert_eq!(names, expected_names);
        for (name, expected) in expected.as_object().unwrap() {
            self.compared += 1;
            let place = format!("{}/{name}", dataset.path().display());
            match describe(dataset, name, expected["kind"].as_str().unwrap()) {
                Ok(found) if found == *expected => {}
                Ok(found) => self
                    .differences
                    .push(format!("{place}:\n  {found}\n  {expected}")),
                Err(error) => self.differences.push(format!("{place}: {error}")),
            }
        }
    }
}

#[test]
fn every_odd_store_reads_as_xarray_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    python(include_str!("testing/odd_stores.py"), &[folder.path()]);
    let mut comparison = Comparison::default();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let dataset = Dataset::open(&path.with_extension("zarr")).unwrap();
            assert_eq!(
                dataset.attributes()["title"],
                json!(path.file_stem().unwrap().to_str())
            );
            comparison.add(&dataset, &path);
        }
    }
    assert!(comparison.compared > 300, "{}", comparison.compared);
    assert!(
        comparison.differences.is_empty(),
        "{}",
        comparison.differences.join("\n")
    );
}

#[test]
fn the_example_reads_as_xarray_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
    for store in ["source/single_levels.zarr", "train/danra.datastore.zarr"] {
        let store = example.join(store);
        python(
            include_str!("testing/odd_stores.py"),
            &[folder.path(), &store],
        );
        let mut comparison = Comparison::default();
        comparison.add(
            &Dataset::open(&store).unwrap(),
            &folder.path().join("store.json"),
        );
        assert!(comparison.compared > 10, "{}", comparison.compared);
        assert!(
            comparison.differences.is_empty(),
            "{}",
            comparison.differences.join("\n")
        );
    }
}

/// A store with an array per codec, written by zarr-python.
const CODECS: &str = r#"
import sys, numpy as np, numcodecs, zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
rng = np.random.default_rng(1)
data = np.cumsum(rng.normal(size=(16, 30)), axis=1).astype("f4")
root = sys.argv[1]
g = zarr.open_group(root + "/v3.zarr", mode="w", zarr_format=3)
for name, options in {
    "none": dict(compressors=None),
    "blosc": dict(compressors=BloscCodec(cname="zstd", shuffle="bitshuffle", typesize=4)),
    "lz4": dict(compressors=BloscCodec(cname="lz4", shuffle="shuffle", typesize=4)),
    "zstd": dict(compressors=ZstdCodec()),
    "gzip": dict(compressors=GzipCodec()),
    "crc32c": dict(compressors=Crc32cCodec()),
    "sharding": dict(shards=(8, 30)),
}.items():
    chunks = (4, 10) if name == "sharding" else (8, 30)
    a = g.create_array(name, shape=data.shape, dtype="f4", chunks=chunks, dimension_names=["y", "x"], **options)
    a[...] = data
words = np.array(["a", "bcd", "é"])
a = g.create_array("fixed", shape=(3,), dtype="U3", chunks=(3,), dimension_names=["n"])
a[...] = words
a = g.create_array("variable", shape=(3,), dtype=str, chunks=(3,), dimension_names=["n"])
a[...] = words.astype(object)
g = zarr.open_group(root + "/v2.zarr", mode="w", zarr_format=2)
for name, codec in {"none": None, "zlib": numcodecs.Zlib(), "zstd": numcodecs.Zstd(), "blosc": numcodecs.Blosc()}.items():
    a = g.create_array(name, shape=data.shape, dtype="f4", chunks=(8, 30), compressors=codec)
    a.attrs["_ARRAY_DIMENSIONS"] = ["y", "x"]
    a[...] = data
"#;

/// The files of the chunks of a variable.
fn chunk_files(store: &Path, name: &str) -> Vec<PathBuf> {
    let files = files(&store.join(name)).into_keys();
    files
        .filter(|file| !file.to_str().unwrap().contains('z'))
        .map(|file| store.join(name).join(file))
        .collect()
}

#[test]
fn a_cut_chunk_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    python(CODECS, &[folder.path()]);
    for store in ["v2.zarr", "v3.zarr"].map(|name| folder.path().join(name)) {
        let dataset = Dataset::open(&store).unwrap();
        for name in dataset.names() {
            let file = chunk_files(&store, name).pop().unwrap();
            let whole = std::fs::read(&file).unwrap();
            dataset.variable(name).unwrap().read().unwrap();
            for length in [0, 1, 3, whole.len() / 2, whole.len() - 1] {
                std::fs::write(&file, &whole[..length]).unwrap();
                match dataset.variable(name).unwrap().read() {
                    Err(Error::Chunk {
                        path, name: named, ..
                    }) => {
                        assert_eq!((path, named.as_str()), (file.clone(), name));
                    }
                    other => panic!("{name} cut to {length} bytes: {other:?}"),
                }
            }
            std::fs::write(&file, &whole).unwrap();
        }
    }
}

#[test]
fn a_damaged_chunk_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    python(CODECS, &[folder.path()]);
    let mut failures = 0;
    for store in ["v2.zarr", "v3.zarr"].map(|name| folder.path().join(name)) {
        let dataset = Dataset::open(&store).unwrap();
        for name in dataset.names() {
            let file = chunk_files(&store, name).pop().unwrap();
            let whole = std::fs::read(&file).unwrap();
            let tail = whole.len().saturating_sub(40)..whole.len();
            for position in (0..whole.len().min(40)).chain(tail) {
                for flip in [0xff, 0x80, 0x01, 0x20] {
                    let mut damaged = whole.clone();
                    damaged[position] ^= flip;
                    std::fs::write(&file, &damaged).unwrap();
                    failures += usize::from(dataset.variable(name).unwrap().read().is_err());
                }
            }
            std::fs::write(&file, &whole).unwrap();
        }
    }
    assert!(failures > 500, "{failures}");
}

/// A group of version 2 with one array, written by hand.
fn group_v2(folder: &Path, zarray: Value, zattrs: Value) -> Dataset {
    std::fs::create_dir_all(folder.join("t2m")).unwrap();
    std::fs::write(folder.join(".zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    std::fs::write(folder.join("t2m/.zarray"), zarray.to_string()).unwrap();
    std::fs::write(folder.join("t2m/.zattrs"), zattrs.to_string()).unwrap();
    Dataset::open(folder).unwrap()
}

fn zarray(shape: &[u64], chunks: &[u64]) -> Value {
    json!({
        "zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": "<f4", "compressor": null,
        "fill_value": "NaN", "order": "C", "filters": null,
    })
}

#[test]
fn corrupt_shapes_do_not_allocate() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (shape, chunks)) in [
        (vec![1u64 << 60], vec![10u64]),
        (vec![1 << 40, 1 << 40], vec![10, 10]),
        (vec![10], vec![1 << 60]),
        (vec![10, 10], vec![1 << 40, 1 << 40]),
        (vec![1 << 30], vec![1]),
    ]
    .into_iter()
    .enumerate()
    {
        let dims: Vec<String> = (0..shape.len()).map(|dim| format!("dim{dim}")).collect();
        let attributes = json!({"_ARRAY_DIMENSIONS": dims});
        let path = folder.path().join(index.to_string());
        let dataset = group_v2(&path, zarray(&shape, &chunks), attributes);
        let error = dataset.variable("t2m").unwrap().read().unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { .. }),
            "{shape:?} {chunks:?}: {error}"
        );
    }
    let dims = json!({"_ARRAY_DIMENSIONS": ["x"]});
    let dataset = group_v2(
        &folder.path().join("part"),
        zarray(&[1 << 40], &[100]),
        dims,
    );
    let part = dataset
        .variable("t2m")
        .unwrap()
        .read_range(std::slice::from_ref(&(1 << 30..(1 << 30) + 5)))
        .unwrap();
    assert!(part.into_f32().unwrap().iter().all(|value| value.is_nan()));
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dims = json!({"_ARRAY_DIMENSIONS": ["x"]});
    let with = |key: &str, value: Value| {
        let mut document = zarray(&[4], &[4]);
        document[key] = value;
        document
    };
    for (index, (document, attributes, named)) in [
        (
            with("compressor", json!({"id": "zfpx", "level": 1})),
            dims.clone(),
            "zfpx",
        ),
        (
            with("compressor", json!({"id": "lz4", "acceleration": 1})),
            dims.clone(),
            "lz4",
        ),
        (
            with("filters", json!([{"id": "delta", "dtype": "<f4"}])),
            dims.clone(),
            "delta",
        ),
        (with("dtype", json!("<c8")), dims.clone(), "<c8"),
        (with("chunks", json!([0])), dims.clone(), "zero"),
        (
            with("fill_value", json!("what")),
            dims.clone(),
            "fill value",
        ),
        (zarray(&[4], &[4]), json!({}), "dimension names"),
        (
            zarray(&[4], &[4]),
            json!({"_ARRAY_DIMENSIONS": ["x", "y"]}),
            "2 names",
        ),
        (
            zarray(&[4], &[4]),
            json!({"_ARRAY_DIMENSIONS": ["x"], "scale_factor": "a"}),
            "scale_factor",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let dataset = group_v2(&folder.path().join(index.to_string()), document, attributes);
        assert_eq!(dataset.names().collect::<Vec<_>>(), ["t2m"]);
        let error = dataset.variable("t2m").unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("t2m") && text.contains(named), "{text}");
    }
    let dataset = group_v2(&folder.path().join("good"), zarray(&[4], &[4]), dims);
    let error = dataset.variable("T2M").unwrap_err().to_string();
    assert!(
        error.ends_with("has no variable `T2M`; it has: t2m"),
        "{error}"
    );
    let nothing = Dataset::open(&folder.path().join("nothing"));
    assert!(matches!(nothing, Err(Error::NotZarr { .. })));
}

#[test]
fn consolidated_names_cannot_leave_the_store() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["../secret", "/etc", "a/../../b"] {
        let v2 = json!({"metadata": {".zgroup": {"zarr_format": 2}, format!("{name}/.zarray"): zarray(&[1], &[1])}});
        std::fs::write(folder.path().join(".zmetadata"), v2.to_string()).unwrap();
        assert!(matches!(
            Dataset::open(folder.path()),
            Err(Error::UnsafeName { .. })
        ));
    }
    let v3 = json!({"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": {"../a": {"node_type": "array"}}}});
    std::fs::write(folder.path().join("zarr.json"), v3.to_string()).unwrap();
    assert!(matches!(
        Dataset::open(folder.path()),
        Err(Error::UnsafeName { .. })
    ));
}

#[test]
fn a_zstd_header_that_claims_too_much_does_not_allocate() {
    let folder = tempfile::tempdir().unwrap();
    let mut document = zarray(&[4], &[4]);
    document["compressor"] = json!({"id": "zstd", "level": 1});
    let dataset = group_v2(folder.path(), document, json!({"_ARRAY_DIMENSIONS": ["x"]}));
    let frame = [
        0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0,
    ];
    std::fs::write(folder.path().join("t2m/0"), frame).unwrap();
    match dataset.variable("t2m").unwrap().read() {
        Err(Error::Chunk { path, reason, .. }) => {
            assert!(
                path.ends_with("t2m/0") && reason.contains("1152921504606846976"),
                "{reason}"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_chunks_asked_for_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let dims = json!({"_ARRAY_DIMENSIONS": ["x"]});
    let dataset = group_v2(folder.path(), zarray(&[6], &[2]), dims);
    let bytes = [1f32, 2.0].map(f32::to_le_bytes).concat();
    std::fs::write(folder.path().join("t2m/1"), bytes).unwrap();
    std::fs::write(folder.path().join("t2m/2"), "damaged").unwrap();
    let t2m = dataset.variable("t2m").unwrap();
    let part = t2m
        .read_range(std::slice::from_ref(&(1..4)))
        .unwrap()
        .into_f32()
        .unwrap();
    assert!(part[[0]].is_nan());
    assert_eq!((part[[1]], part[[2]]), (1.0, 2.0));
    assert!(t2m.read_range(std::slice::from_ref(&(3..6))).is_err());
}

#[test]
fn a_missing_value_is_masked_although_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let attributes = json!({"_ARRAY_DIMENSIONS": ["x"], "missing_value": 1e20});
    let dataset = group_v2(folder.path(), zarray(&[2], &[2]), attributes);
    let bytes = [1e20f32, 2.0].map(f32::to_le_bytes).concat();
    std::fs::write(folder.path().join("t2m/0"), bytes).unwrap();
    let values = dataset
        .variable("t2m")
        .unwrap()
        .read()
        .unwrap()
        .into_f32()
        .unwrap();
    assert!(values[[0]].is_nan() && values[[1]] == 2.0, "{values}");
}

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

/// Compares every variable of every store with what xarray reads.
#[test]
fn every_odd_store_reads_as_xarray_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    python(include_str!("testing/odd_stores.py"), &[folder.path()]);
    let mut differences = Vec::new();
    let mut compared = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let dataset = Dataset::open(&path.with_extension("zarr")).unwrap();
        let title = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(dataset.attributes()["title"], json!(title));
        let names: Vec<&str> = dataset.names().collect();
        let mut expected_names: Vec<&String> = expected.as_object().unwrap().keys().collect();
        expected_names.sort();
        assert_eq!(names, expected_names);
        for (name, expected) in expected.as_object().unwrap() {
            compared += 1;
            match describe(&dataset, name, expected["kind"].as_str().unwrap()) {
                Ok(found) if found == *expected => {}
                Ok(found) => differences.push(format!("{title}/{name}:\n  {found}\n  {expected}")),
                Err(error) => differences.push(format!("{title}/{name}: {error}")),
            }
        }
    }
    assert!(compared > 300, "{compared}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
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

//! The metadata of a store, and the files of its coordinates.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::coordinates::integers;
use super::{ForecastStore, Layout, StoreError, shard};
use crate::{Definition, Element, Error, Writer, ZarrFormat};

/// A file's path in the store, with `/`, and its content.
type Document = (String, Vec<u8>);

/// The folder in which coordinates are made.
const SCRATCH: &str = ".coordinates.partial";

impl ForecastStore {
    /// Every file but the shards, with its content, in the order in which to write them.
    pub(crate) fn documents(&self, folder: &Path) -> Result<Vec<Document>, StoreError> {
        let scratch = folder.join(SCRATCH);
        let made = self.coordinate_files(&scratch);
        remove(&scratch)?;
        let (mut files, mut consolidated) = made?;
        for (name, layout) in &self.variables {
            let document = document(layout);
            files.push((format!("{name}/zarr.json"), text(&document)));
            consolidated.insert(name.clone(), document);
        }
        consolidated.sort_keys();
        let group = json!({
            "attributes": self.attributes,
            "zarr_format": 3,
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": false,
                "metadata": consolidated,
            },
            "node_type": "group",
        });
        files.push(("zarr.json".to_owned(), text(&group)));
        Ok(files)
    }

    /// Has the coordinates written as a store of their own; returns its files, the group's left
    /// out, and the metadata of its arrays.
    fn coordinate_files(
        &self,
        scratch: &Path,
    ) -> Result<(Vec<Document>, Map<String, Value>), StoreError> {
        remove(scratch)?;
        let mut writer = Writer::create(scratch, ZarrFormat::V3, Map::new())?;
        for (definition, values) in &self.coordinates.fixed {
            writer.define(definition)?;
            writer.write(&definition.name, values.clone())?;
        }
        for coordinate in &self.coordinates.steps {
            let steps = self.first_step()..self.first_step() + self.steps();
            let mut shape = vec![1; coordinate.dims.len()];
            shape[coordinate.axis] = self.steps();
            let dims: Vec<(&str, u64)> = coordinate
                .dims
                .iter()
                .map(String::as_str)
                .zip(shape.iter().copied())
                .collect();
            let definition = Definition::new(&coordinate.name, &dims, Element::I64)
                .attributes(coordinate.attributes.clone());
            writer.define(&definition)?;
            let shape: Vec<usize> = shape.iter().map(|&length| length as usize).collect();
            let values = steps.map(|step| coordinate.at(&self.windows, step));
            writer.write(&coordinate.name, integers(&shape, values.collect()))?;
        }
        writer.finish()?;
        let mut files = Vec::new();
        collect(scratch, "", &mut files)?;
        files.sort();
        let mut metadata = Map::new();
        files.retain(|(path, bytes)| {
            if path == "zarr.json" {
                return false;
            }
            if let Some(name) = path.strip_suffix("/zarr.json")
                && let Ok(document) = serde_json::from_slice(bytes)
            {
                metadata.insert(name.to_owned(), document);
            }
            true
        });
        Ok((files, metadata))
    }
}

/// The files below a folder with their content.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<Document>) -> Result<(), StoreError> {
    let failed = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.push((path, std::fs::read(entry.path()).map_err(failed)?));
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::write(folder)(error))
        }
        _ => Ok(()),
    }
}

/// `zarr.json` of a variable.
fn document(layout: &Layout) -> Value {
    let stored = layout.rules.stored;
    let little = json!({"name": "bytes", "configuration": {"endian": "little"}});
    let blosc = json!({"name": "blosc", "configuration": {
        "typesize": stored.size(), "cname": "zstd", "clevel": shard::LEVEL,
        "shuffle": "shuffle", "blocksize": 0,
    }});
    let mut attributes = layout.attributes.clone();
    attributes.extend(stored.attributes());
    json!({
        "shape": layout.shape,
        "data_type": stored.name(),
        "chunk_grid": {"name": "regular", "configuration": {
            "chunk_shape": layout.with_steps(layout.steps_each),
        }},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": stored.fill_value(),
        "codecs": [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": layout.inner(),
            "codecs": [little.clone(), blosc],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }}],
        "attributes": attributes,
        "dimension_names": layout.dims,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    })
}

fn text(document: &Value) -> Vec<u8> {
    format!("{document:#}").into_bytes()
}

//! Writes a Zarr group that xarray reads back with its times and coordinates.
//!
//! The same calls write the same bytes: nothing depends on the time, the machine or the order of
//! parallel writes. Values are compressed with zstd after a shuffle of their bits (blosc), as
//! mllam-data-prep does. The group's own metadata comes last, so that a store which was not
//! finished cannot be opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::{Arc, OnceLock};

use ndarray::ArrayD;
use serde_json::{Map, Value, json};
use zarrs::array::{Array, ArrayBytes, ArrayMetadata, ArraySubset, CodecOptions, IntoArrayBytes};
use zarrs::filesystem::FilesystemStore;

use crate::variable::DIMENSIONS;
use crate::{Element, Error, Values, ZarrFormat};

/// A variable to write.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// The names of its dimensions. A variable with the name of its only dimension is the
    /// coordinate of that dimension.
    pub dims: Vec<String>,
    /// The length of each dimension.
    pub shape: Vec<u64>,
    /// The length of each dimension of a chunk. Texts are always one chunk.
    pub chunks: Vec<u64>,
    /// The type of its values.
    pub element: Element,
    /// Attributes such as `units`, `long_name`, `standard_name`, and `coordinates` with the names
    /// of its coordinates other than those of its dimensions.
    pub attributes: Map<String, Value>,
}

impl Definition {
    /// A variable in a single chunk, without attributes.
    pub fn new(name: &str, dims: &[(&str, u64)], element: Element) -> Self {
        let shape: Vec<u64> = dims.iter().map(|&(_, length)| length).collect();
        Self {
            name: name.to_owned(),
            dims: dims.iter().map(|&(dim, _)| dim.to_owned()).collect(),
            chunks: shape.iter().map(|&length| length.max(1)).collect(),
            shape,
            element,
            attributes: Map::new(),
        }
    }

    /// With other chunks.
    pub fn chunks(mut self, chunks: &[u64]) -> Self {
        self.chunks = chunks.to_vec();
        self
    }

    /// With one more attribute.
    pub fn attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// With more attributes.
    pub fn attributes(mut self, attributes: Map<String, Value>) -> Self {
        self.attributes.extend(attributes);
        self
    }
}

/// Writes one Zarr group. Blocks of different chunks may be written in parallel.
pub struct Writer {
    path: PathBuf,
    format: ZarrFormat,
    attributes: Map<String, Value>,
    storage: Arc<FilesystemStore>,
    variables: BTreeMap<String, Target>,
}

/// A variable being written.
struct Target {
    definition: Definition,
    /// Known once the length of the longest text is, for texts; from the start for others.
    array: OnceLock<Array<FilesystemStore>>,
}

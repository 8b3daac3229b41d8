//! Writes a Zarr group that xarray reads back with its times and coordinates.
//!
//! The same calls write the same bytes: nothing depends on the time, the machine or the order of
//! parallel writes. Values are compressed with zstd after a shuffle of their bits (blosc), as
//! mllam-data-prep does, unless asked for otherwise. The group's own metadata comes last, so that a store which was not
//! finished cannot be opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ndarray::ArrayD;
use serde_json::{Map, Value, json};
use zarrs::array::{Array, ArrayBytes, ArrayMetadata, ArraySubset, CodecOptions, IntoArrayBytes};
use zarrs::filesystem::FilesystemStore;

use crate::documents::{attributes_v2, check, document_v2, document_v3};
use crate::stored_chunks::StoredTarget;
use crate::{Compressor, Element, Error, Values, ZarrFormat};

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
    /// How its chunks are compressed. Texts always by Zstandard alone.
    pub compressor: Compressor,
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
            compressor: Compressor::SMALL,
        }
    }

    /// With other chunks.
    pub fn chunks(mut self, chunks: &[u64]) -> Self {
        self.chunks = chunks.to_vec();
        self
    }

    /// With its chunks compressed otherwise than small.
    pub fn compressor(mut self, compressor: Compressor) -> Self {
        self.compressor = compressor;
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
    pub(crate) path: PathBuf,
    pub(crate) format: ZarrFormat,
    attributes: Map<String, Value>,
    pub(crate) storage: Arc<FilesystemStore>,
    variables: BTreeMap<String, Target>,
    pub(crate) stored: BTreeMap<String, StoredTarget>,
}

/// A variable being written.
struct Target {
    definition: Definition,
    /// Known once the length of the longest text is, for texts; from the start for others.
    array: OnceLock<Array<FilesystemStore>>,
}

impl Writer {
    /// Starts a group in a new folder; its parents are created.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is something at the path already.
    pub fn create(
        path: &Path,
        format: ZarrFormat,
        attributes: Map<String, Value>,
    ) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Write {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(&error))?;
        }
        std::fs::create_dir(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists {
                path: path.to_owned(),
            },
            _ => failed(&error),
        })?;
        Self::begin(path, format, attributes)
    }

    /// Starts a group in a folder that is there and empty.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is something in it, [`Error::Read`], [`Error::Write`].
    pub fn begin(
        path: &Path,
        format: ZarrFormat,
        attributes: Map<String, Value>,
    ) -> Result<Self, Error> {
        let mut entries = path.read_dir().map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        if entries.next().is_some() {
            return Err(Error::Exists {
                path: path.to_owned(),
            });
        }
        let failed = |error: &dyn std::fmt::Display| Error::Write {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        Ok(Self {
            path: path.to_owned(),
            format,
            attributes,
            storage: Arc::new(FilesystemStore::new(path).map_err(|error| failed(&error))?),
            variables: BTreeMap::new(),
            stored: BTreeMap::new(),
        })
    }

    /// Adds a variable.
    ///
    /// # Errors
    /// [`Error::Definition`] if the definition contradicts itself or another variable's.
    pub fn define(&mut self, definition: &Definition) -> Result<(), Error> {
        let refuse = |reason: String| self.refuse(&definition.name, reason);
        check(definition).map_err(refuse)?;
        self.check_against_others(&definition.name, &definition.dims, &definition.shape)
            .map_err(refuse)?;
        let array = OnceLock::new();
        if definition.element != Element::Text {
            let _ = array.set(self.array(definition, 0)?);
        }
        let target = Target {
            definition: definition.clone(),
            array,
        };
        self.variables.insert(definition.name.clone(), target);
        Ok(())
    }

    /// Writes all values of a variable.
    ///
    /// # Errors
    /// [`Error::Definition`] if the values do not have the defined type and shape.
    pub fn write(&self, name: &str, values: Values) -> Result<(), Error> {
        let target = self.target(name)?;
        self.check_values(target, values.element(), values.shape(), None)?;
        let Values::Text(texts) = values else {
            let start = vec![0; target.definition.shape.len()];
            return self.write_block(name, &start, values);
        };
        let length = texts
            .iter()
            .map(|text| text.chars().count())
            .max()
            .unwrap_or(0);
        let array = self.array(&target.definition, length.max(1))?;
        if texts.iter().any(|text| text.ends_with('\0')) {
            return Err(self.refuse(name, "a text ends with a zero character".to_owned()));
        }
        let bytes = ArrayBytes::new_flen(utf32(&texts, length.max(1)));
        self.store(
            &array,
            ArraySubset::new_with_shape(target.definition.shape.clone()),
            bytes,
        )?;
        if target.array.set(array).is_err() {
            return Err(self.refuse(name, "its texts are written already".to_owned()));
        }
        Ok(())
    }

    /// Writes a block of a variable that starts at an index and consists of whole chunks (of
    /// which the last in a dimension may be cut by the variable's end). Blocks without a common
    /// chunk may be written in parallel. Texts are written at once, by [`Self::write`].
    ///
    /// # Errors
    /// [`Error::Definition`] if the values do not have the defined type, or the block is not one
    /// of whole chunks inside the variable.
    pub fn write_block(&self, name: &str, start: &[u64], values: Values) -> Result<(), Error> {
        let target = self.target(name)?;
        self.check_values(target, values.element(), values.shape(), Some(start))?;
        let Some(array) = target.array.get() else {
            return Err(self.refuse(name, "texts are not written in blocks".to_owned()));
        };
        let shape: Vec<u64> = values.shape().iter().map(|&length| length as u64).collect();
        let subset = ArraySubset::new_with_start_shape(start.to_vec(), shape)
            .map_err(|error| self.refuse(name, error.to_string()))?;
        match values {
            Values::F32(values) => self.store(array, subset, values),
            Values::F64(values) => self.store(array, subset, values),
            Values::I64(values) => self.store(array, subset, values),
            Values::Text(_) => Err(self.refuse(name, "texts are not written in blocks".to_owned())),
        }
    }

    /// Writes the metadata, the group's own last. Before, no reader can open the store.
    ///
    /// # Errors
    /// [`Error::Definition`] if a chunk of a variable has not been written.
    pub fn finish(self) -> Result<(), Error> {
        let mut consolidated = Map::new();
        for (name, documents) in self.documents()? {
            for (file, document) in documents {
                self.write_json(&format!("{name}/{file}"), &document)?;
                let key = match self.format {
                    ZarrFormat::V2 => format!("{name}/{file}"),
                    ZarrFormat::V3 => name.clone(),
                };
                consolidated.insert(key, document);
            }
        }
        let attributes = Value::Object(self.attributes.clone());
        match self.format {
            ZarrFormat::V3 => self.write_json(
                "zarr.json",
                &json!({
                    "attributes": attributes,
                    "zarr_format": 3,
                    "consolidated_metadata": {
                        "kind": "inline",
                        "must_understand": false,
                        "metadata": consolidated,
                    },
                    "node_type": "group",
                }),
            ),
            ZarrFormat::V2 => {
                let group = json!({"zarr_format": 2});
                consolidated.insert(".zattrs".to_owned(), attributes.clone());
                consolidated.insert(".zgroup".to_owned(), group.clone());
                self.write_json(".zattrs", &attributes)?;
                self.write_json(".zgroup", &group)?;
                let consolidated = json!({"metadata": consolidated, "zarr_consolidated_format": 1});
                self.write_json(".zmetadata", &consolidated)
            }
        }
    }
}

/// The metadata files of one array with their content.
type Documents = Vec<(&'static str, Value)>;

impl Writer {
    /// The metadata of each array, once all of its chunks are there.
    fn documents(&self) -> Result<BTreeMap<String, Documents>, Error> {
        let mut documents = BTreeMap::new();
        for (name, target) in &self.variables {
            let Some(array) = target.array.get() else {
                return Err(self.refuse(name, "its texts have not been written".to_owned()));
            };
            self.check_chunks(name, array)?;
            let (definition, longest) = (&target.definition, characters(array));
            let of_array = match self.format {
                ZarrFormat::V3 => vec![("zarr.json", document_v3(definition, longest))],
                ZarrFormat::V2 => vec![
                    (".zarray", document_v2(definition, longest)),
                    (".zattrs", Value::Object(attributes_v2(definition))),
                ],
            };
            documents.insert(name.clone(), of_array);
        }
        for (name, target) in &self.stored {
            self.check_chunks(name, &target.array)?;
            let definition = &target.definition;
            let of_array = match self.format {
                ZarrFormat::V3 => vec![("zarr.json", definition.document_v3())],
                ZarrFormat::V2 => vec![
                    (".zarray", definition.document_v2()),
                    (".zattrs", Value::Object(definition.attributes_v2())),
                ],
            };
            documents.insert(name.clone(), of_array);
        }
        Ok(documents)
    }

    fn check_chunks(&self, name: &str, array: &Array<FilesystemStore>) -> Result<(), Error> {
        for chunk in &ArraySubset::new_with_shape(array.chunk_grid_shape().to_vec()).indices() {
            let key = array.chunk_key(&chunk);
            if !self.path.join(key.as_str()).is_file() {
                return Err(self.refuse(name, format!("its chunk `{key}` has not been written")));
            }
        }
        Ok(())
    }

    /// Why a variable cannot stand beside those that are defined already.
    pub(crate) fn check_against_others(
        &self,
        name: &str,
        dims: &[String],
        shape: &[u64],
    ) -> Result<(), String> {
        let decoded = self.variables.values().map(|target| {
            let definition = &target.definition;
            (&definition.name, &definition.dims, &definition.shape)
        });
        let stored = self.stored.values().map(|target| {
            let definition = &target.definition;
            (&definition.name, &definition.dims, &definition.shape)
        });
        for (other, other_dims, other_shape) in decoded.chain(stored) {
            if other == name {
                return Err("it is defined already".to_owned());
            }
            for (dim, length) in dims.iter().zip(shape) {
                let same = other_dims.iter().position(|other| other == dim);
                if let Some(other_length) = same.map(|index| other_shape[index])
                    && other_length != *length
                {
                    return Err(format!(
                        "its dimension `{dim}` has the length {length}, but {other_length} in `{other}`"
                    ));
                }
            }
        }
        Ok(())
    }

    fn target(&self, name: &str) -> Result<&Target, Error> {
        self.variables
            .get(name)
            .ok_or_else(|| self.refuse(name, "it has not been defined".to_owned()))
    }

    /// Checks the type and shape of values against a definition; `start` of a block, none of a
    /// whole variable.
    fn check_values(
        &self,
        target: &Target,
        element: Element,
        shape: &[usize],
        start: Option<&[u64]>,
    ) -> Result<(), Error> {
        let definition = &target.definition;
        let refuse = |reason: String| Err(self.refuse(&definition.name, reason));
        if element != definition.element {
            return refuse(format!(
                "the values are {}, but it is defined as {}",
                element.name(),
                definition.element.name()
            ));
        }
        let shape: Vec<u64> = shape.iter().map(|&length| length as u64).collect();
        let Some(start) = start else {
            if shape == definition.shape {
                return Ok(());
            }
            return refuse(format!(
                "the values have the shape {shape:?}, but it is defined with {:?}",
                definition.shape
            ));
        };
        if shape.len() != definition.shape.len() || start.len() != definition.shape.len() {
            return refuse(format!(
                "the block has {} dimensions, but it is defined with {}",
                shape.len(),
                definition.shape.len()
            ));
        }
        for (index, (&length, &chunk)) in
            definition.shape.iter().zip(&definition.chunks).enumerate()
        {
            let end = start[index].saturating_add(shape[index]);
            let is_aligned = start[index].is_multiple_of(chunk)
                && (end == length || (end < length && end.is_multiple_of(chunk)));
            if !is_aligned {
                return refuse(format!(
                    "the block {}..{end} of the dimension `{}` of length {length} does not \
                     consist of whole chunks of {chunk}",
                    start[index], definition.dims[index]
                ));
            }
        }
        Ok(())
    }

    /// The array of a variable; `characters` is the length of the longest text, of texts.
    fn array(
        &self,
        definition: &Definition,
        characters: usize,
    ) -> Result<Array<FilesystemStore>, Error> {
        let refuse = |reason: String| self.refuse(&definition.name, reason);
        let metadata = match self.format {
            ZarrFormat::V2 => {
                // `zarrs` wants a fill value for texts; xarray must not see one.
                let mut document = document_v2(definition, characters);
                if definition.element == Element::Text {
                    document["fill_value"] = json!("");
                }
                serde_json::from_value(document).map(ArrayMetadata::V2)
            }
            ZarrFormat::V3 => {
                serde_json::from_value(document_v3(definition, characters)).map(ArrayMetadata::V3)
            }
        };
        let metadata = metadata.map_err(|error| refuse(error.to_string()))?;
        let path = format!("/{}", definition.name);
        Array::new_with_metadata(Arc::clone(&self.storage), &path, metadata)
            .map_err(|error| refuse(error.to_string()))
    }

    /// Writes every chunk of a part, those of nothing but fill values too, so that a missing file
    /// always means a missing chunk.
    fn store<'a>(
        &self,
        array: &Array<FilesystemStore>,
        subset: ArraySubset,
        values: impl IntoArrayBytes<'a>,
    ) -> Result<(), Error> {
        let options = CodecOptions::default().with_store_empty_chunks(true);
        array
            .store_array_subset_opt(&subset, values, &options)
            .map_err(|error| Error::Write {
                path: self
                    .path
                    .join(array.path().as_str().trim_start_matches('/')),
                reason: error.to_string(),
            })
    }

    fn write_json(&self, key: &str, document: &Value) -> Result<(), Error> {
        let path = self.path.join(key);
        let write = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut file = File::create(&path)?;
            file.write_all(&serde_json::to_vec_pretty(document)?)?;
            file.sync_all()
        };
        write().map_err(|error| Error::Write {
            path: path.clone(),
            reason: error.to_string(),
        })
    }

    pub(crate) fn refuse(&self, name: &str, reason: String) -> Error {
        Error::Definition {
            path: self.path.clone(),
            name: name.to_owned(),
            reason,
        }
    }
}

/// The length of the longest text that an array of texts holds.
fn characters(array: &Array<FilesystemStore>) -> usize {
    array.data_type().fixed_size().unwrap_or(0) / 4
}

/// Texts as UTF-32 code points, each padded to the same length.
fn utf32(texts: &ArrayD<String>, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(texts.len() * length * 4);
    for text in texts {
        let mut count = 0;
        for character in text.chars() {
            bytes.extend_from_slice(&u32::from(character).to_ne_bytes());
            count += 1;
        }
        bytes.resize(bytes.len() + 4 * (length - count), 0);
    }
    bytes
}

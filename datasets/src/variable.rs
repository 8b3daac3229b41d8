//! One array of a group, read as a whole or in part.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use zarrs::array::{Array, ArrayMetadata, ArrayShardedExt, ArraySubset};
use zarrs::filesystem::FilesystemStore;

use crate::decode::Decoding;
use crate::documents::ENCODING_ATTRIBUTES;
use crate::form::Form;
use crate::group::ArrayDocument;
use crate::stored::Stored;
use crate::{Element, Error, Values, ZarrFormat, chunks};

/// The attribute of version 2 in which xarray keeps dimension names.
pub(crate) const DIMENSIONS: &str = "_ARRAY_DIMENSIONS";

/// Values read at once may take this much memory.
const MAX_READ_BYTES: u64 = 16 << 30;

/// A chunk may take this much memory, decoded.
const MAX_CHUNK_BYTES: u64 = 4 << 30;

/// A read may touch this many chunks.
const MAX_CHUNKS: u64 = 1_000_000;

/// A labelled array in a Zarr group. Nothing is read until asked for.
pub struct Variable {
    store: PathBuf,
    name: String,
    dims: Vec<String>,
    attributes: Map<String, Value>,
    decoding: Decoding,
    array: Array<FilesystemStore>,
    is_zstd: bool,
    form: Option<Form>,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variable")
            .field("name", &self.name)
            .field("dims", &self.dims)
            .field("shape", &self.shape())
            .field("element", &self.element())
            .finish_non_exhaustive()
    }
}

impl Variable {
    /// The variable that metadata describes, or why it cannot be read.
    pub(crate) fn new(
        store: &Path,
        name: &str,
        format: ZarrFormat,
        array: ArrayDocument,
        storage: Arc<FilesystemStore>,
    ) -> Result<Self, String> {
        let ArrayDocument {
            mut document,
            mut attributes,
        } = array;
        let stored = Stored::take(format, &mut document)?;
        let decoding = Decoding::new(stored, format, &document, &attributes)?;
        let names = match format {
            ZarrFormat::V2 => attributes.remove(DIMENSIONS),
            ZarrFormat::V3 => document.get("dimension_names").cloned(),
        };
        let is_zstd = chunks::is_zstd(format, &document);
        let form = Form::of(stored, format, &document, &attributes);
        let metadata = match format {
            ZarrFormat::V2 => serde_json::from_value(document).map(ArrayMetadata::V2),
            ZarrFormat::V3 => serde_json::from_value(document).map(ArrayMetadata::V3),
        };
        let metadata = metadata.map_err(|error| format!("its metadata is not valid: {error}"))?;
        let array = Array::new_with_metadata(storage, &format!("/{name}"), metadata)
            .map_err(|error| error.to_string())?;
        let dims = dimension_names(names, array.shape().len())?;
        Ok(Self {
            store: store.to_owned(),
            name: name.to_owned(),
            dims,
            attributes,
            decoding,
            array,
            is_zstd,
            form,
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its store.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The names of the dimensions.
    pub fn dims(&self) -> &[String] {
        &self.dims
    }

    /// The length of each dimension.
    pub fn shape(&self) -> &[u64] {
        self.array.shape()
    }

    /// The attributes as stored, without the dimension names of version 2.
    pub fn attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    /// The attributes that describe the decoded values: without those of their encoding, such as
    /// `_FillValue` and `scale_factor`. A [`Writer`](crate::Writer) takes these.
    pub fn decoded_attributes(&self) -> Map<String, Value> {
        decoded(&self.attributes)
    }

    /// The attributes of a coordinate that is copied elsewhere: decoded, and without those that name
    /// other variables.
    pub fn plain_attributes(&self) -> Map<String, Value> {
        plain(&self.attributes)
    }

    /// An attribute that is a text, such as `units`.
    pub fn text_attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).and_then(Value::as_str)
    }

    /// The type of the values after decoding.
    pub fn element(&self) -> Element {
        self.decoding.element()
    }

    /// The length of each dimension of a chunk; of the first one where they differ.
    pub fn chunk_shape(&self) -> Vec<u64> {
        match self.array.chunk_shape(&vec![0; self.dims.len()]) {
            Ok(shape) => shape.iter().map(|length| length.get()).collect(),
            // An array without elements has no chunks.
            Err(_) => self.shape().to_vec(),
        }
    }

    /// How its numbers are stored; none of texts and of NumPy's own times.
    pub fn form(&self) -> Option<&Form> {
        self.form.as_ref()
    }

    /// How many chunks there are along each dimension; of files, where chunks are in shards.
    pub fn chunk_counts(&self) -> &[u64] {
        self.array.chunk_grid_shape()
    }

    /// The length of each dimension of a chunk inside of a shard; none without shards.
    pub fn inner_chunk_shape(&self) -> Option<Vec<u64>> {
        let shape = self.array.subchunk_shape()?;
        Some(shape.iter().map(|length| length.get()).collect())
    }

    /// The file of a chunk, and where it would be if it was never written.
    pub fn chunk_file(&self, chunk: &[u64]) -> PathBuf {
        self.chunk_path(chunk)
    }

    /// The numbers of a chunk as they are stored, in the byte order of the machine: a whole chunk, also where the
    /// variable ends within it; the fill value where it was never written.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_stored_chunk(&self, chunk: &[u64]) -> Result<Vec<u8>, Error> {
        let lengths = self.chunk_shape();
        let ranges: Vec<Range<u64>> = chunk
            .iter()
            .zip(&lengths)
            .zip(self.shape())
            .map(|((&at, &length), &end)| (at * length).min(end)..((at + 1) * length).min(end))
            .collect();
        self.check_size(&ranges)?;
        self.check_frames(&ArraySubset::new_with_ranges(&ranges))?;
        let corrupt = |reason: String| self.corrupt(self.chunk_path(chunk), reason);
        let bytes = chunks::retrieve_chunk(&self.array, chunk).map_err(corrupt)?;
        let bytes = bytes
            .into_fixed()
            .map_err(|error| corrupt(error.to_string()))?;
        Ok(bytes.into_owned())
    }

    /// The numbers in a range of each dimension as they are stored, in the byte order of the machine.
    ///
    /// # Errors
    /// As [`Self::read_range`].
    pub fn read_stored_range(&self, ranges: &[Range<u64>]) -> Result<Vec<u8>, Error> {
        let subset = self.checked(ranges)?;
        let bytes = chunks::retrieve(&self.array, &subset)
            .map_err(|reason| self.name_chunk(&subset, reason))?;
        let bytes = bytes
            .into_fixed()
            .map_err(|error| self.unreadable(error.to_string()))?;
        Ok(bytes.into_owned())
    }

    pub(crate) fn stored(&self) -> Stored {
        self.decoding.stored()
    }

    /// All values. Chunks that are not there hold the array's fill value, as Zarr defines.
    ///
    /// # Errors
    /// [`Error::Chunk`] for a chunk that is there but cannot be decoded, [`Error::TooLarge`] for
    /// more than 16 GiB.
    pub fn read(&self) -> Result<Values, Error> {
        let all: Vec<Range<u64>> = self.shape().iter().map(|&length| 0..length).collect();
        self.read_range(&all)
    }

    /// How many of the chunks were never written. They read as the fill value, which is what a
    /// writer may have meant, or the mark of one that died.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for more chunks than could sensibly be files.
    pub fn missing_chunks(&self) -> Result<u64, Error> {
        let grid = self.array.chunk_grid_shape();
        if product(grid).is_none_or(|count| count > MAX_CHUNKS) {
            return Err(Error::TooLarge {
                path: self.store.clone(),
                name: self.name.clone(),
                what: format!("{} chunks, more than {MAX_CHUNKS}", shape_text(grid)),
            });
        }
        let chunks = ArraySubset::new_with_shape(self.array.chunk_grid_shape().to_vec());
        let is_missing = |chunk: &[u64]| {
            let key = self.array.chunk_key(chunk);
            !self.store.join(key.as_str()).is_file()
        };
        let missing = chunks
            .indices()
            .into_iter()
            .filter(|chunk| is_missing(chunk));
        Ok(missing.count() as u64)
    }

    /// The values in a range of each dimension; only the chunks that hold some are read.
    ///
    /// # Errors
    /// [`Error::Range`] unless there is one range per dimension, inside the shape; otherwise as
    /// [`Self::read`].
    pub fn read_range(&self, ranges: &[Range<u64>]) -> Result<Values, Error> {
        let subset = self.checked(ranges)?;
        let shape: Vec<usize> = ranges
            .iter()
            .map(|range| (range.end - range.start) as usize)
            .collect();
        let bytes = chunks::retrieve(&self.array, &subset)
            .map_err(|reason| self.name_chunk(&subset, reason))?;
        self.decoding
            .decode(bytes, &shape)
            .map_err(|reason| self.unreadable(reason))
    }

    /// The part of these ranges, if it can be read.
    fn checked(&self, ranges: &[Range<u64>]) -> Result<ArraySubset, Error> {
        let is_inside = ranges.len() == self.shape().len()
            && ranges
                .iter()
                .zip(self.shape())
                .all(|(range, &length)| range.start <= range.end && range.end <= length);
        if !is_inside {
            return Err(Error::Range {
                path: self.store.clone(),
                name: self.name.clone(),
                range: format!("{ranges:?}"),
                shape: self.shape().to_vec(),
            });
        }
        self.check_size(ranges)?;
        let subset = ArraySubset::new_with_ranges(ranges);
        self.check_frames(&subset)?;
        Ok(subset)
    }

    /// Refuses zstd frames that claim to hold more than their chunk.
    fn check_frames(&self, subset: &ArraySubset) -> Result<(), Error> {
        if !self.is_zstd {
            return Ok(());
        }
        let limit = match (self.stored().size(), product(&self.chunk_shape())) {
            (Some(size), Some(values)) => size.saturating_mul(values).saturating_add(1 << 20),
            _ => MAX_CHUNK_BYTES,
        };
        for chunk in self.chunks(subset) {
            let path = self.chunk_path(&chunk);
            if let Some(length) = chunks::zstd_length(&path).filter(|&length| length > limit) {
                let reason = format!("it claims to hold {length} bytes");
                return Err(self.corrupt(path, reason));
            }
        }
        Ok(())
    }

    /// Refuses to allocate what corrupt metadata may claim.
    fn check_size(&self, ranges: &[Range<u64>]) -> Result<(), Error> {
        let lengths: Vec<u64> = ranges.iter().map(|range| range.end - range.start).collect();
        let stored = self.stored().size().unwrap_or(8);
        let chunk = self.chunk_shape();
        let chunk_values = product(&chunk);
        let values = product(&lengths);
        let touched = |(&length, &chunk): (&u64, &u64)| length / chunk.max(1) + 1;
        let chunks = product(
            &lengths
                .iter()
                .zip(&chunk)
                .map(touched)
                .collect::<Vec<u64>>(),
        );
        let is_beyond = |count: Option<u64>, size: u64, limit: u64| {
            count
                .and_then(|count| count.checked_mul(size))
                .is_none_or(|bytes| bytes > limit)
        };
        let what = if is_beyond(values, stored.max(self.element().size()), MAX_READ_BYTES) {
            format!("{} values are more than 16 GiB", shape_text(&lengths))
        } else if is_beyond(chunk_values, stored, MAX_CHUNK_BYTES) {
            format!(
                "chunks of {} values are more than 4 GiB",
                shape_text(&chunk)
            )
        } else if is_beyond(chunks, 1, MAX_CHUNKS) {
            format!(
                "chunks of {} values make more than {MAX_CHUNKS} chunks",
                shape_text(&chunk)
            )
        } else {
            return Ok(());
        };
        Err(Error::TooLarge {
            path: self.store.clone(),
            name: self.name.clone(),
            what,
        })
    }

    /// Finds the chunk that made reading a part fail, by reading its chunks one by one.
    fn name_chunk(&self, subset: &ArraySubset, reason: String) -> Error {
        for chunk in self.chunks(subset) {
            if let Err(reason) = chunks::try_chunk(&self.array, &chunk) {
                return self.corrupt(self.chunk_path(&chunk), reason);
            }
        }
        self.unreadable(reason)
    }

    /// The indices of the chunks that hold values of a part.
    fn chunks(&self, subset: &ArraySubset) -> Vec<Vec<u64>> {
        match self.array.chunks_in_array_subset(subset) {
            Ok(Some(chunks)) => chunks
                .indices()
                .iter()
                .map(|chunk| chunk.to_vec())
                .collect(),
            _ => Vec::new(),
        }
    }

    fn chunk_path(&self, chunk: &[u64]) -> PathBuf {
        self.store.join(self.array.chunk_key(chunk).as_str())
    }

    fn corrupt(&self, path: PathBuf, reason: String) -> Error {
        Error::Chunk {
            path,
            name: self.name.clone(),
            reason,
        }
    }

    fn unreadable(&self, reason: String) -> Error {
        Error::Unreadable {
            path: self.store.clone(),
            name: self.name.clone(),
            reason,
        }
    }
}

/// The number of values in a shape; `None` beyond 64 bits.
pub(crate) fn decoded(attributes: &Map<String, Value>) -> Map<String, Value> {
    let mut attributes = attributes.clone();
    attributes.retain(|name, _| !ENCODING_ATTRIBUTES.contains(&name.as_str()));
    attributes
}

/// Attributes without those of the encoding and those that name other variables.
pub(crate) fn plain(attributes: &Map<String, Value>) -> Map<String, Value> {
    const LEFT_OUT: [&str; 4] = ["coordinates", "bounds", "grid_mapping", "dtype"];
    let mut attributes = decoded(attributes);
    attributes.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    attributes
}

pub(crate) fn product(lengths: &[u64]) -> Option<u64> {
    if lengths.contains(&0) {
        return Some(0);
    }
    lengths
        .iter()
        .try_fold(1, |product: u64, &length| product.checked_mul(length))
}

/// A shape as people read it: `60 × 28 × 30`.
fn shape_text(lengths: &[u64]) -> String {
    lengths
        .iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(" × ")
}

/// The names of an array's dimensions, all of which must be there.
fn dimension_names(names: Option<Value>, dimensions: usize) -> Result<Vec<String>, String> {
    let names = match names {
        None | Some(Value::Null) if dimensions == 0 => return Ok(Vec::new()),
        Some(Value::Array(names)) => names,
        _ => return Err("it has no dimension names, as xarray writes them".to_owned()),
    };
    let names: Option<Vec<String>> = names
        .iter()
        .map(|name| name.as_str().map(str::to_owned))
        .collect();
    match names {
        Some(names) if names.len() == dimensions => Ok(names),
        Some(names) => Err(format!(
            "it has {dimensions} dimensions but {} names of them",
            names.len()
        )),
        None => Err("one of its dimensions has no name".to_owned()),
    }
}

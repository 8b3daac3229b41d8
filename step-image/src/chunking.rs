//! How the variables of a new store are divided: what the options `--chunk`, `--shard` and `--compression` say.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use clap::ValueEnum;
use mlwm_datasets::{Compressor, Form, StoredDefinition, Variable, ZarrFormat};

use crate::Fault;

/// Lengths by dimension: `time=10,x=-1`, where -1 is the whole dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lengths(BTreeMap<String, Option<u64>>);

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lengths = BTreeMap::new();
        for part in text.split(',') {
            let expected = || {
                format!(
                    "`{part}` is not a length: write `time=10`, or `time=-1` for the whole dimension"
                )
            };
            let (dim, length) = part.split_once('=').ok_or_else(expected)?;
            let length = match length.trim() {
                "-1" => None,
                length => Some(
                    length
                        .parse()
                        .ok()
                        .filter(|&length| length > 0)
                        .ok_or_else(expected)?,
                ),
            };
            if lengths.insert(dim.trim().to_owned(), length).is_some() {
                return Err(format!("`{dim}` is there twice"));
            }
        }
        Ok(Self(lengths))
    }
}

impl Lengths {
    /// Refuses dimensions that no variable has.
    pub(crate) fn check<'a>(
        &self,
        store: &Path,
        variables: impl Iterator<Item = &'a Variable>,
    ) -> Result<(), Fault> {
        let dims: std::collections::BTreeSet<&str> = variables
            .flat_map(|variable| variable.dims())
            .map(String::as_str)
            .collect();
        match self.0.keys().find(|dim| !dims.contains(dim.as_str())) {
            Some(dim) => Err(Fault::Usage(format!(
                "no variable of {} has the dimension `{dim}`; there are: {}",
                store.display(),
                dims.into_iter().collect::<Vec<_>>().join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// The dimensions that have one.
    pub(crate) fn dims(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The length along a dimension that is as long as `whole`, if it has one.
    pub(crate) fn of(&self, dim: &str, whole: u64) -> Option<u64> {
        self.0.get(dim).map(|length| length.unwrap_or(whole))
    }
}

/// How the chunks of a new store are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Zstandard after a shuffle of bits (blosc).
    Small,
    /// LZ4 after a shuffle of bits (blosc).
    Fast,
    /// Not at all.
    None,
}

impl From<Compression> for Compressor {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Small => Self::SMALL,
            Compression::Fast => Self::FAST,
            Compression::None => Self::Raw,
        }
    }
}

/// A version of the Zarr format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Version 2.
    #[value(name = "2")]
    V2,
    /// Version 3.
    #[value(name = "3")]
    V3,
}

impl From<Format> for ZarrFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::V2 => Self::V2,
            Format::V3 => Self::V3,
        }
    }
}

/// What the options say of a new store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunking {
    pub(crate) chunk: Lengths,
    pub(crate) shard: Option<Lengths>,
    /// As in the store that is read if there is none.
    pub(crate) compression: Option<Compression>,
    /// The dimension that grows: its chunks may be longer than it is.
    pub(crate) growing: Option<String>,
}

impl Chunking {
    /// How a variable is written that is read from another, with another shape. `form` none of those with texts.
    pub(crate) fn definition(
        &self,
        name: &str,
        variable: &Variable,
        form: &Form,
        shape: &[u64],
    ) -> Result<StoredDefinition, Fault> {
        let source = variable
            .inner_chunk_shape()
            .unwrap_or_else(|| variable.chunk_shape());
        let dims = variable.dims();
        let length = |axis: usize, asked: Option<u64>, default: u64| {
            let whole = shape[axis].max(1);
            let length = asked.unwrap_or(default).max(1);
            match self.growing.as_ref() == Some(&dims[axis]) {
                true => length,
                false => length.min(whole),
            }
        };
        let chunks: Vec<u64> = (0..dims.len())
            .map(|axis| length(axis, self.chunk.of(&dims[axis], shape[axis]), source[axis]))
            .collect();
        let shards = match &self.shard {
            // A variable that is but one chunk needs none.
            Some(shard) if dims.iter().any(|dim| shard.0.contains_key(dim)) => {
                let each = (0..dims.len()).map(|axis| {
                    let asked = shard.of(&dims[axis], shape[axis]).unwrap_or(chunks[axis]);
                    let whole = shape[axis].max(1).next_multiple_of(chunks[axis]);
                    match shard.0.get(&dims[axis]) {
                        Some(None) => Ok(whole),
                        _ if asked.is_multiple_of(chunks[axis]) => Ok(asked),
                        _ if asked >= whole => Ok(whole),
                        _ => Err(Fault::Usage(format!(
                            "shards of {asked} along `{}` of `{name}` do not consist of whole chunks of {}",
                            dims[axis], chunks[axis]
                        ))),
                    }
                });
                Some(each.collect::<Result<_, _>>()?)
            }
            _ => None,
        };
        let kept = || form.compressor().unwrap_or(Compressor::SMALL);
        Ok(StoredDefinition {
            name: name.to_owned(),
            dims: dims.to_vec(),
            shape: shape.to_vec(),
            chunks,
            shards,
            form: form.clone(),
            compressor: self.compression.map_or_else(kept, Into::into),
            attributes: attributes_as_stored(variable),
        })
    }
}

/// The attributes of a variable without the one that its form holds.
pub(crate) fn attributes_as_stored(
    variable: &Variable,
) -> serde_json::Map<String, serde_json::Value> {
    let mut attributes = variable.attributes().clone();
    attributes.retain(|name, _| name != "_FillValue");
    attributes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_numbers_by_dimension() {
        let lengths: Lengths = "time=10, x=-1".parse().unwrap();
        assert_eq!(lengths.of("time", 99), Some(10));
        assert_eq!(lengths.of("x", 99), Some(99));
        assert_eq!(lengths.of("y", 99), None);
        for bad in ["", "time", "time=0", "time=-2", "time=1.5", "time=1,time=2"] {
            assert!(bad.parse::<Lengths>().is_err(), "{bad}");
        }
    }
}

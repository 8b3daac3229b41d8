//! How the numbers of an array are stored, apart from their chunks: so that they can be stored again elsewhere,
//! bit by bit, in either version of the Zarr format.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::decode::declared_fill;
use crate::stored::Stored;
use crate::variable::DIMENSIONS;
use crate::{Definition, ZarrFormat};

/// Blosc compresses at most this many bytes at once.
const MAX_BLOSC_BYTES: u64 = (2 << 30) - 64;

/// The numbers of an array as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    stored: Stored,
    /// What means "missing" to xarray: a number, or a float in text where JSON has none.
    missing: Option<Value>,
    /// How its chunks are compressed; none where it is not one of [`Compressor`].
    compressor: Option<Compressor>,
}

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// Not at all.
    Raw,
    /// Blosc.
    Blosc {
        /// What is compressed with after the shuffle.
        codec: BloscCodecName,
        /// From 0 to 9.
        level: u8,
        /// 0: none, 1: of bytes, 2: of bits.
        shuffle: u8,
    },
    /// Zstandard alone.
    Zstd {
        /// From -131072 to 22.
        level: i32,
    },
}

/// The codecs inside of blosc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BloscCodecName {
    Zstd,
    Lz4,
    Lz4hc,
    Zlib,
    Blosclz,
}

impl Compressor {
    /// Small: what [`Writer`](crate::Writer) writes elsewhere.
    pub const SMALL: Self = Self::Blosc {
        codec: BloscCodecName::Zstd,
        level: 3,
        shuffle: 2,
    };
    /// Fast: of values that were packed in few bits, chunks are hardly larger than with [`Self::SMALL`], and are
    /// compressed several times as fast.
    pub const FAST: Self = Self::Blosc {
        codec: BloscCodecName::Lz4,
        level: 5,
        shuffle: 2,
    };

    fn of(format: ZarrFormat, document: &Value) -> Option<Self> {
        match format {
            ZarrFormat::V2 => match document.get("compressor") {
                None | Some(Value::Null) => Some(Self::Raw),
                Some(compressor) => Self::parse(compressor.get("id")?.as_str()?, compressor),
            },
            ZarrFormat::V3 => {
                let codecs = document.get("codecs")?.as_array()?;
                if codecs.first()?.get("name")?.as_str()? == "sharding_indexed" {
                    return Self::of(format, codecs.first()?.get("configuration")?);
                }
                let last = codecs.last()?;
                match last.get("name")?.as_str()? {
                    "bytes" => Some(Self::Raw),
                    name => Self::parse(name, last.get("configuration")?),
                }
            }
        }
    }

    fn parse(name: &str, configuration: &Value) -> Option<Self> {
        let number = |key: &str| configuration.get(key).and_then(Value::as_i64);
        match name {
            "zstd" => Some(Self::Zstd {
                level: i32::try_from(number("level").unwrap_or(0)).ok()?,
            }),
            "blosc" => Some(Self::Blosc {
                codec: match configuration.get("cname")?.as_str()? {
                    "zstd" => BloscCodecName::Zstd,
                    "lz4" => BloscCodecName::Lz4,
                    "lz4hc" => BloscCodecName::Lz4hc,
                    "zlib" => BloscCodecName::Zlib,
                    "blosclz" => BloscCodecName::Blosclz,
                    _ => return None,
                },
                level: u8::try_from(number("clevel")?).ok()?,
                shuffle: match configuration.get("shuffle")? {
                    Value::String(name) => match name.as_str() {
                        "noshuffle" => 0,
                        "shuffle" => 1,
                        "bitshuffle" => 2,
                        _ => return None,
                    },
                    // -1: of bits where values have one byte, else of bytes.
                    number => u8::try_from(number.as_i64()?).unwrap_or(1),
                },
            }),
            _ => None,
        }
    }

    pub(crate) fn document(self, format: ZarrFormat, size: u64) -> Option<Value> {
        let (name, mut configuration) = match self {
            Self::Raw => return None,
            Self::Zstd { level } => ("zstd", Map::from_iter([("level".to_owned(), json!(level))])),
            Self::Blosc {
                codec,
                level,
                shuffle,
            } => {
                let codec = match codec {
                    BloscCodecName::Zstd => "zstd",
                    BloscCodecName::Lz4 => "lz4",
                    BloscCodecName::Lz4hc => "lz4hc",
                    BloscCodecName::Zlib => "zlib",
                    BloscCodecName::Blosclz => "blosclz",
                };
                let shuffled = ["noshuffle", "shuffle", "bitshuffle"][usize::from(shuffle.min(2))];
                let shuffle = match format {
                    ZarrFormat::V2 => json!(shuffle),
                    ZarrFormat::V3 => json!(shuffled),
                };
                let document = [
                    ("cname", json!(codec)),
                    ("clevel", json!(level)),
                    ("shuffle", shuffle),
                    ("blocksize", json!(0)),
                ];
                let document = document.map(|(key, value)| (key.to_owned(), value));
                ("blosc", Map::from_iter(document))
            }
        };
        Some(match format {
            ZarrFormat::V2 => {
                configuration.shift_insert(0, "id".to_owned(), json!(name));
                Value::Object(configuration)
            }
            ZarrFormat::V3 => {
                match self {
                    Self::Blosc { .. } => {
                        configuration.shift_insert(0, "typesize".to_owned(), json!(size))
                    }
                    _ => configuration.insert("checksum".to_owned(), json!(false)),
                };
                json!({"name": name, "configuration": configuration})
            }
        })
    }
}

impl Form {
    /// The form of an array with this metadata; none of texts and of NumPy's times.
    pub(crate) fn of(
        stored: Stored,
        format: ZarrFormat,
        document: &Value,
        attributes: &Map<String, Value>,
    ) -> Option<Self> {
        if !matches!(
            stored,
            Stored::Bool | Stored::Int { .. } | Stored::Float { .. }
        ) {
            return None;
        }
        Some(Self {
            stored,
            missing: declared_fill(stored, format, document, attributes),
            compressor: Compressor::of(format, document),
        })
    }

    /// 64-bit integers in which nothing is missing.
    pub fn int64() -> Self {
        Self {
            stored: Stored::Int {
                bytes: 8,
                signed: true,
            },
            missing: None,
            compressor: None,
        }
    }

    /// The type of the values as NumPy names it: `float32`, `int16`, `bool`.
    pub fn type_name(&self) -> String {
        match self.stored {
            Stored::Bool => "bool".to_owned(),
            Stored::Int { bytes, signed } => {
                format!("{}int{}", if signed { "" } else { "u" }, 8 * bytes)
            }
            Stored::Float { bytes } => format!("float{}", 8 * bytes),
            _ => unreachable!("only numbers have a form"),
        }
    }

    /// The value that stands for "missing", for messages.
    pub fn missing(&self) -> Option<&Value> {
        self.missing.as_ref()
    }

    /// How the chunks are compressed, if that can be written again.
    pub fn compressor(&self) -> Option<Compressor> {
        self.compressor
    }

    /// The size of one value in bytes.
    pub fn size(&self) -> u64 {
        self.stored.size().unwrap_or(8)
    }

    /// Whether both hold the same numbers: the type and what is missing, not the compression.
    pub fn holds_the_same(&self, other: &Self) -> bool {
        self.stored == other.stored && self.missing == other.missing
    }
}

/// A variable to write chunk by chunk, its numbers as they are stored.
#[derive(Clone, Debug)]
pub struct StoredDefinition {
    /// Its name.
    pub name: String,
    /// The names of its dimensions.
    pub dims: Vec<String>,
    /// The length of each dimension.
    pub shape: Vec<u64>,
    /// The length of each dimension of a chunk.
    pub chunks: Vec<u64>,
    /// The length of each dimension of a shard: whole chunks, in one file.
    pub shards: Option<Vec<u64>>,
    /// How the numbers are stored.
    pub form: Form,
    /// How chunks are compressed.
    pub compressor: Compressor,
    /// All attributes, with those that say how the numbers are to be decoded, without `_FillValue`.
    pub attributes: Map<String, Value>,
}

impl StoredDefinition {
    /// The length of each dimension of a file.
    pub fn file_chunks(&self) -> &[u64] {
        self.shards.as_ref().unwrap_or(&self.chunks)
    }

    /// Why it cannot be written.
    pub(crate) fn check(&self, format: ZarrFormat) -> Result<(), String> {
        let files = Definition {
            name: self.name.clone(),
            dims: self.dims.clone(),
            shape: self.shape.clone(),
            chunks: self.chunks.clone(),
            element: crate::Element::F32,
            attributes: Map::new(),
            compressor: self.compressor,
        };
        crate::documents::check_names(&files)?;
        let bytes = |lengths: &[u64]| {
            lengths
                .iter()
                .try_fold(self.form.size(), |bytes, &length| bytes.checked_mul(length))
        };
        if self.chunks.contains(&0) {
            return Err("a chunk length is zero".to_owned());
        }
        if bytes(&self.chunks).is_none_or(|bytes| bytes > MAX_BLOSC_BYTES) {
            return Err("a chunk has more than 2 GiB".to_owned());
        }
        let Some(shards) = &self.shards else {
            return Ok(());
        };
        if format == ZarrFormat::V2 {
            return Err("version 2 of Zarr has no shards".to_owned());
        }
        let is_whole = |(shard, chunk): (&u64, &u64)| *shard > 0 && shard.is_multiple_of(*chunk);
        if shards.len() != self.chunks.len() || !shards.iter().zip(&self.chunks).all(is_whole) {
            return Err(format!(
                "shards of {shards:?} do not consist of whole chunks of {:?}",
                self.chunks
            ));
        }
        Ok(())
    }

    /// The metadata document of the array.
    pub fn document(&self, format: ZarrFormat) -> Value {
        match format {
            ZarrFormat::V2 => self.document_v2(),
            ZarrFormat::V3 => self.document_v3(),
        }
    }

    pub(crate) fn document_v3(&self) -> Value {
        let size = self.form.size();
        let bytes = match size {
            1 => json!({"name": "bytes"}),
            _ => json!({"name": "bytes", "configuration": {"endian": "little"}}),
        };
        let mut codecs = vec![bytes];
        codecs.extend(self.compressor.document(ZarrFormat::V3, size));
        if self.shards.is_some() {
            let little = json!({"name": "bytes", "configuration": {"endian": "little"}});
            codecs = vec![json!({"name": "sharding_indexed", "configuration": {
                "chunk_shape": self.chunks,
                "codecs": codecs,
                "index_codecs": [little, {"name": "crc32c"}],
                "index_location": "end",
            }})];
        }
        let mut attributes = self.attributes.clone();
        if let Some(missing) = &self.form.missing {
            attributes.insert("_FillValue".to_owned(), self.missing_attribute(missing));
        }
        let zero = match self.form.stored {
            Stored::Bool => json!(false),
            Stored::Float { .. } => json!(0.0),
            _ => json!(0),
        };
        json!({
            "shape": self.shape,
            "data_type": self.form.type_name(),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.file_chunks()}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self.form.missing.as_ref().unwrap_or(&zero),
            "codecs": codecs,
            "attributes": attributes,
            "dimension_names": self.dims,
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        })
    }

    /// As xarray writes it: of floats the bytes of a double in base64.
    fn missing_attribute(&self, missing: &Value) -> Value {
        if !matches!(self.form.stored, Stored::Float { .. }) {
            return missing.clone();
        }
        let value = match missing.as_str() {
            Some("Infinity") => f64::INFINITY,
            Some("-Infinity") => f64::NEG_INFINITY,
            Some(_) => f64::NAN,
            None => missing.as_f64().unwrap_or(f64::NAN),
        };
        json!(BASE64_STANDARD.encode(value.to_le_bytes()))
    }

    pub(crate) fn document_v2(&self) -> Value {
        let order = if self.form.size() == 1 { "|" } else { "<" };
        let kind = match self.form.stored {
            Stored::Bool => "b",
            Stored::Int { signed: true, .. } => "i",
            Stored::Int { .. } => "u",
            _ => "f",
        };
        json!({
            "shape": self.shape,
            "chunks": self.chunks,
            "dtype": format!("{order}{kind}{}", self.form.size()),
            "fill_value": self.form.missing,
            "order": "C",
            "filters": null,
            "dimension_separator": ".",
            "compressor": self.compressor.document(ZarrFormat::V2, self.form.size()),
            "zarr_format": 2,
        })
    }

    pub(crate) fn attributes_v2(&self) -> Map<String, Value> {
        let mut attributes = self.attributes.clone();
        attributes.insert(DIMENSIONS.to_owned(), json!(self.dims));
        attributes
    }
}

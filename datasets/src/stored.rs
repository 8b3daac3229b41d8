//! How the values of an array are stored, and its metadata in the form `zarrs` understands.

use serde_json::{Map, Value, json};

use crate::group::ZarrFormat;

/// The type of an array's values as stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stored {
    Bool,
    /// `bytes` wide.
    Int {
        bytes: u8,
        signed: bool,
    },
    /// `bytes` wide.
    Float {
        bytes: u8,
    },
    /// UTF-32 code points, padded with zeros.
    Utf32 {
        characters: u32,
    },
    /// UTF-8 bytes, padded with zeros.
    Bytes {
        length: u32,
    },
    /// Text of any length.
    Text,
    /// NumPy's `datetime64` or `timedelta64`: a count of units of this many nanoseconds.
    Time {
        nanoseconds: i64,
        is_duration: bool,
    },
}

impl Stored {
    /// The size of one value in bytes; none of text of any length.
    pub(crate) fn size(self) -> Option<u64> {
        match self {
            Self::Bool => Some(1),
            Self::Int { bytes, .. } | Self::Float { bytes } => Some(u64::from(bytes)),
            Self::Utf32 { characters } => Some(4 * u64::from(characters)),
            Self::Bytes { length } => Some(u64::from(length)),
            Self::Time { .. } => Some(8),
            Self::Text => None,
        }
    }

    /// Reads the type out of an array's metadata, and rewrites the few types that `zarrs` does
    /// not know to plain ones of the same bytes.
    pub(crate) fn take(format: ZarrFormat, document: &mut Value) -> Result<Self, String> {
        let Value::Object(document) = document else {
            return Err("its metadata is not an object".to_owned());
        };
        match format {
            ZarrFormat::V2 => Self::take_v2(document),
            ZarrFormat::V3 => Self::take_v3(document),
        }
    }

    fn take_v2(document: &mut Map<String, Value>) -> Result<Self, String> {
        let dtype = match document.get("dtype") {
            Some(Value::String(dtype)) => dtype.clone(),
            Some(_) => return Err("structured data types are not supported".to_owned()),
            None => return Err("its metadata has no `dtype`".to_owned()),
        };
        let unsupported = || format!("the data type `{dtype}` is not supported");
        let order = dtype.get(..1).ok_or_else(unsupported)?;
        let kind = dtype.get(1..2).ok_or_else(unsupported)?;
        let rest = dtype.get(2..).ok_or_else(unsupported)?;
        let size = || rest.parse::<u32>().map_err(|_| unsupported());
        let has_no_fill = matches!(document.get("fill_value"), None | Some(Value::Null));
        match kind {
            "b" => Ok(Self::Bool),
            "i" | "u" | "f" => number(kind, size()?).ok_or_else(unsupported),
            "U" => {
                let characters = size()?;
                if has_no_fill || document.get("fill_value") == Some(&json!(0)) {
                    document.insert("fill_value".to_owned(), json!(""));
                }
                Ok(Self::Utf32 { characters })
            }
            "S" => {
                let length = size()?;
                document.insert("dtype".to_owned(), json!(format!("|V{length}")));
                zero_bytes_fill(document, length)?;
                Ok(Self::Bytes { length })
            }
            "M" | "m" => {
                let unit = rest
                    .strip_prefix("8[")
                    .and_then(|rest| rest.strip_suffix(']'))
                    .ok_or_else(unsupported)?;
                let stored = time(unit, 1, kind == "m").ok_or_else(unsupported)?;
                document.insert("dtype".to_owned(), json!(format!("{order}i8")));
                not_a_time_fill(document);
                Ok(stored)
            }
            "O" => Ok(Self::Text),
            _ => Err(unsupported()),
        }
    }

    fn take_v3(document: &mut Map<String, Value>) -> Result<Self, String> {
        let (name, configuration) = match document.get("data_type") {
            Some(Value::String(name)) => (name.clone(), Value::Null),
            Some(Value::Object(object)) => (
                object
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
                object.get("configuration").cloned().unwrap_or_default(),
            ),
            _ => return Err("its metadata has no `data_type`".to_owned()),
        };
        let unsupported = || format!("the data type `{name}` is not supported");
        let length = || {
            let length = configuration.get("length_bytes").and_then(Value::as_u64);
            length
                .and_then(|length| u32::try_from(length).ok())
                .ok_or_else(|| format!("the data type `{name}` has no valid `length_bytes`"))
        };
        if name == "bool" {
            return Ok(Self::Bool);
        }
        for (prefix, kind) in [("int", "i"), ("uint", "u"), ("float", "f")] {
            if let Some(bits) = name.strip_prefix(prefix) {
                let bits: u32 = bits.parse().map_err(|_| unsupported())?;
                return number(kind, bits / 8)
                    .filter(|_| bits.is_multiple_of(8))
                    .ok_or_else(unsupported);
            }
        }
        match name.as_str() {
            "string" => Ok(Self::Text),
            "fixed_length_utf32" => Ok(Self::Utf32 {
                characters: length()? / 4,
            }),
            "null_terminated_bytes" => {
                let length = length()?;
                document.insert(
                    "data_type".to_owned(),
                    json!(format!("r{}", 8 * u64::from(length))),
                );
                zero_bytes_fill(document, length)?;
                Ok(Self::Bytes { length })
            }
            "numpy.datetime64" | "numpy.timedelta64" => {
                let unit = configuration.get("unit").and_then(Value::as_str);
                let scale = configuration
                    .get("scale_factor")
                    .map_or(Some(1), Value::as_i64);
                let stored = unit
                    .zip(scale)
                    .and_then(|(unit, scale)| time(unit, scale, name == "numpy.timedelta64"))
                    .ok_or_else(unsupported)?;
                document.insert("data_type".to_owned(), json!("int64"));
                not_a_time_fill(document);
                Ok(stored)
            }
            _ => Err(unsupported()),
        }
    }
}

fn number(kind: &str, size: u32) -> Option<Stored> {
    match (kind, size) {
        ("i" | "u", 1 | 2 | 4 | 8) => Some(Stored::Int {
            bytes: size as u8,
            signed: kind == "i",
        }),
        ("f", 2 | 4 | 8) => Some(Stored::Float { bytes: size as u8 }),
        _ => None,
    }
}

fn time(unit: &str, scale: i64, is_duration: bool) -> Option<Stored> {
    let unit: i64 = match unit {
        "D" => 86_400_000_000_000,
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    };
    Some(Stored::Time {
        nanoseconds: unit.checked_mul(scale).filter(|&value| value > 0)?,
        is_duration,
    })
}

/// Fixed-length bytes are read as raw bytes, whose fill value is a list.
fn zero_bytes_fill(document: &mut Map<String, Value>, length: u32) -> Result<(), String> {
    if length > 1 << 20 {
        return Err(format!("texts of {length} bytes are not supported"));
    }
    let is_empty = match document.get("fill_value") {
        None | Some(Value::Null) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        // Zeros in base64.
        Some(Value::String(text)) => text.chars().all(|c| matches!(c, 'A' | '=')),
        Some(_) => false,
    };
    if !is_empty {
        return Err("a fill value that is not empty is not supported for its data type".to_owned());
    }
    document.insert("fill_value".to_owned(), json!(vec![0; length as usize]));
    Ok(())
}

/// A fill value `NaT` is NumPy's: the smallest integer.
fn not_a_time_fill(document: &mut Map<String, Value>) {
    if document.get("fill_value") == Some(&json!("NaT")) {
        document.insert("fill_value".to_owned(), json!(i64::MIN));
    }
}

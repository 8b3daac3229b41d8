//! From stored to decoded values, as xarray decodes by the CF conventions: missing values, scale
//! and offset, `_Unsigned` and booleans stored as integers.
//!
//! Three differences, on purpose: booleans and texts are never masked (xarray would make them
//! objects), a `missing_value` that only equals a 32-bit value after rounding masks it too, and
//! scaled values are always floating point.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value};
use zarrs::array::ArrayBytes;

use crate::cf_time::{TimeLike, time_like};
use crate::group::ZarrFormat;
use crate::stored::Stored;
use crate::{Element, Values};

/// How to decode one variable.
#[derive(Clone, Debug)]
pub(crate) struct Decoding {
    stored: Stored,
    element: Element,
    masks: Vec<Mask>,
    scale: Option<f64>,
    offset: Option<f64>,
    /// Integers that stand for true and false.
    is_bool: bool,
}

/// A stored value that means "missing".
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mask {
    float: f64,
    /// The value exactly, where it is an integer.
    int: Option<i64>,
}

impl Decoding {
    /// The decoding of an array with this metadata (after [`Stored::take`]) and these attributes.
    pub(crate) fn new(
        stored: Stored,
        format: ZarrFormat,
        document: &Value,
        attributes: &Map<String, Value>,
    ) -> Result<Self, String> {
        let stored = with_signedness(stored, attributes);
        let mut decoding = Self {
            stored,
            element: Element::I64,
            masks: Vec::new(),
            scale: None,
            offset: None,
            is_bool: false,
        };
        match stored {
            Stored::Utf32 { .. } | Stored::Bytes { .. } | Stored::Text => {
                decoding.element = Element::Text;
                return Ok(decoding);
            }
            Stored::Bool | Stored::Time { .. } => return Ok(decoding),
            Stored::Int { .. } | Stored::Float { .. } => {}
        }
        let fills = fill_values(stored, format, document, attributes)?;
        decoding.scale = factor(attributes, "scale_factor")?;
        decoding.offset = factor(attributes, "add_offset")?;
        let is_scaled = decoding.scale.is_some() || decoding.offset.is_some();
        decoding.masks = fills
            .iter()
            .filter(|fill| !fill.float.is_nan())
            .copied()
            .collect();
        decoding.is_bool = attributes.get("dtype").and_then(Value::as_str) == Some("bool");
        let is_time = time_like(attributes) != TimeLike::No;
        decoding.element = match stored {
            // A NaN fill value keeps the type of scaled floating point; so does xarray.
            Stored::Float { bytes }
                if !is_scaled || (!fills.is_empty() && decoding.masks.is_empty()) =>
            {
                if bytes == 8 {
                    Element::F64
                } else {
                    Element::F32
                }
            }
            Stored::Int { bytes, .. } if !is_scaled => match bytes {
                _ if decoding.masks.is_empty() || is_time || decoding.is_bool => Element::I64,
                1 | 2 => Element::F32,
                _ => Element::F64,
            },
            _ => Element::F64,
        };
        Ok(decoding)
    }

    /// With values that are scaled in single precision.
    #[cfg(feature = "netcdf")]
    pub(crate) fn in_single(mut self) -> Self {
        self.element = Element::F32;
        self
    }

    /// The type after decoding.
    pub(crate) fn element(&self) -> Element {
        self.element
    }

    /// How the values are stored.
    pub(crate) fn stored(&self) -> Stored {
        self.stored
    }

    /// What an integer of an attribute in the type of the stored values, such as the end of a range, is after decoding.
    #[cfg(feature = "netcdf")]
    pub(crate) fn of_attribute(&self, packed: i64) -> Value {
        let packed = match self.stored {
            // Negative where `_Unsigned` changed the type.
            Stored::Int { signed: false, .. } => int_mask(packed, self.stored),
            _ => Mask {
                float: packed as f64,
                int: Some(packed),
            },
        };
        match (packed.int, self.scale, self.offset) {
            (Some(packed), None, None) => packed.into(),
            (_, scale, offset) => {
                let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
                match self.element {
                    Element::F32 => (packed.float as f32 * scale as f32 + offset as f32).into(),
                    _ => (packed.float * scale + offset).into(),
                }
            }
        }
    }

    /// Decodes values that `zarrs` read, in native byte order.
    pub(crate) fn decode(&self, bytes: ArrayBytes<'_>, shape: &[usize]) -> Result<Values, String> {
        let shaped = |length: usize| format!("{length} values do not fill the shape {shape:?}");
        macro_rules! array {
            ($values:expr) => {{
                let values = $values;
                let length = values.len();
                ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| shaped(length))?
            }};
        }
        if self.element == Element::Text {
            return Ok(Values::Text(array!(self.texts(bytes)?)));
        }
        let raw = bytes.into_fixed().map_err(|error| error.to_string())?;
        Ok(match self.element {
            Element::F32 => Values::F32(array!(self.floats32(&raw)?)),
            Element::F64 => Values::F64(array!(self.floats64(&raw)?)),
            _ => Values::I64(array!(self.integers(&raw)?)),
        })
    }

    fn texts(&self, bytes: ArrayBytes<'_>) -> Result<Vec<String>, String> {
        let invalid = |_| "a text is not valid UTF-8".to_owned();
        match self.stored {
            Stored::Utf32 { characters } => {
                let raw = bytes.into_fixed().map_err(|error| error.to_string())?;
                raw.chunks_exact(4 * characters as usize)
                    .map(utf32)
                    .collect()
            }
            Stored::Bytes { length } => {
                let raw = bytes.into_fixed().map_err(|error| error.to_string())?;
                raw.chunks_exact(length as usize)
                    .map(|text| {
                        let end = text.iter().rposition(|&byte| byte != 0);
                        let text = &text[..end.map_or(0, |last| last + 1)];
                        String::from_utf8(text.to_vec()).map_err(invalid)
                    })
                    .collect()
            }
            _ => {
                let variable = bytes.into_variable().map_err(|error| error.to_string())?;
                let (raw, offsets) = variable.into_parts();
                offsets
                    .windows(2)
                    .map(|ends| {
                        let text = raw.get(ends[0]..ends[1]).unwrap_or_default();
                        String::from_utf8(text.to_vec()).map_err(invalid)
                    })
                    .collect()
            }
        }
    }

    fn floats32(&self, raw: &[u8]) -> Result<Vec<f32>, String> {
        let masks: Vec<(f64, f32)> = self
            .masks
            .iter()
            .map(|mask| (mask.float, mask.float as f32))
            .collect();
        let (scale, offset) = (self.scale.map(|s| s as f32), self.offset.map(|o| o as f32));
        let finish = |value: f32| {
            let is_missing = masks
                .iter()
                .any(|&(exact, rounded)| f64::from(value) == exact || value == rounded);
            if is_missing {
                return f32::NAN;
            }
            let scaled = scale.map_or(value, |scale| value * scale);
            offset.map_or(scaled, |offset| scaled + offset)
        };
        Ok(match self.stored {
            Stored::Float { bytes: 2 } => map(raw, |bytes| {
                finish(half::f16::from_ne_bytes(bytes).to_f32())
            }),
            Stored::Float { bytes: 4 } => map(raw, |bytes| finish(f32::from_ne_bytes(bytes))),
            _ => self
                .integers_stored(raw)?
                .into_iter()
                .map(|value| finish(value as f32))
                .collect(),
        })
    }

    fn floats64(&self, raw: &[u8]) -> Result<Vec<f64>, String> {
        let finish = |value: f64| {
            if self.masks.iter().any(|mask| value == mask.float) {
                return f64::NAN;
            }
            let scaled = self.scale.map_or(value, |scale| value * scale);
            self.offset.map_or(scaled, |offset| scaled + offset)
        };
        let is_masked32 = |value: f32| self.masks.iter().any(|mask| value == mask.float as f32);
        Ok(match self.stored {
            Stored::Float { bytes: 2 } => map(raw, |bytes| {
                finish(half::f16::from_ne_bytes(bytes).to_f64())
            }),
            Stored::Float { bytes: 4 } => map(raw, |bytes| {
                let value = f32::from_ne_bytes(bytes);
                if is_masked32(value) {
                    f64::NAN
                } else {
                    finish(f64::from(value))
                }
            }),
            Stored::Float { .. } => map(raw, |bytes| finish(f64::from_ne_bytes(bytes))),
            Stored::Int {
                bytes: 8,
                signed: false,
            } => map(raw, |bytes| finish(u64::from_ne_bytes(bytes) as f64)),
            _ => self
                .integers_stored(raw)?
                .into_iter()
                .map(|value| finish(value as f64))
                .collect(),
        })
    }

    /// Integers as they are; missing times become the smallest integer, as NumPy's `NaT` is.
    fn integers(&self, raw: &[u8]) -> Result<Vec<i64>, String> {
        let mut values = self.integers_stored(raw)?;
        if self.is_bool {
            values
                .iter_mut()
                .for_each(|value| *value = i64::from(*value != 0));
        } else if !self.masks.is_empty() {
            for value in &mut values {
                if self.masks.iter().any(|mask| mask.int == Some(*value)) {
                    *value = i64::MIN;
                }
            }
        }
        Ok(values)
    }

    fn integers_stored(&self, raw: &[u8]) -> Result<Vec<i64>, String> {
        Ok(match self.stored {
            Stored::Bool => map(raw, |[byte]: [u8; 1]| i64::from(byte != 0)),
            Stored::Int {
                bytes: 1,
                signed: true,
            } => map(raw, |b| i8::from_ne_bytes(b).into()),
            Stored::Int {
                bytes: 2,
                signed: true,
            } => map(raw, |b| i16::from_ne_bytes(b).into()),
            Stored::Int {
                bytes: 4,
                signed: true,
            } => map(raw, |b| i32::from_ne_bytes(b).into()),
            Stored::Int { bytes: 1, .. } => map(raw, |b| u8::from_ne_bytes(b).into()),
            Stored::Int { bytes: 2, .. } => map(raw, |b| u16::from_ne_bytes(b).into()),
            Stored::Int { bytes: 4, .. } => map(raw, |b| u32::from_ne_bytes(b).into()),
            Stored::Int {
                bytes: 8,
                signed: false,
            } => map(raw, u64::from_ne_bytes)
                .into_iter()
                .map(|value| {
                    i64::try_from(value)
                        .map_err(|_| format!("the value {value} does not fit a 64-bit integer"))
                })
                .collect::<Result<_, _>>()?,
            _ => map(raw, i64::from_ne_bytes),
        })
    }
}

/// Each `N` bytes as one value.
fn map<const N: usize, T>(raw: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>()
        .0
        .iter()
        .map(|&bytes| value(bytes))
        .collect()
}

fn utf32(raw: &[u8]) -> Result<String, String> {
    let points = map(raw, u32::from_ne_bytes);
    let end = points
        .iter()
        .rposition(|&point| point != 0)
        .map_or(0, |last| last + 1);
    points[..end]
        .iter()
        .map(|&point| {
            char::from_u32(point).ok_or_else(|| format!("{point:#x} is not a Unicode character"))
        })
        .collect()
}

/// The attribute `_Unsigned` turns signed into unsigned integers of the same width, and back.
fn with_signedness(stored: Stored, attributes: &Map<String, Value>) -> Stored {
    let unsigned = attributes.get("_Unsigned").and_then(Value::as_str);
    match (stored, unsigned) {
        (Stored::Int { bytes, .. }, Some("true")) => Stored::Int {
            bytes,
            signed: false,
        },
        (Stored::Int { bytes, .. }, Some("false")) => Stored::Int {
            bytes,
            signed: true,
        },
        _ => stored,
    }
}

/// Everything that is declared to mean "missing", NaN included. In version 2 the array's own fill
/// value does, in version 3 only the attributes do.
fn fill_values(
    stored: Stored,
    format: ZarrFormat,
    document: &Value,
    attributes: &Map<String, Value>,
) -> Result<Vec<Mask>, String> {
    let own = match format {
        ZarrFormat::V2 => document.get("fill_value").filter(|value| !value.is_null()),
        ZarrFormat::V3 => None,
    };
    let declared = own.or_else(|| attributes.get("_FillValue"));
    let mut fills = Vec::new();
    for value in [declared, attributes.get("missing_value")]
        .into_iter()
        .flatten()
    {
        let listed = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in listed {
            let fill = fill_value(value, stored)
                .ok_or_else(|| format!("its fill value {value} is not understood"))?;
            // NaN cannot stand for a missing integer.
            if !fill.float.is_nan() || matches!(stored, Stored::Float { .. }) {
                fills.push(fill);
            }
        }
    }
    Ok(fills)
}

/// What stands for "missing" in values as they are stored, in the form in which version 2 of the format has it:
/// an integer, a float, or one of the words for floats that JSON does not have.
pub(crate) fn declared_fill(
    stored: Stored,
    format: ZarrFormat,
    document: &Value,
    attributes: &Map<String, Value>,
) -> Option<Value> {
    let own = match format {
        ZarrFormat::V2 => document.get("fill_value").filter(|value| !value.is_null()),
        ZarrFormat::V3 => None,
    };
    let declared = own.or_else(|| attributes.get("_FillValue"))?;
    let Stored::Float { .. } = stored else {
        return (declared.is_number() || declared.is_boolean()).then(|| declared.clone());
    };
    let float = fill_value(declared, stored)?.float;
    Some(match float {
        f64::INFINITY => Value::from("Infinity"),
        f64::NEG_INFINITY => Value::from("-Infinity"),
        float if float.is_nan() => Value::from("NaN"),
        float => Value::from(float),
    })
}

fn fill_value(value: &Value, stored: Stored) -> Option<Mask> {
    let float = match value {
        Value::Number(number) => match number.as_i64() {
            Some(int) => return Some(int_mask(int, stored)),
            None => number.as_f64()?,
        },
        Value::Bool(value) => return Some(int_mask(i64::from(*value), stored)),
        Value::Null => f64::NAN,
        Value::String(text) => match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            // xarray writes the fill value of version 3 as the bytes of a double in base64.
            text => f64::from_le_bytes(BASE64_STANDARD.decode(text).ok()?.try_into().ok()?),
        },
        _ => return None,
    };
    let is_whole = float.fract() == 0.0 && float.abs() < 2f64.powi(63);
    Some(Mask {
        float,
        int: is_whole.then_some(float as i64),
    })
}

/// An integer fill value, reinterpreted where `_Unsigned` changed the type.
fn int_mask(int: i64, stored: Stored) -> Mask {
    let wrapped = match stored {
        Stored::Int {
            bytes,
            signed: false,
        } if int < 0 => i128::from(int) + (1i128 << (8 * u32::from(bytes))),
        Stored::Int {
            bytes,
            signed: true,
        } if i128::from(int) >= 1i128 << (8 * u32::from(bytes) - 1) => {
            i128::from(int) - (1i128 << (8 * u32::from(bytes)))
        }
        _ => i128::from(int),
    };
    Mask {
        float: wrapped as f64,
        int: i64::try_from(wrapped).ok(),
    }
}

/// A scale or offset; a list of one counts as its value.
fn factor(attributes: &Map<String, Value>, name: &str) -> Result<Option<f64>, String> {
    let value = match attributes.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(values)) if values.len() == 1 => &values[0],
        Some(value) => value,
    };
    match value.as_f64() {
        Some(value) => Ok(Some(value)),
        None => Err(format!("its attribute `{name}` is not a number")),
    }
}

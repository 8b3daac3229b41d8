//! Values as they are stored, and what they must be to be published.

use std::sync::Arc;

use half::f16;
use serde_json::{Map, Value, json};

use super::BadValue;

/// The type that values are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum StoredAs {
    /// 32-bit floating point.
    #[default]
    Float32,
    /// 16-bit floating point: three digits, up to 65,504.
    Float16,
    /// 16-bit integers: a value is `offset + scale · integer`, rounded to the nearest.
    Int16 {
        /// The distance of two neighbouring values.
        scale: f64,
        /// The value of the integer 0.
        offset: f64,
    },
}

/// The integer that stands for a missing value.
const MISSING_I16: i16 = i16::MIN;

impl StoredAs {
    /// The size of one value in bytes.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Int16 { .. } => 2,
        }
    }

    /// The name of the type, in Zarr and for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int16 { .. } => "int16",
        }
    }

    /// What a chunk that was never written holds.
    pub(crate) fn fill_value(self) -> Value {
        match self {
            Self::Float32 | Self::Float16 => json!("NaN"),
            Self::Int16 { .. } => json!(MISSING_I16),
        }
    }

    /// The attributes that tell readers how to decode the values.
    pub(crate) fn attributes(self) -> Map<String, Value> {
        let attributes = match self {
            // The bytes of a double NaN in base64: so xarray writes it for any width.
            Self::Float32 | Self::Float16 => vec![("_FillValue", json!("AAAAAAAA+H8="))],
            Self::Int16 { scale, offset } => vec![
                ("_FillValue", json!(MISSING_I16)),
                ("scale_factor", json!(scale)),
                ("add_offset", json!(offset)),
            ],
        };
        attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Why values cannot be stored so.
    pub(crate) fn fault(self) -> Option<String> {
        match self {
            Self::Int16 { scale, offset }
                if scale == 0.0 || !scale.is_finite() || !offset.is_finite() =>
            {
                Some(format!(
                    "int16 with the scale {scale} and the offset {offset} cannot hold values; give \
                     finite ones, and a scale other than 0"
                ))
            }
            _ => None,
        }
    }
}

/// What values must be, and how they are stored.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) stored: StoredAs,
    /// Points that may be missing; none: no point may.
    pub(crate) may_be_missing: Permission,
    /// Lowest and highest, before values are rounded to the stored type.
    pub(crate) range: Option<[f64; 2]>,
}

/// Where values may be missing.
#[derive(Clone, Debug)]
pub(crate) enum Permission {
    Nowhere,
    Anywhere,
    /// Where true, a plane in row-major order.
    Within(Arc<[bool]>),
}

impl Permission {
    pub(crate) fn at(&self, point: usize) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Anywhere => true,
            Self::Within(mask) => mask.get(point).copied().unwrap_or(false),
        }
    }
}

/// A value that breaks the rules: where, which, why.
pub(crate) type Broken = (usize, f64, BadValue);

impl Rules {
    /// Checks a plane and appends it as it is stored, in little endian.
    pub(crate) fn encode(&self, plane: &[f64], bytes: &mut Vec<u8>) -> Result<(), Broken> {
        bytes.reserve(plane.len() * self.stored.size() as usize);
        match self.stored {
            StoredAs::Float32 => self.each(plane, |value| {
                let stored = value.map_or(f32::NAN, |value| value as f32);
                bytes.extend_from_slice(&stored.to_le_bytes());
                !stored.is_infinite()
            }),
            StoredAs::Float16 => self.each(plane, |value| {
                let stored = value.map_or(f16::NAN, f16::from_f64);
                bytes.extend_from_slice(&stored.to_le_bytes());
                !stored.is_infinite()
            }),
            StoredAs::Int16 { scale, offset } => self.each(plane, |value| {
                let stored = value.map(|value| ((value - offset) / scale).round_ties_even());
                let fits = stored.is_none_or(|stored| stored.abs() <= f64::from(i16::MAX));
                let stored = stored.map_or(MISSING_I16, |stored| stored as i16);
                bytes.extend_from_slice(&stored.to_le_bytes());
                fits
            }),
        }
    }

    /// Checks a plane and appends it as float32, whatever it is stored as.
    pub(crate) fn singles(&self, plane: &[f64], values: &mut Vec<f32>) -> Result<(), Broken> {
        values.reserve(plane.len());
        self.each(plane, |value| {
            let single = value.map_or(f32::NAN, |value| value as f32);
            values.push(single);
            !single.is_infinite()
        })
    }

    /// Checks every value; `store` takes it (none: missing) and says whether it fits.
    fn each(
        &self,
        plane: &[f64],
        mut store: impl FnMut(Option<f64>) -> bool,
    ) -> Result<(), Broken> {
        let [low, high] = self.range.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
        for (point, &value) in plane.iter().enumerate() {
            if value.is_nan() {
                if !self.may_be_missing.at(point) {
                    return Err((point, value, BadValue::Missing));
                }
                store(None);
            } else if value.is_infinite() {
                return Err((point, value, BadValue::Infinite));
            } else if value < low || value > high {
                return Err((point, value, BadValue::Range { low, high }));
            } else if !store(Some(value)) {
                return Err((point, value, BadValue::Overflow(self.stored.name())));
            }
        }
        Ok(())
    }
}

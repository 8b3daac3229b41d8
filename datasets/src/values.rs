//! Decoded values of a variable.

use ndarray::ArrayD;

use crate::Error;

/// The type of a variable's values after decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// 64-bit signed integer; all narrower integers and booleans widen to it.
    I64,
    /// Text.
    Text,
}

impl Element {
    /// As messages name it: `float32`, `float64`, `int64`, `text`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I64 => "int64",
            Self::Text => "text",
        }
    }

    /// The size in memory of one value in bytes; of text, only the part that is always there.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::Text => 24,
        }
    }
}

/// Values of a variable or of a part of it, in the order of its dimensions.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 32-bit floating point; missing is NaN.
    F32(ArrayD<f32>),
    /// 64-bit floating point; missing is NaN.
    F64(ArrayD<f64>),
    /// Integers and booleans.
    I64(ArrayD<i64>),
    /// Text.
    Text(ArrayD<String>),
}

impl Values {
    /// The type of the values.
    pub fn element(&self) -> Element {
        match self {
            Self::F32(_) => Element::F32,
            Self::F64(_) => Element::F64,
            Self::I64(_) => Element::I64,
            Self::Text(_) => Element::Text,
        }
    }

    /// The length of each dimension.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(values) => values.shape(),
            Self::F64(values) => values.shape(),
            Self::I64(values) => values.shape(),
            Self::Text(values) => values.shape(),
        }
    }

    /// The values as 32-bit floating point: 64-bit values are rounded, integers converted.
    ///
    /// # Errors
    /// [`Error::Element`] for text.
    pub fn into_f32(self) -> Result<ArrayD<f32>, Error> {
        match self {
            Self::F32(values) => Ok(values),
            Self::F64(values) => Ok(values.mapv(|value| value as f32)),
            Self::I64(values) => Ok(values.mapv(|value| value as f32)),
            Self::Text(_) => Err(self.mismatch("float32")),
        }
    }

    /// The values as 64-bit floating point.
    ///
    /// # Errors
    /// [`Error::Element`] for text.
    pub fn into_f64(self) -> Result<ArrayD<f64>, Error> {
        match self {
            Self::F32(values) => Ok(values.mapv(f64::from)),
            Self::F64(values) => Ok(values),
            Self::I64(values) => Ok(values.mapv(|value| value as f64)),
            Self::Text(_) => Err(self.mismatch("float64")),
        }
    }

    /// The values as integers.
    ///
    /// # Errors
    /// [`Error::Element`] for anything but integers: floating point is never rounded silently.
    pub fn into_i64(self) -> Result<ArrayD<i64>, Error> {
        match self {
            Self::I64(values) => Ok(values),
            _ => Err(self.mismatch("int64")),
        }
    }

    /// The values as text.
    ///
    /// # Errors
    /// [`Error::Element`] for anything but text.
    pub fn into_text(self) -> Result<ArrayD<String>, Error> {
        match self {
            Self::Text(values) => Ok(values),
            _ => Err(self.mismatch("text")),
        }
    }

    fn mismatch(&self, expected: &'static str) -> Error {
        Error::Element {
            expected,
            found: self.element().name(),
        }
    }
}

//! Tensors, stepped over: whether each holds as many numbers as its shape says.

use std::io::{BufRead, Read, Seek};

use super::{OnnxError, Value, Walk};

impl<R: Read + Seek> Walk<R> {
    /// `TensorProto`: its name, once it is known that its data are in this file, and complete.
    pub(super) fn tensor(&mut self, end: u64) -> Result<String, OnnxError> {
        const EXTERNAL: u64 = 1;
        let mut tensor = Tensor::default();
        while let Some(field) = self.field(end)? {
            let typed = &mut tensor.typed;
            match (field.number, field.value) {
                (1, Value::Varint(length)) => tensor.shape.times(length),
                (1, Value::Bytes { end }) => {
                    while self.at < end {
                        tensor.shape.times(self.varint()?);
                    }
                    if self.at > end {
                        return Err(self.malformed());
                    }
                }
                (2, Value::Varint(number)) => tensor.element_type = number,
                (4, Value::Bytes { end }) => typed.floats += self.packed(end, 4)?,
                (4, Value::Fixed) => typed.floats += 1,
                (5, value) => typed.int32s += self.varints(value)?,
                (6, value) => {
                    typed.strings += 1;
                    self.skip(value)?;
                }
                (7, value) => typed.int64s += self.varints(value)?,
                (8, Value::Bytes { end }) => tensor.name = self.text(end)?,
                (9, Value::Bytes { end }) => {
                    tensor.raw_bytes = Some(end - self.at);
                    self.skip(field.value)?;
                }
                (10, Value::Bytes { end }) => typed.doubles += self.packed(end, 8)?,
                (10, Value::Fixed) => typed.doubles += 1,
                (11, value) => typed.uint64s += self.varints(value)?,
                (13, value) => {
                    tensor.is_external = true;
                    self.skip(value)?;
                }
                (14, Value::Varint(location)) => tensor.is_external |= location == EXTERNAL,
                (_, value) => self.skip(value)?,
            }
        }
        if tensor.is_external {
            return Err(OnnxError::ExternalData(tensor.name));
        }
        if !tensor.is_complete() {
            return Err(OnnxError::IncompleteTensor(tensor.name));
        }
        Ok(tensor.name)
    }

    /// Steps over numbers of `width` bytes and counts them.
    fn packed(&mut self, end: u64, width: u64) -> Result<u64, OnnxError> {
        let length = end - self.at;
        if !length.is_multiple_of(width) {
            return Err(self.malformed());
        }
        self.skip(Value::Bytes { end })?;
        Ok(length / width)
    }

    /// Steps over one number, or a list of them, and counts them: one ends where a byte is below
    /// 128.
    fn varints(&mut self, value: Value) -> Result<u64, OnnxError> {
        let Value::Bytes { end } = value else {
            return Ok(1);
        };
        let mut count = 0;
        while self.at < end {
            let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            let buffer = self.source.fill_buf()?;
            let piece = &buffer[..buffer.len().min(left)];
            if piece.is_empty() {
                return Err(self.malformed());
            }
            count += piece.iter().filter(|byte| **byte < 0x80).count() as u64;
            let length = piece.len();
            self.source.consume(length);
            self.at += length as u64;
        }
        Ok(count)
    }

    /// `SparseTensorProto`: the name of its values.
    pub(super) fn sparse_tensor(&mut self, end: u64) -> Result<String, OnnxError> {
        let mut name = String::new();
        while let Some(field) = self.field(end)? {
            match (field.number, field.value) {
                (1, Value::Bytes { end }) => name = self.tensor(end)?,
                (2, Value::Bytes { end }) => {
                    self.tensor(end)?;
                }
                (_, value) => self.skip(value)?,
            }
        }
        Ok(name)
    }
}

/// What `TensorProto` says of itself.
#[derive(Default)]
struct Tensor {
    name: String,
    is_external: bool,
    element_type: u64,
    /// Product of the dimensions; `None` once it is too large or negative.
    shape: Elements,
    /// Length of `raw_data`, if it is there.
    raw_bytes: Option<u64>,
    /// Numbers in the fields with a type, by the number of the field.
    typed: Typed,
}

/// How many elements a shape has.
struct Elements(Option<u64>);

impl Default for Elements {
    /// A shape without dimensions is that of one number.
    fn default() -> Self {
        Self(Some(1))
    }
}

impl Elements {
    /// Adds a dimension, as protobuf writes an `int64`.
    fn times(&mut self, dimension: u64) {
        let length = i64::try_from(dimension).ok().map(i64::unsigned_abs);
        self.0 = self.0.zip(length).and_then(|(a, b)| a.checked_mul(b));
    }
}

/// Counts of `float_data`, `int32_data`, `string_data`, `int64_data`, `double_data` and
/// `uint64_data`.
#[derive(Default)]
struct Typed {
    floats: u64,
    int32s: u64,
    strings: u64,
    int64s: u64,
    doubles: u64,
    uint64s: u64,
}

impl Typed {
    fn sum(&self) -> u64 {
        [
            self.floats,
            self.int32s,
            self.strings,
            self.int64s,
            self.doubles,
            self.uint64s,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

impl Tensor {
    /// Whether shape, type and data agree. Of a type that is not known nothing is asked.
    fn is_complete(&self) -> bool {
        let Some(elements) = self.shape.0 else {
            return false;
        };
        let Some(bits) = bits(self.element_type) else {
            return self.element_type > LAST_TYPE;
        };
        match self.raw_bytes {
            Some(bytes) if bytes > 0 && self.element_type != STRING => {
                let expected = elements.checked_mul(bits).map(|bits| bits.div_ceil(8));
                self.typed.sum() == 0 && expected == Some(bytes)
            }
            _ => {
                let (found, expected) = self.typed_data(elements, bits);
                found == expected && found == self.typed.sum()
            }
        }
    }

    /// How many numbers the field for this type has, and should have (`onnx.proto`, comments of
    /// `TensorProto`).
    fn typed_data(&self, elements: u64, bits: u64) -> (u64, u64) {
        let typed = &self.typed;
        match self.element_type {
            1 => (typed.floats, elements),
            14 => (typed.floats, elements.saturating_mul(2)),
            11 => (typed.doubles, elements),
            15 => (typed.doubles, elements.saturating_mul(2)),
            7 => (typed.int64s, elements),
            12 | 13 => (typed.uint64s, elements),
            STRING => (typed.strings, elements),
            // Several to a number where they have less than a byte.
            _ if bits < 8 => (typed.int32s, elements.div_ceil(8 / bits)),
            _ => (typed.int32s, elements),
        }
    }
}

/// `TensorProto.DataType` of texts.
const STRING: u64 = 8;
/// The last of `TensorProto.DataType` that is known here.
const LAST_TYPE: u64 = 26;

/// Bits of an element of `TensorProto.DataType`.
fn bits(element_type: u64) -> Option<u64> {
    Some(match element_type {
        // float, int32, uint32
        1 | 6 | 12 => 32,
        // uint8, int8, bool, float8 in its five kinds
        2 | 3 | 9 | 17..=20 | 24 => 8,
        // uint16, int16, float16, bfloat16
        4 | 5 | 10 | 16 => 16,
        // int64, double, uint64, complex64
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        // Texts have no raw form.
        STRING => 8,
        // uint4, int4, float4; uint2, int2
        21..=23 => 4,
        25 | 26 => 2,
        _ => return None,
    })
}

//! Inputs and outputs of an ONNX graph, read without loading the file: a protobuf walk that steps
//! over the weights. Field numbers are those of `onnx.proto`.

mod messages;
mod names;
mod tensor;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io::{self, BufReader, Read, Seek};
use std::mem;

use prost::Message;

use self::messages::{DimensionProto, ValueInfo};
use self::names::Names;

/// ONNX's number for float32.
pub(crate) const FLOAT: i32 = 1;

/// Longest name and largest description of an input that are read, in bytes.
const MAX_SMALL: u64 = 1 << 20;
/// Deepest nesting of graphs in nodes.
const MAX_DEPTH: u32 = 16;

/// What goes into a graph and comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxSignature {
    /// Inputs that must be fed.
    pub inputs: Vec<GraphTensor>,
    /// Outputs.
    pub outputs: Vec<GraphTensor>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphTensor {
    /// Its name in the graph.
    pub name: String,
    /// ONNX's number of its element type: 1 is float32.
    pub element_type: i32,
    /// Its shape; none if the graph does not say.
    pub dimensions: Option<Vec<Dimension>>,
}

/// A dimension of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Of this length.
    Fixed(i64),
    /// Of any length.
    Symbolic(String),
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Symbolic(name) => write!(f, "{name}?"),
        }
    }
}

/// An ONNX file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// It could not be read.
    #[error("it could not be read: {0}")]
    Io(#[from] io::Error),
    /// Not ONNX, or cut off.
    #[error("it is not an ONNX model, or it is cut off (byte {at})")]
    Malformed {
        /// Where reading failed.
        at: u64,
    },
    /// Weights in another file.
    #[error(
        "its tensor `{0}` is stored in another file: export it again with all weights inside (`external_data=False`)"
    )]
    ExternalData(String),
    /// Weights that are cut off.
    #[error("its tensor `{0}` does not hold as many numbers as its shape says: export it again")]
    IncompleteTensor(String),
    /// A value that nothing makes.
    #[error(
        "it uses `{0}`, which is no input, no weight and made by no node before: export it again"
    )]
    Undefined(String),
    /// A value that is made after it is used, or twice.
    #[error("its node that makes `{0}` comes too late, or another makes it too: export it again")]
    Order(String),
    /// Operators of no version.
    #[error("it does not say which version of the operators `{0}` it uses: export it again")]
    NoOperatorSet(String),
    /// More names than any model has.
    #[error("its graph has more names than are kept in memory")]
    TooManyNames,
    /// Graphs in graphs in graphs.
    #[error("its graphs are nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// Reads the signature of the model in `source`, and checks that its graph is whole: weights as
/// long as their shapes, every value made before it is used, every set of operators declared.
pub(crate) fn read_signature<R: Read + Seek>(
    source: R,
    length: u64,
) -> Result<OnnxSignature, OnnxError> {
    let mut walk = Walk {
        source: BufReader::with_capacity(64 << 10, source),
        at: 0,
        domains: BTreeSet::new(),
    };
    let mut graph = None;
    let mut ir_version = None;
    let mut declared = HashSet::new();
    while let Some(field) = walk.field(length)? {
        match (field.number, field.value) {
            (1, Value::Varint(version)) => ir_version = Some(version),
            (7, Value::Bytes { end }) if graph.is_none() => graph = Some(walk.graph(end, 0)?),
            (7, _) => return Err(walk.malformed()),
            (8, Value::Bytes { end }) => {
                declared.insert(walk.operator_set(end)?);
            }
            (25, Value::Bytes { end }) => walk.function(end)?,
            (_, value) => walk.skip(value)?,
        }
    }
    let (Some(graph), Some(_)) = (graph, ir_version) else {
        return Err(walk.malformed());
    };
    if let Some(name) = graph.missing.into_iter().min() {
        return Err(OnnxError::Undefined(name));
    }
    if let Some(domain) = walk
        .domains
        .difference(&declared.into_iter().collect())
        .next()
    {
        return Err(OnnxError::NoOperatorSet(domain.clone()));
    }
    Ok(graph.signature)
}

/// A graph, and what it takes from the graph around it.
struct Graph {
    signature: OnnxSignature,
    missing: HashSet<String>,
}

struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    Varint(u64),
    /// Fixed-size numbers, already stepped over.
    Fixed,
    /// A message, text or bytes that ends at `end`; not stepped over yet.
    Bytes {
        end: u64,
    },
}

struct Walk<R> {
    source: BufReader<R>,
    at: u64,
    /// Sets of operators that nodes of the graph use; the standard one is `ai.onnx`.
    domains: BTreeSet<String>,
}

impl<R: Read + Seek> Walk<R> {
    /// `GraphProto`, to its end.
    fn graph(&mut self, end: u64, depth: u32) -> Result<Graph, OnnxError> {
        if depth > MAX_DEPTH {
            return Err(OnnxError::TooDeep);
        }
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut weights = HashSet::new();
        let mut names = Names::default();
        while let Some(field) = self.field(end)? {
            match (field.number, field.value) {
                (1, Value::Bytes { end }) => {
                    let domain = self.node(end, depth, &mut names)?;
                    self.domains.insert(domain);
                }
                (5, Value::Bytes { end }) => {
                    weights.insert(self.tensor(end)?);
                }
                (11, Value::Bytes { end }) => inputs.push(self.value_info(end)?),
                (12, Value::Bytes { end }) => outputs.push(self.value_info(end)?),
                (15, Value::Bytes { end }) => {
                    weights.insert(self.sparse_tensor(end)?);
                }
                (_, value) => self.skip(value)?,
            }
        }
        for output in &outputs {
            names.used(output.name.clone())?;
        }
        let fed: HashSet<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let missing = names.missing(|name| weights.contains(name) || fed.contains(name));
        // Before version 4 of the format, weights were listed as inputs too.
        inputs.retain(|input| !weights.contains(&input.name));
        Ok(Graph {
            signature: OnnxSignature { inputs, outputs },
            missing,
        })
    }

    /// `FunctionProto`. It sees nothing but its own inputs.
    fn function(&mut self, end: u64) -> Result<(), OnnxError> {
        let mut names = Names::default();
        let mut inputs = HashSet::new();
        let mut outputs = Vec::new();
        let mut declared = HashSet::new();
        // Those of the graphs in its nodes are its own too.
        let of_the_graph = mem::take(&mut self.domains);
        while let Some(field) = self.field(end)? {
            match (field.number, field.value) {
                (4, Value::Bytes { end }) => {
                    inputs.insert(self.text(end)?);
                }
                (5, Value::Bytes { end }) => outputs.push(self.text(end)?),
                (7, Value::Bytes { end }) => {
                    let domain = self.node(end, 0, &mut names)?;
                    self.domains.insert(domain);
                }
                (9, Value::Bytes { end }) => {
                    declared.insert(self.operator_set(end)?);
                }
                (_, value) => self.skip(value)?,
            }
        }
        let domains = mem::replace(&mut self.domains, of_the_graph);
        for output in outputs {
            names.used(output)?;
        }
        if let Some(name) = names
            .missing(|name| inputs.contains(name))
            .into_iter()
            .min()
        {
            return Err(OnnxError::Undefined(name));
        }
        match domains
            .into_iter()
            .find(|domain| !declared.contains(domain))
        {
            Some(domain) => Err(OnnxError::NoOperatorSet(domain)),
            None => Ok(()),
        }
    }

    /// `OperatorSetIdProto`: its domain.
    fn operator_set(&mut self, end: u64) -> Result<String, OnnxError> {
        let (mut domain, mut version) = (String::new(), 0);
        while let Some(field) = self.field(end)? {
            match (field.number, field.value) {
                (1, Value::Bytes { end }) => domain = self.text(end)?,
                (2, Value::Varint(number)) => version = number,
                (_, value) => self.skip(value)?,
            }
        }
        if version == 0 {
            return Err(self.malformed());
        }
        Ok(domain_name(domain))
    }

    /// `NodeProto`: the domain of its operator. What it uses and makes is added to `names`; graphs
    /// in its attributes use what they do not make themselves.
    fn node(&mut self, end: u64, depth: u32, names: &mut Names) -> Result<String, OnnxError> {
        let mut domain = String::new();
        let mut outputs = Vec::new();
        while let Some(field) = self.field(end)? {
            match (field.number, field.value) {
                (1, Value::Bytes { end }) => names.used(self.text(end)?)?,
                (2, Value::Bytes { end }) => outputs.push(self.text(end)?),
                (5, Value::Bytes { end }) => self.attribute(end, depth, names)?,
                (7, Value::Bytes { end }) => domain = self.text(end)?,
                (_, value) => self.skip(value)?,
            }
        }
        for output in outputs {
            names.made(output)?;
        }
        Ok(domain_name(domain))
    }

    /// `AttributeProto`.
    fn attribute(&mut self, end: u64, depth: u32, names: &mut Names) -> Result<(), OnnxError> {
        while let Some(field) = self.field(end)? {
            match (field.number, field.value) {
                (5 | 10, Value::Bytes { end }) => {
                    self.tensor(end)?;
                }
                (6 | 11, Value::Bytes { end }) => {
                    for name in self.graph(end, depth + 1)?.missing {
                        names.used(name)?;
                    }
                }
                (22 | 23, Value::Bytes { end }) => {
                    self.sparse_tensor(end)?;
                }
                (_, value) => self.skip(value)?,
            }
        }
        Ok(())
    }

    fn value_info(&mut self, end: u64) -> Result<GraphTensor, OnnxError> {
        let bytes = self.small(end)?;
        let info = ValueInfo::decode(bytes.as_slice()).map_err(|_| self.malformed())?;
        let tensor = info.r#type.and_then(|r#type| r#type.tensor);
        let element_type = tensor.as_ref().map_or(0, |tensor| tensor.element_type);
        let dimensions = tensor.and_then(|tensor| tensor.shape).map(|shape| {
            let dimension = |dim: &DimensionProto| match dim.value {
                Some(length) => Dimension::Fixed(length),
                None => Dimension::Symbolic(dim.param.clone().unwrap_or_default()),
            };
            shape.dim.iter().map(dimension).collect()
        });
        Ok(GraphTensor {
            name: info.name,
            element_type,
            dimensions,
        })
    }

    fn text(&mut self, end: u64) -> Result<String, OnnxError> {
        String::from_utf8(self.small(end)?).map_err(|_| self.malformed())
    }

    fn small(&mut self, end: u64) -> Result<Vec<u8>, OnnxError> {
        let length = end - self.at;
        if length > MAX_SMALL {
            return Err(self.malformed());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| self.malformed())?];
        self.source.read_exact(&mut bytes)?;
        self.at = end;
        Ok(bytes)
    }

    /// The next field of a message that ends at `end`; `None` at its end.
    fn field(&mut self, end: u64) -> Result<Option<Field>, OnnxError> {
        if self.at == end {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.fixed(8, end)?,
            2 => {
                let length = self.varint()?;
                let end = self.at.checked_add(length).filter(|e| *e <= end);
                Value::Bytes {
                    end: end.ok_or_else(|| self.malformed())?,
                }
            }
            5 => self.fixed(4, end)?,
            _ => return Err(self.malformed()),
        };
        if self.at > end || key >> 3 == 0 {
            return Err(self.malformed());
        }
        Ok(Some(Field {
            number: key >> 3,
            value,
        }))
    }

    fn fixed(&mut self, length: u64, end: u64) -> Result<Value, OnnxError> {
        if self.at + length > end {
            return Err(self.malformed());
        }
        self.skip(Value::Bytes {
            end: self.at + length,
        })?;
        Ok(Value::Fixed)
    }

    fn skip(&mut self, value: Value) -> Result<(), OnnxError> {
        if let Value::Bytes { end } = value {
            let step = i64::try_from(end - self.at).map_err(|_| self.malformed())?;
            self.source.seek_relative(step)?;
            self.at = end;
        }
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.source
                .read_exact(&mut byte)
                .map_err(|_| self.malformed())?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    fn malformed(&self) -> OnnxError {
        OnnxError::Malformed { at: self.at }
    }
}

/// The standard operators have two names.
fn domain_name(domain: String) -> String {
    if domain.is_empty() {
        return "ai.onnx".to_owned();
    }
    domain
}

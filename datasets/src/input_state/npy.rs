//! The header of a `.npy`, version 1 to 3, as NumPy writes it:
//! `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 544), }`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::Error;

const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read; NumPy pads to 64 bytes, and needs few more.
const LONGEST: usize = 4096;

/// Reads a `.npy` of 64-bit integers in one dimension.
///
/// # Errors
/// [`Error::Read`], [`Error::Npy`] if it is another array, or damaged.
pub fn npy_integers(path: &Path) -> Result<Vec<i64>, Error> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let refused = |reason: String| Error::Npy {
        path: path.to_owned(),
        reason,
    };
    let mut file = BufReader::new(File::open(path).map_err(read)?);
    let header = Header::read(&mut file).map_err(refused)?;
    if header.element != Element::I64 || header.shape.len() != 1 {
        return Err(refused(format!(
            "it has {} values in the shape {:?}: save int64 in one dimension",
            header.type_name(),
            header.shape
        )));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(read)?;
    if header.size() != Some(bytes.len() as u64) {
        return Err(refused(format!(
            "it has {} bytes of values for the shape {:?}",
            bytes.len(),
            header.shape
        )));
    }
    let values = bytes.as_chunks::<8>().0.iter();
    Ok(values.map(|bytes| i64::from_le_bytes(*bytes)).collect())
}

/// What an array is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) shape: Vec<u64>,
}

/// The type of the values, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Element {
    F32,
    F64,
    I64,
    /// `datetime64` in units of so many seconds, or of so many parts of a second.
    Time {
        seconds: i64,
        per_second: i64,
    },
    /// Any other, as NumPy calls it.
    Other(String),
}

impl Header {
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let mut start = [0; 8];
        reader.read_exact(&mut start).map_err(failed)?;
        if !start.starts_with(MAGIC) {
            return Err("it is not a `.npy`".to_owned());
        }
        let length = match start[6] {
            1 => {
                let mut length = [0; 2];
                reader.read_exact(&mut length).map_err(failed)?;
                usize::from(u16::from_le_bytes(length))
            }
            2 | 3 => {
                let mut length = [0; 4];
                reader.read_exact(&mut length).map_err(failed)?;
                u32::from_le_bytes(length) as usize
            }
            other => return Err(format!("it is a `.npy` of version {other}")),
        };
        if length > LONGEST {
            return Err(format!("its header has {length} bytes"));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text).ok_or_else(|| format!("its header is `{}`", text.trim()))
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().strip_prefix('{')?.strip_suffix('}')?;
        if after(text, "'fortran_order':")?.split(',').next()?.trim() != "False" {
            return None;
        }
        let descr = after(text, "'descr':")?.trim_start().strip_prefix('\'')?;
        let (descr, _) = descr.split_once('\'')?;
        let shape = after(text, "'shape':")?.trim_start().strip_prefix('(')?;
        let (shape, _) = shape.split_once(')')?;
        let lengths = shape
            .split(',')
            .map(str::trim)
            .filter(|length| !length.is_empty());
        Some(Self {
            element: Element::parse(descr),
            shape: lengths
                .map(|length| length.parse().ok())
                .collect::<Option<_>>()?,
        })
    }

    /// The size of all values in bytes; `None` if it cannot be counted.
    pub(super) fn size(&self) -> Option<u64> {
        let one = match self.element {
            Element::F32 => 4,
            _ => 8,
        };
        self.shape
            .iter()
            .try_fold(one, |size: u64, length| size.checked_mul(*length))
    }

    /// The type as messages name it.
    pub(super) fn type_name(&self) -> &str {
        match &self.element {
            Element::F32 => "float32",
            Element::F64 => "float64",
            Element::I64 => "int64",
            Element::Time { .. } => "datetime64",
            Element::Other(name) => name,
        }
    }
}

fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_once(key).map(|(_, rest)| rest)
}

impl Element {
    fn parse(descr: &str) -> Self {
        let time = |seconds, per_second| Self::Time {
            seconds,
            per_second,
        };
        match descr {
            "<f4" => Self::F32,
            "<f8" => Self::F64,
            "<i8" => Self::I64,
            "<M8[D]" => time(86_400, 1),
            "<M8[h]" => time(3600, 1),
            "<M8[m]" => time(60, 1),
            "<M8[s]" => time(1, 1),
            "<M8[ms]" => time(1, 1000),
            "<M8[us]" => time(1, 1_000_000),
            "<M8[ns]" => time(1, 1_000_000_000),
            other => Self::Other(other.to_owned()),
        }
    }
}

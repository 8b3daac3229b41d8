//! `.npz`: a zip of `.npy` arrays, as `numpy.savez` writes it. The file is hostile input: no more
//! is read of an array than its header says, and that is checked before.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use zip::ZipArchive;

use super::npy::{Element, Header};
use crate::Values;

/// More arrays than any state has.
const MOST_ARRAYS: usize = 10_000;

/// A `.npz`, open.
pub(super) struct Npz {
    archive: ZipArchive<BufReader<File>>,
    names: Vec<String>,
}

impl Npz {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
            format!("it is neither a Zarr store nor NetCDF nor a `.npz`: {error}")
        })?;
        if archive.len() > MOST_ARRAYS {
            return Err(format!("it has more than {MOST_ARRAYS} members"));
        }
        let mut names = Vec::with_capacity(archive.len());
        for member in archive.file_names() {
            let member = member.map_err(|error| error.to_string())?;
            let name = member
                .strip_suffix(".npy")
                .ok_or_else(|| format!("its member `{member}` is not a `.npy`"))?;
            names.push(name.to_owned());
        }
        Ok(Self { archive, names })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    pub(super) fn header(&mut self, name: &str) -> Result<Header, String> {
        Header::read(&mut self.member(name)?).map_err(|reason| format!("`{name}`: {reason}"))
    }

    fn member(&mut self, name: &str) -> Result<impl Read, String> {
        self.archive
            .by_name(&format!("{name}.npy"))
            .map_err(|error| format!("`{name}`: {error}"))
    }

    /// The header and the bytes of an array, no more and no fewer than its shape needs.
    fn bytes(&mut self, name: &str) -> Result<(Header, Vec<u8>), String> {
        let mut member = self.member(name)?;
        let header = Header::read(&mut member).map_err(|reason| format!("`{name}`: {reason}"))?;
        let size = header
            .size()
            .ok_or_else(|| format!("`{name}` is larger than memory can be"))?;
        let mut bytes = Vec::new();
        // One more, to see whether there is more.
        let read = member.take(size + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("`{name}`: {error}"))?;
        match bytes.len() as u64 == size {
            true => Ok((header, bytes)),
            false => Err(format!(
                "`{name}` does not have the {size} bytes that its shape needs"
            )),
        }
    }

    /// A floating-point array.
    pub(super) fn floats(&mut self, name: &str) -> Result<Values, String> {
        let (header, bytes) = self.bytes(name)?;
        let shape: Vec<usize> = header.shape.iter().map(|length| *length as usize).collect();
        let values = match header.element {
            Element::F32 => {
                let values: Vec<f32> = words(&bytes).map(f32::from_le_bytes).collect();
                ArrayD::from_shape_vec(IxDyn(&shape), values).map(Values::F32)
            }
            Element::F64 => {
                let values: Vec<f64> = words(&bytes).map(f64::from_le_bytes).collect();
                ArrayD::from_shape_vec(IxDyn(&shape), values).map(Values::F64)
            }
            _ => return Err(format!("`{name}` is of type {}", header.type_name())),
        };
        values.map_err(|error| format!("`{name}`: {error}"))
    }

    /// Times in Unix seconds: `datetime64`, or integers that are Unix seconds.
    pub(super) fn times(&mut self, name: &str) -> Result<Vec<i64>, String> {
        let (header, bytes) = self.bytes(name)?;
        let (multiply, divide) = match header.element {
            Element::I64 => (1, 1),
            Element::Time {
                seconds,
                per_second,
            } => (seconds, per_second),
            _ => {
                return Err(format!(
                    "`{name}` is of type {}, not datetime64 or int64",
                    header.type_name()
                ));
            }
        };
        let seconds = |value: i64| {
            (value % divide == 0)
                .then(|| value.checked_mul(multiply))
                .flatten()
                .map(|value| value / divide)
                .ok_or_else(|| format!("`{name}` has a time that is not a whole second"))
        };
        words(&bytes).map(i64::from_le_bytes).map(seconds).collect()
    }
}

fn words<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> {
    bytes.as_chunks::<SIZE>().0.iter().copied()
}

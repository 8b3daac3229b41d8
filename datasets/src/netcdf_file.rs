//! A NetCDF file, read part by part.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::netcdf::{NetCdf, is_netcdf};
use crate::variable::decoded;
use crate::{Element, Error, Values};

/// A NetCDF file, classic or NetCDF-4 without groups. Values are decoded as netCDF4 and xarray decode them:
/// what is missing is NaN, packed values are unpacked, and integers that are neither stay integers.
pub struct NetCdfFile {
    path: PathBuf,
    file: NetCdf,
}

impl fmt::Debug for NetCdfFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NetCdfFile").field(&self.path).finish()
    }
}

impl NetCdfFile {
    /// Whether a file begins as NetCDF does.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn is_one(path: &Path) -> Result<bool, Error> {
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(8).read_to_end(&mut start))
            .map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?;
        Ok(is_netcdf(&start))
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read, [`Error::NotNetCdf`] if it is another kind of file, or damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let refused = |reason: String| Error::NotNetCdf {
            path: path.to_owned(),
            reason,
        };
        if !Self::is_one(path)? {
            return Err(refused("it does not begin as one".to_owned()));
        }
        Ok(Self {
            file: NetCdf::open(path).map_err(refused)?,
            path: path.to_owned(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its variables, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.file.names()
    }

    /// The attributes of the file.
    pub fn attributes(&self) -> &Map<String, Value> {
        self.file.file_attributes()
    }

    /// The dimensions of a variable and their lengths.
    ///
    /// # Errors
    /// [`Error::NoVariable`].
    pub fn dims(&self, name: &str) -> Result<&[(String, u64)], Error> {
        self.file.dims(name).map_err(|_| self.no_variable(name))
    }

    /// The attributes of a variable as stored.
    ///
    /// # Errors
    /// [`Error::NoVariable`].
    pub fn stored_attributes(&self, name: &str) -> Result<&Map<String, Value>, Error> {
        self.file
            .raw_attributes(name)
            .map_err(|_| self.no_variable(name))
    }

    /// The attributes that describe the decoded values: without those of their encoding. A
    /// [`Writer`](crate::Writer) takes these.
    ///
    /// # Errors
    /// [`Error::NoVariable`].
    pub fn decoded_attributes(&self, name: &str) -> Result<Map<String, Value>, Error> {
        Ok(decoded(self.stored_attributes(name)?))
    }

    /// An integer that an attribute has in the type of a variable's stored values, such as the end of a range, as it is
    /// after decoding.
    ///
    /// # Errors
    /// [`Error::NoVariable`].
    pub fn decoded_number(&self, name: &str, packed: i64) -> Result<Value, Error> {
        let decoding = self.file.decoding(name);
        let decoding = decoding.map_err(|_| self.no_variable(name))?;
        Ok(decoding.map_or(packed.into(), |decoding| decoding.of_attribute(packed)))
    }

    /// What the library takes in bytes while a part of a variable is read, besides values: a chunk as it is stored and
    /// as it is decompressed, and a cache of chunks.
    ///
    /// # Errors
    /// [`Error::NoVariable`], [`Error::Unreadable`].
    pub fn bytes_beside(&self, name: &str) -> Result<u64, Error> {
        self.dims(name)?;
        let bytes = self.file.bytes_beside(name);
        bytes.map_err(|reason| self.unreadable(name, reason))
    }

    /// The type of a variable's decoded values.
    ///
    /// # Errors
    /// [`Error::NoVariable`].
    pub fn element(&self, name: &str) -> Result<Element, Error> {
        let decoding = self.file.decoding(name);
        let decoding = decoding.map_err(|_| self.no_variable(name))?;
        Ok(decoding.map_or(Element::Text, |decoding| decoding.element()))
    }

    /// A part of a variable of numbers, one range for each dimension.
    ///
    /// # Errors
    /// [`Error::NoVariable`], [`Error::Range`], [`Error::Unreadable`] if its values are texts or damaged.
    pub fn read_range(&self, name: &str, ranges: &[Range<u64>]) -> Result<Values, Error> {
        let dims = self.dims(name)?;
        let is_inside = ranges.len() == dims.len()
            && ranges
                .iter()
                .zip(dims)
                .all(|(range, (_, length))| range.start <= range.end && range.end <= *length);
        if !is_inside {
            return Err(Error::Range {
                path: self.path.clone(),
                name: name.to_owned(),
                range: format!("{ranges:?}"),
                shape: dims.iter().map(|(_, length)| *length).collect(),
            });
        }
        let decoding = self.file.decoding(name);
        let decoding = decoding
            .map_err(|_| self.no_variable(name))?
            .ok_or_else(|| self.unreadable(name, "its values are texts".to_owned()))?;
        self.file
            .read_range(name, ranges, &decoding)
            .map_err(|reason| self.unreadable(name, reason))
    }

    /// All values of a variable of numbers.
    ///
    /// # Errors
    /// Those of [`Self::read_range`].
    pub fn read(&self, name: &str) -> Result<Values, Error> {
        let all: Vec<Range<u64>> = self
            .dims(name)?
            .iter()
            .map(|(_, length)| 0..*length)
            .collect();
        self.read_range(name, &all)
    }

    /// The times of a variable in seconds since 1970-01-01T00:00Z, by the CF conventions.
    ///
    /// # Errors
    /// [`Error::NoVariable`], [`Error::Time`].
    pub fn times(&self, name: &str) -> Result<Vec<i64>, Error> {
        self.dims(name)?;
        self.file.times(name).map_err(|reason| Error::Time {
            path: self.path.clone(),
            name: name.to_owned(),
            reason,
        })
    }

    /// The times of the bounds of a coordinate, which has their units, in row-major order.
    ///
    /// # Errors
    /// [`Error::NoVariable`], [`Error::Time`].
    pub fn bounds(&self, name: &str, of: &str) -> Result<Vec<i64>, Error> {
        self.dims(name)?;
        let times = self.file.times_in_units_of(name, of);
        times.map_err(|reason| Error::Time {
            path: self.path.clone(),
            name: name.to_owned(),
            reason,
        })
    }

    fn no_variable(&self, name: &str) -> Error {
        Error::NoVariable {
            path: self.path.clone(),
            name: name.to_owned(),
            names: self.names(),
        }
    }

    fn unreadable(&self, name: &str, reason: String) -> Error {
        Error::Unreadable {
            path: self.path.clone(),
            name: name.to_owned(),
            reason,
        }
    }
}

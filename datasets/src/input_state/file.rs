//! The file of an input state: a Zarr store, NetCDF or a `.npz`.

use std::path::{Path, PathBuf};
#[cfg(feature = "netcdf")]
use std::{
    fs::File,
    io::{self, Read},
};

use serde_json::{Map, Value};

use super::StateError;
use super::npz::Npz;
#[cfg(feature = "netcdf")]
use crate::netcdf::{NetCdf, is_netcdf};
use crate::{Dataset, Element, Values, Variable};

/// A file with named arrays, open.
pub(super) struct StateFile {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Zarr(Dataset),
    Npz(Npz),
    #[cfg(feature = "netcdf")]
    NetCdf(NetCdf),
}

impl Kind {
    fn of_file(path: &Path) -> Result<Self, String> {
        #[cfg(feature = "netcdf")]
        if is_netcdf(&start(path).map_err(|error| error.to_string())?) {
            return NetCdf::open(path).map(Self::NetCdf);
        }
        Npz::open(path).map(Self::Npz)
    }
}

/// The first bytes of a file.
#[cfg(feature = "netcdf")]
fn start(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut start)?;
    Ok(start)
}

impl StateFile {
    /// Opens a folder as a Zarr store, and a file as NetCDF if it begins so, else as `.npz`.
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let kind = if path.is_dir() {
            let dataset = Dataset::open(path).map_err(|error| unreadable(path, &error))?;
            Kind::Zarr(dataset)
        } else if path.is_file() {
            Kind::of_file(path).map_err(|reason| unreadable(path, &reason))?
        } else {
            return Err(StateError::NotThere(path.to_owned()));
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all arrays.
    pub(super) fn names(&self) -> Vec<String> {
        match &self.kind {
            Kind::Zarr(dataset) => dataset.names().map(str::to_owned).collect(),
            Kind::Npz(npz) => npz.names(),
            #[cfg(feature = "netcdf")]
            Kind::NetCdf(file) => file.names(),
        }
    }

    /// The times in Unix seconds; no more than a few of them are read.
    pub(super) fn times(&mut self, expected: usize) -> Result<Vec<i64>, StateError> {
        let path = &self.path;
        if !self.names().iter().any(|name| name == "time") {
            return Err(StateError::Missing {
                path: path.clone(),
                name: "time".to_owned(),
                there: self.names(),
            });
        }
        let shape_error = |found: &[u64]| StateError::Shape {
            path: path.clone(),
            field: "time".to_owned(),
            found: format!("{found:?}"),
            expected: format!("[{expected}]"),
        };
        match &mut self.kind {
            Kind::Zarr(dataset) => {
                let shape = dataset
                    .variable("time")
                    .map_err(|error| unreadable(path, &error))?
                    .shape()
                    .to_vec();
                if shape != [expected as u64] {
                    return Err(shape_error(&shape));
                }
                dataset
                    .times("time")
                    .map_err(|error| unreadable(path, &error))
            }
            Kind::Npz(npz) => {
                let found = npz
                    .header("time")
                    .map_err(|reason| unreadable(path, &reason))?;
                if found.shape != [expected as u64] {
                    return Err(shape_error(&found.shape));
                }
                npz.times("time")
                    .map_err(|reason| unreadable(path, &reason))
            }
            #[cfg(feature = "netcdf")]
            Kind::NetCdf(file) => {
                let unreadable = |reason: String| unreadable(path, &reason);
                let dims = file.dims("time").map_err(unreadable)?;
                let shape: Vec<u64> = dims.iter().map(|(_, length)| *length).collect();
                if shape != [expected as u64] {
                    return Err(shape_error(&shape));
                }
                file.times("time").map_err(unreadable)
            }
        }
    }

    /// An array of known dimensions and a type, `float32`, `float64` or either.
    pub(super) fn read(
        &mut self,
        name: &str,
        dims: &[(&str, u64)],
        dtype: &str,
    ) -> Result<Values, StateError> {
        let path = &self.path;
        let expected: Vec<u64> = dims.iter().map(|(_, length)| *length).collect();
        let shape_error = |found: String| StateError::Shape {
            path: path.clone(),
            field: name.to_owned(),
            found,
            expected: named(dims),
        };
        let type_error = |found: &str| StateError::Type {
            path: path.clone(),
            field: name.to_owned(),
            found: found.to_owned(),
            expected: dtype.to_owned(),
        };
        match &mut self.kind {
            Kind::Zarr(dataset) => {
                let variable = dataset
                    .variable(name)
                    .map_err(|error| unreadable(path, &error))?;
                let names = variable.dims().iter().map(String::as_str);
                let found: Vec<(&str, u64)> = names.zip(variable.shape().iter().copied()).collect();
                if found != dims {
                    return Err(shape_error(named(&found)));
                }
                let element = variable.element();
                if !matches!(element, Element::F32 | Element::F64)
                    || !dtype.contains(element.name())
                {
                    return Err(type_error(element.name()));
                }
                let missing = variable
                    .missing_chunks()
                    .map_err(|error| unreadable(path, &error))?;
                if missing > 0 {
                    let reason = format!("{missing} chunks of `{name}` were never written");
                    return Err(unreadable(path, &reason));
                }
                variable.read().map_err(|error| unreadable(path, &error))
            }
            Kind::Npz(npz) => {
                let header = npz
                    .header(name)
                    .map_err(|reason| unreadable(path, &reason))?;
                if header.shape != expected {
                    return Err(shape_error(format!("{:?}", header.shape)));
                }
                if !dtype.contains(header.type_name()) {
                    return Err(type_error(header.type_name()));
                }
                npz.floats(name).map_err(|reason| unreadable(path, &reason))
            }
            #[cfg(feature = "netcdf")]
            Kind::NetCdf(file) => {
                let unreadable = |reason: String| unreadable(path, &reason);
                let found = file.dims(name).map_err(unreadable)?.iter();
                let found: Vec<(&str, u64)> = found
                    .map(|(name, length)| (name.as_str(), *length))
                    .collect();
                if found != dims {
                    return Err(shape_error(named(&found)));
                }
                let element = file.element(name).map_err(unreadable)?;
                if !matches!(element, Element::F32 | Element::F64)
                    || !dtype.contains(element.name())
                {
                    return Err(type_error(element.name()));
                }
                file.read(name).map_err(unreadable)
            }
        }
    }

    /// The attributes of an array, without those that name other variables.
    pub(super) fn attributes(&self, name: &str) -> Map<String, Value> {
        match &self.kind {
            Kind::Zarr(dataset) => dataset
                .variable(name)
                .map(Variable::plain_attributes)
                .unwrap_or_default(),
            Kind::Npz(_) => Map::new(),
            #[cfg(feature = "netcdf")]
            Kind::NetCdf(file) => file.attributes(name),
        }
    }
}

fn named(dims: &[(&str, u64)]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|(name, length)| format!("{name}: {length}"))
        .collect();
    format!("({})", dims.join(", "))
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> StateError {
    StateError::Unreadable {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

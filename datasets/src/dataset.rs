//! A Zarr group as named variables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use zarrs::filesystem::FilesystemStore;

use crate::group::{ArrayDocument, Group};
use crate::variable::Variable;
use crate::{Error, ZarrFormat, cf_time};

/// A Zarr group on a local file system, read-only, as xarray reads it: version 2 or 3, with
/// consolidated metadata or without. Opening reads metadata only.
#[derive(Debug)]
pub struct Dataset {
    path: PathBuf,
    format: ZarrFormat,
    attributes: Map<String, Value>,
    /// What makes an array unreadable matters only to those who read it.
    variables: BTreeMap<String, Result<Variable, String>>,
}

impl Dataset {
    /// Opens the group in a folder.
    ///
    /// # Errors
    /// If the folder is not a Zarr group, or its metadata is not valid. An array that mlwm cannot
    /// read is an error only when it is asked for.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let group = Group::read(path)?;
        let store = FilesystemStore::new(path).map_err(|error| Error::Metadata {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let store = Arc::new(store);
        let variable = |(name, array): (String, ArrayDocument)| {
            let variable = Variable::new(path, &name, group.format, array, Arc::clone(&store));
            (name, variable)
        };
        Ok(Self {
            path: path.to_owned(),
            format: group.format,
            attributes: group.attributes,
            variables: group.arrays.into_iter().map(variable).collect(),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version of the Zarr format.
    pub fn format(&self) -> ZarrFormat {
        self.format
    }

    /// The attributes of the group.
    pub fn attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    /// The names of the arrays directly in the group, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Whether there is an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// The variable of this name.
    ///
    /// # Errors
    /// [`Error::NoVariable`] with the names there are, or [`Error::Unreadable`] if it has no
    /// dimension names, or a data type or codec that mlwm does not know.
    pub fn variable(&self, name: &str) -> Result<&Variable, Error> {
        match self.variables.get(name) {
            Some(Ok(variable)) => Ok(variable),
            Some(Err(reason)) => Err(Error::Unreadable {
                path: self.path.clone(),
                name: name.to_owned(),
                reason: reason.clone(),
            }),
            None => Err(Error::NoVariable {
                path: self.path.clone(),
                name: name.to_owned(),
                names: self.names().map(str::to_owned).collect(),
            }),
        }
    }

    /// The times in a variable in seconds since 1970-01-01T00:00Z, in row-major order, decoded by
    /// the CF conventions (units like `hours since 2022-04-01`).
    ///
    /// # Errors
    /// [`Error::Time`] for other units or calendars, missing times, and times that are not within
    /// 1 ms of a whole second; otherwise as [`Variable::read`].
    pub fn times(&self, name: &str) -> Result<Vec<i64>, Error> {
        let variable = self.variable(name)?;
        cf_time::times(&variable.read()?, variable.stored(), variable.attributes())
            .map_err(|reason| self.time_error(name, reason))
    }

    /// The durations in a variable in seconds, in row-major order, decoded by the CF conventions
    /// (units like `hours`).
    ///
    /// # Errors
    /// As [`Self::times`].
    pub fn durations(&self, name: &str) -> Result<Vec<i64>, Error> {
        let variable = self.variable(name)?;
        cf_time::durations(&variable.read()?, variable.stored(), variable.attributes())
            .map_err(|reason| self.time_error(name, reason))
    }

    /// The texts in a variable, in row-major order.
    ///
    /// # Errors
    /// [`Error::Element`] if it does not hold texts; otherwise as [`Variable::read`].
    pub fn texts(&self, name: &str) -> Result<Vec<String>, Error> {
        let texts = self.variable(name)?.read()?.into_text()?;
        Ok(texts.into_iter().collect())
    }

    fn time_error(&self, name: &str, reason: String) -> Error {
        Error::Time {
            path: self.path.clone(),
            name: name.to_owned(),
            reason,
        }
    }
}

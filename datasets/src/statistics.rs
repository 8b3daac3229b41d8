//! The statistics a model was trained with: variables named `{variable}__{split}__{statistic}`,
//! such as `state__train__mean`, with one value per feature, as mllam-data-prep writes them into
//! a training dataset.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{Dataset, Definition, Element, Error, Writer, ZarrFormat};

/// What follows the name of a feature dimension in the names of its coordinates.
const FEATURE_COORDINATES: [&str; 4] = ["", "_units", "_long_name", "_source_dataset"];

/// The statistics in a training dataset, or in the subset that [`extract_statistics`] writes.
#[derive(Debug)]
pub struct Statistics {
    dataset: Dataset,
}

/// One statistic of each feature of a variable.
#[derive(Clone, Debug, PartialEq)]
pub struct StatisticValues {
    /// The values in the order of the features.
    pub values: Vec<f64>,
    /// The type they are stored in; `values` holds them exactly.
    pub element: Element,
}

impl Statistics {
    /// Opens a Zarr store with statistics.
    ///
    /// # Errors
    /// As [`Dataset::open`], or [`Error::Statistics`] if the store has none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let dataset = Dataset::open(path)?;
        if !dataset.names().any(|name| parts(name).is_some()) {
            return Err(none_there(path));
        }
        Ok(Self { dataset })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dataset.path()
    }

    /// The variables that there are statistics of, such as `state`, sorted.
    pub fn variables(&self) -> Vec<String> {
        let names = self.dataset.names().filter_map(parts);
        let variables: BTreeSet<String> = names.map(|[variable, ..]| variable.to_owned()).collect();
        variables.into_iter().collect()
    }

    /// The names of a variable's features.
    ///
    /// # Errors
    /// [`Error::Statistics`] if there are no statistics of the variable; otherwise as
    /// [`Dataset::texts`].
    pub fn features(&self, variable: &str) -> Result<Vec<String>, Error> {
        self.dataset.texts(&self.feature_dimension(variable)?)
    }

    /// The units of a variable's features.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn units(&self, variable: &str) -> Result<Vec<String>, Error> {
        let dimension = self.feature_dimension(variable)?;
        self.dataset.texts(&format!("{dimension}_units"))
    }

    /// The long names of a variable's features.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn long_names(&self, variable: &str) -> Result<Vec<String>, Error> {
        let dimension = self.feature_dimension(variable)?;
        self.dataset.texts(&format!("{dimension}_long_name"))
    }

    /// One statistic (`mean`, `std`, `diff_mean`, `diff_std`) of each feature of a variable
    /// (`state`, `forcing`, `static`) over a split (`train`).
    ///
    /// # Errors
    /// [`Error::NoVariable`] if there is no such statistic, [`Error::Statistics`] if it does not
    /// have one finite number per feature.
    pub fn get(
        &self,
        variable: &str,
        split: &str,
        statistic: &str,
    ) -> Result<StatisticValues, Error> {
        let name = format!("{variable}__{split}__{statistic}");
        let stored = self.dataset.variable(&name)?;
        let refuse = |reason: String| Error::Statistics {
            path: self.path().to_owned(),
            reason,
        };
        if stored.dims().len() != 1 {
            return Err(refuse(format!(
                "`{name}` has the dimensions {:?}, not one",
                stored.dims()
            )));
        }
        let element = stored.element();
        let values: Vec<f64> = stored.read()?.into_f64()?.into_iter().collect();
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(refuse(format!("`{name}` contains {value}")));
        }
        Ok(StatisticValues { values, element })
    }

    /// The name of the dimension of a variable's features, which is also the name of the
    /// coordinate with their names: that of its statistics, by convention `{variable}_feature`.
    fn feature_dimension(&self, variable: &str) -> Result<String, Error> {
        let refuse = |reason: String| Error::Statistics {
            path: self.path().to_owned(),
            reason,
        };
        let name = self
            .dataset
            .names()
            .find(|name| parts(name).is_some_and(|[of, ..]| of == variable))
            .ok_or_else(|| {
                let there = self.variables().join(", ");
                refuse(format!("there are none of `{variable}`, only of {there}"))
            })?;
        match self.dataset.variable(name)?.dims() {
            [dimension] => Ok(dimension.clone()),
            dims => Err(refuse(format!(
                "`{name}` has the dimensions {dims:?}, not one"
            ))),
        }
    }
}

/// Writes the statistics of a training dataset, with the names, units, long names and sources of
/// their features, into a store of their own: version 3, with all attributes, and the same bytes
/// every time. The training dataset may be of version 2.
///
/// # Errors
/// [`Error::Statistics`] if there are none, [`Error::Exists`] if there is something at `out`;
/// otherwise as reading and writing.
pub fn extract_statistics(training: &Path, out: &Path) -> Result<(), Error> {
    let dataset = Dataset::open(training)?;
    let mut names: BTreeSet<String> = BTreeSet::new();
    for name in dataset.names().filter(|name| parts(name).is_some()) {
        names.insert(name.to_owned());
        for dimension in dataset.variable(name)?.dims() {
            let coordinates = FEATURE_COORDINATES.map(|suffix| format!("{dimension}{suffix}"));
            names.extend(
                coordinates
                    .into_iter()
                    .filter(|name| dataset.contains(name)),
            );
        }
    }
    if names.is_empty() {
        return Err(none_there(training));
    }
    let mut writer = Writer::create(out, ZarrFormat::V3, dataset.attributes().clone())?;
    for name in names {
        let variable = dataset.variable(&name)?;
        let values = variable.read()?;
        let dims: Vec<(&str, u64)> = variable
            .dims()
            .iter()
            .map(String::as_str)
            .zip(variable.shape().iter().copied())
            .collect();
        let definition = Definition::new(&name, &dims, variable.element())
            .attributes(variable.decoded_attributes());
        writer.define(&definition)?;
        writer.write(&name, values)?;
    }
    writer.finish()
}

/// The variable, split and statistic in a name of exactly three parts.
fn parts(name: &str) -> Option<[&str; 3]> {
    let parts: Vec<&str> = name.split("__").collect();
    parts.try_into().ok()
}

fn none_there(path: &Path) -> Error {
    Error::Statistics {
        path: PathBuf::from(path),
        reason: "there are no variables named like `state__train__mean`".to_owned(),
    }
}

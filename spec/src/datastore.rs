//! The configurations that neural-lam and mllam-data-prep 0.7 read: which datastores a model uses,
//! and how each is made from source datasets.

#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Versions of the mllam-data-prep configuration that are understood (those of its release 0.7).
pub const SCHEMA_VERSIONS: [&str; 3] = ["v0.2.0", "v0.5.0", "v0.6.0"];

/// What ends the file name of a datastore configuration.
pub const DATASTORE_SUFFIX: &str = ".datastore.yaml";

/// A neural-lam configuration; only what names datastores is read, the rest is carried along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeuralLamConfig {
    /// The only datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<DatastoreReference>,
    /// Several datastores by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastores: Option<IndexMap<String, DatastoreReference>>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: IndexMap<String, Value>,
}

/// How a neural-lam configuration names a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatastoreReference {
    /// Kind of datastore: `mdp` is the one mlwm understands.
    pub kind: String,
    /// Path of its configuration, relative to the neural-lam configuration.
    pub config_path: String,
}

/// A neural-lam configuration that names its datastores wrongly.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DatastoreNamesError {
    /// Neither `datastore` nor `datastores`.
    #[error("the neural-lam configuration has neither `datastore:` nor `datastores:`: add one")]
    None,
    /// Both.
    #[error("the neural-lam configuration has both `datastore:` and `datastores:`: keep one")]
    Both,
    /// A kind that mlwm does not understand.
    #[error("datastore `{name}` is of kind `{kind}`: only `mdp` is understood")]
    Kind {
        /// Name of the datastore.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// A name that cannot be a file name and part of `DATASTORE_INPUT_PATHS`.
    #[error(
        "`{0}` cannot be the name of a datastore: name it under `datastores:` (its file can stay as it is called), with letters, digits, `_` and `-`"
    )]
    Name(String),
}

impl NeuralLamConfig {
    /// The datastores by name, in the order of the configuration. The only datastore of a
    /// `datastore:` entry is called after its file, without `.datastore.yaml` (or `.yaml`).
    pub fn named_datastores(
        &self,
    ) -> Result<Vec<(String, &DatastoreReference)>, DatastoreNamesError> {
        let named: Vec<(String, &DatastoreReference)> = match (&self.datastore, &self.datastores) {
            (Some(_), Some(_)) => return Err(DatastoreNamesError::Both),
            (Some(only), None) => vec![(datastore_name(&only.config_path), only)],
            (None, Some(several)) if !several.is_empty() => {
                several.iter().map(|(name, r)| (name.clone(), r)).collect()
            }
            _ => return Err(DatastoreNamesError::None),
        };
        for (name, reference) in &named {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(plain) {
                return Err(DatastoreNamesError::Name(name.clone()));
            }
            if reference.kind != "mdp" {
                return Err(DatastoreNamesError::Kind {
                    name: name.clone(),
                    kind: reference.kind.clone(),
                });
            }
        }
        Ok(named)
    }
}

/// The name of the datastore whose configuration lies at this path.
pub fn datastore_name(config_path: &str) -> String {
    let file = config_path.rsplit('/').next().unwrap_or(config_path);
    let stem = file
        .strip_suffix(DATASTORE_SUFFIX)
        .or_else(|| file.strip_suffix(".yaml"))
        .or_else(|| file.strip_suffix(".yml"))
        .unwrap_or(file);
    stem.to_owned()
}

/// An mllam-data-prep configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatastoreConfig {
    /// Version of the schema: one of [`SCHEMA_VERSIONS`].
    pub schema_version: String,
    /// Version of the dataset.
    pub dataset_version: String,
    /// What is made.
    pub output: Output,
    /// What it is made from, in order.
    pub inputs: IndexMap<String, InputDataset>,
    /// Anything that mllam-data-prep does not look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Value>,
}

/// What a datastore holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Dimensions of each variable (`state`, `forcing`, `static`).
    pub variables: IndexMap<String, Vec<String>>,
    /// Ranges of coordinates of the training dataset.
    #[serde(default)]
    pub coord_ranges: Option<IndexMap<String, Range>>,
    /// Chunk sizes of the training dataset.
    #[serde(default)]
    pub chunking: Option<IndexMap<String, u64>>,
    /// Splits of the training dataset and the statistics of each.
    #[serde(default)]
    pub splitting: Option<Splitting>,
    /// Cropping around another domain.
    #[serde(default)]
    pub domain_cropping: Option<Value>,
}

/// A range of coordinate values, both ends included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// First value.
    pub start: Value,
    /// Last value.
    pub end: Value,
    /// Step that the data must have.
    #[serde(default)]
    pub step: Option<Value>,
}

/// Splits of a training dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splitting {
    /// Dimension that is split.
    pub dim: String,
    /// The splits by name.
    pub splits: IndexMap<String, Split>,
}

/// One split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// First value.
    pub start: Value,
    /// Last value.
    pub end: Value,
    /// Statistics to compute.
    #[serde(default)]
    pub compute_statistics: Option<Statistics>,
}

/// Statistics of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// `mean`, `std`, `diff_mean`, `diff_std`.
    pub ops: Vec<String>,
    /// Dimensions that are reduced.
    pub dims: Vec<String>,
}

/// One source dataset and how it maps to a variable of the datastore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputDataset {
    /// Where it lay when the training dataset was made.
    pub path: String,
    /// Dimensions its variables may have.
    pub dims: Vec<String>,
    /// How its dimensions and variables map to the dimensions of the target.
    pub dim_mapping: IndexMap<String, DimMapping>,
    /// The variable of the datastore that it goes into.
    pub target_output_variable: String,
    /// Variables that are taken, in order, some with a selection of coordinate values.
    #[serde(default)]
    pub variables: Option<Variables>,
    /// Variables that are computed, in order.
    #[serde(default)]
    pub derived_variables: Option<IndexMap<String, DerivedVariable>>,
    /// Attributes that the dataset must have.
    #[serde(default)]
    pub attributes: Option<IndexMap<String, Value>>,
    /// Ranges of its coordinates.
    #[serde(default)]
    pub coord_ranges: Option<IndexMap<String, Range>>,
}

/// Variables taken from a source dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of variable names, or variables with selections of coordinate values"
)]
pub enum Variables {
    /// Names alone.
    Names(Vec<String>),
    /// Names with selections by coordinate.
    Selections(IndexMap<String, Option<IndexMap<String, ValueSelection>>>),
}

/// Which values of a coordinate are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueSelection {
    /// A list of numbers, one number, or a range.
    pub values: SelectedValues,
    /// Units that the coordinate must have, if it has any.
    #[serde(default)]
    pub units: Option<String>,
}

/// The values of a selection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of numbers, one number, or a range with `start` and `end`"
)]
pub enum SelectedValues {
    /// These, in this order.
    List(Vec<f64>),
    /// This one; its dimension goes away.
    One(f64),
    /// All from start to end.
    Range(Range),
}

/// A variable computed by a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DerivedVariable {
    /// Arguments; `ds_input.NAME` stands for a variable of the source dataset.
    pub kwargs: IndexMap<String, Value>,
    /// Dotted name of the Python function.
    pub function: String,
    /// Attributes of the result.
    #[serde(default)]
    pub attrs: Option<IndexMap<String, String>>,
}

/// How one dimension of the target comes about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DimMapping {
    /// `rename`, `stack` or `stack_variables_by_var_name`.
    pub method: String,
    /// Dimensions that are stacked.
    #[serde(default)]
    pub dims: Option<Vec<String>>,
    /// Dimension that is renamed.
    #[serde(default)]
    pub dim: Option<String>,
    /// How a feature is called: `{var_name}`, `{var_name}{altitude}m`.
    #[serde(default)]
    pub name_format: Option<String>,
    /// Ranges of coordinates (mllam-data-prep 0.7 accepts and ignores it).
    #[serde(default)]
    pub coord_ranges: Option<IndexMap<String, Range>>,
}

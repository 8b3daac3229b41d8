//! The container contract, version 1: what mlwm tells a model's container and what it expects
//! back. `docs/container-contract.md` is its specification.

pub mod convert;
pub mod stream;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::DatastoreConfig;

/// Where the inference artifact lies in the container.
pub const ARTIFACT_DIR: &str = "/workspace/inference_artifact";

/// Names of the environment variables that every container gets.
pub mod env {
    /// The time the forecast starts from, `2022-04-07T03:00Z`.
    pub const ANALYSIS_TIME: &str = "ANALYSIS_TIME";
    /// The length of the forecast, ISO 8601.
    pub const FORECAST_DURATION: &str = "FORECAST_DURATION";
    /// The number of forecast steps.
    pub const NUM_EVAL_STEPS: &str = "NUM_EVAL_STEPS";
    /// `time`, or `analysis_time,elapsed_forecast_duration`.
    pub const TIME_DIMENSIONS: &str = "TIME_DIMENSIONS";
    /// `{datastore}.{input}={path}`, comma-separated.
    pub const DATASTORE_INPUT_PATHS: &str = "DATASTORE_INPUT_PATHS";
    /// Where every input is, also those of no datastore: a JSON object, name of the configuration's
    /// input → path.
    pub const MLWM_INPUTS: &str = "MLWM_INPUTS";
    /// A writable folder for intermediate files.
    pub const INFERENCE_WORKDIR: &str = "INFERENCE_WORKDIR";
    /// The ensemble member; 0 is the control.
    pub const MLWM_MEMBER: &str = "MLWM_MEMBER";
    /// The seed of this task's random numbers.
    pub const MLWM_SEED: &str = "MLWM_SEED";
    /// Set (to `1`) if the same must give the same bytes.
    pub const MLWM_DETERMINISTIC: &str = "MLWM_DETERMINISTIC";
    /// The version of the contract: `1`.
    pub const MLWM_CONTRACT: &str = "MLWM_CONTRACT";
    /// The outputs to write: a JSON list of [`super::OutputRequest`].
    pub const MLWM_OUTPUTS: &str = "MLWM_OUTPUTS";
    /// The identity of the task, to be recorded in what the container writes.
    pub const MLWM_TASK: &str = "MLWM_TASK";
    /// Set (to `1`) if the container was given GPUs.
    pub const MLWM_GPUS: &str = "MLWM_GPUS";
    /// The folder of a container that serves many members: see [`super::stream`].
    pub const MLWM_STREAM: &str = "MLWM_STREAM";

    /// All of them: a configuration must not set any.
    pub const ALL: [&str; 15] = [
        ANALYSIS_TIME,
        FORECAST_DURATION,
        NUM_EVAL_STEPS,
        TIME_DIMENSIONS,
        DATASTORE_INPUT_PATHS,
        MLWM_INPUTS,
        INFERENCE_WORKDIR,
        MLWM_MEMBER,
        MLWM_SEED,
        MLWM_DETERMINISTIC,
        MLWM_CONTRACT,
        MLWM_OUTPUTS,
        MLWM_TASK,
        MLWM_GPUS,
        MLWM_STREAM,
    ];
}

/// One output that the container is asked to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRequest {
    /// Name of the output in the configuration.
    pub name: String,
    /// Path in the container at which to write the Zarr store.
    pub path: String,
    /// The variables to write; all predicted ones if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Vec<String>>,
    /// Zarr format, 2 or 3.
    #[serde(default = "default_zarr_format")]
    pub zarr_format: u8,
}

fn default_zarr_format() -> u8 {
    3
}

/// How the time axis of inputs and outputs is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
pub enum TimeLayout {
    /// One dimension, `time`: valid times.
    #[default]
    Time,
    /// Two dimensions, `analysis_time` and `elapsed_forecast_duration`.
    Forecast,
}

impl TimeLayout {
    /// The layout that datastores have: [`Self::Forecast`] if a variable of any has the dimension
    /// `elapsed_forecast_duration`.
    pub fn of<'a>(datastores: impl IntoIterator<Item = &'a DatastoreConfig>) -> Self {
        let mut variables = datastores
            .into_iter()
            .flat_map(|config| config.output.variables.values());
        match variables.any(|dims| dims.iter().any(|dim| dim == "elapsed_forecast_duration")) {
            true => Self::Forecast,
            false => Self::Time,
        }
    }

    /// Its value in [`env::TIME_DIMENSIONS`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Forecast => "analysis_time,elapsed_forecast_duration",
        }
    }

    /// Reads the value of [`env::TIME_DIMENSIONS`].
    pub fn parse(text: &str) -> Result<Self, ContractError> {
        let dims: Vec<&str> = text.split(',').map(str::trim).collect();
        match dims.as_slice() {
            ["time"] => Ok(Self::Time),
            ["analysis_time", "elapsed_forecast_duration"] => Ok(Self::Forecast),
            _ => Err(ContractError::TimeDimensions(text.to_owned())),
        }
    }
}

/// One `{datastore}.{input}={path}` of [`env::DATASTORE_INPUT_PATHS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreInputPath {
    /// Name of the datastore.
    pub datastore: String,
    /// Name of the input in the datastore's configuration.
    pub input: String,
    /// Where its Zarr store is mounted.
    pub path: String,
}

/// A value of the contract's environment that breaks the contract.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContractError {
    /// Malformed `DATASTORE_INPUT_PATHS`.
    #[error("`{0}` in DATASTORE_INPUT_PATHS is not of the form `datastore.input=path`")]
    InputPath(String),
    /// A name or path that cannot be written in `DATASTORE_INPUT_PATHS`.
    #[error(
        "`{0}` cannot be passed in DATASTORE_INPUT_PATHS: it is empty or holds a `,`, `=` or a dot in the datastore's name"
    )]
    Unencodable(String),
    /// Malformed `TIME_DIMENSIONS`.
    #[error("TIME_DIMENSIONS is `{0}`: use `time` or `analysis_time,elapsed_forecast_duration`")]
    TimeDimensions(String),
    /// Malformed `MLWM_OUTPUTS`.
    #[error("MLWM_OUTPUTS is not the JSON list that the contract asks for: {0}")]
    Outputs(String),
    /// Malformed `MLWM_INPUTS`.
    #[error("MLWM_INPUTS is not the JSON object of paths that the contract asks for: {0}")]
    Inputs(String),
}

/// Writes [`env::DATASTORE_INPUT_PATHS`].
pub fn encode_input_paths(paths: &[DatastoreInputPath]) -> Result<String, ContractError> {
    let mut parts = Vec::with_capacity(paths.len());
    for entry in paths {
        let bad = |text: &str| text.is_empty() || text.contains([',', '=']);
        if bad(&entry.datastore) || entry.datastore.contains('.') {
            return Err(ContractError::Unencodable(entry.datastore.clone()));
        }
        for text in [&entry.input, &entry.path] {
            if bad(text) {
                return Err(ContractError::Unencodable(text.clone()));
            }
        }
        parts.push(format!(
            "{}.{}={}",
            entry.datastore, entry.input, entry.path
        ));
    }
    Ok(parts.join(","))
}

/// Reads [`env::DATASTORE_INPUT_PATHS`]. The datastore's name ends at the first dot.
pub fn parse_input_paths(text: &str) -> Result<Vec<DatastoreInputPath>, ContractError> {
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let invalid = || ContractError::InputPath(part.to_owned());
            let (name, path) = part.trim().split_once('=').ok_or_else(invalid)?;
            let (datastore, input) = name.split_once('.').ok_or_else(invalid)?;
            if datastore.is_empty() || input.is_empty() || path.is_empty() {
                return Err(invalid());
            }
            Ok(DatastoreInputPath {
                datastore: datastore.to_owned(),
                input: input.to_owned(),
                path: path.to_owned(),
            })
        })
        .collect()
}

/// Reads [`env::MLWM_OUTPUTS`].
pub fn parse_outputs(text: &str) -> Result<Vec<OutputRequest>, ContractError> {
    serde_json::from_str(text).map_err(|error| ContractError::Outputs(error.to_string()))
}

/// Reads [`env::MLWM_INPUTS`].
pub fn parse_inputs(text: &str) -> Result<BTreeMap<String, String>, ContractError> {
    serde_json::from_str(text).map_err(|error| ContractError::Inputs(error.to_string()))
}

/// What a line of progress starts with; the rest of the line is one JSON object.
pub const PROGRESS_PREFIX: &str = "::mlwm ";

/// Progress that a container reports on its standard output. Fields it does not know are kept out,
/// so that a newer image runs under an older mlwm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub of: u64,
}

impl Progress {
    /// The line to print.
    pub fn line(&self) -> String {
        format!(
            "{PROGRESS_PREFIX}{{\"step\":{},\"of\":{}}}",
            self.step, self.of
        )
    }

    /// Reads a line of the container's output; `None` if it is not a line of progress.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim_end().strip_prefix(PROGRESS_PREFIX)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_paths_round_trip() {
        let paths = vec![
            DatastoreInputPath {
                datastore: "danra".into(),
                input: "danra_surface".into(),
                path: "/volume/inputs/a.zarr".into(),
            },
            DatastoreInputPath {
                datastore: "era5".into(),
                input: "levels.500".into(),
                path: "/volume/inputs/b.zarr".into(),
            },
        ];
        let text = encode_input_paths(&paths).unwrap();
        assert_eq!(
            text,
            "danra.danra_surface=/volume/inputs/a.zarr,era5.levels.500=/volume/inputs/b.zarr"
        );
        assert_eq!(parse_input_paths(&text), Ok(paths));
        for bad in ["x=/a", "a.b", "a.=/x", ".b=/x", "a.b="] {
            assert!(parse_input_paths(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn progress_round_trip_and_plain_log() {
        let progress = Progress { step: 3, of: 65 };
        assert_eq!(progress.line(), r#"::mlwm {"step":3,"of":65}"#);
        assert_eq!(Progress::parse(&progress.line()), Some(progress));
        assert_eq!(Progress::parse("loading model"), None);
        assert_eq!(
            Progress::parse(r#"::mlwm {"step":1,"of":2,"later":true}"#),
            Some(Progress { step: 1, of: 2 })
        );
    }
}

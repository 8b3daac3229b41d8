//! `config.yaml`: the configuration of one model.
//!
//! The types are here and in `convert`, `ensemble`, `retries`, `steps` and `windows`; `uri` turns the place of a dataset into a URI, `rules` holds what a
//! configuration must obey beyond its types.

mod convert;
mod ensemble;
mod environment;
mod grib;
mod retries;
mod rules;
mod steps;
#[cfg(test)]
mod tests;
mod uri;
mod windows;

use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bytes::ByteSize;
use crate::contract::TimeLayout;
use crate::dataset_path::{BoundingBox, Resolution};
use crate::outline::Outline;
use crate::yaml::{self, YamlError};
use crate::{ArtifactReference, Digest, Members, Period};

pub use convert::Convert;
pub use ensemble::{Ensemble, InvalidProduct, Product};
pub use environment::EnvironmentProblem;
pub use grib::{GaussianGrid, Grib, GribLevel, GribPacking, GribParameter, InvalidGrid, Since};
pub use retries::Retries;
pub use rules::Problem;
pub use steps::{Files, Foreach, InvalidForeach, Part, StepProblem};
pub use uri::UriError;
pub use windows::{Hours, InvalidHours, StoredAs, Windows};

/// The configuration of one model, as its `config.yaml` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Name of a step; a configuration has that of its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is repeated over, each time in a container of its own: `month in 2020-02..2022-12` (docs/steps.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<Foreach>,
    /// What is run one after the other instead of one model: each step has the keys of a configuration, and a
    /// `name` (docs/steps.md). `docker_image`, `timeout`, `retries` and `environment` beside `steps` are those
    /// of each step that has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Configuration>,
    /// Reference of the image that runs the model. Without it, the image that `mlwm image build`
    /// makes: `mlwm/<configuration>:latest`.
    #[serde(default, alias = "image", skip_serializing_if = "Option::is_none")]
    pub docker_image: Option<String>,
    /// Inference artifact: the path of a zip, optionally pinned by `@sha256:…`; or one in a
    /// registry, which must be pinned: `s3://bucket/models/gefion-1@sha256:…`, or `gefion-1@sha256:…`
    /// in the registry of `MLWM_REGISTRY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub artifact: Option<ArtifactReference>,
    /// How the container gets the artifact: in the image (`bake`, the default), or from the cache of
    /// the machine that runs it (`mount`), so that the image holds only the environment.
    #[serde(default, skip_serializing_if = "ArtifactDelivery::is_default")]
    pub artifact_delivery: ArtifactDelivery,
    /// Reference of the image that `mlwm image build` starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_image: Option<String>,
    /// What the container runs, instead of what its image says: `{inputs.grib}` and `{outputs.store}` stand for
    /// the paths of these datasets in it, `{analysis_time}` and `{member}` for those of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// What the model reads.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub inputs: IndexMap<String, Input>,
    /// What the model writes.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub outputs: IndexMap<String, Output>,
    /// Length of the forecast, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_duration: Option<Period>,
    /// Layout of the time axis; without it, that of the artifact's datastore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_layout: Option<TimeLayout>,
    /// Ensemble members; the control alone if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// Seed of the random numbers of member 0, to which that of another adds its number; made of analysis time and
    /// member if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
    /// Whether the model is told to compute so that the same gives the same bytes, which may be slower.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
    /// What is published of the members together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Ensemble>,
    /// What a container may use.
    #[serde(default)]
    pub resources: Resources,
    /// Time after which a container is stopped, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// How often a task that failed is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Environment variables for the container. Never credentials: they would be recorded.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("additionalProperties" = {"type": ["string", "number", "boolean"]}))]
    pub environment: IndexMap<String, String>,
    /// Whether the container reaches the network, as one that fetches data must. None does without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
    /// Names of environment variables of mlwm that the container gets, too: credentials. Only the names are
    /// recorded, and in the container's log the values are blacked out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<String>,
}

/// A `config.yaml` that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigurationError {
    /// It is not YAML, or does not fit the schema.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// It fits the schema and breaks rules: all of them, one a line.
    #[error("{}", lines(.0))]
    Rules(Vec<Violation>),
}

/// A rule that a configuration breaks.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{source_name}{}: `{key}`: {problem}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
pub struct Violation {
    /// The file that was read.
    pub source_name: String,
    /// The line of the value, counted from 1, where it is known.
    pub line: Option<u64>,
    /// The key of the value, `inputs.danra.internal_path`.
    pub key: String,
    /// What is wrong and what to do.
    pub problem: Problem,
}

fn lines(violations: &[Violation]) -> String {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    lines.join("\n")
}

impl Configuration {
    /// Reads a `config.yaml` and checks every rule; `source_name` is what errors call the file.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, ConfigurationError> {
        let configuration: Self = yaml::parse(text, source_name)?;
        let broken = rules::broken(&configuration);
        if broken.is_empty() {
            return Ok(configuration);
        }
        let outline = Outline::of(text);
        let violations = broken.into_iter().map(|(path, problem)| Violation {
            source_name: source_name.to_owned(),
            line: outline.line(&path),
            key: path.join("."),
            problem,
        });
        Err(ConfigurationError::Rules(violations.collect()))
    }

    /// The reference of the image that runs the model: that of the configuration, or for the
    /// configuration called `name` the one that `mlwm image build` makes.
    pub fn image_reference(&self, name: &str) -> String {
        match &self.docker_image {
            Some(reference) => reference.clone(),
            None => format!("mlwm/{}:latest", repository_name(name)),
        }
    }

    /// The JSON Schema of `config.yaml`.
    pub fn json_schema() -> Value {
        let mut schema = schemars::schema_for!(Self);
        // The other name of `docker_image` is a property of its own to an editor.
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            let image = json!({
                "description": "Another name of `docker_image`.",
                "type": ["string", "null"],
            });
            properties.insert("image".to_owned(), image);
        }
        schema.to_value()
    }

    /// The digest of the bytes of a `config.yaml`.
    pub fn digest(text: &str) -> Digest {
        Digest::of(text)
    }
}

/// The name of a configuration as a component of an OCI repository name, `[a-z0-9]+` joined by single
/// separators, which may not hold all that a name may: capitals are lowered, and every run of other
/// characters than letters, digits and single `.`, `_`, `-` becomes one `-`.
pub fn repository_name(name: &str) -> String {
    let mut component = String::new();
    let mut separator = None;
    for c in name.chars().flat_map(char::to_lowercase) {
        if !c.is_ascii_alphanumeric() {
            separator = match (separator, c) {
                (None, '.' | '_' | '-') => Some(c),
                _ => Some('-'),
            };
            continue;
        }
        if let Some(between) = separator.take().filter(|_| !component.is_empty()) {
            component.push(between);
        }
        component.push(c);
    }
    match component.is_empty() {
        true => "model".to_owned(),
        false => component,
    }
}

/// How the container of a model gets its artifact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactDelivery {
    /// As layers of the image.
    #[default]
    Bake,
    /// Unpacked on the machine that runs it, and mounted read-only.
    Mount,
}

impl ArtifactDelivery {
    /// As a configuration has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bake => "bake",
            Self::Mount => "mount",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for ArtifactDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A dataset that the model reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["uri_args"]}, {"required": ["uri"]}, {"required": ["from"]}]))]
pub struct Input {
    /// The step whose output it is, and the name of that output if there are several: `grib2zarr.store`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where it lies, by the parts of a dataset path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_args: Option<UriArgs>,
    /// Where it lies, as a URI with `{analysis_time}` and `{member}`, or formatted: `{member:03}`,
    /// `{analysis_time:%Y%m%d%H}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Where the container finds it.
    pub internal_path: String,
    /// Inputs of the artifact's datastores that it feeds, `{datastore}.{input}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datastore_inputs: Vec<String>,
    /// What makes of it what the model reads, if it is not that already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convert: Option<Convert>,
}

/// A dataset that the model writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["uri_args"]}, {"required": ["uri"]}]))]
pub struct Output {
    /// Where it is published, by the parts of a dataset path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_args: Option<UriArgs>,
    /// Where it is published, as a URI with `{analysis_time}` and `{member}`, or formatted: `{member:03}`,
    /// `{analysis_time:%Y%m%d%H}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Where the container writes it.
    pub internal_path: String,
    /// What it is: a Zarr store, or a folder of any `files`, which are not looked into.
    #[serde(default, skip_serializing_if = "Form::is_default")]
    pub format: Form,
    /// Whether what an earlier run published there, from other inputs or by another image, gives way to what
    /// this one makes. Without it that is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// How long it is kept: always, or until all steps that read it have published what they make of it.
    #[serde(default, skip_serializing_if = "Keep::is_default")]
    pub keep: Keep,
    /// Variables to write; all predicted ones if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Vec<String>>,
    /// What the values of variables must lie between, in their units: `t2m: [180, 340]`. A forecast
    /// with a value outside is not published.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub ranges: IndexMap<String, [f64; 2]>,
    /// How it is cut into windows of lead time, each published as soon as it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
    /// Zarr format that the built-in runner writes, 2 or 3 (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zarr_format: Option<u8>,
}

/// What an output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A Zarr store, in which nothing may be missing.
    #[default]
    Zarr,
    /// A folder of files, at least one.
    Files,
}

impl Form {
    /// Whether it is a Zarr store.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How long what is published is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// As long as nobody removes it.
    #[default]
    Always,
    /// Until all steps that read it have published what they make of it, and that has been read again.
    UntilRead,
}

impl Keep {
    /// Whether it is kept always.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The parts of a dataset path that a configuration fixes; analysis time and member come from the
/// cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UriArgs {
    /// Area.
    pub bbox: BoundingBox,
    /// Resolution.
    pub resolution: Resolution,
    /// Kind of data.
    pub data_kind: String,
    /// Model that makes the dataset.
    pub model_name: String,
    /// Configuration of that model.
    pub model_config: String,
    /// A bucket of S3 by its bare name, or a base URI `s3://…`, `gs://…`, `file://…`,
    /// or `./…` for a folder below the current one.
    pub bucket_name: String,
}

/// What a container may use; nothing said means the engine's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// GPUs: a number, `all`, or a list of UUIDs or CDI names (`nvidia.com/gpu=0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    /// Memory that each of them must have free before the first container is begun, such as `40GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<ByteSize>,
    /// Processors, such as `2` or `0.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory, such as `4GiB` or `512MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Space that inputs and outputs of a task need in the working folder, such as `20GiB`: as many
    /// tasks are under way as fit, and a container that writes more is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// Size of `/dev/shm`, such as `1GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<ByteSize>,
    /// The most processes and threads, such as `4096`; 16384 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
}

/// GPUs that a container gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number of GPUs, `all`, or a list of UUIDs or CDI names"
)]
pub enum Gpus {
    /// So many.
    Count(u32),
    /// `all`, one UUID or one CDI name.
    One(String),
    /// These, by UUID or CDI name.
    Devices(Vec<String>),
}

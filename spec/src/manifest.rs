//! The manifest of a published output: the record, written last, that makes it visible and
//! verifiable. It lies beside the output: `<output>.manifest.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AnalysisTime, Digest, Members};

/// The version of the manifest that this mlwm writes.
pub const MANIFEST_VERSION: u32 = 1;

/// What is appended to an output's URI to name its manifest.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";

/// The record of one published output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format: 1.
    pub version: u32,
    /// Identity of the task that made the output.
    pub task: Digest,
    /// Name of the output in the configuration.
    pub output: String,
    /// Where the output was published.
    pub uri: String,
    /// The time the forecast starts from.
    pub analysis_time: AnalysisTime,
    /// Ensemble member; 0 for a whole ensemble.
    pub member: u32,
    /// Length of the forecast, ISO 8601, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_duration: Option<String>,
    /// Seed given to the container.
    pub seed: u64,
    /// Whether it was told that the same must give the same bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
    /// The configuration that was run.
    pub configuration: NamedDigest,
    /// The image that was run.
    pub image: NamedDigest,
    /// The artifact in it, where the configuration names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<NamedDigest>,
    /// What was read.
    pub inputs: Vec<InputRecord>,
    /// The task as it was planned (docs/plan-format.md): what a replay of it needs. Absent in what
    /// older versions published.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub plan: Value,
    /// The members that it was made of, where it is that of an ensemble and not of one member. `inputs` are then
    /// what the members published: `member3.forecast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<EnsembleRecord>,
    /// How the output became GRIB, where it is no Zarr store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grib: Option<GribRecord>,
    /// What was published here before and withdrawn for this, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Withdrawn>,
    /// That its objects are no longer there, and who had read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removed>,
    /// Who ran it, where and when.
    pub run: RunRecord,
    /// Every object of the output, ordered by path.
    pub objects: Vec<ObjectRecord>,
}

/// Of which members an ensemble was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsembleRecord {
    /// Those that it was made of.
    pub members: Members,
    /// Those that were wanted.
    pub wanted: Members,
    /// How many of them had to be there.
    pub quorum: u32,
}

/// How an output became GRIB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GribRecord {
    /// The version of ecCodes that encoded it: another one may write other bytes of the same values.
    pub eccodes: String,
    /// The variables that are not in its files.
    pub not_encoded: Vec<NotEncoded>,
}

/// A variable that is not in a GRIB file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotEncoded {
    /// The variable.
    pub variable: String,
    /// Why not.
    pub reason: String,
}

/// An output that was withdrawn to publish another in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Identity of the task that made it.
    pub task: Digest,
    /// Its content ([`content_digest`]).
    pub content: Digest,
    /// When it was withdrawn, RFC 3339.
    pub withdrawn: String,
}

/// That the objects of an output were removed when all that read them had published what they made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// When they were removed, RFC 3339.
    pub removed: String,
    /// The tasks that had read them, with their identities.
    pub read_by: Vec<NamedDigest>,
}

/// A name and the content it stood for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDigest {
    /// Name or reference.
    pub name: String,
    /// Content.
    pub digest: Digest,
}

/// An input as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// Name of the input in the configuration.
    pub name: String,
    /// Where it was read from.
    pub uri: String,
    /// Digest over path, size and SHA-256 of all its objects.
    pub digest: Digest,
    /// Digest over what the store's listing said (path, size, entity tag or modification time):
    /// equal listings mean that the input need not be read again to know that it is the same.
    pub listing: Digest,
    /// Number of objects.
    pub objects: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// The image of the converter that made of it what the model read, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converter: Option<NamedDigest>,
}

/// Who ran a task, where and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of mlwm.
    pub mlwm: String,
    /// Name and version of the container engine.
    pub engine: String,
    /// Name of the host. Absent in what older versions published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The GPUs that the container was given, as the configuration asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// Start of the container, RFC 3339.
    pub started: String,
    /// End of the container, RFC 3339.
    pub finished: String,
}

/// One object of a published output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Path below the output's URI, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Content.
    pub sha256: Digest,
}

/// The content of a set of objects as one digest: SHA-256 over a line
/// `<path>\t<size>\t<digest>\n` per object, ordered by path.
pub fn content_digest<'a>(objects: impl IntoIterator<Item = &'a ObjectRecord>) -> Digest {
    let mut objects: Vec<&ObjectRecord> = objects.into_iter().collect();
    objects.sort();
    let mut text = String::new();
    for object in objects {
        text.push_str(&format!(
            "{}\t{}\t{}\n",
            object.path, object.size, object.sha256
        ));
    }
    Digest::of(text)
}

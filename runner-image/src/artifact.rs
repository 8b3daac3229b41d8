//! The inference artifact, unpacked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlwm_datasets::Statistics;
use mlwm_spec::datastore::DATASTORE_SUFFIX;
use mlwm_spec::interface::{Source, Standardization};
use mlwm_spec::{DatastoreConfig, Digest, Interface, yaml};

use crate::RunnerError;

/// What the runner needs of an artifact.
#[derive(Debug)]
pub struct Artifact {
    /// The step model.
    pub model: PathBuf,
    /// What the step model needs besides its weights.
    pub interface: Interface,
    /// Configurations of all datastores.
    pub configs: BTreeMap<String, DatastoreConfig>,
    /// Training statistics of the datastores that the interface names.
    pub statistics: BTreeMap<String, Statistics>,
    /// Name and digest of `artifact.yaml`, which lists every other file with its digest.
    pub identity: Option<(String, Digest)>,
}

impl Artifact {
    /// Reads an artifact in a folder.
    ///
    /// # Errors
    /// If a file is missing or does not have its format.
    pub fn read(folder: &Path) -> Result<Self, RunnerError> {
        let model = folder.join("checkpoint.onnx");
        if !model.is_file() {
            return Err(RunnerError::ArtifactFile {
                path: model,
                reason: "there is no such file; the built-in runner runs ONNX models only".into(),
            });
        }
        let path = folder.join("interface.json");
        let interface: Interface =
            serde_json::from_str(&read_text(&path)?).map_err(|error| unreadable(&path, &error))?;
        interface
            .validate()
            .map_err(|error| RunnerError::Artifact(error.to_string()))?;
        if interface.program.is_some() {
            return Err(RunnerError::ArtifactFile {
                path,
                reason: "it is of a model without ONNX, which a program in its image runs, and the built-in runner runs ONNX models only".into(),
            });
        }
        let mut configs = BTreeMap::new();
        let needs_datastores = interface.sources().next().is_some();
        let files = match needs_datastores {
            true => config_files(&folder.join("configs"))?,
            false => Vec::new(),
        };
        for (name, path) in files {
            let config = yaml::parse(&read_text(&path)?, &path.display().to_string())
                .map_err(|error| RunnerError::Artifact(error.to_string()))?;
            configs.insert(name, config);
        }
        let mut statistics = BTreeMap::new();
        let standardized = match interface.standardization {
            Standardization::Statistics => datastores(&interface),
            Standardization::None => Vec::new(),
        };
        for name in standardized {
            let path = folder
                .join("stats")
                .join(format!("{name}.datastore.stats.zarr"));
            let stored = Statistics::open(&path).map_err(|error| unreadable(&path, &error))?;
            statistics.insert(name, stored);
        }
        let identity = identity(&folder.join("artifact.yaml"))?;
        Ok(Self {
            model,
            interface,
            configs,
            statistics,
            identity,
        })
    }
}

/// Names of datastores and the files of their configurations.
fn config_files(folder: &Path) -> Result<Vec<(String, PathBuf)>, RunnerError> {
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(name) = name.and_then(|name| name.strip_suffix(DATASTORE_SUFFIX)) {
            files.push((name.to_owned(), path.clone()));
        }
    }
    Ok(files)
}

/// The datastores that an interface takes features from.
fn datastores(interface: &Interface) -> Vec<String> {
    let mut names: Vec<String> = interface
        .sources()
        .map(|Source { datastore, .. }| datastore.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Name and digest of `artifact.yaml`; none if there is no such file.
fn identity(path: &Path) -> Result<Option<(String, Digest)>, RunnerError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(path)?;
    let record: serde_json::Value = yaml::parse(&text, &path.display().to_string())
        .map_err(|error| RunnerError::Artifact(error.to_string()))?;
    // The Python tool calls it `artifact_name`.
    let name = record.get("name").or_else(|| record.get("artifact_name"));
    let name = name.and_then(serde_json::Value::as_str).unwrap_or_default();
    Ok(Some((name.to_owned(), Digest::of(&text))))
}

fn read_text(path: &Path) -> Result<String, RunnerError> {
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> RunnerError {
    RunnerError::ArtifactFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

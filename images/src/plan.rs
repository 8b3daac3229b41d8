//! What goes into an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use mlwm_artifacts::Artifact;
use mlwm_engines::Image;
use mlwm_spec::Digest;
use mlwm_spec::contract::ARTIFACT_DIR;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::labels;

/// The `Containerfile` of models that the built-in runner runs.
const CONTAINERFILE: &str = include_str!("../../runner-image/Containerfile");
/// Where the runner lies in the context, and in the image.
const RUNNER: &str = "opt/mlwm/bin/mlwm-runner";
const LIBRARIES: &str = "opt/mlwm/lib";
const ONNX_RUNTIME: &str = "libonnxruntime.so";
/// Version of the container contract.
const CONTRACT_VERSION: &str = "1";

/// The parts of an image.
#[derive(Clone, Copy, Debug)]
pub struct BuildInputs<'a> {
    /// Name of the configuration.
    pub configuration: &'a str,
    /// SHA-256 of its `config.yaml`.
    pub configuration_digest: Digest,
    /// Reference of the image; without it, `mlwm/<configuration>:latest`.
    pub reference: Option<&'a str>,
    /// Reference of the base image.
    pub base: &'a str,
    /// The base image, as the engine has it; `None` to plan without an engine.
    pub base_image: Option<&'a Image>,
    /// Text of the configuration's own `Containerfile`; without it, that of the built-in runner.
    pub containerfile: Option<&'a str>,
    /// The built-in runner; `None` if the base image has what runs the model.
    pub runner: Option<&'a Runner>,
    /// The artifact; `None` if it is mounted when the image runs.
    pub artifact: Option<&'a Artifact>,
    /// Version of mlwm.
    pub version: &'a str,
}

/// The built-in runner, on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// The executable `mlwm-runner`.
    pub binary: PathBuf,
    /// `libonnxruntime.so`, whatever version its name ends with, and the libraries beside it that
    /// it loads.
    pub libraries: Vec<PathBuf>,
}

/// What an image is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlan {
    /// Its reference.
    pub reference: String,
    /// Reference of its base image.
    pub base: String,
    /// Identifier of its base image, if an engine was asked for it.
    pub base_id: Option<Digest>,
    /// Its `Containerfile`.
    pub containerfile: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its files, by path.
    pub files: Vec<PlannedFile>,
}

/// A file that goes into an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Path in the build context, which is the path in the image without the `/` before it.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Whether it is executable: mode 755, else 644.
    pub executable: bool,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Where it comes from.
    pub source: Source,
}

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of this host.
    File(PathBuf),
    /// A member of an artifact.
    Member {
        /// The artifact's zip.
        artifact: PathBuf,
        /// Name of the member.
        member: String,
    },
}

impl ImagePlan {
    /// Digest of all that the image is made of, by which an image that is there already is known
    /// to need no build. `None` if the base image is not known.
    pub fn identity(&self) -> Option<Digest> {
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| json!([file.path, file.digest, file.executable]))
            .collect();
        let labels: BTreeMap<_, _> = self
            .labels
            .iter()
            .filter(|(name, _)| *name != labels::BUILD)
            .collect();
        let parts = json!([self.base_id?, self.containerfile, labels, files]);
        Some(Digest::of(parts.to_string()))
    }
}

/// Plans an image. Reads the runner, and the artifact where its digest is not known yet, to hash
/// them.
pub fn plan(inputs: &BuildInputs<'_>) -> Result<ImagePlan, Error> {
    let mut files = Vec::new();
    if let Some(runner) = inputs.runner {
        add_runner(runner, &mut files)?;
    }
    if let Some(artifact) = inputs.artifact {
        add_artifact(artifact, &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(Error::SameName(pair[0].path.clone()));
    }

    let mut plan = ImagePlan {
        reference: match inputs.reference {
            Some(reference) => reference.to_owned(),
            None => reference_of(inputs.configuration)?,
        },
        base: inputs.base.to_owned(),
        base_id: inputs.base_image.map(|image| image.id),
        containerfile: inputs.containerfile.unwrap_or(CONTAINERFILE).to_owned(),
        labels: labels_of(inputs, &files)?,
        files,
    };
    if let Some(identity) = plan.identity() {
        plan.labels
            .insert(labels::BUILD.to_owned(), identity.to_string());
    }
    Ok(plan)
}

/// `mlwm/<configuration>:latest`, if the name obeys the rules of OCI repositories.
fn reference_of(configuration: &str) -> Result<String, Error> {
    let word = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if configuration.len() > 128 || !configuration.split(['-', '_', '.']).all(word) {
        return Err(Error::Name(configuration.to_owned()));
    }
    Ok(format!("mlwm/{configuration}:latest"))
}

fn labels_of(
    inputs: &BuildInputs<'_>,
    files: &[PlannedFile],
) -> Result<BTreeMap<String, String>, Error> {
    let mut found = vec![
        (labels::TITLE, inputs.configuration.to_owned()),
        (labels::VERSION, inputs.version.to_owned()),
        (labels::BASE_NAME, inputs.base.to_owned()),
        (labels::CONFIGURATION, inputs.configuration.to_owned()),
        (
            labels::CONFIGURATION_DIGEST,
            inputs.configuration_digest.to_string(),
        ),
        (labels::MLWM_VERSION, inputs.version.to_owned()),
        (labels::CONTRACT, CONTRACT_VERSION.to_owned()),
    ];
    let registry_digest = inputs
        .base_image
        .and_then(|image| image.repo_digests.first());
    if let Some((_, digest)) = registry_digest.and_then(|text| text.split_once('@')) {
        found.push((labels::BASE_DIGEST, digest.to_owned()));
    }
    if let Some(artifact) = inputs.artifact {
        found.push((labels::ARTIFACT_NAME, artifact.name().to_owned()));
        found.push((labels::ARTIFACT_DIGEST, artifact.digest()?.to_string()));
    }
    if let Some(runner) = files.iter().find(|file| file.path == RUNNER) {
        found.push((labels::RUNNER_DIGEST, runner.digest.to_string()));
    }
    Ok(found
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

fn add_runner(runner: &Runner, files: &mut Vec<PlannedFile>) -> Result<(), Error> {
    files.push(host_file(&runner.binary, RUNNER.to_owned(), true)?);
    for library in &runner.libraries {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        // Wheels and packages name it after its version, the runner's image does not.
        let name = if name.starts_with(ONNX_RUNTIME) {
            ONNX_RUNTIME
        } else {
            &name
        };
        files.push(host_file(library, format!("{LIBRARIES}/{name}"), false)?);
    }
    Ok(())
}

fn host_file(path: &Path, target: String, executable: bool) -> Result<PlannedFile, Error> {
    let failed = |source| Error::Runner {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let (digest, size) = hash(&mut file).map_err(failed)?;
    let source = Source::File(path.to_owned());
    Ok(PlannedFile {
        path: target,
        size,
        executable,
        digest,
        source,
    })
}

fn add_artifact(artifact: &Artifact, files: &mut Vec<PlannedFile>) -> Result<(), Error> {
    let folder = ARTIFACT_DIR.trim_start_matches('/');
    for entry in artifact.files() {
        let digest = match entry.sha256 {
            Some(digest) => digest,
            // An artifact of the original project, which records no hashes.
            None => {
                let mut reader = artifact.reader(&entry.path)?;
                let failed = |source| Error::Member {
                    member: entry.path.clone(),
                    source,
                };
                hash(&mut reader).map_err(failed)?.0
            }
        };
        files.push(PlannedFile {
            path: format!("{folder}/{}", entry.path),
            size: entry.size,
            executable: false,
            digest,
            source: Source::Member {
                artifact: artifact.path().to_owned(),
                member: entry.path.clone(),
            },
        });
    }
    Ok(())
}

fn hash(reader: &mut impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((Digest::from_hasher(hasher), size)),
            read => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

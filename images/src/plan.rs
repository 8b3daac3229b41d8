//! What goes into an image.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use mlwm_artifacts::{Artifact, Receipts};
use mlwm_spec::Digest;
use mlwm_spec::contract::{ARTIFACT_DIR, stream};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::image::Image;
use crate::labels;
use crate::machine::architecture;

/// Where the runner lies in the image.
pub(crate) const RUNNER: &str = "opt/mlwm/bin/mlwm-runner";
pub(crate) const LIBRARIES: &str = "opt/mlwm/lib";
pub(crate) const ONNX_RUNTIME: &str = "libonnxruntime.so";
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
    /// The base image; `None` to plan without it.
    pub base_image: Option<&'a Image>,
    /// The built-in runner; `None` if the base image has what runs the model.
    pub runner: Option<&'a Runner>,
    /// The artifact; `None` if it is mounted when the image runs, or there is none.
    pub artifact: Option<&'a Artifact>,
    /// Whether an artifact is mounted when the image runs.
    pub is_mounted: bool,
    /// Where its sources are, and which revision of them it is made of. They are said in its
    /// labels, and make it no other image.
    pub source: Option<&'a str>,
    /// The revision.
    pub revision: Option<&'a str>,
    /// Places that may look like secrets; they are recorded.
    pub allowed: &'a [String],
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
    /// Digest of its base image, if it is known.
    pub base_digest: Option<Digest>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its files, by path.
    pub files: Vec<PlannedFile>,
}

/// A file that goes into an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Path in the image without the `/` before it.
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
            .filter(|(name, _)| {
                ![labels::BUILD, labels::SOURCE, labels::REVISION].contains(&name.as_str())
            })
            .collect();
        let parts = json!([self.base_digest?, labels, files]);
        Some(Digest::of(parts.to_string()))
    }
}

/// Plans an image. Reads the runner, and the artifact where its digest is not known yet, to hash
/// them.
pub fn plan(inputs: &BuildInputs<'_>) -> Result<ImagePlan, Error> {
    inputs.plan(&Receipts::paranoid())
}

impl BuildInputs<'_> {
    /// The same as [`plan`], but a runner that has a receipt is not read.
    pub fn plan(&self, receipts: &Receipts) -> Result<ImagePlan, Error> {
        let mut files = Vec::new();
        if let Some(runner) = self.runner {
            add_runner(runner, receipts, &mut files)?;
        }
        if let Some(base) = self.base_image {
            check_machine(&files, base)?;
        }
        if let Some(artifact) = self.artifact {
            add_artifact(artifact, &mut files)?;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(Error::SameName(pair[0].path.clone()));
        }

        let mut plan = ImagePlan {
            reference: match self.reference {
                Some(reference) => reference.to_owned(),
                None => reference_of(self.configuration)?,
            },
            base: self.base.to_owned(),
            base_digest: self.base_image.map(Image::digest),
            labels: labels_of(self, &files)?,
            files,
        };
        if let Some(identity) = plan.identity() {
            plan.labels
                .insert(labels::BUILD.to_owned(), identity.to_string());
        }
        Ok(plan)
    }
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
    if !inputs.allowed.is_empty() {
        found.push((labels::ALLOWED, inputs.allowed.join(", ")));
    }
    let said = [
        (labels::SOURCE, inputs.source),
        (labels::REVISION, inputs.revision),
    ];
    for (label, said) in said {
        found.extend(said.map(|said| (label, said.to_owned())));
    }
    if let Some(base) = inputs.base_image {
        found.push((labels::BASE_DIGEST, base.digest().to_string()));
    }
    match inputs.artifact {
        Some(artifact) => {
            found.push((labels::ARTIFACT_NAME, artifact.name().to_owned()));
            found.push((labels::ARTIFACT_DIGEST, artifact.digest()?.to_string()));
        }
        None if inputs.is_mounted => {
            found.push((labels::DELIVERY, labels::MOUNT.to_owned()));
        }
        None => {}
    }
    if let Some(runner) = files.iter().find(|file| file.path == RUNNER) {
        found.push((labels::RUNNER_DIGEST, runner.digest.to_string()));
        found.push((stream::LABEL, stream::LABEL_VALUE.to_owned()));
    }
    Ok(found
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

fn add_runner(
    runner: &Runner,
    receipts: &Receipts,
    files: &mut Vec<PlannedFile>,
) -> Result<(), Error> {
    let file = |path: &Path, target, executable| host_file(path, receipts, target, executable);
    files.push(file(&runner.binary, RUNNER.to_owned(), true)?);
    for library in &runner.libraries {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        // Wheels and packages name it after its version, the runner's image does not.
        let name = if name.starts_with(ONNX_RUNTIME) {
            ONNX_RUNTIME
        } else {
            &name
        };
        files.push(file(library, format!("{LIBRARIES}/{name}"), false)?);
    }
    Ok(())
}

/// Refuses programs and libraries for another kind of machine than the base.
fn check_machine(files: &[PlannedFile], base: &Image) -> Result<(), Error> {
    let wanted = base.platform().architecture;
    for file in files {
        let Source::File(path) = &file.source else {
            continue;
        };
        let has = architecture(path).map_err(|source| Error::Runner {
            path: path.clone(),
            source,
        })?;
        if let Some(has) = has.filter(|has| *has != wanted) {
            return Err(Error::OtherMachine {
                path: path.clone(),
                has: has.to_owned(),
                wanted,
            });
        }
    }
    Ok(())
}

fn host_file(
    path: &Path,
    receipts: &Receipts,
    target: String,
    executable: bool,
) -> Result<PlannedFile, Error> {
    let failed = |source| Error::Runner {
        path: path.to_owned(),
        source,
    };
    let digest = receipts.digest(path).map_err(|error| match error {
        mlwm_artifacts::Error::Io { source, .. } => failed(source),
        error => error.into(),
    })?;
    Ok(PlannedFile {
        path: target,
        // Of a file that changes just now, its layer finds out.
        size: fs::metadata(path).map_err(failed)?.len(),
        executable,
        digest,
        source: Source::File(path.to_owned()),
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

pub(crate) fn hash(reader: &mut impl Read) -> io::Result<(Digest, u64)> {
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

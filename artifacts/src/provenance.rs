//! Where, when and from what an artifact was built: a file beside the zip, not in it, since it
//! would make every build differ (format §4).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use mlwm_spec::Digest;
use mlwm_spec::time::utc_text;
use serde::Serialize;

use crate::build::BuildRequest;
use crate::error::{Error, io_error};
use crate::pack::Packing;
use crate::pickle::{Checkpoint, Global};
use crate::workplace::Workplace;

#[derive(Serialize)]
struct Provenance<'a> {
    artifact: &'a str,
    digest: Digest,
    mlwm_version: &'static str,
    built_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_folder: Option<PathBuf>,
    arguments: &'a [String],
    sources: BTreeMap<&'static str, PathBuf>,
    /// How the checkpoint is stored and what loading it imports.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<&'a Checkpoint>,
    /// Imports of the checkpoint that only the person who built it allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_imports: Vec<&'a Global>,
    /// Commit of the repository that the neural-lam configuration is in, or else the interface or the
    /// checkpoint; `-dirty` if it has changes that are not committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    git_commit: Option<String>,
}

impl Packing {
    /// Where, when, by whom and from what this is built, as YAML (format §4); `digest` is that of
    /// the zip.
    pub fn provenance(&self, digest: Digest) -> Result<String, Error> {
        let request = &self.request;
        let provenance = Provenance {
            artifact: &request.name,
            digest,
            mlwm_version: env!("CARGO_PKG_VERSION"),
            built_at: now(),
            host: fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|name| name.trim().to_owned()),
            user: std::env::var("USER").ok(),
            working_folder: std::env::current_dir().ok(),
            arguments: &request.arguments,
            sources: sources(request),
            checkpoint: self.checkpoint.as_ref(),
            allowed_imports: self.checkpoint.as_ref().map_or(Vec::new(), |found| {
                request.checkpoint_policy.overridden(&found.globals)
            }),
            git_commit: repository_file(request).and_then(git_commit),
        };
        serde_saphyr::to_string(&provenance).map_err(|source| Error::WriteYaml {
            what: "the provenance of the artifact",
            source: Box::new(source),
        })
    }
}

/// Writes the provenance to the file `path`.
pub(crate) fn write(text: &str, path: &Path, workplace: &Workplace) -> Result<(), Error> {
    let temporary = workplace.path("provenance");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(io_error("write", path))
}

/// The provenance of `model.zip` is in `model.provenance.yaml`.
pub(crate) fn path(zip: &Path) -> PathBuf {
    zip.with_extension("provenance.yaml")
}

fn sources(request: &BuildRequest) -> BTreeMap<&'static str, PathBuf> {
    let given = [
        ("neural_lam_config", request.nl_config.as_ref()),
        ("training_arguments", request.training_args.as_ref()),
        ("checkpoint", request.checkpoint.as_ref()),
        ("onnx", request.onnx.as_ref()),
        ("interface", request.interface.as_ref()),
    ];
    given
        .into_iter()
        .filter_map(|(what, path)| {
            let path = path?;
            Some((what, path.canonicalize().unwrap_or_else(|_| path.clone())))
        })
        .collect()
}

fn now() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    utc_text(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The file whose repository says most of how the model was made.
fn repository_file(request: &BuildRequest) -> Option<&Path> {
    let files = [&request.nl_config, &request.interface, &request.checkpoint];
    files.into_iter().find_map(|file| file.as_deref())
}

/// What git says, if it is installed and the file is in a repository.
fn git_commit(file: &Path) -> Option<String> {
    let folder = file.canonicalize().ok()?.parent()?.to_owned();
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args([
            "describe",
            "--always",
            "--abbrev=40",
            "--dirty",
            "--exclude=*",
        ])
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !commit.trim().is_empty()).then(|| commit.trim().to_owned())
}

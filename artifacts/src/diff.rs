//! What two artifacts do not have in common.

use std::collections::BTreeMap;

use mlwm_spec::Digest;
use serde::Serialize;

use crate::artifact::Artifact;
use crate::error::{Error, io_error};
use crate::hashing::digest_of;
use crate::layout::ARTIFACT_YAML;
use crate::record::FileEntry;

/// The difference of two artifacts, file by file. `artifact.yaml`, which lists the files, is not
/// compared as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The one.
    pub old: Side,
    /// The other.
    pub new: Side,
    /// Files that only `new` has.
    pub added: Vec<FileEntry>,
    /// Files that only `old` has.
    pub removed: Vec<FileEntry>,
    /// Files that differ.
    pub changed: Vec<Change>,
    /// Number of files that are the same.
    pub unchanged: usize,
}

/// One of two artifacts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// The version of mlwm that wrote it; none for one of the Python tool.
    pub mlwm_version: Option<String>,
    /// Identity of its contents; none for one of the Python tool.
    pub set_digest: Option<Digest>,
    /// Size of the zip in bytes.
    pub size: u64,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub path: String,
    /// Size in bytes in the old artifact.
    pub old_size: u64,
    /// SHA-256 in the old artifact.
    pub old_sha256: Digest,
    /// Size in bytes in the new artifact.
    pub new_size: u64,
    /// SHA-256 in the new artifact.
    pub new_sha256: Digest,
}

impl Diff {
    /// Whether the two hold the same files.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compares two artifacts by the hashes they record. Files of the Python tool's artifacts, which
/// have none, are read and hashed.
pub fn diff(old: &Artifact, new: &Artifact) -> Result<Diff, Error> {
    let (mut before, after) = (files(old)?, files(new)?);
    let (mut added, mut changed, mut unchanged) = (Vec::new(), Vec::new(), 0);
    for (path, (file, new_sha256)) in after {
        match before.remove(&path) {
            None => added.push(file),
            Some((_, old_sha256)) if old_sha256 == new_sha256 => unchanged += 1,
            Some((old, old_sha256)) => changed.push(Change {
                path,
                old_size: old.size,
                old_sha256,
                new_size: file.size,
                new_sha256,
            }),
        }
    }
    Ok(Diff {
        old: Side::of(old),
        new: Side::of(new),
        added,
        removed: before.into_values().map(|(file, _)| file).collect(),
        changed,
        unchanged,
    })
}

impl Side {
    fn of(artifact: &Artifact) -> Self {
        Self {
            name: artifact.name().to_owned(),
            mlwm_version: artifact.mlwm_version().map(str::to_owned),
            set_digest: artifact.set_digest(),
            size: artifact.size(),
        }
    }
}

fn files(artifact: &Artifact) -> Result<BTreeMap<String, (FileEntry, Digest)>, Error> {
    let mut files = BTreeMap::new();
    let others = |entry: &&FileEntry| entry.path != ARTIFACT_YAML;
    for entry in artifact.files().iter().filter(others) {
        let sha256 = match entry.sha256 {
            Some(recorded) => recorded,
            None => {
                let reader = artifact.reader(&entry.path)?;
                digest_of(reader).map_err(io_error("read", artifact.path()))?
            }
        };
        let entry = FileEntry {
            sha256: Some(sha256),
            ..entry.clone()
        };
        files.insert(entry.path.clone(), (entry, sha256));
    }
    Ok(files)
}

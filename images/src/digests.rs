//! The digests of layers that were made before, so that a large one is read once and not again.
//!
//! `<folder>/<identity>.json` holds the digest of the layer with this identity, which follows from
//! the paths, modes, sizes and SHA-256 of its files and from the SHA-256 of the artifact that they
//! are in: what lies there never becomes wrong.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlwm_artifacts::{Receipts, digest_of};
use mlwm_spec::Digest;
use mlwm_storage::Content;

use crate::Error;
use crate::tarball::Tarball;

/// How often the use of a note is noted.
const NOTED_AS_USED: Duration = Duration::from_secs(24 * 3600);

/// The digests of layers on this machine. Several processes share them.
#[derive(Clone, Debug)]
pub struct LayerDigests {
    folder: PathBuf,
    /// What says whether an artifact is still the pinned one, if it is pinned.
    pinned: Option<Receipts>,
}

impl LayerDigests {
    /// In this folder, which is made when it is needed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            pinned: None,
        }
    }

    /// The same for an artifact whose digest, which it knows, is the one that was asked for: what it
    /// records of its files need not be compared with them anew, if `receipts` still give the digest
    /// when they have been read.
    pub fn of_pinned(self, receipts: Receipts) -> Self {
        Self {
            pinned: Some(receipts),
            ..self
        }
    }

    /// The digest of a layer: noted before, or found by reading it once.
    pub(crate) fn of(&self, layer: &Tarball) -> Result<Digest, Error> {
        let path = self.folder.join(format!("{}.json", layer.identity().hex()));
        match fs::read(&path) {
            // What cannot be understood is found anew.
            Ok(noted) => {
                if let Ok(digest) = serde_json::from_slice(&noted) {
                    note_use(&path);
                    return Ok(digest);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::local("read", path)(error)),
        }
        let digest = self.hash(layer)?;
        let note = || {
            fs::create_dir_all(&self.folder)?;
            let file = tempfile::NamedTempFile::new_in(&self.folder)?;
            serde_json::to_writer(file.as_file(), &digest)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        note().map_err(Error::local("write", &path))?;
        Ok(digest)
    }

    fn hash(&self, layer: &Tarball) -> Result<Digest, Error> {
        let failed = |source| Error::Layer {
            layer: layer.identity(),
            source,
        };
        let (Some(receipts), Some(artifact)) = (&self.pinned, layer.artifact()) else {
            // The reader compares the files with their digests, on this thread.
            return layer.open().and_then(digest_of).map_err(failed);
        };
        let digest = digest_of(layer.open_unchecked()).map_err(failed)?;
        let (expected, found) = (artifact.digest()?, receipts.digest(artifact.path())?);
        match found == expected {
            true => Ok(digest),
            false => Err(mlwm_registries::Error::Replaced {
                path: artifact.path().to_owned(),
                expected,
                found,
            }
            .into()),
        }
    }
}

/// Says once a day that a note is used: what nobody uses can be removed.
fn note_use(note: &Path) {
    let old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age >= NOTED_AS_USED);
    let noted = || {
        if old(fs::metadata(note)?.modified()?) {
            let file = fs::File::options().write(true).open(note)?;
            file.set_modified(SystemTime::now())?;
        }
        Ok(())
    };
    // It may have been removed just now, or lie in a folder that may only be read.
    let _: std::io::Result<()> = noted();
}

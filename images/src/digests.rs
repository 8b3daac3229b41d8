//! The digests of layers that were made before, so that a large one is read once and not again.
//!
//! `<folder>/<identity>.json` holds the digest of the layer with this identity, which follows from
//! the paths, modes, sizes and SHA-256 of its files: what lies there never becomes wrong.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlwm_spec::Digest;
use mlwm_storage::Content;
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::tarball::Tarball;

/// How often the use of a note is noted.
const NOTED_AS_USED: Duration = Duration::from_secs(24 * 3600);

/// The digests of layers on this machine. Several processes share them.
#[derive(Clone, Debug)]
pub struct LayerDigests(PathBuf);

impl LayerDigests {
    /// In this folder, which is made when it is needed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The digest of a layer: noted before, or found by reading it once.
    pub(crate) fn of(&self, layer: &Tarball) -> Result<Digest, Error> {
        let path = self.0.join(format!("{}.json", layer.identity().hex()));
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
        let digest = hash(layer).map_err(|source| Error::Layer {
            layer: layer.identity(),
            source,
        })?;
        let note = || {
            fs::create_dir_all(&self.0)?;
            let file = tempfile::NamedTempFile::new_in(&self.0)?;
            serde_json::to_writer(file.as_file(), &digest)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        note().map_err(Error::local("write", &path))?;
        Ok(digest)
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

fn hash(layer: &Tarball) -> std::io::Result<Digest> {
    let mut reader = layer.open()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Digest::from_hasher(hasher)),
            count => hasher.update(&buffer[..count]),
        }
    }
}

//! Artifacts that are unpacked on this machine, for containers that they are mounted into
//! (`docs/images.md` §9).
//!
//! `<hex>` is the artifact with this digest, of which each file is verified whenever it is asked for.
//! `<hex>.index` is the digest of what the zip says of its files, from when the zip was verified.
//! `<hex>.lock` is held by whoever uses it, and by whoever removes it alone; `<hex>.making` by whoever
//! unpacks it. When the lock was last taken is when it was last used.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mlwm_artifacts::{Artifact, Receipts};
use mlwm_spec::Digest;
use tokio_util::sync::CancellationToken;

use super::kept::{hold_kept, remove_folder};
use super::remove_file;
use crate::Error;
use crate::pull::write_small;
use crate::registry::blocking;
use crate::transfers::{Kind, cache_home, lock};

/// The unpacked artifacts of this machine. Several processes share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    folder: PathBuf,
    receipts: Receipts,
}

/// An artifact in a folder. It is not removed as long as this value lives.
#[derive(Debug)]
pub struct UnpackedArtifact {
    /// The folder.
    pub path: PathBuf,
    _lock: File,
}

impl Unpacked {
    /// `mlwm/unpacked` in `XDG_CACHE_HOME`, else in `~/.cache`; what has one of these receipts is not
    /// hashed again.
    pub fn open_default(receipts: Receipts) -> Result<Self, Error> {
        Ok(Self::at(cache_home()?.join("mlwm/unpacked"), receipts))
    }

    /// In this folder, which is made when it is needed.
    pub fn at(folder: impl Into<PathBuf>, receipts: Receipts) -> Self {
        Self {
            folder: folder.into(),
            receipts,
        }
    }

    /// Whether an artifact with this digest was unpacked, and this one has the same files by name, size
    /// and hash: then its zip need not be read to verify the unpacked ones. Never one that records no
    /// hashes.
    pub fn is_from(&self, artifact: &Artifact, digest: Digest) -> bool {
        let path = self.folder.join(digest.hex());
        if artifact.set_digest().is_none() {
            return false;
        }
        let noted = std::fs::read_to_string(path.with_extension("index"));
        path.is_dir() && noted.is_ok_and(|noted| noted == artifact.index().to_string())
    }

    /// The artifact with this digest, unpacked from its zip if it is not there, and unpacked anew if
    /// any file of it is not what it was. Of several processes that want it, one unpacks it and the
    /// others wait; what one that was killed has unpacked, the next one takes up.
    pub async fn get(
        &self,
        zip: &Path,
        digest: Digest,
        cancel: &CancellationToken,
    ) -> Result<UnpackedArtifact, Error> {
        let path = self.folder.join(digest.hex());
        let held = hold_kept(&path).await?;
        if !self.is_right(zip, &path).await? {
            let making = path.with_extension("making");
            let alone = lock(&making, Kind::Exclusive, cancel).await?;
            // Another process may have made it meanwhile.
            if !self.is_right(zip, &path).await? {
                self.make(zip, digest, &path, cancel).await?;
            }
            drop(alone);
        }
        Ok(UnpackedArtifact { path, _lock: held })
    }

    async fn is_right(&self, zip: &Path, path: &Path) -> Result<bool, Error> {
        let (zip, path, receipts) = (zip.to_owned(), path.to_owned(), self.receipts.clone());
        blocking(move || Ok(Artifact::open(&zip)?.is_unpacked_in(&path, &receipts)?)).await
    }

    /// Makes the folder of a zip that is verified, in place of whatever is there.
    async fn make(
        &self,
        zip: &Path,
        digest: Digest,
        path: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let (zip, path) = (zip.to_owned(), path.to_owned());
        let (receipts, cancel) = (self.receipts.clone(), cancel.clone());
        blocking(move || {
            // What it says counts no more: the zip, too, may be damaged.
            let index = path.with_extension("index");
            remove_file(&index)?;
            let artifact = receipts.open(&zip)?;
            let found = artifact.digest()?;
            if found != digest {
                return Err(Error::Replaced {
                    path: zip,
                    expected: digest,
                    found,
                });
            }
            match std::fs::symlink_metadata(&path) {
                Ok(_) => remove_folder(&path)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::local("look at", &path)(error)),
            }
            write_small(&index, artifact.index().to_string().as_bytes())?;
            artifact.unpack_into(&path, &receipts, &|| cancel.is_cancelled())?;
            Ok(())
        })
        .await
    }
}

//! The artifacts of this machine, by their content (`docs/registries.md` §10).
//!
//! `sha256/<hex>.zip` is an artifact, `<hex>.json` what it was fetched as, `<hex>.lock` is held by
//! whoever uses it, and by whoever fetches or removes it alone. When the lock was last taken is when
//! the artifact was last used.

mod kept;
mod pruning;
mod unpacked;

use std::borrow::Cow;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlwm_artifacts::Receipts;
use mlwm_spec::{ArtifactName, Digest, PublishedArtifact, Tag};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use self::kept::{KeptEntry, KeptKind, hold_kept};
pub use self::pruning::{PruneRequest, Pruned};
pub use self::unpacked::{Unpacked, UnpackedArtifact};
use crate::policy::{StoredSignature, Trust};
use crate::pull::write_small;
use crate::registry::blocking;
use crate::transfers::{Kind, cache_home, lock, try_lock};
use crate::{Error, Publication, Registry, RegistryOptions};

/// The artifacts of this machine. Several processes share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    /// The folder of the states of interrupted transfers.
    transfers: Option<PathBuf>,
    /// The folder of whatever else is kept.
    home: Option<PathBuf>,
}

/// An artifact in the cache. It is not removed as long as this value lives.
#[derive(Debug)]
pub struct CachedArtifact {
    /// The zip.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// What it was fetched as.
    pub name: ArtifactName,
    _lock: File,
}

/// An artifact as [`Cache::list`] shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheEntry {
    /// What it was fetched as.
    pub name: ArtifactName,
    /// Its tag there.
    pub tag: Tag,
    /// Its digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Seconds since it was last used.
    pub unused_seconds: u64,
    /// The zip.
    pub path: PathBuf,
}

/// What is beside a zip: what it was fetched as.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    name: ArtifactName,
    tag: Tag,
}

impl Cache {
    /// `mlwm/artifacts` in `XDG_CACHE_HOME`, else in `~/.cache`; [`Cache::prune`] also cleans up what
    /// is kept beside it.
    pub fn open_default() -> Result<Self, Error> {
        let mlwm = cache_home()?.join("mlwm");
        let cache = Self::at(mlwm.join("artifacts")).with_transfers(mlwm.join("transfers"));
        Ok(cache.with_kept(mlwm))
    }

    /// In this folder, which is made when it is needed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            transfers: None,
            home: None,
        }
    }

    /// The same; [`Cache::prune`] also cleans up this folder of [`RegistryOptions::transfers`].
    pub fn with_transfers(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            transfers: Some(folder.into()),
            ..self
        }
    }

    /// The same; [`Cache::kept`] and [`Cache::prune`] are also about what is kept in this folder, and
    /// what is fetched gets a receipt there.
    pub fn with_kept(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            home: Some(folder.into()),
            ..self
        }
    }

    fn contents(&self) -> PathBuf {
        self.folder.join("sha256")
    }

    fn file(&self, digest: Digest, ending: &str) -> PathBuf {
        self.contents().join(format!("{}.{ending}", digest.hex()))
    }

    /// The artifact that a reference leads to, fetched if it is not there; the registry is asked
    /// only if the reference pins nothing that is. `default` is the registry of a bare name.
    pub async fn get(
        &self,
        reference: &PublishedArtifact,
        default: Option<&str>,
        options: RegistryOptions,
    ) -> Result<CachedArtifact, Error> {
        let (trust, cancel) = (Trust::of_user(&options), options.cancel.clone());
        if let Some(digest) = reference.digest
            && let Some(held) = self.held(digest, &cancel).await?
            && self.is_signed(&held, trust).await?
        {
            return Ok(held);
        }
        let registry = Registry::of(reference, default, options).await?;
        let publication = registry.resolve(reference).await?;
        self.fetch(&registry, &publication).await
    }

    /// Whether an artifact is signed as it must be, with signatures that are here.
    async fn is_signed(&self, held: &CachedArtifact, trust: Trust) -> Result<bool, Error> {
        if trust.is_empty() {
            return Ok(true);
        }
        let mut signatures = Vec::new();
        for path in self.files()? {
            let name = name_of(&path);
            if name.starts_with(&held.digest.hex()) && name.ends_with(".minisig") {
                let text = std::fs::read_to_string(&path).map_err(Error::local("read", &path))?;
                // One that is damaged is fetched again.
                signatures.extend(StoredSignature::parse(&text, &path.display().to_string()));
            }
        }
        let zip = held.path.clone();
        let checked = blocking(move || {
            trust.check(&zip.display().to_string(), &signatures, || {
                File::open(&zip).map_err(Error::local("open", &zip))
            })
        });
        match checked.await {
            Ok(_) => Ok(true),
            Err(Error::Unsigned { .. } | Error::Signature { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An artifact that is in the cache.
    pub async fn held(
        &self,
        digest: Digest,
        cancel: &CancellationToken,
    ) -> Result<Option<CachedArtifact>, Error> {
        let zip = self.file(digest, "zip");
        if !zip.exists() {
            return Ok(None);
        }
        let held = lock(&self.file(digest, "lock"), Kind::Shared, cancel).await?;
        // It may have been removed before it was locked.
        let note = match zip.exists() {
            true => self.note(digest)?,
            false => None,
        };
        let Some(note) = note else { return Ok(None) };
        held.set_modified(SystemTime::now())
            .map_err(Error::local("note the use of", &zip))?;
        Ok(Some(CachedArtifact {
            path: zip,
            digest,
            name: note.name,
            _lock: held,
        }))
    }

    /// The artifact of a publication, fetched if it is not there. Of several processes that want
    /// it, one fetches it and the others wait. It must be signed as the registry and this user
    /// require, also if it is there.
    pub async fn fetch(
        &self,
        registry: &Registry,
        publication: &Publication,
    ) -> Result<CachedArtifact, Error> {
        let held = self.hold(registry, publication).await?;
        if self.is_signed(&held, registry.trust().await?).await? {
            return Ok(held);
        }
        // It may have been signed since; if not, this says so.
        match registry.pull(publication, &held.path).await {
            Ok(_) => Ok(held),
            Err(Error::InTheWay { .. }) => Err(held.damaged()),
            Err(error) => Err(error),
        }
    }

    async fn hold(
        &self,
        registry: &Registry,
        publication: &Publication,
    ) -> Result<CachedArtifact, Error> {
        let cancel = registry.options.cancel.clone();
        let digest = publication.digest;
        let contents = self.contents();
        std::fs::create_dir_all(&contents).map_err(Error::cache_folder(&contents))?;
        loop {
            if let Some(held) = self.held(digest, &cancel).await? {
                return Ok(held);
            }
            let lock_path = self.file(digest, "lock");
            let alone = lock(&lock_path, Kind::Exclusive, &cancel).await?;
            if self.note(digest)?.is_none() || !self.file(digest, "zip").exists() {
                let note = Note {
                    name: publication.name.clone(),
                    tag: publication.tag.clone(),
                };
                let text = serde_json::to_vec(&note).map_err(|error| {
                    Error::Broken(format!("a note cannot be written ({error})"))
                })?;
                let zip = self.file(digest, "zip");
                write_small(&self.file(digest, "json"), &text)?;
                match registry.pull(publication, &zip).await {
                    // It was damaged after a kill had left it without its note.
                    Err(Error::InTheWay { .. }) => {
                        remove_file(&zip)?;
                        registry.pull(publication, &zip).await?;
                    }
                    pulled => drop(pulled?),
                }
                self.note_fetched(zip, digest).await?;
            }
            drop(alone);
        }
    }

    /// What has just been fetched has been hashed.
    async fn note_fetched(&self, zip: PathBuf, digest: Digest) -> Result<(), Error> {
        let Some(home) = &self.home else {
            return Ok(());
        };
        let receipts = Receipts::at(home.join(KeptKind::Receipts.as_str()));
        blocking(move || {
            receipts.note(&zip, digest);
            Ok(())
        })
        .await
    }

    fn note(&self, digest: Digest) -> Result<Option<Note>, Error> {
        let path = self.file(digest, "json");
        match std::fs::read(&path) {
            // What cannot be read is fetched again.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::local("read", &path)(error)),
        }
    }

    /// What is in the cache, the longest unused first.
    pub fn list(&self) -> Result<Vec<CacheEntry>, Error> {
        let mut entries = Vec::new();
        for path in self.files()? {
            let file = name_of(&path);
            let digest = file
                .strip_suffix(".zip")
                .and_then(|hex| format!("sha256:{hex}").parse().ok());
            let Some(digest) = digest else { continue };
            let (Some(note), Some(size)) = (self.note(digest)?, size_of(&path)?) else {
                continue;
            };
            entries.push(CacheEntry {
                name: note.name,
                tag: note.tag,
                digest,
                size,
                unused_seconds: age(&self.file(digest, "lock"))?.as_secs(),
                path,
            });
        }
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.unused_seconds));
        Ok(entries)
    }

    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        paths_in(&self.contents())
    }

    /// Whether anything of an artifact is there, be it damaged.
    pub fn has(&self, digest: Digest) -> Result<bool, Error> {
        Ok(!self.files_of(digest)?.is_empty())
    }

    /// Removes an artifact, as when it is damaged; `false` if it is in use.
    pub fn remove(&self, digest: Digest) -> Result<bool, Error> {
        if !self.has(digest)? {
            return Ok(true);
        }
        let Some(_alone) = try_lock(&self.file(digest, "lock"), Kind::Exclusive)? else {
            return Ok(false);
        };
        self.remove_locked(digest)?;
        Ok(true)
    }

    /// Removes an artifact that is locked, the zip first: what is left is no artifact.
    fn remove_locked(&self, digest: Digest) -> Result<(), Error> {
        remove_file(&self.file(digest, "zip"))?;
        let lock = self.file(digest, "lock");
        for path in self.files_of(digest)? {
            if path != lock {
                remove_file(&path)?;
            }
        }
        remove_file(&lock)
    }

    fn files_of(&self, digest: Digest) -> Result<Vec<PathBuf>, Error> {
        let prefix = format!("{}.", digest.hex());
        let mut files = self.files()?;
        files.retain(|path| name_of(path).starts_with(&prefix));
        Ok(files)
    }
}

impl CachedArtifact {
    /// Whether it is still what was fetched. Reads all of it, and blocks.
    pub fn is_intact(&self) -> Result<bool, Error> {
        let read = File::open(&self.path).and_then(crate::digest_of);
        Ok(read.map_err(Error::local("read", &self.path))? == self.digest)
    }

    /// The error for one that is not.
    pub fn damaged(&self) -> Error {
        Error::DamagedInCache {
            path: self.path.clone(),
            digest: self.digest,
        }
    }
}

/// All that lies in a folder, sorted; nothing if it is not there.
fn paths_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::local("list", folder)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths
        .collect::<Result<_, _>>()
        .map_err(Error::local("list", folder))?;
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn size_of(path: &Path) -> Result<Option<u64>, Error> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::local("look at", path)(error)),
    }
}

/// How long ago a file was written; nothing for one that is gone.
fn age(path: &Path) -> Result<Duration, Error> {
    match std::fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(modified.elapsed().unwrap_or_default()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Duration::ZERO),
        Err(error) => Err(Error::local("look at", path)(error)),
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::local("remove", path)(error))
        }
        _ => Ok(()),
    }
}

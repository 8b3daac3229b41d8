//! The artifacts of this machine, by their content (`docs/registries.md` §10).
//!
//! `sha256/<hex>.zip` is an artifact, `<hex>.json` what it was fetched as, `<hex>.lock` is held by
//! whoever uses it, and by whoever fetches or removes it alone. When the lock was last taken is when
//! the artifact was last used.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlwm_spec::{ArtifactName, Digest, PublishedArtifact, Tag};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::policy::{StoredSignature, Trust};
use crate::pull::write_small;
use crate::registry::blocking;
use crate::signature::PublicKey;
use crate::transfers::{Kind, cache_home, lock, try_lock};
use crate::{Error, Publication, Registry, RegistryOptions};

/// What an unfinished download leaves is removed when it has not grown for so long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// The artifacts of this machine. Several processes share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
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

/// What is to be removed from the cache: what meets either condition.
#[derive(Clone, Copy, Debug, Default)]
pub struct PruneRequest {
    /// What was not used for so long.
    pub unused_for: Option<Duration>,
    /// What was unused longest, until the rest has no more than this many bytes.
    pub keep_bytes: Option<u64>,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What was removed from the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// What is gone (or would be).
    pub removed: Vec<CacheEntry>,
    /// What should have gone, but is in use.
    pub in_use: Vec<CacheEntry>,
    /// Unfinished downloads that are gone (or would be).
    pub unfinished: Vec<PathBuf>,
    /// Bytes that are free again (or would be).
    pub freed_bytes: u64,
}

/// What is beside a zip: what it was fetched as.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    name: ArtifactName,
    tag: Tag,
}

impl Cache {
    /// `mlwm/artifacts` in `XDG_CACHE_HOME`, else in `~/.cache`.
    pub fn open_default() -> Result<Self, Error> {
        Ok(Self::at(cache_home()?.join("mlwm/artifacts")))
    }

    /// In this folder, which is made when it is needed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
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
        let (keys, cancel) = (options.trusted_keys.clone(), options.cancel.clone());
        if let Some(digest) = reference.digest
            && let Some(held) = self.held(digest, &cancel).await?
            && self.is_signed(&held, &keys).await?
        {
            return Ok(held);
        }
        let registry = Registry::of(reference, default, options).await?;
        let publication = registry.resolve(reference).await?;
        let held = self.fetch(&registry, &publication).await?;
        if !self.is_signed(&held, &keys).await? {
            // It may have been signed since; if not, this says so.
            registry.pull(&publication, &held.path).await?;
        }
        Ok(held)
    }

    /// Whether one of `keys`, if there are any, signed an artifact with a signature that is here.
    async fn is_signed(&self, held: &CachedArtifact, keys: &[PublicKey]) -> Result<bool, Error> {
        if keys.is_empty() {
            return Ok(true);
        }
        let mut trust = Trust::default();
        trust.require("this command", keys.to_vec());
        let mut signatures = Vec::new();
        for path in self.files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&held.digest.hex()) && name.ends_with(".minisig") {
                let text = std::fs::read_to_string(&path).map_err(Error::local("read", &path))?;
                signatures.push(StoredSignature::parse(&text, &path.display().to_string())?);
            }
        }
        let zip = held.path.clone();
        let checked = blocking(move || {
            trust.check(&zip.display().to_string(), &signatures, || {
                File::open(&zip).map_err(Error::local("open", &zip))
            })
        });
        match checked.await {
            Ok(()) => Ok(true),
            Err(Error::Unsigned { .. }) => Ok(false),
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
    /// it, one fetches it and the others wait.
    pub async fn fetch(
        &self,
        registry: &Registry,
        publication: &Publication,
    ) -> Result<CachedArtifact, Error> {
        let cancel = registry.options.cancel.clone();
        let digest = publication.digest;
        let contents = self.contents();
        std::fs::create_dir_all(&contents).map_err(Error::local("create the folder", &contents))?;
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
                write_small(&self.file(digest, "json"), &text)?;
                registry
                    .pull(publication, &self.file(digest, "zip"))
                    .await?;
            }
            drop(alone);
        }
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
            let file = path.file_name().unwrap_or_default().to_string_lossy();
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
        let contents = self.contents();
        let entries = match std::fs::read_dir(&contents) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::local("list", &contents)(error)),
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths: Vec<PathBuf> = paths
            .collect::<Result<_, _>>()
            .map_err(Error::local("list", &contents))?;
        paths.sort();
        Ok(paths)
    }

    /// Removes what is not needed any more, but never what is in use.
    pub async fn prune(&self, request: PruneRequest) -> Result<Pruned, Error> {
        let cache = self.clone();
        blocking(move || cache.prune_now(request)).await
    }

    fn prune_now(&self, request: PruneRequest) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for entry in surplus(&self.list()?, &request) {
            let Some(_alone) = try_lock(&self.file(entry.digest, "lock"), Kind::Exclusive)? else {
                pruned.in_use.push(entry);
                continue;
            };
            if !request.dry_run {
                self.remove(entry.digest)?;
            }
            pruned.freed_bytes += entry.size;
            pruned.removed.push(entry);
        }
        for path in self.files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let unfinished = name.ends_with(".mlwm-part") || name.ends_with(".mlwm-fetched");
            if !unfinished || age(&path)? < ABANDONED {
                continue;
            }
            pruned.freed_bytes += size_of(&path)?.unwrap_or_default();
            if !request.dry_run {
                remove_file(&path)?;
            }
            pruned.unfinished.push(path);
        }
        Ok(pruned)
    }

    /// Removes an artifact that is locked, the zip first: what is left is no artifact.
    fn remove(&self, digest: Digest) -> Result<(), Error> {
        remove_file(&self.file(digest, "zip"))?;
        let prefix = format!("{}.", digest.hex());
        for path in self.files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&prefix) && !name.ends_with(".lock") {
                remove_file(&path)?;
            }
        }
        remove_file(&self.file(digest, "lock"))
    }
}

/// What of these entries, the longest unused first, a request is about.
fn surplus(entries: &[CacheEntry], request: &PruneRequest) -> Vec<CacheEntry> {
    let mut bytes: u64 = entries.iter().map(|entry| entry.size).sum();
    let mut surplus = Vec::new();
    for entry in entries {
        let old = request
            .unused_for
            .is_some_and(|limit| entry.unused_seconds >= limit.as_secs());
        let over = request.keep_bytes.is_some_and(|limit| bytes > limit);
        if old || over {
            bytes -= entry.size;
            surplus.push(entry.clone());
        }
    }
    surplus
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, size: u64, unused_seconds: u64) -> CacheEntry {
        CacheEntry {
            name: name.parse().unwrap(),
            tag: Tag::latest(),
            digest: Digest::of(name),
            size,
            unused_seconds,
            path: PathBuf::new(),
        }
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let entries = [entry("a", 5, 300), entry("b", 5, 200), entry("c", 5, 100)];
        let names = |unused_for: Option<u64>, keep_bytes| -> String {
            let request = PruneRequest {
                unused_for: unused_for.map(Duration::from_secs),
                keep_bytes,
                dry_run: true,
            };
            let surplus = surplus(&entries, &request);
            surplus.iter().map(|entry| entry.name.as_str()).collect()
        };
        assert_eq!(names(None, None), "");
        assert_eq!(names(None, Some(15)), "");
        assert_eq!(names(None, Some(14)), "a");
        assert_eq!(names(None, Some(5)), "ab");
        assert_eq!(names(None, Some(0)), "abc");
        assert_eq!(names(Some(200), None), "ab");
        assert_eq!(names(Some(300), Some(9)), "ab");
        assert_eq!(names(Some(0), None), "abc");
    }
}

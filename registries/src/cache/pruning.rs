//! Removing from the cache what is not needed any more.

use std::path::PathBuf;
use std::time::Duration;

use mlwm_spec::Digest;
use serde::Serialize;

use super::{Cache, CacheEntry, KeptEntry, age, name_of, remove_file, size_of};
use crate::Error;
use crate::pull::WRITING;
use crate::registry::blocking;
use crate::transfers::{Kind, Transfers, try_lock};

/// What an unfinished download, or a process that was killed, leaves is removed when it has not
/// changed for so long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

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
    /// What is gone (or would be) of what is kept beside the artifacts.
    pub removed_kept: Vec<KeptEntry>,
    /// What should have gone of it, but is in use.
    pub in_use_kept: Vec<KeptEntry>,
    /// What unfinished downloads and pushes left, if it is old, that is gone (or would be).
    pub unfinished: Vec<PathBuf>,
    /// Bytes that are free again (or would be).
    pub freed_bytes: u64,
}

impl Cache {
    /// Removes what is not needed any more, but never what is in use.
    pub async fn prune(&self, request: PruneRequest) -> Result<Pruned, Error> {
        let cache = self.clone();
        blocking(move || cache.prune_now(request)).await
    }

    fn prune_now(&self, request: PruneRequest) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for entry in surplus(&self.entries()?, &request) {
            match entry {
                Entry::Artifact(entry) => self.prune_artifact(entry, &request, &mut pruned)?,
                Entry::Kept(entry) => self.prune_kept(entry, &request, &mut pruned)?,
            }
        }
        // Notes are too small to count.
        let everything = (request.keep_bytes == Some(0)).then_some(Duration::ZERO);
        if let Some(unused_for) = everything.or(request.unused_for) {
            let notes = self.prune_notes(unused_for, request.dry_run)?;
            pruned.freed_bytes += notes.iter().map(|entry| entry.size).sum::<u64>();
            pruned.removed_kept.extend(notes);
        }
        self.prune_unfinished(request.dry_run, &mut pruned)?;
        self.prune_remains(request.dry_run, &mut pruned)?;
        if let Some(folder) = &self.transfers {
            let left = Transfers::at(Some(folder)).prune(request.dry_run)?;
            pruned.unfinished.extend(left);
        }
        for (path, size) in self.prune_unfinished_kept(ABANDONED, request.dry_run)? {
            pruned.freed_bytes += size;
            pruned.unfinished.push(path);
        }
        Ok(pruned)
    }

    /// All that counts, the longest unused first.
    fn entries(&self) -> Result<Vec<Entry>, Error> {
        let artifacts = self.list()?.into_iter().map(Entry::Artifact);
        let kept = self.kept_folders()?.into_iter().map(Entry::Kept);
        let mut entries: Vec<Entry> = artifacts.chain(kept).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.unused_seconds()));
        Ok(entries)
    }

    fn prune_artifact(
        &self,
        entry: CacheEntry,
        request: &PruneRequest,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        let Some(_alone) = try_lock(&self.file(entry.digest, "lock"), Kind::Exclusive)? else {
            pruned.in_use.push(entry);
            return Ok(());
        };
        if !request.dry_run {
            self.remove_locked(entry.digest)?;
        }
        pruned.freed_bytes += entry.size;
        pruned.removed.push(entry);
        Ok(())
    }

    fn prune_kept(
        &self,
        entry: KeptEntry,
        request: &PruneRequest,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        match self.remove_kept(&entry, request.dry_run)? {
            true => {
                pruned.freed_bytes += entry.size;
                pruned.removed_kept.push(entry);
            }
            false => pruned.in_use_kept.push(entry),
        }
        Ok(())
    }

    /// Removes what unfinished downloads and writings left.
    fn prune_unfinished(&self, dry_run: bool, pruned: &mut Pruned) -> Result<(), Error> {
        for path in self.files()? {
            let name = name_of(&path);
            let unfinished = name.starts_with(WRITING)
                || name.ends_with(".mlwm-part")
                || name.ends_with(".mlwm-fetched");
            if !unfinished || age(&path)? < ABANDONED {
                continue;
            }
            pruned.freed_bytes += size_of(&path)?.unwrap_or_default();
            if !dry_run {
                remove_file(&path)?;
            }
            pruned.unfinished.push(path);
        }
        Ok(())
    }

    /// Removes what belongs to zips that are not there: of a fetch or a removal that was killed.
    fn prune_remains(&self, dry_run: bool, pruned: &mut Pruned) -> Result<(), Error> {
        let digest = |path: &PathBuf| {
            let name = name_of(path);
            let (hex, _) = name.split_once('.')?;
            format!("sha256:{hex}").parse::<Digest>().ok()
        };
        let mut digests: Vec<Digest> = self.files()?.iter().filter_map(digest).collect();
        digests.dedup();
        for digest in digests {
            let (zip, files) = (self.file(digest, "zip"), self.files_of(digest)?);
            if zip.exists() {
                continue;
            }
            let Some(_alone) = try_lock(&self.file(digest, "lock"), Kind::Exclusive)? else {
                continue;
            };
            let ages: Vec<Duration> = files
                .iter()
                .map(|path| age(path))
                .collect::<Result<_, _>>()?;
            if zip.exists() || ages.iter().any(|age| *age < ABANDONED) {
                continue;
            }
            if !dry_run {
                self.remove_locked(digest)?;
            }
            pruned.unfinished.extend(files);
        }
        Ok(())
    }
}

/// What is kept, by size and by when it was last used.
#[derive(Clone, Debug)]
enum Entry {
    Artifact(CacheEntry),
    Kept(KeptEntry),
}

impl Entry {
    fn size(&self) -> u64 {
        match self {
            Self::Artifact(entry) => entry.size,
            Self::Kept(entry) => entry.size,
        }
    }

    fn unused_seconds(&self) -> u64 {
        match self {
            Self::Artifact(entry) => entry.unused_seconds,
            Self::Kept(entry) => entry.unused_seconds,
        }
    }
}

/// What of these entries, the longest unused first, a request is about.
fn surplus(entries: &[Entry], request: &PruneRequest) -> Vec<Entry> {
    let mut bytes: u64 = entries.iter().map(Entry::size).sum();
    let mut surplus = Vec::new();
    for entry in entries {
        let old = request
            .unused_for
            .is_some_and(|limit| entry.unused_seconds() >= limit.as_secs());
        let over = request.keep_bytes.is_some_and(|limit| bytes > limit);
        if old || over {
            bytes -= entry.size();
            surplus.push(entry.clone());
        }
    }
    surplus
}

#[cfg(test)]
mod tests {
    use mlwm_spec::Tag;

    use super::*;
    use crate::KeptKind;

    fn entry(name: &str, size: u64, unused_seconds: u64) -> Entry {
        Entry::Artifact(CacheEntry {
            name: name.parse().unwrap(),
            tag: Tag::latest(),
            digest: Digest::of(name),
            size,
            unused_seconds,
            path: PathBuf::new(),
        })
    }

    fn kept(size: u64, unused_seconds: u64) -> Entry {
        Entry::Kept(KeptEntry {
            kind: KeptKind::Unpacked,
            digest: None,
            number: 1,
            size,
            unused_seconds,
            path: PathBuf::new(),
        })
    }

    fn name(entry: &Entry) -> &str {
        match entry {
            Entry::Artifact(entry) => entry.name.as_str(),
            Entry::Kept(_) => "b",
        }
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let entries = [entry("a", 5, 300), kept(5, 200), entry("c", 5, 100)];
        let names = |unused_for: Option<u64>, keep_bytes| -> String {
            let request = PruneRequest {
                unused_for: unused_for.map(Duration::from_secs),
                keep_bytes,
                dry_run: true,
            };
            let surplus = surplus(&entries, &request);
            surplus.iter().map(name).collect()
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

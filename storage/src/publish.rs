//! Publishing: bringing an output to a store, all or nothing.
//!
//! # Protocol
//!
//! For an output at `<uri>`, the manifest `<uri>.manifest.json` makes it visible, and the marker
//! `<uri>.publishing.json` says whose unfinished work lies there. One publication:
//!
//! 1. **Manifest there?** The same task with the same objects: done before. Anything else is a
//!    conflict, and nothing is touched; or, if it shall be replaced, it is withdrawn: the marker of
//!    the new task is put there, the manifest is kept in `<uri>.withdrawn-<content>.json`, and then
//!    removed. What it listed is then leftovers of the new task, whose manifest says what it
//!    replaces.
//! 2. **Objects there without manifest and marker?** They are not mlwm's: a conflict, and nothing
//!    is touched. With a marker they are what an interrupted publication left.
//! 3. **Marker.** It holds the task's identity and a random number that tells this attempt from
//!    any other. Where no marker was, it is created conditionally; an old one is replaced. A
//!    publication looks at its marker all the time ([`Options::watch`](crate::Options)) and stops
//!    when it finds another's. So whoever replaced a marker, or created one in a store without
//!    conditional writes, waits until a rival must have stopped, and goes on if the marker is
//!    still its own. Then the manifest is looked for once more.
//! 4. **Leftovers** that are no part of this output are removed, and with them the Zarr metadata
//!    of its root, so that no reader opens a mixture; uploads in parts that were not completed are
//!    ended.
//! 5. **Objects**, in parallel, hashed while they are read; then, one after the other, the Zarr
//!    metadata of the root. An object appears complete or not at all (on a file system by
//!    renaming, synchronised to disk). S3 checks each part against its signed SHA-256. What the
//!    store has taken is noted in a local file, and is not sent again by the next attempt, if the
//!    store still lists it as it took it and the local file still has the same SHA-256.
//! 6. **Comparison** of the store's listing with what was sent: names, sizes, and the entity tags
//!    that the store itself gave when it took each object.
//! 7. **Manifest**, if the marker is still this attempt's: created conditionally (`If-None-Match`;
//!    on a file system a hard link, of which only one can succeed), then read again and compared.
//! 8. **Marker** removed.
//!
//! Killed at any point, the same command continues: before step 7 it starts over from step 2 as
//! the owner of the leftovers, after it step 1 finds the work done and only removes the marker.
//!
//! Of two publications to one place at the same time the later marker wins, and the other stops.
//! What this cannot survive is a rival that stands still (a suspended process, a network that is
//! cut off) for longer than the wait and then wakes with a write under way, which no protocol
//! without the store's help can; [`verify`](crate::verify) finds that. Where a store honours
//! `If-None-Match` (Amazon's does, Garage's does not) there is never a second manifest.

mod marker;
mod pieces;
mod sending;
mod taken;

use std::path::Path;
use std::sync::Arc;

use mlwm_spec::manifest::{MANIFEST_SUFFIX, ObjectRecord, content_digest};
use mlwm_spec::{Digest, Manifest};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::marker::Marker;
pub use self::marker::{MARKER_SUFFIX, WITHDRAWN_SUFFIX};
pub use self::pieces::Publishing;
use self::taken::Taken;
use crate::points::reach;
use crate::progress::Counter;
use crate::stage::hash_file;
use crate::tree::{self, Gone, LocalFile};
use crate::{Error, Listed, Phase, Progress, Rivals, Store, Uri, kept, pool};

/// A local folder whose files are published.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// The file in which it is noted what the store has taken; without one, a publication that was
    /// interrupted sends everything again.
    pub notes: Option<&'a Path>,
}

impl<'a> From<&'a Path> for Source<'a> {
    fn from(folder: &'a Path) -> Self {
        Self {
            folder,
            notes: None,
        }
    }
}

/// How a publication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was published now.
    Published,
    /// The same task had published the same objects before.
    AlreadyPublished,
}

/// A published output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// How it ended.
    pub outcome: Outcome,
    /// The manifest that is there now.
    pub manifest: Manifest,
    /// Bytes in all.
    pub bytes: u64,
}

/// Publishes the files of `source` at `uri`, all or nothing, with the settings of the environment.
/// `make_manifest` gets every object, ordered by path, and must return a manifest with them and with `task`.
pub async fn publish(
    source: Source<'_>,
    uri: &Uri,
    task: Digest,
    make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Published, Error> {
    let store = Store::open(uri).await?;
    store
        .publish(source, uri, task, make_manifest, progress, cancel)
        .await
}

/// The same, but what another task published there is withdrawn.
pub async fn republish(
    source: Source<'_>,
    uri: &Uri,
    task: Digest,
    make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Published, Error> {
    let store = Store::open(uri).await?;
    store
        .republish(source, uri, task, make_manifest, progress, cancel)
        .await
}

impl Store {
    /// Publishes the files of `source` at `uri`, all or nothing (see the function [`publish`]).
    pub async fn publish(
        &self,
        source: Source<'_>,
        uri: &Uri,
        task: Digest,
        make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Published, Error> {
        let files = self.publishable(source.folder, uri).await?;
        let work = self.publication(uri, task, progress, cancel);
        if let Some(theirs) = self.manifest(uri).await? {
            return work.compare(files, theirs, None).await;
        }
        work.publish(files, source.notes, make_manifest).await
    }

    /// The same, but what another task published there, or this one with other content, is
    /// withdrawn.
    pub async fn republish(
        &self,
        source: Source<'_>,
        uri: &Uri,
        task: Digest,
        make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Published, Error> {
        let files = self.publishable(source.folder, uri).await?;
        let work = self.publication(uri, task, progress, cancel);
        if let Some(theirs) = self.manifest(uri).await? {
            match work.compare(files.clone(), theirs.clone(), None).await {
                Err(Error::Conflict { .. }) => {}
                same => match self.verify(uri, progress, cancel).await {
                    // It is what it should be, but not as it lies there.
                    Err(Error::Corrupt { .. } | Error::Removed { .. }) => drop(same?),
                    Err(error) => return Err(error),
                    Ok(_) => return same,
                },
            }
            work.withdraw(&theirs).await?;
        }
        work.publish(files, source.notes, make_manifest).await
    }

    /// Removes the marker of what a task has published, if it was killed before it did so itself.
    pub async fn finish(&self, uri: &Uri, task: Digest) -> Result<(), Error> {
        let (progress, cancel) = (Progress::none(), CancellationToken::new());
        self.publication(uri, task, &progress, &cancel)
            .finish()
            .await
    }

    fn publication<'a>(
        &'a self,
        uri: &'a Uri,
        task: Digest,
        progress: &'a Progress,
        cancel: &'a CancellationToken,
    ) -> Publication<'a> {
        Publication {
            store: self,
            uri,
            task,
            progress,
            cancel,
        }
    }

    async fn publishable(&self, local: &Path, uri: &Uri) -> Result<Vec<LocalFile>, Error> {
        if uri.is_root() {
            return Err(Error::InvalidUri {
                uri: uri.to_string(),
                reason: "an output needs a name below the bucket or root folder".to_owned(),
            });
        }
        self.local_files(local, uri).await
    }

    async fn local_files(&self, local: &Path, uri: &Uri) -> Result<Vec<LocalFile>, Error> {
        let (local, place) = (local.to_owned(), uri.local_path());
        pool::blocking(uri, move || {
            let files = tree::walk(&local, Gone::Fault)?;
            if files.is_empty() {
                return Err(Error::EmptyOutput { path: local });
            }
            if let Some(place) = place {
                tree::check_space(&place, files.iter().map(|file| file.size))?;
            }
            Ok(files)
        })
        .await
    }
}

/// An object that was sent, and the version that the store gave it.
type Sent = (ObjectRecord, Option<String>);

/// One attempt to publish.
struct Publication<'a> {
    store: &'a Store,
    uri: &'a Uri,
    task: Digest,
    progress: &'a Progress,
    cancel: &'a CancellationToken,
}

impl Publication<'_> {
    /// Steps 2 to 8: nothing was published here a moment ago.
    async fn publish(
        &self,
        files: Vec<LocalFile>,
        notes: Option<&Path>,
        make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send,
    ) -> Result<Published, Error> {
        let marker = pool::unless_cancelled(self.uri, self.cancel, self.mark()).await?;
        // Another attempt may have finished between the first look and the marker.
        if let Some(theirs) = self.store.manifest(self.uri).await? {
            return self.compare(files, theirs, Some(&marker)).await;
        }
        reach("publish: marked");
        let is_ours = |path: &str| {
            let found = files.binary_search_by(|file| file.name.as_str().cmp(path));
            found.is_ok()
        };
        let left = self.clear(&marker, |left| is_ours(&left.path)).await?;
        reach("publish: cleared");
        let sent = self.bring(files, notes, &marker, left).await?;
        reach("publish: sent");
        self.close(&marker, sent, make_manifest).await
    }

    /// Steps 5 and 6, and once more if something else came to the store meanwhile: a request that was called off
    /// or whose process was killed may arrive behind those of its successor.
    async fn bring(
        &self,
        files: Vec<LocalFile>,
        notes: Option<&Path>,
        marker: &Marker,
        mut there: Vec<Listed>,
    ) -> Result<Vec<Sent>, Error> {
        let mut again = false;
        loop {
            let mut taken = Taken::read(self.uri, notes).await?;
            taken.keep(&there);
            let sent = self.send(files.clone(), marker, &Arc::new(taken)).await?;
            match self.check_arrived(&sent).await {
                Err(Error::Corrupt { .. }) if !std::mem::replace(&mut again, true) => {
                    there = self.store.list(self.uri).await?;
                }
                checked => return checked.map(|()| sent),
            }
        }
    }

    /// Steps 7 and 8: everything has arrived.
    async fn close(
        &self,
        marker: &Marker,
        sent: Vec<Sent>,
        make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send,
    ) -> Result<Published, Error> {
        let objects: Vec<ObjectRecord> = sent.into_iter().map(|(object, _)| object).collect();
        let bytes = objects.iter().map(|object| object.size).sum();
        let manifest = Manifest {
            replaces: marker.replaces.clone(),
            ..make_manifest(objects.clone())
        };
        self.check_manifest(&manifest, &objects)?;
        self.check_marker(marker).await?;
        reach("publish: before the manifest");
        self.reveal(&manifest).await?;
        reach("publish: visible");
        self.tidy().await?;
        Ok(Published {
            outcome: Outcome::Published,
            manifest,
            bytes,
        })
    }

    /// Step 1: a manifest is there; whether it is ours.
    async fn compare(
        &self,
        files: Vec<LocalFile>,
        theirs: Manifest,
        marker: Option<&Marker>,
    ) -> Result<Published, Error> {
        let objects = hash(self.uri, files, self.progress, self.cancel).await?;
        let (their_objects, our_objects) =
            (content_digest(&theirs.objects), content_digest(&objects));
        if theirs.task != self.task || their_objects != our_objects {
            if let Some(marker) = marker {
                self.check_marker(marker).await?;
                self.store.remove(&self.marker_place()).await?;
            }
            return Err(self.conflict(theirs.task, their_objects, our_objects));
        }
        self.finish().await?;
        let bytes = objects.iter().map(|object| object.size).sum();
        Ok(Published {
            outcome: Outcome::AlreadyPublished,
            manifest: theirs,
            bytes,
        })
    }

    fn check_manifest(&self, manifest: &Manifest, objects: &[ObjectRecord]) -> Result<(), Error> {
        let reason = if manifest.task != self.task {
            format!("it is of task {}", manifest.task)
        } else if manifest.objects != objects {
            "it lists other objects".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::WrongManifest {
            uri: self.uri.to_string(),
            reason,
        })
    }

    /// Step 7: the manifest.
    async fn reveal(&self, manifest: &Manifest) -> Result<(), Error> {
        let place = self.uri.sibling_suffix(MANIFEST_SUFFIX);
        if self.cancel.is_cancelled() {
            return Err(pool::interrupted(self.uri));
        }
        if self.store.manifest(self.uri).await?.is_none() {
            // If it was created by another in this moment, or by a request of ours whose answer
            // was lost, what is there now decides.
            self.store.create(&place, json(&place, manifest)?).await?;
        }
        let found = self.store.manifest(self.uri).await?;
        match found {
            Some(found) if found == *manifest => Ok(()),
            Some(found) => Err(self.conflict(
                found.task,
                content_digest(&found.objects),
                content_digest(&manifest.objects),
            )),
            None => Err(Error::NotPublished {
                uri: self.uri.to_string(),
                manifest: place.to_string(),
            }),
        }
    }

    fn conflict(&self, theirs: Digest, their_objects: Digest, our_objects: Digest) -> Error {
        let between = Rivals {
            theirs,
            their_objects,
            ours: self.task,
            our_objects,
        };
        Error::Conflict {
            uri: self.uri.to_string(),
            between: Box::new(between),
        }
    }

    /// Step 8, if this task's publication was killed before it.
    async fn finish(&self) -> Result<(), Error> {
        let marker = self.marker().await?;
        match marker.is_some_and(|marker| marker.task == self.task) {
            true => self.tidy().await,
            false => Ok(()),
        }
    }

    /// Step 8: nothing is left but the output and its manifest.
    async fn tidy(&self) -> Result<(), Error> {
        let marker = self.marker_place();
        self.store.remove(&marker).await?;
        self.store.remove_temporaries(&marker).await?;
        self.store
            .remove_temporaries(&self.uri.sibling_suffix(MANIFEST_SUFFIX))
            .await
    }
}

async fn hash(
    uri: &Uri,
    files: Vec<LocalFile>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Vec<ObjectRecord>, Error> {
    hash_by(hash_file, uri, files, progress, cancel).await
}

/// What tells a file's content, and how many bytes of it were looked at.
type HashFile = fn(&Uri, &Path, &dyn Fn(u64), &CancellationToken) -> Result<Digest, Error>;

async fn hash_by(
    of_file: HashFile,
    uri: &Uri,
    files: Vec<LocalFile>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Vec<ObjectRecord>, Error> {
    let counter = Counter::start(progress, Phase::Hashing, files.iter().map(|file| file.size));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    pool::run_all(uri, files, cores, cancel, |file: LocalFile, cancel| {
        let (uri, counter) = (uri.clone(), counter.clone());
        async move {
            pool::blocking(&uri.clone(), move || {
                let sha256 = of_file(&uri, &file.path, &|count| counter.bytes(count), &cancel)?;
                counter.object();
                Ok(ObjectRecord {
                    path: file.name,
                    size: file.size,
                    sha256,
                })
            })
            .await
        }
    })
    .await
}

/// Every object that would be published of a local folder, ordered by path, hashed.
pub async fn local_objects(
    local: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<ObjectRecord>, Error> {
    objects_by(hash_file, local, cancel).await
}

/// Every file of a local folder, ordered by path, with a digest that differs where their bytes do, but is not that of
/// all bytes: a file may be a terabyte long and take nothing, and what is not there is not read.
pub async fn kept_objects(
    local: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<ObjectRecord>, Error> {
    objects_by(kept::hash_file, local, cancel).await
}

async fn objects_by(
    of_file: HashFile,
    local: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<ObjectRecord>, Error> {
    let progress = Progress::none();
    let uri = Uri::from_path(local, &local.to_string_lossy())?;
    let folder = local.to_owned();
    let files = pool::blocking(&uri, move || tree::walk(&folder, Gone::Fault)).await?;
    hash_by(of_file, &uri, files, &progress, cancel).await
}

fn json(place: &Uri, value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::BadManifest {
        uri: place.to_string(),
        reason: error.to_string(),
    })?;
    text.push(b'\n');
    Ok(text)
}

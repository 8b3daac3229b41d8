//! Staging: bringing the objects below a URI into a local folder, or the one at it into a local file, all
//! or nothing.
//!
//! Objects are collected in a folder beside the destination, `.<name>.mlwm-staging`, which takes
//! the destination's name when all are there. If that is interrupted, the folder stays, and the
//! next attempt keeps what is complete: files get their names there only when all their bytes
//! have arrived, and they are hashed again. It is thrown away if the store's listing has changed,
//! or if the machine has been started since (files are not synchronised to disk here: staged
//! inputs are scratch).

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mlwm_spec::Digest;
use mlwm_spec::manifest::{ObjectRecord, content_digest};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::points::reach;
use crate::progress::Counter;
use crate::store::Found;
use crate::{Error, Listed, Listing, Phase, Progress, Store, Uri, names, pool, tree};

/// What was staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Every object, ordered by path.
    pub objects: Vec<ObjectRecord>,
    /// Digest over what the store's listing said ([`Listing`]).
    pub listing: Digest,
    /// Digest over path, size and SHA-256 of every object.
    pub digest: Digest,
    /// Bytes in all.
    pub bytes: u64,
}

/// Brings everything below `uri` into the folder `dest`, or the object at `uri` into the file `dest`, with the
/// settings of the environment.
pub async fn stage(
    uri: &Uri,
    dest: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Staged, Error> {
    Store::open(uri)
        .await?
        .stage(uri, dest, progress, cancel)
        .await
}

impl Store {
    /// Brings everything below `uri` into the folder `dest`, which must be empty or not exist, and
    /// appears complete or not at all. If there is nothing below `uri` but an object at it, `dest` becomes a
    /// file.
    pub async fn stage(
        &self,
        uri: &Uri,
        dest: &Path,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Staged, Error> {
        let found = pool::unless_cancelled(uri, cancel, self.find(uri)).await?;
        let Some(Found { folder, listed }) = found else {
            self.refuse_removed(uri).await?;
            return Err(Error::NothingAt {
                uri: uri.to_string(),
            });
        };
        let file = (folder != *uri).then(|| uri.name().to_owned());
        check_names(uri, &listed)?;
        let listing = Listing::of(&listed);
        reach("stage: listed");
        let area = {
            let (uri, dest, listed) = (uri.clone(), dest.to_owned(), listed.clone());
            pool::blocking(&uri.clone(), move || {
                let area = Area::prepare(&uri, &dest, listing.digest)?;
                let missing = listed.iter().filter(|object| !area.has(object));
                tree::check_space(&dest, missing.map(|object| object.size))?;
                Ok(Arc::new(area))
            })
            .await?
        };
        let counter = Counter::start(progress, Phase::Staging, listed.iter().map(|o| o.size));
        let objects = pool::run_all(
            uri,
            listed.into_iter().enumerate().collect(),
            self.options.in_flight,
            cancel,
            |(index, object), cancel| {
                let (store, uri) = (self.clone(), folder.clone());
                let (area, counter) = (Arc::clone(&area), counter.clone());
                async move {
                    store
                        .stage_object(&uri, index, object, &area, &counter, &cancel)
                        .await
                }
            },
        )
        .await?;
        pool::blocking(uri, move || area.finish(file.as_deref())).await?;
        Ok(Staged {
            listing: listing.digest,
            digest: content_digest(&objects),
            bytes: listing.bytes,
            objects,
        })
    }

    async fn stage_object(
        &self,
        uri: &Uri,
        index: usize,
        object: Listed,
        area: &Arc<Area>,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<ObjectRecord, Error> {
        let sha256 = if area.has(&object) {
            let (kept, counter, cancel) = (Arc::clone(area), counter.clone(), cancel.clone());
            let (uri, path) = (uri.clone(), object.path.clone());
            pool::blocking(&uri.clone(), move || {
                let file = kept.file(&path);
                let sha256 = hash_file(&uri, &file, &|count| counter.bytes(count), &cancel)?;
                counter.object();
                Ok(sha256)
            })
            .await?
        } else {
            let sink = Sink {
                arriving: area.tmp.join(index.to_string()),
                target: area.file(&object.path),
                file: None,
                hasher: Sha256::new(),
                left: object.size,
            };
            let sink = self
                .read(uri, &object, sink, Sink::take, counter, cancel)
                .await?;
            Digest::from_hasher(sink.hasher)
        };
        reach("stage: object");
        Ok(ObjectRecord {
            path: object.path,
            size: object.size,
            sha256,
        })
    }
}

fn check_names(uri: &Uri, listed: &[Listed]) -> Result<(), Error> {
    let refuse = |name: &str, reason: &str| Error::UnsafeName {
        uri: uri.to_string(),
        name: name.escape_debug().to_string(),
        reason: reason.to_owned(),
    };
    for object in listed {
        names::check(&object.path).map_err(|reason| refuse(&object.path, reason))?;
    }
    match names::collision(listed.iter().map(|object| object.path.as_str())) {
        Some(name) => Err(refuse(
            name,
            "another object lies below it as if it were a folder",
        )),
        None => Ok(()),
    }
}

/// The digest of a local file, read in pieces, whose lengths are told.
pub(crate) fn hash_file(
    uri: &Uri,
    path: &Path,
    tell: &dyn Fn(u64),
    cancel: &CancellationToken,
) -> Result<Digest, Error> {
    use std::io::Read;
    let mut file = File::open(path).map_err(Error::local("open", path))?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        if cancel.is_cancelled() {
            return Err(pool::interrupted(uri));
        }
        let count = file.read(&mut piece).map_err(Error::local("read", path))?;
        if count == 0 {
            return Ok(Digest::from_hasher(hasher));
        }
        hasher.update(&piece[..count]);
        tell(count as u64);
    }
}

/// Where one object arrives: hashed and written as its parts come, named when it is complete.
struct Sink {
    arriving: PathBuf,
    target: PathBuf,
    file: Option<File>,
    hasher: Sha256,
    left: u64,
}

impl Sink {
    fn take(&mut self, part: &[Bytes]) -> Result<(), Error> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::create(&self.arriving).map_err(Error::local("create", &self.arriving))?,
        };
        for piece in part {
            self.hasher.update(piece);
            file.write_all(piece)
                .map_err(Error::local("write", &self.arriving))?;
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        if self.left > 0 {
            self.file = Some(file);
            return Ok(());
        }
        drop(file);
        let folder = self.target.parent().unwrap_or(&self.target);
        tree::create_folders(folder).map_err(Error::local("create the folder", folder))?;
        std::fs::rename(&self.arriving, &self.target)
            .map_err(Error::local("rename to", &self.target))
    }
}

/// The folder beside the destination in which objects are collected.
struct Area {
    dest: PathBuf,
    folder: PathBuf,
    data: PathBuf,
    tmp: PathBuf,
    /// Held so that no second process stages to the same destination.
    _lock: File,
}

impl Area {
    fn prepare(uri: &Uri, dest: &Path, listing: Digest) -> Result<Self, Error> {
        let dest = std::path::absolute(dest).map_err(Error::local("resolve", dest))?;
        match std::fs::read_dir(&dest).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(Error::DestinationNotEmpty { path: dest }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::local("list", dest)(error)),
        }
        let name = dest
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("root");
        let folder = dest.with_file_name(format!(".{name}.mlwm-staging"));
        let make = |folder: &Path| {
            tree::create_folders(folder).map_err(Error::local("create the folder", folder))
        };
        make(&folder)?;
        let lock_file = folder.join("lock");
        let lock = File::create(&lock_file).map_err(Error::local("create", &lock_file))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::Busy { path: dest.clone() },
            TryLockError::Error(error) => Error::local("lock", &lock_file)(error),
        })?;
        let (data, tmp, origin) = (
            folder.join("data"),
            folder.join("tmp"),
            folder.join("origin"),
        );
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let expected = format!("{uri}\n{listing}\n{}\n", boot.trim());
        let known = !boot.is_empty()
            && std::fs::read_to_string(&origin).is_ok_and(|origin| origin == expected);
        for old in [(!known).then_some(&data), Some(&tmp)]
            .into_iter()
            .flatten()
        {
            remove_folder(old)?;
        }
        make(&data)?;
        make(&tmp)?;
        std::fs::write(&origin, expected).map_err(Error::local("write", &origin))?;
        Ok(Self {
            dest,
            folder,
            data,
            tmp,
            _lock: lock,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// Whether an earlier attempt has brought this object.
    fn has(&self, object: &Listed) -> bool {
        std::fs::symlink_metadata(self.file(&object.path))
            .is_ok_and(|found| found.is_file() && found.len() == object.size)
    }

    /// Gives the collected objects the destination's name, or the only one, which is called `file`.
    fn finish(&self, file: Option<&str>) -> Result<(), Error> {
        let collected = match file {
            Some(name) => {
                // No file takes the name of a folder, not even of an empty one.
                let _ = std::fs::remove_dir(&self.dest);
                self.file(name)
            }
            None => self.data.clone(),
        };
        reach("stage: complete");
        std::fs::rename(collected, &self.dest).map_err(Error::local("rename to", &self.dest))?;
        reach("stage: renamed");
        remove_folder(&self.folder)
    }
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::local("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

//! What a push that was interrupted needs to know when it goes on: where the zip was being put, and
//! whether it arrived. How much of it arrived is in the journals of the storage library beside it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlwm_spec::Digest;
use mlwm_storage::Journals;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// What nobody continued for so long is forgotten: stores keep parts that have arrived for a week.
const FORGOTTEN: Duration = Duration::from_secs(14 * 24 * 3600);

/// How often a lock is tried that another process holds.
const PATIENCE: Duration = Duration::from_millis(50);

/// The folder of the states of interrupted transfers, which who transfers nothing needs not have;
/// `None`: `mlwm/transfers` where caches are kept.
#[derive(Clone, Debug)]
pub(crate) struct Transfers(Option<PathBuf>);

/// One push: held against other processes until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    path: PathBuf,
    lock_path: PathBuf,
    pub(crate) state: State,
    /// Whether an earlier process began it.
    pub(crate) continued: bool,
    _lock: File,
}

/// What a later process must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What the zip is called in the registry.
    pub(crate) key: String,
    /// Of the whole zip, when all of it has arrived.
    pub(crate) digest: Option<Digest>,
    /// Of the parts that have arrived, where a zip is sent in parts.
    #[serde(default)]
    pub(crate) parts: Vec<Digest>,
}

impl Transfers {
    /// In this folder; `None`: `mlwm/transfers` where caches are kept.
    pub(crate) fn at(folder: Option<&Path>) -> Self {
        Self(folder.map(Path::to_owned))
    }

    fn folder(&self) -> Result<PathBuf, Error> {
        match &self.0 {
            Some(folder) => Ok(folder.clone()),
            None => Ok(cache_home()?.join("mlwm/transfers")),
        }
    }

    pub(crate) fn journals(&self) -> Result<Journals, Error> {
        Ok(Journals::at(self.folder()?))
    }

    /// The push of the content with this fingerprint to `target`. Waits for a process that is
    /// pushing the same.
    pub(crate) async fn ticket(
        &self,
        target: &str,
        fingerprint: &str,
        cancel: &CancellationToken,
    ) -> Result<Ticket, Error> {
        let name = Digest::of(format!("{target}\n{fingerprint}")).hex();
        let folder = self.folder()?;
        let path = folder.join(format!("push-{}.json", &name[..32]));
        let lock_path = path.with_extension("lock");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(Error::cache_folder(&folder))?;
        let lock = lock(&lock_path, Kind::Exclusive, cancel).await?;
        let found: Option<State> = match std::fs::read(&path) {
            // What cannot be read is begun anew.
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Error::local("read", &path)(error)),
        };
        let continued = found.is_some();
        let state = match found {
            Some(state) => state,
            None => State::new()?,
        };
        let ticket = Ticket {
            path,
            lock_path,
            state,
            continued,
            _lock: lock,
        };
        ticket.save()?;
        Ok(ticket)
    }

    /// Removes what nobody continued for two weeks: tickets, and the journals of the storage library.
    /// Gives the files.
    pub(crate) fn prune(&self, dry_run: bool) -> Result<Vec<PathBuf>, Error> {
        let folder = self.folder()?;
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::local("list", &folder)(error)),
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let paths: Result<Vec<PathBuf>, _> = paths.collect();
        let mut transfers: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
        for path in paths.map_err(Error::local("list", &folder))? {
            let ending = path.extension().unwrap_or_default();
            if ENDINGS.iter().any(|known| ending == *known) {
                let transfer = transfers.entry(path.with_extension("")).or_default();
                transfer.push(path);
            }
        }
        let mut removed = Vec::new();
        for (transfer, mut files) in transfers {
            // Looked at under its lock, so that it is not continued meanwhile.
            let lock_path = transfer.with_extension("lock");
            let lock = match lock_path.exists() {
                true => try_lock(&lock_path, Kind::Exclusive)?,
                false => None,
            };
            if (lock.is_none() && lock_path.exists()) || !files.iter().all(|file| is_old(file)) {
                continue;
            }
            // The lock goes last.
            files.sort_by_key(|file| *file == lock_path);
            if !dry_run {
                for file in &files {
                    std::fs::remove_file(file).map_err(Error::local("remove", file))?;
                }
            }
            removed.extend(files);
        }
        Ok(removed)
    }
}

/// What the names of the files of a transfer end in.
const ENDINGS: [&str; 3] = ["json", "new", "lock"];

fn is_old(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= FORGOTTEN))
}

impl State {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            key: crate::random::text()?,
            digest: None,
            parts: Vec::new(),
        })
    }
}

impl Ticket {
    /// Forgets what was sent: it is not what it should be, and all of it is sent again.
    pub(crate) fn begin_anew(&mut self) -> Result<(), Error> {
        self.state = State::new()?;
        self.continued = false;
        self.save()
    }

    /// Notes that the whole zip has arrived.
    pub(crate) fn arrived(&mut self, digest: Digest) -> Result<(), Error> {
        self.state.digest = Some(digest);
        self.save()
    }

    /// Notes that a part of the zip has arrived.
    pub(crate) fn part_arrived(&mut self, index: usize, digest: Digest) -> Result<(), Error> {
        if self.state.parts.get(index) == Some(&digest) {
            return Ok(());
        }
        self.state.parts.truncate(index);
        self.state.parts.push(digest);
        self.save()
    }

    /// Whether nothing is known to be sent, neither now nor by an earlier process.
    pub(crate) fn is_unused(&self) -> bool {
        !self.continued && self.state.digest.is_none() && self.state.parts.is_empty()
    }

    fn save(&self) -> Result<(), Error> {
        let write = || {
            let mut options = OpenOptions::new();
            let arriving = self.path.with_extension("new");
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&arriving)?;
            file.write_all(&serde_json::to_vec(&self.state)?)?;
            file.sync_all()?;
            std::fs::rename(&arriving, &self.path)
        };
        write().map_err(Error::local("write", &self.path))
    }

    /// There is nothing left to continue.
    pub(crate) fn finish(self) -> Result<(), Error> {
        for path in [&self.path, &self.lock_path] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::local("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Shared,
    Exclusive,
}

/// Locks the file at `path`, which is made if need be, when nobody else holds it.
pub(crate) async fn lock(
    path: &Path,
    kind: Kind,
    cancel: &CancellationToken,
) -> Result<File, Error> {
    loop {
        if let Some(file) = try_lock(path, kind)? {
            return Ok(file);
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::Interrupted),
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
}

/// Locks the file at `path`, unless somebody else holds it.
pub(crate) fn try_lock(path: &Path, kind: Kind) -> Result<Option<File>, Error> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::local("open", path))?;
    let locked = match kind {
        Kind::Shared => file.try_lock_shared(),
        Kind::Exclusive => file.try_lock(),
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(Error::local("lock", path)(error)),
    }
    // Whoever held it before may have removed it, and then somebody else may hold a new one.
    let ours = file.metadata().map_err(Error::local("look at", path))?;
    match std::fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(Some(file)),
        _ => Ok(None),
    }
}

/// Where the user's caches are kept: `XDG_CACHE_HOME`, else `~/.cache`.
pub fn cache_home() -> Result<PathBuf, Error> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .ok_or(Error::NoCacheFolder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ticket_is_private_held_and_continued() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let transfers = Transfers::at(Some(&folder.path().join("transfers")));
        let cancel = CancellationToken::new();
        let open = || transfers.ticket("s3://b/a", "file 1", &cancel);
        let mut ticket = open().await.unwrap();
        assert!(!ticket.continued);
        let key = ticket.state.key.clone();
        let waiting = tokio::time::timeout(PATIENCE * 4, open()).await;
        assert!(waiting.is_err(), "another process holds it");
        let other = transfers
            .ticket("s3://b/a", "file 2", &cancel)
            .await
            .unwrap();
        assert_ne!(other.state.key, key);
        other.finish().unwrap();

        ticket.arrived(Digest::of("zip")).unwrap();
        let mode = std::fs::metadata(&ticket.path)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(ticket);
        let ticket = open().await.unwrap();
        assert!(ticket.continued);
        let state = State {
            key,
            digest: Some(Digest::of("zip")),
            parts: Vec::new(),
        };
        assert_eq!(ticket.state, state);
        ticket.finish().unwrap();
        assert!(!open().await.unwrap().continued);
    }

    #[tokio::test]
    async fn whoever_waited_for_a_lock_that_was_removed_takes_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = try_lock(&path, Kind::Exclusive).unwrap().unwrap();
        assert!(try_lock(&path, Kind::Shared).unwrap().is_none());
        // Opened before the first removes it.
        let waiting = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(first);
        waiting.try_lock().unwrap();
        let second = try_lock(&path, Kind::Shared).unwrap();
        assert!(second.is_some(), "the removed file stands for nothing");
        assert!(
            try_lock(&path, Kind::Shared).unwrap().is_some(),
            "two may share"
        );
    }
}

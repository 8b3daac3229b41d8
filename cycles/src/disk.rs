//! What containers write, watched while they run: one that writes without end is killed before it
//! takes the disk from all others, and its error says so.
//!
//! Two bounds: a container that says what it needs (`resources.disk`) may not write more; and a part
//! of the disk stays free, whoever fills it. Where that is taken, the container goes that wrote most.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::space;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two at windows, which have less room and are written at once.
const LOOK_AT_WINDOWS: Duration = Duration::from_millis(100);
/// What metadata may take beside the bytes of windows.
const OVERHEAD: u64 = 1 << 20;
/// A look that takes long comes so much less often: a walk over many files must not be what the disk
/// is busy with.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_secs(120);

/// The disk of the working folder.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    /// Bytes that stay free.
    reserve: u64,
    /// Where the containers that run write, by turn.
    writers: Mutex<BTreeMap<usize, Vec<PathBuf>>>,
}

/// A bound that a container broke, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// More than it said, or than the run may use.
    Limit { written: u64, room: u64 },
    /// More than there is room for in the windows that it may write.
    Windows { written: u64, room: u64 },
    /// Too little is left.
    Reserve {
        written: u64,
        free: u64,
        reserve: u64,
    },
}

/// A container that is watched, until this is dropped.
pub(crate) struct Watched<'a> {
    disk: &'a Disk,
    turn: usize,
    folders: Vec<PathBuf>,
}

impl Disk {
    pub(crate) fn new(folder: &Path, reserve: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            reserve,
            writers: Mutex::default(),
        }
    }

    /// What is free and what should be, if that is too little.
    pub(crate) fn short(&self) -> Option<(u64, u64)> {
        // A disk that cannot be asked is not known to be full.
        let found = rustix::fs::statvfs(&self.folder).ok()?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        (free < self.reserve).then_some((free, self.reserve))
    }

    /// Watches a container that writes into these folders.
    pub(crate) fn watch(&self, turn: usize, folders: Vec<PathBuf>) -> Watched<'_> {
        self.writers().insert(turn, folders.clone());
        Watched {
            disk: self,
            turn,
            folders,
        }
    }

    fn writers(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Vec<PathBuf>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched<'_> {
    /// Ends when the container breaks a bound. It may write `room` bytes.
    pub(crate) async fn excess(&self, room: u64) -> Excess {
        tokio::select! {
            excess = self.too_much(room) => excess,
            excess = self.too_little_left() => excess,
        }
    }

    async fn too_much(&self, room: u64) -> Excess {
        loop {
            let began = Instant::now();
            let written = written(self.folders.clone()).await;
            if written > room {
                return Excess::Limit { written, room };
            }
            rest(began, LOOK).await;
        }
    }

    /// Ends when there is more than the windows may take that it may write just now; what there is counts as held.
    /// What a look finds may have been taken away while it was looked for: so the next one must find it, too.
    pub(crate) async fn overrun(&self, space: &space::Disk) -> Excess {
        let mut was_found = false;
        loop {
            let (began, room) = (Instant::now(), space.for_windows());
            let held = space.held();
            let written = in_files(self.folders.clone()).await;
            space.count_most(held.saturating_add(written));
            let room = room.max(space.for_windows());
            let is_found = written > room.saturating_add(OVERHEAD);
            if is_found && was_found {
                return Excess::Windows { written, room };
            }
            was_found = is_found;
            rest(began, LOOK_AT_WINDOWS).await;
        }
    }

    async fn too_little_left(&self) -> Excess {
        loop {
            let began = Instant::now();
            if let Some((free, reserve)) = self.disk.short()
                && let Some(written) = self.most().await
            {
                return Excess::Reserve {
                    written,
                    free,
                    reserve,
                };
            }
            rest(began, LOOK).await;
        }
    }

    /// How much this container wrote, if it is the one that wrote most. One that wrote nothing is not
    /// the cause.
    async fn most(&self) -> Option<u64> {
        let writers = self.disk.writers().clone();
        let mut most = (0, self.turn);
        for (turn, folders) in writers {
            most = most.max((written(folders).await, turn));
        }
        (most.0 > 0 && most.1 == self.turn).then_some(most.0)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.disk.writers().remove(&self.turn);
    }
}

async fn rest(began: Instant, least: Duration) {
    let rest = began.elapsed().saturating_mul(REST);
    tokio::time::sleep(rest.clamp(least, LONGEST_REST)).await;
}

/// Bytes of the files below folders, of those with holes what is allocated: as windows are measured.
async fn in_files(folders: Vec<PathBuf>) -> u64 {
    let of_file = |found: &fs::Metadata| match found.is_dir() {
        true => 0,
        false => found.len().min(found.blocks().saturating_mul(512)),
    };
    walked(folders, of_file).await
}

/// Bytes that are allocated below folders. The walk ends early where this is dropped.
async fn written(folders: Vec<PathBuf>) -> u64 {
    walked(folders, allocated_by).await
}

async fn walked(
    folders: Vec<PathBuf>,
    bytes: impl Fn(&fs::Metadata) -> u64 + Send + 'static,
) -> u64 {
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let walk = tokio::task::spawn_blocking(move || sum(folders, bytes, &stop));
    walk.await.unwrap_or(0)
}

fn allocated_by(found: &fs::Metadata) -> u64 {
    found.blocks().saturating_mul(512)
}

/// Bytes that are allocated below folders.
pub(crate) fn allocated(folders: Vec<PathBuf>, stop: &CancellationToken) -> u64 {
    sum(folders, allocated_by, stop)
}

/// What vanishes meanwhile, or cannot be read, is not counted; links are not followed.
fn sum(
    mut folders: Vec<PathBuf>,
    of: impl Fn(&fs::Metadata) -> u64,
    stop: &CancellationToken,
) -> u64 {
    let mut bytes = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if stop.is_cancelled() {
                return bytes;
            }
            let Ok(found) = entry.metadata() else {
                continue;
            };
            bytes = bytes.saturating_add(of(&found));
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(folder: &Path, name: &str, kibibytes: usize) -> Vec<PathBuf> {
        let folder = folder.join(name);
        fs::create_dir_all(folder.join("deep/er")).unwrap();
        fs::write(folder.join("deep/er/file"), vec![1; kibibytes << 10]).unwrap();
        vec![folder]
    }

    async fn soon(watched: &Watched<'_>, room: u64) -> Option<Excess> {
        let excess = watched.excess(room);
        tokio::time::timeout(Duration::from_millis(300), excess)
            .await
            .ok()
    }

    #[tokio::test]
    async fn more_than_was_said_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), 0);
        let watched = disk.watch(0, wrote(folder.path(), "a", 300));
        assert_eq!(soon(&watched, 1 << 20).await, None);
        assert_eq!(soon(&watched, u64::MAX).await, None);
        let excess = soon(&watched, 200 << 10).await.unwrap();
        let Excess::Limit { written, .. } = excess else {
            panic!("{excess:?}");
        };
        assert!((300 << 10..400 << 10).contains(&written), "{written}");
    }

    #[tokio::test]
    async fn more_than_windows_may_take_is_found_when_it_stays() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), 0);
        let watched = disk.watch(0, wrote(folder.path(), "a", 3000));
        let space = space::Disk::new(2500 << 10);
        let found = || tokio::time::timeout(Duration::from_millis(500), watched.overrun(&space));
        let mut windows = space.reserve_rest().await.unwrap();
        let _held = space.hold(1000);
        assert!(found().await.is_err());
        assert!((3_000 << 10..3_100 << 10).contains(&space.most_held()));
        windows.shrink_to(1500 << 10);
        let Ok(Excess::Windows { written, room }) = found().await else {
            panic!("it is not found");
        };
        assert!(written >= 3000 << 10 && room == 1500 << 10, "{written}");
        let file = folder.path().join("a/deep/er/file");
        let gone = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            fs::remove_file(file).unwrap();
        };
        let (found, ()) = tokio::join!(found(), gone);
        assert!(found.is_err(), "it was taken away");
    }

    #[tokio::test]
    async fn what_is_only_long_and_what_lies_elsewhere_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), 0);
        let large = wrote(folder.path(), "large", 1000);
        let folders = wrote(folder.path(), "a", 1);
        let sparse = fs::File::create(folders[0].join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink(&large[0], folders[0].join("link")).unwrap();
        let watched = disk.watch(0, folders);
        assert_eq!(soon(&watched, 500 << 10).await, None);
    }

    #[tokio::test]
    async fn who_wrote_most_goes_where_the_disk_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), u64::MAX);
        assert!(disk.short().is_some());
        let small = disk.watch(3, wrote(folder.path(), "small", 100));
        let large = disk.watch(1, wrote(folder.path(), "large", 1000));
        assert_eq!(soon(&small, u64::MAX).await, None);
        assert!(matches!(
            soon(&large, u64::MAX).await,
            Some(Excess::Reserve { written, .. }) if written >= 1000 << 10
        ));
        drop(large);
        assert!(soon(&small, u64::MAX).await.is_some(), "then the next");
    }
}

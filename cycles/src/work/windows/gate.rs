//! What stands between a container and the space on the disk, and what is heard of its windows.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlwm_spec::contract::stream::Window;
use rustix::fs::SeekFrom;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::container::printable;
use crate::plan::PlannedTask;
use crate::{Error, warm};

/// A window of a member, which its container says that it wrote.
pub(super) struct Written {
    pub(super) number: usize,
    name: String,
    outputs: Vec<String>,
    work: Arc<warm::Work>,
}

/// What a window that is being taken has behind its name.
const PART: &str = ".part";

/// A window of a member, where its container does not reach it.
pub(super) struct Taken {
    /// The folder of each output, by its name.
    pub(super) folders: BTreeMap<String, PathBuf>,
    /// Bytes that its files take.
    pub(super) bytes: u64,
    /// Those of the largest variable: what is made of that has about as many.
    pub(super) largest: u64,
}

/// An output whose window is none, and why.
pub(super) type NotTaken = (String, String);

/// What stands between a container and the space on the disk: it may write a window when there is room.
pub(in crate::work) struct Gate {
    pub(super) windows: Vec<Window>,
    /// The work whose windows these are, and how many of them may be written.
    state: Mutex<(Option<Arc<warm::Work>>, usize)>,
    written: UnboundedSender<Written>,
    /// How many of them are written.
    taken: AtomicUsize,
    pub(super) has_begun: Notify,
    /// It is known how large a window is: so many bytes, the largest.
    pub(super) is_sized: Notify,
    sized: AtomicU64,
    /// Bytes of space for windows that are here since their stores did not take them.
    unsent: AtomicU64,
    /// They leave no space for another, whose model stands still: that is so, and it was found again.
    pub(super) stands_still: AtomicBool,
    pub(super) is_full: Notify,
    /// Some of them were sent.
    pub(super) is_sent: Notify,
}

/// What is heard of the windows of a member.
pub(in crate::work) struct Listening<'g> {
    gate: &'g Gate,
    pub(super) written: UnboundedReceiver<Written>,
}

impl<'g> Listening<'g> {
    pub(super) fn to(gate: &'g Gate, written: UnboundedReceiver<Written>) -> Self {
        Self { gate, written }
    }

    pub(in crate::work) fn gate(&self) -> &'g Gate {
        self.gate
    }
}

impl Gate {
    /// The gate of these windows, and what is heard of them.
    pub(super) fn of(windows: Vec<Window>) -> (Self, UnboundedReceiver<Written>) {
        let (written, heard) = unbounded_channel();
        let gate = Self {
            windows,
            state: Mutex::new((None, 0)),
            written,
            taken: AtomicUsize::new(0),
            has_begun: Notify::new(),
            is_sized: Notify::new(),
            sized: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            stands_still: AtomicBool::new(false),
            is_full: Notify::new(),
            is_sent: Notify::new(),
        };
        (gate, heard)
    }

    fn state(&self) -> MutexGuard<'_, (Option<Arc<warm::Work>>, usize)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container is at it, or another one; whether there is no room for any window yet.
    pub(in crate::work) fn begun(&self, work: &Arc<warm::Work>) -> Result<bool, Error> {
        let mut state = self.state();
        for window in &self.windows[..state.1] {
            work.go(&window.to_string())?;
        }
        state.0 = Some(Arc::clone(work));
        self.has_begun.notify_one();
        Ok(state.1 == 0)
    }

    /// The container may write the next window; whether it stood still until now.
    pub(super) fn open(&self) -> Result<bool, Error> {
        let mut state = self.state();
        if let (Some(work), Some(window)) = (&state.0, self.windows.get(state.1)) {
            work.go(&window.to_string())?;
        }
        state.1 += 1;
        Ok(self.is_at_end(state.1 - 1))
    }

    /// A window takes so many bytes: so may those that follow.
    pub(super) fn sized(&self, bytes: u64) {
        self.sized.fetch_max(bytes, Ordering::Relaxed);
        self.is_sized.notify_one();
    }

    /// So many bytes of space are taken by windows that their stores did not take.
    pub(super) fn unsent(&self, bytes: u64) {
        self.unsent.store(bytes, Ordering::Relaxed);
    }

    /// The bytes of space that they take.
    pub(super) fn unsent_space(&self) -> u64 {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Space that a window needs by those that were seen, if any was.
    pub(super) fn window_space(&self) -> Option<u64> {
        let sized = self.sized.load(Ordering::Relaxed);
        (sized > 0).then(|| warm::with_slack(sized))
    }

    /// Whether all is written that may be, and something is to come.
    fn is_at_end(&self, allowed: usize) -> bool {
        self.taken.load(Ordering::Relaxed) == allowed && allowed < self.windows.len()
    }

    /// A window is written; whether its container now stands still until there is room for the next.
    pub(in crate::work) fn take(
        &self,
        work: &Arc<warm::Work>,
        planned: &PlannedTask,
        name: &str,
    ) -> Result<bool, Error> {
        let number = self
            .windows
            .iter()
            .position(|window| window.to_string() == name);
        let allowed = self.state().1;
        let number = number
            .filter(|number| *number < allowed)
            .ok_or_else(|| Error::UnknownWindow(printable(name)))?;
        let outputs = planned.outputs.iter();
        // If nobody listens any more, that has its own error.
        let _ = self.written.send(Written {
            number,
            name: name.to_owned(),
            outputs: outputs.map(|output| output.name.clone()).collect(),
            work: Arc::clone(work),
        });
        self.taken.store(number + 1, Ordering::Relaxed);
        Ok(self.is_at_end(allowed))
    }
}

impl Written {
    /// Takes it from its container to a folder for windows. This blocks.
    pub(super) fn take(self, to: &Path) -> Result<Taken, NotTaken> {
        let (mut folders, mut bytes, mut largest) = (BTreeMap::new(), 0_u64, 0);
        for output in self.outputs {
            let folder = to.join(&output).join(&self.name);
            let part = folder.with_file_name(format!("{}{PART}", self.name));
            let taken = || {
                crate::scratch::create(&to.join(&output)).map_err(|error| error.to_string())?;
                self.work.take(&output, &self.name, &part)?;
                fs::rename(&part, &folder)
                    .and_then(|()| size(&folder))
                    .map_err(|error| format!("cannot be read: {error}"))
            };
            let (all, variable) = match taken() {
                Ok(sizes) => sizes,
                Err(reason) => return Err((output, reason)),
            };
            bytes = bytes.saturating_add(all);
            largest = variable.max(largest);
            folders.insert(output, folder);
        }
        Ok(Taken {
            folders,
            bytes,
            largest,
        })
    }
}

/// The next window, or none if the container has ended and there is none.
pub(super) async fn next(
    written: &mut UnboundedReceiver<Written>,
    ended: &CancellationToken,
) -> Option<Written> {
    tokio::select! {
        biased;
        window = written.recv() => window,
        () = ended.cancelled() => None,
    }
}

/// Bytes of all files below a folder, and of the largest of what lies in it.
fn size(folder: &Path) -> io::Result<(u64, u64)> {
    let (mut bytes, mut largest) = (0_u64, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        let one = match found.is_dir() {
            true => size(&entry.path())?.0,
            false => taken_by(&entry.path(), &found)?,
        };
        bytes = bytes.saturating_add(one);
        largest = one.max(largest);
    }
    Ok((bytes, largest))
}

/// Bytes that a file takes: its length, but of one with holes, which may be as long as anybody likes, what is
/// allocated. One that the file system compresses has none.
fn taken_by(path: &Path, found: &Metadata) -> io::Result<u64> {
    let (length, allocated) = (found.len(), found.blocks().saturating_mul(512));
    if allocated >= length {
        return Ok(length);
    }
    let hole = rustix::fs::seek(File::open(path)?, SeekFrom::Hole(0));
    Ok(match hole {
        Ok(hole) if hole < length => allocated,
        // A file system that knows no holes says so.
        _ => length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_only_long_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("t2m")).unwrap();
        fs::write(folder.path().join("t2m/c"), vec![1; 300_000]).unwrap();
        fs::write(folder.path().join("zarr.json"), "{}").unwrap();
        assert_eq!(size(folder.path()).unwrap(), (300_002, 300_000));
        let sparse = File::create(folder.path().join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert_eq!(size(folder.path()).unwrap(), (300_002, 300_000));
    }
}

//! What stands between a container and the space on the disk, and what is heard of its windows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlwm_spec::contract::stream::Window;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::container::printable;
use crate::plan::{PlannedOutput, PlannedTask};
use crate::scratch::failed;
use crate::{Error, warm};

/// A window of a member, as its container wrote it.
pub(super) struct Written {
    pub(super) number: usize,
    /// The folder of each output, by its name.
    pub(super) folders: BTreeMap<String, PathBuf>,
}

/// What stands between a container and the space on the disk: it may write a window when there is room.
pub(in crate::work) struct Gate {
    pub(super) windows: Vec<Window>,
    /// The work whose windows these are, and how many of them may be written.
    state: Mutex<(Option<Arc<warm::Work>>, usize)>,
    written: UnboundedSender<Written>,
    /// How many of them are written.
    taken: AtomicUsize,
    pub(super) has_begun: Notify,
    /// It is known how large a window is.
    pub(super) is_sized: Notify,
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

    /// Whether all is written that may be, and something is to come.
    fn is_at_end(&self, allowed: usize) -> bool {
        self.taken.load(Ordering::Relaxed) == allowed && allowed < self.windows.len()
    }

    /// A window is written; whether its container now stands still until there is room for the next.
    pub(in crate::work) fn take(
        &self,
        work: &warm::Work,
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
        let folder = |output: &PlannedOutput| work.window(&output.name, name);
        // If nobody listens any more, that has its own error.
        let _ = self.written.send(Written {
            number,
            folders: outputs
                .map(|output| (output.name.clone(), folder(output)))
                .collect(),
        });
        self.taken.store(number + 1, Ordering::Relaxed);
        Ok(self.is_at_end(allowed))
    }
}

impl Written {
    /// The size of its files, and of the largest variable: what is made of that has about as many.
    pub(super) fn bytes(&self) -> Result<(u64, u64), Error> {
        let (mut bytes, mut largest) = (0_u64, 0);
        for folder in self.folders.values() {
            let (all, variable) = size(folder).map_err(|source| failed(folder, source))?;
            bytes = bytes.saturating_add(all);
            largest = variable.max(largest);
        }
        Ok((bytes, largest))
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
fn size(folder: &Path) -> std::io::Result<(u64, u64)> {
    let (mut bytes, mut largest) = (0_u64, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        let one = match found.is_dir() {
            true => size(&entry.path())?.0,
            false => found.len(),
        };
        bytes = bytes.saturating_add(one);
        largest = one.max(largest);
    }
    Ok((bytes, largest))
}

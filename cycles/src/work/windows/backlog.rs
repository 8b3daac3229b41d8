//! Windows that are written, from when they are taken until their stores have them.
//!
//! A store that fails keeps a model from nothing as long as there is space: what it does not take stays here and is
//! sent with the windows that follow, in their order. What is here when the model is done, the next attempt
//! publishes; where there is no space for another window, the model waits while it is sent again.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use mlwm_spec::ExitCode;
use mlwm_spec::configuration::Retries;
use mlwm_storage::points::{reach, reach_half_removed};
use tokio_util::sync::CancellationToken;

use super::gate::{Gate, Taken};
use super::{Cut, SPARE, Work, aside};
use crate::Error;
use crate::container::Ran;
use crate::event::Event;
use crate::retry::Attempts;
use crate::scratch::remove;
use crate::space::{Held, Space};

/// A window that is here until its stores have it.
pub(super) struct Waiting<'a> {
    number: usize,
    taken: Taken,
    /// Bytes that it takes with all that is made of it.
    needed: u64,
    space: Option<Space<'a>>,
    held: Held<'a>,
}

/// The windows of a member that are here, the oldest first.
pub(super) struct Backlog<'a> {
    windows: VecDeque<Waiting<'a>>,
    /// All are noted as complete: they stay until all are visible.
    is_complete: bool,
    /// Why the oldest one was not sent when that was tried.
    pub(super) why: Option<mlwm_storage::Error>,
    /// How often that may be tried before anything is sent again.
    attempts: Attempts,
    retries: Retries,
}

impl Backlog<'_> {
    pub(super) fn new(retries: Option<&Retries>) -> Self {
        let retries = retries.cloned().unwrap_or_default();
        Self {
            windows: VecDeque::new(),
            is_complete: false,
            why: None,
            attempts: Attempts::new(&retries),
            retries,
        }
    }

    fn space(&self) -> u64 {
        let spaces = self.windows.iter().flat_map(|window| &window.space);
        spaces.map(Space::bytes).sum()
    }
}

impl<'a> Work<'a> {
    /// Puts a window behind those that wait, and sends all that the stores take now.
    pub(super) async fn publish_taken(
        &self,
        gate: &Gate,
        cuts: &mut [Cut<'_>],
        backlog: &mut Backlog<'a>,
        (number, taken, mut space): (usize, Taken, Option<Space<'a>>),
        (ended, ran): (&CancellationToken, &Ran),
    ) -> Result<(), Error> {
        let window = &gate.windows[number];
        let mut needed = taken.bytes.saturating_add(taken.largest);
        for cut in cuts.iter_mut() {
            let folder = &taken.folders[cut.name()];
            let made = self.made_bytes(cut, (number, window), folder).await?;
            needed = needed.saturating_add(made);
        }
        gate.sized(needed);
        if let Some(space) = &mut space {
            space.shrink_to(self.known_space(gate).unwrap_or(needed));
        }
        backlog.windows.push_back(Waiting {
            number,
            held: self.context.machine.disk.hold(taken.bytes),
            taken,
            needed,
            space,
        });
        if number + 1 == gate.windows.len() {
            self.note_complete(cuts, backlog, ended, ran).await;
        }
        self.send_backlog(gate, cuts, backlog).await
    }

    /// Notes that the model is done, as soon as it is: whoever comes after a kill publishes what lies here. That this
    /// cannot be noted, on a full disk, keeps nobody from publishing.
    async fn note_complete(
        &self,
        cuts: &[Cut<'_>],
        backlog: &mut Backlog<'a>,
        ended: &CancellationToken,
        ran: &Ran,
    ) {
        let Some((identity, inputs)) = &self.made_from else {
            return;
        };
        if cuts.iter().any(|cut| cut.replaces) {
            return;
        }
        ended.cancelled().await;
        let ran = ran.until_now();
        let complete = self.complete_windows(cuts, *identity, inputs, &ran);
        let noted = complete
            .await
            .and_then(|complete| complete.note(self.context.scratch, self.planned));
        backlog.is_complete = noted.is_ok();
        reach("window: complete");
    }

    /// Sends the windows that wait, up to the first that a store does not take.
    async fn send_backlog(
        &self,
        gate: &Gate,
        cuts: &mut [Cut<'_>],
        backlog: &mut Backlog<'a>,
    ) -> Result<(), Error> {
        backlog.why = None;
        while let Some(first) = backlog.windows.front_mut() {
            self.claim.check()?;
            match self
                .publish_waiting(gate, cuts, first, backlog.is_complete)
                .await
            {
                Err(Error::Storage(why)) if self.is_fault_of_store(&why) => {
                    backlog.why = Some(why);
                    // What it was made into is made again; how large it is, is known nevertheless.
                    for cut in cuts.iter().filter(|cut| !cut.replaces) {
                        remove(&self.context.scratch.output(self.planned, cut.name()))?;
                    }
                    self.context
                        .warm
                        .published_window(self.planned, first.needed);
                    gate.unsent(backlog.space());
                    self.context.machine.disk.look_again();
                    return Ok(());
                }
                sent => sent?,
            }
            let sent = backlog.windows.pop_front();
            if let Some(sent) = sent.filter(|_| backlog.is_complete) {
                self.completed().push((sent.space, sent.held));
            }
            backlog.attempts = Attempts::new(&backlog.retries);
            if gate.unsent_space() > 0 {
                gate.unsent(backlog.space());
                gate.is_sent.notify_one();
            }
        }
        Ok(())
    }

    pub(super) fn is_fault_of_store(&self, error: &mlwm_storage::Error) -> bool {
        error.exit_code() == ExitCode::StorageFailed && !self.context.cancel.is_cancelled()
    }

    /// Publishes a window of all outputs within its space, and removes it unless it stays.
    async fn publish_waiting(
        &self,
        gate: &Gate,
        cuts: &mut [Cut<'_>],
        waiting: &mut Waiting<'a>,
        stays: bool,
    ) -> Result<(), Error> {
        let bytes = waiting.held.bytes();
        // What is made of a small window is sent all at once, if there happens to be space for it.
        let more = self.context.machine.disk.try_reserve(bytes.min(SPARE), 0);
        let reserved = waiting.space.as_ref().map_or(0, Space::bytes);
        let reserved = reserved.saturating_add(more.as_ref().map_or(0, Space::bytes));
        let spare = reserved.saturating_sub(bytes);
        let kept = self.kept().bytes();
        for cut in cuts.iter_mut() {
            let folder = &waiting.taken.folders[cut.name()];
            self.publish_window(cut, &gate.windows, waiting.number, folder, spare)
                .await?;
        }
        drop(more);
        self.context
            .warm
            .published_window(self.planned, waiting.needed);
        if stays {
            return Ok(());
        }
        for folder in std::mem::take(&mut waiting.taken.folders).into_values() {
            aside(move || {
                reach_half_removed("window: half removed", &folder);
                remove(&folder)
            })
            .await?;
        }
        // What takes the place of something published is kept.
        let kept = self.kept().bytes() - kept;
        if let Some(mut space) = waiting.space.take().filter(|_| kept > 0) {
            space.shrink_to(kept);
            self.kept().spaces.push(space);
        }
        Ok(())
    }

    fn completed(&self) -> MutexGuard<'_, Vec<(Option<Space<'a>>, Held<'a>)>> {
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no space for another window: sends those that wait again after a pause, as often as the task may be
    /// tried again.
    ///
    /// # Errors
    /// [`Error::Unsent`] after that.
    pub(super) async fn send_again(
        &self,
        gate: &Gate,
        cuts: &mut [Cut<'_>],
        backlog: &mut Backlog<'a>,
    ) -> Result<(), Error> {
        if !gate.stands_still.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(why) = backlog.why.take() else {
            return Ok(());
        };
        let pause = match why.is_refusal() {
            true => None,
            false => backlog.attempts.after(why.exit_code()),
        };
        let Some(pause) = pause else {
            self.leave(backlog);
            let kept = self.context.scratch.windows(self.planned);
            return Err(Error::Unsent { kept, source: why });
        };
        (self.context.tell)(Event::WindowsAgain {
            task: self.planned.title(),
            error: why.to_string(),
            pause_seconds: pause.as_secs_f64(),
        });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.context.cancel.cancelled() => return Err(Error::Interrupted),
        }
        self.send_backlog(gate, cuts, backlog).await
    }

    /// Leaves the windows that wait where they are, with the space that they take.
    pub(super) fn leave(&self, backlog: &mut Backlog<'a>) {
        let unsent = backlog.windows.drain(..);
        let unsent = unsent.map(|window| (window.space, window.held));
        self.completed().extend(unsent);
        self.leave_complete();
    }

    /// The same of those that were sent.
    pub(super) fn leave_complete(&self) {
        for (space, held) in self.completed().drain(..) {
            if let Some(space) = space {
                space.leave(self.turn, held);
            }
        }
    }
}

//! The windows of a member, from its container to their stores, as long as there is space for them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlwm_spec::contract::stream::Window;
use mlwm_storage::points::reach;
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::gate::{self, Gate, Listening};
use super::{Cut, Work, refused};
use crate::Error;
use crate::container::Ran;
use crate::space::Space;

impl<'a> Work<'a> {
    /// Publishes windows as they come, as long as there is space for them. Comes back when all have come: with what
    /// their stores said if some of them are still here.
    pub(in crate::work) async fn publish_windows(
        &self,
        listening: Listening<'_>,
        cuts: &mut [Cut<'_>],
        ended: &CancellationToken,
        ran: &Ran,
    ) -> Result<Option<mlwm_storage::Error>, Error> {
        let gate = listening.gate();
        let mut written = listening.written;
        let (give, mut spaces) = unbounded_channel();
        let folder = self.context.scratch.windows(self.planned);
        let publishing = async {
            let mut backlog = Backlog::new(self.planned.retries.as_ref());
            for (expected, due) in gate.windows.iter().enumerate() {
                let missing = || Error::WindowMissing(due.to_string());
                let window = loop {
                    tokio::select! {
                        biased;
                        window = gate::next(&mut written, ended) => break window.ok_or_else(missing)?,
                        () = gate.is_full.notified() => {
                            self.send_again(gate, cuts, &mut backlog).await?;
                        }
                    }
                };
                if window.number != expected {
                    return Err(missing());
                }
                let space = spaces.recv().await;
                self.claim.check()?;
                // Before anything looks at it: its container may change what it can reach.
                let to = folder.clone();
                let taken = self.write(move |_| window.take(&to)).await?;
                let taken = taken.map_err(|(output, reason)| refused(&output, due, reason))?;
                let taken = (expected, taken, space);
                self.publish_taken(gate, cuts, &mut backlog, taken, (ended, ran))
                    .await?;
                reach("window: removed");
            }
            let Some(why) = backlog.why.take() else {
                return Ok(None);
            };
            // What is complete is published by the next attempt; so it has to be.
            ended.cancelled().await;
            self.leave(&mut backlog);
            Ok(Some(why))
        };
        let granting = async {
            gate.has_begun.notified().await;
            for number in 0..gate.windows.len() {
                if number > 0 && self.known_space(gate).is_none() {
                    gate.is_sized.notified().await;
                }
                let disk = &self.context.machine.disk;
                let space = loop {
                    // Registered before looking, so that no change between the two is missed.
                    let mut changed = std::pin::pin!(disk.changed());
                    changed.as_mut().enable();
                    match self.window_space(gate).await {
                        Err(Error::NoSpaceForWindow { .. }) if gate.unsent_space() > 0 => {
                            gate.stands_still.store(true, Ordering::Relaxed);
                            gate.is_full.notify_one();
                            tokio::select! {
                                () = gate.is_sent.notified() => {}
                                () = changed => {}
                            }
                        }
                        space => break space?,
                    }
                };
                gate.stands_still.store(false, Ordering::Relaxed);
                if gate.open()? {
                    self.has_space();
                }
                let _ = give.send(space);
            }
            std::future::pending::<Result<Option<mlwm_storage::Error>, Error>>().await
        };
        tokio::select! {
            published = publishing => published,
            failed = granting => failed,
        }
    }

    /// Space that a window needs by what is known of those before it, of this member and of others.
    pub(super) fn known_space(&self, gate: &Gate) -> Option<u64> {
        gate.window_space()
            .max(self.context.warm.window_space(self.planned))
    }

    /// Space for a window; as long as it is not known how large one is, all that is free.
    async fn window_space(&self, gate: &Gate) -> Result<Space<'a>, Error> {
        let disk = &self.context.machine.disk;
        let (inputs, budget) = (self.inputs_bytes, disk.budget());
        let Some(window) = self.known_space(gate) else {
            let space = disk.reserve_rest().await;
            return space.ok_or(Error::NoSpaceLeft { inputs, budget });
        };
        let kept = self.kept().reserved();
        if window.saturating_add(inputs) > budget {
            return Err(Error::WindowTooLarge {
                window,
                inputs,
                budget,
            });
        }
        if window.saturating_add(inputs).saturating_add(kept) > budget {
            return Err(Error::KeptTooLarge {
                window,
                inputs,
                kept,
                budget,
            });
        }
        let is_held_up = || gate.unsent_space() > 0;
        let space = disk.reserve_for_window(window, kept, is_held_up).await;
        space.ok_or(Error::NoSpaceForWindow { window, budget })
    }

    /// The most bytes that are made of a window and lie beside it: none in a Zarr store that is sent file by file.
    pub(super) async fn made_bytes(
        &self,
        cut: &mut Cut<'_>,
        (number, window): (usize, &Window),
        folder: &Path,
    ) -> Result<u64, Error> {
        let is_grib = cut.place.output.grib().is_some();
        if !is_grib && !cut.replaces {
            return Ok(0);
        }
        let target = match &cut.target {
            Some(known) => Arc::clone(known),
            None => self.open(cut, window, folder).await?.1,
        };
        Ok(match &target.grib {
            Some(form) => form.most_bytes(window.steps()),
            None => target.store.expected_bytes(number as u64),
        })
    }
}

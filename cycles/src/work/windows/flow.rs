//! The windows of a member, from its container to their stores, as long as there is space for them.

use std::path::Path;
use std::sync::Arc;

use mlwm_spec::contract::stream::Window;
use mlwm_storage::points::reach;
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

use super::gate::{self, Gate, Listening, Taken};
use super::{Cut, SPARE, Work, aside, refused};
use crate::Error;
use crate::scratch::remove;
use crate::space::Space;

impl<'a> Work<'a> {
    /// Publishes windows as they come, as long as there is space for them.
    pub(in crate::work) async fn publish_windows(
        &self,
        listening: Listening<'_>,
        cuts: &mut [Cut<'_>],
        ended: &CancellationToken,
    ) -> Result<(), Error> {
        let gate = listening.gate();
        let mut written = listening.written;
        let (give, mut spaces) = unbounded_channel();
        let publishing = async {
            for (expected, due) in gate.windows.iter().enumerate() {
                let missing = || Error::WindowMissing(due.to_string());
                let window = gate::next(&mut written, ended).await.ok_or_else(missing)?;
                if window.number != expected {
                    return Err(missing());
                }
                let space = spaces.recv().await;
                // Before anything looks at it: its container may change what it can reach.
                let taken = self.write(move |_| window.take()).await?;
                let taken = taken.map_err(|(output, reason)| refused(&output, due, reason))?;
                self.publish_taken(gate, cuts, expected, taken, space)
                    .await?;
                reach("window: removed");
            }
            Ok(())
        };
        let granting = async {
            gate.has_begun.notified().await;
            for number in 0..gate.windows.len() {
                if number > 0 && self.known_space(gate).is_none() {
                    gate.is_sized.notified().await;
                }
                let space = self.window_space(gate).await?;
                if gate.open()? {
                    self.has_space();
                }
                let _ = give.send(space);
            }
            std::future::pending::<Result<(), Error>>().await
        };
        tokio::select! {
            published = publishing => published,
            failed = granting => failed,
        }
    }

    /// Publishes a window of all outputs within its space, and removes it.
    async fn publish_taken(
        &self,
        gate: &Gate,
        cuts: &mut [Cut<'_>],
        number: usize,
        taken: Taken,
        mut space: Option<Space<'a>>,
    ) -> Result<(), Error> {
        let window = &gate.windows[number];
        let bytes = taken.bytes;
        let mut needed = bytes.saturating_add(taken.largest);
        for cut in cuts.iter_mut() {
            let folder = &taken.folders[cut.name()];
            let made = self.made_bytes(cut, (number, window), folder).await?;
            needed = needed.saturating_add(made);
        }
        gate.sized(needed);
        if let Some(space) = &mut space {
            space.shrink_to(self.known_space(gate).unwrap_or(needed));
        }
        let disk = &self.context.machine.disk;
        // What is made of a small window is sent all at once, if there happens to be space for it.
        let more = disk.try_reserve(bytes.min(SPARE), 0);
        let reserved = space.as_ref().map_or(0, Space::bytes);
        let reserved = reserved.saturating_add(more.as_ref().map_or(0, Space::bytes));
        let spare = reserved.saturating_sub(bytes);
        let held = disk.hold(bytes);
        let kept = self.kept().bytes();
        for cut in cuts.iter_mut() {
            let folder = &taken.folders[cut.name()];
            self.publish_window(cut, &gate.windows, number, folder, spare)
                .await?;
        }
        for folder in taken.folders.into_values() {
            aside(move || remove(&folder)).await?;
        }
        drop((held, more));
        // What takes the place of something published is kept.
        let kept = self.kept().bytes() - kept;
        if let Some(mut space) = space.filter(|_| kept > 0) {
            space.shrink_to(kept);
            self.kept().spaces.push(space);
        }
        self.context.warm.published_window(self.planned, needed);
        Ok(())
    }

    /// Space that a window needs by what is known of those before it, of this member and of others.
    fn known_space(&self, gate: &Gate) -> Option<u64> {
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
        let space = disk.reserve_for_window(window, kept).await;
        space.ok_or(Error::NoSpaceForWindow { window, budget })
    }

    /// The most bytes that are made of a window and lie beside it: none in a Zarr store that is sent file by file.
    async fn made_bytes(
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

//! Outputs that are published window by window, while the model still runs.

mod gate;
mod target;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mlwm_datasets::Dataset;
use mlwm_datasets::forecast_store::StoreError;
use mlwm_engines::Image;
use mlwm_registries::UnpackedArtifact;
use mlwm_spec::Digest;
use mlwm_spec::contract::stream::Window;
use mlwm_spec::manifest::InputRecord;
use mlwm_storage::points::reach;
use mlwm_storage::{Publishing, Store};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

pub(super) use self::gate::{Gate, Listening};
use self::target::Target;
use super::{Work, aside};
use crate::complete::Complete;
use crate::event::{Outcome, Phase};
use crate::grib::Unwritten;
use crate::place::Place;
use crate::record::Attempt;
use crate::scratch::{create, failed, remove};
use crate::space::{Held, Space};
use crate::{Error, publication};

/// So many bytes of files that are made of windows are sent at once where there is space.
const SPARE: u64 = 4 << 20;

/// An output that is being published.
pub(super) struct Cut<'p> {
    place: &'p Place,
    /// Identity of the task.
    task: Digest,
    /// Known from the first window on.
    target: Option<Arc<Target>>,
    /// Begun with the first window: nothing lies in a store of a member that never came to one.
    publishing: Option<Publishing>,
    /// Bytes of the newest shard of each variable.
    shards: BTreeMap<String, u64>,
    /// Something is published that this replaces: it is withdrawn when all windows are there, and they are kept
    /// until then.
    replaces: bool,
}

impl Work<'_> {
    /// The part of an attempt from its checked inputs to its publication, of outputs that are cut.
    pub(super) async fn run_cut(
        &mut self,
        attempt: Attempt,
        image: &Image,
        artifact: Option<UnpackedArtifact>,
        (identity, inputs): (Digest, Vec<InputRecord>),
        places: &[Place],
    ) -> Result<Outcome, Error> {
        let windows = self.planned.windows().ok_or_else(|| Error::Windows {
            configuration: self.planned.configuration.clone(),
            output: self
                .planned
                .outputs
                .iter()
                .map(|output| output.name.as_str())
                .collect(),
            reason: "they are no whole number of its steps, or it is of unknown length".to_owned(),
        })?;
        let mut cuts = Vec::with_capacity(places.len());
        for place in places {
            let published = place.manifest.as_ref();
            let by_us = published.is_some_and(|manifest| manifest.task == identity);
            if by_us && !self.context.options.republish {
                // Published by this same task before it was killed.
                place.finish().await?;
                self.report
                    .outputs
                    .extend(published.map(|there| place.report(there)));
                continue;
            }
            cuts.push(Cut {
                place,
                task: identity,
                target: None,
                publishing: None,
                shards: BTreeMap::new(),
                replaces: published.is_some(),
            });
        }
        let (gate, written) = Gate::of(windows);
        let ran = match self.is_streamed(image) {
            true => {
                let listening = Listening::to(&gate, written);
                let cut = Some((listening, &mut cuts[..]));
                self.streamed(attempt, image, artifact, identity, cut)
                    .await?
            }
            false => {
                let ran = self
                    .container(attempt, image, artifact.as_ref(), identity)
                    .await?;
                self.verify(&ran).await?;
                self.publishing = Some(self.begin(Phase::Publish));
                self.cut_whole(&gate.windows, &mut cuts).await?;
                ran
            }
        };
        reach("attempt: ran");
        let made = Complete::unkept(identity, &inputs, &ran);
        self.reveal(cuts, image, &made).await?;
        Ok(Outcome::Published)
    }

    /// Publishes windows as they come, as long as there is space for them.
    pub(super) async fn publish_windows(
        &self,
        listening: Listening<'_>,
        cuts: &mut [Cut<'_>],
        ended: &CancellationToken,
    ) -> Result<(), Error> {
        let gate = listening.gate();
        let mut written = listening.written;
        let (give, mut spaces) = unbounded_channel();
        let publishing = async {
            for expected in 0..gate.windows.len() {
                let Some(window) = gate::next(&mut written, ended).await else {
                    return Err(Error::WindowMissing(gate.windows[expected].to_string()));
                };
                if window.number != expected {
                    return Err(Error::WindowMissing(gate.windows[expected].to_string()));
                }
                let mut space: Option<Space<'_>> = spaces.recv().await;
                for cut in cuts.iter() {
                    let folder = &window.folders[&cut.place.output.name];
                    let is_there = target::is_written(folder);
                    is_there.map_err(|reason| refused(cut, &gate.windows[expected], reason))?;
                }
                let (bytes, largest) = window.bytes()?;
                let mut needed = bytes.saturating_add(largest);
                for cut in cuts.iter_mut() {
                    let folder = &window.folders[&cut.place.output.name];
                    let encoded = self.encoded_bytes(cut, &gate.windows[expected], folder);
                    needed = needed.saturating_add(encoded.await?);
                }
                self.context.warm.saw_window(self.planned, needed);
                gate.is_sized.notify_one();
                if let Some(space) = &mut space {
                    let known = self.context.warm.window_space(self.planned);
                    space.shrink_to(known.unwrap_or(needed));
                }
                let disk = &self.context.machine.disk;
                // What is made of a small window is sent all at once, if there happens to be space for it.
                let more = disk.try_reserve(bytes.min(SPARE), 0);
                let reserved = space.as_ref().map_or(0, Space::bytes);
                let reserved = reserved.saturating_add(more.as_ref().map_or(0, Space::bytes));
                let spare = reserved.saturating_sub(bytes);
                let held = self.context.machine.disk.hold(bytes);
                for cut in cuts.iter_mut() {
                    let folder = &window.folders[&cut.place.output.name];
                    self.publish_window(cut, &gate.windows, expected, folder, spare)
                        .await?;
                }
                for folder in window.folders.into_values() {
                    aside(move || remove(&folder)).await?;
                }
                reach("window: removed");
                drop((held, more));
            }
            Ok(())
        };
        let granting = async {
            gate.has_begun.notified().await;
            for number in 0..gate.windows.len() {
                if number > 0 && self.context.warm.window_space(self.planned).is_none() {
                    gate.is_sized.notified().await;
                }
                let space = self.window_space().await?;
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

    /// Space for a window; as long as it is not known how large one is, all that is free.
    async fn window_space(&self) -> Result<Space<'_>, Error> {
        let disk = &self.context.machine.disk;
        let Some(window) = self.context.warm.window_space(self.planned) else {
            return Ok(disk.reserve_all());
        };
        let (inputs, budget) = (self.inputs_bytes, disk.budget());
        if window.saturating_add(inputs) > budget {
            return Err(Error::WindowTooLarge {
                window,
                inputs,
                budget,
            });
        }
        let space = disk.reserve_for_window(window).await;
        space.ok_or(Error::NoSpaceForWindow { window, budget })
    }

    /// The most bytes that a window takes as GRIB beside the one that the container wrote: there is no file of a
    /// whole window in a Zarr store.
    async fn encoded_bytes(
        &self,
        cut: &mut Cut<'_>,
        window: &Window,
        folder: &Path,
    ) -> Result<u64, Error> {
        if cut.place.output.grib().is_none() {
            return Ok(0);
        }
        let target = match &cut.target {
            Some(known) => Arc::clone(known),
            None => self.open(cut, window, folder).await?.1,
        };
        let form = target.grib.as_ref();
        Ok(form.map_or(0, |form| form.most_bytes(window.steps())))
    }

    /// A window of an output, and what the output becomes.
    async fn open(
        &self,
        cut: &mut Cut<'_>,
        window: &Window,
        folder: &Path,
    ) -> Result<(Arc<Dataset>, Arc<Target>), Error> {
        let (path, wanted, task) = (
            folder.to_owned(),
            cut.place.output.clone(),
            self.planned.clone(),
        );
        let known = cut.target.clone();
        let open = move || {
            let dataset = target::open(&path)?;
            let target = match known {
                Some(target) => target,
                None => Arc::new(Target::of(&dataset, &wanted, &task)?),
            };
            Ok((Arc::new(dataset), target))
        };
        let opened = self.unless_cancelled(open).await?;
        let (dataset, target) = opened.map_err(|reason| refused(cut, window, reason))?;
        cut.target = Some(Arc::clone(&target));
        Ok((dataset, target))
    }

    /// Publishes a window. The shards of its variables take no more than `spare` bytes beside it, or one of them is
    /// there at a time: those that are there are sent at once, since one after the other a store that is far away
    /// takes longer for them than the model does.
    async fn publish_window(
        &self,
        cut: &mut Cut<'_>,
        windows: &[Window],
        number: usize,
        folder: &Path,
        spare: u64,
    ) -> Result<(), Error> {
        let window = windows[number];
        let (dataset, target) = self.open(cut, &window, folder).await?;
        let number = number as u64;
        if !target.store.windows().contains(&number) {
            return Ok(());
        }
        if let Some(form) = target.grib.clone() {
            let write = move |folder: &Path, stop: &CancellationToken| {
                form.write(folder, &target.store, (number, &window), &dataset, stop)
            };
            let held = self.write_file(cut, &window, write).await?.1;
            return self.send_files(cut, vec![held]).await;
        }
        let (mut ready, mut held) = (0_u64, Vec::new());
        for variable in target
            .store
            .variables()
            .map(str::to_owned)
            .collect::<Vec<_>>()
        {
            // That of the window before has about as many; of the first window there is no more than one.
            let next = cut.shards.get(&variable).copied().unwrap_or(spare);
            if ready > 0 && ready.saturating_add(next) > spare {
                self.send_files(cut, std::mem::take(&mut held)).await?;
                ready = 0;
            }
            let (target, dataset) = (Arc::clone(&target), Arc::clone(&dataset));
            let name = variable.clone();
            let write = move |folder: &Path, _: &CancellationToken| {
                let store = &target.store;
                let written = store.write_variable(folder, &name, number, &dataset)?;
                Ok(written.bytes)
            };
            let (bytes, one) = self.write_file(cut, &window, write).await?;
            cut.shards.insert(variable, bytes);
            ready += bytes;
            held.push(one);
        }
        self.send_files(cut, held).await
    }

    /// Has a file of a window written, which says how many bytes it has; they are held as long as what comes with
    /// them lives.
    async fn write_file(
        &self,
        cut: &Cut<'_>,
        window: &Window,
        write: impl FnOnce(&Path, &CancellationToken) -> Result<u64, Unwritten> + Send + 'static,
    ) -> Result<(u64, Held<'_>), Error> {
        let files = self
            .context
            .scratch
            .output(self.planned, &cut.place.output.name);
        create(&files)?;
        // On every way out of here: the folder may be cleared then.
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let written = self.unless_cancelled(move || write(&files, &stop)).await?;
        let bytes = written.map_err(|unwritten| match unwritten {
            Unwritten::Store(error @ StoreError::Write { .. }) => Error::Window(error),
            Unwritten::Store(error) => refused(cut, window, error.to_string()),
            Unwritten::Grib(error @ mlwm_grib::Error::Write { .. }) => Error::Eccodes(error),
            Unwritten::Grib(error) => refused(cut, window, error.to_string()),
            Unwritten::Stopped => Error::Interrupted,
        })?;
        reach("window: encoded");
        Ok((bytes, self.context.machine.disk.hold(bytes)))
    }

    /// Sends the files that were written, unless they are kept until they replace something, and removes them.
    async fn send_files(&self, cut: &mut Cut<'_>, held: Vec<Held<'_>>) -> Result<(), Error> {
        if cut.replaces {
            return Ok(());
        }
        let files = self
            .context
            .scratch
            .output(self.planned, &cut.place.output.name);
        self.send(cut, &files).await?;
        reach("window: sent");
        remove(&files)?;
        drop(held);
        Ok(())
    }

    /// Sends what lies in a folder to the publication of an output, which begins with it if need be.
    async fn send(&self, cut: &mut Cut<'_>, folder: &Path) -> Result<u64, Error> {
        let (progress, cancel) = (self.transfer(Phase::Publish), self.context.cancel);
        let scratch = self.context.scratch;
        let publishing = match &mut cut.publishing {
            Some(publishing) => publishing,
            none => {
                let uri = &cut.place.uri;
                let store = Store::open(uri).await?;
                let notes = scratch.sent(self.planned, &cut.place.output.name);
                let begun = store.begin(uri, cut.task, Some(&notes), cancel).await;
                none.insert(begun.map_err(|error| self.interrupted_or(error.into()))?)
            }
        };
        let clock = Instant::now();
        let sent = publishing.add(folder, &progress, cancel).await;
        self.was_sent(clock.elapsed());
        sent.map_err(|error| self.interrupted_or(error.into()))
    }

    /// Cuts what a container wrote that does not know windows.
    async fn cut_whole(&self, windows: &[Window], cuts: &mut [Cut<'_>]) -> Result<(), Error> {
        for cut in cuts {
            let whole = self
                .context
                .scratch
                .output(self.planned, &cut.place.output.name);
            let aside = whole.with_extension("whole");
            fs::rename(&whole, &aside).map_err(|source| failed(&whole, source))?;
            for number in 0..windows.len() {
                self.publish_window(cut, windows, number, &aside, SPARE)
                    .await?;
            }
            remove(&aside)?;
        }
        Ok(())
    }

    /// Makes outputs visible whose windows are all in their stores.
    async fn reveal(
        &mut self,
        cuts: Vec<Cut<'_>>,
        image: &Image,
        made: &Complete,
    ) -> Result<(), Error> {
        self.claim.check()?;
        let clock = match self.publishing.take() {
            Some(since) => since,
            None => self.begin(Phase::Publish),
        };
        for mut cut in cuts {
            // Nothing is passed over here: what is not published must not be reported to be.
            let missing = || Error::WindowMissing(format!("of `{}`", cut.place.output.name));
            let target = cut.target.clone().ok_or_else(missing)?;
            let folder = self
                .context
                .scratch
                .output(self.planned, &cut.place.output.name);
            let grib = target.grib.as_ref();
            if grib.is_none() {
                create(&folder)?;
                let (to, target) = (folder.clone(), Arc::clone(&target));
                self.unless_cancelled(move || target.store.finish(&to))
                    .await??;
            }
            if let Some(warning) = grib.and_then(|form| form.warning()) {
                self.report.warning.get_or_insert(warning);
            }
            let grib = grib.map(|form| form.record());
            let place = cut.place;
            if cut.replaces {
                let published = self.publish_one(image, made, place, grib).await?;
                self.report.bytes_out += published.bytes;
                self.report.outputs.push(place.report(&published.manifest));
                continue;
            }
            if grib.is_none() {
                self.send(&mut cut, &folder).await?;
            }
            let manifest = |objects| {
                publication::manifest(
                    self.context,
                    self.planned,
                    place,
                    image,
                    made,
                    grib,
                    objects,
                )
            };
            let publishing = cut.publishing.take();
            let publishing = publishing.ok_or_else(missing)?;
            let published = publishing.finish(manifest, self.context.cancel);
            let published = published.await.map_err(|e| self.interrupted_or(e.into()))?;
            self.report.bytes_out += published.bytes;
            self.report.outputs.push(place.report(&published.manifest));
        }
        self.end(Phase::Publish, clock, Some(self.report.bytes_out));
        Ok(())
    }
}

/// The error of a window that is not what it should be.
fn refused(cut: &Cut<'_>, window: &Window, reason: String) -> Error {
    Error::BadWindow {
        output: cut.place.output.name.clone(),
        window: window.to_string(),
        reason,
    }
}

//! Outputs that are published window by window, while the model still runs.

mod backlog;
mod flow;
mod gate;
mod target;

use std::collections::{BTreeMap, BTreeSet};
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
use mlwm_spec::manifest::{InputRecord, ObjectRecord};
use mlwm_storage::points::reach;
use mlwm_storage::{Publishing, Store};
use tokio_util::sync::CancellationToken;

pub(super) use self::gate::{Gate, Listening};
use self::target::Target;
use super::Work;
use super::threads::aside;
use crate::complete::Complete;
use crate::container::Ran;
use crate::event::{Outcome, Phase};
use crate::grib::Unwritten;
use crate::place::Place;
use crate::record::Attempt;
use crate::scratch::{create, failed, remove};
use crate::space::Held;
use crate::{Error, publication};

/// So many bytes of files that are made of windows are sent at once where there is space.
const SPARE: u64 = 4 << 20;

/// What a container wrote that does not know windows, among these.
const WHOLE: &str = "whole";

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
    /// How many windows its store has, and of the one after them, which variables.
    sent: usize,
    partly: BTreeSet<String>,
    /// What an earlier attempt sent.
    earlier: Vec<ObjectRecord>,
    /// Something is published that this replaces: it is withdrawn when all windows are there, and they are kept
    /// until then.
    replaces: bool,
}

impl<'a> Work<'a> {
    /// The part of an attempt from its checked inputs to its publication, of outputs that are cut.
    pub(super) async fn run_cut(
        &mut self,
        attempt: Attempt,
        image: &Image,
        artifact: Option<UnpackedArtifact>,
        (identity, inputs): (Digest, Vec<InputRecord>),
        places: &[Place],
    ) -> Result<Outcome, Error> {
        let windows = self.windows()?;
        if !self.is_streamed(image) {
            let ran = self
                .container(attempt, image, artifact.as_ref(), identity)
                .await?;
            self.verify(&ran).await?;
            self.keep_whole()?;
            let complete = self.complete_windows(&[], identity, &inputs, &ran).await?;
            self.note(&complete);
            reach("attempt: complete");
            self.publish_kept(image, &complete, places).await?;
            return Ok(Outcome::Published);
        }
        let mut cuts = self.cuts(places, identity).await?;
        let (gate, written) = Gate::of(windows);
        self.made_from = Some((identity, inputs.clone()));
        let cut = Some((Listening::to(&gate, written), &mut cuts[..]));
        let ran = self
            .streamed(attempt, image, artifact, identity, cut)
            .await?;
        reach("attempt: ran");
        if let Some(source) = self.unsent.take() {
            if cuts.iter().any(|cut| cut.replaces) {
                // What takes the place of something published is made from all windows, which are not kept.
                self.context.scratch.clear_outputs(self.planned)?;
                return Err(Error::Storage(source));
            }
            if !self.context.scratch.complete(self.planned).is_file() {
                // The disk was full when it should have been noted.
                let complete = self.complete_windows(&cuts, identity, &inputs, &ran);
                complete.await?.note(self.context.scratch, self.planned)?;
            }
            return Err(self.unpublished(Error::Storage(source)));
        }
        let made = Complete::unkept(identity, &inputs, &ran);
        if let Err(error) = self.reveal(cuts, image, &made).await {
            self.leave_complete();
            return Err(self.unpublished(error));
        }
        Ok(Outcome::Published)
    }

    fn windows(&self) -> Result<Vec<Window>, Error> {
        let outputs = self.planned.outputs.iter();
        self.planned.windows().ok_or_else(|| Error::Windows {
            configuration: self.planned.configuration.clone(),
            output: outputs.map(|output| output.name.as_str()).collect(),
            reason: "they are no whole number of its steps, or it is of unknown length".to_owned(),
        })
    }

    /// The outputs that are to be published.
    async fn cuts<'p>(
        &mut self,
        places: &'p [Place],
        identity: Digest,
    ) -> Result<Vec<Cut<'p>>, Error> {
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
                sent: 0,
                partly: BTreeSet::new(),
                earlier: Vec::new(),
                replaces: published.is_some(),
            });
        }
        Ok(cuts)
    }

    /// All windows, which are in their stores or here.
    pub(super) async fn complete_windows(
        &self,
        cuts: &[Cut<'_>],
        identity: Digest,
        inputs: &[InputRecord],
        ran: &Ran,
    ) -> Result<Complete, Error> {
        let (scratch, cancel) = (self.context.scratch, self.context.cancel);
        let made = Complete::of(scratch, self.planned, identity, inputs, ran, cancel).await?;
        let sent = cuts.iter().filter_map(|cut| {
            let publishing = cut.publishing.as_ref()?;
            Some((cut.name().to_owned(), publishing.objects()))
        });
        Ok(made.and_sent(sent.collect()))
    }

    /// Moves what a container wrote that does not know windows to where windows lie.
    fn keep_whole(&self) -> Result<(), Error> {
        let scratch = self.context.scratch;
        for output in &self.planned.outputs {
            let written = scratch.output(self.planned, &output.name);
            let windows = scratch.windows(self.planned).join(&output.name);
            create(&windows)?;
            let whole = windows.join(WHOLE);
            fs::rename(&written, &whole).map_err(|source| failed(&written, source))?;
        }
        Ok(())
    }

    /// Publishes what is complete and lies here, but for what the stores have already. It stays until all of it is
    /// published.
    pub(super) async fn publish_kept(
        &mut self,
        image: &Image,
        complete: &Complete,
        places: &[Place],
    ) -> Result<(), Error> {
        self.claim.check()?;
        let windows = self.windows()?;
        let mut cuts = self.cuts(places, complete.identity).await?;
        self.publishing = Some(self.begin(Phase::Publish));
        let kept = self.context.scratch.windows(self.planned);
        let published = async {
            for cut in &mut cuts {
                cut.earlier = complete.sent(cut.name());
                let folder = kept.join(cut.name());
                for (number, window) in windows.iter().enumerate() {
                    let of_all = folder.join(WHOLE);
                    let of_one = folder.join(window.to_string());
                    for folder in [of_all, of_one].iter().filter(|folder| folder.is_dir()) {
                        self.publish_window(cut, &windows, number, folder, SPARE)
                            .await?;
                    }
                }
            }
            self.reveal(cuts, image, complete).await
        };
        published.await.map_err(|error| self.unpublished(error))
    }

    /// What is complete is kept if its store is at fault.
    fn unpublished(&self, error: Error) -> Error {
        let scratch = self.context.scratch;
        match error {
            Error::Storage(source)
                if self.is_fault_of_store(&source) && scratch.complete(self.planned).is_file() =>
            {
                let kept = scratch.windows(self.planned);
                Error::Unpublished { kept, source }
            }
            other => other,
        }
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
        let (known, window_of) = (cut.target.clone(), *window);
        let open = move || {
            let dataset = target::open(&path)?;
            let target = match known {
                Some(target) => target,
                None => Arc::new(Target::of(&dataset, &window_of, &wanted, &task)?),
            };
            Ok((Arc::new(dataset), target))
        };
        let opened = self.unless_cancelled(open).await?;
        let (dataset, target) = opened.map_err(|reason| refused(cut.name(), window, reason))?;
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
        if number < cut.sent {
            return Ok(());
        }
        self.publish_parts(cut, &windows[number], number as u64, (folder, spare))
            .await?;
        cut.sent = number + 1;
        cut.partly.clear();
        Ok(())
    }

    async fn publish_parts(
        &self,
        cut: &mut Cut<'_>,
        window: &Window,
        number: u64,
        (folder, spare): (&Path, u64),
    ) -> Result<(), Error> {
        let window = *window;
        let (dataset, target) = self.open(cut, &window, folder).await?;
        if !target.store.windows().contains(&number) {
            return Ok(());
        }
        if !cut.replaces {
            // What could not be sent is made again.
            remove(&self.context.scratch.output(self.planned, cut.name()))?;
        }
        if let Some(form) = target.grib.clone() {
            let write = move |folder: &Path, stop: &CancellationToken| {
                form.write(folder, &target.store, (number, &window), &dataset, stop)
            };
            let held = self.write_file(cut, &window, write).await?.1;
            return self.send_files(cut, Vec::new(), vec![held]).await;
        }
        let (mut ready, mut held, mut names) = (0_u64, Vec::new(), Vec::new());
        for variable in target
            .store
            .variables()
            .filter(|name| !cut.partly.contains(*name))
            .map(str::to_owned)
            .collect::<Vec<_>>()
        {
            // That of the window before has about as many; of the first window there is no more than one.
            let next = cut.shards.get(&variable).copied().unwrap_or(spare);
            if ready > 0 && ready.saturating_add(next) > spare {
                self.send_files(cut, std::mem::take(&mut names), std::mem::take(&mut held))
                    .await?;
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
            cut.shards.insert(variable.clone(), bytes);
            ready += bytes;
            names.push(variable);
            held.push(one);
        }
        self.send_files(cut, names, held).await
    }

    /// Has a file of a window written, which says how many bytes it has; they are held as long as what comes with
    /// them lives.
    async fn write_file(
        &self,
        cut: &Cut<'_>,
        window: &Window,
        write: impl FnOnce(&Path, &CancellationToken) -> Result<u64, Unwritten> + Send + 'static,
    ) -> Result<(u64, Held<'a>), Error> {
        let files = self.context.scratch.output(self.planned, cut.name());
        create(&files)?;
        let written = self.write(move |stop| write(&files, stop)).await?;
        let bytes = written.map_err(|unwritten| match unwritten {
            Unwritten::Store(error @ StoreError::Write { .. }) => Error::Window(error),
            Unwritten::Store(error) => refused(cut.name(), window, error.to_string()),
            Unwritten::Grib(error @ mlwm_grib::Error::Write { .. }) => Error::Eccodes(error),
            Unwritten::Grib(error) => refused(cut.name(), window, error.to_string()),
            Unwritten::Stopped => Error::Interrupted,
        })?;
        reach("window: encoded");
        Ok((bytes, self.context.machine.disk.hold(bytes)))
    }

    /// Sends the files that were written of these variables, unless they are kept until they replace something, and
    /// removes them.
    async fn send_files(
        &self,
        cut: &mut Cut<'_>,
        variables: Vec<String>,
        held: Vec<Held<'a>>,
    ) -> Result<(), Error> {
        if cut.replaces {
            self.kept().held.extend(held);
            return Ok(());
        }
        let files = self.context.scratch.output(self.planned, cut.name());
        self.send(cut, &files).await?;
        cut.partly.extend(variables);
        reach("window: sent");
        aside(move || remove(&files)).await?;
        drop(held);
        Ok(())
    }

    /// Sends what lies in a folder to the publication of an output, which begins with it if need be.
    async fn send(&self, cut: &mut Cut<'_>, folder: &Path) -> Result<u64, Error> {
        let (progress, cancel) = (self.transfer(Phase::Publish), self.context.cancel);
        let publishing = self.publication(cut).await?;
        let clock = Instant::now();
        let sent = publishing.add(folder, &progress, cancel).await;
        self.was_sent(clock.elapsed());
        sent.map_err(|error| self.interrupted_or(error.into()))
    }

    /// The publication of an output, which begins here if need be.
    async fn publication<'c>(&self, cut: &'c mut Cut<'_>) -> Result<&'c mut Publishing, Error> {
        let (scratch, cancel) = (self.context.scratch, self.context.cancel);
        match &mut cut.publishing {
            Some(publishing) => Ok(publishing),
            none => {
                let uri = &cut.place.uri;
                let store = Store::open(uri).await?;
                let notes = scratch.sent(self.planned, &cut.place.output.name);
                let begun = store.begin(uri, cut.task, Some(&notes), cancel).await;
                Ok(none.insert(begun.map_err(|error| self.interrupted_or(error.into()))?))
            }
        }
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
            let folder = self.context.scratch.output(self.planned, cut.name());
            let grib = target.grib.as_ref();
            if grib.is_none() {
                create(&folder)?;
                let (to, target) = (folder.clone(), Arc::clone(&target));
                self.write(move |_| target.store.finish(&to)).await??;
            }
            self.report
                .warnings
                .extend(grib.and_then(|form| form.warning()));
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
            if !cut.earlier.is_empty() {
                // All of it may have been sent by then.
                self.publication(&mut cut).await?;
            }
            let publishing = cut.publishing.take();
            let mut publishing = publishing.ok_or_else(missing)?;
            if let Err(error) = publishing.recall(&cut.earlier) {
                // What is here is not all: it has to be made again.
                self.context.scratch.clear_outputs(self.planned)?;
                return Err(error.into());
            }
            let published = publishing.finish(manifest, self.context.cancel);
            let published = published.await.map_err(|e| self.interrupted_or(e.into()))?;
            self.report.bytes_out += published.bytes;
            self.report.outputs.push(place.report(&published.manifest));
        }
        self.end(Phase::Publish, clock, Some(self.report.bytes_out));
        Ok(())
    }
}

impl Cut<'_> {
    /// The name of the output.
    fn name(&self) -> &str {
        &self.place.output.name
    }
}

/// The error of a window that is not what it should be.
fn refused(output: &str, window: &Window, reason: String) -> Error {
    Error::BadWindow {
        output: output.to_owned(),
        window: window.to_string(),
        reason,
    }
}

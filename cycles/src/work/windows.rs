//! Outputs that are published window by window, while the model still runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mlwm_datasets::Dataset;
use mlwm_datasets::forecast_store::{
    self, ForecastStore, Missing, StoreError, StoreOptions, VariableOptions,
};
use mlwm_engines::Image;
use mlwm_registries::UnpackedArtifact;
use mlwm_spec::configuration::StoredAs;
use mlwm_spec::contract::stream::Window;
use mlwm_spec::manifest::InputRecord;
use mlwm_spec::{Digest, Period};
use mlwm_storage::points::reach;
use mlwm_storage::{Publishing, Store};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::Work;
use crate::complete::Complete;
use crate::container::printable;
use crate::event::{Outcome, Phase};
use crate::output;
use crate::place::Place;
use crate::plan::{PlannedOutput, PlannedTask};
use crate::record::Attempt;
use crate::scratch::{create, failed, remove};
use crate::space::Space;
use crate::warm;
use crate::{Error, publication};

/// A window of a member, as its container wrote it.
pub(super) struct Written {
    number: usize,
    /// The folder of each output, by its name.
    folders: BTreeMap<String, PathBuf>,
}

/// What stands between a container and the space on the disk: it may write a window when there is room.
pub(super) struct Gate {
    windows: Vec<Window>,
    /// The work whose windows these are, and how many of them may be written.
    state: Mutex<(Option<Arc<warm::Work>>, usize)>,
    written: UnboundedSender<Written>,
    has_begun: Notify,
    /// It is known how large a window is.
    is_sized: Notify,
}

/// What is heard of the windows of a member.
pub(super) struct Listening<'g> {
    gate: &'g Gate,
    written: UnboundedReceiver<Written>,
}

impl<'g> Listening<'g> {
    pub(super) fn gate(&self) -> &'g Gate {
        self.gate
    }
}

impl Gate {
    fn state(&self) -> std::sync::MutexGuard<'_, (Option<Arc<warm::Work>>, usize)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container is at it, or another one.
    pub(super) fn begun(&self, work: &Arc<warm::Work>) -> Result<(), Error> {
        let mut state = self.state();
        for window in &self.windows[..state.1] {
            work.go(&window.to_string())?;
        }
        state.0 = Some(Arc::clone(work));
        self.has_begun.notify_one();
        Ok(())
    }

    /// The container may write the next window.
    fn open(&self) -> Result<(), Error> {
        let mut state = self.state();
        if let (Some(work), Some(window)) = (&state.0, self.windows.get(state.1)) {
            work.go(&window.to_string())?;
        }
        state.1 += 1;
        Ok(())
    }

    /// A window is written.
    pub(super) fn take(
        &self,
        work: &warm::Work,
        planned: &PlannedTask,
        name: &str,
    ) -> Result<(), Error> {
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
        Ok(())
    }
}

/// An output that is being published.
pub(super) struct Cut<'p> {
    place: &'p Place,
    /// Identity of the task.
    task: Digest,
    /// Known from the first window on.
    store: Option<Arc<ForecastStore>>,
    /// Begun with the first window: nothing lies in a store of a member that never came to one.
    publishing: Option<Publishing>,
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
                store: None,
                publishing: None,
                replaces: published.is_some(),
            });
        }
        let (written, receive) = unbounded_channel();
        let gate = Gate {
            windows,
            state: Mutex::new((None, 0)),
            written,
            has_begun: Notify::new(),
            is_sized: Notify::new(),
        };
        let ran = match self.is_streamed(image) {
            true => {
                let listening = Listening {
                    gate: &gate,
                    written: receive,
                };
                let cut = Some((listening, &mut cuts[..]));
                self.streamed(attempt, image, artifact, identity, cut)
                    .await?
            }
            false => {
                let ran = self
                    .container(attempt, image, artifact.as_ref(), identity)
                    .await?;
                self.verify(&ran).await?;
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
        let Listening { gate, mut written } = listening;
        let (give, mut spaces) = unbounded_channel();
        let publishing = async {
            for expected in 0..gate.windows.len() {
                let Some(window) = next(&mut written, ended).await else {
                    return Err(Error::WindowMissing(gate.windows[expected].to_string()));
                };
                if window.number != expected {
                    return Err(Error::WindowMissing(gate.windows[expected].to_string()));
                }
                let mut space: Option<Space<'_>> = spaces.recv().await;
                let bytes = window.bytes()?;
                self.context.warm.saw_window(self.planned, bytes);
                gate.is_sized.notify_one();
                if let Some(space) = &mut space {
                    space.shrink_to(
                        self.context
                            .warm
                            .window_space(self.planned)
                            .unwrap_or(bytes),
                    );
                }
                let held = self.context.machine.disk.hold(bytes);
                for cut in cuts.iter_mut() {
                    let folder = &window.folders[&cut.place.output.name];
                    self.publish_window(cut, &gate.windows, expected, folder)
                        .await?;
                }
                for folder in window.folders.values() {
                    remove(folder)?;
                }
                reach("window: removed");
                drop(held);
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
                gate.open()?;
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
        match window + inputs <= budget {
            true => Ok(disk.reserve(window, 0).await),
            false => Err(Error::WindowTooLarge {
                window,
                inputs,
                budget,
            }),
        }
    }

    async fn publish_window(
        &self,
        cut: &mut Cut<'_>,
        windows: &[Window],
        number: usize,
        folder: &Path,
    ) -> Result<(), Error> {
        let output = &cut.place.output;
        let refused = |reason: String| Error::BadWindow {
            output: output.name.clone(),
            window: windows[number].to_string(),
            reason,
        };
        let (path, wanted, task, known) = (
            folder.to_owned(),
            output.clone(),
            self.planned.clone(),
            cut.store.clone(),
        );
        let opened = self.unless_cancelled(move || open(&path, &wanted, &task, known));
        let (dataset, store) = opened.await?.map_err(refused)?;
        cut.store = Some(Arc::clone(&store));
        let number = number as u64;
        if !store.windows().contains(&number) {
            return Ok(());
        }
        let shards = self.context.scratch.output(self.planned, &output.name);
        for variable in store.variables().map(str::to_owned).collect::<Vec<_>>() {
            create(&shards)?;
            let (to, store, dataset) = (shards.clone(), Arc::clone(&store), Arc::clone(&dataset));
            let write = move || store.write_variable(&to, &variable, number, &dataset);
            let written = self.unless_cancelled(write).await?;
            let written = written.map_err(|error| match error {
                StoreError::Write { .. } => Error::Window(error),
                error => refused(error.to_string()),
            })?;
            reach("window: encoded");
            if cut.replaces {
                continue;
            }
            let held = self.context.machine.disk.hold(written.bytes);
            self.send(cut, &shards).await?;
            reach("window: sent");
            remove(&shards)?;
            drop(held);
        }
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
        let sent = publishing.add(folder, &progress, cancel);
        sent.await
            .map_err(|error| self.interrupted_or(error.into()))
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
                self.publish_window(cut, windows, number, &aside).await?;
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
        let clock = self.begin(Phase::Publish);
        for mut cut in cuts {
            // Nothing is passed over here: what is not published must not be reported to be.
            let missing = || Error::WindowMissing(format!("of `{}`", cut.place.output.name));
            let store = cut.store.clone().ok_or_else(missing)?;
            let folder = self
                .context
                .scratch
                .output(self.planned, &cut.place.output.name);
            create(&folder)?;
            let to = folder.clone();
            self.unless_cancelled(move || store.finish(&to)).await??;
            let place = cut.place;
            if cut.replaces {
                let published = self.publish_one(image, made, place).await?;
                self.report.bytes_out += published.bytes;
                self.report.outputs.push(place.report(&published.manifest));
                continue;
            }
            self.send(&mut cut, &folder).await?;
            let manifest = |objects| {
                publication::manifest(self.context, self.planned, place, image, made, objects)
            };
            let publishing = cut.publishing.take();
            let publishing = publishing
                .ok_or_else(|| Error::WindowMissing(format!("of `{}`", place.output.name)))?;
            let published = publishing.finish(manifest, self.context.cancel);
            let published = published.await.map_err(|e| self.interrupted_or(e.into()))?;
            self.report.bytes_out += published.bytes;
            self.report.outputs.push(place.report(&published.manifest));
        }
        self.end(Phase::Publish, clock, Some(self.report.bytes_out));
        Ok(())
    }
}

impl Written {
    fn bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for folder in self.folders.values() {
            bytes += size(folder).map_err(|source| failed(folder, source))?;
        }
        Ok(bytes)
    }
}

/// The next window, or none if the container has ended and there is none.
async fn next(
    written: &mut UnboundedReceiver<Written>,
    ended: &CancellationToken,
) -> Option<Written> {
    tokio::select! {
        biased;
        window = written.recv() => window,
        () = ended.cancelled() => None,
    }
}

/// A window that a container wrote, and the store that it belongs to.
fn open(
    folder: &Path,
    wanted: &PlannedOutput,
    task: &PlannedTask,
    known: Option<Arc<ForecastStore>>,
) -> Result<(Arc<Dataset>, Arc<ForecastStore>), String> {
    if !warm::is_folder(folder) {
        return Err("was not written, or is a link".to_owned());
    }
    output::refuse_special_files(folder)?;
    let dataset = Dataset::open(folder).map_err(|error| error.to_string())?;
    let store = match known {
        Some(store) => store,
        None => Arc::new(plan(&dataset, wanted, task)?),
    };
    Ok((Arc::new(dataset), store))
}

fn plan(
    dataset: &Dataset,
    wanted: &PlannedOutput,
    task: &PlannedTask,
) -> Result<ForecastStore, String> {
    let declared = wanted.windows.as_ref().ok_or("is not cut")?;
    let length = declared.length.seconds().unsigned_abs();
    let (steps, step_seconds) = match &task.steps {
        Some(steps) => (steps.count, steps.seconds.unsigned_abs()),
        None => steps_of(dataset, task)?,
    };
    let windows = forecast_store::Windows::new(task.analysis_time, step_seconds, steps, length)
        .map_err(|error| error.to_string())?;
    let names: Vec<String> = match &wanted.variables {
        Some(names) => names.clone(),
        None => output::data_variables(dataset)?,
    };
    if let Some(name) = wanted.ranges.keys().find(|name| !names.contains(name)) {
        return Err(format!(
            "has no variable `{name}`, for which there is a range"
        ));
    }
    let options = |name: &String| VariableOptions {
        stored: match declared.stored_as.get(name) {
            Some(StoredAs::Float16) => forecast_store::StoredAs::Float16,
            _ => forecast_store::StoredAs::Float32,
        },
        missing: match declared.missing.contains(name) {
            true => Missing::Anywhere,
            false => Missing::Nowhere,
        },
        range: wanted.ranges.get(name).copied(),
    };
    let options = StoreOptions {
        variables: names
            .iter()
            .map(|name| (name.clone(), options(name)))
            .collect(),
        hours: declared.hours.map(|hours| hours.from..hours.to),
        attributes: serde_json::Map::new(),
    };
    ForecastStore::plan(dataset, windows, &options).map_err(|error| error.to_string())
}

/// The steps of a forecast whose model does not say how long one is: its first lead time is.
fn steps_of(dataset: &Dataset, task: &PlannedTask) -> Result<(u64, u64), String> {
    let leads = output::lead_times(dataset, task.analysis_time)?;
    let first = leads.first().copied().filter(|lead| *lead > 0);
    let step = first
        .ok_or("has no lead time after the analysis time")?
        .unsigned_abs();
    let duration: Option<Period> = task.forecast_duration().and_then(|text| text.parse().ok());
    let duration = duration
        .ok_or("is of unknown length")?
        .seconds()
        .unsigned_abs();
    match duration % step {
        0 => Ok((duration / step, step)),
        _ => Err(format!(
            "begins with a lead time of {step} s, of which the forecast is no multiple"
        )),
    }
}

fn size(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        bytes += match found.is_dir() {
            true => size(&entry.path())?,
            false => found.len(),
        };
    }
    Ok(bytes)
}

//! One attempt at a task, from its inputs to its published outputs.

mod convert;
mod streamed;
mod threads;
mod windows;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mlwm_engines::Image;
use mlwm_registries::UnpackedArtifact;
use mlwm_spec::manifest::{GribRecord, InputRecord, NamedDigest, ObjectRecord};
use mlwm_spec::task::{InputIdentity, TaskKey};
use mlwm_spec::{ArtifactDelivery, Digest, ExitCode, Manifest};
use mlwm_storage::points::{reach, reach_half_removed};
use mlwm_storage::{Progress, Source, Store, Uri};
use tokio::sync::RwLock;

use self::threads::aside;
use crate::claim::Claim;
use crate::complete::Complete;
use crate::container::{self, Ran};
use crate::event::{Event, Outcome, Phase, TaskReport};
use crate::place::{self, Place};
use crate::plan::{PlannedInput, PlannedTask};
use crate::record::Attempt;
use crate::run::Context;
use crate::space::{Held, Space};
use crate::warm::Staged;
use crate::{Error, output, preflight, publication, scratch};

/// The time between two events of progress of a transfer.
const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// What an attempt starts from.
pub(crate) struct Ground {
    image: Image,
    /// Those of the converters, by the names of their inputs.
    converters: BTreeMap<String, Image>,
    places: Vec<Place>,
}

pub(crate) struct Work<'a> {
    context: &'a Context<'a>,
    turn: usize,
    planned: &'a PlannedTask,
    claim: &'a Claim,
    attempt: Option<Attempt>,
    report: TaskReport,
    /// Its windows are published while its container runs: it takes space for them as it goes on.
    is_streamed_in_windows: bool,
    /// Seconds in which its windows were sent so far.
    sent: Mutex<f64>,
    /// What its windows are made from.
    made_from: Option<(Digest, Vec<InputRecord>)>,
    /// Windows that were sent, and stay until all are visible.
    complete: Mutex<Vec<(Option<Space<'a>>, Held<'a>)>>,
    /// Why windows that are complete are still here.
    unsent: Option<mlwm_storage::Error>,
    /// Since when there is nothing left to do but to publish, if that began while windows were sent.
    publishing: Option<Instant>,
    /// Bytes of its inputs that lie in the working folder.
    inputs_bytes: u64,
    /// The space that its inputs then take.
    inputs: Mutex<Option<(Staged<'a>, Space<'a>, Held<'a>)>>,
    /// What is kept of its windows.
    kept: Mutex<Kept<'a>>,
    /// Whoever writes into its folders on another thread reads this.
    writers: Arc<RwLock<()>>,
}

/// What is made of windows and takes the place of something published when all is there.
#[derive(Default)]
struct Kept<'a> {
    held: Vec<Held<'a>>,
    spaces: Vec<Space<'a>>,
}

impl Kept<'_> {
    /// Bytes that lie there.
    fn bytes(&self) -> u64 {
        self.held.iter().map(Held::bytes).sum()
    }

    /// Bytes that are reserved for them.
    fn reserved(&self) -> u64 {
        self.spaces.iter().map(Space::bytes).sum()
    }
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        context: &'a Context<'a>,
        turn: usize,
        planned: &'a PlannedTask,
        claim: &'a Claim,
    ) -> Self {
        Self {
            context,
            turn,
            planned,
            claim,
            attempt: None,
            report: TaskReport::new(planned),
            is_streamed_in_windows: false,
            sent: Mutex::default(),
            made_from: None,
            complete: Mutex::default(),
            unsent: None,
            publishing: None,
            inputs_bytes: 0,
            inputs: Mutex::default(),
            kept: Mutex::default(),
            writers: Arc::default(),
        }
    }

    pub(crate) fn into_report(self) -> TaskReport {
        self.report
    }

    /// Whether its windows are published while its container runs, once it has been looked at.
    pub(crate) fn is_streamed_in_windows(&self) -> bool {
        self.is_streamed_in_windows
    }

    /// Looks at the image and at what is published: `None` if nothing need be done.
    pub(crate) async fn look(&mut self) -> Result<Option<Ground>, Error> {
        let image = self.image().await?;
        let converters = self.converters().await?;
        self.is_streamed_in_windows = self.planned.is_cut() && self.is_streamed(&image);
        let places = Place::of(self.planned).await?;
        let mut is_anew = self.context.options.republish;
        for place in places.iter().filter(|_| !self.context.options.republish) {
            match place.refuse_other_task(self.planned, &image, &converters) {
                Err(_) if place.output.replace => is_anew = true,
                other => other?,
            }
        }
        // A manifest of another task has another identity, which is found with the inputs.
        let known = match is_anew {
            true => None,
            false => place::published_from_same_listings(self.planned, &places).await?,
        };
        match known {
            Some(identity) => self
                .already_published(identity, &places)
                .await
                .map(|()| None),
            None => Ok(Some(Ground {
                image,
                converters,
                places,
            })),
        }
    }

    /// Does all of it. When this returns, nothing writes into its folders any more.
    pub(crate) async fn run(&mut self, attempt: Attempt, ground: Ground) -> Result<Outcome, Error> {
        let done = self.run_all(attempt, ground).await;
        self.end_writing().await;
        done
    }

    async fn run_all(&mut self, attempt: Attempt, ground: Ground) -> Result<Outcome, Error> {
        self.attempt = Some(attempt);
        // Before anything of another is cleared that may have taken the task over.
        self.claim.check()?;
        let (image, places) = (&ground.image, &ground.places);
        let disk = &self.context.machine.disk;
        let (space, held) = disk.left_of(self.turn);
        let found = match self.complete(&ground).await {
            Ok(found) => found.filter(|complete| self.may_publish(complete, places)),
            Err(error) => {
                space.leave(self.turn, held);
                return Err(error);
            }
        };
        if let Some(complete) = found {
            reach("attempt: found complete");
            let published = match self.planned.is_cut() {
                true => self.publish_kept(image, &complete, places).await,
                false => self.publish(image, &complete, places).await,
            };
            if published.is_err() {
                space.leave(self.turn, held);
            }
            return published.map(|()| Outcome::Published);
        }
        self.context.scratch.clear_outputs(self.planned)?;
        drop((space, held));
        // Without a ledger, all attempts have one number. A log that stays is only longer.
        let _ = fs::remove_file(self.context.scratch.log(self.planned, attempt.number));
        self.context.gpu_memory.check(&self.planned.resources)?;
        self.check_writable(places).await?;
        let inputs = self.stage(&ground.converters).await?;
        reach("attempt: staged");
        let identity = self.identity(&ground, &inputs);
        self.report.identity = Some(identity);
        if !self.context.options.republish && place::published_by(identity, places)? {
            self.already_published(identity, places).await?;
            return Ok(Outcome::AlreadyPublished);
        }
        self.convert(attempt, &ground, identity, &inputs).await?;
        self.check().await?;
        reach("attempt: checked");
        let mounted = self.mounted().await?;
        if self.planned.is_cut() {
            let made_from = (identity, inputs);
            return self
                .run_cut(attempt, image, mounted, made_from, places)
                .await;
        }
        let ran = match self.is_streamed(image) {
            true => {
                self.streamed(attempt, image, mounted, identity, None)
                    .await?
            }
            false => {
                self.container(attempt, image, mounted.as_ref(), identity)
                    .await?
            }
        };
        reach("attempt: ran");
        self.verify(&ran).await?;
        reach("attempt: verified");
        let scratch = self.context.scratch;
        let complete = Complete::of(
            scratch,
            self.planned,
            identity,
            &inputs,
            &ran,
            self.context.cancel,
        );
        let complete = complete.await?;
        self.note(&complete);
        reach("attempt: complete");
        self.publish(image, &complete, places).await?;
        Ok(Outcome::Published)
    }

    /// Notes that all is complete. On a full disk it can be published nevertheless, though only now.
    fn note(&mut self, complete: &Complete) {
        if let Err(error) = complete.note(self.context.scratch, self.planned) {
            self.report.warnings.push(error.to_string());
        }
    }

    async fn already_published(&mut self, identity: Digest, places: &[Place]) -> Result<(), Error> {
        self.report.identity = Some(identity);
        for place in places {
            place.refuse_damage().await?;
            place.finish().await?;
            let manifest = place.manifest.as_ref();
            self.report
                .outputs
                .extend(manifest.map(|manifest| place.report(manifest)));
        }
        Ok(())
    }

    /// The image: made from the artifact that the configuration names, or without one if that is
    /// mounted.
    async fn image(&self) -> Result<Image, Error> {
        let planned = self.planned;
        let found = self.context.engine.image(&planned.image).await?;
        let image = found.ok_or_else(|| Error::ImageMissing {
            image: planned.image.clone(),
            configuration: planned.configuration.clone(),
        })?;
        place::refuse_other_artifact(planned, &image)?;
        Ok(image)
    }

    /// The images of the converters of inputs, by the names of these.
    async fn converters(&self) -> Result<BTreeMap<String, Image>, Error> {
        let mut converters = BTreeMap::new();
        for input in &self.planned.inputs {
            let Some(converter) = &input.convert else {
                continue;
            };
            let found = self.context.engine.image(&converter.image).await?;
            let image = found.ok_or_else(|| Error::ConverterMissing {
                image: converter.image.clone(),
                input: input.name.clone(),
                configuration: self.planned.configuration.clone(),
            })?;
            converters.insert(input.name.clone(), image);
        }
        Ok(converters)
    }

    /// Complete outputs of an earlier attempt, if they are what this one would make.
    async fn complete(&mut self, ground: &Ground) -> Result<Option<Complete>, Error> {
        let (scratch, cancel) = (self.context.scratch, self.context.cancel);
        let Some(complete) = Complete::find(scratch, self.planned, cancel).await? else {
            return Ok(None);
        };
        let same = complete.identity == self.identity(ground, &complete.inputs)
            && place::same_listings(self.planned, &complete.inputs).await?;
        self.report.identity = same.then_some(complete.identity);
        Ok(same.then_some(complete))
    }

    /// Whether what is complete is all here, if it has to take the place of something else: windows that were sent are
    /// leftovers then.
    fn may_publish(&self, complete: &Complete, places: &[Place]) -> bool {
        let is_other = |place: &Place| {
            let published = place.manifest.as_ref();
            published.is_some_and(|there| {
                there.task != complete.identity || self.context.options.republish
            })
        };
        !places
            .iter()
            .any(|place| is_other(place) && !complete.sent(&place.output.name).is_empty())
    }

    async fn stage(
        &mut self,
        converters: &BTreeMap<String, Image>,
    ) -> Result<Vec<InputRecord>, Error> {
        // What was staged whole is staged again: it is not known to be what was asked for. Nobody counts it while this
        // waits for space.
        self.context.scratch.clear_inputs(self.planned)?;
        let space = self.space_for_inputs().await?;
        let clock = self.begin(Phase::Stage);
        let progress = self.transfer(Phase::Stage);
        let mut records = Vec::new();
        for input in &self.planned.inputs {
            let uri: Uri = input.uri.parse()?;
            let dest = match input.convert {
                None => self.context.scratch.input(self.planned, &input.name),
                Some(_) => self.context.scratch.raw(self.planned, &input.name),
            };
            let staged = mlwm_storage::stage(&uri, &dest, &progress, self.context.cancel)
                .await
                .map_err(|error| self.interrupted_or(error.into()))?;
            if input.until_read {
                // What is removed while it is staged, or was in part, is said to be so before.
                mlwm_storage::refuse_removed(&uri).await?;
            }
            self.report.bytes_in += staged.bytes;
            records.push(InputRecord {
                name: input.name.clone(),
                uri: uri.to_string(),
                digest: staged.digest,
                listing: staged.listing,
                objects: staged.objects.len() as u64,
                bytes: staged.bytes,
                converter: self.converter(input, converters),
            });
        }
        self.inputs_bytes = self.report.bytes_in;
        self.end(Phase::Stage, clock, Some(self.report.bytes_in));
        let held = self.context.machine.disk.hold(self.report.bytes_in);
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        *inputs = space.map(|(staged, space)| (staged, space, held));
        drop(inputs);
        Ok(records)
    }

    /// The converter of an input, for the record.
    fn converter(
        &self,
        input: &PlannedInput,
        converters: &BTreeMap<String, Image>,
    ) -> Option<NamedDigest> {
        let (converter, image) = input.convert.as_ref().zip(converters.get(&input.name))?;
        Some(NamedDigest {
            name: converter.image.clone(),
            digest: image.id,
        })
    }

    /// Waits for space for the inputs of a task whose outputs are cut: what it needs is known from their
    /// listings, and not, as for others, from `resources.disk`. What is made of them lies beside them for a while.
    async fn space_for_inputs(&self) -> Result<Option<(Staged<'a>, Space<'a>)>, Error> {
        if !self.is_streamed_in_windows {
            return Ok(None);
        }
        let mut bytes = 0;
        for input in &self.planned.inputs {
            let uri: Uri = input.uri.parse()?;
            let listed = mlwm_storage::listing_digest(&uri).await?.bytes;
            let converter = input.convert.as_ref();
            bytes += listed + converter.map_or(0, |converter| converter.room(listed));
        }
        let disk = &self.context.machine.disk;
        if bytes > disk.budget() {
            return Err(Error::InputsTooLarge {
                bytes,
                budget: disk.budget(),
            });
        }
        let space = async {
            // Those that are staged ahead leave space for a window, or the one that is served could not go on.
            let (staged, mut left) = self.context.warm.stage(self.planned).await;
            if self.context.options.republish {
                // All of its windows may be kept until the last one is there.
                let windows = self.planned.windows().map_or(1, |windows| windows.len());
                left = left.saturating_mul(windows as u64);
            }
            Some((staged, disk.reserve_for_inputs(bytes, left).await?))
        };
        tokio::select! {
            space = space => space.map(Some).ok_or(Error::NoSpaceLeft {
                inputs: bytes,
                budget: disk.budget(),
            }),
            () = self.context.cancel.cancelled() => Err(Error::Interrupted),
        }
    }

    /// Of the inputs, so many bytes lie in the working folder: what more they took is free.
    fn only_holds(&mut self, bytes: u64) {
        self.inputs_bytes = bytes;
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, space, held)) = &mut *inputs {
            *held = self.context.machine.disk.hold(bytes);
            space.shrink_to(bytes);
        }
    }

    /// The model has read its inputs: they are removed.
    async fn inputs_are_read(&self) -> Result<(), Error> {
        let scratch = self.context.scratch;
        for input in &self.planned.inputs {
            let folder = scratch.input(self.planned, &input.name);
            // Under a name of its own: what the next attempt stages must not be removed with it.
            let gone = scratch::rename_aside(&folder)?;
            aside(move || {
                reach_half_removed("inputs: half removed", &gone);
                scratch::remove(&gone)
            })
            .await?;
        }
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.take();
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept<'a>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn identity(&self, ground: &Ground, inputs: &[InputRecord]) -> Digest {
        let planned = self.planned;
        let converter = |input: &str| Some(ground.converters.get(input)?.id);
        let inputs = inputs.iter().map(|input| InputIdentity {
            name: input.name.clone(),
            digest: input.digest,
            converter: converter(&input.name),
        });
        let key = TaskKey {
            image: ground.image.id,
            artifact: planned.artifact.as_ref().map(|artifact| artifact.digest),
            configuration: planned.configuration_digest,
            analysis_time: planned.analysis_time,
            member: planned.member,
            forecast_duration: planned.forecast_duration(),
            asked: planned.asked(),
            inputs: inputs.collect(),
        };
        key.identity()
    }

    /// Everything that can be known to be wrong before a container is started.
    async fn check(&mut self) -> Result<(), Error> {
        let clock = self.begin(Phase::Check);
        let path = |input: &PlannedInput| self.context.scratch.input(self.planned, &input.name);
        let inputs = self.planned.inputs.iter();
        let staged: Vec<(PlannedInput, PathBuf)> =
            inputs.map(|input| (input.clone(), path(input))).collect();
        let planned = self.planned.clone();
        self.unless_cancelled(move || preflight::check(&planned, &staged))
            .await??;
        self.end(Phase::Check, clock, None);
        Ok(())
    }

    /// Whether the outputs may be published, before anything is brought here for them.
    async fn check_writable(&self, places: &[Place]) -> Result<(), Error> {
        for place in places {
            let writable = async {
                Store::open(&place.uri)
                    .await?
                    .check_writable(&place.uri)
                    .await
            };
            tokio::select! {
                writable = writable => writable?,
                () = self.context.cancel.cancelled() => return Err(Error::Interrupted),
            }
        }
        Ok(())
    }

    /// The artifact, unpacked and verified, if it is to be mounted; kept as long as this lives.
    async fn mounted(&mut self) -> Result<Option<UnpackedArtifact>, Error> {
        let Some(artifact) = &self.planned.artifact else {
            return Ok(None);
        };
        if artifact.delivery == ArtifactDelivery::Bake {
            return Ok(None);
        }
        let clock = self.begin(Phase::Unpack);
        let (zip, cancel) = (Path::new(&artifact.path), self.context.cancel);
        let unpacked = self
            .context
            .options
            .unpacked
            .get(zip, artifact.digest, cancel);
        let unpacked = unpacked
            .await
            .map_err(|error| self.interrupted_or(error.into()))?;
        self.end(Phase::Unpack, clock, None);
        Ok(Some(unpacked))
    }

    async fn container(
        &mut self,
        attempt: Attempt,
        image: &Image,
        artifact: Option<&UnpackedArtifact>,
        identity: Digest,
    ) -> Result<Ran, Error> {
        let clock = self.begin(Phase::Queue);
        let _room = tokio::select! {
            room = self.context.machine.room(self.turn, &self.planned.resources) => room,
            () = self.context.cancel.cancelled() => return Err(Error::Interrupted),
        };
        self.end(Phase::Queue, clock, None);
        self.claim.check()?;
        let clock = self.begin(Phase::Run);
        let log = self.context.scratch.log(self.planned, attempt.number);
        self.report.log = Some(log.display().to_string());
        self.context
            .recorder
            .has_log(attempt, &log.display().to_string());
        let stop = self.context.cancel.child_token();
        let limit = self.context.machine.most_written(&self.planned.resources);
        let job = container::Job {
            planned: self.planned,
            image,
            artifact,
            identity,
            log: &log,
            turn: self.turn,
            room: limit.saturating_sub(self.inputs_bytes),
        };
        reach("attempt: before the container");
        let running = container::run(self.context, &job, &stop);
        tokio::pin!(running);
        let ran = tokio::select! {
            ran = &mut running => ran,
            // Another does the task now: two must not.
            () = self.claim.lost.cancelled() => {
                stop.cancel();
                let _ = running.await;
                self.claim.check().and(Err(Error::Interrupted))
            }
        };
        if !log.is_file() {
            self.report.log = None;
        }
        let (ran, written) = ran?;
        self.warn_of_log(&log, written);
        self.report.peak_memory = ran.peak_memory;
        self.end(Phase::Run, clock, None);
        Ok(ran)
    }

    async fn verify(&mut self, ran: &Ran) -> Result<(), Error> {
        let clock = self.begin(Phase::Verify);
        for wanted in &self.planned.outputs {
            let path = self.context.scratch.output(self.planned, &wanted.name);
            let (name, wanted, planned) = (&wanted.name, wanted.clone(), self.planned.clone());
            self.unless_cancelled(move || output::check(&path, &wanted, &planned))
                .await?
                .map_err(|reason| Error::Incomplete {
                    output: name.clone(),
                    reason,
                    log: ran.log.clone(),
                })?;
        }
        self.end(Phase::Verify, clock, None);
        Ok(())
    }

    async fn publish(
        &mut self,
        image: &Image,
        complete: &Complete,
        places: &[Place],
    ) -> Result<(), Error> {
        self.claim.check()?;
        let clock = self.begin(Phase::Publish);
        for place in places {
            if let Some(manifest) = &place.manifest
                && manifest.task == complete.identity
                && !self.context.options.republish
            {
                // Published by this same task before it was killed.
                place.finish().await?;
                self.report.outputs.push(place.report(manifest));
                continue;
            }
            let published = self.publish_one(image, complete, place, None).await?;
            self.report.bytes_out += published.bytes;
            self.report.outputs.push(place.report(&published.manifest));
        }
        self.end(Phase::Publish, clock, Some(self.report.bytes_out));
        Ok(())
    }

    async fn publish_one(
        &self,
        image: &Image,
        complete: &Complete,
        place: &Place,
        grib: Option<&GribRecord>,
    ) -> Result<mlwm_storage::Published, Error> {
        let progress = self.transfer(Phase::Publish);
        let (task, cancel) = (complete.identity, self.context.cancel);
        let scratch = self.context.scratch;
        let local = scratch.output(self.planned, &place.output.name);
        let source = Source {
            folder: &local,
            notes: Some(&scratch.sent(self.planned, &place.output.name)),
        };
        let manifest = |objects: Vec<ObjectRecord>| -> Manifest {
            publication::manifest(
                self.context,
                self.planned,
                place,
                image,
                complete,
                grib,
                objects,
            )
        };
        let uri = &place.uri;
        let is_other = place
            .manifest
            .as_ref()
            .is_some_and(|there| there.task != task);
        let republish = self.context.options.republish || place.output.replace && is_other;
        let published = match republish {
            true => mlwm_storage::republish(source, uri, task, manifest, &progress, cancel).await,
            false => mlwm_storage::publish(source, uri, task, manifest, &progress, cancel).await,
        };
        published.map_err(|error| match error.exit_code() {
            ExitCode::StorageFailed if !cancel.is_cancelled() => Error::Unpublished {
                kept: local.clone(),
                source: error,
            },
            _ => self.interrupted_or(error.into()),
        })
    }

    /// A forecast is not lost for its log.
    fn warn_of_log(&mut self, log: &Path, written: std::io::Result<()>) {
        if let Err(error) = written {
            let warning = format!("its log {} could not be written: {error}", log.display());
            self.report.warnings.push(warning);
        }
    }

    fn begin(&self, phase: Phase) -> Instant {
        (self.context.tell)(Event::PhaseStarted {
            task: self.planned.title(),
            phase,
        });
        if let Some(attempt) = self.attempt {
            self.context.recorder.begin_phase(attempt, phase);
        }
        Instant::now()
    }

    fn end(&mut self, phase: Phase, clock: Instant, bytes: Option<u64>) {
        let seconds = clock.elapsed().as_secs_f64();
        self.report.phases.push((phase, seconds));
        self.tell_end(phase, seconds, bytes);
    }

    /// The same of a phase that is not in the report yet.
    fn tell_end(&self, phase: Phase, seconds: f64, bytes: Option<u64>) {
        if let Some(attempt) = self.attempt {
            self.context
                .recorder
                .end_phase(attempt, phase, seconds, bytes);
        }
        (self.context.tell)(Event::PhaseFinished {
            task: self.planned.title(),
            phase,
            seconds,
            bytes,
        });
    }

    /// Tells how far a transfer is.
    fn transfer(&self, phase: Phase) -> Progress {
        let task = self.planned.title();
        let tell = Arc::clone(self.context.tell);
        let last: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
        Progress::new(move |event| {
            // A poisoned lock would only mean that an event was lost.
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let at_end = event.done_bytes == event.total_bytes;
            let worth_telling = last.is_none_or(|(time, done)| {
                done != event.done_bytes && (at_end || time.elapsed() >= BETWEEN_EVENTS)
            });
            if !worth_telling {
                return;
            }
            *last = Some((Instant::now(), event.done_bytes));
            tell(Event::Progress {
                task: task.clone(),
                phase,
                done: event.done_bytes,
                total: Some(event.total_bytes),
            });
        })
    }

    /// An error that follows from being told to stop is not an error of the store.
    fn interrupted_or(&self, error: Error) -> Error {
        match self.context.cancel.is_cancelled() {
            true => Error::Interrupted,
            false => error,
        }
    }
}

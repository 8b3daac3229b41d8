//! One task from its inputs to its published outputs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mlwm_engines::Image;
use mlwm_spec::manifest::{InputRecord, MANIFEST_VERSION, NamedDigest, ObjectRecord, RunRecord};
use mlwm_spec::task::{InputIdentity, TaskKey};
use mlwm_spec::{Digest, ExitCode, Manifest};
use mlwm_storage::{Progress, Uri};

use crate::container::{self, Ran};
use crate::event::{Event, Outcome, Phase, TaskReport};
use crate::place::{self, Place};
use crate::plan::{PlannedInput, PlannedTask};
use crate::run::Context;
use crate::{Error, output, preflight};

/// The label of an image that names its artifact.
const ARTIFACT_LABEL: &str = "io.mlwm.artifact.digest";

/// The time between two events of progress of a transfer.
const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// Runs one task to its end and reports how it went.
pub(crate) async fn run(context: &Context<'_>, planned: &PlannedTask) -> TaskReport {
    (context.tell)(Event::TaskStarted {
        task: planned.title(),
        configuration: planned.configuration.clone(),
        member: planned.member,
    });
    let report = TaskReport::new(planned);
    let mut work = Work {
        context,
        planned,
        report,
    };
    let result = work.run().await;
    let mut report = work.report;
    // Staged inputs can be staged again, and what was refused must not be mistaken for a forecast:
    // only one that was complete and could not be brought to its store is kept. The log stays.
    let kept = matches!(result, Err(Error::Unpublished { .. }));
    let cleared = match kept {
        true => context.scratch.clear_inputs(planned),
        false => context.scratch.clear(planned),
    };
    match result {
        Ok(outcome) => {
            report.outcome = outcome;
            report.warning = cleared.err().map(|error| error.to_string());
        }
        Err(error) => {
            report.exit_code = error.exit_code();
            report.error = Some(error.to_string());
        }
    }
    report
}

/// The report of a task that was not begun, because mlwm was told to stop.
pub(crate) fn not_begun(planned: &PlannedTask) -> TaskReport {
    TaskReport {
        exit_code: ExitCode::Interrupted,
        error: Some(Error::Interrupted.to_string()),
        ..TaskReport::new(planned)
    }
}

impl TaskReport {
    fn new(planned: &PlannedTask) -> Self {
        Self {
            task: planned.title(),
            configuration: planned.configuration.clone(),
            member: planned.member,
            outcome: Outcome::Failed,
            identity: None,
            phases: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            outputs: Vec::new(),
            log: None,
            warning: None,
            error: None,
            exit_code: ExitCode::Ok,
        }
    }
}

struct Work<'a> {
    context: &'a Context<'a>,
    planned: &'a PlannedTask,
    report: TaskReport,
}

impl Work<'_> {
    async fn run(&mut self) -> Result<Outcome, Error> {
        let image = self.image().await?;
        let places = Place::of(self.planned).await?;
        for place in &places {
            place.refuse_other_task(self.planned, &image)?;
        }
        if let Some(identity) = place::published_from_same_listings(self.planned, &places).await? {
            return self.already_published(identity, &places).await;
        }
        self.context.scratch.clear(self.planned)?;
        let inputs = self.stage().await?;
        let identity = self.identity(&image, &inputs);
        self.report.identity = Some(identity);
        if place::published_by(identity, &places)? {
            return self.already_published(identity, &places).await;
        }
        self.check().await?;
        let ran = self.container(&image, identity).await?;
        self.verify(&ran).await?;
        self.publish(&image, identity, &inputs, &ran, &places)
            .await?;
        Ok(Outcome::Published)
    }

    async fn already_published(
        &mut self,
        identity: Digest,
        places: &[Place],
    ) -> Result<Outcome, Error> {
        self.report.identity = Some(identity);
        for place in places {
            place.refuse_damage().await?;
            let manifest = place.manifest.as_ref();
            self.report
                .outputs
                .extend(manifest.map(|manifest| place.report(manifest)));
        }
        Ok(Outcome::AlreadyPublished)
    }

    /// The image, made from the artifact that the configuration names.
    async fn image(&self) -> Result<Image, Error> {
        let planned = self.planned;
        let found = self.context.engine.image(&planned.image).await?;
        let image = found.ok_or_else(|| Error::ImageMissing {
            image: planned.image.clone(),
            configuration: planned.configuration.clone(),
        })?;
        match (&planned.artifact, image.labels.get(ARTIFACT_LABEL)) {
            (Some(artifact), built) if built != Some(&artifact.digest.to_string()) => {
                Err(Error::ImageArtifact {
                    image: planned.image.clone(),
                    built: built
                        .cloned()
                        .unwrap_or_else(|| "none that it names".to_owned()),
                    wanted: artifact.digest,
                    configuration: planned.configuration.clone(),
                })
            }
            _ => Ok(image),
        }
    }

    async fn stage(&mut self) -> Result<Vec<InputRecord>, Error> {
        let clock = self.begin(Phase::Stage);
        let progress = self.transfer(Phase::Stage);
        let mut records = Vec::new();
        for input in &self.planned.inputs {
            let uri: Uri = input.uri.parse()?;
            let dest = self.context.scratch.input(self.planned, &input.name);
            let staged = mlwm_storage::stage(&uri, &dest, &progress, self.context.cancel)
                .await
                .map_err(|error| self.interrupted_or(error.into()))?;
            self.report.bytes_in += staged.bytes;
            records.push(InputRecord {
                name: input.name.clone(),
                uri: uri.to_string(),
                digest: staged.digest,
                listing: staged.listing,
                objects: staged.objects.len() as u64,
                bytes: staged.bytes,
            });
        }
        self.end(Phase::Stage, clock, Some(self.report.bytes_in));
        Ok(records)
    }

    fn identity(&self, image: &Image, inputs: &[InputRecord]) -> Digest {
        let planned = self.planned;
        let inputs = inputs.iter().map(|input| InputIdentity {
            name: input.name.clone(),
            digest: input.digest,
        });
        let key = TaskKey {
            image: image.id,
            artifact: planned.artifact.as_ref().map(|artifact| artifact.digest),
            configuration: planned.configuration_digest,
            analysis_time: planned.analysis_time,
            member: planned.member,
            forecast_duration: planned.forecast_duration(),
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

    async fn container(&mut self, image: &Image, identity: Digest) -> Result<Ran, Error> {
        let clock = self.begin(Phase::Run);
        let log = self.context.scratch.log(self.planned);
        let ran = container::run(self.context, self.planned, image, identity).await;
        self.report.log = log.is_file().then(|| log.display().to_string());
        let ran = ran?;
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
        identity: Digest,
        inputs: &[InputRecord],
        ran: &Ran,
        places: &[Place],
    ) -> Result<(), Error> {
        let clock = self.begin(Phase::Publish);
        let progress = self.transfer(Phase::Publish);
        for place in places {
            if let Some(manifest) = &place.manifest {
                // Published by this same task before it was killed.
                self.report.outputs.push(place.report(manifest));
                continue;
            }
            let local = self
                .context
                .scratch
                .output(self.planned, &place.output.name);
            let manifest = |objects| self.manifest(place, image, identity, inputs, ran, objects);
            let published = mlwm_storage::publish(
                &local,
                &place.uri,
                identity,
                manifest,
                &progress,
                self.context.cancel,
            )
            .await
            .map_err(|error| match error.exit_code() {
                ExitCode::StorageFailed if !self.context.cancel.is_cancelled() => {
                    Error::Unpublished {
                        kept: local.clone(),
                        source: error,
                    }
                }
                _ => self.interrupted_or(error.into()),
            })?;
            self.report.bytes_out += published.bytes;
            self.report.outputs.push(place.report(&published.manifest));
        }
        self.end(Phase::Publish, clock, Some(self.report.bytes_out));
        Ok(())
    }

    fn manifest(
        &self,
        place: &Place,
        image: &Image,
        identity: Digest,
        inputs: &[InputRecord],
        ran: &Ran,
        objects: Vec<ObjectRecord>,
    ) -> Manifest {
        let planned = self.planned;
        let engine = self.context.engine.info();
        Manifest {
            version: MANIFEST_VERSION,
            task: identity,
            output: place.output.name.clone(),
            uri: place.uri.to_string(),
            analysis_time: planned.analysis_time,
            member: planned.member,
            forecast_duration: planned.forecast_duration(),
            seed: planned.seed,
            configuration: NamedDigest {
                name: planned.configuration.clone(),
                digest: planned.configuration_digest,
            },
            image: NamedDigest {
                name: planned.image.clone(),
                digest: image.id,
            },
            artifact: planned.artifact.as_ref().map(|artifact| NamedDigest {
                name: artifact.name.clone(),
                digest: artifact.digest,
            }),
            inputs: inputs.to_vec(),
            run: RunRecord {
                mlwm: self.context.version.to_owned(),
                engine: format!("{:?} {}", engine.kind, engine.version),
                started: ran.started.clone(),
                finished: ran.finished.clone(),
            },
            objects,
        }
    }

    fn begin(&self, phase: Phase) -> Instant {
        (self.context.tell)(Event::PhaseStarted {
            task: self.planned.title(),
            phase,
        });
        Instant::now()
    }

    fn end(&mut self, phase: Phase, clock: Instant, bytes: Option<u64>) {
        let seconds = clock.elapsed().as_secs_f64();
        self.report.phases.push((phase, seconds));
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

    /// Runs what blocks on a thread of its own; when told to stop, does not wait for its end.
    async fn unless_cancelled<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        tokio::select! {
            done = tokio::task::spawn_blocking(work) => Ok(done?),
            () = self.context.cancel.cancelled() => Err(Error::Interrupted),
        }
    }

    /// An error that follows from being told to stop is not an error of the store.
    fn interrupted_or(&self, error: Error) -> Error {
        match self.context.cancel.is_cancelled() {
            true => Error::Interrupted,
            false => error,
        }
    }
}

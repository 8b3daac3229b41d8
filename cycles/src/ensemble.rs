//! What is published of the members of a configuration together, when enough of them are: first products of
//! their values, at last the manifest that names them.

mod members;
mod products;

use std::time::Instant;

use jiff::Timestamp;
use mlwm_spec::manifest::{
    EnsembleRecord, MANIFEST_SUFFIX, MANIFEST_VERSION, NamedDigest, ObjectRecord, RunRecord,
    content_digest,
};
use mlwm_spec::task::canonical_json;
use mlwm_spec::{Digest, Manifest, Members};
use mlwm_storage::points::reach;
use mlwm_storage::{Progress, Source, Store, Uri};
use serde_json::{Value, json};

use self::members::Member;
use crate::Error;
use crate::event::{Event, Outcome, OutputReport, Phase, TaskReport};
use crate::history::this_host;
use crate::plan::PlannedEnsemble;
use crate::run::{Context, claim};
use crate::scratch::{create, failed, remove};

/// The file that names the members of an ensemble, beside its products.
const RECORD: &str = "ensemble.json";

/// Publishes an ensemble; `has_all` says that the plan has all its members, so that one that is not published
/// has failed. `None` if some of them are not in the plan and not published yet: whoever publishes the last one
/// does it.
pub(crate) async fn run(
    context: &Context<'_>,
    planned: &PlannedEnsemble,
    has_all: bool,
) -> Option<TaskReport> {
    let mut report = TaskReport::of_ensemble(planned);
    let done = Work {
        context,
        planned,
        report: &mut report,
    };
    match done.run(has_all).await {
        Ok(None) => return None,
        Ok(Some(outcome)) => report.outcome = outcome,
        Err(error) => {
            report.exit_code = error.exit_code();
            report.error = Some(error.to_string());
        }
    }
    (context.tell)(Event::TaskFinished(report.clone()));
    Some(report)
}

struct Work<'a> {
    context: &'a Context<'a>,
    planned: &'a PlannedEnsemble,
    report: &'a mut TaskReport,
}

impl Work<'_> {
    async fn run(mut self, has_all: bool) -> Result<Option<Outcome>, Error> {
        let planned = self.planned;
        if self.context.cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let members = members::published(planned).await?;
        let due = match has_all {
            true => planned.quorum as usize,
            false => planned.members.len(),
        };
        if members.len() < due {
            return match has_all {
                true => Err(self.too_few(&members)),
                false => Ok(None),
            };
        }
        (self.context.tell)(Event::TaskStarted {
            task: planned.title(),
            configuration: planned.configuration.clone(),
            member: None,
        });
        let identity = identity(planned, &members);
        self.report.identity = Some(identity);
        let title = planned.title();
        let place = (&*planned.configuration, planned.analysis_time, "ensemble");
        let Some(_claim) = claim(self.context, &title, place).await? else {
            return Err(Error::Interrupted);
        };
        // Whoever held it may have done it, or was killed when it had.
        let outcome = match self.is_published(identity).await? {
            true => Outcome::AlreadyPublished,
            false => {
                self.publish(identity, &members).await?;
                Outcome::Published
            }
        };
        self.context.scratch.clear_ensemble(planned)?;
        Ok(Some(outcome))
    }

    fn too_few(&self, there: &[Member]) -> Error {
        let wanted = self.planned.members.keys().copied();
        let missing = wanted.filter(|number| !there.iter().any(|member| member.number == *number));
        Error::Quorum {
            ensemble: self.planned.title(),
            there: there.len(),
            quorum: self.planned.quorum,
            missing: Members::of(missing).map_or_else(String::new, |missing| missing.to_string()),
        }
    }

    /// Whether the same is published there; an error if something else is, and is not to be replaced.
    async fn is_published(&mut self, identity: Digest) -> Result<bool, Error> {
        let uri: Uri = self.planned.uri.parse()?;
        let store = Store::open(&uri).await?;
        let Some(manifest) = store.manifest(&uri).await? else {
            return Ok(false);
        };
        if manifest.task == identity && !self.context.options.republish {
            store.finish(&uri, identity).await?;
            self.report.outputs.push(output_report(&uri, &manifest));
            return Ok(true);
        }
        if self.context.options.republish {
            return Ok(false);
        }
        let of = manifest.ensemble.map_or_else(
            || "no ensemble".to_owned(),
            |ensemble| format!("made of members {}", ensemble.members),
        );
        Err(Error::Published {
            manifest: uri.sibling_suffix(MANIFEST_SUFFIX).to_string(),
            difference: format!("it is {of}, or of other content or products"),
        })
    }

    async fn publish(&mut self, identity: Digest, members: &[Member]) -> Result<(), Error> {
        let (context, planned) = (self.context, self.planned);
        let folder = &context.scratch.ensemble(planned);
        let (clock, started) = (Instant::now(), Timestamp::now());
        let uri: Uri = planned.uri.parse()?;
        let store = Store::open(&uri).await?;
        let replaces = store.manifest(&uri).await?.is_some();
        for name in ["members", "state", "output"] {
            remove(&folder.join(name))?;
        }
        let output = folder.join("output");
        create(&output)?;
        let notes = folder.join("sent");
        let (none, cancel) = (Progress::none(), context.cancel);
        let mut publishing = match replaces {
            // It is withdrawn when all that takes its place is here.
            true => None,
            false => Some(store.begin(&uri, identity, Some(&notes), cancel).await?),
        };
        if let Some(asked) = &planned.products {
            products::make(context, planned, asked, members, folder, &mut publishing).await?;
        }
        let record = output.join(RECORD);
        std::fs::write(&record, record_of(planned, members)?)
            .map_err(|source| failed(&record, source))?;
        let seconds = clock.elapsed().as_secs_f64();
        let (clock, phase) = (Instant::now(), Phase::Publish);
        self.report.phases.push((Phase::Run, seconds));
        let finished = Timestamp::now();
        let made = run_record(context, started, finished);
        let manifest = |objects| manifest(planned, members, identity, made, objects);
        let published = match publishing {
            Some(mut publishing) => {
                publishing.add(&output, &none, cancel).await?;
                reach("ensemble: sent");
                publishing.finish(manifest, cancel).await?
            }
            None => {
                let source = Source {
                    folder: &output,
                    notes: Some(&notes),
                };
                store
                    .republish(source, &uri, identity, manifest, &none, cancel)
                    .await?
            }
        };
        reach("ensemble: published");
        self.report
            .phases
            .push((phase, clock.elapsed().as_secs_f64()));
        self.report.bytes_out = published.bytes;
        self.report
            .outputs
            .push(output_report(&uri, &published.manifest));
        Ok(())
    }
}

fn output_report(uri: &Uri, manifest: &Manifest) -> OutputReport {
    OutputReport {
        name: "ensemble".to_owned(),
        uri: uri.to_string(),
        manifest: uri.sibling_suffix(MANIFEST_SUFFIX).to_string(),
        digest: content_digest(&manifest.objects),
    }
}

/// What decides an ensemble: its members' content, and what is made of it.
fn identity(planned: &PlannedEnsemble, members: &[Member]) -> Digest {
    let content = members.iter().flat_map(|member| &member.inputs);
    let decisive = json!({
        "configuration": planned.configuration_digest,
        "analysis_time": planned.analysis_time,
        "products": planned.products,
        "members": content.map(|input| json!([input.name, input.digest])).collect::<Vec<_>>(),
    });
    Digest::of(canonical_json(&decisive))
}

/// The file that names the members.
fn record_of(planned: &PlannedEnsemble, members: &[Member]) -> Result<Vec<u8>, Error> {
    let of = |member: &Member| {
        let outputs = member.manifests.iter().map(|manifest| {
            let content = content_digest(&manifest.objects);
            let about = json!({"uri": manifest.uri, "task": manifest.task, "content": content});
            (manifest.output.clone(), about)
        });
        json!({"member": member.number, "outputs": outputs.collect::<serde_json::Map<_, _>>()})
    };
    let record = json!({
        "configuration": planned.configuration,
        "analysis_time": planned.analysis_time,
        "wanted": planned.members.len(),
        "quorum": planned.quorum,
        "members": members.iter().map(of).collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_vec_pretty(&record).map_err(Error::Json)?;
    text.push(b'\n');
    Ok(text)
}

fn manifest(
    planned: &PlannedEnsemble,
    members: &[Member],
    identity: Digest,
    run: RunRecord,
    objects: Vec<ObjectRecord>,
) -> Manifest {
    let first = members.first().and_then(|member| member.manifests.first());
    let nothing = || NamedDigest {
        name: String::new(),
        digest: Digest::of(""),
    };
    let numbers = |numbers: Vec<u32>| Members::of(numbers).unwrap_or_else(Members::control);
    Manifest {
        version: MANIFEST_VERSION,
        task: identity,
        output: "ensemble".to_owned(),
        uri: planned.uri.clone(),
        analysis_time: planned.analysis_time,
        member: 0,
        forecast_duration: first.and_then(|first| first.forecast_duration.clone()),
        seed: 0,
        deterministic: first.is_some_and(|first| first.deterministic),
        configuration: NamedDigest {
            name: planned.configuration.clone(),
            digest: planned.configuration_digest,
        },
        image: first.map_or_else(nothing, |first| first.image.clone()),
        artifact: first.and_then(|first| first.artifact.clone()),
        inputs: members
            .iter()
            .flat_map(|member| member.inputs.clone())
            .collect(),
        plan: Value::Null,
        ensemble: Some(EnsembleRecord {
            members: numbers(members.iter().map(|member| member.number).collect()),
            wanted: numbers(planned.members.keys().copied().collect()),
            quorum: planned.quorum,
        }),
        grib: None,
        replaces: Vec::new(),
        removed: None,
        run,
        objects,
    }
}

fn run_record(context: &Context<'_>, started: Timestamp, finished: Timestamp) -> RunRecord {
    let text = |time: Timestamp| time.strftime("%FT%TZ").to_string();
    RunRecord {
        mlwm: context.options.version.clone(),
        engine: "none".to_owned(),
        host: Some(this_host()),
        gpus: Vec::new(),
        started: text(started),
        finished: text(finished),
    }
}

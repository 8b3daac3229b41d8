//! What a plan may be expected to come to: sizes from the interfaces of its models, times and all else from what
//! earlier runs took.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, future, stream};
use jiff::Timestamp;
use mlwm_artifacts::Artifact;
use mlwm_ledger::Ledger;
use mlwm_spec::Interface;
use mlwm_spec::configuration::StoredAs;
use mlwm_spec::datastore::{DatastoreConfig, SelectedValues, Variables};
use serde::Serialize;

use crate::Error;
use crate::credentials;
use crate::event::Phase;
use crate::plan::{Plan, PlannedOutput, PlannedTask, Steps};
use crate::progress::KnownFrom;
use crate::usual::{Kind, Usual};

/// Bytes of a value as a model writes it.
const FLOAT32: u64 = 4;

/// Inputs that are listed beside each other.
const LISTED_AT_ONCE: usize = 8;

/// What the tasks of a configuration may be expected to come to. What is not known is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expectation {
    /// The configuration.
    pub configuration: String,
    /// Length of the forecast.
    pub forecast_duration: Option<String>,
    /// How many tasks.
    pub tasks: u64,
    /// Steps of each.
    pub steps: Option<u64>,
    /// Windows in which each is published.
    pub windows: Option<u64>,
    /// Bytes staged, of all tasks.
    pub bytes_in: Option<u64>,
    /// Bytes published, of all tasks: without compression and metadata if they are known from the interface.
    pub bytes_out: Option<u64>,
    /// What those are known from.
    pub bytes_out_from: Option<KnownFrom>,
    /// Bytes that the working folder needs so that no task waits for space: the inputs of two tasks, and two windows, or
    /// the whole outputs of a task where they are not cut.
    pub disk: Option<u64>,
    /// Seconds until all tasks are published, if their models run one after the other.
    pub seconds: Option<f64>,
    /// Seconds of each phase of a task.
    pub phases: Option<BTreeMap<Phase, f64>>,
    /// How many tasks of earlier runs that is known from.
    pub from_tasks: usize,
    /// When the credentials for S3 end, if the tasks need them, nothing renews them and it is known.
    pub credentials_end: Option<String>,
}

/// What is known of a model.
struct Model {
    interface: Interface,
    datastores: Vec<(String, DatastoreConfig)>,
}

impl Expectation {
    /// Of the tasks of a plan, by configuration and forecast duration. Without a ledger, and for artifacts that cannot be
    /// read, less is known; `listed` has the bytes of inputs by their URI, and `credentials_end` says when the
    /// credentials for S3 end.
    ///
    /// # Errors
    /// Only of a ledger that cannot be read.
    pub fn of(
        plan: &Plan,
        ledger: Option<&Ledger>,
        listed: &BTreeMap<String, u64>,
        credentials_end: Option<Timestamp>,
    ) -> Result<Vec<Self>, Error> {
        let usual = match ledger {
            Some(ledger) => Usual::recorded(ledger, &plan.tasks)?,
            None => BTreeMap::new(),
        };
        let of_kind = |(kind, tasks): &(Kind, Vec<&PlannedTask>)| {
            let first = tasks.first()?;
            let usual = usual.get(kind);
            let inputs = first.inputs.iter().map(|input| listed.get(&input.uri));
            let known = Known {
                model: Model::of(first),
                usual,
                inputs: sum(inputs.map(Option::<&u64>::copied))
                    .or(usual.map(|usual| usual.bytes_in)),
            };
            let needed = tasks.iter().any(|task| credentials::is_in_s3(task));
            let credentials_end = credentials_end.filter(|_| needed);
            Some(Self {
                credentials_end: credentials_end.map(credentials::text),
                ..expect(first, tasks.len() as u64, &known)
            })
        };
        Ok(kinds(plan).iter().filter_map(of_kind).collect())
    }
}

/// The bytes of what the first task of each kind will stage, by URI, as far as the stores say it in this time.
pub async fn input_sizes(plan: &Plan, patience: Duration) -> BTreeMap<String, u64> {
    let firsts = kinds(plan)
        .into_iter()
        .filter_map(|(_, tasks)| tasks.first().copied());
    let uris: BTreeSet<&String> = firsts
        .flat_map(|task| task.inputs.iter().map(|input| &input.uri))
        .collect();
    let sizes = uris.into_iter().map(async |uri| {
        let place = uri.parse().ok()?;
        let listing = mlwm_storage::listing_digest(&place);
        let listing = tokio::time::timeout(patience, listing).await.ok()?.ok()?;
        // What is not there yet will not be empty.
        (listing.bytes > 0).then(|| (uri.clone(), listing.bytes))
    });
    let sizes = stream::iter(sizes).buffer_unordered(LISTED_AT_ONCE);
    sizes.filter_map(future::ready).collect().await
}

/// Tasks that differ in what decides neither size nor time, in the order of the plan.
fn kinds(plan: &Plan) -> Vec<(Kind, Vec<&PlannedTask>)> {
    let mut kinds: Vec<(Kind, Vec<&PlannedTask>)> = Vec::new();
    let mut places: BTreeMap<Kind, usize> = BTreeMap::new();
    for task in &plan.tasks {
        let kind = Kind::of(task);
        let place = *places.entry(kind.clone()).or_insert_with(|| {
            kinds.push((kind, Vec::new()));
            kinds.len() - 1
        });
        kinds[place].1.push(task);
    }
    kinds
}

/// What is known of the tasks of a kind.
struct Known<'a> {
    model: Option<Model>,
    usual: Option<&'a Usual>,
    /// Bytes that each stages.
    inputs: Option<u64>,
}

/// The first of the tasks of a kind stands for all.
fn expect(task: &PlannedTask, tasks: u64, known: &Known<'_>) -> Expectation {
    let (model, usual) = (known.model.as_ref(), known.usual);
    let of_all = |bytes: u64| bytes.saturating_mul(tasks);
    let computed = model.and_then(|model| model.published(task));
    let earlier = usual.map(|usual| usual.bytes_out);
    let (bytes_out, bytes_out_from) = match (computed, earlier) {
        (Some(bytes), _) => (Some(bytes), Some(KnownFrom::Interface)),
        (None, Some(bytes)) => (Some(bytes), Some(KnownFrom::EarlierRuns)),
        (None, None) => (None, None),
    };
    Expectation {
        configuration: task.configuration.clone(),
        forecast_duration: task.forecast_duration(),
        tasks,
        steps: task.steps.as_ref().map(|steps| steps.count),
        windows: task
            .is_cut()
            .then(|| task.windows().map(|windows| windows.len() as u64))
            .flatten(),
        bytes_in: known.inputs.map(of_all),
        bytes_out: bytes_out.map(of_all),
        bytes_out_from,
        disk: disk(task, tasks, known),
        seconds: usual.map(|usual| usual.seconds_of(tasks)),
        phases: usual.map(|usual| {
            let phases = Phase::ALL
                .into_iter()
                .filter(|phase| *phase != Phase::Queue);
            phases.map(|phase| (phase, usual.seconds(phase))).collect()
        }),
        from_tasks: usual.map_or(0, |usual| usual.tasks),
        credentials_end: None,
    }
}

/// What the working folder needs.
fn disk(task: &PlannedTask, tasks: u64, known: &Known<'_>) -> Option<u64> {
    let at_once = tasks.min(2);
    let stated = task.resources.disk.filter(|_| !task.is_cut());
    if let Some(stated) = stated {
        return stated.0.checked_mul(at_once);
    }
    let inputs = known.inputs?.checked_mul(at_once)?;
    let model = known.model.as_ref();
    let outputs = match task.is_cut() {
        true => model?.window(task)?.checked_mul(2)?,
        false => {
            let computed = model.and_then(|model| model.published(task));
            computed.or(known.usual.map(|usual| usual.bytes_out))?
        }
    };
    inputs.checked_add(outputs)
}

impl Usual {
    /// Seconds for so many tasks, where the next is staged and the last one published while a model runs.
    fn seconds_of(&self, tasks: u64) -> f64 {
        let (before, run, after) = (self.before(), self.run(), self.after());
        let slowest = before.max(run).max(after);
        before + run + after + slowest * tasks.saturating_sub(1) as f64
    }
}

impl Model {
    /// `None` if the task has no artifact with an interface, or it cannot be read.
    fn of(task: &PlannedTask) -> Option<Self> {
        let artifact = Artifact::open(Path::new(&task.artifact.as_ref()?.path)).ok()?;
        Some(Self {
            interface: artifact.interface().ok()??,
            datastores: artifact.datastores().unwrap_or_default(),
        })
    }

    /// Bytes that a task publishes, without compression, coordinates and metadata. How large GRIB becomes depends on
    /// the values.
    fn published(&self, task: &PlannedTask) -> Option<u64> {
        if task.outputs.iter().any(|output| output.grib().is_some()) {
            return None;
        }
        let steps = task.steps.as_ref()?;
        let of_output = |output: &PlannedOutput| {
            let each = self.bytes_of_step(output, true)?;
            each.checked_mul(published_steps(output, steps))
        };
        sum(task.outputs.iter().map(of_output))
    }

    /// Bytes of a window of all outputs as the model writes it.
    fn window(&self, task: &PlannedTask) -> Option<u64> {
        let windows = task.windows()?;
        let steps = windows
            .iter()
            .map(|window| window.last_step + 1 - window.first_step);
        let longest = steps.max()?;
        let of_output = |output| self.bytes_of_step(output, false)?.checked_mul(longest);
        sum(task.outputs.iter().map(of_output))
    }

    /// Bytes of a step of an output, as they are stored in the end or as the model writes them.
    fn bytes_of_step(&self, output: &PlannedOutput, stored: bool) -> Option<u64> {
        let points = self.interface.known_points()?;
        let value = |name: &String| {
            let windows = output.windows.as_ref().filter(|_| stored);
            match windows.and_then(|windows| windows.stored_as.get(name)) {
                Some(StoredAs::Float16) => FLOAT32 / 2,
                _ => FLOAT32,
            }
        };
        let all = match &output.variables {
            Some(names) => sum(names
                .iter()
                .map(|name| self.features(name)?.checked_mul(value(name)))),
            None => sum(self.interface.predicted().map(|name| Some(value(name)))),
        };
        all?.checked_mul(points)
    }

    /// How many features a variable consists of: one, or one for each of its levels.
    fn features(&self, name: &String) -> Option<u64> {
        let mut predicted = self.interface.predicted();
        if predicted.any(|feature| feature == name) {
            return Some(1);
        }
        for source in &self.interface.state.sources {
            let of_source = |(datastore, _): &&(String, _)| *datastore == source.datastore;
            let (_, datastore) = self.datastores.iter().find(of_source)?;
            for input in datastore.inputs.values() {
                if input.target_output_variable == source.variable
                    && let Some(Variables::Selections(selected)) = &input.variables
                    && let Some(Some(levels)) = selected.get(name)
                {
                    return levels
                        .values()
                        .try_fold(1, |all, levels| match &levels.values {
                            SelectedValues::List(levels) => Some(all * levels.len() as u64),
                            SelectedValues::One(_) => Some(all),
                            SelectedValues::Range(_) => None,
                        });
                }
            }
        }
        None
    }
}

/// The steps of a forecast that an output has.
fn published_steps(output: &PlannedOutput, steps: &Steps) -> u64 {
    let hours = output.windows.as_ref().and_then(|windows| windows.hours);
    let Some(hours) = hours else {
        return steps.count;
    };
    let is_in = |step: &u64| {
        let lead = steps.first_lead_seconds + steps.seconds * step.cast_signed();
        let (from, to) = (hours.from.cast_signed(), hours.to.cast_signed());
        lead > from.saturating_mul(3600) && lead <= to.saturating_mul(3600)
    };
    (0..steps.count).filter(is_in).count() as u64
}

/// `None` if one of them is not known, or all are too much to count.
fn sum(mut parts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    parts.try_fold(0_u64, |all, part| all.checked_add(part?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usual::Took;

    fn usual(stage: f64, run: f64, publish: f64) -> Usual {
        Usual::of(&[Took {
            phases: BTreeMap::from([
                (Phase::Stage, stage),
                (Phase::Run, run),
                (Phase::Publish, publish),
            ]),
            bytes_in: 100,
            bytes_out: 900,
        }])
        .unwrap()
    }

    #[test]
    fn fifty_members_take_as_long_as_the_slowest_of_their_phases() {
        assert_eq!(usual(15.0, 480.0, 30.0).seconds_of(1), 525.0);
        assert_eq!(
            usual(15.0, 480.0, 30.0).seconds_of(50),
            525.0 + 49.0 * 480.0
        );
        // Where publishing is slower than the model, that decides.
        assert_eq!(usual(1.0, 2.0, 9.0).seconds_of(3), 12.0 + 2.0 * 9.0);
    }

    #[test]
    fn hours_that_are_not_published_have_no_size() {
        let output: PlannedOutput = serde_json::from_str(
            r#"{"name": "a", "uri": "x", "internal_path": "/x",
                "windows": {"length": "PT72H", "hours": "432-792"}}"#,
        )
        .unwrap();
        let steps = Steps {
            count: 132,
            seconds: 6 * 3600,
            first_lead_seconds: 6 * 3600,
        };
        assert_eq!(published_steps(&output, &steps), 60);
    }
}

//! How far a run is, and when it will end: from events and the time at which they come.
//!
//! Only what was published says how long a task takes; what failed soon does not make the rest shorter.

mod task;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub(crate) use task::gpus;
use task::{Model, Part, Task};

use crate::event::{Event, Outcome, Phase, TaskReport};
use crate::plan::Plan;
use crate::spans::{Idle, Span, idle};
use crate::usual::{self, Kind, Took, Usual};

/// The time between two reports of progress in which no task ends, in seconds.
const BETWEEN: f64 = 1.0;

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunProgress {
    /// The task that has just ended, if that is why this is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Seconds since the run began.
    pub seconds: f64,
    /// Tasks of the plan.
    pub tasks: usize,
    /// Those of them that were published.
    pub published: usize,
    /// Those that had been before.
    pub already_published: usize,
    /// Those that failed, and are not tried again.
    pub failed: usize,
    /// The tasks whose models run, in the order of their titles.
    pub running: Vec<Running>,
    /// How fast it goes.
    pub rates: Rates,
    /// Seconds until all tasks have ended, once that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    /// What that is known from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_from: Option<KnownFrom>,
}

/// What an expectation is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnownFrom {
    /// Tasks that this run published.
    ThisRun,
    /// Tasks that earlier runs published, by the ledger.
    EarlierRuns,
    /// The interface of the model.
    Interface,
}

/// How far a model is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Running {
    /// The title of its task.
    pub task: String,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The lead time that it has come to, in seconds, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead_seconds: Option<i64>,
    /// The last lead time, in seconds, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_lead_seconds: Option<i64>,
}

/// How fast the phases of a run go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Bytes per second of staging.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<f64>,
    /// Seconds of a model's step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_per_step: Option<f64>,
    /// Bytes per second of publishing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<f64>,
}

/// What a task used in all its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Used {
    /// From its beginning to its end.
    pub(crate) seconds: f64,
    /// For which its model ran.
    pub(crate) model_seconds: f64,
    /// Bytes that were staged.
    pub(crate) bytes_in: u64,
}

/// Adds up what happens.
#[derive(Debug)]
pub(crate) struct Tracker {
    /// How many tasks are under way at once.
    at_once: usize,
    /// What the ledger knows.
    earlier: BTreeMap<Kind, Usual>,
    tasks: BTreeMap<String, Task>,
    /// How many tasks of each kind have not begun.
    not_begun: BTreeMap<Kind, usize>,
    /// The titles of those that have, and have not ended.
    under_way: BTreeSet<String>,
    /// How many have ended: published, published before, failed.
    ended: [usize; 3],
    /// What the last ones took that were published.
    took: BTreeMap<Kind, Vec<Took>>,
    spans: Vec<(bool, Span)>,
    staged: Amount,
    stepped: Amount,
    published: Amount,
    /// The most models that ran at once.
    most_running: usize,
    told: f64,
}

/// So much of something in so many seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    units: f64,
    seconds: f64,
}

impl Amount {
    fn add(&mut self, units: u64, seconds: f64) {
        self.units += units as f64;
        self.seconds += seconds;
    }

    fn per_second(self) -> Option<f64> {
        (self.seconds > 0.0 && self.units > 0.0).then(|| self.units / self.seconds)
    }
}

impl Tracker {
    pub(crate) fn new(plan: &Plan, at_once: usize, earlier: BTreeMap<Kind, Usual>) -> Self {
        let tasks = plan.tasks.iter().map(|task| (task.title(), Task::of(task)));
        let mut not_begun = BTreeMap::new();
        for task in &plan.tasks {
            *not_begun.entry(Kind::of(task)).or_default() += 1;
        }
        Self {
            at_once: at_once.max(1),
            earlier,
            tasks: tasks.collect(),
            not_begun,
            under_way: BTreeSet::new(),
            ended: [0; 3],
            took: BTreeMap::new(),
            spans: Vec::new(),
            staged: Amount::default(),
            stepped: Amount::default(),
            published: Amount::default(),
            most_running: 1,
            told: f64::NEG_INFINITY,
        }
    }

    /// Seconds that the run may be expected to take, before it begins.
    pub(crate) fn expected(&self) -> Option<f64> {
        self.eta(0.0).map(|(seconds, _)| seconds)
    }

    /// Takes an event that comes `now`, in seconds since the run began. How far the run is when a task has
    /// ended, and now and then between.
    pub(crate) fn take(&mut self, event: &Event, now: f64) -> Option<RunProgress> {
        match event {
            Event::TaskStarted { task, .. } => self.come_up(task, now)?,
            Event::PhaseStarted { task, phase } => self.begin(task, *phase, now)?,
            Event::Progress {
                task,
                phase: Phase::Run,
                done,
                total,
            } => {
                let model = self.task(task)?.model.as_mut()?;
                let (steps, seconds) = model.step(*done, *total, now);
                self.stepped.add(steps, seconds);
            }
            Event::WaitsForSpace { task } => self.pause(task, now),
            Event::HasSpace { task } => {
                let model = self.task(task)?.model.as_mut()?;
                model.go_on(now);
            }
            Event::PhaseFinished {
                task,
                phase,
                seconds,
                bytes,
            } => match phase {
                Phase::Run => self.stop(task, Part::After, now),
                Phase::Stage => {
                    self.staged.add(bytes.unwrap_or(0), *seconds);
                    self.task(task)?.used.bytes_in += bytes.unwrap_or(0);
                }
                _ => {}
            },
            Event::TaskAgain { task, .. } => self.stop(task, Part::Before, now),
            Event::TaskFinished(report) => {
                self.end(report, now)?;
                return Some(self.tell(Some(report.task.clone()), now));
            }
            _ => return None,
        }
        (now - self.told >= BETWEEN).then(|| self.tell(None, now))
    }

    fn task(&mut self, title: &str) -> Option<&mut Task> {
        self.tasks.get_mut(title)
    }

    /// A task begins, if it has not.
    fn come_up(&mut self, title: &str, now: f64) -> Option<()> {
        let task = self.tasks.get_mut(title)?;
        if task.began.is_none() {
            task.began = Some(now);
            if let Some(count) = self.not_begun.get_mut(&task.kind) {
                *count -= 1;
            }
            self.under_way.insert(title.to_owned());
        }
        Some(())
    }

    /// The tasks that have begun and not ended, in the order of their titles.
    fn under_way(&self) -> impl Iterator<Item = (&String, &Task)> {
        let titles = self.under_way.iter();
        titles.filter_map(|title| Some((title, self.tasks.get(title)?)))
    }

    fn begin(&mut self, title: &str, phase: Phase, now: f64) -> Option<()> {
        let part = match phase {
            Phase::Stage | Phase::Convert | Phase::Check | Phase::Unpack => return None,
            Phase::Queue => Part::Ready,
            Phase::Run => Part::Model,
            Phase::Verify | Phase::Publish => Part::After,
        };
        self.stop(title, part, now);
        if part == Part::Model {
            self.task(title)?.model = Some(Model::begun(now));
            let running = self.under_way().filter(|(_, task)| task.model.is_some());
            self.most_running = self.most_running.max(running.count());
        }
        Some(())
    }

    /// A model stands still; what it ran since it last did not is counted.
    fn pause(&mut self, title: &str, now: f64) {
        let Some(task) = self.tasks.get_mut(title) else {
            return;
        };
        let Some(model) = task.model.as_mut().filter(|model| model.waits.is_none()) else {
            return;
        };
        let span = Span {
            from: model.since,
            to: now,
        };
        model.ran += span.seconds();
        model.waits = Some(now);
        task.used.model_seconds += span.seconds();
        self.spans.push((task.has_gpus, span));
    }

    /// A task comes to another part; its model does not run any more.
    fn stop(&mut self, title: &str, part: Part, now: f64) {
        self.pause(title, now);
        if let Some(task) = self.tasks.get_mut(title) {
            task.model = None;
            task.part = part;
        }
    }

    /// `None` for what is no task of the plan.
    fn end(&mut self, report: &TaskReport, now: f64) -> Option<()> {
        self.come_up(&report.task, now)?;
        self.stop(&report.task, Part::After, now);
        self.under_way.remove(&report.task);
        self.ended[report.outcome as usize] += 1;
        let task = self.tasks.get_mut(&report.task)?;
        task.used.seconds = now - task.began.unwrap_or(now);
        if report.outcome == Outcome::Published
            && let Some(took) = Took::of(report)
        {
            let publishing = took.phases.get(&Phase::Publish).copied().unwrap_or(0.0);
            let seconds = publishing + report.published_while_running.unwrap_or(0.0);
            self.published.add(report.bytes_out, seconds);
            let last = self.took.entry(task.kind.clone()).or_default();
            if last.len() == usual::MOST as usize {
                last.remove(0);
            }
            last.push(took);
        }
        Some(())
    }

    fn tell(&mut self, after: Option<String>, now: f64) -> RunProgress {
        self.told = now;
        let count = |outcome: Outcome| self.ended[outcome as usize];
        let eta = self.eta(now);
        RunProgress {
            after,
            seconds: now,
            tasks: self.tasks.len(),
            published: count(Outcome::Published),
            already_published: count(Outcome::AlreadyPublished),
            failed: count(Outcome::Failed),
            running: self
                .under_way()
                .filter_map(|(title, task)| task.running(title))
                .collect(),
            rates: Rates {
                stage: self.staged.per_second(),
                seconds_per_step: self.stepped.per_second().map(f64::recip),
                publish: self.published.per_second(),
            },
            eta_seconds: eta.map(|(seconds, _)| seconds),
            eta_from: eta.map(|(_, from)| from),
        }
    }

    /// Seconds until all tasks have ended: models run as many at once as were seen to, and the rest is done
    /// beside them. `None` if all have, or of some it is not known how long they take.
    fn eta(&self, now: f64) -> Option<(f64, KnownFrom)> {
        let (mut models, mut work, mut tail) = (0.0, 0.0, 0.0_f64);
        // Nothing runs before the first of them is staged.
        let mut lead_in = f64::INFINITY;
        let mut from = None;
        for (kind, count) in self.not_begun.iter().filter(|(_, count)| **count > 0) {
            let (usual, of) = self.usual(kind)?;
            from = from.max(Some(of));
            models += usual.run() * *count as f64;
            work += (usual.before() + usual.run() + usual.after()) * *count as f64;
            tail = tail.max(usual.after());
            lead_in = lead_in.min(usual.before());
        }
        for (_, task) in self.under_way() {
            let (usual, of) = self.usual(&task.kind)?;
            from = from.max(Some(of));
            let model = usual.run() * (1.0 - task.done(&usual, now));
            models += model;
            work += model + usual.after();
            tail = tail.max(usual.after());
            match task.part {
                Part::Before => {
                    work += usual.before();
                    lead_in = lead_in.min(usual.before());
                }
                Part::Ready | Part::Model => lead_in = 0.0,
                Part::After => {}
            }
        }
        if models == 0.0 {
            lead_in = 0.0;
        }
        // What comes before the first model and after the last one is part of all the work, too.
        let seconds = f64::max(
            lead_in + models / self.most_running as f64 + tail,
            work / self.at_once as f64,
        );
        from.map(|from| (seconds, from))
    }

    /// What tasks of a kind take: those of this run say it better than earlier ones.
    fn usual(&self, kind: &Kind) -> Option<(Usual, KnownFrom)> {
        let now = self.took.get(kind).and_then(|took| Usual::of(took));
        let now = now.map(|usual| (usual, KnownFrom::ThisRun));
        now.or_else(|| Some((self.earlier.get(kind)?.clone(), KnownFrom::EarlierRuns)))
    }

    /// What a task used so far.
    pub(crate) fn used(&self, title: &str) -> Option<Used> {
        self.tasks.get(title).map(|task| task.used)
    }

    /// How long no model ran; where tasks ask for GPUs, no model of those.
    pub(crate) fn idle(&self) -> Option<Idle> {
        let of_gpus = self.spans.iter().any(|(has_gpus, _)| *has_gpus);
        let spans = self.spans.iter().filter(|(gpus, _)| *gpus || !of_gpus);
        idle(spans.map(|(_, span)| *span).collect(), of_gpus)
    }
}

#[cfg(test)]
mod tests;

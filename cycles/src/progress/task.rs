//! How far one task and its model are.

use mlwm_spec::Period;
use mlwm_spec::configuration::Gpus;

use super::{Running, Used};
use crate::plan::{PlannedTask, Steps};
use crate::usual::{Kind, Usual};

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Before,
    /// It waits for its turn.
    Ready,
    Model,
    After,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) kind: Kind,
    pub(super) steps: Option<Steps>,
    pub(super) duration: Option<i64>,
    pub(super) has_gpus: bool,
    pub(super) began: Option<f64>,
    pub(super) part: Part,
    pub(super) model: Option<Model>,
    pub(super) used: Used,
}

/// A model that runs.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) since: f64,
    /// It waits for space since then.
    pub(super) waits: Option<f64>,
    pub(super) step: u64,
    pub(super) steps: Option<u64>,
    /// When that step was told, moved on by what it waited since.
    pub(super) stepped: Option<f64>,
    /// Seconds for which it ran, without those since it last began to.
    pub(super) ran: f64,
}

impl Task {
    pub(super) fn of(planned: &PlannedTask) -> Self {
        let duration: Option<Period> = planned
            .forecast_duration()
            .and_then(|text| text.parse().ok());
        Self {
            kind: Kind::of(planned),
            steps: planned.steps.clone(),
            duration: duration.map(Period::seconds),
            has_gpus: gpus(planned) > 0,
            began: None,
            part: Part::Before,
            model: None,
            used: Used::default(),
        }
    }

    /// How much of its model's work is done, from 0 to 1.
    pub(super) fn done(&self, usual: &Usual, now: f64) -> f64 {
        let Some(model) = &self.model else {
            return if self.part == Part::After { 1.0 } else { 0.0 };
        };
        let done = match model.steps.filter(|steps| *steps > 0) {
            Some(steps) => model.step as f64 / steps as f64,
            None => {
                let since = model.waits.map_or(now - model.since, |_| 0.0);
                (model.ran + since) / usual.run().max(f64::MIN_POSITIVE)
            }
        };
        done.clamp(0.0, 1.0)
    }

    /// How far its model is, if it runs and says so.
    pub(super) fn running(&self, title: &str) -> Option<Running> {
        let model = self.model.as_ref()?;
        let (step, steps) = (model.step, model.steps?);
        let lead = |done: u64| match (&self.steps, self.duration) {
            (Some(known), _) if known.count == steps => {
                let further = i64::try_from(done).ok()? - 1;
                let after_first = known.seconds.checked_mul(further)?;
                known.first_lead_seconds.checked_add(after_first)
            }
            // Where only the container knows its steps, they are as long as each other.
            (None, Some(duration)) if steps > 0 => {
                let lead = i128::from(duration) * i128::from(done) / i128::from(steps);
                i64::try_from(lead).ok()
            }
            _ => None,
        };
        Some(Running {
            task: title.to_owned(),
            step,
            steps,
            lead_seconds: lead(step).filter(|_| step > 0),
            last_lead_seconds: lead(steps),
        })
    }
}

impl Model {
    pub(super) fn begun(now: f64) -> Self {
        Self {
            since: now,
            waits: None,
            step: 0,
            steps: None,
            stepped: None,
            ran: 0.0,
        }
    }

    /// So many steps are done; how many more than before, and in how many seconds. The first says nothing: with it
    /// the model was loaded.
    pub(super) fn step(&mut self, done: u64, total: Option<u64>, now: f64) -> (u64, f64) {
        // One that steps does not wait, whatever was thought.
        self.go_on(now);
        let before = std::mem::replace(&mut self.step, done);
        self.steps = total.or(self.steps);
        match self.stepped.replace(now) {
            Some(last) if done > before => (done - before, now - last),
            _ => (0, 0.0),
        }
    }

    pub(super) fn go_on(&mut self, now: f64) {
        if let Some(since) = self.waits.take() {
            self.stepped = self.stepped.map(|time| time + (now - since));
            self.since = now;
        }
    }
}

/// How many GPUs a task gets; `all` counts as one, since it is not known how many those are.
pub(crate) fn gpus(task: &PlannedTask) -> u32 {
    match &task.resources.gpus {
        None => 0,
        Some(Gpus::Count(count)) => *count,
        Some(Gpus::One(_)) => 1,
        Some(Gpus::Devices(devices)) => u32::try_from(devices.len()).unwrap_or(u32::MAX),
    }
}

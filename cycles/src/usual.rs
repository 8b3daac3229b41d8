//! What tasks like one usually take: medians over those that were published.

use std::collections::BTreeMap;

use mlwm_ledger::{AttemptRecord, Error, Ledger};

use crate::event::{Phase, TaskReport};
use crate::plan::PlannedTask;

/// How many tasks that were published are looked at: the last ones.
pub(crate) const MOST: u32 = 20;

/// Tasks that take the same: those of a configuration and a forecast duration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Kind {
    /// The configuration.
    pub(crate) configuration: String,
    /// Length of the forecast as the container is told it, if it is.
    pub(crate) forecast_duration: Option<String>,
}

impl Kind {
    /// That of a task.
    pub(crate) fn of(task: &PlannedTask) -> Self {
        Self {
            configuration: task.configuration.clone(),
            forecast_duration: task.forecast_duration(),
        }
    }
}

/// What a task that ran and was published took.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Took {
    /// Seconds of each phase.
    pub(crate) phases: BTreeMap<Phase, f64>,
    /// Bytes staged.
    pub(crate) bytes_in: u64,
    /// Bytes published.
    pub(crate) bytes_out: u64,
}

impl Took {
    /// Of a report. `None` if its container did not run.
    pub(crate) fn of(report: &TaskReport) -> Option<Self> {
        let phases: BTreeMap<Phase, f64> = report.phases.iter().copied().collect();
        phases.contains_key(&Phase::Run).then_some(Self {
            phases,
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
        })
    }

    fn recorded(attempt: &AttemptRecord) -> Self {
        let phases = attempt.phases.iter();
        Self {
            phases: phases
                .filter_map(|phase| Some((Phase::named(&phase.name)?, phase.seconds?)))
                .collect(),
            bytes_in: attempt.bytes_in,
            bytes_out: attempt.bytes_out,
        }
    }
}

/// The medians of what several tasks of a kind took.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Usual {
    /// Seconds of each phase; a phase that a task did not have counts as 0.
    phases: BTreeMap<Phase, f64>,
    /// Bytes staged for each task.
    pub(crate) bytes_in: u64,
    /// Bytes published of each task.
    pub(crate) bytes_out: u64,
    /// How many tasks that is known from.
    pub(crate) tasks: usize,
}

impl Usual {
    /// `None` if there is nothing to go by.
    pub(crate) fn of(took: &[Took]) -> Option<Self> {
        let median_of = |value: &dyn Fn(&Took) -> f64| median(took.iter().map(value).collect());
        let seconds = |phase: Phase| {
            median_of(&|one| one.phases.get(&phase).copied().unwrap_or(0.0))
                .map(|seconds| (phase, seconds))
        };
        Some(Self {
            bytes_in: median_of(&|one| one.bytes_in as f64)? as u64,
            bytes_out: median_of(&|one| one.bytes_out as f64)? as u64,
            phases: Phase::ALL.into_iter().filter_map(seconds).collect(),
            tasks: took.len(),
        })
    }

    /// What a ledger has of the tasks of a plan.
    pub(crate) fn recorded<'a>(
        ledger: &Ledger,
        tasks: impl IntoIterator<Item = &'a PlannedTask>,
    ) -> Result<BTreeMap<Kind, Self>, Error> {
        let kinds: std::collections::BTreeSet<Kind> = tasks.into_iter().map(Kind::of).collect();
        let mut known = BTreeMap::new();
        for kind in kinds {
            let duration = kind.forecast_duration.as_deref();
            let attempts = ledger.successes(&kind.configuration, duration, MOST)?;
            let took: Vec<Took> = attempts.iter().map(Took::recorded).collect();
            if let Some(usual) = Self::of(&took) {
                known.insert(kind, usual);
            }
        }
        Ok(known)
    }

    /// Seconds of a phase.
    pub(crate) fn seconds(&self, phase: Phase) -> f64 {
        self.phases.get(&phase).copied().unwrap_or(0.0)
    }

    /// Seconds of what comes before the container runs, without waiting for its turn.
    pub(crate) fn before(&self) -> f64 {
        let before = [Phase::Stage, Phase::Convert, Phase::Check, Phase::Unpack];
        before.into_iter().map(|phase| self.seconds(phase)).sum()
    }

    /// Seconds for which the container runs.
    pub(crate) fn run(&self) -> f64 {
        self.seconds(Phase::Run)
    }

    /// Seconds of what comes after that.
    pub(crate) fn after(&self) -> f64 {
        self.seconds(Phase::Verify) + self.seconds(Phase::Publish)
    }
}

/// The value in the middle; of an even number of them the mean of the two there.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(lower + (upper - lower) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(run: f64, bytes_out: u64) -> Took {
        Took {
            phases: BTreeMap::from([(Phase::Stage, 1.0), (Phase::Run, run)]),
            bytes_in: 5,
            bytes_out,
        }
    }

    #[test]
    fn one_that_took_very_long_does_not_count_for_the_others() {
        let usual = Usual::of(&[took(10.0, 7), took(11.0, 7), took(900.0, 8)]).unwrap();
        assert_eq!((usual.run(), usual.bytes_out, usual.tasks), (11.0, 7, 3));
        assert_eq!((usual.before(), usual.after()), (1.0, 0.0));
        let even = Usual::of(&[took(10.0, 4), took(20.0, 6)]).unwrap();
        assert_eq!((even.run(), even.bytes_out), (15.0, 5));
        assert_eq!(Usual::of(&[]), None);
    }
}

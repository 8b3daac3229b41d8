//! The report of a run (docs/report-format.md).

use mlwm_spec::{Digest, ExitCode};
use serde::Serialize;

use crate::event::{Outcome, Phase, TaskReport};
use crate::machine::Budget;
use crate::plan::{Plan, PlannedTask};
use crate::prices::{Cost, Prices, Use};
use crate::progress::{Tracker, gpus};
use crate::spans::Idle;

/// Version of the report's format.
const VERSION: u32 = 1;

/// How a run went.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Version of its format: 1.
    pub version: u32,
    /// Version of mlwm.
    pub mlwm: String,
    /// SHA-256 of the plan.
    pub plan: Digest,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// The exit code that says how it ended.
    pub exit_code: ExitCode,
    /// What it comes to.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its tasks in the order of the plan, then ensembles.
    pub tasks: Vec<ReportedTask>,
}

/// How a task went, and what it took.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedTask {
    /// As the event `task-finished` says it.
    #[serde(flatten)]
    pub report: TaskReport,
    /// Seconds from its beginning to its end, with all attempts.
    pub seconds: f64,
    /// Seconds for which its model ran, in all attempts.
    pub model_seconds: f64,
    /// What it cost, if there are prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What a run comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Seconds from its beginning to its end.
    pub seconds: f64,
    /// All tasks together.
    pub totals: Totals,
    /// How long models stood still; absent if none ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Idle>,
    /// What lay in the working folder; absent if nothing was published in windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskUse>,
    /// What it cost, if there are prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<RunCost>,
}

/// All tasks of a run together; ensembles among them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// How many.
    pub tasks: usize,
    /// Those that were published.
    pub published: usize,
    /// Those that had been before.
    pub already_published: usize,
    /// Those that failed.
    pub failed: usize,
    /// Bytes staged.
    pub bytes_in: u64,
    /// Bytes published.
    pub bytes_out: u64,
    /// Seconds of each phase, of all tasks together: more than those of the run where tasks lie over each other.
    pub phases: Vec<(Phase, f64)>,
}

/// What lay in the working folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DiskUse {
    /// The most bytes of inputs and windows at once.
    pub most: u64,
    /// The space that there was.
    pub budget: u64,
}

/// What a run cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunCost {
    /// By these prices.
    pub prices: Prices,
    /// So much.
    #[serde(flatten)]
    pub cost: Cost,
}

/// What was measured of a run besides its tasks.
pub(crate) struct Measured<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) tracker: &'a Tracker,
    pub(crate) budget: Budget,
    pub(crate) seconds: f64,
    pub(crate) disk: Option<DiskUse>,
    pub(crate) prices: Option<&'a Prices>,
}

impl RunReport {
    /// Puts it together from the reports of the tasks of a plan, in its order, and of its ensembles.
    pub(crate) fn new(
        reports: Vec<TaskReport>,
        measured: &Measured<'_>,
        (mlwm, started): (String, String),
    ) -> Self {
        let worst = reports.iter().map(|report| report.exit_code).max();
        let totals = Totals::of(&reports);
        let mut tasks: Vec<ReportedTask> = reports
            .into_iter()
            .map(|report| {
                let used = measured.tracker.used(&report.task);
                // An ensemble has no events of its own that would tell when it began.
                let phases = || report.phases.iter().map(|(_, seconds)| seconds).sum();
                ReportedTask {
                    seconds: used.map_or_else(phases, |used| used.seconds),
                    model_seconds: used.map_or(0.0, |used| used.model_seconds),
                    report,
                    cost: None,
                }
            })
            .collect();
        let cost = measured.prices.map(|prices| {
            // Ensembles, which are behind the tasks of the plan, have no container.
            let planned = measured.plan.tasks.iter().map(Some);
            let planned = planned.chain(std::iter::repeat(None));
            let used = tasks.iter().zip(planned);
            let used: Vec<Use> = used.map(|(task, one)| measured.use_of(task, one)).collect();
            let (each, cost) = prices.costs(measured.seconds, &used);
            for (task, cost) in tasks.iter_mut().zip(each) {
                task.cost = Some(cost);
            }
            RunCost {
                prices: prices.clone(),
                cost,
            }
        });
        Self {
            version: VERSION,
            mlwm,
            plan: measured.plan.digest(),
            started,
            exit_code: worst.unwrap_or(ExitCode::Ok),
            summary: Summary {
                seconds: measured.seconds,
                totals,
                model: measured.tracker.idle(),
                disk: measured.disk,
                cost,
            },
            tasks,
        }
    }
}

impl Measured<'_> {
    fn use_of(&self, task: &ReportedTask, planned: Option<&PlannedTask>) -> Use {
        let used = self.tracker.used(&task.report.task);
        Use {
            model_seconds: task.model_seconds,
            gpus: planned.map_or(0.0, |planned| gpus(planned).into()),
            // Who does not say what it needs has the machine for itself.
            cpus: planned.map_or(0.0, |planned| {
                planned.resources.cpus.unwrap_or(self.budget.cpus)
            }),
            // What was staged again by another attempt was paid for again.
            bytes_in: used
                .map_or(0, |used| used.bytes_in)
                .max(task.report.bytes_in),
            bytes_out: task.report.bytes_out,
        }
    }
}

impl Totals {
    fn of(reports: &[TaskReport]) -> Self {
        let count = |wanted: Outcome| {
            let outcomes = reports.iter().map(|report| report.outcome);
            outcomes.filter(|outcome| *outcome == wanted).count()
        };
        let seconds = |phase: Phase| {
            let done = reports.iter().flat_map(|report| &report.phases);
            let of_phase = done.filter(|(one, _)| *one == phase);
            (phase, of_phase.map(|(_, seconds)| seconds).sum())
        };
        Self {
            tasks: reports.len(),
            published: count(Outcome::Published),
            already_published: count(Outcome::AlreadyPublished),
            failed: count(Outcome::Failed),
            bytes_in: reports.iter().map(|report| report.bytes_in).sum(),
            bytes_out: reports.iter().map(|report| report.bytes_out).sum(),
            phases: Phase::ALL.into_iter().map(seconds).collect(),
        }
    }
}

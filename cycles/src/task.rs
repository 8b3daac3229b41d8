//! One task: attempts until it is published, or until trying again is of no use.

use mlwm_spec::ExitCode;
use mlwm_storage::points::reach;

use crate::Error;
use crate::claim::Claim;
use crate::event::{Event, Outcome, TaskReport};
use crate::plan::PlannedTask;
use crate::quarantine;
use crate::retry::Attempts;
use crate::run::Context;
use crate::work::Work;

/// Does one task, which is claimed, and reports how it went.
pub(crate) async fn run(
    context: &Context<'_>,
    turn: usize,
    planned: &PlannedTask,
    claim: &Claim,
) -> TaskReport {
    (context.tell)(Event::TaskStarted {
        task: planned.title(),
        configuration: planned.configuration.clone(),
        member: Some(planned.member),
    });
    let mut attempts = Attempts::new(&planned.retries.clone().unwrap_or_default());
    loop {
        let (mut report, may_be_again) = attempt(context, turn, planned, claim).await;
        let trouble = context.recorder.trouble();
        report.warnings.extend(trouble);
        if !may_be_again {
            return report;
        }
        let Some(pause) = attempts.after(report.exit_code) else {
            return report;
        };
        if context.cancel.is_cancelled() {
            return report;
        }
        (context.tell)(Event::TaskAgain {
            task: planned.title(),
            error: report.error.clone().unwrap_or_default(),
            pause_seconds: pause.as_secs_f64(),
        });
        let _pause = context.paused.begin();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = context.cancel.cancelled() => return report,
        }
    }
}

/// One attempt, and whether another is of use.
async fn attempt(
    context: &Context<'_>,
    turn: usize,
    planned: &PlannedTask,
    claim: &Claim,
) -> (TaskReport, bool) {
    let mut work = Work::new(context, turn, planned, claim);
    let ground = match work.look().await {
        Ok(Some(ground)) => Ok(ground),
        Err(error) => Err(error),
        // Published before: nothing is done, and nothing need be recorded but that.
        Ok(None) => {
            drop(context.machine.disk.left_of(turn));
            let cleared = context.scratch.clear(planned);
            let mut report = work.into_report();
            report.outcome = Outcome::AlreadyPublished;
            let cleared = cleared.err().map(|error| error.to_string());
            report.warnings.extend(cleared);
            context.recorder.found(planned, &report);
            return (report, false);
        }
    };
    // What comes in windows takes its space bit by bit.
    let needed = match work.is_streamed_in_windows() {
        true => 0,
        false => planned.resources.disk.map_or(0, |disk| disk.0),
    };
    let disk = &context.machine.disk;
    let left = match needed {
        0 => 0,
        _ => context.warm.left().unwrap_or_else(|| disk.budget()),
    };
    let _space = tokio::select! {
        space = disk.reserve(needed, left) => space,
        () = context.cancel.cancelled() => return (not_begun(planned, &Error::Interrupted), false),
    };
    let attempt = context.recorder.begin_attempt(planned);
    reach("attempt: begun");
    let was_begun = ground.is_ok();
    let done = match ground {
        Ok(ground) => work.run(attempt, ground).await,
        Err(error) => Err(error),
    };
    let mut report = work.into_report();
    let mut may_be_again = true;
    match done {
        Ok(outcome) => {
            report.outcome = outcome;
            let cleared = context.scratch.clear(planned).err();
            report.warnings.extend(cleared.map(|e| e.to_string()));
        }
        Err(error) => {
            report.exit_code = error.exit_code();
            // A store that cannot even be asked says nothing of what is here.
            if was_begun || !is_passing(error.exit_code()) {
                match clear(context, planned, &error) {
                    Ok(kept) => report.warnings.extend(kept),
                    Err(error) => report.warnings.push(error.to_string()),
                }
            }
            if !context.scratch.windows(planned).is_dir() {
                drop(disk.left_of(turn));
            }
            may_be_again = !matches!(error, Error::Unsent { .. }) && !is_refused(&error);
            report.error = Some(error.to_string());
        }
    }
    reach("attempt: cleared");
    context.recorder.end_attempt(attempt, planned, &report);
    reach("attempt: ended");
    (report, may_be_again)
}

/// Whether a store refused, as it does with credentials that are wrong or too old: no pause of ours changes that. Nor
/// what a GPU has free, which is looked at once in a run.
fn is_refused(error: &Error) -> bool {
    match error {
        Error::GpuMemory(_) => true,
        Error::Storage(source) | Error::Unpublished { source, .. } => source.is_refusal(),
        _ => false,
    }
}

/// Whether what an attempt left is of use to one that comes later.
fn is_passing(code: ExitCode) -> bool {
    matches!(
        code,
        ExitCode::StorageFailed | ExitCode::EngineUnavailable | ExitCode::Interrupted
    )
}

/// What is complete and could not be brought to its store is kept, for the next attempt; so is what
/// was staged, if that may go on. What was refused must not be mistaken for a forecast: if it is kept, then elsewhere.
/// Says so where it is.
fn clear(
    context: &Context<'_>,
    planned: &PlannedTask,
    error: &Error,
) -> Result<Option<String>, Error> {
    let clear_all = || {
        let kept = match context.options.keep_failed {
            0 => Ok(None),
            quota => quarantine::keep(context.scratch, planned, quota),
        };
        context.scratch.clear(planned).and(kept)
    };
    let cleared = match error {
        Error::TakenOver { .. } => Ok(()),
        Error::Unpublished { .. } | Error::Unsent { .. } => context.scratch.clear_inputs(planned),
        // Of what is complete, but not what it should be, nothing is of use.
        _ if error.exit_code() == ExitCode::Incomplete => return clear_all(),
        _ if context.scratch.complete(planned).is_file() => context.scratch.clear_inputs(planned),
        // What was being staged goes on with the next attempt.
        _ if is_passing(error.exit_code()) => {
            context.scratch.clear_outputs(planned)?;
            context.scratch.clear_inputs(planned)
        }
        _ => return clear_all(),
    };
    cleared.map(|()| None)
}

/// The report of a task that was not begun.
pub(crate) fn not_begun(planned: &PlannedTask, error: &Error) -> TaskReport {
    TaskReport {
        exit_code: error.exit_code(),
        error: Some(error.to_string()),
        ..TaskReport::new(planned)
    }
}

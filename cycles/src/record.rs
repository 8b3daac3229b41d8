//! What a run writes into the ledger. That it cannot be written does not stop a forecast, which has
//! a due time: it is told with the task.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mlwm_ledger::{
    AttemptId, AttemptResult, Error, Found, Ledger, NewRun, Published, RunId, State, TaskName,
};
use mlwm_spec::ExitCode;

use crate::event::{Outcome, Phase, TaskReport};
use crate::history::note_killed;
use crate::plan::PlannedTask;
use crate::usual::{Kind, Usual};

/// The ledger of a run.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Why there is none, if it cannot be opened, or this run not be begun in it.
    ledger: Result<(Ledger, RunId), String>,
    trouble: Mutex<Option<String>>,
}

/// An attempt; without a ledger that can be written, it has a number alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    id: Option<AttemptId>,
    /// 1 is the first.
    pub(crate) number: u32,
}

impl Recorder {
    pub(crate) fn begin(file: &Path, run: &NewRun, tasks: &[TaskName]) -> Self {
        let begun = || {
            let ledger = Ledger::open(file)?;
            note_killed(&ledger)?;
            let run = ledger.begin_run(run, tasks)?;
            Ok((ledger, run))
        };
        Self {
            ledger: begun().map_err(|error: crate::Error| error.to_string()),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn end(&self, exit_code: ExitCode) {
        self.write(|ledger, run| ledger.end_run(run, exit_code));
    }

    pub(crate) fn begin_attempt(&self, planned: &PlannedTask) -> Attempt {
        match self.write(|ledger, run| ledger.begin_attempt(run, &planned.name())) {
            Some((id, number)) => Attempt {
                id: Some(id),
                number,
            },
            None => Attempt {
                id: None,
                number: 0,
            },
        }
    }

    pub(crate) fn begin_phase(&self, attempt: Attempt, phase: Phase) {
        if let Some(id) = attempt.id {
            self.write(|ledger, _| ledger.begin_phase(id, phase.name()));
        }
    }

    pub(crate) fn end_phase(
        &self,
        attempt: Attempt,
        phase: Phase,
        seconds: f64,
        bytes: Option<u64>,
    ) {
        if let Some(id) = attempt.id {
            self.write(|ledger, _| ledger.end_phase(id, phase.name(), seconds, bytes));
        }
    }

    /// Where the log of an attempt is, as soon as there is one.
    pub(crate) fn has_log(&self, attempt: Attempt, log: &str) {
        if let Some(id) = attempt.id {
            self.write(|ledger, _| ledger.has_log(id, log));
        }
    }

    pub(crate) fn end_attempt(&self, attempt: Attempt, planned: &PlannedTask, report: &TaskReport) {
        let Some(id) = attempt.id else { return };
        let state = match (report.outcome, report.exit_code) {
            (Outcome::Published | Outcome::AlreadyPublished, _) => State::Published,
            (Outcome::Failed, ExitCode::Interrupted) => State::Interrupted,
            (Outcome::Failed, _) => State::Failed,
        };
        let result = AttemptResult {
            state,
            exit_code: report.exit_code,
            identity: report.identity,
            error: report.error.clone(),
            log: report.log.clone(),
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
            peak_memory: report.peak_memory,
            forecast_duration: planned.forecast_duration(),
            outputs: published(report),
        };
        self.write(|ledger, _| ledger.end_attempt(id, &result));
    }

    /// A task was found to be published.
    pub(crate) fn found(&self, planned: &PlannedTask, report: &TaskReport) {
        if let Some(identity) = report.identity {
            let found = Found {
                task: planned.name(),
                identity,
                times: None,
                outputs: published(report),
            };
            self.write(|ledger, _| ledger.found(&found));
        }
    }

    /// What tasks usually took before this run, as far as that is known.
    pub(crate) fn usual(&self, tasks: &[PlannedTask]) -> BTreeMap<Kind, Usual> {
        self.write(|ledger, _| Usual::recorded(ledger, tasks))
            .unwrap_or_default()
    }

    /// What could not be written since this was asked last; without a ledger, why there is none.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Err(why) = &self.ledger {
            return Some(why.clone());
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.take()
    }

    fn write<T>(&self, write: impl FnOnce(&Ledger, RunId) -> Result<T, Error>) -> Option<T> {
        let (ledger, run) = self.ledger.as_ref().ok()?;
        match write(ledger, *run) {
            Ok(value) => Some(value),
            Err(error) => {
                let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                trouble.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }
}

fn published(report: &TaskReport) -> Vec<Published> {
    let outputs = report.outputs.iter().map(|output| Published {
        name: output.name.clone(),
        uri: output.uri.clone(),
        manifest: output.manifest.clone(),
        digest: output.digest,
    });
    outputs.collect()
}

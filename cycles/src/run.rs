//! Carrying out a plan: one task after the other, each to its end or its error.

use std::path::PathBuf;
use std::sync::Arc;

use mlwm_engines::Engine;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, TaskReport};
use crate::plan::Plan;
use crate::scratch::Scratch;
use crate::{Error, container, task};

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The working folder.
    pub workdir: PathBuf,
    /// Version of mlwm, for the record.
    pub version: String,
}

/// Receives events, from several threads.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// What every task of a run shares.
pub(crate) struct Context<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) scratch: &'a Scratch,
    pub(crate) version: &'a str,
    pub(crate) tell: &'a Tell,
    pub(crate) cancel: &'a CancellationToken,
}

/// Runs `plan`. A task that fails does not keep the others from running; how each went is in its
/// report. After `cancel`, no further task is begun and the current one is stopped.
///
/// # Errors
/// Only what concerns all tasks: no engine, no working folder.
pub async fn run(
    plan: &Plan,
    options: &RunOptions,
    tell: &Tell,
    cancel: &CancellationToken,
) -> Result<Vec<TaskReport>, Error> {
    let engine = Engine::connect().await?;
    let scratch = Scratch::take(&options.workdir)?;
    container::sweep(&engine).await?;
    let context = Context {
        engine: &engine,
        scratch: &scratch,
        version: &options.version,
        tell,
        cancel,
    };
    let mut reports = Vec::with_capacity(plan.tasks.len());
    for planned in &plan.tasks {
        let report = match cancel.is_cancelled() {
            true => task::not_begun(planned),
            false => task::run(&context, planned).await,
        };
        tell(Event::TaskFinished(report.clone()));
        reports.push(report);
    }
    Ok(reports)
}

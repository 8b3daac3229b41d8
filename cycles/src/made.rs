//! What tasks make that others of the same run read: those wait until it is published.

use mlwm_spec::ExitCode;
use tokio::sync::watch;

use crate::Error;
use crate::plan::{PlannedTask, order};
use crate::run::Context;

/// How the tasks ended that others wait for.
pub(crate) struct Made {
    waits: Vec<Vec<usize>>,
    ended: Vec<watch::Sender<Option<ExitCode>>>,
    titles: Vec<String>,
}

impl Made {
    /// Of tasks, each of which is behind those that make what it reads.
    pub(crate) fn of(tasks: &[PlannedTask]) -> Self {
        Self {
            waits: order::waits_for(tasks),
            ended: tasks.iter().map(|_| watch::Sender::new(None)).collect(),
            titles: tasks.iter().map(PlannedTask::title).collect(),
        }
    }

    /// For each task the turns of those that make what it reads.
    pub(crate) fn waits(&self) -> &[Vec<usize>] {
        &self.waits
    }

    /// Waits until all that a task reads is made.
    ///
    /// # Errors
    /// [`Error::NotMade`] if some of it is not, [`Error::Interrupted`].
    pub(crate) async fn ready(&self, turn: usize, context: &Context<'_>) -> Result<(), Error> {
        if self.waits[turn].is_empty() {
            return Ok(());
        }
        // It keeps no place from those that it waits for.
        let _pause = context.paused.begin();
        for other in &self.waits[turn] {
            let mut ended = self.ended[*other].subscribe();
            let ended = tokio::select! {
                ended = ended.wait_for(Option::is_some) => ended,
                () = context.cancel.cancelled() => return Err(Error::Interrupted),
            };
            // Its sender lives as long as this.
            let code = ended.ok().and_then(|code| *code);
            match code {
                Some(ExitCode::Ok) | None => {}
                Some(ExitCode::Interrupted) => return Err(Error::Interrupted),
                Some(code) => {
                    return Err(Error::NotMade {
                        by: self.titles[*other].clone(),
                        code,
                    });
                }
            }
        }
        Ok(())
    }

    /// A task ended.
    pub(crate) fn ended(&self, turn: usize, code: ExitCode) {
        self.ended[turn].send_replace(Some(code));
    }
}

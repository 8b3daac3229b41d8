//! What happens while a plan is run, for a terminal, a log or another program.

use mlwm_spec::{AnalysisTime, Digest, ExitCode};
use serde::Serialize;

use crate::plan::{PlannedEnsemble, PlannedTask};
use crate::progress::RunProgress;
use crate::report::Summary;

/// A part of a task's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Bring the inputs from their stores.
    Stage,
    /// Make of inputs what the model reads.
    Convert,
    /// Check the inputs before anything is started.
    Check,
    /// Unpack the artifact that is mounted, or verify what was unpacked before.
    Unpack,
    /// Wait for room on this machine.
    Queue,
    /// Run the container.
    Run,
    /// Check the outputs before anything is published.
    Verify,
    /// Bring the outputs to their stores.
    Publish,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Stage,
        Self::Convert,
        Self::Check,
        Self::Unpack,
        Self::Queue,
        Self::Run,
        Self::Verify,
        Self::Publish,
    ];

    /// The phase of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Convert => "convert",
            Self::Check => "check",
            Self::Unpack => "unpack",
            Self::Queue => "queue",
            Self::Run => "run",
            Self::Verify => "verify",
            Self::Publish => "publish",
        }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Its outputs are published.
    Published,
    /// Its outputs were published before, by the same task.
    AlreadyPublished,
    /// It failed, and nothing is published.
    Failed,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The credentials for S3 end before the run is expected to.
    CredentialsEnd {
        /// When they end, UTC.
        end: String,
        /// When the run is expected to.
        run_end: String,
    },
    /// A task begins.
    TaskStarted {
        /// Its title.
        task: String,
        /// Its configuration.
        configuration: String,
        /// Its member; none of a whole ensemble.
        #[serde(skip_serializing_if = "Option::is_none")]
        member: Option<u32>,
    },
    /// A task waits for another mlwm that does it.
    TaskWaits {
        /// Its title.
        task: String,
        /// The host that does it.
        holder: String,
    },
    /// A task failed, and is tried again after a pause.
    TaskAgain {
        /// Its title.
        task: String,
        /// What went wrong.
        error: String,
        /// Length of the pause.
        pause_seconds: f64,
    },
    /// Windows could not be sent, and are sent again after a pause; the model waits meanwhile.
    WindowsAgain {
        /// The title of their task.
        task: String,
        /// What went wrong.
        error: String,
        /// Length of the pause.
        pause_seconds: f64,
    },
    /// What was kept until it was read is removed.
    Removed {
        /// The title of the task that made it.
        task: String,
        /// Where it was published.
        uri: String,
        /// Bytes that were there.
        bytes: u64,
    },
    /// It is not removed.
    NotRemoved {
        /// The title of the task that made it.
        task: String,
        /// Where it is published.
        uri: String,
        /// Why not.
        error: String,
    },
    /// A phase begins.
    PhaseStarted {
        /// The task's title.
        task: String,
        /// The phase.
        phase: Phase,
    },
    /// A phase goes on.
    Progress {
        /// The task's title.
        task: String,
        /// The phase.
        phase: Phase,
        /// Units done: bytes for transfers, steps for a run.
        done: u64,
        /// Units in all, where known.
        total: Option<u64>,
    },
    /// A phase has ended well.
    PhaseFinished {
        /// The task's title.
        task: String,
        /// The phase.
        phase: Phase,
        /// How long it took.
        seconds: f64,
        /// Bytes moved, for transfers.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
    },
    /// A model has written all windows that there is room for, and stands still.
    WaitsForSpace {
        /// The task's title.
        task: String,
    },
    /// There is room for the next window of a model that stood still.
    HasSpace {
        /// The task's title.
        task: String,
    },
    /// How far the run is: told when a task has ended, and now and then between.
    RunProgress(RunProgress),
    /// A line of a container's output.
    Log {
        /// The task's title.
        task: String,
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// The line.
        line: String,
    },
    /// All tasks have ended, and some whose outputs are cut kept within the space for the working folder.
    DiskUsed {
        /// The most bytes of inputs and windows that lay there at once.
        most: u64,
        /// The space that there was.
        budget: u64,
    },
    /// A task has ended.
    TaskFinished(TaskReport),
    /// All is done: the last event.
    RunFinished(Summary),
}

/// How a task went.
#[derive(Clone, Debug, Serialize)]
pub struct TaskReport {
    /// The task's title.
    pub task: String,
    /// Its configuration.
    pub configuration: String,
    /// The time that the forecast starts from.
    pub analysis_time: AnalysisTime,
    /// Its member; none of a whole ensemble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<u32>,
    /// How it ended.
    pub outcome: Outcome,
    /// Its identity, once its inputs are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Digest>,
    /// Seconds of each phase that was completed.
    pub phases: Vec<(Phase, f64)>,
    /// Bytes staged.
    pub bytes_in: u64,
    /// Bytes published.
    pub bytes_out: u64,
    /// Seconds in which windows were sent while the model still ran. They are no part of the phase `publish`,
    /// which begins when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published_while_running: Option<f64>,
    /// The most memory that the container used, in bytes, where the engine says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// What was published, or had been.
    pub outputs: Vec<OutputReport>,
    /// The container's log, if one was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// What the user should know although the task went well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The exit code that says why.
    pub exit_code: ExitCode,
}

impl TaskReport {
    /// Of a task of which nothing is done yet.
    pub(crate) fn new(planned: &PlannedTask) -> Self {
        Self {
            member: Some(planned.member),
            ..Self::of(
                planned.title(),
                &planned.configuration,
                planned.analysis_time,
            )
        }
    }

    /// Of an ensemble of which nothing is done yet.
    pub(crate) fn of_ensemble(planned: &PlannedEnsemble) -> Self {
        Self::of(
            planned.title(),
            &planned.configuration,
            planned.analysis_time,
        )
    }

    fn of(task: String, configuration: &str, analysis_time: AnalysisTime) -> Self {
        Self {
            task,
            configuration: configuration.to_owned(),
            analysis_time,
            member: None,
            outcome: Outcome::Failed,
            identity: None,
            phases: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            published_while_running: None,
            peak_memory: None,
            outputs: Vec::new(),
            log: None,
            warnings: Vec::new(),
            error: None,
            exit_code: ExitCode::Ok,
        }
    }
}

/// A published output.
#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub uri: String,
    /// Where its manifest lies.
    pub manifest: String,
    /// Digest over all its objects.
    pub digest: Digest,
}

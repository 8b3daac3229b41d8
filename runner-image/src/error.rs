//! Why a forecast failed.

use std::path::PathBuf;

use mlwm_datasets::input_state::StateError;
use mlwm_datasets::prepare::PrepareError;
use mlwm_spec::ExitCode;
use mlwm_spec::time::utc_text;

/// What ends the runner before its outputs are complete.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A variable of the contract's environment is missing or wrong.
    #[error("{0}")]
    Environment(String),
    /// A file of the artifact is missing or cannot be read.
    #[error("the artifact lacks `{}` or it cannot be read: {reason}", path.display())]
    ArtifactFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The artifact does not fit together.
    #[error("{0}")]
    Artifact(String),
    /// The inputs cannot be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The input state is not the one that the model needs.
    #[error(transparent)]
    State(#[from] StateError),
    /// A work of a stream that cannot be understood.
    #[error("`{}` is not a work of the contract: {reason}", path.display())]
    Work {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The folder of the stream is not there.
    #[error("the folder of works `{}` cannot be read: {reason}", path.display())]
    Stream {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No usable ONNX Runtime.
    #[error("{0}")]
    Library(String),
    /// ONNX Runtime could not load or run the model.
    #[error("ONNX Runtime: {0}")]
    Onnx(#[from] ort::Error),
    /// A prediction that is NaN or infinite.
    #[error(
        "step {step} (valid at {}) predicted {count} values of `{feature}` that are NaN or \
         infinite: the forecast is unusable",
        utc_text(*time)
    )]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// Its valid time in Unix seconds.
        time: i64,
        /// The feature.
        feature: String,
        /// How many values of it.
        count: usize,
    },
    /// An output asks for something that is not predicted.
    #[error("output `{output}` asks for the variable `{variable}`, but the model predicts {there}")]
    NoVariable {
        /// The output.
        output: String,
        /// The variable asked for.
        variable: String,
        /// The variables there are.
        there: String,
    },
    /// Something is already where an output would go.
    #[error("`{}` is not empty: an output is never written over another", path.display())]
    Occupied {
        /// The path of the output.
        path: PathBuf,
    },
    /// An output cannot be written.
    #[error("output `{output}` cannot be written: {reason}")]
    Write {
        /// The output.
        output: String,
        /// Why.
        reason: String,
    },
    /// A thread of the runner ended without saying why.
    #[error("a thread of the runner ended unexpectedly: {0}")]
    Thread(&'static str),
}

impl RunnerError {
    /// The exit code of the runner.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Environment(_)
            | Self::NoVariable { .. }
            | Self::Work { .. }
            | Self::Stream { .. } => ExitCode::BadConfiguration,
            Self::ArtifactFile { .. } | Self::Artifact(_) => ExitCode::ArtifactMismatch,
            Self::Prepare(error) => error.exit_code(),
            Self::State(error) => error.exit_code(),
            Self::Occupied { .. } => ExitCode::Conflict,
            Self::Write { .. } => ExitCode::StorageFailed,
            Self::Library(_) => ExitCode::EngineUnavailable,
            Self::Onnx(_) | Self::NotFinite { .. } | Self::Thread(_) => ExitCode::Failed,
        }
    }
}

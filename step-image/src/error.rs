//! What goes wrong in a step.

use std::io;
use std::path::PathBuf;

use mlwm_spec::ExitCode;

use crate::Fault;

/// A step that did not come to its end: nothing is written under the name of its result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is something where the result goes.
    #[error("{0} exists already: remove it, or write elsewhere")]
    Exists(PathBuf),
    /// The result cannot be written.
    #[error("cannot write {path}: {source}; check its folder's permissions and space")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A step on stores failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Error {
    /// The exit code of the command.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Exists(_) => ExitCode::Conflict,
            Self::Write { .. } => ExitCode::StorageFailed,
            Self::Fault(fault) => fault.exit_code(),
        }
    }
}

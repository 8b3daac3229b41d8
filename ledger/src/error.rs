//! What can go wrong with the ledger.

use std::io;
use std::path::PathBuf;

use mlwm_spec::ExitCode;
use rusqlite::ErrorCode;

/// An error of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite.
    #[error(
        "cannot {action} the ledger {}: {source}; {}",
        path.display(),
        advice(source)
    )]
    Database {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A ledger of a newer mlwm.
    #[error(
        "the ledger {} has version {version}, and this mlwm knows versions up to {known}: use a newer mlwm, or another file",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
        /// The newest version that is known.
        known: i64,
    },
    /// The folder of the ledger cannot be used.
    #[error("cannot use {} for the ledger: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room, and run the same command again",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "look at who may write there"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "it is damaged: move it away, and run `mlwm status --rebuild`"
        }
        _ => "run the same command again",
    }
}

impl Error {
    /// The exit code that says why.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Database { .. } | Self::Folder { .. } => ExitCode::StorageFailed,
            Self::Newer { .. } => ExitCode::Failed,
        }
    }
}

//! What goes wrong in the steps that work on Zarr stores.

use std::io;
use std::path::{Path, PathBuf};

use mlwm_spec::ExitCode;
use mlwm_spec::bytes::ByteSize;

/// Why a step on stores did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A store cannot be read or written.
    #[error(transparent)]
    Dataset(#[from] mlwm_datasets::Error),
    /// Options that say nothing that can be done.
    #[error("{0}")]
    Usage(String),
    /// A store that cannot be used as it is.
    #[error("{store}: {reason}")]
    Store {
        /// The store.
        store: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Two stores that do not fit together.
    #[error("{store} does not fit {other}: {reason}")]
    Differs {
        /// The store.
        store: PathBuf,
        /// The store that it is compared with.
        other: PathBuf,
        /// In what they differ, and what to do.
        reason: String,
    },
    /// Too little memory.
    #[error(
        "the variable `{variable}` of {store} cannot be copied in {given} of memory: give at least {least}, or other chunks"
    )]
    Memory {
        /// The store.
        store: PathBuf,
        /// The variable.
        variable: String,
        /// The limit.
        given: ByteSize,
        /// The least limit that is enough.
        least: ByteSize,
    },
    /// Too little space on a disk.
    #[error(
        "{folder} has {free} of free space, but {need} are needed{what}: free some, or write elsewhere"
    )]
    Space {
        /// Where.
        folder: PathBuf,
        /// How much there is.
        free: ByteSize,
        /// How much is needed.
        need: ByteSize,
        /// What for.
        what: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {path}: {source}; check its folder's permissions and space")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A store that is not what it should be.
    #[error("{store} is not valid: {count} problem(s), of which the first is: {first}")]
    Invalid {
        /// The store.
        store: PathBuf,
        /// How many problems.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// A picture that cannot be drawn.
    #[error(transparent)]
    Map(#[from] mlwm_maps::Error),
}

impl Fault {
    /// The exit code of the command.
    pub fn exit_code(&self) -> ExitCode {
        use mlwm_datasets::Error as Dataset;
        match self {
            Self::Dataset(Dataset::NotZarr { .. } | Dataset::NoVariable { .. }) => {
                ExitCode::InputMissing
            }
            Self::Dataset(Dataset::Write { .. }) | Self::Space { .. } | Self::Write { .. } => {
                ExitCode::StorageFailed
            }
            Self::Dataset(Dataset::Exists { .. }) => ExitCode::Conflict,
            Self::Dataset(_)
            | Self::Store { .. }
            | Self::Differs { .. }
            | Self::Read { .. }
            | Self::Invalid { .. } => ExitCode::InputCorrupt,
            Self::Usage(_) => ExitCode::Usage,
            Self::Memory { .. } => ExitCode::BadConfiguration,
            Self::Map(_) => ExitCode::Failed,
        }
    }

    pub(crate) fn store(store: &Path, reason: impl Into<String>) -> Self {
        Self::Store {
            store: store.to_owned(),
            reason: reason.into(),
        }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

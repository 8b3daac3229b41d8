//! What goes wrong in a step.

use std::io;
use std::path::PathBuf;

use mlwm_spec::ExitCode;
use mlwm_spec::yaml::YamlError;

use crate::{Fault, Problems};

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
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Folders without a file.
    #[error("there is no file in {}: name files, or folders with some", list(.0))]
    NoFiles(Vec<PathBuf>),
    /// A table that does not say what it must.
    #[error(transparent)]
    Table(#[from] YamlError),
    /// Numbers of points that are none.
    #[error("the points in `{}` cannot be used: {reason}", path.display())]
    Points {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An input that cannot be converted without loss.
    #[error("{0}")]
    Problems(Problems),
    /// GRIB that cannot be read.
    #[error(transparent)]
    Grib(#[from] mlwm_grib::Error),
    /// A dataset that cannot be read or written.
    #[error(transparent)]
    Data(#[from] mlwm_datasets::Error),
    /// A file that does not come.
    #[error("cannot fetch `{uri}`: {reason}")]
    Fetch {
        /// Where it is, without what may be secret.
        uri: String,
        /// Why.
        reason: String,
        /// What kind of failure that is.
        code: ExitCode,
    },
    /// A store that does not give what it should.
    #[error(transparent)]
    Storage(#[from] mlwm_storage::Error),
    /// Values that are not as many as their shape says: a fault of mlwm.
    #[error("a block of values does not have its shape ({0}): report this as a fault of mlwm")]
    Shape(String),
    /// A step on stores failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

fn list(paths: &[PathBuf]) -> String {
    let paths = paths.iter().map(|path| format!("`{}`", path.display()));
    paths.collect::<Vec<_>>().join(", ")
}

impl Error {
    /// The exit code of the command.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Exists(_) => ExitCode::Conflict,
            Self::Write { .. } => ExitCode::StorageFailed,
            Self::Read { .. } | Self::NoFiles(_) => ExitCode::InputMissing,
            Self::Table(_) => ExitCode::BadConfiguration,
            Self::Points { .. } | Self::Problems(_) => ExitCode::InputCorrupt,
            Self::Grib(error) => error.exit_code(),
            Self::Data(error) => match error {
                mlwm_datasets::Error::Write { .. } => ExitCode::StorageFailed,
                mlwm_datasets::Error::Read { .. } | mlwm_datasets::Error::NoVariable { .. } => {
                    ExitCode::InputMissing
                }
                mlwm_datasets::Error::Exists { .. } => ExitCode::Conflict,
                mlwm_datasets::Error::Definition { .. } => ExitCode::BadConfiguration,
                _ => ExitCode::InputCorrupt,
            },
            Self::Fetch { code, .. } => *code,
            Self::Storage(error) => error.exit_code(),
            Self::Shape(_) => ExitCode::Failed,
            Self::Fault(fault) => fault.exit_code(),
        }
    }
}

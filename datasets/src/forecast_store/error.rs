//! What can go wrong between the windows of a forecast and its store.

use std::path::{Path, PathBuf};

use mlwm_spec::ExitCode;

use super::cast::Broken;

/// Why a store of a forecast cannot be planned or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Windows or hours that do not fit the forecast, or would write a file more than once.
    #[error("{0}")]
    Windows(String),
    /// A variable that is declared in a way that cannot be written.
    #[error("the variable `{name}` cannot be published: {reason}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A window that the store does not hold.
    #[error("the store holds the windows {first} to {last}, but was given window {window}")]
    NoWindow {
        /// The window.
        window: u64,
        /// The first that it holds.
        first: u64,
        /// The last that it holds.
        last: u64,
    },
    /// A window that is not what the schedule of the forecast, or its first window, says.
    #[error("the window in `{}` is not the one that is due: {reason}", path.display())]
    Window {
        /// The window's folder.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// A value that must not be published.
    #[error(
        "the variable `{variable}` has the value {value} at the lead time {lead}, point {point}: {problem}"
    )]
    Value {
        /// The variable.
        variable: String,
        /// The lead time: `6 h`.
        lead: String,
        /// The place in the plane, in row-major order.
        point: usize,
        /// The value.
        value: f64,
        /// What is wrong with it.
        problem: BadValue,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A plane could not be compressed.
    #[error("cannot compress a plane of `{variable}`: {reason}")]
    Compress {
        /// The variable.
        variable: String,
        /// Why.
        reason: String,
    },
    /// A Zarr store that cannot be read or written.
    #[error(transparent)]
    Dataset(#[from] crate::Error),
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadValue {
    /// NaN where there must be a value.
    #[error("it is missing, and no missing values are declared there")]
    Missing,
    /// Infinite.
    #[error("it is not finite")]
    Infinite,
    /// Outside the declared range.
    #[error("it is not in the declared range {low} to {high}")]
    Range {
        /// Lowest.
        low: f64,
        /// Highest.
        high: f64,
    },
    /// Too large for the type that it is stored as.
    #[error("it does not fit {0}; choose a wider type")]
    Overflow(&'static str),
}

impl StoreError {
    /// The exit code of this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Windows(_) | Self::Variable { .. } => ExitCode::BadConfiguration,
            Self::Window { .. } | Self::Value { .. } => ExitCode::Incomplete,
            Self::Write { .. } => ExitCode::StorageFailed,
            Self::NoWindow { .. } | Self::Compress { .. } => ExitCode::Failed,
            Self::Dataset(crate::Error::Write { .. }) => ExitCode::StorageFailed,
            Self::Dataset(_) => ExitCode::Incomplete,
        }
    }

    /// A value that breaks the rules of a variable.
    pub(crate) fn value(variable: &str, lead: &str, broken: Broken) -> Self {
        let (point, value, problem) = broken;
        Self::Value {
            variable: variable.to_owned(),
            lead: lead.to_owned(),
            point,
            value,
            problem,
        }
    }

    /// For `map_err`: a file that could not be written.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

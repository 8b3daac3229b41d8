//! What can be wrong with the inputs of a forecast, and with the files that describe them.

use std::path::PathBuf;

use mlwm_spec::ExitCode;
use mlwm_spec::time::utc_text;

/// Why the arrays of a model cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A datastore configuration asks for something that does not exist or is not supported.
    #[error("datastore `{datastore}`: {message}")]
    Configuration {
        /// Name of the datastore.
        datastore: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// An input of a datastore configuration asks for something that is not supported.
    #[error("input `{input}` of datastore `{datastore}`: {message}")]
    InputConfiguration {
        /// Name of the datastore.
        datastore: String,
        /// Name of the input.
        input: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A forecast that makes no sense.
    #[error("{0}")]
    Request(String),
    /// The interface, the datastore configurations and the statistics do not belong together.
    #[error("the artifact does not fit together: {0}")]
    Artifact(String),
    /// No path was given for an input.
    #[error(
        "no dataset is given for input `{datastore}.{input}`: add it to `datastore_inputs` of an input"
    )]
    NoPath {
        /// Name of the datastore.
        datastore: String,
        /// Name of the input.
        input: String,
    },
    /// A variable, coordinate or level that is not in the dataset.
    #[error("{path}: {what} is not there; the dataset has {available}", path = .path.display())]
    Missing {
        /// The dataset.
        path: PathBuf,
        /// What was looked for.
        what: String,
        /// What there is.
        available: String,
    },
    /// Times that the forecast needs and the dataset does not have.
    #[error("{0}")]
    MissingTimes(Box<MissingTimes>),
    /// A dataset that holds what the model cannot use.
    #[error("{path}: {message}", path = .path.display())]
    Unusable {
        /// The dataset.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// Values that are NaN or infinite.
    #[error(
        "{path}: {count} of {of} values of feature `{feature}`{time} are NaN or infinite: \
         the model needs them all",
        path = .path.display(),
        time = .time.map(|t| format!(" at {}", utc_text(t))).unwrap_or_default()
    )]
    NotFinite {
        /// The dataset.
        path: PathBuf,
        /// The feature.
        feature: String,
        /// Valid time in Unix seconds; none for static features.
        time: Option<i64>,
        /// How many values.
        count: usize,
        /// Of how many that the model uses.
        of: usize,
    },
    /// A dataset that cannot be opened or read.
    #[error(transparent)]
    Dataset(#[from] crate::Error),
}

/// The times that a forecast needs against those that a dataset has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingTimes {
    /// The dataset.
    pub path: PathBuf,
    /// `{datastore}.{input}` that it feeds.
    pub input: String,
    /// First and last time needed, Unix seconds.
    pub needed: (i64, i64),
    /// Seconds between them.
    pub step: i64,
    /// The first few of them that are not there.
    pub missing: Vec<i64>,
    /// How many of them are not there.
    pub missing_count: usize,
    /// First and last time of the dataset and their number; none if it has no time at all.
    pub present: Option<(i64, i64, usize)>,
    /// Steps that were asked for.
    pub asked_steps: u64,
    /// Steps that the dataset is good for.
    pub possible_steps: u64,
}

impl std::fmt::Display for MissingTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hours = hours_text(self.step);
        write!(
            f,
            "{}: input `{}` needs every {hours} from {} to {}, ",
            self.path.display(),
            self.input,
            utc_text(self.needed.0),
            utc_text(self.needed.1)
        )?;
        match self.present {
            Some((first, last, count)) => write!(
                f,
                "but the dataset has {count} times from {} to {}",
                utc_text(first),
                utc_text(last)
            )?,
            None => write!(f, "but the dataset has no time")?,
        }
        let shown: Vec<String> = self.missing.iter().map(|t| utc_text(*t)).collect();
        let more = self.missing_count.saturating_sub(shown.len());
        write!(f, ": {}", shown.join(", "))?;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        write!(
            f,
            " missing, so {} of {} steps are possible",
            self.possible_steps, self.asked_steps
        )
    }
}

/// A number of seconds as people say it: `3 h`, `90 min`, `10 s`.
pub(crate) fn hours_text(seconds: i64) -> String {
    match seconds {
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

impl PrepareError {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration { .. } | Self::InputConfiguration { .. } | Self::Request(_) => {
                ExitCode::BadConfiguration
            }
            Self::Artifact(_) => ExitCode::ArtifactMismatch,
            Self::NoPath { .. } | Self::Missing { .. } | Self::MissingTimes(_) => {
                ExitCode::InputMissing
            }
            Self::Unusable { .. } | Self::NotFinite { .. } => ExitCode::InputCorrupt,
            Self::Dataset(error) => dataset_exit_code(error),
        }
    }
}

/// A store that is not there is missing; anything else that cannot be read is corrupt.
fn dataset_exit_code(error: &crate::Error) -> ExitCode {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match error {
        crate::Error::Read { source, .. } if matches!(source.kind(), NotFound | NotADirectory) => {
            ExitCode::InputMissing
        }
        crate::Error::NotZarr { .. } | crate::Error::NoVariable { .. } => ExitCode::InputMissing,
        _ => ExitCode::InputCorrupt,
    }
}

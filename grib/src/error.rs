//! What can go wrong with GRIB.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_spec::ExitCode;

/// Where in a file something is: consecutive bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// The first byte, counted from 0.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} bytes from byte {} of `{}`",
            self.length,
            self.offset,
            self.path.display()
        )
    }
}

/// GRIB that could not be read or written as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// ecCodes is not there, is too old, or cannot be used.
    #[error(
        "GRIB needs ecCodes 2.28 or newer, which cannot be loaded ({reason}): install `libeccodes0`, or \
         name the library in MLWM_ECCODES"
    )]
    Library {
        /// What the system said.
        reason: String,
    },
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file without a byte.
    #[error("`{}` is empty: it was not transferred, or the disk was full", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Bytes before, between or after messages.
    #[error("{place} belong to no GRIB message: remove them, or get the file again")]
    Garbage {
        /// Where.
        place: Place,
    },
    /// The file ends inside a message.
    #[error(
        "{place} are the beginning of a message of {stated} bytes: the file ends too early, get \
         it again"
    )]
    Truncated {
        /// From the beginning of the message to the next one that is whole, or to the end.
        place: Place,
        /// The length that the message says it has.
        stated: u64,
    },
    /// A message whose parts do not add up to its length.
    #[error(
        "{place} begin with a message that says it has {stated} bytes, but its sections end \
         elsewhere: it is damaged, get the file again"
    )]
    WrongLength {
        /// From the beginning of the message to the next one that is whole, or to the end.
        place: Place,
        /// The length that the message says it has.
        stated: u64,
    },
    /// A message with several fields.
    #[error(
        "{place} are a message with {fields} fields: mlwm reads messages with one field; split \
         it with `grib_copy`"
    )]
    MultiField {
        /// Where.
        place: Place,
        /// How many fields.
        fields: usize,
    },
    /// A message that is larger than any known one.
    #[error("{place} are one message, which is more than the limit of {limit} bytes")]
    TooLarge {
        /// Where.
        place: Place,
        /// The limit.
        limit: u64,
    },
    /// A message of which a key has no value that mlwm can use.
    #[error("{place} are a message that cannot be used: {reason}")]
    Message {
        /// Where.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// A message that was there when the file was read before.
    #[error("{place} were a message, and are none now: the file changed while it was read")]
    Changed {
        /// Where.
        place: Place,
    },
    /// A grid that mlwm does not read.
    #[error(
        "{place} are a message on {grid}: mlwm reads reduced and regular Gaussian grids of the \
         whole globe, and regular latitudes and longitudes"
    )]
    Grid {
        /// Where.
        place: Place,
        /// The grid.
        grid: String,
    },
    /// A buffer that has not as many places as the message has values.
    #[error("{place} are a message with {points} values, which do not fit a buffer for {room}")]
    Buffer {
        /// Where.
        place: Place,
        /// The number of values.
        points: usize,
        /// The places of the buffer.
        room: usize,
    },
    /// A variable for which GRIB has no code.
    #[error(
        "the variable `{name}` cannot be written as GRIB: {reason}; leave it out, or name it by \
         its paramId"
    )]
    Unencodable {
        /// The variable's name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A field that contradicts itself, its forecast, or what GRIB can say.
    #[error("the field `{name}` at {lead_time} cannot be written as GRIB: {reason}")]
    Field {
        /// The variable.
        name: String,
        /// The lead time, such as `6 h`.
        lead_time: String,
        /// What is wrong.
        reason: String,
    },
    /// A forecast of which no field could be written.
    #[error("the forecast cannot be written as GRIB: {reason}")]
    Forecast {
        /// What is wrong.
        reason: String,
    },
    /// A grid of which there is no list of points.
    #[error(
        "ecCodes has no sample of the reduced Gaussian grid N{n} ({reason}): give the points of \
         each latitude"
    )]
    NoSample {
        /// The number of latitudes between a pole and the equator.
        n: u32,
        /// What the library said.
        reason: String,
    },
    /// A Gaussian grid whose latitudes are not known.
    #[error("the latitudes of the Gaussian grid with N = {n} cannot be computed: {reason}")]
    Latitudes {
        /// The number of latitudes between a pole and the equator.
        n: u32,
        /// What the library said.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// The exit code of this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Library { .. } => ExitCode::EngineUnavailable,
            Self::Read { .. } => ExitCode::InputMissing,
            Self::Empty { .. }
            | Self::Garbage { .. }
            | Self::Truncated { .. }
            | Self::WrongLength { .. }
            | Self::MultiField { .. }
            | Self::TooLarge { .. }
            | Self::Message { .. }
            | Self::Changed { .. }
            | Self::Grid { .. } => ExitCode::InputCorrupt,
            Self::Unencodable { .. } | Self::Forecast { .. } | Self::NoSample { .. } => {
                ExitCode::BadConfiguration
            }
            Self::Field { .. } => ExitCode::Incomplete,
            Self::Write { .. } => ExitCode::StorageFailed,
            Self::Buffer { .. } | Self::Latitudes { .. } => ExitCode::Failed,
        }
    }

    /// The bytes of the file that the error is about, if it is about some.
    ///
    /// The places of all messages and errors of a [`Reader`](crate::Reader), one after the other,
    /// are the whole file.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Garbage { place }
            | Self::Truncated { place, .. }
            | Self::WrongLength { place, .. }
            | Self::MultiField { place, .. }
            | Self::TooLarge { place, .. }
            | Self::Message { place, .. }
            | Self::Changed { place }
            | Self::Grid { place, .. }
            | Self::Buffer { place, .. } => Some(place),
            _ => None,
        }
    }
}

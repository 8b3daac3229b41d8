//! What is written: a forecast and its fields.

use jiff::Timestamp;

use crate::{Encoding, Grid, Level};

/// What the fields of a forecast have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// The time that lead times are counted from, in whole seconds.
    pub analysis_time: Timestamp,
    /// The member, if the forecast is one of an ensemble.
    pub member: Option<Member>,
    /// The grid of all fields: reduced Gaussian, or latitudes and longitudes.
    pub grid: Grid,
    /// How values are packed.
    pub packing: Packing,
}

/// A member of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number, up to 254; 0 is the control forecast.
    pub number: u32,
    /// The number of members, up to 254.
    pub count: u32,
}

/// How values are packed: each as a number of so many bits, between the least and the greatest
/// value of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// How these numbers are stored.
    pub method: Method,
    /// Bits of a value, from 1 to 32.
    pub bits_per_value: u32,
}

/// How packed values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As they are.
    Simple,
    /// Compressed without loss (CCSDS 121.0-B).
    Ccsds,
}

/// One field of a forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The variable.
    pub encoding: Encoding,
    /// The level; `None` for that of the parameter's definition, such as 2 m of `2t`.
    pub level: Option<Level>,
    /// The time or the interval.
    pub span: Span,
    /// A value for each point of the grid, in the units of the encoding; NaN where there is none.
    pub values: Vec<f32>,
}

/// The time or the interval of a field, in hours since the analysis time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// One time.
    Instant(u32),
    /// An interval.
    Interval {
        /// What the values are over the interval.
        process: Process,
        /// Its beginning.
        start: u32,
        /// Its end, which is the lead time.
        end: u32,
    },
}

/// What values are over an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Process {
    /// The sum.
    Accumulation,
    /// The mean.
    Average,
    /// The greatest value.
    Maximum,
    /// The least value.
    Minimum,
}

impl Span {
    /// The lead time in hours: the time, or the end of the interval.
    pub fn lead_time(&self) -> u32 {
        match self {
            Self::Instant(hours) => *hours,
            Self::Interval { end, .. } => *end,
        }
    }

    pub(crate) fn start(&self) -> u32 {
        match self {
            Self::Instant(hours) => *hours,
            Self::Interval { start, .. } => *start,
        }
    }

    /// The step type in ecCodes' words.
    pub(crate) fn step_type(&self) -> &'static str {
        match self {
            Self::Instant(_) => "instant",
            Self::Interval { process, .. } => match process {
                Process::Accumulation => "accum",
                Process::Average => "avg",
                Process::Maximum => "max",
                Process::Minimum => "min",
            },
        }
    }
}

impl Process {
    /// The number of GRIB's code table 4.10.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Average => 0,
            Self::Accumulation => 1,
            Self::Maximum => 2,
            Self::Minimum => 3,
        }
    }

    /// The process of a number of that table, if it is one of these.
    pub(crate) fn of_code(code: i64) -> Option<Self> {
        [
            Self::Accumulation,
            Self::Average,
            Self::Maximum,
            Self::Minimum,
        ]
        .into_iter()
        .find(|process| process.code() == code)
    }
}

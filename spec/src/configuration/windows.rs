//! How an output is cut into windows of lead time.

use std::fmt;
use std::str::FromStr;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Grib;
use crate::Period;

/// How an output is cut: published window by window while the model runs, as one Zarr store of version 3
/// with a shard for each variable and window, and an inner chunk for each step; or as GRIB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Length of a window, ISO 8601: whole steps and hours. The last window may be shorter.
    pub length: Period,
    /// Only these lead times, in whole windows: `432-792` are those after 432 h and up to 792 h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// The types that values of variables are stored as, where not `float32`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub stored_as: IndexMap<String, StoredAs>,
    /// Variables whose values may be missing (NaN). Without it, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Instead of the Zarr store, a GRIB file for each window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grib: Option<Grib>,
}

/// The type that values are stored as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoredAs {
    /// 32-bit floating point.
    #[default]
    Float32,
    /// 16-bit floating point: three digits, up to 65,504; a larger value is an error.
    Float16,
}

/// Lead times after (not with) one hour and up to (with) another: `432-792`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Hours {
    /// They come after this one.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// A text that does not name hours.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` does not name lead times: write `0-72` or `432-792`, in hours")]
pub struct InvalidHours(String);

impl FromStr for Hours {
    type Err = InvalidHours;

    fn from_str(text: &str) -> Result<Self, InvalidHours> {
        let number = |part: &str| part.trim().parse::<u64>().ok();
        let hours = text.split_once('-');
        let hours = hours.and_then(|(from, to)| Some((number(from)?, number(to)?)));
        match hours.filter(|(from, to)| from < to) {
            Some((from, to)) => Ok(Self { from, to }),
            None => Err(InvalidHours(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Hours {
    type Error = InvalidHours;

    fn try_from(text: String) -> Result<Self, InvalidHours> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_round_trip_and_nonsense_is_refused() {
        let hours: Hours = "432-792".parse().unwrap();
        assert_eq!((hours.from, hours.to), (432, 792));
        assert_eq!(hours.to_string(), "432-792");
        for wrong in ["", "72", "72-72", "72-0", "a-b", "-72", "0-"] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }
}

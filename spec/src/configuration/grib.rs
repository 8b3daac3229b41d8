//! An output as GRIB.

use std::fmt;
use std::str::FromStr;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the windows of an output become GRIB: a file of edition 2 for each, with a message for each variable and
/// step, named `<prefix>_<YYYYMMDD>_<HHMM>_member001_h000-072.grib` after analysis time, member and window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grib {
    /// What the names of the files begin with.
    pub prefix: String,
    /// What GRIB calls variables. One that is not here is what its own name says, if that is one of ecCodes' short
    /// names (`2t`), or one with a level in hPa (`t_850`); if not, it is left out, and the manifest names it.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub parameters: IndexMap<String, GribParameter>,
    /// The bits of a value, 1 to 32; 16 if absent: values are rounded to the 65,535th part of the range of their
    /// field.
    #[serde(default = "bits_per_value")]
    #[schemars(range(min = 1, max = 32))]
    pub bits_per_value: u32,
    /// How values are stored.
    #[serde(default)]
    pub packing: GribPacking,
    /// The reduced Gaussian grid that the values are on, such as `O96` or `N320`: as many, in the order of its
    /// rows. Without it, latitudes and longitudes at constant distances, by the coordinates of the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<GaussianGrid>,
    /// How many members the messages say that the ensemble has; if absent, as many as the configuration has
    /// `members`. With neither, the files say nothing of an ensemble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble_size: Option<u32>,
}

fn bits_per_value() -> u32 {
    16
}

/// How the values of a GRIB message are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GribPacking {
    /// Compressed without loss (CCSDS 121.0-B).
    #[default]
    Ccsds,
    /// As they are.
    Simple,
}

/// What GRIB calls a variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written")]
#[schemars(with = "Written")]
pub struct GribParameter {
    /// ECMWF's short name (`2t`) or paramId (`167`) of it.
    pub parameter: String,
    /// Its level, or top and bottom of its layer, or the dimension of its levels; that of the parameter's definition
    /// if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<GribLevel>,
    /// What kind of level that is, in ecCodes' words; these tell its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_of_level: Option<String>,
    /// When the intervals begin of a variable that is summed, averaged or searched for an extreme.
    #[serde(skip_serializing_if = "Since::is_default")]
    pub since: Since,
}

/// A level, or top and bottom of a layer, or levels along a dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a level, or `[top, bottom]` of a layer"
)]
pub enum GribLevel {
    /// A level.
    At(f64),
    /// A layer: its top and its bottom.
    Layer([f64; 2]),
    /// Those that the coordinate of a dimension of the variable says, each a field of its own.
    Along(String),
}

/// When the intervals of a variable begin, which end at their lead times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Since {
    /// One step before.
    #[default]
    Step,
    /// At the start of the forecast.
    Start,
}

impl Since {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// As it stands in YAML: a name alone, or more.
#[derive(Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a short name or paramId, or `parameter`, `level`, `type_of_level` and `since`"
)]
enum Written {
    Name(Name),
    Detailed(Detailed),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Detailed {
    /// ECMWF's short name (`2t`) or paramId (`167`) of it.
    parameter: Name,
    /// Its level, or `[top, bottom]` of its layer, or the name of the dimension along which the variable has levels;
    /// that of the parameter's definition if absent.
    level: Option<GribLevel>,
    /// What kind of level that is, in ecCodes' words, such as `heightAboveGround` (m) or `surface`;
    /// `isobaricInhPa` if absent.
    type_of_level: Option<String>,
    /// When the intervals begin of a variable that is summed, averaged or searched for an extreme: one step before
    /// its lead time (`step`, the default) or at the start of the forecast (`start`).
    #[serde(default)]
    since: Since,
}

/// A short name, or a paramId as a number.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Name {
    Id(u32),
    Text(String),
}

impl Name {
    fn into_text(self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl From<Written> for GribParameter {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(name) => Self::named(&name.into_text()),
            Written::Detailed(detailed) => Self {
                parameter: detailed.parameter.into_text(),
                level: detailed.level,
                type_of_level: detailed.type_of_level,
                since: detailed.since,
            },
        }
    }
}

impl GribParameter {
    /// A parameter whose level is that of its definition.
    pub fn named(name: &str) -> Self {
        Self {
            parameter: name.to_owned(),
            level: None,
            type_of_level: None,
            since: Since::Step,
        }
    }
}

/// The most latitudes between a pole and the equator; finer grids than 1 km.
const MOST_LATITUDES: u32 = 10_000;

/// A reduced Gaussian grid of the whole globe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct GaussianGrid {
    /// Octahedral (`O96`), not classic (`N320`).
    pub is_octahedral: bool,
    /// The number of latitudes between a pole and the equator.
    pub n: u32,
}

/// A text that does not name a grid.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` does not name a reduced Gaussian grid: write `O96` or `N320`")]
pub struct InvalidGrid(String);

impl FromStr for GaussianGrid {
    type Err = InvalidGrid;

    fn from_str(text: &str) -> Result<Self, InvalidGrid> {
        let octahedral = text.strip_prefix('O');
        let digits = octahedral.or_else(|| text.strip_prefix('N'));
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let n = digits.and_then(|digits| digits.parse().ok());
        match n.filter(|n| (1..=MOST_LATITUDES).contains(n)) {
            Some(n) => Ok(Self {
                is_octahedral: octahedral.is_some(),
                n,
            }),
            None => Err(InvalidGrid(text.to_owned())),
        }
    }
}

impl TryFrom<String> for GaussianGrid {
    type Error = InvalidGrid;

    fn try_from(text: String) -> Result<Self, InvalidGrid> {
        text.parse()
    }
}

impl From<GaussianGrid> for String {
    fn from(grid: GaussianGrid) -> Self {
        grid.to_string()
    }
}

impl fmt::Display for GaussianGrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_octahedral { 'O' } else { 'N' };
        write!(f, "{kind}{}", self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_a_name_or_more_and_is_read_as_it_is_written() {
        let read = |json: &str| serde_json::from_str::<GribParameter>(json);
        assert_eq!(read("\"2t\"").unwrap(), GribParameter::named("2t"));
        assert_eq!(read("167").unwrap(), GribParameter::named("167"));
        let detailed = read(
            r#"{"parameter": "vsw", "level": [0, 7], "type_of_level": "depthBelowLandLayer", "since": "start"}"#,
        );
        let detailed = detailed.unwrap();
        assert_eq!(detailed.level, Some(GribLevel::Layer([0.0, 7.0])));
        assert_eq!(detailed.since, Since::Start);
        let along = read(r#"{"parameter": "t", "level": "pressure"}"#).unwrap();
        let dimension = GribLevel::Along("pressure".to_owned());
        assert_eq!(along.level, Some(dimension));
        for parameter in [detailed, along, GribParameter::named("2t")] {
            let json = serde_json::to_string(&parameter).unwrap();
            assert_eq!(read(&json).unwrap(), parameter);
        }
        let error = read(r#"{"parameter": "t", "levle": 850}"#).unwrap_err();
        assert!(error.to_string().contains("short name"), "{error}");
    }

    #[test]
    fn grids_round_trip_and_nonsense_is_refused() {
        for name in ["O96", "N320"] {
            assert_eq!(name.parse::<GaussianGrid>().unwrap().to_string(), name);
        }
        for wrong in ["", "O", "F320", "O0", "O-1", "O+1", "N99999", "o96", "320"] {
            assert!(wrong.parse::<GaussianGrid>().is_err(), "{wrong}");
        }
    }
}

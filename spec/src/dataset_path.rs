//! The path of a dataset in a store:
//! `<model_name>/<model_config>/<bbox>/<resolution>/<analysis_time>/member<member>/<data_kind>.zarr`.
//!
//! Building and parsing are inverse for every finite number.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::number::{InvalidNumber, Number};

use crate::AnalysisTime;

/// What ends the path of a dataset.
const SUFFIX: &str = ".zarr";

/// Corners of an area, in degrees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BoundingBox {
    /// Western edge.
    pub lon_min: Number,
    /// Southern edge.
    pub lat_min: Number,
    /// Eastern edge.
    pub lon_max: Number,
    /// Northern edge.
    pub lat_max: Number,
}

/// Distance between grid points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// From west to east.
    pub lon_resolution: Number,
    /// From south to north.
    pub lat_resolution: Number,
    /// Unit of both.
    pub unit: Unit,
}

/// Unit of a resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Metres.
    M,
    /// Kilometres.
    Km,
    /// Degrees.
    Deg,
}

/// Everything that the path of a dataset says. Its text form is the path relative to the bucket or
/// base URI; [`DatasetPath::relative_path`] also checks that the names fit into it.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetPath {
    /// Model that made the dataset.
    pub model_name: String,
    /// Configuration of that model.
    pub model_config: String,
    /// Area.
    pub bbox: BoundingBox,
    /// Resolution.
    pub resolution: Resolution,
    /// Analysis time.
    pub analysis_time: AnalysisTime,
    /// Ensemble member.
    pub member: u32,
    /// Kind of data, `pressure_levels`.
    pub data_kind: String,
}

/// A text that is not the path of a dataset, or a part that cannot stand in one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDatasetPath {
    /// Not seven parts, or no `.zarr`.
    #[error(
        "`{0}` is not the path of a dataset: it has the form <model_name>/<model_config>/<bbox>/\
         <resolution>/<analysis_time>/member<member>/<data_kind>.zarr"
    )]
    Form(String),
    /// A name that would change the meaning of the path.
    #[error(
        "`{name}` cannot be the {field} of a dataset path: give a name that neither is empty, nor \
         starts with a dot, nor holds `..`, `/`, `\\`, `?`, `#`, `%`, `*`, braces, white space or \
         control characters"
    )]
    Name {
        /// `model_name`, `model_config` or `data_kind`.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A bounding box in another form.
    #[error(
        "`{0}` is not a bounding box: it has the form w<lon_min>_s<lat_min>_e<lon_max>_n<lat_max>, like w-10p5_s35p0_e10p5_n45p0"
    )]
    BoundingBox(String),
    /// A resolution in another form.
    #[error(
        "`{0}` is not a resolution: it has the form dx<lon><unit>_dy<lat><unit> with the unit m, km or deg, like dx2p5km_dy2p5km"
    )]
    Resolution(String),
    /// An analysis time in another form.
    #[error("`{0}` is not an analysis time: in a path it is written like 2025-09-22T1200Z")]
    AnalysisTime(String),
    /// A member in another form.
    #[error("`{0}` is not a member: in a path it is written like member0")]
    Member(String),
    /// NaN or infinity.
    #[error(transparent)]
    Number(#[from] InvalidNumber),
}

impl DatasetPath {
    /// The path, after checking that every name and number can stand in it.
    pub fn relative_path(&self) -> Result<String, InvalidDatasetPath> {
        check_name("model_name", &self.model_name)?;
        check_name("model_config", &self.model_config)?;
        check_name("data_kind", &self.data_kind)?;
        self.bbox.check()?;
        self.resolution.check()?;
        Ok(self.to_string())
    }
}

impl BoundingBox {
    fn check(&self) -> Result<(), InvalidNumber> {
        [self.lon_min, self.lat_min, self.lon_max, self.lat_max]
            .into_iter()
            .try_for_each(Number::check)
    }
}

impl Resolution {
    fn check(&self) -> Result<(), InvalidNumber> {
        self.lon_resolution.check()?;
        self.lat_resolution.check()
    }
}

/// Whether `name` can be one part of a path in every store: it must not climb out of its folder,
/// and must mean the same in a URI as in a file system.
pub fn is_plain_name(name: &str) -> bool {
    let special = |c: char| {
        c.is_control()
            || c.is_whitespace()
            || matches!(c, '/' | '\\' | '?' | '#' | '%' | '*' | '{' | '}')
    };
    !name.is_empty() && !name.starts_with('.') && !name.contains("..") && !name.contains(special)
}

fn check_name(field: &'static str, name: &str) -> Result<(), InvalidDatasetPath> {
    match is_plain_name(name) {
        true => Ok(()),
        false => Err(InvalidDatasetPath::Name {
            field,
            name: name.to_owned(),
        }),
    }
}

impl fmt::Display for DatasetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}/{}/member{}/{}{SUFFIX}",
            self.model_name,
            self.model_config,
            self.bbox,
            self.resolution,
            self.analysis_time.path_text(),
            self.member,
            self.data_kind,
        )
    }
}

impl FromStr for DatasetPath {
    type Err = InvalidDatasetPath;

    fn from_str(text: &str) -> Result<Self, InvalidDatasetPath> {
        let form = || InvalidDatasetPath::Form(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let [name, config, bbox, resolution, time, member, file] = parts.as_slice() else {
            return Err(form());
        };
        let data_kind = file.strip_suffix(SUFFIX).ok_or_else(form)?;
        check_name("model_name", name)?;
        check_name("model_config", config)?;
        check_name("data_kind", data_kind)?;
        Ok(Self {
            model_name: (*name).to_owned(),
            model_config: (*config).to_owned(),
            bbox: bbox.parse()?,
            resolution: resolution.parse()?,
            analysis_time: parse_time(time)?,
            member: parse_member(member)?,
            data_kind: data_kind.to_owned(),
        })
    }
}

/// Only the one way in which a path writes a time, so that a dataset has one path.
fn parse_time(text: &str) -> Result<AnalysisTime, InvalidDatasetPath> {
    text.parse::<AnalysisTime>()
        .ok()
        .filter(|time| time.path_text() == text)
        .ok_or_else(|| InvalidDatasetPath::AnalysisTime(text.to_owned()))
}

fn parse_member(text: &str) -> Result<u32, InvalidDatasetPath> {
    text.strip_prefix("member")
        .and_then(|digits| digits.parse::<u32>().ok())
        .filter(|member| format!("member{member}") == text)
        .ok_or_else(|| InvalidDatasetPath::Member(text.to_owned()))
}

impl fmt::Display for BoundingBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "w{}_s{}_e{}_n{}",
            self.lon_min.path_text(),
            self.lat_min.path_text(),
            self.lon_max.path_text(),
            self.lat_max.path_text(),
        )
    }
}

impl FromStr for BoundingBox {
    type Err = InvalidDatasetPath;

    fn from_str(text: &str) -> Result<Self, InvalidDatasetPath> {
        let form = || InvalidDatasetPath::BoundingBox(text.to_owned());
        let parts: Vec<&str> = text.split('_').collect();
        let [west, south, east, north] = parts.as_slice() else {
            return Err(form());
        };
        let edge = |part: &str, prefix: char| {
            let digits = part.strip_prefix(prefix).ok_or_else(form)?;
            Number::from_path_text(digits).ok_or_else(form)
        };
        Ok(Self {
            lon_min: edge(west, 'w')?,
            lat_min: edge(south, 's')?,
            lon_max: edge(east, 'e')?,
            lat_max: edge(north, 'n')?,
        })
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit.as_str();
        write!(
            f,
            "dx{}{unit}_dy{}{unit}",
            self.lon_resolution.path_text(),
            self.lat_resolution.path_text(),
        )
    }
}

impl FromStr for Resolution {
    type Err = InvalidDatasetPath;

    fn from_str(text: &str) -> Result<Self, InvalidDatasetPath> {
        let form = || InvalidDatasetPath::Resolution(text.to_owned());
        let (lon, lat) = text.split_once('_').ok_or_else(form)?;
        let lon = lon.strip_prefix("dx").ok_or_else(form)?;
        let lat = lat.strip_prefix("dy").ok_or_else(form)?;
        let unit = Unit::ending(lon).ok_or_else(form)?;
        let number = |part: &str| {
            let digits = part.strip_suffix(unit.as_str()).ok_or_else(form)?;
            Number::from_path_text(digits).ok_or_else(form)
        };
        Ok(Self {
            lon_resolution: number(lon)?,
            lat_resolution: number(lat)?,
            unit,
        })
    }
}

impl Unit {
    /// As written in paths and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::M => "m",
            Self::Km => "km",
            Self::Deg => "deg",
        }
    }

    /// The unit that `text` ends with; `km` before `m`, which it ends with too.
    fn ending(text: &str) -> Option<Self> {
        [Self::Km, Self::Deg, Self::M]
            .into_iter()
            .find(|unit| text.ends_with(unit.as_str()))
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;

//! What a store should be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::Fault;

/// A schema as it stands in a YAML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Schema {
    #[serde(default)]
    pub(super) times: ExpectedTimes,
    /// The length of each dimension.
    #[serde(default)]
    pub(super) lengths: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) variables: BTreeMap<String, Expected>,
    /// Whether there may be variables that the schema does not name.
    #[serde(default)]
    pub(super) others: Permission,
}

/// The times that a store should have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedTimes {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) step: Option<String>,
}

/// What a variable should be; what is not said is not checked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    pub(super) dims: Option<Vec<String>>,
    /// As it is stored: `float32`.
    #[serde(rename = "type")]
    pub(super) type_name: Option<String>,
    pub(super) units: Option<String>,
    /// Least and greatest value.
    pub(super) range: Option<[f64; 2]>,
    #[serde(default)]
    pub(super) missing: Missing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Missing {
    #[default]
    Refuse,
    Allow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Permission {
    #[default]
    Allow,
    Refuse,
}

impl Schema {
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let text = fs::read_to_string(path).map_err(|source| Fault::Read {
            path: path.to_owned(),
            source,
        })?;
        let invalid = |reason: String| {
            Fault::Usage(format!(
                "the schema {} is not valid: {reason}",
                path.display()
            ))
        };
        let schema: Self =
            serde_saphyr::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        schema.times.parse().map_err(invalid)?;
        Ok(schema)
    }
}

/// Times in seconds since 1970, a step in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moments {
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
    pub(super) step: Option<i64>,
}

impl ExpectedTimes {
    pub(super) fn parse(&self) -> Result<Moments, String> {
        Ok(Moments {
            from: self.from.as_deref().map(time).transpose()?,
            to: self.to.as_deref().map(time).transpose()?,
            step: self.step.as_deref().map(step).transpose()?,
        })
    }
}

/// A time in UTC: `2020-02-01T06:00Z`, `2020-02-01`.
pub(crate) fn time(text: &str) -> Result<i64, String> {
    let expected = || format!("`{text}` is not a time: write `2020-02-01T06:00Z`");
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_second());
    }
    let plain = text.strip_suffix('Z').unwrap_or(text);
    let time: DateTime = plain.parse().map_err(|_| expected())?;
    let zoned = time.to_zoned(TimeZone::UTC).map_err(|_| expected())?;
    Ok(zoned.timestamp().as_second())
}

fn step(text: &str) -> Result<i64, String> {
    let expected = || format!("`{text}` is not a step: write `6h`");
    let step: SignedDuration = text.parse().map_err(|_| expected())?;
    match step.as_secs() {
        seconds if seconds > 0 && step.subsec_nanos() == 0 => Ok(seconds),
        _ => Err(expected()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_and_steps() {
        assert_eq!(time("1970-01-02"), Ok(86_400));
        assert_eq!(time("1970-01-01T06:00"), Ok(21_600));
        assert_eq!(time("1970-01-01T06:00Z"), Ok(21_600));
        assert_eq!(time("1970-01-01T06:00:00+01:00"), Ok(18_000));
        assert_eq!(step("6h"), Ok(21_600));
        assert_eq!(step("24h"), Ok(86_400));
        for bad in ["", "soon", "1970-13-01"] {
            assert!(time(bad).is_err() && step(bad).is_err(), "{bad}");
        }
        assert!(step("-6h").is_err() && step("1500ms").is_err());
    }
}

//! Sizes in bytes, as people write them: `512MiB`, `4GiB`, `2GB`, `1024`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "Written", into = "String")]
pub struct ByteSize(pub u64);

/// A text that is not a size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a size: write a whole number with a unit, like `512MiB`, `4GiB` or `2GB`")]
pub struct InvalidByteSize(String);

const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

/// As it stands in YAML: a bare number of bytes or a text.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a size like `512MiB`, `4GiB` or `2GB`")]
enum Written {
    Number(u64),
    Text(String),
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let trimmed = text.trim();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((trimmed.strip_suffix(name)?, *unit)))
            .unwrap_or((trimmed.strip_suffix('B').unwrap_or(trimmed), 1));
        digits
            .trim_end()
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| InvalidByteSize(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS
            .iter()
            .filter(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
            .max_by_key(|(_, unit)| *unit);
        match exact {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<Written> for ByteSize {
    type Error = InvalidByteSize;

    fn try_from(written: Written) -> Result<Self, InvalidByteSize> {
        match written {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_units() {
        for (text, bytes, shown) in [
            ("512MiB", 512 << 20, "512MiB"),
            ("4 GiB", 4 << 30, "4GiB"),
            ("2GB", 2_000_000_000, "2GB"),
            ("1000B", 1000, "1kB"),
            ("17", 17, "17"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(
                (size.0, size.to_string().as_str()),
                (bytes, shown),
                "{text}"
            );
        }
        for bad in ["", "GiB", "-1GiB", "1.5GiB", "lots", "99999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}

//! Ensemble members: `0`, `0-49`, `1-5,7,10-12`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest member number, so that a slip of the finger does not plan a million tasks.
const LARGEST: u32 = 9_999;

/// A set of ensemble members, at least one; 0 is the control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Written", into = "String")]
pub struct Members(BTreeSet<u32>);

/// A text that does not name members.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` does not name members: write `0`, `0-49` or `1-5,7,10-12`, up to {LARGEST}")]
pub struct InvalidMembers(String);

/// As it stands in YAML: a bare number or a text.
#[derive(Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected members like `0`, `0-49` or `1-5,7,10-12`"
)]
enum Written {
    Number(u32),
    Text(String),
}

impl Members {
    /// The control member alone.
    pub fn control() -> Self {
        Self(BTreeSet::from([0]))
    }

    /// These members; `None` if there is none of them.
    pub fn of(members: impl IntoIterator<Item = u32>) -> Option<Self> {
        let members: BTreeSet<u32> = members.into_iter().collect();
        (!members.is_empty()).then_some(Self(members))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl FromStr for Members {
    type Err = InvalidMembers;

    fn from_str(text: &str) -> Result<Self, InvalidMembers> {
        let invalid = || InvalidMembers(text.to_owned());
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u32>()
                .ok()
                .filter(|n| digits && *n <= LARGEST)
                .ok_or_else(invalid)
        };
        let mut members = BTreeSet::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first.trim())?, number(last.trim())?);
            if first > last {
                return Err(invalid());
            }
            members.extend(first..=last);
        }
        Ok(Self(members))
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for member in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == member => *last = member,
                _ => ranges.push((member, member)),
            }
        }
        let parts: Vec<String> = ranges
            .into_iter()
            .map(|(first, last)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            })
            .collect();
        f.write_str(&parts.join(","))
    }
}

impl TryFrom<Written> for Members {
    type Error = InvalidMembers;

    fn try_from(written: Written) -> Result<Self, InvalidMembers> {
        match written {
            Written::Number(number) => number.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Members> for String {
    fn from(members: Members) -> Self {
        members.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_ranges() {
        for (text, expected) in [("0", "0"), ("0-3", "0-3"), ("10-12,1-5, 7", "1-5,7,10-12")] {
            assert_eq!(text.parse::<Members>().unwrap().to_string(), expected);
        }
        for bad in ["", "a", "3-1", "-1", "1,,2", "0-10000", "+1"] {
            assert!(bad.parse::<Members>().is_err(), "{bad}");
        }
    }
}

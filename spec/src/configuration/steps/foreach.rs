//! What a step is repeated over: `month in 2020-02..2022-12`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::StepProblem;
use super::expand::Files;
use super::value::{Calendar, Value};
use crate::Members;
use crate::dataset_path::is_plain_name;

/// So many repetitions at most, so that a slip of the finger does not plan a million tasks.
const MOST: usize = 10_000;
/// Names that stand for something else in texts.
const RESERVED: [&str; 3] = ["analysis_time", "inputs", "outputs"];

/// What a step is repeated over, and what its texts call it: `month in 2020-02..2022-12` (or `year`, `day`),
/// `member in 0-49`, `window in 0-792 by 72` (hours of lead time), `file in ./data/*.grib`, or a list,
/// `param in t2m, swvl1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Foreach {
    text: String,
    variable: String,
    over: Over,
}

#[derive(Clone, Debug, PartialEq)]
enum Over {
    Values(Vec<Value>),
    Members(Members),
    /// Those whose URIs are like this.
    Files(String),
}

/// A text that does not say what to repeat over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidForeach {
    /// Not of the form.
    #[error(
        "`{0}` does not say what to repeat over: write `month in 2020-02..2022-12` (or `year`, `day`), `member in 0-49`, `window in 0-792 by 72`, `file in ./data/*.grib`, or a list `name in a, b`"
    )]
    Form(String),
    /// A name that has another meaning.
    #[error(
        "`{0}` cannot be what a step is repeated over: use a name of small letters, digits and `_`"
    )]
    Variable(String),
    /// One value that cannot be used.
    #[error("`{0}` cannot be used: use letters, digits, `_`, `-`, `+` and `.`, and name each once")]
    Value(String),
    /// A pattern that is none.
    #[error(
        "`{0}` is no pattern of files: write a place with one `*` in its last part, `s3://bucket/data/*.grib`"
    )]
    Pattern(String),
    /// Too many.
    #[error("`{0}` is more than {MOST} repetitions: make several steps of it")]
    TooMany(String),
}

impl Foreach {
    /// What texts call it.
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// The members that it goes over, if it does.
    pub fn members(&self) -> Option<&Members> {
        match &self.over {
            Over::Members(members) => Some(members),
            _ => None,
        }
    }

    /// The pattern of the files that it goes over, if it does.
    pub fn pattern(&self) -> Option<&str> {
        match &self.over {
            Over::Files(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// All that it goes over; of patterns, what `files` says that there is.
    pub(super) fn values(&self, files: &Files) -> Result<Vec<Value>, StepProblem> {
        match &self.over {
            Over::Values(values) => Ok(values.clone()),
            Over::Members(members) => Ok(members.iter().map(Value::Member).collect()),
            Over::Files(pattern) => {
                let names = files.get(pattern).filter(|names| !names.is_empty());
                let names = names.ok_or_else(|| StepProblem::NoFiles(pattern.clone()))?;
                if let Some(name) = names.iter().find(|name| !is_plain_name(name)) {
                    return Err(StepProblem::FileName {
                        name: name.escape_debug().to_string(),
                        pattern: pattern.clone(),
                    });
                }
                Ok(names.iter().cloned().map(Value::File).collect())
            }
        }
    }
}

impl FromStr for Foreach {
    type Err = InvalidForeach;

    fn from_str(text: &str) -> Result<Self, InvalidForeach> {
        let form = || InvalidForeach::Form(text.to_owned());
        let (variable, over) = text.split_once(" in ").ok_or_else(form)?;
        let (variable, over) = (variable.trim(), over.trim());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let is_name =
            variable.starts_with(|c: char| c.is_ascii_lowercase()) && variable.chars().all(plain);
        if !is_name || RESERVED.contains(&variable) {
            return Err(InvalidForeach::Variable(variable.to_owned()));
        }
        let over = match (variable, Calendar::of(variable)) {
            (_, Some(calendar)) => {
                let (from, to) = over.split_once("..").unwrap_or((over, over));
                let from = calendar.parse(from.trim()).ok_or_else(form)?;
                let to = calendar
                    .parse(to.trim())
                    .filter(|to| *to >= from)
                    .ok_or_else(form)?;
                let all = calendar.all(from, to, MOST);
                Over::Values(all.ok_or_else(|| InvalidForeach::TooMany(text.to_owned()))?)
            }
            ("member", _) => Over::Members(over.parse().map_err(|_| form())?),
            ("window", _) => Over::Values(windows(over).ok_or_else(form)?),
            ("file", _) => Over::Files(pattern(over)?),
            _ => Over::Values(list(over)?),
        };
        Ok(Self {
            text: text.to_owned(),
            variable: variable.to_owned(),
            over,
        })
    }
}

/// `0-792 by 72`: windows of so many hours, the last of which may be shorter.
fn windows(text: &str) -> Option<Vec<Value>> {
    let (hours, length) = text.split_once(" by ")?;
    let (from, to) = hours.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (from, to, length) = (number(from)?, number(to)?, number(length)?);
    if from >= to || length == 0 || (to - from) / length >= MOST as u64 {
        return None;
    }
    let length = usize::try_from(length).ok()?;
    let starts = (from..to).step_by(length);
    let windows = starts.map(|from| Value::Window {
        from,
        to: to.min(from + length as u64),
    });
    Some(windows.collect())
}

fn pattern(text: &str) -> Result<String, InvalidForeach> {
    let folder = text.rsplit_once('/').map(|(folder, _)| folder);
    let is_pattern =
        text.matches('*').count() == 1 && folder.is_some_and(|folder| !folder.contains('*'));
    match is_pattern && !text.contains(['{', '}']) {
        true => Ok(text.to_owned()),
        false => Err(InvalidForeach::Pattern(text.to_owned())),
    }
}

fn list(text: &str) -> Result<Vec<Value>, InvalidForeach> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.');
    let mut seen = BTreeSet::new();
    let mut values = Vec::new();
    for name in text.split(',').map(str::trim) {
        let is_name = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
        if !is_name || !seen.insert(name) {
            return Err(InvalidForeach::Value(name.to_owned()));
        }
        values.push(Value::Text(name.to_owned()));
    }
    match values.len() > MOST {
        true => Err(InvalidForeach::TooMany(text.to_owned())),
        false => Ok(values),
    }
}

impl fmt::Display for Foreach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Foreach {
    type Error = InvalidForeach;

    fn try_from(text: String) -> Result<Self, InvalidForeach> {
        text.parse()
    }
}

impl From<Foreach> for String {
    fn from(foreach: Foreach) -> Self {
        foreach.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let foreach: Foreach = text.parse().unwrap();
        let values = foreach.values(&Files::new()).unwrap();
        values.iter().map(Value::name).collect()
    }

    #[test]
    fn all_kinds_of_repetition_are_read() {
        assert_eq!(
            names("month in 2020-12..2021-02"),
            ["2020-12", "2021-01", "2021-02"]
        );
        assert_eq!(names("month in 2020-12"), ["2020-12"]);
        assert_eq!(names("day in 2020-02-28..2020-03-01").len(), 3);
        assert_eq!(names("year in 2010..2012"), ["2010", "2011", "2012"]);
        assert_eq!(names("member in 0-2,7"), ["0", "1", "2", "7"]);
        assert_eq!(names("window in 0-100 by 72"), ["h000-072", "h072-100"]);
        assert_eq!(names("param in t2m, swvl1"), ["t2m", "swvl1"]);
        let files: Foreach = "file in s3://b/data/*.grib".parse().unwrap();
        assert_eq!(files.pattern(), Some("s3://b/data/*.grib"));
        let there = Files::from([("s3://b/data/*.grib".to_owned(), vec!["a.grib".to_owned()])]);
        assert_eq!(
            files.values(&there),
            Ok(vec![Value::File("a.grib".to_owned())])
        );
        let none = files.values(&Files::new());
        assert!(matches!(none, Err(StepProblem::NoFiles(_))));
        // What cannot be a repetition is not left out.
        let spaced = Files::from([(
            "s3://b/data/*.grib".to_owned(),
            vec!["a.grib".to_owned(), "a b.grib".to_owned()],
        )]);
        let error = files.values(&spaced).unwrap_err();
        assert!(matches!(&error, StepProblem::FileName { name, .. } if name == "a b.grib"));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "",
            "month",
            "month in",
            "month in 2020-13..2021-01",
            "month in 2021-01..2020-01",
            "month in 2020-1..2020-2",
            "day in 1700-01-01..2020-01-01",
            "member in a",
            "window in 0-72",
            "window in 72-0 by 6",
            "window in 0-72 by 0",
            "file in ./a.grib",
            "file in ./*/a.grib",
            "file in *.grib",
            "file in ./{month}/*.grib",
            "inputs in a, b",
            "Param in a",
            "param in a, a",
            "param in a/b",
            "param in ..",
            "param in a,",
        ] {
            assert!(wrong.parse::<Foreach>().is_err(), "{wrong}");
        }
    }
}

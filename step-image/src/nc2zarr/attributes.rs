//! The attributes of several files: those of the first file that has them are kept, and others are told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mlwm_datasets::NetCdfFile;
use serde_json::{Map, Value};

use crate::Error;

/// Differs in all files, and says what was done with them: it is only told that it does.
const HISTORY: &str = "history";

/// As many files that have an attribute otherwise are named; of others, how many there are.
const SHOWN: usize = 3;

/// Ranges outside of which values are not valid.
const RANGES: [&str; 3] = ["valid_range", "valid_min", "valid_max"];

/// What attributes are of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Files,
    Variable(String),
}

/// The attributes of several files.
#[derive(Debug, Default)]
pub(crate) struct Attributes(BTreeMap<Owner, Kept>);

/// A value, none where it is not there, with the files that say so.
type Other = (Option<Value>, Vec<PathBuf>);

/// Those that are kept, and what other files say.
#[derive(Debug)]
struct Kept {
    attributes: Map<String, Value>,
    file: PathBuf,
    /// By attribute.
    others: BTreeMap<String, Vec<Other>>,
}

impl Attributes {
    /// Adds those of a file.
    pub(crate) fn add(&mut self, owner: Owner, attributes: Map<String, Value>, file: &Path) {
        let Some(kept) = self.0.get_mut(&owner) else {
            let kept = Kept {
                attributes,
                file: file.to_owned(),
                others: BTreeMap::new(),
            };
            self.0.insert(owner, kept);
            return;
        };
        let names: BTreeSet<&String> = kept.attributes.keys().chain(attributes.keys()).collect();
        for name in names {
            let value = attributes.get(name);
            if kept.attributes.get(name) == value {
                continue;
            }
            let others = kept.others.entry(name.clone()).or_default();
            match others.iter_mut().find(|other| other.0.as_ref() == value) {
                Some((_, files)) => files.push(file.to_owned()),
                None => others.push((value.cloned(), vec![file.to_owned()])),
            }
        }
    }

    /// Those that are kept.
    pub(crate) fn of(&self, owner: &Owner) -> Map<String, Value> {
        let kept = self.0.get(owner);
        kept.map_or_else(Map::new, |kept| kept.attributes.clone())
    }

    /// What is not kept: a sentence for each attribute.
    pub(crate) fn notes(&self) -> Vec<String> {
        let of_owner = |(owner, kept): (&Owner, &Kept)| -> Vec<String> {
            let others = kept.others.iter();
            others
                .map(|(name, others)| kept.note(owner, name, others))
                .collect()
        };
        self.0.iter().flat_map(of_owner).collect()
    }
}

impl Kept {
    fn note(&self, owner: &Owner, name: &str, others: &[Other]) -> String {
        let of = match owner {
            Owner::Files => "of the files".to_owned(),
            Owner::Variable(variable) => format!("of `{variable}`"),
        };
        let first = self.file.display();
        if *owner == Owner::Files && name == HISTORY {
            let count: usize = others.iter().map(|(_, files)| files.len()).sum();
            return format!(
                "the attribute `{name}` {of} is kept as it is in `{first}`; in {count} more file(s) it differs"
            );
        }
        let (mut left, mut more, mut each) = (SHOWN, 0, Vec::new());
        for (value, files) in others {
            let shown = &files[..files.len().min(left)];
            (left, more) = (left - shown.len(), more + files.len() - shown.len());
            let files: Vec<String> = shown
                .iter()
                .map(|file| format!("`{}`", file.display()))
                .collect();
            if !files.is_empty() {
                each.push(format!("{} in {}", text(value.as_ref()), files.join(", ")));
            }
        }
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "the attribute `{name}` {of} is {} in `{first}`, which is kept, but {}{more}",
            text(self.attributes.get(name)),
            each.join("; ")
        )
    }
}

fn text(value: Option<&Value>) -> String {
    value.map_or_else(|| "not there".to_owned(), Value::to_string)
}

/// What attributes say of decoded values: ranges of integers, which are of the values as they are packed, are decoded,
/// too. Those of floats are of decoded values by the CF conventions.
pub(crate) fn described(file: &NetCdfFile, name: &str) -> Result<Map<String, Value>, Error> {
    let mut attributes = file.decoded_attributes(name)?;
    for range in RANGES {
        let ends = match attributes.get_mut(range) {
            Some(Value::Array(ends)) => ends.as_mut_slice(),
            Some(end) => std::slice::from_mut(end),
            None => continue,
        };
        for end in ends {
            if let Some(packed) = end.as_i64() {
                *end = file.decoded_number(name, packed)?;
            }
        }
    }
    Ok(attributes)
}

/// What is kept of the attributes of a coordinate of time: how it is counted is written anew, and its bounds and what is
/// in its old units are not.
pub(crate) fn of_time(mut attributes: Map<String, Value>) -> Map<String, Value> {
    const COUNTED: [&str; 10] = [
        "units",
        "calendar",
        "bounds",
        "climatology",
        "actual_range",
        "valid_range",
        "valid_min",
        "valid_max",
        "time_origin",
        "delta_t",
    ];
    attributes.retain(|name, _| !COUNTED.contains(&name.as_str()));
    attributes
}

/// Tells of the variables with ranges, which are not applied.
pub(super) fn unapplied_ranges<'a>(
    variables: impl Iterator<Item = (&'a String, &'a Map<String, Value>)>,
) -> Vec<String> {
    let note = |(name, attributes): (&String, &Map<String, Value>)| {
        let range = RANGES
            .iter()
            .find(|range| attributes.contains_key(**range))?;
        Some(format!(
            "`{name}` has a {range}, which is kept, but values outside of it are not made missing"
        ))
    };
    variables.filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn of_many_files_three_are_named() {
        let mut attributes = Attributes::default();
        for number in 0..10 {
            let own = match number {
                0 => json!({"comment": "one", "date": 0}),
                1..3 => json!({"comment": "two", "date": number}),
                _ => json!({"comment": "three", "date": number}),
            };
            attributes.add(Owner::Files, map(&own), Path::new(&number.to_string()));
        }
        assert_eq!(
            attributes.notes(),
            [
                "the attribute `comment` of the files is \"one\" in `0`, which is kept, but \"two\" in `1`, `2`; \
                 \"three\" in `3` and 6 more",
                "the attribute `date` of the files is 0 in `0`, which is kept, but 1 in `1`; 2 in `2`; 3 in `3` and 6 more",
            ]
        );
    }

    #[test]
    fn each_attribute_that_differs_is_told_with_its_files() {
        let mut attributes = Attributes::default();
        let air = Owner::Variable("Tair".to_owned());
        for (file, own, of_air) in [
            (
                "a",
                json!({"history": "x", "title": "t"}),
                json!({"comment": "one"}),
            ),
            (
                "b",
                json!({"history": "y", "title": "t"}),
                json!({"comment": "two", "note": 3}),
            ),
            (
                "c",
                json!({"history": "z", "title": "t"}),
                json!({"comment": "two"}),
            ),
            ("d", json!({"history": "x"}), json!({"comment": "one"})),
        ] {
            attributes.add(Owner::Files, map(&own), Path::new(file));
            attributes.add(air.clone(), map(&of_air), Path::new(file));
        }
        assert_eq!(attributes.of(&air), map(&json!({"comment": "one"})));
        assert_eq!(
            attributes.notes(),
            [
                "the attribute `history` of the files is kept as it is in `a`; in 2 more file(s) it differs",
                "the attribute `title` of the files is \"t\" in `a`, which is kept, but not there in `d`",
                "the attribute `comment` of `Tair` is \"one\" in `a`, which is kept, but \"two\" in `b`, `c`",
                "the attribute `note` of `Tair` is not there in `a`, which is kept, but 3 in `b`",
            ]
        );
    }
}

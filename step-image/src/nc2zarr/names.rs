//! What variables are called in the result.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::Arguments;

/// Attributes that name other variables.
const NAMING: [&str; 4] = [
    "coordinates",
    "bounds",
    "grid_mapping",
    "ancillary_variables",
];

/// Another name for a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    pub(crate) old: String,
    new: String,
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok(Self {
                old: old.to_owned(),
                new: new.to_owned(),
            }),
            _ => Err("write the old and the new name, such as `Tair=met_tair`".to_owned()),
        }
    }
}

/// What a variable is called in the result.
pub(crate) fn renamed(name: &str, is_coordinate: bool, arguments: &Arguments) -> String {
    let rename = arguments.renames.iter().find(|rename| rename.old == name);
    match (rename, is_coordinate) {
        (Some(rename), _) => rename.new.clone(),
        (None, true) => name.to_owned(),
        (None, false) => {
            let rest = match arguments.lowercase {
                true => name.to_lowercase(),
                false => name.to_owned(),
            };
            format!("{}{rest}", arguments.prefix)
        }
    }
}

/// Renames the variables that attributes name; those that are not in the result are left out.
pub(crate) fn rename_named(
    attributes: &mut Map<String, Value>,
    new_name: impl Fn(&str) -> Option<String>,
) {
    for naming in NAMING {
        let Some(Value::String(names)) = attributes.get(naming) else {
            continue;
        };
        let new: Vec<String> = names.split_whitespace().filter_map(&new_name).collect();
        match new.is_empty() {
            true => {
                attributes.remove(naming);
            }
            false => {
                attributes.insert(naming.to_owned(), new.join(" ").into());
            }
        }
    }
}

/// Whether attributes say that these are longitudes or latitudes.
pub(crate) fn is_place(attributes: &Map<String, Value>) -> bool {
    let is_one_of = |name: &str, texts: &[&str]| {
        let text = attributes.get(name).and_then(Value::as_str);
        text.is_some_and(|text| texts.contains(&text))
    };
    is_one_of("standard_name", &["latitude", "longitude"])
        || is_one_of("units", &["degrees_north", "degrees_east"])
}

/// The variables that attributes name.
pub(crate) fn named(attributes: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let texts = NAMING
        .iter()
        .filter_map(|naming| attributes.get(*naming)?.as_str());
    texts.flat_map(str::split_whitespace)
}

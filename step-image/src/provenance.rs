//! Where the values of a variable are from: what GRIB messages say of who made them, and how.

use std::collections::BTreeSet;

use mlwm_grib::{Header, Mars};
use serde_json::{Map, Value, json};

/// The attributes of provenance, as cfgrib calls them. Parts of a variable may differ in them.
const KEYS: [&str; 11] = [
    "GRIB_edition",
    "GRIB_centre",
    "GRIB_subCentre",
    "GRIB_dataType",
    "GRIB_stepType",
    "GRIB_typeOfLevel",
    "GRIB_shortName",
    "GRIB_class",
    "GRIB_stream",
    "GRIB_expver",
    "GRIB_generatingProcessIdentifier",
];

/// Those that the store has as well, where all variables agree: cfgrib writes the first three on the dataset.
pub(crate) const OF_STORE: [&str; 7] = [
    "GRIB_edition",
    "GRIB_centre",
    "GRIB_subCentre",
    "GRIB_dataType",
    "GRIB_class",
    "GRIB_stream",
    "GRIB_expver",
];

/// What a message says of who made its field, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    edition: u8,
    centre: String,
    sub_centre: i64,
    data_type: Option<String>,
    step_type: String,
    level_type: String,
    short_name: String,
    mars: Option<Mars>,
    generating_process: Option<u32>,
}

impl Origin {
    pub(crate) fn of(header: &Header) -> Self {
        Self {
            edition: header.edition,
            centre: header.centre.clone(),
            sub_centre: header.sub_centre,
            data_type: header.data_type.clone(),
            step_type: header.step_type.clone(),
            level_type: header.level.kind.clone(),
            short_name: header.short_name.clone(),
            mars: header.mars.clone(),
            generating_process: header.generating_process,
        }
    }

    /// Whether a message says the same; of thousands, nearly all do.
    pub(crate) fn is_of(&self, header: &Header) -> bool {
        self.edition == header.edition
            && self.centre == header.centre
            && self.sub_centre == header.sub_centre
            && self.data_type == header.data_type
            && self.step_type == header.step_type
            && self.level_type == header.level.kind
            && self.short_name == header.short_name
            && self.mars == header.mars
            && self.generating_process == header.generating_process
    }

    /// The value of each of [`KEYS`]; null of one that the message has not.
    fn values(&self) -> [Value; 11] {
        let mars = |of: fn(&Mars) -> &String| self.mars.as_ref().map(of);
        [
            json!(self.edition),
            json!(self.centre),
            json!(self.sub_centre),
            json!(self.data_type),
            json!(self.step_type),
            json!(self.level_type),
            json!(self.short_name),
            json!(mars(|mars| &mars.class)),
            json!(mars(|mars| &mars.stream)),
            json!(mars(|mars| &mars.expver)),
            json!(self.generating_process),
        ]
    }
}

/// The attributes that say where a variable is from: the value of each, or a list of its values where they differ.
/// The notes say which do.
pub(crate) fn attributes(
    name: &str,
    origins: &BTreeSet<&Origin>,
    notes: &mut Vec<String>,
) -> Map<String, Value> {
    let values: Vec<[Value; 11]> = origins.iter().map(|origin| origin.values()).collect();
    let mut attributes = Map::new();
    for (at, key) in KEYS.iter().enumerate() {
        let of_key = || values.iter().map(|values| &values[at]);
        let Some(value) = joined(of_key()) else {
            continue;
        };
        let some_lack_it = of_key().any(Value::is_null);
        if value.is_array() || some_lack_it {
            notes.push(note(name, key, &value, some_lack_it));
        }
        attributes.insert((*key).to_owned(), value);
    }
    attributes
}

/// Whether parts of a variable that are joined may differ in an attribute: it says who made the values, not what they
/// are.
pub(crate) fn may_differ(key: &str) -> bool {
    KEYS.contains(&key) && !matches!(key, "GRIB_stepType" | "GRIB_typeOfLevel" | "GRIB_shortName")
}

/// Joins what parts of a variable say of where they are from; what is said of those in which they differ. What is
/// ignored stays as it is.
pub(crate) fn join(
    name: &str,
    parts: &[&Map<String, Value>],
    ignored: &[String],
    attributes: &mut Map<String, Value>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let is_joined = |key: &&&str| may_differ(key) && !ignored.iter().any(|name| name == **key);
    for key in KEYS.iter().filter(is_joined) {
        let of_parts = || {
            parts
                .iter()
                .map(|part| part.get(*key).unwrap_or(&Value::Null))
        };
        let Some(value) = joined(of_parts()) else {
            continue;
        };
        if of_parts().any(|of_part| *of_part != value) {
            notes.push(note(name, key, &value, of_parts().any(Value::is_null)));
        }
        attributes.insert((*key).to_owned(), value);
    }
    notes
}

/// What becomes of an attribute of several parts: its value, or the sorted list of its values; none if no part has it.
fn joined<'a>(values: impl Iterator<Item = &'a Value>) -> Option<Value> {
    let mut all: Vec<Value> = Vec::new();
    for value in values {
        match value {
            Value::Null => {}
            Value::Array(several) => all.extend(several.iter().cloned()),
            one => all.push(one.clone()),
        }
    }
    // Values of a key are of one type: numbers, or texts, which are quoted alike.
    all.sort_by_cached_key(|value| (value.as_i64(), value.to_string()));
    all.dedup();
    match all.len() {
        0 | 1 => all.pop(),
        _ => Some(Value::Array(all)),
    }
}

/// What is said of an attribute in which parts of a variable differ.
fn note(name: &str, key: &str, value: &Value, some_lack_it: bool) -> String {
    let mut values: Vec<String> = match value {
        Value::Array(several) => several.iter().map(Value::to_string).collect(),
        one => vec![one.to_string()],
    };
    if some_lack_it {
        values.push("none".to_owned());
    }
    format!(
        "the fields of `{name}` differ in {key}, which is {}",
        values.join(" or ")
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_becomes_a_sorted_list_without_doubles() {
        let joined = |values: Value| joined(values.as_array().unwrap().iter());
        assert_eq!(joined(json!([null, null])), None);
        assert_eq!(joined(json!([2, 2, null])), Some(json!(2)));
        assert_eq!(joined(json!([[145, 1000], 2])), Some(json!([2, 145, 1000])));
        assert_eq!(
            joined(json!(["0005", "0001", ["0001"]])),
            Some(json!(["0001", "0005"]))
        );
    }
}

//! YAML into typed values, with errors that name the file, the line, the key and the nearest known
//! key.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::outline::Outline;

/// A YAML text that does not fit its schema.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{source_name}{}: {message}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
pub struct YamlError {
    /// The file (or what stands for it) that was read.
    pub source_name: String,
    /// The line, counted from 1, where it is known.
    pub line: Option<u64>,
    /// What is wrong and what to do.
    pub message: String,
}

/// Reads `text`; `source_name` is what an error calls it.
pub fn parse<T: DeserializeOwned>(text: &str, source_name: &str) -> Result<T, YamlError> {
    // The path to the value that was refused leaves the deserializer on the side: what it returns
    // must be its own error, to which it adds the place in the text.
    let mut refused_at = None;
    let parsed = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            refused_at = Some(error.path().clone());
            error.into_inner()
        })
    });
    parsed.map_err(|error| {
        let error = error.without_snippet();
        YamlError {
            source_name: source_name.to_owned(),
            line: line_of(error, text, refused_at.as_ref()),
            message: describe(error, refused_at.as_ref()),
        }
    })
}

fn steps(path: &Path) -> Vec<String> {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => index.to_string(),
        other => other.to_string(),
    };
    path.iter().map(step).collect()
}

fn line_of(error: &serde_saphyr::Error, text: &str, refused_at: Option<&Path>) -> Option<u64> {
    let outlined = || Outline::of(text).line(&steps(refused_at?));
    match error {
        // The parser notices a missing key where the keys end; people look where they begin.
        serde_saphyr::Error::SerdeMissingField { .. } => outlined(),
        _ => error
            .location()
            .map(|location| location.line())
            .filter(|line| *line > 0)
            .or_else(outlined),
    }
}

fn describe(error: &serde_saphyr::Error, refused_at: Option<&Path>) -> String {
    use serde_saphyr::Error;
    let key = refused_at
        .map(Path::to_string)
        .filter(|key| !key.is_empty() && key != ".");
    let at_key = |problem: String| match &key {
        Some(key) => format!("`{key}`: {problem}"),
        None => problem,
    };
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => match key.as_deref().and_then(parent_of) {
            Some(parent) => format!("in `{parent}`, {}", unknown_key(field, expected)),
            None => unknown_key(field, expected),
        },
        Error::SerdeMissingField { field, .. } => match &key {
            Some(key) => format!("`{key}` has no `{field}`: add that key"),
            None => format!("the key `{field}` is missing: add it"),
        },
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => at_key(unknown_choice(variant, expected)),
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        }
        | Error::SerdeInvalidValue {
            unexpected,
            expected,
            ..
        } => at_key(format!("{unexpected} does not fit here: write {expected}")),
        Error::InvalidScalar { ty, .. } => {
            at_key(format!("the value does not fit: write {}", kind(ty)))
        }
        Error::Unexpected { expected, .. } => {
            at_key(format!("the value does not fit: write {}", kind(expected)))
        }
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => {
            at_key("the value does not fit: write one text".to_owned())
        }
        Error::NonFiniteFloat { value, .. } => {
            at_key(format!("`{value}` is not finite: write a number"))
        }
        Error::DuplicateMappingKey {
            key: Some(twice), ..
        } => {
            format!("the key `{twice}` stands here a second time: keep one")
        }
        Error::Message { msg, .. } => match msg.strip_prefix("duplicate field ") {
            Some(field) => {
                format!("the key {field} stands here twice, once by its other name: keep one")
            }
            None => at_key(msg.clone()),
        },
        other => {
            let text = other.to_string();
            at_key(without_place(&text).to_owned())
        }
    }
}

/// What the parser calls a kind of value, in words for people.
fn kind(of_parser: &str) -> &str {
    match of_parser {
        "boolean" => "`true` or `false`",
        "floating point" => "a number",
        "u8" => "a whole number from 0 to 255",
        "u16" | "u32" | "u64" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "string scalar" | "scalar" => "one text or number",
        "sequence start" => "a list",
        "mapping start" => "keys with values, `key: value`",
        other => other,
    }
}

/// The place is told once, before the message.
fn without_place(text: &str) -> &str {
    text.rsplit_once(" at line ")
        .map_or(text, |(message, _)| message)
}

fn parent_of(key: &str) -> Option<&str> {
    key.rsplit_once('.').map(|(parent, _)| parent)
}

/// What to say of a key that is not known.
pub(crate) fn unknown_key(field: &str, known: &[&str]) -> String {
    match nearest(field, known) {
        Some(near) => format!("`{field}` is not a known key: did you mean `{near}`?"),
        None => format!(
            "`{field}` is not a known key: the keys here are {}",
            known.join(", ")
        ),
    }
}

fn unknown_choice(found: &str, known: &[&str]) -> String {
    match nearest(found, known) {
        Some(near) => format!("`{found}` is not a known value: did you mean `{near}`?"),
        None => format!(
            "`{found}` is not a known value: write one of {}",
            known.join(", ")
        ),
    }
}

fn nearest<'a>(field: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(field, key), *key))
        .filter(|(distance, key)| *distance <= key.len().max(3) / 2)
        .min()
        .map(|(_, key)| key)
}

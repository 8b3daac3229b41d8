//! Whether variables of several stores are parts of one.

use mlwm_datasets::{Values, Variable};
use serde_json::{Map, Value};

use super::view::View;
use crate::chunking::attributes_as_stored;
use crate::{Fault, new_store, provenance};

/// How far stores may be apart.
pub(super) struct Tolerance {
    /// How far coordinates in degrees may be apart.
    pub(super) degrees: f64,
    /// Attributes that may differ; those of the first store are kept.
    pub(super) ignored: Vec<String>,
}

/// Compares what metadata say of a variable in two stores; `axis` is the dimension whose length may differ.
pub(super) fn check_metadata(
    name: &str,
    (first, variable): (&View<'_>, &Variable),
    (second, other): (&View<'_>, &Variable),
    axis: Option<usize>,
    tolerance: &Tolerance,
) -> Result<(), Fault> {
    let differs = |reason: String| Fault::Differs {
        store: second.path.clone(),
        other: first.path.clone(),
        reason,
    };
    if variable.dims() != other.dims() {
        return Err(differs(format!(
            "`{name}` has the dimensions {:?}, but {:?}",
            other.dims(),
            variable.dims()
        )));
    }
    for (at, (length, expected)) in other.shape().iter().zip(variable.shape()).enumerate() {
        if length != expected && axis != Some(at) {
            return Err(differs(format!(
                "the dimension `{}` of `{name}` has the length {length}, but {expected}",
                variable.dims()[at]
            )));
        }
    }
    // What numbers points or levels is the same however wide its integers are, and whoever described it.
    let is_index = new_store::is_index(variable) && new_store::is_index(other);
    let same = match (variable.form(), other.form()) {
        (Some(_), Some(_)) if is_index => variable.element() == other.element(),
        (Some(form), Some(other)) => form.holds_the_same(other),
        (None, None) => true,
        _ => false,
    };
    if !same {
        let name_of = |variable: &Variable| match variable.form() {
            Some(form) => match form.missing() {
                Some(missing) => format!("{} with the fill value {missing}", form.type_name()),
                None => format!("{} without a fill value", form.type_name()),
            },
            None => "text".to_owned(),
        };
        return Err(differs(format!(
            "`{name}` is {}, but {}",
            name_of(other),
            name_of(variable)
        )));
    }
    let (mut mine, mut others) = (
        attributes(first, variable, tolerance),
        attributes(second, other, tolerance),
    );
    // Where values are from is joined.
    mine.retain(|key, _| !provenance::may_differ(key));
    others.retain(|key, _| !provenance::may_differ(key));
    let differs_in = |key: &&String| {
        let (mine, other) = (mine.get(*key), others.get(*key));
        mine != other && !(is_index && (*key == "long_name" || mine.is_none() || other.is_none()))
    };
    match mine.keys().chain(others.keys()).find(differs_in) {
        None => Ok(()),
        Some(key) => Err(differs(format!(
            "the attribute `{key}` of `{name}` is {}, but {}; `--ignore-attribute {key}` keeps the first",
            shown(others.get(key)),
            shown(mine.get(key))
        ))),
    }
}

fn attributes(view: &View<'_>, variable: &Variable, tolerance: &Tolerance) -> Map<String, Value> {
    let mut attributes = view.renamed(attributes_as_stored(variable));
    attributes.retain(|name, _| !tolerance.ignored.contains(name));
    attributes
}

fn shown(value: Option<&Value>) -> String {
    let text = match value {
        Some(value) => value.to_string(),
        None => return "not there".to_owned(),
    };
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Compares the values of a variable that does not change with time; returns how far coordinates are apart.
pub(super) fn check_values(
    name: &str,
    (first, variable): (&View<'_>, &Variable),
    (second, other): (&View<'_>, &Variable),
    tolerance: &Tolerance,
) -> Result<f64, Fault> {
    let (mine, others) = (variable.read()?, other.read()?);
    let differs = |reason: String| Fault::Differs {
        store: second.path.clone(),
        other: first.path.clone(),
        reason,
    };
    let distances: Vec<f64> = match (mine, others) {
        (Values::Text(mine), Values::Text(others)) => mine
            .iter()
            .zip(&others)
            .map(|(a, b)| f64::from(u8::from(a != b)))
            .collect(),
        (Values::I64(mine), Values::I64(others)) => mine
            .iter()
            .zip(&others)
            .map(|(a, b)| a.abs_diff(*b) as f64)
            .collect(),
        (mine, others) => {
            let (mine, others) = (mine.into_f64()?, others.into_f64()?);
            mine.iter()
                .zip(&others)
                .map(|(a, b)| distance(*a, *b))
                .collect()
        }
    };
    let (at, largest) = distances
        .iter()
        .copied()
        .enumerate()
        .fold(
            (0, 0.0),
            |largest, found| if found.1 > largest.1 { found } else { largest },
        );
    let allowed = if is_in_degrees(name, variable) {
        tolerance.degrees
    } else {
        0.0
    };
    if largest <= allowed {
        return Ok(largest);
    }
    let hint = match allowed > 0.0 {
        true => format!("; `--tolerance` allows {allowed}"),
        false => ", although it does not change with time".to_owned(),
    };
    Err(differs(format!(
        "the values of `{name}` differ by up to {largest} (at number {at}){hint}"
    )))
}

/// How far two values are apart; nothing if both are missing.
fn distance(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => 0.0,
        (false, false) if a == b => 0.0,
        (false, false) => (a - b).abs(),
        _ => f64::INFINITY,
    }
}

/// Whether it is a longitude or latitude.
pub(crate) fn is_in_degrees(name: &str, variable: &Variable) -> bool {
    let units = variable.text_attribute("units").unwrap_or_default();
    units.starts_with("degree") || matches!(name, "lat" | "lon" | "latitude" | "longitude")
}

//! How many fields each value of the result was made of: the matrices of the stores, joined.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::view::View;
use crate::fault::Fault;
use crate::new_store::say;
use crate::report::{Presence, REPORT, write_json};
use crate::{Error, time};

/// The report of a result, of which steps that read it again need the matrix.
#[derive(Serialize)]
struct Report {
    step: &'static str,
    version: &'static str,
    presence: Presence,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    presence: Option<Presence>,
}

/// The matrices of all stores, joined along these times. Without that of one store the result has none: what is not
/// known is no zero.
pub(super) fn join(views: &[&View<'_>], times: &[i64]) -> Result<Option<Presence>, Error> {
    let mut known = Vec::new();
    for view in views {
        known.push((view, read(view)?));
    }
    if known.iter().all(|(_, matrix)| matrix.is_none()) {
        return Ok(None);
    }
    let mut presence = Presence::of_times(times);
    let places: BTreeMap<i64, usize> = times.iter().copied().zip(0..).collect();
    for (view, matrix) in known {
        let Some(matrix) = matrix else {
            say(&format!(
                "note: {} has no matrix of presence in its {REPORT}, so the result has none",
                view.path.display()
            ));
            return Ok(None);
        };
        for (label, counts) in matrix.fields {
            let Some(label) = renamed(view, &label) else {
                continue;
            };
            let row = presence.fields.entry(label);
            let row = row.or_insert_with(|| vec![0; times.len()]);
            for (time, count) in view.times.values.iter().zip(counts) {
                if let Some(&at) = places.get(time) {
                    row[at] = count;
                }
            }
        }
    }
    Ok(Some(presence))
}

/// Writes a matrix into the folder of a result.
pub(super) fn write(presence: Option<Presence>, folder: &Path) -> Result<(), Error> {
    let Some(presence) = presence else {
        return Ok(());
    };
    let report = Report {
        step: "concat",
        version: env!("CARGO_PKG_VERSION"),
        presence,
    };
    write_json(&folder.join(REPORT), &report)
}

/// The matrix of a store, if it has one of its times.
fn read(view: &View<'_>) -> Result<Option<Presence>, Error> {
    let path = view.path.join(REPORT);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path, source }),
    };
    let damaged = |reason: String| {
        let reason = format!(
            "its {REPORT} is damaged ({reason}): make the store again, or remove that file"
        );
        Error::from(Fault::store(&view.path, reason))
    };
    let stored: Stored =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let Some(presence) = stored.presence else {
        return Ok(None);
    };
    let is_whole = |counts: &Vec<u32>| counts.len() == presence.times.len();
    if !presence.fields.values().all(is_whole) {
        return Err(damaged(
            "a row of its matrix does not have all times".to_owned(),
        ));
    }
    let times = view.times.values.iter().map(|&time| time::text(time));
    Ok(times.eq(presence.times.iter().cloned()).then_some(presence))
}

/// What a row is called in the result; none of a variable that is not in it.
fn renamed(view: &View<'_>, label: &str) -> Option<String> {
    // A level is named behind its variable.
    let (name, level) = match label.split_once(" at ") {
        Some((name, level)) => (name, format!(" at {level}")),
        None => (label, String::new()),
    };
    let mut variables = view.variables.iter();
    let (new, _) = variables.find(|(_, variable)| variable.name() == name)?;
    Some(format!("{new}{level}"))
}

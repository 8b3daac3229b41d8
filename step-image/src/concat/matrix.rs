//! How many fields each value of the result was made of: the matrices of the stores, joined.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::view::View;
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
    presence: Presence,
}

/// Writes the matrices of all stores, joined along these times, into the folder of their result. Without that of one
/// store the result has none: what is not known is no zero.
pub(super) fn write(views: &[&View<'_>], times: &[i64], folder: &Path) -> Result<(), Error> {
    let mut known = Vec::new();
    for view in views {
        known.push((view, read(view)));
    }
    if known.iter().all(|(_, matrix)| matrix.is_none()) {
        return Ok(());
    }
    let mut presence = Presence::of_times(times);
    let places: BTreeMap<i64, usize> = times.iter().copied().zip(0..).collect();
    for (view, matrix) in known {
        let Some(matrix) = matrix else {
            say(&format!(
                "note: {} has no matrix of presence in its {REPORT}, so the result has none",
                view.path.display()
            ));
            return Ok(());
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
    let report = Report {
        step: "concat",
        version: env!("CARGO_PKG_VERSION"),
        presence,
    };
    write_json(&folder.join(REPORT), &report)
}

/// The matrix of a store, if it has one of its times.
fn read(view: &View<'_>) -> Option<Presence> {
    let text = std::fs::read(view.path.join(REPORT)).ok()?;
    let stored: Stored = serde_json::from_slice(&text).ok()?;
    let times = view.times.values.iter().map(|&time| time::text(time));
    let presence = stored.presence;
    let is_whole = |counts: &Vec<u32>| counts.len() == presence.times.len();
    (times.eq(presence.times.iter().cloned()) && presence.fields.values().all(is_whole))
        .then_some(presence)
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

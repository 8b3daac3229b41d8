//! The times of a result, and what each variable has at each of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::Problems;
use crate::output::Output;
use crate::pour::Cell;
use crate::report::{Presence, Report};
use crate::resample::{Fault, Moment, Part, Resampling, StepType, windows};
use crate::time;

/// Holes of a variable that are named one by one; of more, it is said how many.
const NAMED: usize = 5;

/// The fields of a variable at one level.
#[derive(Debug)]
pub(crate) struct Row {
    /// What people call it.
    pub(crate) label: String,
    /// The number of each field, and when it is; no two at once.
    pub(crate) fields: Vec<(usize, Moment)>,
    pub(crate) step_type: StepType,
    pub(crate) resampling: Option<Resampling>,
}

/// The times of a result, and what each row has at each of them.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) times: Vec<i64>,
    /// In the order of the rows.
    pub(crate) rows: Vec<Laid>,
}

/// What a row has.
#[derive(Debug)]
pub(crate) struct Laid {
    pub(crate) cells: Vec<Cell>,
    /// How far apart its fields are, where they became windows.
    pub(crate) spacing: Option<i64>,
}

/// What a row has, before the times of all are known.
struct Found {
    cells: BTreeMap<i64, Cell>,
    spacing: Option<i64>,
    /// Windows that are known to be incomplete.
    incomplete: BTreeSet<i64>,
}

/// Lays rows out along the times that any of them has. What is missing is a problem, unless that is allowed; the
/// report gets the matrix either way.
pub(crate) fn lay_out(
    rows: &[Row],
    options: &Output,
    report: &mut Report,
    problems: &mut Problems,
) -> Axis {
    let mut missing = Vec::new();
    let found: Vec<Found> = rows
        .iter()
        .map(|row| find(row, &mut missing, problems))
        .collect();
    let of_row = |found: &Found| {
        let cells = found.cells.keys().chain(&found.incomplete);
        cells.copied().collect::<Vec<i64>>()
    };
    let times: BTreeSet<i64> = found.iter().flat_map(of_row).collect();
    let times: Vec<i64> = times.into_iter().collect();
    if !options.uneven_times
        && let Some(uneven) = time::unevenness(&times)
    {
        problems.push(format!("{uneven}; `--uneven-times` accepts that"));
    }
    report.presence = Presence::of_times(&times);
    let mut laid = Vec::new();
    for (row, found) in rows.iter().zip(found) {
        let counts = times.iter().map(|time| match found.cells.get(time) {
            Some(Cell::Window(parts)) => parts.len() as u32,
            Some(Cell::Field(_)) => 1,
            Some(Cell::Missing) | None => 0,
        });
        report
            .presence
            .fields
            .insert(row.label.clone(), counts.collect());
        name_holes(row, &found, &times, &mut missing);
        let mut cells = found.cells;
        let cell = |time: &i64| cells.remove(time).unwrap_or(Cell::Missing);
        laid.push(Laid {
            cells: times.iter().map(cell).collect(),
            spacing: found.spacing,
        });
    }
    match options.allow_missing {
        true => report.missing = missing,
        false => missing.into_iter().for_each(|hole| problems.push(hole)),
    }
    Axis { times, rows: laid }
}

fn find(row: &Row, missing: &mut Vec<String>, problems: &mut Problems) -> Found {
    let mut found = Found {
        cells: BTreeMap::new(),
        spacing: None,
        incomplete: BTreeSet::new(),
    };
    let Some(resampling) = &row.resampling else {
        let cell = |&(field, moment): &(usize, Moment)| (moment.label, Cell::Field(field));
        found.cells = row.fields.iter().map(cell).collect();
        return found;
    };
    let moments: Vec<Moment> = row.fields.iter().map(|(_, moment)| *moment).collect();
    let windows = windows(&moments, row.step_type, resampling);
    for fault in windows.faults {
        let text = format!("`{}`: {fault}", row.label);
        match fault {
            Fault::Missing { window, .. } => {
                found.incomplete.insert(window);
                missing.push(text);
            }
            _ => problems.push(text),
        }
    }
    let numbered = |part: Part| Part {
        field: row.fields[part.field].0,
        minus: part.minus.map(|minus| row.fields[minus].0),
        ..part
    };
    let cell = |parts: Vec<Part>| Cell::Window(parts.into_iter().map(numbered).collect());
    let whole = windows.whole.into_iter();
    found.cells = whole.map(|(begin, parts)| (begin, cell(parts))).collect();
    found.spacing = windows.spacing;
    found
}

/// Names the times that other rows have and this one has not.
fn name_holes(row: &Row, found: &Found, times: &[i64], missing: &mut Vec<String>) {
    let is_hole =
        |time: &&i64| !found.cells.contains_key(*time) && !found.incomplete.contains(*time);
    let holes: Vec<i64> = times.iter().filter(is_hole).copied().collect();
    if holes.is_empty() {
        return;
    }
    let named: Vec<String> = holes
        .iter()
        .take(NAMED)
        .map(|&hole| time::text(hole))
        .collect();
    let more = match holes.len().checked_sub(NAMED) {
        None | Some(0) => String::new(),
        Some(more) => format!(" and {more} more times"),
    };
    missing.push(format!(
        "`{}` has nothing at {}{more}, where others have",
        row.label,
        named.join(", ")
    ));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        output: Output,
    }

    fn lay(rows: &[Row], arguments: &[&str]) -> (Axis, Report, Problems) {
        let arguments = ["test"].iter().chain(arguments);
        let options = Options::parse_from(arguments).output;
        let (mut report, mut problems) = (Report::new("test"), Problems::default());
        let axis = lay_out(rows, &options, &mut report, &mut problems);
        (axis, report, problems)
    }

    fn row(label: &str, times: &[i64]) -> Row {
        let fields = times.iter().map(|time| Moment::at(*time)).enumerate();
        Row {
            label: label.to_owned(),
            fields: fields.collect(),
            step_type: StepType::Instant,
            resampling: None,
        }
    }

    #[test]
    fn a_hole_is_named_and_in_the_matrix() {
        let rows = [row("a", &[0, 3600, 7200]), row("b", &[0, 7200])];
        let (_, report, problems) = lay(&rows, &[]);
        assert_eq!(
            problems.all(),
            ["`b` has nothing at 1970-01-01T01:00:00Z, where others have"]
        );
        assert_eq!(report.presence.fields["b"], [1, 0, 1]);
        let (axis, report, problems) = lay(&rows, &["--allow-missing"]);
        assert!(problems.is_empty());
        assert_eq!(report.missing.len(), 1);
        assert!(matches!(axis.rows[1].cells[1], Cell::Missing));
    }

    #[test]
    fn a_gap_of_all_is_uneven() {
        let rows = [row("a", &[0, 3600, 10_800])];
        assert_eq!(lay(&rows, &[]).2.all().len(), 1);
        assert!(lay(&rows, &["--uneven-times"]).2.is_empty());
    }
}

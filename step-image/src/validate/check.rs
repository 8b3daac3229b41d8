//! The checks, and the report of what was found.

use std::path::PathBuf;

use comfy_table::Table;
use indexmap::IndexMap;
use mlwm_datasets::{Dataset, Element, Variable};
use mlwm_spec::time::utc_text as text;
use serde::Serialize;

use super::Args;
use super::schema::{Expected, Missing, Moments, Permission, Schema};
use crate::concat::times::duration;
use crate::presence::{Presence, presence};
use crate::{Fault, new_store};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    store: PathBuf,
    valid: bool,
    pub(super) problems: Vec<String>,
    times: Option<FoundTimes>,
    variables: IndexMap<String, FoundVariable>,
}

#[derive(Debug, Serialize)]
struct FoundTimes {
    first: String,
    last: String,
    count: usize,
    step: Option<String>,
}

#[derive(Debug, Serialize)]
struct FoundVariable {
    dims: Vec<String>,
    shape: Vec<u64>,
    #[serde(rename = "type")]
    type_name: String,
    units: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
    missing: u64,
    chunks_never_written: usize,
    /// How much of it is there over time.
    presence: Vec<Span>,
}

/// Times that follow each other at which as much is there.
#[derive(Debug, PartialEq, Serialize)]
struct Span {
    from: String,
    to: String,
    times: usize,
    state: &'static str,
}

impl Report {
    /// As people read it.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
        table.set_header([
            "variable",
            "dimensions",
            "type",
            "units",
            "min",
            "max",
            "missing",
            "times",
        ]);
        for (name, found) in &self.variables {
            let dims = found.dims.iter().zip(&found.shape);
            let dims: Vec<String> = dims
                .map(|(dim, length)| format!("{dim} {length}"))
                .collect();
            let number =
                |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
            let whole = found
                .presence
                .iter()
                .filter(|span| span.state == "complete");
            let whole: usize = whole.map(|span| span.times).sum();
            let times: usize = found.presence.iter().map(|span| span.times).sum();
            let presence = match times {
                0 => String::new(),
                times if whole == times => format!("all {times}"),
                times => format!("{whole} of {times}"),
            };
            table.add_row([
                name.clone(),
                dims.join(" × "),
                found.type_name.clone(),
                found.units.clone().unwrap_or_default(),
                number(found.min),
                number(found.max),
                found.missing.to_string(),
                presence,
            ]);
        }
        table.to_string()
    }
}

/// Checks everything.
///
/// # Errors
/// Only for a store that cannot be read at all: everything else is a problem in the report.
pub(super) fn check(
    dataset: &Dataset,
    schema: &Schema,
    moments: Moments,
    args: &Args,
    threads: usize,
) -> Result<Report, Fault> {
    let mut problems = Vec::new();
    let times = check_times(dataset, moments, &args.dimension, &mut problems);
    for name in schema
        .variables
        .keys()
        .filter(|name| !dataset.contains(name))
    {
        problems.push(format!("there is no variable `{name}`"));
    }
    let mut variables = IndexMap::new();
    for name in dataset.names() {
        let variable = match dataset.variable(name) {
            Ok(variable) => variable,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        let expected = schema.variables.get(name);
        if expected.is_none()
            && schema.others == Permission::Refuse
            && !new_store::is_index(variable)
        {
            problems.push(format!("the schema has no variable `{name}`"));
        }
        check_lengths(variable, schema, &mut problems);
        let expected = expected.cloned().unwrap_or_default();
        check_metadata(variable, &expected, &mut problems);
        let presence = match presence(variable, &args.dimension, threads) {
            Ok(presence) => presence,
            Err(fault) => {
                problems.push(fault.to_string());
                continue;
            }
        };
        let may_miss = expected.missing == Missing::Allow
            || args.allow_missing.iter().any(|allowed| allowed == name);
        let times = times.as_deref().unwrap_or_default();
        let spans = spans(variable, &presence, times, &args.dimension);
        if !may_miss {
            check_lost(
                name,
                &presence,
                variable,
                times,
                &args.dimension,
                &mut problems,
            );
            check_presence(name, &presence, &spans, &mut problems);
        }
        check_values(name, &presence, &expected, &mut problems);
        variables.insert(name.to_owned(), found(variable, &presence, spans));
    }
    Ok(Report {
        store: dataset.path().to_owned(),
        valid: problems.is_empty(),
        problems,
        times: times
            .filter(|times| !times.is_empty())
            .map(|times| FoundTimes {
                first: text(times[0]),
                last: text(times[times.len() - 1]),
                count: times.len(),
                step: times.get(1).map(|second| duration(second - times[0])),
            }),
        variables,
    })
}

/// Every irregular step is a problem; the times, if they can be read.
fn check_times(
    dataset: &Dataset,
    moments: Moments,
    dimension: &str,
    problems: &mut Vec<String>,
) -> Option<Vec<i64>> {
    if !dataset.contains(dimension) {
        if moments != Moments::default() {
            problems.push(format!(
                "there are no times: it has no variable `{dimension}`"
            ));
        }
        return None;
    }
    let times = match dataset.times(dimension) {
        Ok(times) => times,
        Err(error) => {
            problems.push(error.to_string());
            return None;
        }
    };
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        problems.push(format!("`{dimension}` has no values"));
        return Some(times);
    };
    if let Some(from) = moments.from.filter(|&from| from != first) {
        problems.push(format!(
            "the first time is {}, but should be {}",
            text(first),
            text(from)
        ));
    }
    if let Some(to) = moments.to.filter(|&to| to != last) {
        problems.push(format!(
            "the last time is {}, but should be {}",
            text(last),
            text(to)
        ));
    }
    let step = moments
        .step
        .or_else(|| times.get(1).map(|second| second - first));
    let pairs = times.windows(2).map(|pair| (pair[0], pair[1]));
    for (before, after) in pairs.filter(|(before, after)| Some(after - before) != step) {
        let step = step.unwrap_or(1);
        let found = after - before;
        problems.push(match found {
            0 => format!("the time {} is there twice", text(after)),
            found if found < 0 => format!("the time {} comes after {}", text(after), text(before)),
            found if step > 0 && found % step == 0 => format!(
                "{} time(s) are missing, from {} to {}",
                found / step - 1,
                text(before + step),
                text(after - step)
            ),
            found => format!(
                "the step from {} to {} is {} instead of {}",
                text(before),
                text(after),
                duration(found),
                duration(step)
            ),
        });
    }
    Some(times)
}

fn check_lengths(variable: &Variable, schema: &Schema, problems: &mut Vec<String>) {
    for (dim, length) in variable.dims().iter().zip(variable.shape()) {
        if let Some(expected) = schema
            .lengths
            .get(dim)
            .filter(|expected| *expected != length)
        {
            problems.push(format!(
                "the dimension `{dim}` of `{}` has the length {length}, but should have {expected}",
                variable.name()
            ));
        }
    }
}

fn check_metadata(variable: &Variable, expected: &Expected, problems: &mut Vec<String>) {
    let name = variable.name();
    if let Some(dims) = expected
        .dims
        .as_ref()
        .filter(|dims| *dims != variable.dims())
    {
        problems.push(format!(
            "`{name}` has the dimensions {:?}, but should have {dims:?}",
            variable.dims()
        ));
    }
    let type_name = type_name(variable);
    if let Some(expected) = expected
        .type_name
        .as_ref()
        .filter(|expected| **expected != type_name)
    {
        problems.push(format!("`{name}` is {type_name}, but should be {expected}"));
    }
    let units = variable.text_attribute("units").unwrap_or_default();
    if let Some(expected) = expected
        .units
        .as_ref()
        .filter(|expected| **expected != units)
    {
        problems.push(format!(
            "`{name}` has the units `{units}`, but should have `{expected}`"
        ));
    }
}

fn type_name(variable: &Variable) -> String {
    match (variable.form(), variable.element()) {
        (Some(form), _) => form.type_name(),
        (None, Element::Text) => "text".to_owned(),
        (None, _) => "time".to_owned(),
    }
}

/// Names chunks that are not there, whatever would be read in their place.
fn check_lost(
    name: &str,
    presence: &Presence,
    variable: &Variable,
    times: &[i64],
    dimension: &str,
    problems: &mut Vec<String>,
) {
    let axis = variable.dims().iter().position(|dim| dim == dimension);
    let Some(first) = presence.absent.first() else {
        return;
    };
    let along = axis.and_then(|axis| first.ranges.get(axis));
    let within = along.and_then(|range| times.get(range.start as usize..range.end as usize));
    let when = match within {
        Some([from, .., to]) => format!(" ({} to {})", text(*from), text(*to)),
        Some([at]) => format!(" ({})", text(*at)),
        _ => String::new(),
    };
    problems.push(format!(
        "{} chunk(s) of `{name}` were never written, the first of them {}{when}; `--allow-missing {name}` takes them, \
         if its writer leaves out chunks of the fill value",
        presence.absent.len(),
        first.file.display()
    ));
}

fn check_presence(name: &str, presence: &Presence, spans: &[Span], problems: &mut Vec<String>) {
    let holes: Vec<&Span> = spans
        .iter()
        .filter(|span| span.state != "complete")
        .collect();
    match holes.as_slice() {
        [] if presence.count() > 0 => {
            problems.push(format!(
                "{} value(s) of `{name}` are missing",
                presence.count()
            ));
        }
        [] => {}
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(", and in {more} more span(s)"),
            };
            problems.push(format!(
                "`{name}` is {} at {} time(s) from {} to {}{more}",
                first.state, first.times, first.from, first.to
            ));
        }
    }
}

fn check_values(name: &str, presence: &Presence, expected: &Expected, problems: &mut Vec<String>) {
    if presence.infinite > 0 {
        problems.push(format!(
            "{} value(s) of `{name}` are infinite",
            presence.infinite
        ));
    }
    let (Some([low, high]), Some((least, greatest))) = (expected.range, presence.extremes) else {
        return;
    };
    if least < low || greatest > high {
        problems.push(format!(
            "the values of `{name}` reach from {least} to {greatest}, but should lie in {low} to {high}"
        ));
    }
}

/// The presence of a variable that changes with time.
fn spans(variable: &Variable, presence: &Presence, times: &[i64], dimension: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    if !variable.dims().iter().any(|dim| dim == dimension) {
        return spans;
    }
    for (&time, missing) in times.iter().zip(&presence.missing) {
        let state = match *missing {
            0 => "complete",
            missing if missing < presence.points => "partly missing",
            _ => "missing",
        };
        match spans.last_mut().filter(|span| span.state == state) {
            Some(span) => {
                span.to = text(time);
                span.times += 1;
            }
            None => spans.push(Span {
                from: text(time),
                to: text(time),
                times: 1,
                state,
            }),
        }
    }
    spans
}

fn found(variable: &Variable, presence: &Presence, spans: Vec<Span>) -> FoundVariable {
    FoundVariable {
        dims: variable.dims().to_vec(),
        shape: variable.shape().to_vec(),
        type_name: type_name(variable),
        units: variable.text_attribute("units").map(str::to_owned),
        min: presence.extremes.map(|extremes| extremes.0),
        max: presence.extremes.map(|extremes| extremes.1),
        missing: presence.count(),
        chunks_never_written: presence.absent.len(),
        presence: spans,
    }
}

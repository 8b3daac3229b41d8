//! What is written, decided before anything is.

use std::collections::{BTreeMap, BTreeSet};

use mlwm_datasets::Element;
use serde_json::{Map, Value};

use super::Arguments;
use super::index::{Along, Index, Kind};
use super::names::{rename_named, renamed};
use crate::Problems;
use crate::axis::{Row, lay_out};
use crate::output::TIME;
use crate::pour::Cell;
use crate::report::Report;
use crate::resample::{Moment, Resampling, StepType};

/// What is written.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) times: Vec<i64>,
    /// All fields along time, which cells number.
    pub(crate) fields: Vec<Field>,
    pub(crate) variables: Vec<Planned>,
}

/// Where a field is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The number of its variable in the plan.
    pub(crate) variable: usize,
    pub(crate) file: usize,
    pub(crate) at: u64,
}

/// A variable that is written.
#[derive(Debug)]
pub(crate) struct Planned {
    /// What it is called in the files.
    pub(crate) old: String,
    pub(crate) name: String,
    /// Its dimensions, without time.
    pub(crate) dims: Vec<(String, u64)>,
    pub(crate) element: Element,
    pub(crate) resampling: Option<Resampling>,
    /// By time; none if it is stored once.
    pub(crate) cells: Option<Vec<Cell>>,
    pub(crate) attributes: Map<String, Value>,
    /// The number of the first file that has it.
    pub(crate) file: usize,
}

impl Plan {
    pub(crate) fn of(
        index: &Index,
        arguments: &Arguments,
        report: &mut Report,
        problems: &mut Problems,
    ) -> Self {
        let names = names(index, arguments, problems);
        let resampling = arguments.output.resample.map(|option| option.0);
        let (mut rows, mut fields, mut variables) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (old, along)) in index.series.iter().enumerate() {
            rows.push(row(&names[old], along, resampling, fields.len()));
            fields.extend(along.fields.iter().map(|&(file, at, _)| Field {
                variable: number,
                file,
                at,
            }));
        }
        let axis = lay_out(&rows, &arguments.output, report, problems);
        for ((old, along), (laid, row)) in index.series.iter().zip(axis.rows.into_iter().zip(&rows))
        {
            let mut planned = planned(old, &along.kind, &names);
            let methods = match resampling {
                Some(resampling) => Some(resampling.cell_methods(laid.spacing)),
                // As it was, but for the name of time.
                None => row.step_type.cell_method().map(str::to_owned),
            };
            if resampling.is_some() {
                planned.element = crate::output::floating(planned.element);
            }
            if let Some(methods) = methods
                && (resampling.is_some() || planned.attributes.contains_key(METHODS))
            {
                planned
                    .attributes
                    .insert(METHODS.to_owned(), methods.into());
            }
            let has_hole = laid.cells.iter().any(|cell| matches!(cell, Cell::Missing));
            if has_hole && planned.element == Element::I64 {
                problems.push(format!(
                    "`{}` is of integers, which cannot say that they are missing",
                    planned.name
                ));
            }
            planned.resampling = resampling;
            planned.cells = Some(laid.cells);
            variables.push(planned);
        }
        let statics = index.statics.iter();
        variables.extend(statics.map(|(old, fixed)| planned(old, &fixed.kind, &names)));
        check_lengths(&variables, problems);
        if variables.is_empty() && problems.is_empty() {
            problems.push("the files have no variable of numbers that is asked for");
        }
        for planned in &variables {
            report
                .variables
                .insert(planned.name.clone(), planned.attributes.clone());
        }
        Self {
            times: axis.times,
            fields,
            variables,
        }
    }

    /// The dimensions of the result.
    pub(crate) fn dim_names(&self) -> Vec<&str> {
        let along = self.variables.iter().any(|planned| planned.cells.is_some());
        let dims = self.variables.iter().flat_map(|planned| &planned.dims);
        let mut names: BTreeSet<&str> = dims.map(|(dim, _)| dim.as_str()).collect();
        names.extend(along.then_some(TIME));
        names.into_iter().collect()
    }
}

const METHODS: &str = "cell_methods";

fn row(name: &str, along: &Along, resampling: Option<Resampling>, first: usize) -> Row {
    let methods = along.kind.attributes.get(METHODS).and_then(Value::as_str);
    let numbered = along.fields.iter().enumerate();
    let fields: Vec<(usize, Moment)> = numbered
        .map(|(at, (_, _, moment))| (first + at, *moment))
        .collect();
    Row {
        label: name.to_owned(),
        fields,
        step_type: StepType::of_cell_methods(methods.unwrap_or_default(), &along.kind.time),
        resampling,
    }
}

/// The new name of each variable that is taken.
fn names(
    index: &Index,
    arguments: &Arguments,
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    let taken = index.series.keys().chain(index.statics.keys());
    let mut names = BTreeMap::new();
    let mut new_names = BTreeSet::from([TIME.to_owned()]);
    for old in taken {
        let new = renamed(old, index.coordinates.contains(old), arguments);
        if !new_names.insert(new.clone()) {
            problems.push(format!(
                "two variables of the result would be called `{new}`: rename one"
            ));
        }
        names.insert(old.clone(), new);
    }
    names
}

fn planned(old: &str, kind: &Kind, names: &BTreeMap<String, String>) -> Planned {
    let mut attributes = kind.attributes.clone();
    rename_named(&mut attributes, |name| names.get(name).cloned());
    // A dimension is called as its coordinate.
    let dims = kind.dims.iter().map(|(dim, length)| {
        let name = names.get(dim).unwrap_or(dim);
        (name.clone(), *length)
    });
    Planned {
        old: old.to_owned(),
        name: names[old].clone(),
        dims: dims.collect(),
        element: kind.element,
        resampling: None,
        cells: None,
        attributes,
        file: kind.file,
    }
}

/// Names dimensions that have several lengths.
fn check_lengths(variables: &[Planned], problems: &mut Problems) {
    let mut lengths: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for planned in variables {
        for (dim, length) in &planned.dims {
            let (there, other) = lengths.entry(dim).or_insert((*length, &planned.name));
            if there != length {
                problems.push(format!(
                    "the dimension `{dim}` has the length {length} in `{}`, but {there} in `{other}`: the files \
                     are not of one grid",
                    planned.name
                ));
            }
        }
    }
}

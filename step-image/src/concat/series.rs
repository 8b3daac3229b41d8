//! Which stores follow each other, and what they become.

use std::collections::{BTreeMap, BTreeSet};

use mlwm_datasets::{Variable, ZarrFormat};
use mlwm_spec::time::utc_text as text;
use serde_json::{Map, Value};

use super::agree::{Tolerance, check_metadata, check_values};
use super::times::{Times, check_series};
use super::view::View;
use crate::Fault;
use crate::nc2zarr::of_time;
use crate::output::WINDOW;

/// A variable in several stores.
pub(super) type Parts<'a> = Vec<(&'a View<'a>, &'a Variable)>;

/// What is written.
pub(super) struct Plan<'a> {
    /// Seconds since 1970.
    pub(super) times: Vec<i64>,
    /// Attributes of the times, without those that say how they are counted: those that all have.
    pub(super) time_attributes: Map<String, Value>,
    /// Those that the times of some have otherwise or not at all.
    pub(super) dropped_of_time: BTreeSet<String>,
    dimension: String,
    /// Attributes of the store: those that all have.
    pub(super) attributes: Map<String, Value>,
    /// Those that some have otherwise or not at all.
    pub(super) dropped: BTreeSet<String>,
    pub(super) format: ZarrFormat,
    /// The parts of each variable that changes with time.
    pub(super) changing: BTreeMap<String, Parts<'a>>,
    /// Those that do not, from all that have them; the first is kept.
    pub(super) fixed: BTreeMap<String, Parts<'a>>,
    /// How far coordinates of the stores are apart.
    pub(super) apart: BTreeMap<String, f64>,
}

impl Plan<'_> {
    /// The dimension of the times in a variable that changes with time.
    pub(super) fn axis(&self, variable: &Variable) -> usize {
        let axis = variable
            .dims()
            .iter()
            .position(|dim| *dim == self.dimension);
        axis.unwrap_or(0)
    }
}

/// The stores of the same variables, in the order of their times.
pub(super) fn group<'a>(
    views: &'a [View<'a>],
    may_differ: bool,
) -> Result<Vec<Vec<&'a View<'a>>>, Fault> {
    let mut series: Vec<(BTreeSet<&str>, Vec<&View<'_>>)> = Vec::new();
    for view in views {
        let names = view.changing();
        match series.iter_mut().find(|(others, _)| *others == names) {
            Some((_, views)) => views.push(view),
            None => series.push((names, vec![view])),
        }
    }
    if let [(names, first), (others, second), ..] = series.as_slice()
        && !may_differ
    {
        let list = |names: Vec<&&str>| match names.is_empty() {
            true => "nothing".to_owned(),
            false => names
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let (lacks, has) = (
            names.difference(others).collect(),
            others.difference(names).collect(),
        );
        return Err(Fault::Differs {
            store: second[0].path.clone(),
            other: first[0].path.clone(),
            reason: format!(
                "it lacks {}, and has {} beside; `--merge` makes one store of different variables at the same times",
                list(lacks),
                list(has)
            ),
        });
    }
    for (at, (names, views)) in series.iter().enumerate() {
        for (others, second) in &series[at + 1..] {
            if let Some(name) = names.intersection(others).next() {
                return Err(Fault::Differs {
                    store: second[0].path.clone(),
                    other: views[0].path.clone(),
                    reason: format!("both have `{name}`, but not the same variables otherwise"),
                });
            }
        }
    }
    let mut series: Vec<_> = series.into_iter().map(|(_, views)| views).collect();
    for views in &mut series {
        views.sort_by_key(|view| view.times.values[0]);
    }
    Ok(series)
}

/// What the series become, after `base` if there is one.
pub(super) fn plan<'a>(
    base: Option<&'a View<'a>>,
    series: &[Vec<&'a View<'a>>],
    tolerance: &Tolerance,
) -> Result<Plan<'a>, Fault> {
    let with_base = |views: &[&'a View<'a>]| -> Vec<&'a View<'a>> {
        base.into_iter().chain(views.iter().copied()).collect()
    };
    let series: Vec<Vec<&View<'_>>> = series.iter().map(|views| with_base(views)).collect();
    let first = series[0][0];
    let mut plan = Plan {
        times: common_times(&series)?,
        time_attributes: of_time(first.time.plain_attributes()),
        dropped_of_time: BTreeSet::new(),
        dimension: first.time.name().to_owned(),
        attributes: first.renamed(first.dataset.attributes().clone()),
        dropped: BTreeSet::new(),
        format: first.dataset.format(),
        changing: BTreeMap::new(),
        fixed: BTreeMap::new(),
        apart: BTreeMap::new(),
    };
    for views in &series {
        for view in views {
            let attributes = view.renamed(view.dataset.attributes().clone());
            keep_common(&mut plan.attributes, &attributes, &mut plan.dropped);
            check_windows(first, view, tolerance)?;
            let mut own_of_time = of_time(view.time.plain_attributes());
            for name in &tolerance.ignored {
                own_of_time.remove(name);
                let first = plan.time_attributes.get(name);
                own_of_time.extend(first.map(|value| (name.clone(), value.clone())));
            }
            keep_common(
                &mut plan.time_attributes,
                &own_of_time,
                &mut plan.dropped_of_time,
            );
        }
        // The last one is never the base, which has the variables of all series.
        let last = views[views.len() - 1];
        for name in last.changing() {
            let parts = parts(views, name)?;
            let (first, variable) = parts[0];
            let axis = plan.axis(variable);
            for other in &parts[1..] {
                check_metadata(name, (first, variable), *other, Some(axis), tolerance)?;
            }
            plan.changing.insert(name.to_owned(), parts);
        }
        add_fixed(&mut plan, views, base.is_some(), tolerance)?;
    }
    if let Some(base) = base
        && let Some(name) = base
            .changing()
            .iter()
            .find(|name| !plan.changing.contains_key(**name))
    {
        return Err(Fault::store(
            &base.path,
            format!("no store has its variable `{name}`, which has to be appended to as well"),
        ));
    }
    for name in plan.fixed.keys() {
        if plan.changing.contains_key(name) {
            let reason = format!("`{name}` changes with time in some stores, but not in others");
            return Err(Fault::store(&first.path, reason));
        }
    }
    Ok(plan)
}

/// A variable in all of these.
fn parts<'a>(views: &[&'a View<'a>], name: &str) -> Result<Parts<'a>, Fault> {
    let part = |view: &&'a View<'a>| match view.variables.get(name) {
        Some(variable) => Ok((*view, *variable)),
        None => Err(Fault::store(
            &view.path,
            format!("it has no variable `{name}`, which others have"),
        )),
    };
    views.iter().map(part).collect()
}

/// Adds the variables that do not change with time; they must be the same in all stores.
pub(super) fn add_fixed<'a>(
    plan: &mut Plan<'a>,
    views: &[&'a View<'a>],
    first_is_base: bool,
    tolerance: &Tolerance,
) -> Result<(), Fault> {
    let first = views[0];
    for view in views {
        let names: BTreeSet<&String> = first.fixed().map(|(name, _)| name).collect();
        let others: BTreeSet<&String> = view.fixed().map(|(name, _)| name).collect();
        // The base has those of all series.
        let may_lack = first_is_base && others.is_subset(&names);
        if let Some(name) = names.symmetric_difference(&others).next()
            && !may_lack
        {
            let (with, without) = match names.contains(*name) {
                true => (first, view),
                false => (*view, &first),
            };
            return Err(Fault::Differs {
                store: without.path.clone(),
                other: with.path.clone(),
                reason: format!("it has no variable `{name}`"),
            });
        }
        for (name, variable) in view.fixed() {
            let parts = plan.fixed.entry(name.clone()).or_default();
            // The base is among the views of each series.
            if parts.iter().any(|part| std::ptr::eq(part.1, variable)) {
                continue;
            }
            parts.push((view, variable));
            let known = parts[0];
            if parts.len() == 1 {
                continue;
            }
            check_metadata(name, known, (view, variable), None, tolerance)?;
            let apart = check_values(name, known, (view, variable), tolerance)?;
            let largest = plan.apart.entry(name.clone()).or_default();
            *largest = largest.max(apart);
        }
    }
    Ok(())
}

/// Refuses what would be no dataset: a variable that is both static and not, and dimensions of several lengths.
pub(super) fn check_together(plan: &Plan<'_>) -> Result<(), Fault> {
    let changing = plan.changing.iter().map(|(name, parts)| (name, parts[0]));
    let fixed = plan.fixed.iter().map(|(name, parts)| (name, parts[0]));
    let mut lengths: BTreeMap<&str, (u64, &String, &View<'_>)> = BTreeMap::new();
    for (name, (view, variable)) in changing.chain(fixed) {
        for (dim, &length) in variable.dims().iter().zip(variable.shape()) {
            if *dim == plan.dimension {
                continue;
            }
            let (there, other, first) = lengths.entry(dim).or_insert((length, name, view));
            if *there != length {
                return Err(Fault::Differs {
                    store: view.path.clone(),
                    other: first.path.clone(),
                    reason: format!(
                        "the dimension `{dim}` of `{name}` has the length {length}, but that of `{other}` {there}"
                    ),
                });
            }
        }
    }
    for (name, fixed) in &plan.fixed {
        if let Some(parts) = plan.changing.get(name) {
            return Err(Fault::Differs {
                store: fixed[0].0.path.clone(),
                other: parts[0].0.path.clone(),
                reason: format!(
                    "`{name}` does not change with `{}` in it, but does in the other: give one of them another name",
                    plan.dimension
                ),
            });
        }
    }
    Ok(())
}

/// Keeps the attributes that others have, too, and remembers which it drops.
fn keep_common(
    attributes: &mut Map<String, Value>,
    others: &Map<String, Value>,
    dropped: &mut BTreeSet<String>,
) {
    let all = attributes.keys().chain(others.keys());
    let differ = all.filter(|name| attributes.get(*name) != others.get(*name));
    dropped.extend(differ.cloned());
    attributes.retain(|name, value| others.get(name) == Some(value));
}

/// Refuses times that are not the beginnings of the same windows.
fn check_windows(first: &View<'_>, view: &View<'_>, tolerance: &Tolerance) -> Result<(), Fault> {
    const NAME: &str = "long_name";
    let is_window = |view: &View<'_>| {
        let name = view.time.text_attribute(NAME);
        name.is_some_and(|name| name.starts_with(WINDOW))
    };
    let (mine, other) = (
        first.time.text_attribute(NAME),
        view.time.text_attribute(NAME),
    );
    let may_differ = !is_window(first) && !is_window(view);
    if mine == other || may_differ || tolerance.ignored.iter().any(|name| name == NAME) {
        return Ok(());
    }
    let shown =
        |name: Option<&str>| name.map_or("not there".to_owned(), |name| format!("{name:?}"));
    Err(Fault::Differs {
        store: view.path.clone(),
        other: first.path.clone(),
        reason: format!(
            "the attribute `{NAME}` of `{}` is {}, but {}; `--ignore-attribute {NAME}` keeps the first",
            view.time.name(),
            shown(other),
            shown(mine),
        ),
    })
}

/// The times of all series, which must be the same.
fn common_times(series: &[Vec<&View<'_>>]) -> Result<Vec<i64>, Fault> {
    let mut common: Option<(Vec<i64>, &View<'_>)> = None;
    for views in series {
        let times: Vec<Times> = views.iter().map(|view| view.times.clone()).collect();
        check_series(&times)?;
        let times: Vec<i64> = times.into_iter().flat_map(|times| times.values).collect();
        let Some((expected, first)) = &common else {
            common = Some((times, views[0]));
            continue;
        };
        if times == *expected {
            continue;
        }
        let differs = expected
            .iter()
            .zip(&times)
            .find(|(one, other)| one != other);
        let reason = match differs {
            Some((one, other)) => format!(
                "its variables have the time {} where the others have {}",
                text(*other),
                text(*one)
            ),
            None => format!(
                "its variables have {} times, but the others {}",
                times.len(),
                expected.len()
            ),
        };
        return Err(Fault::Differs {
            store: views[views.len() - 1].path.clone(),
            other: first.path.clone(),
            reason,
        });
    }
    Ok(common.map(|(times, _)| times).unwrap_or_default())
}

//! What of a store is concatenated, under which names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use mlwm_datasets::{Dataset, Variable};
use serde_json::{Map, Value};

use super::times::Times;
use crate::nc2zarr::rename_named;
use crate::{Fault, new_store};

/// Another name for a variable: `Tair=met_tair`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    from: String,
    to: String,
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok(Self {
                from: from.to_owned(),
                to: to.to_owned(),
            }),
            _ => Err(format!("`{text}` is not a new name: write `Tair=met_tair`")),
        }
    }
}

/// A store with the variables that are used of it.
pub(super) struct View<'a> {
    pub(super) path: PathBuf,
    pub(super) dataset: &'a Dataset,
    /// By new name, without the times.
    pub(super) variables: BTreeMap<String, &'a Variable>,
    pub(super) times: Times,
    pub(super) time: &'a Variable,
    renames: &'a [Rename],
}

impl<'a> View<'a> {
    pub(super) fn of(
        dataset: &'a Dataset,
        dimension: &str,
        renames: &'a [Rename],
        selected: &[String],
    ) -> Result<Self, Fault> {
        let path = dataset.path();
        let time = dataset.variable(dimension)?;
        if time.dims() != [dimension.to_owned()] {
            let reason = format!("`{dimension}` is not the coordinate of a dimension of this name");
            return Err(Fault::store(path, reason));
        }
        if let Some(bounds) = time
            .text_attribute("bounds")
            .filter(|name| dataset.contains(name))
        {
            let reason = format!(
                "`{dimension}` has the bounds `{bounds}`, which would lose their meaning: write the store without them"
            );
            return Err(Fault::store(path, reason));
        }
        let times = Times {
            store: path.to_owned(),
            values: dataset.times(dimension)?,
        };
        times.check()?;
        let mut variables = named(dataset, dimension, renames)?;
        if !selected.is_empty() {
            let kept = kept(dataset, &variables, selected);
            variables.retain(|name, _| kept.contains(name));
        }
        Ok(Self {
            path: path.to_owned(),
            dataset,
            variables,
            times,
            time,
            renames,
        })
    }

    /// A store that has no times, beside one that has.
    pub(super) fn without_times(
        dataset: &'a Dataset,
        beside: &View<'a>,
        renames: &'a [Rename],
    ) -> Result<Self, Fault> {
        let (path, dimension) = (dataset.path(), beside.time.name());
        let variables = named(dataset, dimension, renames)?;
        let has_time = |(_, variable): &(&String, &&Variable)| {
            variable.dims().iter().any(|dim| dim == dimension)
        };
        if let Some((name, _)) = variables.iter().find(has_time) {
            let reason =
                format!("`{name}` changes with `{dimension}`, and the store is given as static");
            return Err(Fault::store(path, reason));
        }
        Ok(Self {
            path: path.to_owned(),
            dataset,
            variables,
            times: beside.times.clone(),
            time: beside.time,
            renames,
        })
    }

    /// Attributes of the store or of one of its variables, in which other variables have their new names.
    pub(super) fn renamed(&self, mut attributes: Map<String, Value>) -> Map<String, Value> {
        rename_named(&mut attributes, |name| {
            let mut renames = self.renames.iter();
            let rename = renames.find(|rename| rename.from == name && name != self.time.name());
            Some(rename.map_or(name, |rename| &rename.to).to_owned())
        });
        attributes
    }

    /// The names of the variables that change with time.
    pub(super) fn changing(&self) -> BTreeSet<&str> {
        let dimension = self.time.name();
        let has_time = |variable: &Variable| variable.dims().iter().any(|dim| dim == dimension);
        let changing = self
            .variables
            .iter()
            .filter(|(_, variable)| has_time(variable));
        changing.map(|(name, _)| name.as_str()).collect()
    }

    /// The variables that do not.
    pub(super) fn fixed(&self) -> impl Iterator<Item = (&String, &'a Variable)> {
        let dimension = self.time.name();
        let fixed = move |variable: &Variable| variable.dims().iter().all(|dim| dim != dimension);
        let all = self
            .variables
            .iter()
            .map(|(name, variable)| (name, *variable));
        all.filter(move |(_, variable)| fixed(variable))
    }
}

/// The variables of a store by their new names, without the times.
fn named<'a>(
    dataset: &'a Dataset,
    dimension: &str,
    renames: &[Rename],
) -> Result<BTreeMap<String, &'a Variable>, Fault> {
    let path = dataset.path();
    let mut variables = BTreeMap::new();
    for variable in new_store::variables(dataset)? {
        if variable.name() == dimension {
            continue;
        }
        new_store::form(path, variable)?;
        let rename = renames.iter().find(|rename| rename.from == variable.name());
        let name = rename
            .map_or(variable.name(), |rename| &rename.to)
            .to_owned();
        if variables.insert(name.clone(), variable).is_some() {
            let reason = format!("it has two variables of the name `{name}`");
            return Err(Fault::store(path, reason));
        }
    }
    Ok(variables)
}

/// The variables that are asked for, and the coordinates that belong to them.
fn kept(
    dataset: &Dataset,
    variables: &BTreeMap<String, &Variable>,
    selected: &[String],
) -> BTreeSet<String> {
    let mut kept: BTreeSet<String> = BTreeSet::new();
    let mut coordinates = words(dataset.attributes().get("coordinates"));
    for name in selected {
        let Some(variable) = variables.get(name) else {
            continue;
        };
        kept.insert(name.clone());
        coordinates.extend(words(variable.attributes().get("coordinates")));
        coordinates.extend(variable.dims().iter().cloned());
    }
    let dims: BTreeSet<&String> = kept
        .iter()
        .flat_map(|name| variables[name].dims())
        .collect();
    // Attributes and dimensions say the old names.
    let belongs = |(_, variable): &(&String, &&Variable)| {
        coordinates.contains(variable.name())
            && variable.dims().iter().all(|dim| dims.contains(dim))
    };
    let belonging: Vec<String> = variables
        .iter()
        .filter(belongs)
        .map(|(name, _)| name.clone())
        .collect();
    kept.extend(belonging);
    kept
}

fn words(attribute: Option<&Value>) -> BTreeSet<String> {
    let text = attribute.and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Refuses names that no store has.
pub(super) fn check_names(
    datasets: &[Dataset],
    views: &[View<'_>],
    renames: &[Rename],
    selected: &[String],
) -> Result<(), Fault> {
    let unknown = |name: &str| {
        let store: &Path = datasets[0].path();
        let names: Vec<&str> = datasets[0].names().collect();
        Fault::Usage(format!(
            "no store has a variable `{name}`; {} has: {}",
            store.display(),
            names.join(", ")
        ))
    };
    for rename in renames {
        if !datasets
            .iter()
            .any(|dataset| dataset.contains(&rename.from))
        {
            return Err(unknown(&rename.from));
        }
    }
    let is_there = |name: &&String| views.iter().any(|view| view.variables.contains_key(*name));
    match selected.iter().find(|name| !is_there(name)) {
        Some(name) => Err(unknown(name)),
        None => Ok(()),
    }
}

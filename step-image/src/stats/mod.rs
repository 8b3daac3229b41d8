//! `stats`: what a model is trained with: mean, standard deviation, extremes and changes of each variable.

mod gather;
mod moments;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args as Arguments, ValueEnum};
use mlwm_datasets::{Dataset, Definition, Element, Values, Variable, Writer, ZarrFormat};
use ndarray::ArrayD;
use serde_json::{Map, Value, json};

use crate::concat::is_in_degrees;
use crate::new_store::{self, NewStore, say};
use crate::{Error, Fault, lost};
use gather::{Both, Found, gather};

/// Write the statistics of a Zarr store as a small Zarr store.
#[derive(Clone, Debug, Arguments)]
pub struct Args {
    /// The Zarr store.
    pub store: PathBuf,
    /// The new one.
    pub target: PathBuf,
    /// Only these variables; all but coordinates if not given.
    #[arg(long, value_delimiter = ',')]
    pub variables: Vec<String>,
    /// Also of each point over time.
    #[arg(long)]
    pub per_point: bool,
    /// What missing values (NaN) mean.
    #[arg(long, value_enum, default_value_t)]
    pub missing: Missing,
    /// Take chunks that were never written for missing values, or what else their fill value means: for stores of
    /// writers that leave out such chunks.
    #[arg(long)]
    pub allow_missing: bool,
    /// The dimension along which changes are taken.
    #[arg(long, default_value = "time")]
    pub dimension: String,
    /// How many threads work; as many as there are processors if not given.
    #[arg(long)]
    pub threads: Option<std::num::NonZeroUsize>,
}

/// What missing values mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Missing {
    /// They are counted and left out.
    #[default]
    Skip,
    /// An error.
    Refuse,
}

/// One statistic: its name, what it is, whether it has the units of the variable, its value.
type Statistic = (&'static str, &'static str, fn(&Both) -> f64);
type Count = (&'static str, &'static str, fn(&Both) -> u64);

const STATISTICS: [Statistic; 6] = [
    ("mean", "mean", |both| both.values.known(both.values.mean)),
    ("std", "standard deviation (divided by n)", |both| {
        both.values.deviation()
    }),
    ("min", "least value", |both| {
        both.values.known(both.values.least)
    }),
    ("max", "greatest value", |both| {
        both.values.known(both.values.greatest)
    }),
    (
        "diff_mean",
        "mean of the changes from one time to the next",
        |both| both.changes.known(both.changes.mean),
    ),
    (
        "diff_std",
        "standard deviation of the changes from one time to the next",
        |both| both.changes.deviation(),
    ),
];
const COUNTS: [Count; 3] = [
    ("count", "number of values", |both| both.values.count),
    (
        "missing",
        "number of missing values, which are left out",
        |both| both.values.missing,
    ),
    ("diff_count", "number of changes", |both| both.changes.count),
];

/// Gathers statistics.
///
/// # Errors
/// [`Error::Fault`] for a store that cannot be read or is incomplete, variables that are not there, infinite values, and missing ones if
/// they are refused; [`Error::Exists`]. Nothing is left at the target.
pub fn run(args: &Args) -> Result<(), Error> {
    let dataset = Dataset::open(&args.store).map_err(Fault::from)?;
    let variables = chosen(&dataset, args)?;
    let coordinates = match args.per_point {
        true => coordinates(&dataset, &variables, &args.dimension)?,
        false => Vec::new(),
    };
    let read = variables.iter().chain(&coordinates).copied();
    lost::check_whole(&args.store, read, args.allow_missing)?;
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = args
        .threads
        .map_or_else(processors, std::num::NonZeroUsize::get);
    let mut attributes = Map::new();
    let missing = match args.missing {
        Missing::Skip => "missing values are counted and left out",
        Missing::Refuse => "there are no missing values",
    };
    attributes.insert("comment".to_owned(), json!(missing));
    let mut store = NewStore::begin(&args.target, ZarrFormat::V3, attributes)?;
    let mut all = Vec::new();
    for &variable in &variables {
        let found = gather(variable, &args.dimension, args.per_point, threads)?;
        let missing = found.all.values.missing;
        if missing > 0 && args.missing == Missing::Refuse {
            let reason = format!("`{}` has {missing} missing value(s)", variable.name());
            return Err(Fault::store(&args.store, reason).into());
        }
        write_points(&mut store.writer, variable, &found, &args.dimension)?;
        all.push(found.all);
    }
    copy_coordinates(&mut store.writer, &coordinates)?;
    write_all(&mut store.writer, &variables, &all)?;
    store.finish()?;
    say(&format!(
        "{}: statistics of {} variables",
        args.target.display(),
        variables.len()
    ));
    Ok(())
}

/// The variables that statistics are made of.
fn chosen<'a>(dataset: &'a Dataset, args: &Args) -> Result<Vec<&'a Variable>, Fault> {
    if !args.variables.is_empty() {
        let names: BTreeSet<&String> = args.variables.iter().collect();
        let all = names.into_iter().map(|name| dataset.variable(name));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        return match all
            .iter()
            .find(|variable| variable.element() == Element::Text)
        {
            Some(text) => Err(Fault::store(
                &args.store,
                format!("`{}` holds texts", text.name()),
            )),
            None => Ok(all),
        };
    }
    let is_value = |variable: &&Variable| {
        let units = variable.text_attribute("units").unwrap_or_default();
        variable.element() != Element::Text
            && !new_store::is_index(variable)
            && !is_in_degrees(variable.name(), variable)
            && !units.contains(" since ")
    };
    let chosen: Vec<&Variable> = new_store::variables(dataset)?
        .into_iter()
        .filter(is_value)
        .collect();
    match chosen.is_empty() {
        true => Err(Fault::store(
            &args.store,
            "it has no variables besides coordinates",
        )),
        false => Ok(chosen),
    }
}

/// The statistics of all variables along the dimension `variable`.
fn write_all(writer: &mut Writer, variables: &[&Variable], all: &[Both]) -> Result<(), Fault> {
    let dims = [("variable", variables.len() as u64)];
    let mut write = |name: &str, long_name: &str, values: Values| {
        let definition = Definition::new(name, &dims, values.element());
        writer.define(&definition.attribute("long_name", long_name))?;
        writer.write(name, values)
    };
    let column = vec![variables.len()];
    let names = ArrayD::from_shape_fn(column.clone(), |at| variables[at[0]].name().to_owned());
    write("variable", "name of the variable", Values::Text(names))?;
    let units = ArrayD::from_shape_fn(column.clone(), |at| {
        variables[at[0]]
            .text_attribute("units")
            .unwrap_or_default()
            .to_owned()
    });
    write("units", "units of the variable", Values::Text(units))?;
    for (name, long_name, value) in STATISTICS {
        let values = ArrayD::from_shape_fn(column.clone(), |at| value(&all[at[0]]));
        write(name, long_name, Values::F64(values))?;
    }
    for (name, long_name, value) in COUNTS {
        let values = ArrayD::from_shape_fn(column.clone(), |at| value(&all[at[0]]) as i64);
        write(name, long_name, Values::I64(values))?;
    }
    Ok(())
}

/// The statistics of each point: `t2m_mean` and so on.
fn write_points(
    writer: &mut Writer,
    variable: &Variable,
    found: &Found,
    dimension: &str,
) -> Result<(), Fault> {
    let Some(points) = &found.points else {
        return Ok(());
    };
    let dims: Vec<(&str, u64)> = variable
        .dims()
        .iter()
        .filter(|dim| *dim != dimension)
        .map(String::as_str)
        .zip(points.shape().iter().map(|&length| length as u64))
        .collect();
    let mut write = |name: &str, long_name: &str, values: Values, units: Option<&str>| {
        let name = format!("{}_{name}", variable.name());
        let mut definition = Definition::new(&name, &dims, values.element())
            .attribute("long_name", format!("{long_name}, of {}", variable.name()));
        if let Some(units) = units {
            definition = definition.attribute("units", units);
        }
        if let Some(coordinates) = variable
            .attributes()
            .get("coordinates")
            .and_then(Value::as_str)
        {
            definition = definition.attribute("coordinates", coordinates);
        }
        writer.define(&definition)?;
        writer.write(&name, values)
    };
    for (name, long_name, value) in STATISTICS {
        write(
            name,
            long_name,
            Values::F64(points.map(value)),
            variable.text_attribute("units"),
        )?;
    }
    for (name, long_name, value) in COUNTS {
        let values = points.map(|both| value(both) as i64);
        write(name, long_name, Values::I64(values), None)?;
    }
    Ok(())
}

/// The coordinates of the points.
fn coordinates<'a>(
    dataset: &'a Dataset,
    variables: &[&Variable],
    dimension: &str,
) -> Result<Vec<&'a Variable>, Fault> {
    let used: BTreeSet<&String> = variables
        .iter()
        .filter(|variable| variable.dims().iter().any(|dim| dim == dimension))
        .flat_map(|variable| variable.dims())
        .filter(|dim| *dim != dimension)
        .collect();
    let named: BTreeSet<&str> = variables
        .iter()
        .filter_map(|variable| variable.text_attribute("coordinates"))
        .chain(
            dataset
                .attributes()
                .get("coordinates")
                .and_then(Value::as_str),
        )
        .flat_map(str::split_whitespace)
        .collect();
    let belongs = |variable: &&Variable| {
        let name = variable.name();
        let is_coordinate =
            new_store::is_index(variable) || is_in_degrees(name, variable) || named.contains(name);
        let fits =
            !variable.dims().is_empty() && variable.dims().iter().all(|dim| used.contains(dim));
        is_coordinate && fits && !variables.iter().any(|other| other.name() == name)
    };
    let all = new_store::variables(dataset)?.into_iter();
    Ok(all.filter(belongs).collect())
}

fn copy_coordinates(writer: &mut Writer, coordinates: &[&Variable]) -> Result<(), Fault> {
    for variable in coordinates {
        let name = variable.name();
        let dims: Vec<(&str, u64)> = variable
            .dims()
            .iter()
            .map(String::as_str)
            .zip(variable.shape().iter().copied())
            .collect();
        let definition = Definition::new(name, &dims, variable.element());
        writer.define(&definition.attributes(variable.plain_attributes()))?;
        writer.write(name, variable.read()?)?;
    }
    Ok(())
}

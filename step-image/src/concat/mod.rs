//! `concat`: many stores to one along time.

mod agree;
mod append;
mod matrix;
mod series;
pub(crate) mod times;
mod view;

use std::path::PathBuf;

use clap::Args as Arguments;
use mlwm_datasets::{
    Dataset, Definition, Element, StoredDefinition, Values, Variable, Writer, time_attributes,
};
use mlwm_spec::time::utc_text;
use ndarray::ArrayD;
use serde_json::{Map, Value};

use crate::chunking::{Chunking, Compression, Format, Lengths};
use crate::moving::Part;
use crate::new_store::{self, Job, NewStore, check_space, copy_texts, say, whole, writer_in};
use crate::rechunk::Limits;
use crate::{Error, Fault, lost, provenance};
use agree::Tolerance;
pub(crate) use agree::is_in_degrees;
use append::Replacement;
use series::Plan;
pub use view::Rename;
use view::View;

/// Write several Zarr stores as one along time.
#[derive(Clone, Debug, Arguments)]
pub struct Args {
    /// The stores, in any order.
    #[arg(required = true)]
    pub stores: Vec<PathBuf>,
    /// The new store; with `--append` the one that grows.
    pub target: PathBuf,
    /// Append to a store that this command wrote: it becomes what it would be from all stores at once.
    #[arg(long, conflicts_with_all = ["chunk", "shard", "zarr_format", "compression", "variables"])]
    pub append: bool,
    /// The stores may be of different variables at the same times.
    #[arg(long)]
    pub merge: bool,
    /// Lengths of chunks, like `time=10,x=-1` (-1: the whole dimension); others are those of the first store.
    #[arg(long, default_value = None)]
    pub chunk: Option<Lengths>,
    /// Lengths of shards, each a file of whole chunks (Zarr version 3).
    #[arg(long)]
    pub shard: Option<Lengths>,
    /// The version of Zarr; that of the first store if not given.
    #[arg(long, value_enum)]
    pub zarr_format: Option<Format>,
    /// How chunks are compressed; as in the first store if not given, if mlwm knows that.
    #[arg(long, value_enum)]
    pub compression: Option<Compression>,
    /// Only these variables, by their new names, and their coordinates.
    #[arg(long, value_delimiter = ',')]
    pub variables: Vec<String>,
    /// Another name for a variable: `Tair=met_tair`.
    #[arg(long, value_delimiter = ',')]
    pub rename: Vec<Rename>,
    /// The dimension along which the stores follow each other.
    #[arg(long, default_value = "time")]
    pub dimension: String,
    /// How far longitudes and latitudes of the stores may be apart, in degrees; those of the first are kept.
    #[arg(long, default_value_t = 1e-4)]
    pub tolerance: f64,
    /// Attributes of variables that may differ; those of the first store are kept.
    #[arg(long, value_delimiter = ',')]
    pub ignore_attribute: Vec<String>,
    /// Take chunks that were never written for missing values, or what else their fill value means: for stores of
    /// writers that leave out such chunks.
    #[arg(long)]
    pub allow_missing: bool,
    /// A store without times, whose variables the result has as well.
    #[arg(long = "static", value_name = "STORE")]
    pub statics: Vec<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: Limits,
}

/// Concatenates.
///
/// # Errors
/// [`Error::Fault`] for stores that do not fit together, with their names and what differs; too little memory or
/// space; [`Error::Exists`]. Nothing is left at the target; one that grows stays as it was.
pub fn run(args: &Args) -> Result<(), Error> {
    let open = |path: &PathBuf| Dataset::open(path).map_err(Fault::from);
    let datasets: Vec<Dataset> = args.stores.iter().map(open).collect::<Result<_, _>>()?;
    let statics: Vec<Dataset> = args.statics.iter().map(open).collect::<Result<_, _>>()?;
    let base = match args.append {
        true => Some(open(&args.target)?),
        false => None,
    };
    for dataset in datasets.iter().chain(&base) {
        let time = dataset.variable(&args.dimension).map_err(Fault::from)?;
        lost::check_whole(dataset.path(), [time], args.allow_missing)?;
    }
    let view = |dataset| View::of(dataset, &args.dimension, &args.rename, &args.variables);
    let views: Vec<View<'_>> = datasets.iter().map(view).collect::<Result<_, Fault>>()?;
    view::check_names(&datasets, &views, &args.rename, &args.variables)?;
    let without_times = |dataset| View::without_times(dataset, &views[0], &args.rename);
    let statics: Vec<View<'_>> = statics
        .iter()
        .map(without_times)
        .collect::<Result<_, Fault>>()?;
    let base = match &base {
        Some(dataset) => Some(View::of(dataset, &args.dimension, &[], &[])?),
        None => None,
    };
    for view in views.iter().chain(&statics).chain(&base) {
        let all = view.variables.values().copied();
        lost::check_whole(&view.path, all, args.allow_missing)?;
    }
    let series = series::group(&views, args.merge)?;
    let tolerance = Tolerance {
        degrees: args.tolerance,
        ignored: args.ignore_attribute.clone(),
    };
    if let Some(base) = &base
        && append::is_there(base, &series, &tolerance)?
    {
        // The old state, if one was killed before it removed it.
        append::remove_unfinished(&args.target)?;
        say(&format!(
            "{}: it has these times already",
            args.target.display()
        ));
        return Ok(());
    }
    let mut plan = series::plan(base.as_ref(), &series, &tolerance)?;
    for view in &statics {
        series::add_fixed(&mut plan, &[view], false, &tolerance)?;
    }
    series::check_together(&plan)?;
    for (name, apart) in plan.apart.iter().filter(|(_, apart)| **apart > 0.0) {
        say(&format!(
            "`{name}` differs by up to {apart} between the stores; that of the first is kept"
        ));
    }
    for (of, dropped) in [
        ("their own".to_owned(), &plan.dropped),
        (format!("`{}`", args.dimension), &plan.dropped_of_time),
    ] {
        if !dropped.is_empty() {
            say(&format!(
                "note: the stores differ in these attributes of {of}, which the result has not: {}",
                dropped.iter().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    let parts: Vec<&View<'_>> = base
        .iter()
        .chain(series.iter().flatten().copied())
        .collect();
    match &base {
        Some(base) => grow(args, base, &plan, &parts)?,
        None => create(args, &plan, &parts)?,
    }
    let (first, last) = (plan.times[0], plan.times[plan.times.len() - 1]);
    say(&format!(
        "{}: {} times from {} to {}, {} variables",
        args.target.display(),
        plan.times.len(),
        utc_text(first),
        utc_text(last),
        plan.changing.len() + plan.fixed.len()
    ));
    Ok(())
}

/// A store of all.
fn create(args: &Args, plan: &Plan<'_>, all_views: &[&View<'_>]) -> Result<(), Error> {
    let presence = matrix::join(all_views, &plan.times)?;
    let all = plan
        .changing
        .values()
        .flat_map(|views| views.iter().map(|view| view.1));
    let all = all.chain(plan.fixed.values().map(|parts| parts[0].1));
    for lengths in [args.chunk.as_ref(), args.shard.as_ref()]
        .into_iter()
        .flatten()
    {
        lengths.check(&args.stores[0], all.clone())?;
    }
    let chunking = Chunking {
        chunk: args.chunk.clone().unwrap_or_default(),
        shard: args.shard.clone(),
        compression: args.compression,
        growing: Some(args.dimension.clone()),
    };
    let budget = args.limits.budget();
    let (mut jobs, mut texts) = (Vec::new(), Vec::new());
    for (name, parts) in &plan.changing {
        let (view, first) = parts[0];
        let store = &view.path;
        let Some(form) = new_store::form(store, first)? else {
            return Err(changing_texts(view, name).into());
        };
        let axis = plan.axis(first);
        let mut shape = first.shape().to_vec();
        shape[axis] = plan.times.len() as u64;
        let mut definition = chunking.definition(name, first, form, &shape)?;
        definition.attributes = view.renamed(definition.attributes);
        join_provenance(args, name, parts, &mut definition);
        let mut offset = 0;
        let parts = parts.iter().map(|(_, variable)| {
            let part = Part {
                variable,
                offset,
                first_chunk: 0,
            };
            offset += variable.shape()[axis];
            part
        });
        jobs.push(Job::plan(
            store,
            definition,
            parts.collect(),
            axis,
            0,
            budget,
        )?);
    }
    for (name, parts) in &plan.fixed {
        let (view, variable) = parts[0];
        let Some(form) = new_store::form(&view.path, variable)? else {
            texts.push((name, view, variable));
            continue;
        };
        let mut definition = chunking.definition(name, variable, form, variable.shape())?;
        definition.attributes = view.renamed(definition.attributes);
        join_provenance(args, name, parts, &mut definition);
        if new_store::is_index(variable) {
            definition.chunks = variable.shape().to_vec();
            definition.shards = None;
        }
        jobs.push(Job::plan(
            &view.path,
            definition,
            whole(variable),
            0,
            0,
            budget,
        )?);
    }
    let disk = jobs.iter().map(Job::disk).max().unwrap_or(0);
    check_space(&args.target, disk, " for a while, besides the result")?;
    let format = args.zarr_format.map_or(plan.format, Into::into);
    let mut store = NewStore::begin(&args.target, format, plan.attributes.clone())?;
    let folder = store.folder();
    for job in &jobs {
        store
            .writer
            .define_stored(&job.definition)
            .map_err(Fault::from)?;
    }
    for (name, view, variable) in texts {
        let attributes = view.renamed(variable.decoded_attributes());
        copy_texts(&mut store.writer, name, variable, attributes)?;
    }
    write_times(&mut store.writer, &args.dimension, plan)?;
    for job in jobs {
        job.copy(&store.writer, &folder)?;
    }
    matrix::write(presence, &folder)?;
    store.finish()
}

/// A store with later times: files that do not change are taken from it.
fn grow(
    args: &Args,
    base: &View<'_>,
    plan: &Plan<'_>,
    all_views: &[&View<'_>],
) -> Result<(), Error> {
    let presence = matrix::join(all_views, &plan.times)?;
    let budget = args.limits.budget();
    let (mut jobs, mut texts, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for (name, parts) in &plan.changing {
        let first = parts[0].1;
        if new_store::form(&base.path, first)?.is_none() {
            return Err(changing_texts(base, name).into());
        }
        let axis = plan.axis(first);
        let mut shape = first.shape().to_vec();
        let old = shape[axis];
        shape[axis] = plan.times.len() as u64;
        let mut definition = append::definition(base.dataset, first, &shape)?;
        join_provenance(args, name, parts, &mut definition);
        // The last file is written again if it is not full.
        let each = definition.file_chunks()[axis];
        let full = old / each;
        kept.push((first, axis, full));
        let mut new = Vec::new();
        if !old.is_multiple_of(each) {
            new.push(Part {
                variable: first,
                offset: full * each,
                first_chunk: full,
            });
        }
        let mut offset = old;
        for (_, variable) in &parts[1..] {
            new.push(Part {
                variable,
                offset,
                first_chunk: 0,
            });
            offset += variable.shape()[axis];
        }
        jobs.push(Job::plan(&base.path, definition, new, axis, full, budget)?);
    }
    for (name, parts) in &plan.fixed {
        let (view, variable) = parts[0];
        match new_store::form(&base.path, variable)? {
            None => texts.push((name, view, variable)),
            Some(_) => {
                let mut definition = append::definition(base.dataset, variable, variable.shape())?;
                join_provenance(args, name, parts, &mut definition);
                jobs.push(Job::plan(
                    &base.path,
                    definition,
                    whole(variable),
                    0,
                    0,
                    budget,
                )?);
            }
        }
    }
    let disk = jobs.iter().map(Job::disk).max().unwrap_or(0);
    check_space(&args.target, disk, " for a while, besides the result")?;
    let replacement = Replacement::begin(&args.target)?;
    let folder = replacement.folder().to_owned();
    let mut writer = writer_in(&folder, base.dataset.format(), plan.attributes.clone())?;
    for job in &jobs {
        writer.define_stored(&job.definition).map_err(Fault::from)?;
    }
    for (name, view, variable) in texts {
        let attributes = view.renamed(variable.decoded_attributes());
        copy_texts(&mut writer, name, variable, attributes)?;
    }
    write_times(&mut writer, &args.dimension, plan)?;
    for (variable, axis, full) in kept {
        append::link(&writer, variable, axis, full)?;
    }
    for job in jobs {
        job.copy(&writer, &folder)?;
    }
    matrix::write(presence, &folder)?;
    writer.finish().map_err(Fault::from)?;
    Ok(replacement.finish()?)
}

/// Says in a variable where all of its parts are from.
fn join_provenance(
    args: &Args,
    name: &str,
    parts: &[(&View<'_>, &Variable)],
    definition: &mut StoredDefinition,
) {
    let of_parts: Vec<_> = parts.iter().map(|(_, part)| part.attributes()).collect();
    for note in provenance::join(
        name,
        &of_parts,
        &args.ignore_attribute,
        &mut definition.attributes,
    ) {
        say(&format!("note: {note}"));
    }
}

/// The times as seconds since 1970, in one chunk.
fn write_times(writer: &mut Writer, dimension: &str, plan: &Plan<'_>) -> Result<(), Fault> {
    let count = plan.times.len();
    let mut attributes: Map<String, Value> = plan.time_attributes.clone();
    attributes.extend(time_attributes());
    let definition = Definition::new(dimension, &[(dimension, count as u64)], Element::I64);
    writer.define(&definition.attributes(attributes))?;
    let values = ArrayD::from_shape_fn(vec![count], |at| plan.times[at[0]]);
    Ok(writer.write(dimension, Values::I64(values))?)
}

fn changing_texts(view: &View<'_>, name: &str) -> Fault {
    let reason =
        format!("`{name}` holds texts that change with time, which cannot be concatenated");
    Fault::store(&view.path, reason)
}

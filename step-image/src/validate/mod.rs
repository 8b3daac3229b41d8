//! `validate`: whether a store is what it should be.

mod check;
mod schema;

use std::fs;
use std::path::PathBuf;

use clap::Args as Arguments;
use mlwm_datasets::Dataset;

use crate::new_store::say;
use crate::{Error, Fault};
use check::{Report, check};
use schema::Schema;
pub(crate) use schema::time;

/// Check that a Zarr store is complete and what its schema says.
#[derive(Clone, Debug, Arguments)]
pub struct Args {
    /// The Zarr store.
    pub store: PathBuf,
    /// A YAML file: `times`, `lengths`, `variables` with `dims`, `type`, `units`, `range`, `missing`, and `others`.
    #[arg(long)]
    pub schema: Option<PathBuf>,
    /// The first time, like `2020-02-01T00:00Z`.
    #[arg(long)]
    pub from: Option<String>,
    /// The last time.
    #[arg(long)]
    pub to: Option<String>,
    /// The step from one time to the next, like `6h`.
    #[arg(long)]
    pub step: Option<String>,
    /// Variables in which values may be missing.
    #[arg(long, value_delimiter = ',')]
    pub allow_missing: Vec<String>,
    /// A file for the report as JSON, also of a store that is not valid.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// The dimension of the times.
    #[arg(long, default_value = "time")]
    pub dimension: String,
    /// How many threads work; as many as there are processors if not given.
    #[arg(long)]
    pub threads: Option<std::num::NonZeroUsize>,
}

/// Validates; prints a table and all problems.
///
/// # Errors
/// [`Error::Fault`] with [`Fault::Invalid`] if there are problems, others if the store or the schema cannot be read.
pub fn run(args: &Args) -> Result<(), Error> {
    let mut schema = match &args.schema {
        Some(path) => Schema::read(path)?,
        None => Schema::default(),
    };
    for (option, expected) in [
        (&args.from, &mut schema.times.from),
        (&args.to, &mut schema.times.to),
        (&args.step, &mut schema.times.step),
    ] {
        if option.is_some() {
            expected.clone_from(option);
        }
    }
    let moments = schema.times.parse().map_err(Fault::Usage)?;
    let dataset = Dataset::open(&args.store).map_err(Fault::from)?;
    if let Some(name) = args
        .allow_missing
        .iter()
        .find(|name| !dataset.contains(name))
    {
        let names: Vec<&str> = dataset.names().collect();
        let known = names.join(", ");
        return Err(
            Fault::Usage(format!("there is no variable `{name}`; there are: {known}")).into(),
        );
    }
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = args
        .threads
        .map_or_else(processors, std::num::NonZeroUsize::get);
    let report = check(&dataset, &schema, moments, args, threads)?;
    if let Some(path) = &args.report {
        write(path, &report)?;
    }
    say(&report.table());
    for problem in &report.problems {
        say(&format!("problem: {problem}"));
    }
    match report.problems.first() {
        None => Ok(()),
        Some(first) => Err(Fault::Invalid {
            store: args.store.clone(),
            count: report.problems.len(),
            first: first.clone(),
        }
        .into()),
    }
}

fn write(path: &std::path::Path, report: &Report) -> Result<(), Fault> {
    let failed = Fault::write(path);
    let mut text =
        serde_json::to_vec_pretty(report).map_err(|error| Fault::write(path)(error.into()))?;
    text.push(b'\n');
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    fs::write(&partial, text)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(failed)
}

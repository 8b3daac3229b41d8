//! `rechunk`: the same store in other chunks.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args as Arguments;
use mlwm_datasets::Dataset;
use mlwm_spec::bytes::ByteSize;

use crate::chunking::{Chunking, Compression, Format, Lengths};
use crate::moving::Budget;
use crate::new_store::{self, Job, NewStore, check_space, copy_texts, say, whole};
use crate::{Error, Fault, lost};

/// Write a Zarr store again in other chunks, bit by bit the same, within a limit of memory.
#[derive(Clone, Debug, Arguments)]
pub struct Args {
    /// The Zarr store.
    pub store: PathBuf,
    /// The new one.
    pub target: PathBuf,
    /// Lengths of chunks, like `time=-1,x=2048` (-1: the whole dimension); others stay as they are.
    #[arg(long)]
    pub chunk: Lengths,
    /// Lengths of shards, each a file of whole chunks (Zarr version 3).
    #[arg(long)]
    pub shard: Option<Lengths>,
    /// The version of Zarr; that of the store if not given.
    #[arg(long, value_enum)]
    pub zarr_format: Option<Format>,
    /// How chunks are compressed; as in the store if not given, if mlwm knows that.
    #[arg(long, value_enum)]
    pub compression: Option<Compression>,
    /// Take chunks that were never written for missing values, or what else their fill value means: for stores of
    /// writers that leave out such chunks.
    #[arg(long)]
    pub allow_missing: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub limits: Limits,
}

/// What a step may use of a machine.
#[derive(Clone, Debug, Arguments)]
pub struct Limits {
    /// The most memory that the process takes.
    #[arg(long, default_value = "1GiB")]
    pub memory: ByteSize,
    /// How many threads work; as many as there are processors if not given.
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
}

impl Limits {
    pub(crate) fn budget(&self) -> Budget {
        let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Budget {
            memory: self.memory.0,
            threads: self.threads.map_or_else(processors, NonZeroUsize::get),
        }
    }
}

/// Rechunks.
///
/// # Errors
/// [`Error::Fault`] for a store that cannot be read or is incomplete, lengths that fit no variable, too little memory or space;
/// [`Error::Exists`]; nothing is left at the target.
pub fn run(args: &Args) -> Result<(), Error> {
    let dataset = Dataset::open(&args.store).map_err(Fault::from)?;
    let variables = new_store::variables(&dataset)?;
    lost::check_whole(&args.store, variables.iter().copied(), args.allow_missing)?;
    let lengths = [Some(&args.chunk), args.shard.as_ref()];
    for lengths in lengths.into_iter().flatten() {
        lengths.check(&args.store, variables.iter().copied())?;
    }
    let chunking = Chunking {
        chunk: args.chunk.clone(),
        shard: args.shard.clone(),
        compression: args.compression,
        growing: None,
    };
    let mut jobs = Vec::new();
    let mut texts = Vec::new();
    for variable in variables {
        let Some(form) = new_store::form(&args.store, variable)? else {
            texts.push(variable);
            continue;
        };
        let name = variable.name();
        let mut definition = chunking.definition(name, variable, form, variable.shape())?;
        if new_store::is_index(variable) {
            definition.chunks = variable.shape().to_vec();
            definition.shards = None;
        }
        let budget = args.limits.budget();
        jobs.push(Job::plan(
            &args.store,
            definition,
            whole(variable),
            0,
            0,
            budget,
        )?);
    }
    let disk = jobs.iter().map(Job::disk).max().unwrap_or(0);
    check_space(&args.target, disk, " for a while, besides the result")?;
    let format = args.zarr_format.map_or(dataset.format(), Into::into);
    let mut store = NewStore::begin(&args.target, format, dataset.attributes().clone())?;
    for job in &jobs {
        store
            .writer
            .define_stored(&job.definition)
            .map_err(Fault::from)?;
    }
    for variable in texts {
        let attributes = variable.decoded_attributes();
        copy_texts(&mut store.writer, variable.name(), variable, attributes)?;
    }
    let (count, folder) = (jobs.len(), store.folder());
    for job in jobs {
        job.copy(&store.writer, &folder)?;
    }
    store.finish()?;
    say(&format!(
        "{}: {count} variables in their new chunks",
        args.target.display()
    ));
    Ok(())
}

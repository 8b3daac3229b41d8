//! `mlwm-step nc2zarr`: NetCDF files, joined along time, into one Zarr store.
//!
//! What is not along time is stored once, and must be the same in all files. As of GRIB, everything is decided
//! before anything is created.

mod attributes;
mod index;
mod names;
mod plan;
mod write;

use std::path::PathBuf;

use clap::Args;
use mlwm_spec::AnalysisTime;

pub(crate) use self::attributes::of_time;
use self::index::Index;
use self::names::Rename;
pub(crate) use self::names::rename_named;
use self::plan::Plan;
use crate::output::{Output, files, whole};
use crate::report::Report;
use crate::{Error, Problems};

/// NetCDF files, joined along time, into one Zarr store.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// NetCDF files; a folder stands for all files in it. Their order does not matter.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The Zarr store to write: something new, or an empty folder.
    #[arg(required = true)]
    pub target: PathBuf,
    /// Take these variables only, and their coordinates.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub variables: Vec<String>,
    /// Call a variable otherwise.
    #[arg(long = "rename", value_name = "OLD=NEW", value_delimiter = ',')]
    pub renames: Vec<Rename>,
    /// Write the names of variables (not of coordinates) that are not renamed in lower case.
    #[arg(long)]
    pub lowercase: bool,
    /// What the names of variables (not of coordinates) that are not renamed begin with.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prefix: String,
    /// Leave out this time and later ones, such as the first of the next month.
    #[arg(long, value_name = "TIME")]
    pub until: Option<AnalysisTime>,
    /// The coordinate of time, where there are several; it is called `time` in the result.
    #[arg(long, value_name = "NAME")]
    pub time: Option<String>,
    /// Options of the result.
    #[command(flatten)]
    pub output: Output,
}

/// Converts.
///
/// # Errors
/// [`Error::Problems`] for an input that cannot be converted without loss; errors of reading and writing.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let files = files(&arguments.files)?;
    let (mut report, mut problems) = (Report::new("nc2zarr"), Problems::default());
    let index = Index::read(files, arguments, &mut report, &mut problems)?;
    let plan = Plan::of(&index, arguments, &mut report, &mut problems);
    arguments
        .output
        .check_chunks(&plan.dim_names(), &mut problems);
    report.refuse(problems, arguments.output.report.as_deref())?;
    write::check_memory(&index, &plan, arguments)?;
    whole(&arguments.target, |folder| {
        write::write(&index, &plan, arguments, folder)?;
        report.finish(arguments.output.report.as_deref(), folder)
    })
}

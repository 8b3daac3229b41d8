//! `mlwm-step grib2zarr`: GRIB messages of edition 1 and 2 into one Zarr store.
//!
//! Two passes: the first reads the headers and decides everything, so that whatever is wrong is told before
//! anything is created; the second decodes each field once and writes it, with one time in memory.

mod index;
mod levels;
mod plan;
mod table;
mod write;

use std::path::PathBuf;

use clap::Args;

use self::index::Index;
use self::plan::Plan;
use self::table::{Layout, Table};
use self::write::{Points, budget, check_memory, write};
use crate::output::{Output, files, whole};
use crate::report::Report;
use crate::{Error, Problems, points};

/// GRIB messages of edition 1 and 2 into one Zarr store; every message is used or refused with a reason.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// GRIB files; a folder stands for all files in it.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The Zarr store to write: something new, or an empty folder.
    #[arg(required = true)]
    pub target: PathBuf,
    /// Which fields become which variables, in YAML; without it, each parameter becomes a variable.
    #[arg(long, value_name = "FILE")]
    pub table: Option<PathBuf>,
    /// Take these points only: a NetCDF file, Zarr store or `.npy` with their numbers, counted from 1 in the
    /// order of the fields' values.
    #[arg(long, value_name = "FILE")]
    pub points: Option<PathBuf>,
    /// The variable of `--points` with the numbers.
    #[arg(long, value_name = "NAME", default_value = "x")]
    pub points_variable: String,
    /// What several levels of a parameter become: a dimension, or variables `<name>_l<level>`.
    #[arg(long, value_enum, default_value = "dimension")]
    pub levels: Layout,
    /// Write longitudes from -180 to 180; the order of the points stays.
    #[arg(long)]
    pub wrap_longitudes: bool,
    /// Options of the result.
    #[command(flatten)]
    pub output: Output,
}

/// Converts.
///
/// # Errors
/// [`Error::Problems`] for an input that cannot be converted without loss; errors of reading and writing.
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let table = match &arguments.table {
        Some(path) => Table::read(path)?,
        None => Table::of_everything(),
    };
    let selected = match &arguments.points {
        Some(path) => Some(points::read(path, &arguments.points_variable)?),
        None => None,
    };
    let files = files(&arguments.files)?;
    let (mut report, mut problems) = (Report::new("grib2zarr"), Problems::default());
    let mut index = Index::read(files, &table, &mut report, &mut problems)?;
    let grid = index.grid.take();
    let budget = budget(
        &index,
        grid.as_ref().map(|(grid, ..)| grid),
        &arguments.output,
    );
    let points = grid.map(|(grid, _, coordinates)| {
        Points::new(&grid, coordinates, selected, arguments, &mut problems)
    });
    let grid_dims: Vec<&str> = points.iter().flat_map(Points::dim_names).collect();
    let plan = Plan::of(
        &index,
        &table,
        arguments,
        &grid_dims,
        &mut report,
        &mut problems,
    );
    let mut dims: Vec<&str> = vec!["time"];
    dims.extend(plan.levels.keys().map(String::as_str));
    dims.extend(&grid_dims);
    arguments.output.check_chunks(&dims, &mut problems);
    report.refuse(problems, arguments.output.report.as_deref())?;
    let Some(points) = points else {
        return Err(Error::NoFiles(arguments.files.clone()));
    };
    check_memory(&plan, &points, arguments, budget)?;
    whole(&arguments.target, |folder| {
        let asked = arguments.output.report.as_deref();
        match write(&index, &plan, &points, arguments, budget, folder) {
            Ok(()) => report.finish(asked, folder),
            // That fields differ which should be one is seen only when they are decoded.
            Err(Error::Problems(problems)) => report.refuse(problems, asked),
            Err(error) => Err(error),
        }
    })
}

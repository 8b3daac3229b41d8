//! `mlwm-step`: one step of a data pipeline, in a container or on a command line.
#![allow(clippy::print_stderr)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mlwm_step::{Error, concat, fetch, grib2zarr, nc2zarr, plot, rechunk, stats, validate};

/// One step of a data pipeline: reads files, writes one new dataset, whole or not at all.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Files from elsewhere into one folder.
    Fetch(fetch::Arguments),
    /// GRIB messages of edition 1 and 2 into one Zarr store.
    Grib2zarr(grib2zarr::Arguments),
    /// NetCDF files, joined along time, into one Zarr store.
    Nc2zarr(nc2zarr::Arguments),
    Concat(concat::Args),
    Rechunk(rechunk::Args),
    Stats(stats::Args),
    Validate(validate::Args),
    Plot(plot::Args),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code().into()
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Grib2zarr(arguments) => grib2zarr::run(&arguments),
        Command::Nc2zarr(arguments) => nc2zarr::run(&arguments),
        Command::Concat(args) => concat::run(&args),
        Command::Rechunk(args) => rechunk::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Plot(args) => plot::run(&args),
    }
}

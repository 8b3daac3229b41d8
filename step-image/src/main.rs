//! `mlwm-step`: one step of a data pipeline, in a container or on a command line.
#![allow(clippy::print_stderr)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mlwm_step::{Error, concat, plot, rechunk, stats, validate};

/// One step of a data pipeline: reads files, writes one new dataset, whole or not at all.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
        Command::Concat(args) => concat::run(&args),
        Command::Rechunk(args) => rechunk::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Plot(args) => plot::run(&args),
    }
}

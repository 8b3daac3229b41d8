//! The command `mlwm`: machine-learning weather models in production.

// This crate is the one that prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// Prints a line on standard output.
macro_rules! say {
    ($($text:tt)*) => {
        crate::print_line(format_args!($($text)*))
    };
}

/// Prints a line on standard error.
macro_rules! note {
    ($($text:tt)*) => {
        crate::print_note(format_args!($($text)*))
    };
}

mod commands;
mod expectations;
mod failure;
mod report;
mod terminal;
mod transfer;
mod words;

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand};

use crate::commands::{
    artifact, cache, check, image, list, logs, paths, plan, plot, replay, run, status, verify, why,
};
use crate::failure::Failure;

/// Run machine-learning weather models in production: from a training machine to a forecast every
/// cycle.
#[derive(Parser)]
#[command(name = "mlwm", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Inference artifacts: everything needed from training to run a model, as one zip.
    #[command(subcommand)]
    Artifact(artifact::Command),
    /// The local cache of artifacts from registries.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Images: one per configured model.
    #[command(subcommand)]
    Image(image::Command),
    /// Print the tasks of one or more analysis times as JSON; nothing is run.
    Plan(plan::Arguments),
    /// Run the configured models for an analysis time, or the tasks of a plan.
    Run(run::Arguments),
    /// Show how far each cycle and model is.
    Status(status::Arguments),
    /// Print the log of a task's container.
    Logs(logs::Arguments),
    /// Tell how a published output came about.
    Why(why::Arguments),
    /// Make a published output again from its record, and compare.
    Replay(replay::Arguments),
    /// Read a published output again and compare every byte with its manifest.
    Verify(verify::Arguments),
    /// Check configurations, or print their JSON Schema.
    Check(check::Arguments),
    /// List the configurations: what runs each, and what that is made of.
    List(list::Arguments),
    /// Draw maps of a published forecast.
    Plot(plot::Arguments),
    /// Build and parse dataset paths.
    #[command(subcommand)]
    Paths(paths::Command),
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let result = match cli.command {
        Command::Artifact(command) => artifact::main(command),
        Command::Cache(command) => cache::main(command),
        Command::Image(command) => image::main(command),
        Command::Plan(arguments) => plan::main(&arguments),
        Command::Run(arguments) => run::main(arguments),
        Command::Status(arguments) => status::main(&arguments),
        Command::Logs(arguments) => logs::main(&arguments),
        Command::Why(arguments) => why::main(&arguments),
        Command::Replay(arguments) => replay::main(arguments),
        Command::Verify(arguments) => verify::main(&arguments),
        Command::Check(arguments) => check::main(arguments),
        Command::List(arguments) => list::main(&arguments),
        Command::Plot(arguments) => plot::main(arguments),
        Command::Paths(command) => paths::main(command),
    };
    match result {
        Ok(mlwm_spec::ExitCode::Ok) if LOST.get().is_some() => {
            let why = LOST.get().map(String::as_str).unwrap_or_default();
            note!(
                "error: all is done, but what there was to say could not be written to standard output: {why}"
            );
            mlwm_spec::ExitCode::Failed.into()
        }
        Ok(code) => code.into(),
        Err(failure) => {
            note!("error: {failure}");
            failure.code().into()
        }
    }
}

/// Why a line of standard output was lost.
static LOST: OnceLock<String> = OnceLock::new();

/// Prints a line on standard output. A line that cannot be written must not end a run, which says so
/// at its end; that nobody reads any more (`mlwm … | head`) is no error.
fn print_line(text: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| error.to_string());
    }
}

/// Prints a line on standard error, if it can: neither does a run end with the terminal that it was begun in, nor a
/// signal remain unheard that is told of there.
fn print_note(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Ends with what is wrong with the command line, or with the help that was asked for. A password
/// that was written into a URI is not said again.
fn refuse(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let safe = mlwm_spec::without_credentials(&text);
    if safe == text {
        error.exit();
    }
    let _ = write!(std::io::stderr().lock(), "{safe}");
    std::process::exit(error.exit_code());
}

/// What a command comes to.
pub(crate) type Outcome = Result<mlwm_spec::ExitCode, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

//! `mlwm artifact`: inference artifacts, from the training run to a registry and back.

mod build;
mod list;
mod pull;
mod push;
mod registry;
mod tag;
mod verify;

use clap::Subcommand;

use crate::Outcome;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Pack checkpoint, configurations, training arguments and statistics into one zip.
    Build(Box<build::Arguments>),
    /// Check the size and hash of every file of an artifact, and who signed it.
    Verify(verify::Arguments),
    /// Publish an artifact in a registry.
    Push(push::Arguments),
    /// Bring an artifact from a registry to this machine.
    Pull(pull::Arguments),
    /// List what a registry has.
    List(list::Arguments),
    /// Give a published artifact another tag.
    Tag(tag::Arguments),
}

pub(crate) fn main(command: Command) -> Outcome {
    match command {
        Command::Build(arguments) => build::main(*arguments),
        Command::Verify(arguments) => verify::main(&arguments),
        Command::Push(arguments) => push::main(&arguments),
        Command::Pull(arguments) => pull::main(&arguments),
        Command::List(arguments) => list::main(&arguments),
        Command::Tag(arguments) => tag::main(&arguments),
    }
}

//! `mlwm artifact`: inference artifacts, from the training run to a registry and back.

mod build;
pub(super) mod bundle;
mod diff;
mod extract;
pub(super) mod import;
mod inspect;
mod key;
mod list;
mod policy;
mod pull;
mod push;
pub(super) mod registry;
mod remove;
mod sign;
mod tag;
mod verify;

use clap::Subcommand;

use crate::Outcome;

#[derive(Subcommand)]
pub(crate) enum Command {
    Build(Box<build::Arguments>),
    Verify(verify::Arguments),
    Inspect(inspect::Arguments),
    Diff(diff::Arguments),
    Extract(extract::Arguments),
    List(list::Arguments),
    Push(push::Arguments),
    Pull(pull::Arguments),
    Tag(tag::Arguments),
    Remove(remove::Arguments),
    Sign(sign::Arguments),
    /// Keys to sign with.
    #[command(subcommand)]
    Key(key::Command),
    Policy(policy::Arguments),
    Bundle(bundle::Arguments),
    Import(import::Arguments),
}

pub(crate) fn main(command: Command) -> Outcome {
    match command {
        Command::Build(arguments) => build::main(*arguments),
        Command::Verify(arguments) => verify::main(&arguments),
        Command::Inspect(arguments) => inspect::main(&arguments),
        Command::Diff(arguments) => diff::main(&arguments),
        Command::Extract(arguments) => extract::main(&arguments),
        Command::List(arguments) => list::main(&arguments),
        Command::Push(arguments) => push::main(&arguments),
        Command::Pull(arguments) => pull::main(&arguments),
        Command::Tag(arguments) => tag::main(&arguments),
        Command::Remove(arguments) => remove::main(&arguments),
        Command::Sign(arguments) => sign::main(&arguments),
        Command::Key(command) => key::main(&command),
        Command::Policy(arguments) => policy::main(&arguments),
        Command::Bundle(arguments) => bundle::main(&arguments),
        Command::Import(arguments) => import::main(&arguments),
    }
}

//! `mlwm image`: one image per configured model.

mod build;
mod inspect;
mod lock;
mod parts;
mod plan;
mod rebase;

use clap::Subcommand;

use crate::Outcome;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Build the images of configurations, into the local engine unless another place is given.
    Build(build::Build),
    /// Pin the base and the artifact of configurations in their `mlwm.lock`.
    Lock(lock::Lock),
    /// Say which images would be built anew, and why; nothing is built.
    Plan(plan::Arguments),
    /// Put the layers of an image onto another base, such as a patched one; nothing is built.
    Rebase(rebase::Arguments),
    /// Show what an image is made of.
    Inspect(inspect::Inspect),
}

pub(crate) fn main(command: Command) -> Outcome {
    match command {
        Command::Build(arguments) => build::main(arguments),
        Command::Lock(arguments) => lock::main(&arguments),
        Command::Plan(arguments) => plan::main(&arguments),
        Command::Rebase(arguments) => rebase::main(&arguments),
        Command::Inspect(arguments) => inspect::main(&arguments),
    }
}

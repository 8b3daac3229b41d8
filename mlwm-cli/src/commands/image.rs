//! `mlwm image`: one image per configured model.

mod build;
mod export;
mod import;
mod inspect;
mod lock;
mod parts;
mod places;
mod plan;
mod push;
mod rebase;
mod test;

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
    /// Run images on the golden case of their artifact, and compare what comes out.
    Test(test::Arguments),
    Push(push::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
    /// Show what an image is made of.
    Inspect(inspect::Inspect),
}

pub(crate) fn main(command: Command) -> Outcome {
    match command {
        Command::Build(arguments) => build::main(arguments),
        Command::Lock(arguments) => lock::main(&arguments),
        Command::Plan(arguments) => plan::main(&arguments),
        Command::Rebase(arguments) => rebase::main(&arguments),
        Command::Test(arguments) => test::main(&arguments),
        Command::Push(arguments) => push::main(&arguments),
        Command::Export(arguments) => export::main(&arguments),
        Command::Import(arguments) => import::main(&arguments),
        Command::Inspect(arguments) => inspect::main(&arguments),
    }
}

//! `mlwm artifact verify`: is every byte right?

use std::path::PathBuf;

use clap::Args;
use indicatif::HumanBytes;
use mlwm_artifacts::Artifact;
use mlwm_spec::ExitCode;

use crate::Outcome;

/// Check the size and hash of every file of an artifact.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The artifact.
    artifact: PathBuf,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let artifact = Artifact::open(&arguments.artifact)?;
    let verified = artifact.verify()?;
    say!(
        "{}: {} files, {}: every size and hash is right",
        arguments.artifact.display(),
        verified.files,
        HumanBytes(verified.bytes)
    );
    say!("{}", artifact.digest()?);
    Ok(ExitCode::Ok)
}

//! `mlwm artifact extract`: the files of an artifact.

use std::path::PathBuf;

use clap::Args;
use mlwm_spec::{ArtifactReference, ExitCode};

use super::registry::{Found, blocking, with_transfer};
use crate::Outcome;

/// Write the files of an artifact into a folder, each checked by its hash. Files that are there are
/// not replaced.
///
/// Of an artifact in a registry, only what is asked for is fetched.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact extract s3://bucket/models/gefion-1 gefion-1 --only 'configs/*'"
)]
pub(crate) struct Arguments {
    /// Zip, or published artifact.
    #[arg(value_name = "FILE|REF")]
    reference: ArtifactReference,
    /// Folder to write into.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Only this file, folder (`stats/`) or pattern (`configs/*.yaml`); may be given several times.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (only, folder) = (arguments.only.clone(), arguments.folder.clone());
    with_transfer(async |options| {
        let found = Found::open(&arguments.reference, options).await?;
        blocking(move || {
            match only.is_empty() {
                true => found.artifact.extract_to(&folder)?,
                false => found.artifact.extract_only(&folder, &only)?,
            }
            Ok(())
        })
        .await
    })?;
    say!("{}", arguments.folder.display());
    Ok(ExitCode::Ok)
}

//! `mlwm artifact extract`: the files of an artifact.

use std::path::PathBuf;

use clap::Args;
use mlwm_spec::{ArtifactReference, ExitCode};

use super::registry::{Found, blocking, with_transfer};
use crate::Outcome;

/// Write the files of an artifact into a folder, each checked by its hash. Files that are there are
/// not replaced.
///
/// Files get their names when all of them are whole, and a folder that is new appears with all its
/// files. If it is stopped, the same command goes on from there.
///
/// Of an artifact in a registry, only what is asked for is fetched. Where signatures are required, by
/// the registry or by MLWM_TRUSTED_KEYS, all of it is read first, and refused without one.
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
        let cancel = options.cancel.clone();
        let found = Found::open(&arguments.reference, options).await?;
        if let Some((registry, publication)) = &found.published {
            registry.check_trust(publication).await?;
        }
        blocking(move || {
            let is_stopped = || cancel.is_cancelled();
            Ok(found.artifact.extract_unless(&folder, &only, &is_stopped)?)
        })
        .await
    })?;
    say!("{}", arguments.folder.display());
    Ok(ExitCode::Ok)
}

//! `mlwm image lock`: what an image is made of, pinned.

use std::path::Path;

use clap::Args;
use mlwm_artifacts::{Artifact, Error};
use mlwm_cycles::Artifacts;
use mlwm_spec::ExitCode;

use super::parts::Chosen;
use crate::Outcome;
use crate::commands::runtime;
use crate::transfer::Transfer;

#[derive(Args)]
#[command(after_help = "Example:\n  mlwm image lock --all --check   # in CI")]
pub(crate) struct Lock {
    #[command(flatten)]
    chosen: Chosen,
    /// Write nothing; fail if a lock is missing, or is not what base and artifact are now.
    #[arg(long)]
    check: bool,
}

pub(crate) fn main(arguments: &Lock) -> Outcome {
    let chosen = &arguments.chosen;
    runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let mut stale = Vec::new();
        for name in chosen.names()? {
            let receipts = Artifacts::receipts(false);
            let loaded = chosen.load(&name, &transfer, &receipts).await?;
            let image = chosen.find_base(&loaded, None).await?;
            let base = chosen.base(&loaded).zip(image.as_ref());
            let new = mlwm_images::Lock::new(base, loaded.artifact_digest());
            let path = chosen.lock_file(&name);
            let old = mlwm_images::Lock::read(&path)?;
            let same = old.as_ref() == Some(&new);
            match (same, arguments.check) {
                (true, _) => say!("{}: as it was", path.display()),
                (false, false) => {
                    if let Some(facts) = &loaded.artifact {
                        check_files(&facts.path)?;
                    }
                    new.write(&path)?;
                    say!("{}: {}", path.display(), new.summary());
                }
                (false, true) => {
                    let was = old.map_or("missing".to_owned(), |old| old.summary());
                    say!("{}: {was}; now {}", path.display(), new.summary());
                    stale.push(name);
                }
            }
        }
        transfer.finish();
        match stale.is_empty() {
            true => Ok(ExitCode::Ok),
            false => Ok(ExitCode::ArtifactMismatch),
        }
    })
}

/// Compares the files of an artifact with what it records of them: builds of what is locked do not.
fn check_files(artifact: &Path) -> Result<(), Error> {
    match Artifact::open(artifact)?.verify() {
        // One of the original project has no hashes; of one that was packed anew all files are right.
        Ok(_) | Err(Error::NoHashes { .. } | Error::Repacked { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

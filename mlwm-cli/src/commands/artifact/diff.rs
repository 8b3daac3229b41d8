//! `mlwm artifact diff`: what two artifacts do not have in common.

use clap::Args;
use indicatif::HumanBytes;
use mlwm_artifacts::{Diff, diff};
use mlwm_spec::{ArtifactReference, ExitCode};

use super::registry::{Found, blocking, with_reading};
use crate::Outcome;

/// Compare two artifacts file by file, by the hashes they record; nothing is downloaded.
///
/// The exit code is 0 if they hold the same files, 13 if not.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact diff s3://bucket/models/gefion-1 gefion-1.zip")]
pub(crate) struct Arguments {
    /// Zip, or published artifact.
    #[arg(value_name = "OLD")]
    old: ArtifactReference,
    /// Zip, or published artifact.
    #[arg(value_name = "NEW")]
    new: ArtifactReference,
    /// Print the difference as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let difference = with_reading(async |options| {
        let old = Found::open(&arguments.old, options.clone()).await?;
        let new = Found::open(&arguments.new, options).await?;
        blocking(move || Ok(diff(&old.artifact, &new.artifact)?)).await
    })?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&difference).map_err(mlwm_cycles::Error::Json)?;
        say!("{text}");
    } else {
        show(&difference);
    }
    Ok(match difference.is_empty() {
        true => ExitCode::Ok,
        false => ExitCode::ArtifactMismatch,
    })
}

fn show(difference: &Diff) {
    for file in &difference.removed {
        say!("- {} ({})", file.path, HumanBytes(file.size));
    }
    for file in &difference.added {
        say!("+ {} ({})", file.path, HumanBytes(file.size));
    }
    for change in &difference.changed {
        say!(
            "~ {} ({} -> {}, {} -> {})",
            change.path,
            HumanBytes(change.old_size),
            HumanBytes(change.new_size),
            change.old_sha256.short(),
            change.new_sha256.short()
        );
    }
    say!(
        "{} removed, {} added, {} changed, {} the same; artifact.yaml, which lists them, is not counted",
        difference.removed.len(),
        difference.added.len(),
        difference.changed.len(),
        difference.unchanged
    );
}

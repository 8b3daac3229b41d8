//! `mlwm artifact pull`: bring an artifact here.

use std::path::PathBuf;

use clap::Args;
use mlwm_spec::{ExitCode, PublishedArtifact};
use serde_json::json;

use super::registry::{find, pinned, published, with_transfer};
use crate::Outcome;

/// Bring an artifact from a registry to this machine.
///
/// It is hashed while it arrives, and visible only when it is whole and right. If the command is
/// stopped, it goes on where it was when it is run again.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact pull s3://bucket/models/gefion-1:v2 --output models/"
)]
pub(crate) struct Arguments {
    /// Published artifact: `gefion-1`, `s3://bucket/models/gefion-1:v2@sha256:…`.
    #[arg(value_name = "REF", value_parser = published)]
    reference: PublishedArtifact,
    /// Zip to write, or the folder to write `<name>.zip` into.
    #[arg(long, short, value_name = "PATH", default_value = ".")]
    output: PathBuf,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (registry, publication, pulled) = with_transfer(async |options| {
        let (registry, publication) = find(&arguments.reference, options).await?;
        let pulled = registry.pull(&publication, &arguments.output).await?;
        Ok((registry, publication, pulled))
    })?;
    if arguments.json {
        let object = json!({
            "path": pulled.zip,
            "reference": pinned(&registry, &publication),
            "digest": publication.digest,
            "size": publication.size,
            "provenance": pulled.provenance,
            "signatures": pulled.signatures,
        });
        say!("{object:#}");
    } else {
        say!("{}", pulled.zip.display());
        say!("{}", publication.digest);
    }
    Ok(ExitCode::Ok)
}

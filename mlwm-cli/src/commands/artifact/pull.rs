//! `mlwm artifact pull`: bring an artifact here.

use std::path::PathBuf;

use clap::Args;
use mlwm_registries::RegistryOptions;
use mlwm_registries::signature::PublicKey;
use mlwm_spec::{ExitCode, PublishedArtifact};
use serde_json::json;

use super::key::public_key;
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
    /// Take it only with a signature by this key, or by one of several: a file, or the line of
    /// base64 in it. In place of the keys in MLWM_TRUSTED_KEYS.
    #[arg(long = "key", value_name = "KEY", value_parser = public_key)]
    keys: Vec<PublicKey>,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (registry, publication, pulled) = with_transfer(async |options| {
        let options = trusting(&arguments.keys, options);
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

/// With the keys that the command line names, if it names any.
pub(super) fn trusting(keys: &[PublicKey], options: RegistryOptions) -> RegistryOptions {
    match keys {
        [] => options,
        keys => RegistryOptions {
            trusted_keys: keys.to_vec(),
            ..options
        },
    }
}

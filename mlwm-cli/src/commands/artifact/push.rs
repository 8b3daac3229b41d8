//! `mlwm artifact push`: publish an artifact.

use std::path::PathBuf;

use clap::Args;
use mlwm_registries::signature::{KeyId, Signature};
use mlwm_registries::{PushContent, PushRequest, Pushed, Registry};
use mlwm_spec::{ArtifactName, ExitCode, Tag};
use serde_json::json;

use super::registry::{
    RegistryArgument, pinned, provenance_path, read_beside, signature_path, with_transfer,
};
use super::sign::signed;
use crate::Outcome;

/// Publish an artifact in a registry.
///
/// A published name never changes: the same content again is no work, other content is refused. If
/// the command is stopped, it goes on where it was when it is run again.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact push gefion-1.zip s3://bucket/models --tag v2")]
pub(crate) struct Arguments {
    /// Zip that `mlwm artifact build` made; signatures (`<zip>.minisig`) and provenance beside it
    /// are published with it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    registry: RegistryArgument,
    /// Version to publish it as; without it, the name's own permanent publication.
    #[arg(long)]
    tag: Option<Tag>,
    /// Name to publish it under, if it is not the artifact's own.
    #[arg(long = "as", value_name = "NAME")]
    publish_as: Option<ArtifactName>,
    /// Sign it with this secret key, and publish the signature with it.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let file = &arguments.file;
    let mut signatures: Vec<String> = read_beside(&signature_path(file))?.into_iter().collect();
    if let Some(key) = &arguments.sign {
        let signature = signed(file, key)?;
        // One by the same key beside the zip may be of what the zip was before.
        signatures.retain(|beside| key_of(beside) != key_of(&signature));
        signatures.push(signature);
    }
    let provenance = read_beside(&provenance_path(file))?;
    let (registry, pushed) = with_transfer(async |options| {
        let registry = Registry::open(&arguments.registry.registry, options).await?;
        let pushed = registry
            .push(PushRequest {
                content: PushContent::File(file.clone()),
                publish_as: arguments.publish_as.clone(),
                tag: arguments.tag.clone().unwrap_or_else(Tag::latest),
                provenance,
                signatures,
            })
            .await?;
        Ok((registry, pushed))
    })?;
    tell(&registry, &pushed, arguments.json);
    Ok(ExitCode::Ok)
}

/// The key of a signature; none for a text that is none, which the push refuses.
fn key_of(signature: &str) -> Option<KeyId> {
    let signature = Signature::parse(signature).ok()?;
    Some(signature.key_id())
}

/// Says what was published: the reference that pins it, alone on its line.
pub(super) fn tell(registry: &Registry, pushed: &Pushed, json: bool) {
    let publication = &pushed.publication;
    let reference = pinned(registry, publication);
    let outcome = match pushed.new {
        true => "published",
        false => "already-published",
    };
    if json {
        let object = json!({
            "outcome": outcome,
            "reference": reference,
            "name": publication.name,
            "tag": publication.tag,
            "digest": publication.digest,
            "set_digest": publication.set_digest,
            "size": publication.size,
        });
        say!("{object:#}");
    } else {
        note!("{}", outcome.replace('-', " "));
        say!("{reference}");
    }
}

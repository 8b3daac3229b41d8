//! `mlwm artifact import`: publish what a bundle brought.

use std::path::PathBuf;

use clap::Args;
use mlwm_registries::bundle::Bundle;
use mlwm_registries::{PushContent, PushRequest, Registry, StoredZip};
use mlwm_spec::ExitCode;

use super::bundle::watch;
use super::registry::{RegistryArgument, blocking, pinned, with_transfer};
use crate::Outcome;

/// Publish the artifacts of a bundle in a registry, with their signatures.
///
/// The bundle is verified first. What is published already is left out, and if the command is
/// stopped, it goes on where it was when it is run again.
#[derive(Args)]
#[command(after_help = "Example:\n  mlwm artifact import models.tar /data/models")]
pub(crate) struct Arguments {
    /// The bundle; of one in parts, its name without `.001`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    registry: RegistryArgument,
    /// Print what came of each artifact as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (registry, all) = with_transfer(async |options| {
        let (file, watch) = (arguments.file.clone(), watch(&options));
        let bundle = blocking(move || {
            let bundle = Bundle::open(&file)?;
            bundle.verify(&watch)?;
            Ok(bundle)
        })
        .await?;
        let registry = Registry::open(&arguments.registry.registry, options).await?;
        let mut all = Vec::new();
        for artifact in bundle.artifacts() {
            let label = format!(
                "{}:{} of {}",
                artifact.name,
                artifact.tag,
                arguments.file.display()
            );
            let pushed = registry
                .push(PushRequest {
                    content: PushContent::Stored(StoredZip {
                        label,
                        content: bundle.content(artifact)?,
                        source: bundle.read_at(artifact)?,
                        digest: artifact.digest,
                    }),
                    publish_as: Some(artifact.name.clone()),
                    tag: artifact.tag.clone(),
                    provenance: artifact.provenance.clone(),
                    signatures: artifact.signatures.values().cloned().collect(),
                })
                .await?;
            all.push(pushed);
        }
        Ok((registry, all))
    })?;
    let outcome = |new: bool| match new {
        true => "published",
        false => "already-published",
    };
    if arguments.json {
        let objects = all.iter().map(|pushed| {
            serde_json::json!({
                "outcome": outcome(pushed.new),
                "reference": pinned(&registry, &pushed.publication),
            })
        });
        say!("{:#}", serde_json::Value::Array(objects.collect()));
        return Ok(ExitCode::Ok);
    }
    for pushed in &all {
        say!(
            "{} {}",
            pinned(&registry, &pushed.publication),
            outcome(pushed.new)
        );
    }
    Ok(ExitCode::Ok)
}

//! What the commands about registries have in common: arguments, and what a reference means.

use std::future::Future;

use clap::Args;
use mlwm_registries::{Error, Publication, Registry, RegistryOptions};
use mlwm_spec::artifact_reference::InvalidReference;
use mlwm_spec::{ArtifactReference, PublishedArtifact};

use crate::commands::runtime;
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Names the registry of references without one.
pub(super) const REGISTRY: &str = "MLWM_REGISTRY";

/// A registry as an argument of its own.
#[derive(Args)]
pub(super) struct RegistryArgument {
    /// Registry: s3://bucket/models, gs://bucket/models, oci://host/models, or a folder.
    #[arg(env = REGISTRY, value_name = "REGISTRY")]
    pub(super) registry: String,
}

/// Parses the reference of a published artifact, where a zip on this machine makes no sense.
pub(super) fn published(text: &str) -> Result<PublishedArtifact, String> {
    match text.parse().map_err(|error: InvalidReference| error.to_string())? {
        ArtifactReference::Published(published) => Ok(published),
        ArtifactReference::File(_) => Err(
            "this is a zip on this machine: name one in a registry, such as s3://bucket/models/gefion-1"
                .to_owned(),
        ),
    }
}

/// Runs a command that talks to a registry: shows its progress, listens for signals, and cleans up
/// the terminal before anything else is said.
pub(super) fn with_transfer<T, F>(work: impl FnOnce(RegistryOptions) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let options = RegistryOptions {
            progress: transfer.progress.clone(),
            cancel: transfer.cancel.clone(),
            ..RegistryOptions::default()
        };
        let done = work(options).await;
        transfer.finish();
        done
    })
}

/// The registry that a reference means, and the publication in it.
pub(super) async fn find(
    reference: &PublishedArtifact,
    options: RegistryOptions,
) -> Result<(Registry, Publication), Failure> {
    let uri = match &reference.registry {
        Some(uri) => uri.clone(),
        None => std::env::var(REGISTRY)
            .ok()
            .filter(|uri| !uri.is_empty())
            .ok_or_else(|| Error::NoRegistry {
                reference: reference.to_string(),
            })?,
    };
    let registry = Registry::open(&uri, options).await?;
    let publication = registry
        .publication(&reference.name, reference.tag.as_ref(), reference.digest)
        .await?;
    Ok((registry, publication))
}

/// The reference that pins a publication.
pub(super) fn pinned(registry: &Registry, publication: &Publication) -> String {
    publication.reference(Some(registry.uri())).to_string()
}

//! Images to a registry: what it has is not sent, what lies in another repository of it is mounted.

use std::sync::Arc;

use mlwm_storage::oci::{OciOptions, OciUri, Repository};
use mlwm_storage::{Journals, Progress};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::image::{Image, Layer, LayerSource};
use crate::oci::MANIFEST;

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that were mounted from another repository of the registry.
    pub mounted: usize,
    /// Blobs that were there.
    pub there: usize,
    /// Whether the tag named this very image before.
    pub unchanged: bool,
}

/// How to talk to registries.
#[derive(Clone, Debug)]
pub struct Transfers {
    /// How registries are used.
    pub options: OciOptions,
    /// Where interrupted uploads are noted.
    pub journals: Journals,
    /// Who is told how far a transfer has come.
    pub progress: Progress,
    /// Calls off what is going on; the same call continues later.
    pub cancel: CancellationToken,
}

/// Publishes an image under a tag. All blobs come before the manifest, so that the tag never names
/// half an image; called again after an interruption, it goes on where the registry says it stopped.
pub async fn push(
    image: &Image,
    repository: &OciUri,
    tag: &str,
    transfers: &Transfers,
) -> Result<Pushed, Error> {
    let repository = Repository::open(repository, &transfers.options)?;
    let mut pushed = Pushed::default();
    let there = repository.manifest(tag).await?;
    if there.is_some_and(|there| there.digest == image.digest()) {
        pushed.unchanged = true;
        pushed.there = image.layers.len() + 1;
        return Ok(pushed);
    }
    for layer in &image.layers {
        if repository
            .blob_size(&layer.descriptor.digest)
            .await?
            .is_some()
        {
            pushed.there += 1;
        } else if mounted(&repository, layer).await? {
            pushed.mounted += 1;
        } else {
            send(&repository, layer, transfers).await?;
            pushed.sent += 1;
        }
    }
    repository.push_blob_bytes(image.config.clone()).await?;
    let manifest = image.manifest.clone();
    repository.push_manifest(tag, MANIFEST, manifest).await?;
    Ok(pushed)
}

async fn mounted(repository: &Repository, layer: &Layer) -> Result<bool, Error> {
    let LayerSource::Registry(from) = &layer.source else {
        return Ok(false);
    };
    let (from, to) = (from.uri(), repository.uri());
    if from.host() != to.host() || from == to {
        return Ok(false);
    }
    Ok(repository
        .mount_blob(&layer.descriptor.digest, from.repository())
        .await?)
}

async fn send(repository: &Repository, layer: &Layer, transfers: &Transfers) -> Result<(), Error> {
    let content = layer.content()?;
    let Transfers {
        journals,
        progress,
        cancel,
        ..
    } = transfers;
    let expected = layer.descriptor.digest;
    let known = Some(&expected);
    let found = repository
        .upload_blob(Arc::clone(&content), known, journals, progress, cancel)
        .await?;
    match found == expected {
        true => Ok(()),
        false => Err(Error::LayerChanged { expected, found }),
    }
}

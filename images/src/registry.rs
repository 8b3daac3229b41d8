//! Images to a registry: what it has is not sent, what lies in another repository of it is mounted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mlwm_storage::oci::{OciOptions, OciUri, Repository};
use mlwm_storage::{Journals, Phase, Progress, ProgressEvent};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::image::{Image, Layer, LayerSource};
use crate::oci::Descriptor;

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
    let mut course = Course::of(image, &transfers.progress);
    for layer in &image.layers {
        let Descriptor { digest, size, .. } = &layer.descriptor;
        if repository.blob_size(digest).await?.is_some() {
            course.was_there(*size);
            pushed.there += 1;
        } else if mounted(&repository, layer).await? {
            course.was_there(*size);
            pushed.mounted += 1;
        } else {
            send(&repository, layer, transfers, &course.of_next()).await?;
            course.arrived(*size);
            pushed.sent += 1;
        }
    }
    repository.push_blob_bytes(image.config.clone()).await?;
    let manifest = image.manifest.clone();
    let kind = image.media_type();
    repository.push_manifest(tag, kind, manifest).await?;
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

async fn send(
    repository: &Repository,
    layer: &Layer,
    transfers: &Transfers,
    progress: &Progress,
) -> Result<(), Error> {
    let content = layer.content()?;
    let Transfers {
        journals, cancel, ..
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

/// How far an image has come, layer after layer.
struct Course<'a> {
    progress: &'a Progress,
    now: ProgressEvent,
    /// Bytes that were there before, of the layer on its way too.
    kept: Arc<AtomicU64>,
}

impl<'a> Course<'a> {
    fn of(image: &Image, progress: &'a Progress) -> Self {
        Self {
            progress,
            now: ProgressEvent {
                phase: Phase::Uploading,
                done_bytes: 0,
                kept_bytes: 0,
                total_bytes: image.size(),
                done_objects: 0,
                total_objects: image.layers.len() as u64,
            },
            kept: Arc::new(AtomicU64::new(0)),
        }
    }

    /// The next layer need not be sent.
    fn was_there(&mut self, size: u64) {
        self.kept.fetch_add(size, Relaxed);
        self.arrived(size);
        self.progress.report(self.now);
    }

    /// Shows how far the next layer has come as progress of the whole image.
    fn of_next(&self) -> Progress {
        let (progress, before, kept) = (self.progress.clone(), self.now, Arc::clone(&self.kept));
        Progress::new(move |event| {
            kept.store(before.kept_bytes + event.kept_bytes, Relaxed);
            progress.report(ProgressEvent {
                done_bytes: before.done_bytes + event.done_bytes,
                kept_bytes: before.kept_bytes + event.kept_bytes,
                done_objects: before.done_objects + event.done_objects,
                ..before
            });
        })
    }

    fn arrived(&mut self, size: u64) {
        self.now.done_bytes += size;
        self.now.kept_bytes = self.kept.load(Relaxed);
        self.now.done_objects += 1;
    }
}

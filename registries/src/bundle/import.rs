//! Publishing what a bundle brought.

use mlwm_artifacts::Artifact;
use mlwm_spec::{ArtifactName, Digest, Tag};

use super::{Bundle, BundledArtifact};
use crate::registry::blocking;
use crate::{Error, PushContent, PushRequest, Pushed, Registry, StoredZip};

/// What came of one artifact of a bundle.
#[derive(Debug)]
pub struct Imported {
    /// What it is published as.
    pub name: ArtifactName,
    /// Which publication of that name it is.
    pub tag: Tag,
    /// SHA-256 of its zip.
    pub digest: Digest,
    /// The publication, and whether it is new; or why there is none.
    pub outcome: Result<Pushed, Error>,
}

/// Publishes the artifacts of a bundle with their provenance and signatures. What is published
/// already is left out. Each is verified while it is sent, and published only if every byte of it is
/// right and the registry's policy holds. One that fails does not keep back the others. After an
/// interruption, the same call continues in the middle of the zip where it was.
pub async fn import(bundle: &Bundle, registry: &Registry) -> Vec<Imported> {
    let mut all = Vec::new();
    for artifact in bundle.artifacts() {
        let outcome = publish(bundle, artifact, registry).await;
        all.push(Imported {
            name: artifact.name.clone(),
            tag: artifact.tag.clone(),
            digest: artifact.digest,
            outcome,
        });
        if registry.options.cancel.is_cancelled() {
            break;
        }
    }
    all
}

async fn publish(
    bundle: &Bundle,
    artifact: &BundledArtifact,
    registry: &Registry,
) -> Result<Pushed, Error> {
    let label = format!("{}:{} in {}", artifact.name, artifact.tag, bundle.name());
    let zip = StoredZip {
        label: label.clone(),
        content: bundle.content(artifact)?,
        source: bundle.read_at(artifact)?,
        digest: artifact.digest,
    };
    let (source, expected) = (zip.source.clone(), artifact.clone());
    blocking(move || {
        let found = Artifact::from_source(source, &label)?;
        let files = found.files().len() as u64;
        match found.set_digest() == Some(expected.set_digest) && files == expected.files {
            true => Ok(()),
            false => Err(Error::BadBundle {
                bundle: label,
                why: "it holds other files than its config says".to_owned(),
            }),
        }
    })
    .await?;
    registry
        .push(PushRequest {
            content: PushContent::Stored(zip),
            publish_as: Some(artifact.name.clone()),
            tag: artifact.tag.clone(),
            provenance: artifact.provenance.clone(),
            signatures: artifact.signatures.values().cloned().collect(),
        })
        .await
}

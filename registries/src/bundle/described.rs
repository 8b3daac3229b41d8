//! What the head of a bundle describes, as far as it says so itself; whether it is what a writer would
//! have written is looked at by [`super::layout`].

use std::collections::BTreeMap;

use mlwm_spec::{ArtifactName, Digest, Tag};

use super::layout::{Index, REF_NAME};
use super::{BundledArtifact, BundledImage};
use crate::manifest::{ArtifactConfig, ArtifactManifest, SIGNATURE, SignatureManifest};

/// The artifacts and images that the index and the documents of a head describe.
pub(super) fn described(
    index: &[u8],
    documents: &BTreeMap<Digest, &[u8]>,
) -> Result<(Vec<BundledArtifact>, Vec<BundledImage>), String> {
    let index: Index =
        serde_json::from_slice(index).map_err(|error| format!("its index is invalid: {error}"))?;
    let document = |digest: Digest| {
        let found = documents.get(&digest).copied();
        found.ok_or_else(|| format!("its index names {digest}, which it has not"))
    };
    let text = |digest: Digest| {
        String::from_utf8(document(digest)?.to_vec())
            .map_err(|_| format!("its {digest} is not text"))
    };
    let mut artifacts = Vec::new();
    let mut images = Vec::new();
    let mut signatures: BTreeMap<(ArtifactName, Digest), BTreeMap<String, String>> =
        BTreeMap::new();
    for entry in index.manifests {
        let manifest = document(entry.digest)?;
        let reference = entry.annotations.get(REF_NAME).map(String::as_str);
        let reference = reference.unwrap_or_default();
        if entry.artifact_type.is_none() {
            let copied = |digest| document(digest).map(<[u8]>::to_vec);
            images.push(BundledImage::read(reference, manifest, copied)?);
            continue;
        }
        let (name, tag) = split(reference)?;
        if entry.artifact_type.as_deref() == Some(SIGNATURE) {
            let signature = SignatureManifest::parse(manifest)?;
            let (digest, key_id) = signature_of(tag)?;
            let of_one = signatures.entry((name, digest)).or_default();
            of_one.insert(key_id.to_owned(), text(signature.minisig.digest)?);
            continue;
        }
        let tag: Tag = tag.parse().map_err(|error| format!("{error}"))?;
        let manifest = ArtifactManifest::parse(manifest)?;
        let config: ArtifactConfig = serde_json::from_slice(document(manifest.config.digest)?)
            .map_err(|error| format!("its config of {name}:{tag} is invalid: {error}"))?;
        artifacts.push(BundledArtifact {
            name,
            tag,
            digest: manifest.zip.digest,
            size: manifest.zip.size,
            set_digest: config.set_digest,
            files: config.files,
            provenance: manifest
                .provenance
                .map(|layer| text(layer.digest))
                .transpose()?,
            signatures: BTreeMap::new(),
        });
    }
    for artifact in &mut artifacts {
        let key = (artifact.name.clone(), artifact.digest);
        if let Some(found) = signatures.get(&key) {
            artifact.signatures.clone_from(found);
        }
    }
    Ok((artifacts, images))
}

/// Name and tag of an artifact or a signature.
fn split(reference: &str) -> Result<(ArtifactName, &str), String> {
    let nameless = || "its index has an entry without `<name>:<tag>`".to_owned();
    let (name, tag) = reference.split_once(':').ok_or_else(nameless)?;
    Ok((name.parse().map_err(|_| nameless())?, tag))
}

/// Digest and key id in the tag of a signature.
pub(super) fn signature_of(tag: &str) -> Result<(Digest, &str), String> {
    tag.strip_prefix("sha256-")
        .and_then(|rest| rest.strip_suffix(".minisig"))
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(hex, key_id)| Some((format!("sha256:{hex}").parse().ok()?, key_id)))
        .ok_or_else(|| {
            format!(
                "its index has a signature with the tag `{}`",
                tag.escape_debug()
            )
        })
}

//! What lies where in a bundle: computed from what its artifacts and images are, before any zip or
//! layer is read.
//!
//! On reading, they are found in the head, their layout is computed, and its head must be the one
//! that was read: what is not where a writer would have put it is refused.

use std::collections::{BTreeMap, BTreeSet};

use mlwm_spec::{ArtifactName, Digest};
use serde::{Deserialize, Serialize};

use super::described::{described, signature_of};
use super::images;
use super::{BUNDLE_VERSION, BundledArtifact, BundledImage, tape};
use crate::manifest::{self, ARTIFACT, ArtifactConfig, Descriptor, SIGNATURE};
use crate::signature::Signature;

/// Largest head: all that a reader keeps in memory.
pub(super) const MAX_HEAD: u64 = 64 << 20;
/// Largest manifest, config, provenance or signature.
const MAX_DOCUMENT: usize = 4 << 20;
/// Size of the first entry, whose content always fits into one block.
pub(super) const PREAMBLE: u64 = 2 * tape::BLOCK;

const PREAMBLE_NAME: &str = "mlwm-bundle.json";
const FORMAT: &str = "mlwm-bundle";
const LAYOUT_NAME: &str = "oci-layout";
const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
const INDEX_NAME: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What lies where in a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Ordered by name and tag.
    pub(super) artifacts: Vec<BundledArtifact>,
    /// Ordered by name and tag.
    pub(super) images: Vec<BundledImage>,
    /// Everything before the zips and layers.
    pub(super) head: Vec<u8>,
    /// SHA-256 of the head after its first entry: it stands for the whole content.
    pub(super) identity: Digest,
    /// The zips and layers, each once.
    pub(super) blobs: Vec<Blob>,
    /// Size of the bundle in bytes.
    pub(super) size: u64,
}

/// Where a zip or a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Of its first byte, in the bundle; its header is before it.
    pub(super) at: u64,
}

/// The first entry: what must be known to read the rest of the head.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Preamble {
    format: String,
    format_version: u32,
    /// Size of the bundle in bytes.
    pub(super) size: u64,
    /// Size of the rest of the head in bytes.
    pub(super) head_size: u64,
    /// SHA-256 of the rest of the head.
    head_digest: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    schema_version: u32,
    media_type: String,
    pub(super) manifests: Vec<Descriptor>,
}

impl Blob {
    /// The name of its entry.
    pub(super) fn name(&self) -> String {
        blob_name(self.digest)
    }
}

impl Layout {
    /// The layout of a bundle of these artifacts and images. The error says what is wrong with them.
    pub(super) fn of(
        mut artifacts: Vec<BundledArtifact>,
        mut images: Vec<BundledImage>,
    ) -> Result<Self, String> {
        if artifacts.is_empty() && images.is_empty() {
            return Err("it has no artifact and no image".to_owned());
        }
        images.sort_by(|a, b| (&a.name, &a.tag).cmp(&(&b.name, &b.tag)));
        images.dedup();
        artifacts.sort_by(|a, b| (&a.name, &a.tag).cmp(&(&b.name, &b.tag)));
        artifacts.dedup();
        share_signatures(&mut artifacts);
        let mut sizes = check(&artifacts)?;
        images::check(&images, &mut sizes)?;

        let mut documents = BTreeMap::new();
        let mut entries = BTreeMap::new();
        let mut signed = BTreeSet::new();
        for artifact in &artifacts {
            let manifest = add_artifact(&mut documents, artifact);
            let (name, tag) = (&artifact.name, artifact.tag.to_string());
            let listed = entry(ARTIFACT, &manifest, name, &tag);
            entries.insert((0, name, tag), listed);
            for (key_id, text) in &artifact.signatures {
                let tag = manifest::signature_tag(artifact.digest, key_id);
                // The artifact may have other tags, with other manifests: one signature is enough.
                if !signed.insert((name, tag.clone())) {
                    continue;
                }
                let signature = add_signature(&mut documents, name, &manifest, text);
                let listed = entry(SIGNATURE, &signature, name, &tag);
                entries.insert((1, name, tag), listed);
            }
        }
        let mut entries: Vec<Descriptor> = entries.into_values().collect();
        for image in &images {
            entries.push(image.entry()?);
            add(&mut documents, image.config.clone());
            add(&mut documents, image.manifest.clone());
        }
        let mut sized = documents.iter();
        if let Some((digest, _)) = sized.find(|(_, document)| document.len() > MAX_DOCUMENT) {
            return Err(format!(
                "a provenance, a signature or a document of an image ({digest}) is larger than 4 MiB"
            ));
        }
        if let Some(digest) = sizes.keys().find(|digest| documents.contains_key(digest)) {
            return Err(format!("its zip or layer {digest} is none"));
        }
        let index = to_json(&Index {
            schema_version: 2,
            media_type: manifest::INDEX.to_owned(),
            manifests: entries,
        });
        Self::assemble(&index, &documents, &sizes, artifacts, images)
    }

    fn assemble(
        index: &[u8],
        documents: &BTreeMap<Digest, Vec<u8>>,
        sizes: &BTreeMap<Digest, u64>,
        artifacts: Vec<BundledArtifact>,
        images: Vec<BundledImage>,
    ) -> Result<Self, String> {
        let mut rest = Vec::new();
        tape::append(&mut rest, LAYOUT_NAME, LAYOUT);
        tape::append(&mut rest, INDEX_NAME, index);
        for (digest, document) in documents {
            tape::append(&mut rest, &blob_name(*digest), document);
        }
        let head_size = rest.len() as u64;
        if head_size > MAX_HEAD {
            return Err(
                "it has too many artifacts and images, or too long provenances, for one bundle"
                    .into(),
            );
        }
        let too_large = || "it is larger than any bundle can be".to_owned();
        let mut blobs = Vec::new();
        let mut next = PREAMBLE + head_size;
        for (digest, size) in sizes {
            // A size may come from a bundle that was made to deceive.
            if *size > 1 << 50 {
                return Err(too_large());
            }
            blobs.push(Blob {
                digest: *digest,
                size: *size,
                at: next + tape::BLOCK,
            });
            next = next
                .checked_add(tape::entry_size(*size))
                .ok_or_else(too_large)?;
        }
        let size = next.checked_add(tape::END).ok_or_else(too_large)?;
        let identity = Digest::of(&rest);
        let preamble = Preamble {
            format: FORMAT.to_owned(),
            format_version: BUNDLE_VERSION,
            size,
            head_size,
            head_digest: identity,
        };
        let mut head = Vec::with_capacity(rest.len() + PREAMBLE as usize);
        tape::append(&mut head, PREAMBLE_NAME, &to_json(&preamble));
        head.append(&mut rest);
        Ok(Self {
            artifacts,
            images,
            head,
            identity,
            blobs,
            size,
        })
    }

    /// Reads a head. The error says what is wrong with it.
    pub(super) fn parse(head: &[u8]) -> Result<Self, String> {
        let (first, mut rest) = head
            .split_at_checked(PREAMBLE as usize)
            .ok_or_else(|| "it is cut off in its head".to_owned())?;
        let preamble = Preamble::parse(first)?;
        if Digest::of(rest) != preamble.head_digest {
            return Err("its head was changed: copy the bundle again".to_owned());
        }
        let mut fixed = |wanted: &str| match tape::take(&mut rest)? {
            (name, content) if name == wanted => Ok(content),
            (name, _) => Err(format!(
                "it has `{}` in the place of {wanted}",
                name.escape_debug()
            )),
        };
        fixed(LAYOUT_NAME)?;
        let index = fixed(INDEX_NAME)?;
        let mut documents = BTreeMap::new();
        while !rest.is_empty() {
            let (name, content) = tape::take(&mut rest)?;
            let digest = blob_digest(name)?;
            if Digest::of(content) != digest {
                return Err(format!("its {name} was changed: copy the bundle again"));
            }
            if documents.insert(digest, content).is_some() {
                return Err(format!("it has {name} twice"));
            }
        }
        let (artifacts, images) = described(index, &documents)?;
        let layout = Self::of(artifacts, images)?;
        if layout.head == head {
            return Ok(layout);
        }
        Err("its head has more, or other things, than its artifacts need".to_owned())
    }
}

impl Preamble {
    /// Reads the first [`PREAMBLE`] bytes of a bundle. The error says what is wrong with them.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let not_one = || "it is not a bundle of mlwm".to_owned();
        let content = match tape::take(&mut bytes) {
            Ok((PREAMBLE_NAME, content)) => content,
            _ => return Err(not_one()),
        };
        #[derive(Deserialize)]
        struct Version {
            format: String,
            format_version: u32,
        }
        match serde_json::from_slice(content) {
            Ok(Version {
                format,
                format_version,
            }) if format == FORMAT => {
                if format_version != BUNDLE_VERSION {
                    return Err(format!(
                        "it has the format version {format_version}, but this mlwm knows {BUNDLE_VERSION}: use a newer mlwm"
                    ));
                }
            }
            _ => return Err(not_one()),
        }
        let preamble: Self = serde_json::from_slice(content).map_err(|_| not_one())?;
        if preamble.head_size > MAX_HEAD {
            return Err("its head is larger than that of any bundle".to_owned());
        }
        Ok(preamble)
    }
}

/// A signature is that of a zip: it goes with every tag of the zip.
fn share_signatures(artifacts: &mut [BundledArtifact]) {
    let mut all: BTreeMap<(ArtifactName, Digest), BTreeMap<String, String>> = BTreeMap::new();
    for artifact in artifacts.iter() {
        let of_one = all
            .entry((artifact.name.clone(), artifact.digest))
            .or_default();
        for (key_id, text) in &artifact.signatures {
            of_one.entry(key_id.clone()).or_insert_with(|| text.clone());
        }
    }
    for artifact in artifacts {
        if let Some(signatures) = all.get(&(artifact.name.clone(), artifact.digest)) {
            artifact.signatures.clone_from(signatures);
        }
    }
}

/// Looks whether these artifacts, ordered by name and tag, can be in one bundle. Gives the size of
/// every zip.
fn check(artifacts: &[BundledArtifact]) -> Result<BTreeMap<Digest, u64>, String> {
    let mut references = BTreeSet::new();
    let mut zips = BTreeMap::new();
    for artifact in artifacts {
        let BundledArtifact {
            name, tag, digest, ..
        } = artifact;
        if !references.insert((name, tag)) {
            return Err(format!("it has {name}:{tag} twice"));
        }
        if signature_of(tag.as_str()).is_ok() {
            return Err(format!("{name}:{tag} has the tag of a signature"));
        }
        let facts = (artifact.size, artifact.set_digest, artifact.files);
        if *zips.entry(*digest).or_insert(facts) != facts {
            return Err(format!("it says different things of the zip {digest}"));
        }
        for (key_id, text) in &artifact.signatures {
            let signature = Signature::parse(text)
                .map_err(|error| format!("a signature of {name}:{tag} cannot be used: {error}"))?;
            if signature.key_id().to_string() != *key_id {
                return Err(format!(
                    "a signature of {name}:{tag} is not by the key it names"
                ));
            }
        }
    }
    Ok(zips
        .into_iter()
        .map(|(digest, (size, ..))| (digest, size))
        .collect())
}

/// Adds what belongs to an artifact but its zip, and gives its manifest.
fn add_artifact(documents: &mut BTreeMap<Digest, Vec<u8>>, artifact: &BundledArtifact) -> Vec<u8> {
    let config = ArtifactConfig {
        name: artifact.name.clone(),
        set_digest: artifact.set_digest,
        files: artifact.files,
        zip: None,
    };
    let provenance = artifact.provenance.as_deref().map(str::as_bytes);
    let manifest = manifest::artifact(
        &config,
        &[(artifact.digest, artifact.size)],
        provenance,
        None,
    );
    add(documents, config.to_bytes());
    if let Some(provenance) = provenance {
        add(documents, provenance.to_vec());
    }
    add(documents, manifest.clone());
    manifest
}

/// Adds a signature of the artifact with the manifest `subject`, and gives its own manifest.
fn add_signature(
    documents: &mut BTreeMap<Digest, Vec<u8>>,
    name: &ArtifactName,
    subject: &[u8],
    text: &str,
) -> Vec<u8> {
    let manifest = manifest::signature(name, subject, text.as_bytes());
    add(documents, manifest::EMPTY_CONFIG.to_vec());
    add(documents, text.as_bytes().to_vec());
    add(documents, manifest.clone());
    manifest
}

fn add(documents: &mut BTreeMap<Digest, Vec<u8>>, document: Vec<u8>) {
    documents.insert(Digest::of(&document), document);
}

fn entry(artifact_type: &str, manifest: &[u8], name: &ArtifactName, tag: &str) -> Descriptor {
    let descriptor = Descriptor::of(manifest::MANIFEST, manifest);
    Descriptor {
        artifact_type: Some(artifact_type.to_owned()),
        ..descriptor
    }
    .annotated(REF_NAME, format!("{name}:{tag}"))
}

fn blob_name(digest: Digest) -> String {
    format!("{BLOBS}{}", digest.hex())
}

/// The digest in the name of a blob, which is written in one way only.
fn blob_digest(name: &str) -> Result<Digest, String> {
    let digest = name
        .strip_prefix(BLOBS)
        .and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
    digest.ok_or_else(|| {
        format!(
            "it has an entry `{}`, which no bundle has",
            name.escape_debug()
        )
    })
}

/// JSON without white space. Nothing here can fail to be written as JSON.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

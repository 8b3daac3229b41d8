//! Images in a bundle: their documents lie in its head as they are, their layers behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mlwm_spec::{Digest, Tag};
use mlwm_storage::Content;
use serde::Deserialize;

use crate::manifest::{Descriptor, MANIFEST};

/// Tells images from artifacts, whose names have no `/`.
const PREFIX: &str = "images/";

/// The manifest of an image as Docker calls it.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// An image as a bundle describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundledImage {
    /// What it is called: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Which image of that name it is.
    pub tag: Tag,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// Its config, which the manifest names.
    pub config: Vec<u8>,
}

/// An image that goes into a bundle.
#[derive(Clone)]
pub struct ImageSource {
    /// What it is.
    pub image: BundledImage,
    /// Its layers as they are stored, in the order of the manifest.
    pub layers: Vec<Arc<dyn Content>>,
}

/// What of a manifest says which blobs belong to it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: String,
    config: Blob,
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    digest: Digest,
    size: u64,
}

impl BundledImage {
    /// What the index of a bundle calls it.
    pub fn reference(&self) -> String {
        format!("{PREFIX}{}:{}", self.name, self.tag)
    }

    /// SHA-256 of the manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Digest and size of each layer, as it is stored. The error says what is wrong with the image.
    pub(super) fn layers(&self) -> Result<Vec<(Digest, u64)>, String> {
        let (name, manifest) = (self.reference(), self.parsed()?);
        let config = (Digest::of(&self.config), self.config.len() as u64);
        if config != (manifest.config.digest, manifest.config.size) {
            return Err(format!("the config of {name} is not the one it names"));
        }
        let layers = manifest.layers.iter();
        Ok(layers.map(|layer| (layer.digest, layer.size)).collect())
    }

    fn parsed(&self) -> Result<Manifest, String> {
        serde_json::from_slice(&self.manifest)
            .map_err(|error| format!("the manifest of {} is invalid: {error}", self.reference()))
    }

    /// How the index of a bundle points to it.
    pub(super) fn entry(&self) -> Result<Descriptor, String> {
        let media_type = match self.parsed()?.media_type.as_str() {
            "" | MANIFEST => MANIFEST,
            DOCKER_MANIFEST => DOCKER_MANIFEST,
            _ => return Err(format!("{} is not an image", self.reference())),
        };
        let entry = Descriptor::of(media_type, &self.manifest);
        Ok(entry.annotated(super::layout::REF_NAME, self.reference()))
    }

    /// The image that an entry of an index with this reference points to; `document` gives what the
    /// head of the bundle has.
    pub(super) fn read(
        reference: &str,
        manifest: &[u8],
        document: impl Fn(Digest) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        let nameless = || "its index has an image without `images/<name>:<tag>`".to_owned();
        let named = reference.strip_prefix(PREFIX);
        let (name, tag) = named
            .and_then(|named| named.split_once(':'))
            .ok_or_else(nameless)?;
        let mut image = Self {
            name: name.to_owned(),
            tag: tag.parse().map_err(|_| nameless())?,
            manifest: manifest.to_vec(),
            config: Vec::new(),
        };
        image.config = document(image.parsed()?.config.digest)?;
        Ok(image)
    }

    fn has_plain_name(&self) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=128).contains(&self.name.len())
            && self.name.bytes().all(plain)
            && !self.name.starts_with(['.', '-'])
    }
}

/// Looks whether these images, ordered by name and tag, can be in one bundle, and adds the size of
/// each of their layers.
pub(super) fn check(
    images: &[BundledImage],
    sizes: &mut BTreeMap<Digest, u64>,
) -> Result<(), String> {
    let mut references = BTreeSet::new();
    for image in images {
        let reference = image.reference();
        if !image.has_plain_name() {
            return Err(format!(
                "an image cannot be called `{}`: use letters, digits, `.`, `_` and `-`",
                image.name.escape_debug()
            ));
        }
        for (digest, size) in image.layers()? {
            if *sizes.entry(digest).or_insert(size) != size {
                return Err(format!("it says different things of {digest}"));
            }
        }
        if !references.insert(reference.clone()) {
            return Err(format!("it has {reference} twice"));
        }
    }
    Ok(())
}

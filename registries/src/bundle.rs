//! Bundles: artifacts, their signatures, images and an index in one file, or in parts of it, to carry
//! to where no network leads (`docs/registries.md` §7).
//!
//! A bundle is a tar that is an OCI image layout, so `skopeo` and `oras` read it. The same content
//! gives the same bytes. What is small lies in front, in the *head*, in this order:
//!
//! | entry | content |
//! | --- | --- |
//! | `mlwm-bundle.json` | format, size of the bundle, size and SHA-256 of the rest of the head |
//! | `oci-layout` | version of the layout |
//! | `index.json` | the manifests of artifacts and signatures, named `<name>:<tag>`, and of images, named `images/<name>:<tag>` |
//! | `blobs/sha256/…` | manifests, configs, provenance, signatures, by digest |
//!
//! After it come the zips and layers, by digest. A bundle in parts is that tar cut into `<file>.001`,
//! `<file>.002`, …, and `<file>.parts.json`, written last, with the digest of each part: `cat` makes
//! the tar of them again.

mod described;
mod gather;
mod hashing;
mod images;
mod import;
mod layout;
mod parts;
mod read;
mod sink;
mod source;
mod tape;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use mlwm_spec::{ArtifactName, Digest, Tag};
use tokio_util::sync::CancellationToken;

pub use images::{BundledImage, ImageSource};
pub use import::{Imported, import};
pub use read::Bundle;
pub(crate) use source::FromStart;
pub use write::{Written, write};

/// The version of the format that this mlwm writes and reads.
pub const BUNDLE_VERSION: u32 = 1;

/// An artifact as a bundle describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundledArtifact {
    /// What it is published as.
    pub name: ArtifactName,
    /// Which publication of that name it is.
    pub tag: Tag,
    /// SHA-256 of the zip.
    pub digest: Digest,
    /// Size of the zip in bytes.
    pub size: u64,
    /// Digest of the files in it, however they are packed.
    pub set_digest: Digest,
    /// Number of files in it.
    pub files: u64,
    /// Where, when and from what it was built, as YAML.
    pub provenance: Option<String>,
    /// Detached minisign signatures of the zip, by key id.
    pub signatures: BTreeMap<String, String>,
}

/// An artifact that goes into a bundle.
#[derive(Clone)]
pub struct Source {
    /// What it is.
    pub artifact: BundledArtifact,
    /// Its zip.
    pub zip: Arc<dyn mlwm_storage::Content>,
}

/// Who follows a long reading or writing of a bundle.
#[derive(Clone)]
pub struct Watch {
    /// Told the bytes that are done and those there are in all; must be quick.
    pub progress: Arc<dyn Fn(u64, u64) + Send + Sync>,
    /// Calls it off.
    pub cancel: CancellationToken,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            progress: Arc::new(|_, _| ()),
            cancel: CancellationToken::new(),
        }
    }
}

#[cfg(test)]
mod tests;

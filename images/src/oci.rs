//! The documents of an OCI image: what is read of them, and what is written (OCI image specification
//! 1.1). Fields that mlwm does not know are kept where a document is changed, and dropped where it
//! is only read.

use std::collections::BTreeMap;

use mlwm_spec::Digest;
use serde::{Deserialize, Serialize};

/// Media types of OCI.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// The same of Docker.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Annotation of an index entry: the tag.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A blob that a document points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// What kind of content it is.
    pub media_type: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
    /// For which machines an image of an index is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The kind of machine that an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go calls it, such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// Such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Several images under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a registry gives for a name.
pub(crate) enum Found {
    Image(Manifest),
    Several(Index),
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The layer as OCI calls it; the reason if it is none that every engine can unpack.
    pub(crate) fn as_oci_layer(&self) -> Result<Self, String> {
        let media_type = match self.media_type.as_str() {
            DOCKER_LAYER_GZIP => LAYER_GZIP,
            DOCKER_LAYER_TAR => LAYER_TAR,
            known @ (LAYER_TAR | LAYER_GZIP | LAYER_ZSTD) => known,
            other => return Err(format!("a layer is of the kind `{other}`")),
        };
        Ok(Self {
            media_type: media_type.to_owned(),
            ..self.clone()
        })
    }
}

impl Platform {
    /// That of this machine.
    pub fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        }
    }

    /// Whether what is for `self` is for `wanted`; variants are compared only if both have one.
    pub(crate) fn is_for(&self, wanted: &Self) -> bool {
        let variants = self.variant.as_ref().zip(wanted.variant.as_ref());
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && variants.is_none_or(|(has, wants)| has == wants)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            _ => return Err(format!("`{text}` is no platform: write linux/amd64")),
        };
        Ok(Self {
            architecture: (*architecture).to_owned(),
            os: (*os).to_owned(),
            variant,
        })
    }
}

impl Found {
    /// Reads what a registry or a layout has; the media type is taken from the document, else it is
    /// `said`. The error says what is wrong.
    pub(crate) fn parse(bytes: &[u8], said: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            media_type: String,
        }
        let invalid = |error: serde_json::Error| format!("its manifest is invalid: {error}");
        let kind: Kind = serde_json::from_slice(bytes).map_err(invalid)?;
        let kind = match kind.media_type.as_str() {
            "" => said,
            kind => kind,
        };
        match kind {
            MANIFEST | DOCKER_MANIFEST => {
                let manifest = serde_json::from_slice(bytes).map_err(invalid)?;
                Ok(Self::Image(manifest))
            }
            INDEX | DOCKER_LIST => {
                let index = serde_json::from_slice(bytes).map_err(invalid)?;
                Ok(Self::Several(index))
            }
            other => Err(format!(
                "its manifest is of the kind `{other}`, not an image"
            )),
        }
    }
}

/// JSON without white space. Nothing here can fail to be written as JSON.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_written_and_compared() {
        let plain: Platform = "linux/arm64".parse().unwrap();
        let variant: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(variant.to_string(), "linux/arm64/v8");
        assert!(variant.is_for(&plain) && plain.is_for(&variant));
        assert!(!variant.is_for(&"linux/arm64/v9".parse().unwrap()));
        assert!(!plain.is_for(&"linux/amd64".parse().unwrap()));
        assert!("amd64".parse::<Platform>().is_err());
    }

    #[test]
    fn dockers_documents_are_understood_and_others_refused() {
        let image = br#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
            "config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,
            "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}"#;
        assert!(matches!(Found::parse(image, ""), Ok(Found::Image(_))));
        let list = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Found::parse(list, INDEX), Ok(Found::Several(_))));
        assert!(Found::parse(list, "application/json").is_err());
        let layer = Descriptor::of(DOCKER_LAYER_GZIP, b"x");
        assert_eq!(layer.as_oci_layer().unwrap().media_type, LAYER_GZIP);
        assert!(Descriptor::of("text/plain", b"x").as_oci_layer().is_err());
    }
}

//! The OCI manifests of an artifact and of a signature, as bytes: what an OCI registry holds and
//! what a bundle holds are the same (`docs/registries.md`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mlwm_spec::{ArtifactName, Digest};
use serde::{Deserialize, Serialize};

/// Media types.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const ARTIFACT: &str = "application/vnd.mlwm.inference-artifact.v1";
pub(crate) const CONFIG: &str = "application/vnd.mlwm.inference-artifact.config.v1+json";
pub(crate) const ZIP: &str = "application/vnd.mlwm.inference-artifact.v1+zip";
/// A part of a large zip: the parts, in order, are the zip.
pub(crate) const ZIP_PART: &str = "application/vnd.mlwm.inference-artifact.v1+zip.part";
pub(crate) const PROVENANCE: &str = "application/vnd.mlwm.provenance.v1+yaml";
pub(crate) const SIGNATURE: &str = "application/vnd.mlwm.signature.v1";
pub(crate) const MINISIG: &str = "application/vnd.mlwm.minisig";
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The most bytes of a blob that a manifest takes in.
const EMBEDDED: usize = 64 << 10;

/// The config of a manifest that has none.
pub(crate) const EMPTY_CONFIG: &[u8] = b"{}";

/// The file name that a client gives to a layer it has fetched.
pub(crate) const TITLE: &str = "org.opencontainers.image.title";
/// When an artifact was published; RFC 3339.
pub(crate) const CREATED: &str = "org.opencontainers.image.created";

/// A blob that a manifest or an index points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// The blob itself in base64, so that it need not be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
}

/// A manifest, OCI image specification 1.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What the config blob of an artifact says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArtifactConfig {
    pub(crate) name: ArtifactName,
    pub(crate) set_digest: Digest,
    /// Number of files in the zip, `artifact.yaml` too.
    pub(crate) files: u64,
    /// The zip as a whole, if it is in several parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zip: Option<WholeZip>,
}

/// A zip that is in several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WholeZip {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// What the manifest of an artifact says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArtifactManifest {
    pub(crate) config: Descriptor,
    pub(crate) zip: WholeZip,
    /// The blobs that the zip is in: itself, or its parts in order.
    pub(crate) parts: Vec<(Digest, u64)>,
    pub(crate) provenance: Option<Descriptor>,
    /// When it was published, where the manifest says it.
    pub(crate) created: Option<String>,
}

/// What the manifest of a signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignatureManifest {
    /// The manifest of the artifact that is signed.
    pub(crate) subject: Descriptor,
    pub(crate) minisig: Descriptor,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            artifact_type: None,
            digest,
            size,
            annotations: BTreeMap::new(),
            data: None,
        }
    }

    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    pub(crate) fn annotated(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// Takes the blob in, if it is small.
    fn embedding(mut self, bytes: &[u8]) -> Self {
        self.data = (bytes.len() <= EMBEDDED).then(|| STANDARD.encode(bytes));
        self
    }

    /// The blob, if it is in the manifest and is the one that the digest says.
    pub(crate) fn embedded(&self) -> Option<Vec<u8>> {
        let bytes = STANDARD.decode(self.data.as_ref()?).ok()?;
        (Digest::of(&bytes) == self.digest && bytes.len() as u64 == self.size).then_some(bytes)
    }
}

impl ArtifactConfig {
    /// The config blob.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// The manifest of an artifact whose zip is in the blobs `parts`, given with their sizes. If there
/// are several, the config says what they are together. `created` differs from one publication to
/// the next: leave it out where the same artifact must give the same bytes.
pub(crate) fn artifact(
    config: &ArtifactConfig,
    parts: &[(Digest, u64)],
    provenance: Option<&[u8]>,
    created: Option<&str>,
) -> Vec<u8> {
    let layer = |(index, (digest, size)): (usize, &(Digest, u64))| match parts.len() {
        1 => Descriptor::new(ZIP, *digest, *size).annotated(TITLE, format!("{}.zip", config.name)),
        _ => Descriptor::new(ZIP_PART, *digest, *size)
            .annotated(TITLE, format!("{}.zip.{:03}", config.name, index + 1)),
    };
    let provenance = provenance.map(|text| {
        Descriptor::of(PROVENANCE, text)
            .annotated(TITLE, format!("{}.provenance.yaml", config.name))
            .embedding(text)
    });
    let config_bytes = config.to_bytes();
    let created = created.map(|time| (CREATED.to_owned(), time.to_owned()));
    to_json(&Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: Some(ARTIFACT.to_owned()),
        config: Descriptor::of(CONFIG, &config_bytes).embedding(&config_bytes),
        layers: parts
            .iter()
            .enumerate()
            .map(layer)
            .chain(provenance)
            .collect(),
        subject: None,
        annotations: created.into_iter().collect(),
    })
}

/// The manifest of a signature, a minisign text, of the artifact with the manifest `subject`.
/// Its config is [`EMPTY_CONFIG`].
pub(crate) fn signature(name: &ArtifactName, subject: &[u8], minisig: &[u8]) -> Vec<u8> {
    let layer = Descriptor::of(MINISIG, minisig).annotated(TITLE, format!("{name}.zip.minisig"));
    to_json(&Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: Some(SIGNATURE.to_owned()),
        config: Descriptor::of(EMPTY, EMPTY_CONFIG),
        layers: vec![layer],
        subject: Some(Descriptor::of(MANIFEST, subject)),
        annotations: BTreeMap::new(),
    })
}

/// The tag of the signature with the key `key_id` of the zip with this digest.
pub(crate) fn signature_tag(zip: Digest, key_id: &str) -> String {
    format!("sha256-{}.{key_id}.minisig", zip.hex())
}

impl ArtifactManifest {
    /// Reads the manifest of an artifact. The error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest = parse(bytes, ARTIFACT, "an inference artifact")?;
        let other = || "its manifest has other layers than a zip and its provenance".to_owned();
        let mut layers = manifest.layers;
        let provenance = layers.pop_if(|layer| layer.media_type == PROVENANCE);
        let kind = if layers.len() == 1 { ZIP } else { ZIP_PART };
        let known = layers.iter().all(|layer| layer.media_type == kind);
        if layers.is_empty() || !known || manifest.config.media_type != CONFIG {
            return Err(other());
        }
        let parts: Vec<(Digest, u64)> =
            layers.iter().map(|part| (part.digest, part.size)).collect();
        let zip = match parts.as_slice() {
            [(digest, size)] => WholeZip {
                digest: *digest,
                size: *size,
            },
            parts => {
                let config = manifest.config.embedded();
                let config: Option<ArtifactConfig> =
                    config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                let size = parts
                    .iter()
                    .try_fold(0u64, |sum, (_, size)| sum.checked_add(*size));
                config
                    .and_then(|config| config.zip)
                    .filter(|zip| Some(zip.size) == size)
                    .ok_or_else(|| "its manifest does not say what its parts make".to_owned())?
            }
        };
        Ok(Self {
            config: manifest.config,
            zip,
            parts,
            provenance,
            created: manifest.annotations.get(CREATED).cloned(),
        })
    }
}

impl SignatureManifest {
    /// Reads the manifest of a signature. The error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest = parse(bytes, SIGNATURE, "a signature")?;
        match (manifest.subject, manifest.layers.as_slice()) {
            (Some(subject), [layer]) if layer.media_type == MINISIG => Ok(Self {
                subject,
                minisig: layer.clone(),
            }),
            _ => Err("its manifest is not that of one minisign signature".to_owned()),
        }
    }
}

fn parse(bytes: &[u8], artifact_type: &str, wanted: &str) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| format!("its manifest is invalid: {error}"))?;
    if manifest.schema_version == 2
        && manifest.media_type == MANIFEST
        && manifest.artifact_type.as_deref() == Some(artifact_type)
    {
        return Ok(manifest);
    }
    Err(format!("it is not {wanted} that this mlwm knows"))
}

/// JSON without white space. Nothing here can fail to be written as JSON.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

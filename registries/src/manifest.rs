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
}

/// What the manifest of an artifact says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArtifactManifest {
    pub(crate) config: Descriptor,
    pub(crate) zip: Descriptor,
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

/// The manifest of an artifact. `created` differs from one publication to the next: leave it out
/// where the same artifact must give the same bytes.
pub(crate) fn artifact(
    config: &ArtifactConfig,
    zip_digest: Digest,
    zip_size: u64,
    provenance: Option<&[u8]>,
    created: Option<&str>,
) -> Vec<u8> {
    let zip =
        Descriptor::new(ZIP, zip_digest, zip_size).annotated(TITLE, format!("{}.zip", config.name));
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
        layers: [zip].into_iter().chain(provenance).collect(),
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
        let mut layers = manifest.layers.into_iter();
        let zip = layers.next().filter(|layer| layer.media_type == ZIP);
        let provenance = layers.next();
        let known = provenance
            .as_ref()
            .is_none_or(|layer| layer.media_type == PROVENANCE);
        match zip {
            Some(zip)
                if known && layers.next().is_none() && manifest.config.media_type == CONFIG =>
            {
                Ok(Self {
                    config: manifest.config,
                    zip,
                    provenance,
                    created: manifest.annotations.get(CREATED).cloned(),
                })
            }
            _ => Err("its manifest has other layers than a zip and its provenance".to_owned()),
        }
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

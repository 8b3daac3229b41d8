//! An image as what it is: documents, and layers that can be read where they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use mlwm_spec::Digest;
use mlwm_storage::oci::Repository;
use mlwm_storage::{Content, FileContent};
use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::assembled::Assembled;
use crate::oci::{Descriptor, MANIFEST, Manifest, Platform};
use crate::remote::RemoteBlob;

/// An image: its documents as bytes, and where its layers are.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest.
    pub(crate) manifest: Vec<u8>,
    /// What the manifest says.
    pub(crate) parsed: Manifest,
    /// The config.
    pub(crate) config: Vec<u8>,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// How a manifest points to it.
    pub(crate) descriptor: Descriptor,
    /// SHA-256 of the layer without compression.
    pub(crate) diff_id: Digest,
    /// Where it is.
    pub(crate) source: LayerSource,
}

/// Where the bytes of a layer are.
#[derive(Clone)]
pub(crate) enum LayerSource {
    /// In a repository of a registry.
    Registry(Repository),
    /// In a file, such as that of an OCI layout.
    File(PathBuf),
    /// In a file that is not removed as long as the lock is held.
    Held { path: PathBuf, _lock: Arc<File> },
    /// Made when it is read.
    Made(Arc<dyn Content>),
    /// One of ours.
    Assembled(Assembled),
}

impl std::fmt::Debug for LayerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(repository) => write!(f, "Registry({})", repository.uri()),
            Self::File(path) | Self::Held { path, .. } => write!(f, "File({})", path.display()),
            Self::Made(content) => write!(f, "Made({})", content.fingerprint()),
            Self::Assembled(layer) => write!(f, "Assembled({})", layer.fingerprint()),
        }
    }
}

impl Image {
    /// Reads the documents of an image; `layer` says where a layer is. The error says what is wrong.
    pub(crate) fn read(
        manifest: Vec<u8>,
        parsed: Manifest,
        config: Vec<u8>,
        layer: impl Fn(&Descriptor) -> LayerSource,
    ) -> Result<Self, String> {
        let document: Value = serde_json::from_slice(&config)
            .map_err(|error| format!("its config is invalid: {error}"))?;
        let diff_ids: Option<Vec<Digest>> = document["rootfs"]["diff_ids"].as_array().map(|ids| {
            ids.iter()
                .filter_map(|id| id.as_str()?.parse().ok())
                .collect()
        });
        let diff_ids = diff_ids.unwrap_or_default();
        if diff_ids.len() != parsed.layers.len() {
            return Err(format!(
                "its manifest has {} layers and its config {}",
                parsed.layers.len(),
                diff_ids.len()
            ));
        }
        let layers = parsed.layers.iter().zip(diff_ids);
        let layers = layers.map(|(descriptor, diff_id)| Layer {
            descriptor: descriptor.clone(),
            diff_id,
            source: layer(descriptor),
        });
        Ok(Self {
            layers: layers.collect(),
            manifest,
            parsed,
            config,
        })
    }

    /// The same; its layers, wherever they go, keep the lock of the folder that their files are in.
    pub(crate) fn held_by(mut self, lock: File) -> Self {
        let lock = Arc::new(lock);
        for layer in &mut self.layers {
            if let LayerSource::File(path) = &layer.source {
                layer.source = LayerSource::Held {
                    path: path.clone(),
                    _lock: Arc::clone(&lock),
                };
            }
        }
        self
    }

    /// SHA-256 of the manifest: what the image is pinned by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// What kind of manifest it is: OCI's, or Docker's, which says so itself.
    pub(crate) fn media_type(&self) -> &str {
        match self.parsed.media_type.as_str() {
            "" => MANIFEST,
            kind => kind,
        }
    }

    /// SHA-256 of the config: what engines call the identifier of the image.
    pub fn id(&self) -> Digest {
        self.parsed.config.digest
    }

    /// Bytes of all layers, as they are stored.
    pub fn size(&self) -> u64 {
        self.parsed.layers.iter().map(|layer| layer.size).sum()
    }

    /// Digests of the layers without compression.
    pub(crate) fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// The config as a document.
    pub(crate) fn document(&self) -> Value {
        serde_json::from_slice(&self.config).unwrap_or_default()
    }

    /// The image in short.
    pub fn summary(&self) -> Summary {
        let document = self.document();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = document["config"]["Labels"].as_object();
        let labels = labels.into_iter().flatten();
        // History also tells of steps that made no layer.
        let history = document["history"].as_array().into_iter().flatten();
        let mut made = history
            .filter(|step| step["empty_layer"] != true)
            .map(|step| text(&step["created_by"]));
        let layer = |layer: &Layer| LayerSummary {
            digest: layer.descriptor.digest,
            size: layer.descriptor.size,
            what: made.next().unwrap_or_default(),
        };
        Summary {
            digest: self.digest(),
            id: self.id(),
            platform: self.platform().to_string(),
            created: text(&document["created"]),
            labels: labels
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            layers: self.layers.iter().map(layer).collect(),
            size: self.size(),
        }
    }

    /// What the config says of the machine it is for.
    pub(crate) fn platform(&self) -> Platform {
        let document = self.document();
        let text = |key: &str| document[key].as_str().map(str::to_owned);
        Platform {
            architecture: text("architecture").unwrap_or_default(),
            os: text("os").unwrap_or_default(),
            variant: text("variant"),
        }
    }

    /// The image if it is for a kind of machine; `name` is what it was found under.
    pub(crate) fn checked_for(self, platform: &Platform, name: &str) -> Result<Self, Error> {
        let has = self.platform();
        match has.is_for(platform) {
            true => Ok(self),
            false => Err(Error::BadImage {
                image: name.to_owned(),
                why: format!("it is for {has}, and one for {platform} is wanted"),
            }),
        }
    }

    /// A label of the config.
    pub fn label(&self, name: &str) -> Option<String> {
        let document = self.document();
        document["config"]["Labels"][name]
            .as_str()
            .map(str::to_owned)
    }
}

/// An image in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// SHA-256 of the manifest.
    pub digest: Digest,
    /// SHA-256 of the config.
    pub id: Digest,
    /// What it runs on.
    pub platform: String,
    /// When it says it was created.
    pub created: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerSummary>,
    /// Bytes of all layers, as they are stored.
    pub size: u64,
}

/// A layer in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerSummary {
    /// SHA-256 of it as it is stored.
    pub digest: Digest,
    /// Bytes, as it is stored.
    pub size: u64,
    /// What made it, as the history of the image says.
    pub what: String,
}

impl Layer {
    /// What can be read of it, again and again.
    pub(crate) fn content(&self) -> Result<Arc<dyn Content>, Error> {
        Ok(match &self.source {
            LayerSource::Made(content) => Arc::clone(content),
            LayerSource::Assembled(layer) => Arc::new(layer.clone()),
            LayerSource::File(path) | LayerSource::Held { path, .. } => {
                Arc::new(FileContent::open(path)?)
            }
            LayerSource::Registry(repository) => Arc::new(RemoteBlob::new(
                repository.clone(),
                self.descriptor.digest,
                self.descriptor.size,
            )),
        })
    }

    /// Reads it, and checks what is read against its digest at the end. What the reader fails with
    /// is an [`Error`], which [`Error::local`] passes on.
    pub(crate) fn open(&self) -> Result<impl Read + Send, Error> {
        let content = self.content()?;
        let reader = content.open().map_err(|source| Error::Layer {
            layer: self.descriptor.digest,
            source,
        })?;
        Ok(Verified {
            reader,
            expected: self.descriptor.digest,
            hasher: Some(sha2::Digest::new()),
            ours: match &self.source {
                LayerSource::Assembled(layer) => Some(layer.clone()),
                _ => None,
            },
        })
    }
}

/// Fails at the end if what was read is not what it should be.
struct Verified {
    reader: Box<dyn Read + Send>,
    expected: Digest,
    hasher: Option<sha2::Sha256>,
    ours: Option<Assembled>,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let failed = |source| {
            io::Error::other(Error::Layer {
                layer: self.expected,
                source,
            })
        };
        let read = self.reader.read(buffer).map_err(failed)?;
        if read > 0 {
            if let Some(hasher) = &mut self.hasher {
                sha2::Digest::update(hasher, &buffer[..read]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let (expected, found) = (self.expected, Digest::from_hasher(hasher));
            if found != expected {
                if let Some(ours) = &self.ours {
                    ours.check().map_err(failed)?;
                }
                return Err(io::Error::other(Error::LayerChanged { expected, found }));
            }
        }
        Ok(read)
    }
}

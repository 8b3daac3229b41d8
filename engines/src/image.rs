//! Images that an engine has.

use std::collections::BTreeMap;

use mlwm_spec::Digest;

use crate::connect::Engine;
use crate::error::{Error, status};

/// An image that an engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of its configuration, by which the engine knows it.
    pub id: Digest,
    /// Its digests in registries, `repository@sha256:…`; none if it was never pulled or pushed.
    pub repo_digests: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Digests of its layers without compression, the lowest first.
    pub layers: Vec<Digest>,
    /// Size of its unpacked layers, in bytes.
    pub size: u64,
}

impl Engine {
    /// The image with this reference or identifier, if the engine has it. Nothing is pulled.
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, Error> {
        let action = || format!("inspect image `{reference}`");
        let found = match self.docker.inspect_image(reference).await {
            Ok(found) => found,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(Error::from_engine(action(), error)),
        };
        let id = found.id.unwrap_or_default();
        // Podman leaves the algorithm away in places.
        let id = if id.contains(':') {
            id
        } else {
            format!("sha256:{id}")
        };
        let id = id.parse().map_err(|error| Error::Refused {
            action: action(),
            message: format!("its identifier is not a digest: {error}"),
        })?;
        Ok(Some(Image {
            id,
            repo_digests: found.repo_digests.unwrap_or_default(),
            labels: found
                .config
                .and_then(|config| config.labels)
                .unwrap_or_default()
                .into_iter()
                .collect(),
            layers: found
                .root_fs
                .and_then(|root| root.layers)
                .unwrap_or_default()
                .iter()
                .filter_map(|layer| layer.parse().ok())
                .collect(),
            size: found
                .size
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or(0),
        }))
    }
}

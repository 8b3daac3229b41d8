//! The policy of an OCI registry, in a repository of its own (`docs/registries.md` §9).

use mlwm_spec::Tag;

use super::{Oci, POLICY_REPOSITORY, bare_manifest, put_manifest};
use crate::Error;
use crate::manifest::{self, Descriptor, EMPTY_CONFIG};

/// The kind of manifest the policy is in.
const POLICY: &str = "application/vnd.mlwm.registry-policy.v1";
/// Its JSON.
const POLICY_JSON: &str = "application/vnd.mlwm.registry-policy.v1+json";

impl Oci {
    pub(crate) async fn policy(&self) -> Result<Option<Vec<u8>>, Error> {
        let repository = self.repository(POLICY_REPOSITORY)?;
        let found = match repository.manifest(Tag::latest().as_str()).await {
            Ok(Some(found)) => found,
            // Public registries refuse to say that there is no such repository.
            Ok(None) | Err(mlwm_storage::Error::RegistryAccess { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let layers: manifest::Manifest =
            serde_json::from_slice(&found.bytes).map_err(|error| Error::BadRecord {
                record: repository.uri().to_string(),
                why: error.to_string(),
            })?;
        match layers.layers.as_slice() {
            [layer] if layers.artifact_type.as_deref() == Some(POLICY) => {
                self.small(&repository, layer).await.map(Some)
            }
            _ => Err(Error::BadRecord {
                record: repository.uri().to_string(),
                why: "it is not a policy that this mlwm knows".to_owned(),
            }),
        }
    }

    pub(crate) async fn put_policy(&self, json: Vec<u8>) -> Result<(), Error> {
        let repository = self.repository(POLICY_REPOSITORY)?;
        let layer = Descriptor::of(POLICY_JSON, &json);
        repository.push_blob_bytes(EMPTY_CONFIG).await?;
        repository.push_blob_bytes(json).await?;
        let bytes = bare_manifest(POLICY, layer, [])?;
        put_manifest(&repository, Tag::latest().as_str(), bytes).await
    }
}

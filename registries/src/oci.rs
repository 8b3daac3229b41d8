//! A registry that speaks the OCI distribution protocol (`docs/registries.md` §9): each name is a
//! repository, each publication a manifest with its tag.

mod claims;
mod policy;
mod removal;
mod signatures;
mod spans;
mod zips;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use mlwm_spec::{ArtifactName, Digest, Tag};
use mlwm_storage::ByteRange;
use mlwm_storage::oci::{self, OciUri, Repository};

use self::claims::TagPlace;
use self::spans::Part;
use self::zips::KnownParts;
use crate::claims::{self as protocol, Outcome};
use crate::listing::{self, Found, Listing};
use crate::manifest::{
    self, ArtifactConfig, ArtifactManifest, Descriptor, EMPTY, EMPTY_CONFIG, MANIFEST, WholeZip,
};
use crate::policy::StoredSignature;
use crate::record::REGISTRY_VERSION;
use crate::registry::RegistryOptions;
use crate::{Error, Publication};

/// The repository of the policy; no artifact can have this name.
const POLICY_REPOSITORY: &str = "registry-policy";

/// Configs, signatures and provenances that are read; they are small.
const SMALL: u64 = 16 << 20;

/// Manifests that are read at once.
const AT_ONCE: usize = 8;

/// A registry that speaks the OCI distribution protocol.
#[derive(Clone, Debug)]
pub(crate) struct Oci {
    root: OciUri,
    options: Arc<RegistryOptions>,
    /// By name: each keeps its connections and its token.
    repositories: Arc<Mutex<HashMap<String, Repository>>>,
    known_parts: KnownParts,
}

impl Oci {
    pub(crate) fn new(root: OciUri, options: Arc<RegistryOptions>) -> Self {
        Self {
            root,
            options,
            repositories: Arc::default(),
            known_parts: KnownParts::default(),
        }
    }

    fn repository(&self, name: &str) -> Result<Repository, Error> {
        let mut known = self
            .repositories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = known.get(name) {
            return Ok(repository.clone());
        }
        let repository = Repository::open(&self.root.join(name)?, &self.options.oci)?;
        known.insert(name.to_owned(), repository.clone());
        Ok(repository)
    }

    fn named(&self, name: &ArtifactName, tag: &Tag) -> String {
        crate::registry::named(&self.root.to_string(), name, Some(tag))
    }

    /// Refuses names that cannot be repositories.
    pub(crate) fn check_name(&self, name: &ArtifactName) -> Result<(), Error> {
        let uri = self.root.join(name.as_str())?;
        if name.as_str() != POLICY_REPOSITORY {
            return Ok(());
        }
        Err(Error::Reserved {
            what: uri.to_string(),
            why: "this name is kept for the registry's policy: choose another with `--as`",
        })
    }

    /// Refuses tags that are kept for other things.
    pub(crate) fn check_tag(tag: &Tag) -> Result<(), Error> {
        match is_own_tag(tag.as_str()) {
            false => Ok(()),
            true => Err(Error::Reserved {
                what: format!("the tag `{tag}`"),
                why: "in an OCI registry tags that begin with `sha256-`, `claim.` or `withdrawn.` \
                      are kept for signatures and claims: choose another",
            }),
        }
    }

    pub(crate) async fn record(
        &self,
        name: &ArtifactName,
        tag: &Tag,
    ) -> Result<Option<Publication>, Error> {
        let repository = self.repository(name.as_str())?;
        let Some(found) = repository.manifest(tag.as_str()).await? else {
            return Ok(None);
        };
        let bad = |why: String| Error::BadRecord {
            record: self.named(name, tag),
            why,
        };
        let manifest = ArtifactManifest::parse(&found.bytes).map_err(bad)?;
        self.known_parts
            .keep(name, manifest.zip.digest, &manifest.parts);
        let config = self.small(&repository, &manifest.config).await?;
        let config: ArtifactConfig = serde_json::from_slice(&config)
            .map_err(|error| bad(format!("its config is invalid: {error}")))?;
        Ok(Some(Publication {
            format: REGISTRY_VERSION,
            name: name.clone(),
            tag: tag.clone(),
            digest: manifest.zip.digest,
            set_digest: config.set_digest,
            size: manifest.zip.size,
            files: config.files,
            published_at: manifest.created.unwrap_or_default(),
            object: found.digest.to_string(),
            provenance: manifest
                .provenance
                .and_then(|layer| String::from_utf8(layer.embedded()?).ok()),
        }))
    }

    /// All publications, or those of one name. Manifests that are no artifacts are left out.
    pub(crate) async fn records(&self, name: Option<&ArtifactName>) -> Result<Listing, Error> {
        let names = match name {
            Some(name) => vec![name.clone()],
            None => self.names().await?,
        };
        let mut wanted = Vec::new();
        for name in names {
            for tag in self.repository(name.as_str())?.tags().await? {
                if let (false, Ok(tag)) = (is_own_tag(&tag), tag.parse()) {
                    wanted.push((name.clone(), tag));
                }
            }
        }
        let records: Vec<Option<Found>> = stream::iter(wanted)
            .map(|(name, tag): (ArtifactName, Tag)| async move {
                match self.record(&name, &tag).await {
                    Err(Error::BadRecord { .. }) if !self.is_artifact(&name, &tag).await? => {
                        Ok(None)
                    }
                    read => listing::found(read, &name, &tag),
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(records.into_iter().flatten().collect())
    }

    /// The repositories directly below the registry's path that may be artifacts.
    async fn names(&self) -> Result<Vec<ArtifactName>, Error> {
        let found = oci::repositories(&self.root, &self.options.oci).await?;
        let path = self.root.repository();
        let below = |repository: &String| {
            let rest = match path {
                "" => repository.as_str(),
                path => repository.strip_prefix(path)?.strip_prefix('/')?,
            };
            rest.parse().ok().filter(|_| rest != POLICY_REPOSITORY)
        };
        Ok(found.iter().filter_map(below).collect())
    }

    /// A small blob, checked: out of the manifest if it is there.
    async fn small(&self, repository: &Repository, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        let bad = |why: String| Error::BadRecord {
            record: format!("{}@{}", repository.uri(), blob.digest),
            why,
        };
        if let Some(bytes) = blob.embedded() {
            return Ok(bytes);
        }
        if blob.size > SMALL {
            return Err(bad(format!(
                "it has {} bytes, which is too many",
                blob.size
            )));
        }
        let range = ByteRange::From {
            start: 0,
            length: blob.size,
        };
        let bytes = repository.read_blob_range(&blob.digest, range).await?.bytes;
        match Digest::of(&bytes) == blob.digest {
            true => Ok(bytes.into()),
            false => Err(bad("it does not have this digest".to_owned())),
        }
    }

    /// Publishes what has been uploaded: signatures, then the manifest under its tag. The manifest
    /// becomes the publication's object.
    pub(crate) async fn publish(
        &self,
        publication: &mut Publication,
        signatures: &[StoredSignature],
    ) -> Result<Outcome, Error> {
        let Publication { name, tag, .. } = &*publication;
        Self::check_tag(tag)?;
        let repository = self.repository(name.as_str())?;
        let single: Arc<[Part]> = [(publication.digest, publication.size)].into();
        let parts = self
            .known_parts
            .get(name, publication.digest)
            .unwrap_or(single);
        let config = ArtifactConfig {
            name: name.clone(),
            set_digest: publication.set_digest,
            files: publication.files,
            zip: (parts.len() > 1).then_some(WholeZip {
                digest: publication.digest,
                size: publication.size,
            }),
        };
        repository.push_blob_bytes(config.to_bytes()).await?;
        let provenance = publication.provenance.as_deref().map(str::as_bytes);
        if let Some(text) = provenance {
            repository.push_blob_bytes(text.to_vec()).await?;
        }
        let created = Some(publication.published_at.as_str());
        let bytes = manifest::artifact(&config, &parts, provenance, created);
        publication.object = Digest::of(&bytes).to_string();
        self.sign(&repository, publication, &bytes, signatures)
            .await?;
        self.claim_and_write(&repository, publication, bytes).await
    }

    async fn claim_and_write(
        &self,
        repository: &Repository,
        publication: &Publication,
        manifest: Vec<u8>,
    ) -> Result<Outcome, Error> {
        let place = TagPlace::new(self, repository, publication, manifest);
        protocol::publish(&place, publication.digest).await
    }

    /// Gives the manifest of a publication the tag that it says, unless it is taken.
    pub(crate) async fn tag(&self, publication: &Publication) -> Result<Outcome, Error> {
        Self::check_tag(&publication.tag)?;
        let repository = self.repository(publication.name.as_str())?;
        let bytes = self.manifest_of(&repository, publication).await?;
        self.claim_and_write(&repository, publication, bytes).await
    }

    /// Gives the manifest of a publication the tag that it says, whatever has it now.
    pub(crate) async fn retag(&self, publication: &Publication) -> Result<(), Error> {
        Self::check_tag(&publication.tag)?;
        let repository = self.repository(publication.name.as_str())?;
        let bytes = self.manifest_of(&repository, publication).await?;
        let tag = publication.tag.as_str();
        put_manifest(&repository, tag, bytes).await
    }

    async fn manifest_of(
        &self,
        repository: &Repository,
        publication: &Publication,
    ) -> Result<Vec<u8>, Error> {
        let found = repository.manifest(&publication.object).await?;
        let found = found.ok_or_else(|| Error::Damaged {
            publication: self.named(&publication.name, &publication.tag),
            why: "its manifest is gone".to_owned(),
        })?;
        Ok(found.bytes.into())
    }

    pub(crate) async fn provenance(
        &self,
        publication: &Publication,
    ) -> Result<Option<String>, Error> {
        if publication.provenance.is_some() {
            return Ok(publication.provenance.clone());
        }
        let repository = self.repository(publication.name.as_str())?;
        let bytes = self.manifest_of(&repository, publication).await?;
        let bad = |why: String| Error::BadRecord {
            record: self.named(&publication.name, &publication.tag),
            why,
        };
        let Some(layer) = ArtifactManifest::parse(&bytes).map_err(bad)?.provenance else {
            return Ok(None);
        };
        let text = self.small(&repository, &layer).await?;
        String::from_utf8(text)
            .map(Some)
            .map_err(|_| bad("its provenance is not text".to_owned()))
    }
}

/// Writes a manifest under a tag or its digest.
///
/// docker-registry writes the small file that says which blobs a repository has in two steps, and
/// answers `DIGEST_INVALID` to a manifest that comes between them: when another publisher sends the
/// same blob. That passes.
async fn put_manifest(
    repository: &Repository,
    reference: &str,
    bytes: Vec<u8>,
) -> Result<(), Error> {
    for wait in [50, 200, 800] {
        match repository
            .push_manifest(reference, MANIFEST, bytes.clone())
            .await
        {
            Err(mlwm_storage::Error::Service { reason, .. })
                if reason.contains("DIGEST_INVALID") =>
            {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            put => return put.map(drop).map_err(Error::from),
        }
    }
    repository.push_manifest(reference, MANIFEST, bytes).await?;
    Ok(())
}

/// A manifest of one layer without a config of its own.
fn bare_manifest<const N: usize>(
    artifact_type: &str,
    layer: Descriptor,
    annotations: [(&str, String); N],
) -> Result<Vec<u8>, Error> {
    let manifest = manifest::Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: Some(artifact_type.to_owned()),
        config: Descriptor::of(EMPTY, EMPTY_CONFIG),
        layers: vec![layer],
        subject: None,
        annotations: annotations
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    };
    serde_json::to_vec(&manifest)
        .map_err(|error| Error::Broken(format!("a manifest cannot be written ({error})")))
}

/// Whether a tag is one of mlwm's own and no publication.
fn is_own_tag(tag: &str) -> bool {
    signatures::is_signature(tag) || claims::is_claim(tag)
}

#[cfg(test)]
mod tests {
    use super::signatures::signature_of;
    use super::*;

    #[test]
    fn own_tags_are_known_and_those_of_signatures_read_back() {
        let digest = Digest::of("zip");
        let tag = manifest::signature_tag(digest, "0123456789ABCDEF");
        assert!(tag.parse::<Tag>().is_ok() && is_own_tag(&tag));
        assert_eq!(signature_of(&tag), Some((digest, "0123456789ABCDEF")));
        for other in ["latest", "v1", "sha256", "claims"] {
            assert!(!is_own_tag(other), "{other}");
        }
        assert_eq!(signature_of("sha256-12.0123456789ABCDEF.minisig"), None);
    }
}

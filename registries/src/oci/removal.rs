//! Removing from an OCI registry (`docs/registries.md` §6): by the digest of a manifest, which takes all
//! its tags with it.

use std::collections::BTreeMap;
use std::time::Duration;

use mlwm_spec::{ArtifactName, Digest, Tag};
use mlwm_storage::oci::Repository;

use super::claims::{is_claim, is_claim_to};
use super::signatures::signature_of;
use super::{Oci, bare_manifest, put_manifest};
use crate::manifest::{Descriptor, EMPTY, EMPTY_CONFIG};
use crate::removal::{ClaimEntry, Inventory, ObjectEntry, RemovalPlan, SignatureEntry};
use crate::{Error, Publication};

/// The kind of manifest that a tag is given only to be removed.
const REMOVED_TYPE: &str = "application/vnd.mlwm.removed.v1";
/// Makes each of them another one.
const REMOVED: &str = "dev.mlwm.removed";

impl Oci {
    /// Everything of one name; of its claims those to `tag`.
    pub(crate) async fn inventory(
        &self,
        name: &ArtifactName,
        tag: Option<&Tag>,
    ) -> Result<Inventory, Error> {
        let publications = self.records(Some(name)).await?;
        let tags = self.repository(name.as_str())?.tags().await?;
        let objects: BTreeMap<String, ObjectEntry> = publications
            .iter()
            .map(|publication| {
                let entry = ObjectEntry {
                    size: publication.size,
                    age: Duration::ZERO,
                };
                (publication.object.clone(), entry)
            })
            .collect();
        let claims = tags.iter().filter(|claim| match tag {
            Some(tag) => is_claim_to(claim, tag),
            None => is_claim(claim),
        });
        let claims = claims.map(|claim| ClaimEntry {
            name: name.clone(),
            tag: tag.cloned().unwrap_or_else(Tag::latest),
            path: claim.clone(),
        });
        let signatures = tags.iter().filter_map(|tag| {
            let (digest, _) = signature_of(tag)?;
            Some(SignatureEntry {
                digest,
                age: Duration::ZERO,
                path: tag.clone(),
            })
        });
        Ok(Inventory {
            claims: claims.collect(),
            signatures: signatures.collect(),
            objects,
            publications,
        })
    }

    /// Removes what was planned.
    pub(crate) async fn carry_out(&self, plan: &RemovalPlan) -> Result<(), Error> {
        let Some(name) = &plan.name else {
            return Ok(());
        };
        let repository = self.repository(name.as_str())?;
        for publication in &plan.publications {
            self.remove_publication(&repository, publication, plan)
                .await?;
        }
        for tag in plan.claims.iter().chain(&plan.signatures) {
            self.remove_named(&repository, tag).await?;
        }
        Ok(())
    }

    async fn remove_publication(
        &self,
        repository: &Repository,
        publication: &Publication,
        plan: &RemovalPlan,
    ) -> Result<(), Error> {
        match publication.object.parse() {
            Ok(digest) if plan.objects.contains(&publication.object) => {
                self.delete(repository, &digest).await
            }
            _ => self.untag(repository, publication.tag.as_str()).await,
        }
    }

    /// Removes a tag, and leaves what other tags name too. Where the registry removes no single
    /// tag, the tag is given to a manifest of its own, and that is removed.
    async fn untag(&self, repository: &Repository, tag: &str) -> Result<(), Error> {
        if repository.delete_tag(tag).await.is_ok() {
            return Ok(());
        }
        let layer = || Descriptor::of(EMPTY, EMPTY_CONFIG);
        let unique = [(REMOVED, crate::random::text()?)];
        let manifest = bare_manifest(REMOVED_TYPE, layer(), unique)?;
        let digest = Digest::of(&manifest);
        repository.push_blob_bytes(EMPTY_CONFIG).await?;
        // Without a tag first: a registry that deletes nothing must not be left with a tag of it.
        let by_digest = digest.to_string();
        put_manifest(repository, &by_digest, manifest.clone()).await?;
        self.delete(repository, &digest).await?;
        put_manifest(repository, tag, manifest).await?;
        self.delete(repository, &digest).await
    }

    /// Removes the manifest that a tag names.
    async fn remove_named(&self, repository: &Repository, tag: &str) -> Result<(), Error> {
        match repository.manifest(tag).await? {
            Some(found) => self.delete(repository, &found.digest).await,
            None => Ok(()),
        }
    }

    async fn delete(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        repository
            .delete_manifest(digest)
            .await
            .map_err(|error| Error::NoDeletion {
                registry: repository.uri().to_string(),
                why: error.to_string(),
            })?;
        Ok(())
    }
}

//! Removing from an OCI registry (`docs/registries.md` §6): by the digest of a manifest, which takes
//! all its tags with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use mlwm_spec::{ArtifactName, Digest, Tag};
use mlwm_storage::oci::Repository;

use super::claims::{is_claim, is_claim_to};
use super::signatures::signature_of;
use super::{AT_ONCE, Oci, bare_manifest, is_own_tag, put_manifest};
use crate::listing::Listing;
use crate::manifest::{Descriptor, EMPTY, EMPTY_CONFIG};
use crate::removal::plan::{ClaimEntry, Inventory, ObjectEntry, SignatureEntry};
use crate::{Error, KeptObject, RemovalPlan};

/// The kind of manifest that a tag is given only to be removed.
const REMOVED_TYPE: &str = "application/vnd.mlwm.removed.v1";
/// Makes each of them another one.
const REMOVED: &str = "dev.mlwm.removed";

/// What the kind of a publication begins with, whichever version of it.
const ARTIFACT_TYPES: &str = "application/vnd.mlwm.inference-artifact.";

impl Oci {
    /// Everything, or what there is of one name; of its claims then those to `tag`.
    pub(crate) async fn inventory(
        &self,
        name: Option<&ArtifactName>,
        tag: Option<&Tag>,
    ) -> Result<Inventory, Error> {
        let listing = self.records(name).await?;
        let objects = listing.publications.iter().map(|publication| {
            let entry = ObjectEntry {
                size: publication.size,
                age: Duration::ZERO,
            };
            (publication.object.clone(), entry)
        });
        let mut inventory = Inventory {
            objects: objects.collect(),
            ..Inventory::default()
        };
        let names = match name {
            Some(name) => vec![name.clone()],
            None => self.names().await?,
        };
        for name in names {
            let known = listing.publications.iter().filter(|one| one.name == name);
            let known: Vec<&Tag> = known.map(|one| &one.tag).chain(tag).collect();
            for own in self.repository(name.as_str())?.tags().await? {
                let path = format!("{name}:{own}");
                if let Some((digest, _)) = signature_of(&own) {
                    inventory.signatures.push(SignatureEntry {
                        digest,
                        name: Some(name.clone()),
                        age: Duration::ZERO,
                        path,
                    });
                } else if is_claim(&own) {
                    let tag = known.iter().find(|tag| is_claim_to(&own, tag));
                    inventory.claims.push(ClaimEntry {
                        name: name.clone(),
                        tag: tag.map(|tag| (*tag).clone()),
                        path,
                    });
                }
            }
        }
        inventory.listing = listing;
        Ok(inventory)
    }

    /// Whether a tag names what mlwm has published, or a later mlwm.
    pub(super) async fn is_artifact(&self, name: &ArtifactName, tag: &Tag) -> Result<bool, Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            artifact_type: Option<String>,
        }
        let repository = self.repository(name.as_str())?;
        let Some(found) = repository.manifest(tag.as_str()).await? else {
            return Ok(false);
        };
        let kind: Option<Kind> = serde_json::from_slice(&found.bytes).ok();
        let kind = kind.and_then(|kind| kind.artifact_type);
        Ok(kind.is_some_and(|kind| kind.starts_with(ARTIFACT_TYPES)))
    }

    /// Removes what was planned.
    pub(crate) async fn carry_out(
        &self,
        plan: &RemovalPlan,
        removed: &mut RemovalPlan,
    ) -> Result<(), Error> {
        let publications = plan.publications.iter().map(|going| &going.name);
        let names: BTreeSet<&ArtifactName> = publications
            .chain(plan.faults.iter().map(|going| &going.name))
            .collect();
        for name in names {
            self.remove_publications(name, plan, removed).await?;
        }
        for claim in &plan.claims {
            self.remove_named(claim).await?;
            removed.claims.push(claim.clone());
        }
        self.remove_signatures(plan, removed).await
    }

    /// Removes the publications of one name: manifests that no other tag names, and the tags of
    /// the others.
    async fn remove_publications(
        &self,
        name: &ArtifactName,
        plan: &RemovalPlan,
        removed: &mut RemovalPlan,
    ) -> Result<(), Error> {
        let repository = self.repository(name.as_str())?;
        // A tag may have been given since the plan was made, and it would go with the manifest.
        let now = self.manifests(&repository).await?;
        let publications = plan.publications.iter().filter(|one| one.name == *name);
        let faults = plan.faults.iter().filter(|one| one.name == *name);
        let going: BTreeSet<&Tag> = publications
            .clone()
            .map(|one| &one.tag)
            .chain(faults.clone().map(|one| &one.tag))
            .collect();
        let staying = |digest: &Digest| {
            let tags = now
                .iter()
                .filter(|(tag, of)| *of == digest && !going.contains(tag));
            tags.map(|(tag, _)| tag.clone()).collect::<Vec<Tag>>()
        };
        let mut deleted = BTreeSet::new();
        for publication in publications {
            let tag = &publication.tag;
            if let Some(digest) = now.get(tag) {
                if digest.to_string() != publication.object {
                    return Err(Error::StillUsed {
                        what: self.named(name, tag),
                        why: "it was given to other content meanwhile".to_owned(),
                    });
                }
                let tags = staying(digest);
                if !tags.is_empty() {
                    self.untag(&repository, tag.as_str()).await?;
                    let object = publication.object.clone();
                    let kept = KeptObject { object, tags };
                    if !removed.kept.contains(&kept) {
                        removed.kept.push(kept);
                    }
                } else if deleted.insert(*digest) {
                    self.delete(&repository, digest).await?;
                    removed.objects.push(publication.object.clone());
                    removed.bytes += publication.size;
                }
            }
            removed.publications.push(publication.clone());
        }
        for fault in faults {
            if let Some(digest) = now.get(&fault.tag) {
                if !staying(digest).is_empty() {
                    self.untag(&repository, fault.tag.as_str()).await?;
                } else if deleted.insert(*digest) {
                    self.delete(&repository, digest).await?;
                    removed.objects.push(digest.to_string());
                }
            }
            removed.faults.push(fault.clone());
        }
        Ok(())
    }

    /// What the tags of a repository name, but for mlwm's own tags.
    async fn manifests(&self, repository: &Repository) -> Result<BTreeMap<Tag, Digest>, Error> {
        let tags = repository.tags().await?;
        let tags = tags.into_iter().filter(|tag| !is_own_tag(tag));
        let tags: Vec<Tag> = tags.filter_map(|tag| tag.parse().ok()).collect();
        let found: Vec<Option<(Tag, Digest)>> = stream::iter(tags)
            .map(|tag| async move {
                let found = repository.manifest(tag.as_str()).await?;
                Ok::<_, Error>(found.map(|found| (tag, found.digest)))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Removes signatures of contents that nothing of their name has any more. What cannot be read
    /// may have any.
    async fn remove_signatures(
        &self,
        plan: &RemovalPlan,
        removed: &mut RemovalPlan,
    ) -> Result<(), Error> {
        let mut left: BTreeMap<ArtifactName, Listing> = BTreeMap::new();
        for path in &plan.signatures {
            let Some((name, digest)) = named_signature(path) else {
                continue;
            };
            if !left.contains_key(&name) {
                let listing = self.records(Some(&name)).await?;
                left.insert(name.clone(), listing);
            }
            let needed = left.get(&name).is_some_and(|left| {
                let mut publications = left.publications.iter();
                !left.faults.is_empty() || publications.any(|one| one.digest == digest)
            });
            if !needed {
                self.remove_named(path).await?;
                removed.signatures.push(path.clone());
            }
        }
        Ok(())
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

    /// Removes the manifest that a tag of mlwm's own names, given as `<name>:<tag>`.
    async fn remove_named(&self, path: &str) -> Result<(), Error> {
        let Some((name, tag)) = path.split_once(':') else {
            return Ok(());
        };
        let repository = self.repository(name)?;
        match repository.manifest(tag).await? {
            Some(found) => self.delete(&repository, &found.digest).await,
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

/// Reads `<name>:<tag of a signature>`.
fn named_signature(path: &str) -> Option<(ArtifactName, Digest)> {
    let (name, tag) = path.split_once(':')?;
    let (digest, _) = signature_of(tag)?;
    Some((name.parse().ok()?, digest))
}

//! Claims as tags (`docs/registries.md` §4, §9): `claim.<tag>.<hex of digest>.<nonce>` with the first 16
//! digits of the tag's SHA-256. Many registries delete nothing, so a claim is withdrawn by a second
//! tag that begins with `withdrawn.` where it cannot be removed.

use std::time::Duration;

use mlwm_spec::{Digest, Tag};
use mlwm_storage::oci::Repository;

use super::{Oci, bare_manifest, put_manifest};
use crate::claims::{Claim, Place};
use crate::manifest::{Descriptor, EMPTY, EMPTY_CONFIG};
use crate::{Error, Publication};

const CLAIM: &str = "claim.";
const WITHDRAWN: &str = "withdrawn.";

/// The kind of manifest that such a tag names.
const CLAIM_TYPE: &str = "application/vnd.mlwm.claim.v1";
/// Makes the manifest of each claim another one.
const CLAIM_OF: &str = "dev.mlwm.claim";

/// How long other publishers are waited for before they are looked at again.
const SETTLE: Duration = Duration::from_millis(250);

/// Whether a tag is a claim, or the withdrawal of one.
pub(super) fn is_claim(tag: &str) -> bool {
    tag.starts_with(CLAIM) || tag.starts_with(WITHDRAWN)
}

/// Whether a tag is a claim to `tag`.
pub(super) fn is_claim_to(claim: &str, tag: &Tag) -> bool {
    let rest = claim.strip_prefix(CLAIM);
    let rest = rest.or_else(|| claim.strip_prefix(WITHDRAWN));
    rest.is_some_and(|rest| rest.starts_with(&short(tag)))
}

/// `<16 hex digits>.`
fn short(tag: &Tag) -> String {
    format!("{}.", &Digest::of(tag.as_str()).hex()[..16])
}

/// The tag of one publication, and the claims to it.
pub(super) struct TagPlace<'a> {
    registry: &'a Oci,
    repository: &'a Repository,
    publication: &'a Publication,
    manifest: Vec<u8>,
}

impl<'a> TagPlace<'a> {
    pub(super) fn new(
        registry: &'a Oci,
        repository: &'a Repository,
        publication: &'a Publication,
        manifest: Vec<u8>,
    ) -> Self {
        Self {
            registry,
            repository,
            publication,
            manifest,
        }
    }

    fn tag_of(&self, claim: &Claim, kind: &str) -> String {
        format!("{kind}{}{}", short(&self.publication.tag), claim.text())
    }

    async fn write_tag(&self, tag: &str) -> Result<(), Error> {
        self.repository.push_blob_bytes(EMPTY_CONFIG).await?;
        put_manifest(self.repository, tag, manifest_of(tag)?).await
    }

    async fn delete_claim(&self, claim: &Claim) -> Result<(), Error> {
        let manifest = manifest_of(&self.tag_of(claim, CLAIM))?;
        let digest = Digest::of(&manifest);
        self.repository.delete_manifest(&digest).await?;
        Ok(())
    }
}

/// The manifest that a claim's tag names: no two are the same, since removing one takes all its
/// tags with it.
fn manifest_of(tag: &str) -> Result<Vec<u8>, Error> {
    let layer = Descriptor::of(EMPTY, EMPTY_CONFIG);
    bare_manifest(CLAIM_TYPE, layer, [(CLAIM_OF, tag.to_owned())])
}

/// The claims among `tags` to the publication whose tag is `short`, but for the withdrawn ones.
fn live(tags: &[String], short: &str) -> Vec<Claim> {
    let of = |kind: &str| {
        let prefix = format!("{kind}{short}");
        let claims = tags
            .iter()
            .filter_map(move |tag| Claim::parse(tag.strip_prefix(&prefix)?));
        claims.collect::<Vec<_>>()
    };
    let withdrawn = of(WITHDRAWN);
    of(CLAIM)
        .into_iter()
        .filter(|claim| !withdrawn.contains(claim))
        .collect()
}

impl Place for TagPlace<'_> {
    fn publication(&self) -> String {
        let Publication { name, tag, .. } = self.publication;
        self.registry.named(name, tag)
    }

    async fn record(&self) -> Result<Option<Publication>, Error> {
        let Publication { name, tag, .. } = self.publication;
        self.registry.record(name, tag).await
    }

    async fn claims(&self) -> Result<Vec<Claim>, Error> {
        let tags = self.repository.tags().await?;
        Ok(live(&tags, &short(&self.publication.tag)))
    }

    async fn claim(&self, claim: &Claim) -> Result<(), Error> {
        self.write_tag(&self.tag_of(claim, CLAIM)).await
    }

    async fn withdraw(&self, claim: &Claim) -> Result<(), Error> {
        match self.delete_claim(claim).await {
            Ok(()) => Ok(()),
            Err(_) => self.write_tag(&self.tag_of(claim, WITHDRAWN)).await,
        }
    }

    async fn clear(&self, claim: &Claim) -> Result<(), Error> {
        // It does no harm where it stays.
        let _ = self.delete_claim(claim).await;
        Ok(())
    }

    async fn write(&self) -> Result<(), Error> {
        let tag = self.publication.tag.as_str();
        put_manifest(self.repository, tag, self.manifest.clone()).await
    }

    async fn settle(&self) -> Result<(), Error> {
        tokio::select! {
            () = self.registry.options.cancel.cancelled() => Err(Error::Interrupted),
            () = tokio::time::sleep(SETTLE) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_tags_that_are_read_back_until_they_are_withdrawn() {
        let longest: Tag = "t".repeat(128).parse().unwrap();
        let claim = Claim::new(Digest::of("zip")).unwrap();
        let tag = |kind: &str| format!("{kind}{}{}", short(&longest), claim.text());
        assert!(tag(WITHDRAWN).parse::<Tag>().is_ok(), "it fits into a tag");
        assert!(is_claim(&tag(CLAIM)) && is_claim_to(&tag(WITHDRAWN), &longest));
        assert!(!is_claim_to(&tag(CLAIM), &Tag::latest()));

        let mut tags = vec!["latest".to_owned(), tag(CLAIM)];
        assert_eq!(live(&tags, &short(&longest)), std::slice::from_ref(&claim));
        assert_eq!(live(&tags, &short(&Tag::latest())), []);
        tags.push(tag(WITHDRAWN));
        assert_eq!(live(&tags, &short(&longest)), []);
    }
}

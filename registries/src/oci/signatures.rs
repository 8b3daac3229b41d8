//! Signatures in an OCI registry (`docs/registries.md` §9): each a manifest whose subject is the
//! artifact's, with a tag that says of which zip and by which key it is.

use mlwm_spec::Digest;
use mlwm_storage::oci::Repository;

use super::{Oci, put_manifest};
use crate::manifest::{self, EMPTY_CONFIG, SignatureManifest};
use crate::policy::StoredSignature;
use crate::{Error, Publication};

/// What the tags of signatures begin and end with.
const PREFIX: &str = "sha256-";
const SUFFIX: &str = ".minisig";

/// Whether a tag may be that of a signature.
pub(super) fn is_signature(tag: &str) -> bool {
    tag.starts_with(PREFIX)
}

/// `sha256-<hex>.<key id>.minisig`
pub(super) fn signature_of(tag: &str) -> Option<(Digest, &str)> {
    let rest = tag.strip_prefix(PREFIX)?;
    let (hex, key_id) = rest.strip_suffix(SUFFIX)?.split_once('.')?;
    let digest = format!("sha256:{hex}").parse().ok()?;
    crate::record::is_key_id(key_id).then_some((digest, key_id))
}

impl Oci {
    pub(crate) async fn signatures(
        &self,
        publication: &Publication,
    ) -> Result<Vec<StoredSignature>, Error> {
        let repository = self.repository(publication.name.as_str())?;
        let mut signatures = Vec::new();
        for tag in repository.tags().await? {
            let Some((digest, key_id)) = signature_of(&tag) else {
                continue;
            };
            if digest != publication.digest {
                continue;
            }
            let Some(found) = repository.manifest(&tag).await? else {
                continue;
            };
            let bad = |why: String| Error::BadRecord {
                record: format!("{}:{tag}", repository.uri()),
                why,
            };
            let signature = SignatureManifest::parse(&found.bytes).map_err(bad)?;
            let text = self.small(&repository, &signature.minisig).await?;
            signatures.push(StoredSignature::read(key_id, text)?);
        }
        Ok(signatures)
    }

    pub(crate) async fn put_signatures(
        &self,
        publication: &Publication,
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        if signatures.is_empty() {
            return Ok(());
        }
        let repository = self.repository(publication.name.as_str())?;
        let subject = self.manifest_of(&repository, publication).await?;
        self.sign(&repository, publication, &subject, signatures)
            .await
    }

    pub(super) async fn sign(
        &self,
        repository: &Repository,
        publication: &Publication,
        subject: &[u8],
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        for signature in signatures {
            let text = signature.text.as_bytes();
            repository.push_blob_bytes(EMPTY_CONFIG).await?;
            repository.push_blob_bytes(text.to_vec()).await?;
            let tag = manifest::signature_tag(publication.digest, &signature.key_id);
            let bytes = manifest::signature(&publication.name, subject, text);
            put_manifest(repository, &tag, bytes).await?;
        }
        Ok(())
    }
}

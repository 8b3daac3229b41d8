//! A registry that speaks the OCI distribution protocol (`docs/registries.md` §9): each name is a
//! repository, each publication a manifest with its tag.

mod claims;
mod policy;
mod removal;
mod spans;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use mlwm_spec::{ArtifactName, Digest, Tag};
use mlwm_storage::oci::{self, OciUri, Repository};
use mlwm_storage::{ByteRange, Content, Expected, Journals, Progress, ProgressEvent};

use self::claims::TagPlace;
use self::spans::{Part, Whole, spans};
use crate::claims::{self as protocol, Outcome};
use crate::manifest::{
    self, ArtifactConfig, ArtifactManifest, Descriptor, EMPTY, EMPTY_CONFIG, MANIFEST,
    SignatureManifest, WholeZip,
};
use crate::policy::StoredSignature;
use crate::record::REGISTRY_VERSION;
use crate::registry::{RegistryOptions, blocking};
use crate::transfers::Ticket;
use crate::{Error, Publication};

/// The repository of the policy; no artifact can have this name.
const POLICY_REPOSITORY: &str = "registry-policy";

/// What the tags of signatures begin with.
const SIGNATURE_PREFIX: &str = "sha256-";
const SIGNATURE_SUFFIX: &str = ".minisig";

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
    /// The blobs of the zips that were sent or looked up, by name and digest of the zip.
    parts: Arc<Mutex<HashMap<(ArtifactName, Digest), Arc<[Part]>>>>,
}

impl Oci {
    pub(crate) fn new(root: OciUri, options: Arc<RegistryOptions>) -> Self {
        Self {
            root,
            options,
            repositories: Arc::default(),
            parts: Arc::default(),
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
        Err(Error::BadRecord {
            record: uri.to_string(),
            why: "this name is kept for the registry's policy: choose another with `--as`"
                .to_owned(),
        })
    }

    fn check_tag(&self, name: &ArtifactName, tag: &Tag) -> Result<(), Error> {
        match is_own_tag(tag.as_str()) {
            false => Ok(()),
            true => Err(Error::BadRecord {
                record: self.named(name, tag),
                why: "in an OCI registry such tags are kept for signatures and claims: choose another"
                    .to_owned(),
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
        self.keep_parts(name, manifest.zip.digest, &manifest.parts);
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

    /// All publications, or those of one name, ordered by name and tag. Manifests that are no
    /// artifacts are left out.
    pub(crate) async fn records(
        &self,
        name: Option<&ArtifactName>,
    ) -> Result<Vec<Publication>, Error> {
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
        let records: Vec<Option<Publication>> = stream::iter(wanted)
            .map(|(name, tag)| async move {
                match self.record(&name, &tag).await {
                    Err(Error::BadRecord { .. }) => Ok(None),
                    found => found,
                }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut records: Vec<Publication> = records.into_iter().flatten().collect();
        records.sort_by(|a, b| (&a.name, &a.tag).cmp(&(&b.name, &b.tag)));
        Ok(records)
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

    fn keep_parts(&self, name: &ArtifactName, zip: Digest, parts: &[Part]) {
        let mut kept = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert((name.clone(), zip), parts.into());
    }

    /// The blobs of a zip, if it was sent or looked up.
    fn kept_parts(&self, name: &ArtifactName, zip: Digest) -> Option<Arc<[Part]>> {
        let kept = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&(name.clone(), zip)).cloned()
    }

    /// The blobs of the zip of a publication.
    async fn parts(&self, publication: &Publication) -> Result<Arc<[Part]>, Error> {
        let (name, zip) = (&publication.name, publication.digest);
        if let Some(parts) = self.kept_parts(name, zip) {
            return Ok(parts);
        }
        let repository = self.repository(name.as_str())?;
        let bytes = self.manifest_of(&repository, publication).await?;
        let manifest = ArtifactManifest::parse(&bytes).map_err(|why| Error::BadRecord {
            record: self.named(name, &publication.tag),
            why,
        })?;
        self.keep_parts(name, zip, &manifest.parts);
        Ok(manifest.parts.into())
    }

    pub(crate) async fn range(
        &self,
        publication: &Publication,
        range: ByteRange,
    ) -> Result<Vec<u8>, Error> {
        let repository = self.repository(publication.name.as_str())?;
        let (mut start, mut left) = match range {
            ByteRange::From { start, length } => {
                (start, length.min(publication.size.saturating_sub(start)))
            }
            ByteRange::Last(count) => {
                let count = count.min(publication.size);
                (publication.size - count, count)
            }
        };
        let mut bytes = Vec::new();
        for (digest, size) in self.parts(publication).await?.iter() {
            if start >= *size {
                start -= size;
                continue;
            }
            let length = left.min(size - start);
            if length == 0 {
                break;
            }
            let range = ByteRange::From { start, length };
            bytes.extend_from_slice(&repository.read_blob_range(digest, range).await?.bytes);
            (start, left) = (0, left - length);
        }
        Ok(bytes)
    }

    pub(crate) async fn download(
        &self,
        publication: &Publication,
        destination: &Path,
    ) -> Result<(), Error> {
        let repository = self.repository(publication.name.as_str())?;
        let (progress, cancel) = (&self.options.progress, &self.options.cancel);
        let parts = self.parts(publication).await?;
        let expected = Expected {
            size: publication.size,
            digest: publication.digest,
        };
        Ok(repository
            .download_blobs(&parts, &expected, destination, progress, cancel)
            .await?)
    }

    /// Whether a zip of this size is sent in several parts.
    pub(crate) fn is_split(&self, size: u64) -> bool {
        spans(size, self.options.oci.chunk_bytes).len() > 1
    }

    /// Sends a zip, or what of it the registry has not. Gives its digest.
    pub(crate) async fn upload(
        &self,
        name: &ArtifactName,
        content: Arc<dyn Content>,
        known: Option<Digest>,
        journals: &Journals,
        ticket: &mut Ticket,
    ) -> Result<Digest, Error> {
        let repository = self.repository(name.as_str())?;
        let (progress, cancel) = (&self.options.progress, &self.options.cancel);
        let size = content.size();
        if let Some(zip) = known
            && let Some(parts) = self.kept_parts(name, zip)
            && self.are_there(&repository, &parts).await?
        {
            return Ok(zip);
        }
        if !self.is_split(size) {
            let zip = repository
                .upload_blob(content, known.as_ref(), journals, progress, cancel)
                .await?;
            self.keep_parts(name, zip, &[(zip, size)]);
            return Ok(zip);
        }
        let whole = Whole::of(content);
        let mut parts = Vec::new();
        for (index, (start, length)) in spans(size, self.options.oci.chunk_bytes)
            .into_iter()
            .enumerate()
        {
            let arrived = match ticket.state.parts.get(index) {
                Some(part) if self.are_there(&repository, &[(*part, length)]).await? => {
                    let span = whole.span(start, length);
                    let found = blocking(move || span.hash()).await?;
                    (found == *part).then_some(found)
                }
                _ => None,
            };
            let part = match arrived {
                Some(part) => part,
                None => {
                    let span = Arc::new(whole.span(start, length));
                    let progress = of_whole(progress, start, size);
                    repository
                        .upload_blob(span, None, journals, &progress, cancel)
                        .await?
                }
            };
            ticket.part_arrived(index, part)?;
            parts.push((part, length));
        }
        let zip = whole
            .digest()
            .ok_or_else(|| Error::Broken("a zip was not read to its end".to_owned()))?;
        self.keep_parts(name, zip, &parts);
        Ok(zip)
    }

    async fn are_there(&self, repository: &Repository, blobs: &[Part]) -> Result<bool, Error> {
        for (digest, size) in blobs {
            if repository.blob_size(digest).await? != Some(*size) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Publishes what has been uploaded: signatures, then the manifest under its tag. The manifest
    /// becomes the publication's object.
    pub(crate) async fn publish(
        &self,
        publication: &mut Publication,
        signatures: &[StoredSignature],
    ) -> Result<Outcome, Error> {
        let Publication { name, tag, .. } = &*publication;
        self.check_tag(name, tag)?;
        let repository = self.repository(name.as_str())?;
        let single: Arc<[Part]> = [(publication.digest, publication.size)].into();
        let parts = self.kept_parts(name, publication.digest).unwrap_or(single);
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
        self.check_tag(&publication.name, &publication.tag)?;
        let repository = self.repository(publication.name.as_str())?;
        let bytes = self.manifest_of(&repository, publication).await?;
        self.claim_and_write(&repository, publication, bytes).await
    }

    /// Gives the manifest of a publication the tag that it says, whatever has it now.
    pub(crate) async fn retag(&self, publication: &Publication) -> Result<(), Error> {
        self.check_tag(&publication.name, &publication.tag)?;
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

    async fn sign(
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

/// Shows how far one part has come as progress of the whole zip.
fn of_whole(progress: &Progress, start: u64, size: u64) -> Progress {
    let progress = progress.clone();
    Progress::new(move |event| {
        progress.report(ProgressEvent {
            done_bytes: start + event.done_bytes,
            total_bytes: size,
            ..event
        });
    })
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
    tag.starts_with(SIGNATURE_PREFIX) || claims::is_claim(tag)
}

/// `sha256-<hex>.<key id>.minisig`
fn signature_of(tag: &str) -> Option<(Digest, &str)> {
    let rest = tag.strip_prefix(SIGNATURE_PREFIX)?;
    let (hex, key_id) = rest.strip_suffix(SIGNATURE_SUFFIX)?.split_once('.')?;
    let digest = format!("sha256:{hex}").parse().ok()?;
    crate::record::is_key_id(key_id).then_some((digest, key_id))
}

#[cfg(test)]
mod tests {
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

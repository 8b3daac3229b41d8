//! A registry in a folder or a bucket (`docs/registries.md` §2).

mod removal;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use mlwm_spec::{ArtifactName, Digest, Tag};
use mlwm_storage::{ByteRange, Content, Expected, Journals, Listed, Store, Uri};
use tokio::sync::OnceCell;

use crate::claims::{self, Claim, Outcome, Place};
use crate::listing::{self, Found, Listing};
use crate::policy::StoredSignature;
use crate::record::{
    self, ARTIFACTS, Entry, REGISTRY_JSON, claims_path, object_path, record_path, signature_path,
    signatures_of,
};
use crate::registry::RegistryOptions;
use crate::removal::plan::ClaimEntry;
use crate::{Error, Publication};

/// A record with a provenance that is a whole training log, and room to spare.
const RECORD_LIMIT: u64 = 16 << 20;

/// Small objects that are read at once.
const AT_ONCE: usize = 16;

/// How long other publishers are waited for before they are looked at again.
const SETTLE: Duration = Duration::from_millis(250);

/// A registry in a folder or a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    store: Store,
    root: Uri,
    options: Arc<RegistryOptions>,
    /// Whether the store writes on condition that nothing is there.
    conditional: Arc<OnceCell<bool>>,
}

impl Objects {
    pub(crate) async fn open(root: Uri, options: Arc<RegistryOptions>) -> Result<Self, Error> {
        Ok(Self {
            store: Store::open_with(&root, options.storage.clone()).await?,
            root,
            options,
            conditional: Arc::new(OnceCell::new()),
        })
    }

    /// Fails if it is a folder that does not exist.
    pub(crate) fn check_folder(&self) -> Result<(), Error> {
        match self.root.local_path() {
            Some(path) if !path.is_dir() => Err(Error::NoFolder { path }),
            _ => Ok(()),
        }
    }

    fn at(&self, path: &str) -> Result<Uri, Error> {
        Ok(self.root.join(path)?)
    }

    async fn small(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.store.get(&self.at(path)?, RECORD_LIMIT).await?)
    }

    async fn listed(&self, path: &str) -> Result<Vec<Listed>, Error> {
        Ok(self.store.list(&self.at(path)?).await?)
    }

    pub(crate) async fn policy(&self) -> Result<Option<Vec<u8>>, Error> {
        self.small(REGISTRY_JSON).await
    }

    pub(crate) async fn put_policy(&self, bytes: Vec<u8>) -> Result<(), Error> {
        Ok(self.store.put(&self.at(REGISTRY_JSON)?, bytes).await?)
    }

    pub(crate) async fn record(
        &self,
        name: &ArtifactName,
        tag: &Tag,
    ) -> Result<Option<Publication>, Error> {
        let path = record_path(name, tag);
        let Some(bytes) = self.small(&path).await? else {
            return Ok(None);
        };
        let source = self.at(&path)?.to_string();
        Publication::parse(&bytes, name, tag, &source).map(Some)
    }

    /// All records, or those of one name.
    pub(crate) async fn records(&self, name: Option<&ArtifactName>) -> Result<Listing, Error> {
        Ok(self.records_and_claims(name).await?.0)
    }

    async fn records_and_claims(
        &self,
        name: Option<&ArtifactName>,
    ) -> Result<(Listing, Vec<ClaimEntry>), Error> {
        let (folder, prefix) = match name {
            None => (ARTIFACTS.to_owned(), String::new()),
            Some(name) => (record::records_of(name), format!("{name}/")),
        };
        let mut wanted = Vec::new();
        let mut claims = Vec::new();
        for listed in self.listed(&folder).await? {
            let path = format!("{prefix}{}", listed.path);
            match record::entry(&path) {
                Some(Entry::Record(name, tag)) => wanted.push((name, tag)),
                Some(Entry::Claim(name, tag)) => claims.push(ClaimEntry {
                    name,
                    tag: Some(tag),
                    path: format!("{ARTIFACTS}/{path}"),
                }),
                None => {}
            }
        }
        let records: Vec<Option<Found>> = stream::iter(wanted)
            .map(|(name, tag)| async move {
                listing::found(self.record(&name, &tag).await, &name, &tag)
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        // One that was removed since it was listed is none.
        Ok((records.into_iter().flatten().collect(), claims))
    }

    /// Where a new zip of this name is put.
    pub(crate) fn object(&self, name: &ArtifactName, key: &str) -> String {
        object_path(name, key)
    }

    /// The size of an object, if it is there.
    pub(crate) async fn object_size(&self, object: &str) -> Result<Option<u64>, Error> {
        let found = self.store.head(&self.at(object)?).await?;
        Ok(found.map(|found| found.size))
    }

    pub(crate) async fn upload(
        &self,
        object: &str,
        content: Arc<dyn Content>,
        journals: &Journals,
    ) -> Result<Digest, Error> {
        let (progress, cancel) = (&self.options.progress, &self.options.cancel);
        let target = self.at(object)?;
        Ok(self
            .store
            .upload_content(&target, content, journals, progress, cancel)
            .await?)
    }

    pub(crate) async fn range(&self, object: &str, range: ByteRange) -> Result<Vec<u8>, Error> {
        let place = self.at(object)?;
        match self.store.read_range(&place, range).await? {
            Some(part) => Ok(part.bytes.into()),
            None => Err(mlwm_storage::Error::NothingAt {
                uri: place.to_string(),
            }
            .into()),
        }
    }

    pub(crate) async fn download(
        &self,
        publication: &Publication,
        destination: &std::path::Path,
    ) -> Result<(), Error> {
        let expected = Expected {
            size: publication.size,
            digest: publication.digest,
        };
        let (progress, cancel) = (&self.options.progress, &self.options.cancel);
        let source = self.at(&publication.object)?;
        Ok(self
            .store
            .download(&source, &expected, destination, progress, cancel)
            .await?)
    }

    /// Removes objects by their paths below the registry.
    pub(crate) async fn remove(&self, paths: &[String]) -> Result<(), Error> {
        // Owned texts: a future of borrowed ones could not go to another thread.
        stream::iter(paths.to_vec())
            .map(|path| async move { Ok(self.store.remove(&self.at(&path)?).await?) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// The signatures of a content, the oldest first.
    pub(crate) async fn signatures(&self, digest: Digest) -> Result<Vec<StoredSignature>, Error> {
        let folder = signatures_of(digest);
        let mut signatures = Vec::new();
        let mut files = self.listed(&folder).await?;
        files.sort_by_key(|file| file.modified);
        for listed in files {
            let path = format!("{}/{}", digest.hex(), listed.path);
            let Some((_, key_id)) = record::signature_entry(&path) else {
                continue;
            };
            let Some(bytes) = self.small(&format!("{folder}/{}", listed.path)).await? else {
                continue;
            };
            signatures.push(StoredSignature::read(key_id, bytes)?);
        }
        Ok(signatures)
    }

    pub(crate) async fn put_signatures(
        &self,
        digest: Digest,
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        for signature in signatures {
            let place = self.at(&signature_path(digest, &signature.key_id))?;
            self.store
                .put(&place, signature.text.clone().into_bytes())
                .await?;
        }
        Ok(())
    }

    /// Writes the record of a new publication, unless there is one (§3), or where the store has no
    /// conditional write by claims (§4).
    pub(crate) async fn publish(&self, publication: &Publication) -> Result<Outcome, Error> {
        if !self.is_conditional().await? {
            let place = RecordPlace {
                registry: self,
                publication,
            };
            return claims::publish(&place, publication.digest).await;
        }
        let (name, tag) = (&publication.name, &publication.tag);
        let place = self.at(&record_path(name, tag))?;
        if self.store.create(&place, publication.to_json()?).await? {
            return Ok(Outcome::Written);
        }
        match self.record(name, tag).await? {
            Some(there) if there.digest == publication.digest => Ok(Outcome::Same(Box::new(there))),
            Some(there) => Err(Error::Conflict {
                publication: self.named(name, tag),
                theirs: there.digest,
                ours: publication.digest,
            }),
            None => Err(Error::BadRecord {
                record: place.to_string(),
                why: "it was removed while something was published under its name: run the same \
                      command again"
                    .to_owned(),
            }),
        }
    }

    /// Writes a record in place of the one that is there.
    pub(crate) async fn replace(&self, publication: &Publication) -> Result<(), Error> {
        let place = self.at(&record_path(&publication.name, &publication.tag))?;
        Ok(self.store.put(&place, publication.to_json()?).await?)
    }

    async fn is_conditional(&self) -> Result<bool, Error> {
        let found = self.conditional.get_or_try_init(|| async {
            let probe = self.at(&format!(".probe-{}", crate::random::text()?))?;
            Ok::<bool, Error>(self.store.has_conditional_create(&probe).await?)
        });
        Ok(*found.await?)
    }

    /// Whether objects that lost a race may be removed at once: where claims decide, another
    /// publisher of the same content may be about to name them.
    pub(crate) async fn may_discard(&self) -> Result<bool, Error> {
        self.is_conditional().await
    }

    fn named(&self, name: &ArtifactName, tag: &Tag) -> String {
        crate::registry::named(&self.root.to_string(), name, Some(tag))
    }
}

/// The record of one publication, and the claims to it.
struct RecordPlace<'a> {
    registry: &'a Objects,
    publication: &'a Publication,
}

impl RecordPlace<'_> {
    fn claims_folder(&self) -> String {
        claims_path(&self.publication.name, &self.publication.tag)
    }

    fn claim_place(&self, claim: &Claim) -> Result<Uri, Error> {
        self.registry
            .at(&format!("{}/{}", self.claims_folder(), claim.text()))
    }
}

impl Place for RecordPlace<'_> {
    fn publication(&self) -> String {
        self.registry
            .named(&self.publication.name, &self.publication.tag)
    }

    fn record(&self) -> impl Future<Output = Result<Option<Publication>, Error>> + Send {
        self.registry
            .record(&self.publication.name, &self.publication.tag)
    }

    async fn claims(&self) -> Result<Vec<Claim>, Error> {
        let listed = self.registry.listed(&self.claims_folder()).await?;
        Ok(listed
            .iter()
            .filter_map(|listed| Claim::parse(&listed.path))
            .collect())
    }

    async fn claim(&self, claim: &Claim) -> Result<(), Error> {
        let place = self.claim_place(claim)?;
        // Some stores list no objects without bytes.
        let store = &self.registry.store;
        Ok(store.put(&place, b"claimed\n".to_vec()).await?)
    }

    async fn withdraw(&self, claim: &Claim) -> Result<(), Error> {
        let place = self.claim_place(claim)?;
        Ok(self.registry.store.remove(&place).await?)
    }

    async fn write(&self) -> Result<(), Error> {
        self.registry.replace(self.publication).await
    }

    async fn clear(&self, claim: &Claim) -> Result<(), Error> {
        self.withdraw(claim).await
    }

    async fn settle(&self) -> Result<(), Error> {
        tokio::select! {
            () = self.registry.options.cancel.cancelled() => Err(Error::Interrupted),
            () = tokio::time::sleep(SETTLE) => Ok(()),
        }
    }
}

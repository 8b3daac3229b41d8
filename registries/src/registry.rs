//! A registry, whichever kind it is.

use std::path::PathBuf;
use std::sync::Arc;

use mlwm_artifacts::{Artifact, ReadAt};
use mlwm_spec::{ArtifactName, Digest, PublishedArtifact, Tag};
use mlwm_storage::oci::{OciOptions, OciUri};
use mlwm_storage::{ByteRange, Progress, Uri};
use tokio_util::sync::CancellationToken;

use crate::bundle::FromStart;
use crate::claims::Outcome;
use crate::listing::Listing;
use crate::objects::Objects;
use crate::oci::Oci;
use crate::policy::{Policy, StoredSignature, Trust};
use crate::remote::Remote;
use crate::signature::PublicKey;
use crate::stopping::{Stopping, unless_stopped};
use crate::transfers::Transfers;
use crate::{Error, Publication};

/// How a registry is used.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Where the state of interrupted transfers is kept; `None`: `mlwm/transfers` in
    /// `XDG_CACHE_HOME`, else in `~/.cache`.
    pub transfers: Option<PathBuf>,
    /// Who is told how far a transfer has come.
    pub progress: Progress,
    /// Calls off what is going on; the same call continues later.
    pub cancel: CancellationToken,
    /// How stores are used.
    pub storage: mlwm_storage::Options,
    /// How OCI registries are used.
    pub oci: OciOptions,
    /// Keys of this user: if there are any, one of them must have signed whatever is pushed or
    /// pulled, whatever the registry itself requires.
    pub trusted_keys: Vec<PublicKey>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            transfers: None,
            progress: Progress::none(),
            cancel: CancellationToken::new(),
            storage: mlwm_storage::Options::default(),
            oci: OciOptions::default(),
            trusted_keys: Vec::new(),
        }
    }
}

/// A registry of artifacts: a folder, a bucket or an OCI registry. Clones share connections.
#[derive(Clone, Debug)]
pub struct Registry {
    pub(crate) backend: Backend,
    pub(crate) options: Arc<RegistryOptions>,
    pub(crate) transfers: Transfers,
    uri: String,
}

/// Whether a tag is taken from the content that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagMove {
    /// Never.
    Never,
    /// If another tag of the name keeps that content.
    IfKept,
    /// Also if nothing names that content any more.
    EvenIfLost,
}

/// Where a registry keeps things.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Objects(Objects),
    Oci(Oci),
}

impl Backend {
    /// Part of the zip of a publication; one request.
    pub(crate) async fn range(
        &self,
        publication: &Publication,
        range: ByteRange,
    ) -> Result<Vec<u8>, Error> {
        match self {
            Self::Objects(objects) => objects.range(&publication.object, range).await,
            Self::Oci(oci) => oci.range(publication, range).await,
        }
    }
}

impl Registry {
    /// Opens the registry at `uri`: `s3://`, `gs://`, `oci://`, `file://` or a folder. It need not
    /// exist yet.
    pub async fn open(uri: &str, options: RegistryOptions) -> Result<Self, Error> {
        let options = Arc::new(options);
        let transfers = Transfers::at(options.transfers.as_deref());
        let (backend, uri) = match uri.starts_with("oci://") {
            true => {
                let root: OciUri = uri.parse()?;
                let uri = root.to_string();
                (Backend::Oci(Oci::new(root, Arc::clone(&options))), uri)
            }
            false => {
                let root: Uri = uri.parse()?;
                let uri = reference_text(&root);
                let objects = Objects::open(root, Arc::clone(&options)).await?;
                (Backend::Objects(objects), uri)
            }
        };
        Ok(Self {
            backend,
            options,
            transfers,
            uri,
        })
    }

    /// Opens the registry that a reference names, else `default`.
    pub async fn of(
        reference: &PublishedArtifact,
        default: Option<&str>,
        options: RegistryOptions,
    ) -> Result<Self, Error> {
        let uri = reference.registry.as_deref().or(default);
        let uri = uri.ok_or_else(|| Error::NoRegistry {
            reference: reference.to_string(),
        })?;
        Self::open(uri, options).await
    }

    /// Its URI, as it is written in references.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The publication of `name` with this tag (`latest` if there is none) and this content. With a
    /// digest and no tag: any publication of the name that has this content.
    pub async fn publication(
        &self,
        name: &ArtifactName,
        tag: Option<&Tag>,
        digest: Option<Digest>,
    ) -> Result<Publication, Error> {
        let latest = Tag::latest();
        let found = self.record(name, tag.unwrap_or(&latest)).await;
        match (found, digest) {
            (Ok(Some(found)), None) => Ok(found),
            (Ok(Some(found)), Some(pinned)) if found.digest == pinned => Ok(found),
            (Ok(Some(found)), Some(pinned)) if tag.is_some() => Err(Error::OtherDigest {
                publication: self.named(name, tag),
                found: found.digest,
                pinned,
            }),
            // Also if `latest` cannot be read: another tag may have the content.
            (read @ (Ok(_) | Err(Error::BadRecord { .. })), Some(pinned)) if tag.is_none() => {
                let all = self.list(Some(name)).await?;
                let with_content = all.into_iter().find(|other| other.digest == pinned);
                let not_found = || self.not_found(&format!("{name} with {pinned}"));
                with_content.ok_or_else(|| read.err().unwrap_or_else(not_found))
            }
            (Ok(_), _) => {
                self.check_folder()?;
                Err(self.not_found(&name_and_tag(name, tag)))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The publication that a reference leads to.
    pub async fn resolve(&self, reference: &PublishedArtifact) -> Result<Publication, Error> {
        let PublishedArtifact {
            name, tag, digest, ..
        } = reference;
        self.publication(name, tag.as_ref(), *digest).await
    }

    /// All publications that can be read, or those of one name, ordered by name and tag.
    pub async fn list(&self, name: Option<&ArtifactName>) -> Result<Vec<Publication>, Error> {
        Ok(self.listing(name).await?.publications)
    }

    /// All publications, or those of one name, and which of them cannot be read.
    pub async fn listing(&self, name: Option<&ArtifactName>) -> Result<Listing, Error> {
        self.check_folder()?;
        match &self.backend {
            Backend::Objects(objects) => objects.records(name).await,
            Backend::Oci(oci) => oci.records(name).await,
        }
    }

    /// Where, when and from what a publication was built, as YAML, if its registry knows.
    pub async fn provenance(&self, publication: &Publication) -> Result<Option<String>, Error> {
        match &self.backend {
            Backend::Objects(_) => Ok(publication.provenance.clone()),
            Backend::Oci(oci) => oci.provenance(publication).await,
        }
    }

    /// The zip of a publication, read in parts by request. Reading blocks, and belongs on a thread
    /// for blocking work.
    pub fn read_at(&self, publication: &Publication) -> Arc<dyn ReadAt> {
        Arc::new(Remote::new(self.backend.clone(), publication.clone()))
    }

    /// The artifact of a publication, without fetching it: its directory is read and compared with
    /// the record. Reading its files blocks, and belongs on a thread for blocking work.
    pub async fn artifact(&self, publication: &Publication) -> Result<Artifact, Error> {
        let source = self.read_at(publication);
        let path = self.named(&publication.name, Some(&publication.tag));
        let expected = publication.set_digest;
        blocking(move || {
            let artifact = Artifact::from_source(source, &path)?;
            match artifact.set_digest() {
                Some(found) if found == expected => Ok(artifact),
                _ => Err(Error::Damaged {
                    publication: path,
                    why: "its zip has other files than its record says".to_owned(),
                }),
            }
        })
        .await
    }

    /// Gives a publication another tag, if it is signed as the registry and this user require;
    /// `moving` says what happens if other content has it, which `latest` is never taken from.
    pub async fn tag(
        &self,
        publication: &Publication,
        tag: &Tag,
        moving: TagMove,
    ) -> Result<Publication, Error> {
        self.check_tag(tag)?;
        self.check_trust(publication).await?;
        let tagged = Publication {
            tag: tag.clone(),
            published_at: now(),
            ..publication.clone()
        };
        let there = self.record(&publication.name, tag).await?;
        let outcome = match &there {
            Some(there) if there.digest == publication.digest => return Ok(there.clone()),
            Some(there) => {
                self.check_move(there, moving).await?;
                match &self.backend {
                    Backend::Objects(objects) => objects.replace(&tagged).await?,
                    Backend::Oci(oci) => oci.retag(&tagged).await?,
                }
                Outcome::Written
            }
            None => match &self.backend {
                Backend::Objects(objects) => objects.publish(&tagged).await?,
                Backend::Oci(oci) => oci.tag(&tagged).await?,
            },
        };
        if let Outcome::Same(there) = outcome {
            return Ok(*there);
        }
        match &self.backend {
            Backend::Objects(objects) if !objects.still_there(&tagged, there.as_ref()).await? => {
                Err(Error::Damaged {
                    publication: self.named(&publication.name, Some(&publication.tag)),
                    why: format!("its zip is being removed, so `{tag}` was not given to it"),
                })
            }
            _ => Ok(tagged),
        }
    }

    /// Whether the tag of `there` may be given to other content.
    async fn check_move(&self, there: &Publication, moving: TagMove) -> Result<(), Error> {
        let refused = |hint| Error::TagTaken {
            publication: self.named(&there.name, Some(&there.tag)),
            theirs: there.digest,
            hint,
        };
        if there.tag.is_latest() {
            return Err(refused("`latest` never moves: choose another tag"));
        }
        if moving == TagMove::Never {
            return Err(refused("give `--move` to move it, or choose another tag"));
        }
        let all = self.list(Some(&there.name)).await?;
        let kept = |other: &Publication| other.tag != there.tag && other.digest == there.digest;
        match moving == TagMove::EvenIfLost || all.iter().any(kept) {
            true => Ok(()),
            false => Err(refused(
                "no other tag has this content: give it one first (`mlwm artifact tag`), or \
                 `--yes` to lose it",
            )),
        }
    }

    /// What the registry requires.
    pub async fn policy(&self) -> Result<Policy, Error> {
        self.check_folder()?;
        self.present_policy().await
    }

    /// The same of a registry that need not exist yet.
    async fn present_policy(&self) -> Result<Policy, Error> {
        let bytes = match &self.backend {
            Backend::Objects(objects) => objects.policy().await?,
            Backend::Oci(oci) => oci.policy().await?,
        };
        match bytes {
            Some(bytes) => Policy::parse(&bytes, &format!("the policy of {}", self.uri)),
            None => Ok(Policy::default()),
        }
    }

    /// Sets what the registry requires from now on.
    pub async fn set_policy(&self, policy: &Policy) -> Result<(), Error> {
        policy.keys("the new policy")?;
        let json = policy.to_json()?;
        match &self.backend {
            Backend::Objects(objects) => objects.put_policy(json).await,
            Backend::Oci(oci) => oci.put_policy(json).await,
        }
    }

    /// The signatures of a publication. They are not verified.
    pub async fn signatures(
        &self,
        publication: &Publication,
    ) -> Result<Vec<StoredSignature>, Error> {
        match &self.backend {
            Backend::Objects(objects) => objects.signatures(publication.digest).await,
            Backend::Oci(oci) => oci.signatures(publication).await,
        }
    }

    /// Adds the text of a `.minisig` file to the signatures of a publication, in place of one with
    /// the same key. One that says that it is of other content is refused; so is one by a key that
    /// the registry or this user requires, if it does not hold.
    pub async fn add_signature(&self, publication: &Publication, text: &str) -> Result<(), Error> {
        let signatures = [StoredSignature::parse(text, "the signature")?];
        self.check_new_of(publication, &signatures).await?;
        self.put_signatures(publication, &signatures).await
    }

    pub(crate) async fn put_signatures(
        &self,
        publication: &Publication,
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        match &self.backend {
            Backend::Objects(objects) => {
                objects.put_signatures(publication.digest, signatures).await
            }
            Backend::Oci(oci) => oci.put_signatures(publication, signatures).await,
        }
    }

    /// Refuses a publication that is not signed as the registry and this user require, as a pull
    /// does. If signatures are required, its zip is read to its end.
    pub async fn check_trust(&self, publication: &Publication) -> Result<(), Error> {
        let trust = self.trust().await?;
        if trust.is_empty() {
            return Ok(());
        }
        let signatures = self.signatures(publication).await?;
        let what = self.named(&publication.name, Some(&publication.tag));
        trust.expect(&what, &signatures)?;
        let (source, stop) = (self.read_at(publication), self.options.cancel.clone());
        blocking(move || {
            let open = || Ok(Stopping::new(FromStart::new(source.clone()), &stop));
            let checked = trust.check(&what, &signatures, open);
            unless_stopped(&stop, checked).map(drop)
        })
        .await
    }

    /// Refuses tags that an OCI registry keeps for other things.
    pub(crate) fn check_tag(&self, tag: &Tag) -> Result<(), Error> {
        match &self.backend {
            Backend::Objects(_) => Ok(()),
            Backend::Oci(_) => Oci::check_tag(tag),
        }
    }

    /// Whose signatures are needed.
    pub(crate) async fn trust(&self) -> Result<Trust, Error> {
        let mut trust = Trust::of_user(&self.options);
        let policy = self.present_policy().await?;
        trust.require(
            &self.uri,
            policy.keys(&format!("the policy of {}", self.uri))?,
        );
        Ok(trust)
    }

    pub(crate) async fn record(
        &self,
        name: &ArtifactName,
        tag: &Tag,
    ) -> Result<Option<Publication>, Error> {
        match &self.backend {
            Backend::Objects(objects) => objects.record(name, tag).await,
            Backend::Oci(oci) => oci.record(name, tag).await,
        }
    }

    pub(crate) fn named(&self, name: &ArtifactName, tag: Option<&Tag>) -> String {
        named(&self.uri, name, tag)
    }

    /// Fails if the registry is a folder that does not exist.
    fn check_folder(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Objects(objects) => objects.check_folder(),
            Backend::Oci(_) => Ok(()),
        }
    }

    pub(crate) fn not_found(&self, what: &str) -> Error {
        Error::NotFound {
            registry: self.uri.clone(),
            what: what.to_owned(),
        }
    }
}

/// The URI of a store as references write it: folders plainly.
fn reference_text(root: &Uri) -> String {
    match root.local_path() {
        Some(path) => path.display().to_string(),
        None => root.to_string(),
    }
}

/// Whether two texts name the same registry.
pub(crate) fn same_place(one: &str, other: &str) -> bool {
    let plain = |text: &str| match text.parse::<Uri>() {
        Ok(uri) => reference_text(&uri),
        // An OCI registry.
        Err(_) => text.trim_end_matches('/').to_ascii_lowercase(),
    };
    plain(one) == plain(other)
}

/// A publication for people; the tag that an absent tag means is left out.
pub(crate) fn named(registry: &str, name: &ArtifactName, tag: Option<&Tag>) -> String {
    let slash = if registry.ends_with('/') { "" } else { "/" };
    format!("{registry}{slash}{}", name_and_tag(name, tag))
}

pub(crate) fn name_and_tag(name: &ArtifactName, tag: Option<&Tag>) -> String {
    match tag {
        Some(tag) if !tag.is_latest() => format!("{name}:{tag}"),
        _ => name.to_string(),
    }
}

/// Does work that blocks on a thread for that.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Broken(error.to_string())),
    }
}

/// The time, UTC.
pub(crate) fn now() -> String {
    let seconds = nanoseconds() / 1_000_000_000;
    mlwm_spec::time::utc_text(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Nanoseconds since 1970-01-01.
pub(crate) fn nanoseconds() -> i128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i128::try_from(since.as_nanos()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_told_apart() {
        let here = std::env::current_dir().unwrap();
        for (one, other, same) in [
            ("s3://b/m", "s3://b/m/", true),
            ("s3://b/m", "s3://b/n", false),
            ("/a/b", "file:///a/b", true),
            ("models", here.join("models").to_str().unwrap(), true),
            ("oci://Host:5000/m", "oci://host:5000/m", true),
            ("oci://host/m", "oci://host/n", false),
        ] {
            assert_eq!(same_place(one, other), same, "{one} {other}");
        }
    }
}

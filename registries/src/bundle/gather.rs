//! What goes into a bundle, from where it is now.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use mlwm_artifacts::{Artifact, ReadAt};
use mlwm_spec::Tag;
use mlwm_storage::{Content, FileContent};

use super::source::FromStart;
use super::{BundledArtifact, Source};
use crate::policy::StoredSignature;
use crate::{CachedArtifact, Error, Publication, Registry};

impl Source {
    /// An artifact in a local zip, with its provenance and signatures where it has them. All of it is
    /// read and verified: blocks, and is to be called outside of async code.
    pub fn of_file(
        zip: &Path,
        tag: Tag,
        provenance: Option<String>,
        signatures: &[String],
    ) -> Result<Self, Error> {
        let content = FileContent::open(zip)?;
        let artifact = Artifact::open(zip)?;
        let verified = artifact.verify()?;
        let label = zip.display().to_string();
        let set_digest = artifact
            .set_digest()
            .ok_or_else(|| Error::NoHashes { zip: label.clone() })?;
        let source = format!("the signature of {label}");
        let signatures = signatures
            .iter()
            .map(|text| StoredSignature::parse(text, &source));
        Ok(Self {
            artifact: BundledArtifact {
                name: artifact.name().parse()?,
                tag,
                digest: verified.digest,
                size: artifact.size(),
                set_digest,
                files: artifact.files().len() as u64,
                provenance,
                signatures: by_key(signatures.collect::<Result<_, _>>()?),
            },
            zip: Arc::new(content),
        })
    }

    /// An artifact in the cache, with the provenance and the signatures that came with it. All of it
    /// is read and verified: blocks, and is to be called outside of async code.
    pub fn of_cached(cached: &CachedArtifact, tag: Tag) -> Result<Self, Error> {
        let zip = &cached.path;
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::local("read", path)(error)),
        };
        let provenance = read(&zip.with_extension("provenance.yaml"))?;
        let folder = zip.parent().unwrap_or(Path::new("."));
        let beside = format!("{}.zip.", cached.digest.hex());
        let mut signatures = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::local("read", folder))? {
            let entry = entry.map_err(Error::local("read", folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&beside) && name.ends_with(".minisig") {
                signatures.extend(read(&entry.path())?);
            }
        }
        let source = Self::of_file(zip, tag, provenance, &signatures)?;
        match source.artifact.digest == cached.digest {
            true => Ok(source),
            false => Err(cached.damaged()),
        }
    }

    /// A publication, with its provenance and signatures. Its zip is fetched by request while the
    /// bundle is written, without a copy on this machine, which must happen on the runtime that this
    /// is called on.
    pub async fn of_publication(
        registry: &Registry,
        publication: &Publication,
    ) -> Result<Self, Error> {
        let signatures = registry.signatures(publication).await?;
        let remote = RemoteContent {
            name: registry.named(&publication.name, Some(&publication.tag)),
            publication: publication.clone(),
            registry: registry.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        Ok(Self {
            artifact: BundledArtifact {
                name: publication.name.clone(),
                tag: publication.tag.clone(),
                digest: publication.digest,
                size: publication.size,
                set_digest: publication.set_digest,
                files: publication.files,
                provenance: registry.provenance(publication).await?,
                signatures: by_key(signatures),
            },
            zip: Arc::new(remote),
        })
    }
}

fn by_key(signatures: Vec<StoredSignature>) -> BTreeMap<String, String> {
    let pairs = signatures.into_iter();
    pairs.map(|found| (found.key_id, found.text)).collect()
}

/// The zip of a publication.
struct RemoteContent {
    name: String,
    publication: Publication,
    registry: Registry,
    runtime: tokio::runtime::Handle,
}

impl Content for RemoteContent {
    fn size(&self) -> u64 {
        self.publication.size
    }

    fn fingerprint(&self) -> String {
        format!("{} {}", self.name, self.publication.digest)
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let _inside = self.runtime.enter();
        let source: Arc<dyn ReadAt> = self.registry.read_at(&self.publication);
        Ok(Box::new(FromStart::new(source)))
    }
}

//! A registry, whichever kind it is.

use std::path::{Path, PathBuf};

use mlwm_spec::{ArtifactName, Digest, Tag};
use mlwm_storage::Progress;
use tokio_util::sync::CancellationToken;

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
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            transfers: None,
            progress: Progress::none(),
            cancel: CancellationToken::new(),
            storage: mlwm_storage::Options::default(),
        }
    }
}

/// What is to be published.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The zip.
    pub content: PushContent,
    /// The name it is published under, if that may differ from the artifact's own.
    pub publish_as: Option<ArtifactName>,
    /// The tag.
    pub tag: Tag,
    /// Where, when and from what it was built, as YAML.
    pub provenance: Option<String>,
    /// Detached minisign signatures of the zip.
    pub signatures: Vec<String>,
}

/// Where the bytes of the zip come from.
#[derive(Clone, Debug)]
pub enum PushContent {
    /// A zip on this machine.
    File(PathBuf),
}

/// What came of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The publication.
    pub publication: Publication,
    /// Whether this push made it; `false`: the same content was published before.
    pub new: bool,
}

/// What came of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The zip.
    pub zip: PathBuf,
    /// Its provenance, if the registry has one.
    pub provenance: Option<PathBuf>,
    /// Its signatures.
    pub signatures: Vec<PathBuf>,
}

/// A registry of artifacts.
#[derive(Clone, Debug)]
pub struct Registry {}

impl Registry {
    /// Opens the registry at `uri`: `s3://`, `gs://`, `oci://`, `file://` or a folder. It need not
    /// exist yet.
    pub async fn open(uri: &str, options: RegistryOptions) -> Result<Self, Error> {
        todo!("{uri} {options:?}")
    }
    /// Its URI, as it is written in references.
    pub fn uri(&self) -> &str {
        todo!()
    }
    /// The publication of `name` with this tag (`latest` if there is none) and this content. With a
    /// digest and no tag: any publication of the name that has this content.
    pub async fn publication(
        &self,
        name: &ArtifactName,
        tag: Option<&Tag>,
        digest: Option<Digest>,
    ) -> Result<Publication, Error> {
        todo!("{name} {tag:?} {digest:?}")
    }
    /// Publishes an artifact.
    pub async fn push(&self, request: PushRequest) -> Result<Pushed, Error> {
        todo!("{request:?}")
    }
    /// Brings the zip of a publication, its provenance and its signatures to `destination` (a file
    /// that ends in `.zip`, or a folder that gets `<name>.zip`), verified.
    pub async fn pull(
        &self,
        publication: &Publication,
        destination: &Path,
    ) -> Result<Pulled, Error> {
        todo!("{publication:?} {destination:?}")
    }
    /// All publications, or those of one name, ordered by name and tag.
    pub async fn list(&self, name: Option<&ArtifactName>) -> Result<Vec<Publication>, Error> {
        todo!("{name:?}")
    }
    /// Gives a publication another tag. `move_it`: also if the tag is there (never `latest`).
    pub async fn tag(
        &self,
        publication: &Publication,
        tag: &Tag,
        move_it: bool,
    ) -> Result<Publication, Error> {
        todo!("{publication:?} {tag} {move_it}")
    }
}

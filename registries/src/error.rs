//! Why something could not be done in a registry, the cache or a bundle.

use std::io;
use std::path::{Path, PathBuf};

use mlwm_spec::{Digest, ExitCode, LocalFailure};

use crate::RemovalPlan;

/// Why something could not be done in a registry, the cache or a bundle.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store or an OCI registry failed.
    #[error(transparent)]
    Storage(#[from] mlwm_storage::Error),
    /// An artifact cannot be read, or is not one.
    #[error(transparent)]
    Artifact(#[from] mlwm_artifacts::Error),
    /// A name, tag or reference is not one.
    #[error(transparent)]
    Reference(#[from] mlwm_spec::artifact_reference::InvalidReference),
    /// A bare name without a registry.
    #[error(
        "`{reference}` says no registry: write its URI in front (s3://bucket/models/{reference}), or set MLWM_REGISTRY"
    )]
    NoRegistry {
        /// The reference.
        reference: String,
    },
    /// Nowhere to keep caches.
    #[error(
        "neither XDG_CACHE_HOME nor HOME is an absolute path: set one, so that transfers can be continued and artifacts kept"
    )]
    NoCacheFolder,
    /// There is no such publication.
    #[error("{registry} has no {what}: `mlwm artifact list {registry}` shows what it has")]
    NotFound {
        /// URI of the registry.
        registry: String,
        /// Name, tag, digest.
        what: String,
    },
    /// There is no folder where a registry should be.
    #[error("there is no folder {path}, so no registry in it: check the path", path = path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A publication holds other content than the reference pins.
    #[error(
        "{publication} holds {found}, but the reference pins {pinned}: correct the pin, or the tag"
    )]
    OtherDigest {
        /// The publication.
        publication: String,
        /// What it holds.
        found: Digest,
        /// What was asked for.
        pinned: Digest,
    },
    /// A name is taken.
    #[error(
        "{publication} is published with other content ({theirs}, this is {ours}) and never changes: choose another tag or name; nothing was changed"
    )]
    Conflict {
        /// The publication.
        publication: String,
        /// What it holds.
        theirs: Digest,
        /// What was to be published.
        ours: Digest,
    },
    /// Somebody else is publishing other content under the name, or died doing so.
    #[error(
        "somebody else claims {publication} for other content ({theirs}, this is {ours}), so nothing was published: run the same command again; if it says so again and no `push` of the other is running any more, `mlwm artifact remove {publication} --claims-only` clears the claim"
    )]
    Claimed {
        /// The publication.
        publication: String,
        /// What the other one publishes.
        theirs: Digest,
        /// What was to be published.
        ours: Digest,
    },
    /// Only claims were to be removed, and there is more.
    #[error("{publication} is published: nothing waits for claims to it, and none were removed")]
    Published {
        /// The publication.
        publication: String,
    },
    /// Two publishers wrote one record, which the protocol excludes unless the store forgets.
    #[error(
        "{publication} was published by somebody else at the same time ({theirs}, this is {ours}): the store does not keep what was written before; compare both and `mlwm artifact remove {publication}`"
    )]
    Overtaken {
        /// The publication.
        publication: String,
        /// What it holds, or what is claimed.
        theirs: Digest,
        /// What was to be published.
        ours: Digest,
    },
    /// `latest` cannot be moved, other tags only on request.
    #[error("{publication} is {theirs}: {hint}")]
    TagTaken {
        /// The publication.
        publication: String,
        /// What it holds.
        theirs: Digest,
        /// What can be done.
        hint: &'static str,
    },
    /// An artifact that records no hashes.
    #[error(
        "{zip} records no hashes of its files, so nobody could verify it: build it again with `mlwm artifact build` from its training run"
    )]
    NoHashes {
        /// The zip.
        zip: String,
    },
    /// What was sent is not what was to be.
    #[error(
        "{zip} should have the digest {expected}, but {sent} was sent: it was changed, or is damaged; nothing was published"
    )]
    Changed {
        /// The zip.
        zip: String,
        /// What it was said to be.
        expected: Digest,
        /// What was sent.
        sent: Digest,
    },
    /// A record, policy or manifest that cannot be understood.
    #[error("{record} cannot be used: {why}")]
    BadRecord {
        /// The record.
        record: String,
        /// Why not.
        why: String,
    },
    /// The registry lost the zip of a publication, or it was exchanged.
    #[error("{publication} is damaged in its registry: {why}; push the same artifact again")]
    Damaged {
        /// The publication.
        publication: String,
        /// What is wrong.
        why: String,
    },
    /// A signature is required.
    #[error(
        "{what} has no valid signature by a key that {who} requires ({keys}): sign it with `mlwm artifact sign`, or ask who keeps the key"
    )]
    Unsigned {
        /// The artifact.
        what: String,
        /// Who requires it.
        who: String,
        /// Ids of the keys that are accepted.
        keys: String,
    },
    /// A public key or a signature cannot be read or is wrong.
    #[error("{what}: {why}")]
    Signature {
        /// The key or signature.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// Something must not be removed.
    #[error("{what} is not removed: {why}")]
    StillUsed {
        /// The publication.
        what: String,
        /// Who uses it.
        why: String,
    },
    /// Removing it would lose the content.
    #[error(
        "removing {what} takes the only publication of {digests} out of this registry: give `--yes` to lose it"
    )]
    OnlyCopy {
        /// The publication.
        what: String,
        /// The content.
        digests: String,
    },
    /// Removing it might lose the content, which is unknown.
    #[error(
        "{publication} may be the only publication of its content, which nobody can read ({why}): give `--yes` to lose it"
    )]
    UnknownContent {
        /// The publication.
        publication: String,
        /// Why not.
        why: String,
    },
    /// A removal broke off.
    #[error("{source}; a part has been removed")]
    RemovedInPart {
        /// What has been removed.
        removed: Box<RemovalPlan>,
        /// Why not all.
        source: Box<Self>,
    },
    /// An OCI registry does not delete.
    #[error(
        "{registry} does not delete ({why}): allow it there (docker-registry: `storage.delete.enabled: true`), or remove the tag by its own means"
    )]
    NoDeletion {
        /// URI of the registry.
        registry: String,
        /// What it said.
        why: String,
    },
    /// A local file could not be used.
    #[error("{}", LocalFailure { action, path, source })]
    Local {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An artifact in the cache has changed.
    #[error(
        "{path} in the cache is damaged: it is not {digest} any more; `mlwm cache remove {digest}` removes it, and it is fetched again when it is needed",
        path = path.display()
    )]
    DamagedInCache {
        /// The zip.
        path: PathBuf,
        /// What it should be.
        digest: Digest,
    },
    /// An artifact is another one than it was a moment ago.
    #[error(
        "artifact {path} is {found} now, and was {expected} when it was looked at: run the same command again if it was replaced just now, else fetch or build it again",
        path = path.display()
    )]
    Replaced {
        /// The zip.
        path: PathBuf,
        /// What it was.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Another file is at the destination.
    #[error(
        "{path} is already there and is not {expected}: choose another file, or remove it",
        path = path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// What was to be written there.
        expected: String,
    },
    /// A bundle that is damaged or made to deceive.
    #[error("{bundle} cannot be used: {why}")]
    BadBundle {
        /// The bundle, or the part of it.
        bundle: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A zip or a layer that goes into a bundle could not be read.
    #[error("cannot read {what}, so no bundle was written: {source}")]
    Unreadable {
        /// The zip or layer, and of what it is.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A zip or a layer that goes into a bundle is not what it should be.
    #[error(
        "{what} has the digest {found}, not {expected}, so no bundle was written: it is damaged, fetch or build it again"
    )]
    NotBundled {
        /// The zip or layer, and of what it is.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Stopped on request.
    #[error("interrupted: the same command continues")]
    Interrupted,
    /// A name or tag that is kept for other things.
    #[error("{what} cannot be published: {why}")]
    Reserved {
        /// The name or tag.
        what: String,
        /// What it is kept for.
        why: &'static str,
    },
    /// The folder of what is cached, or continued, cannot be used.
    #[error(
        "cannot create the folder {path} for what is cached and continued ({source}): set XDG_CACHE_HOME to a folder you may write to",
        path = path.display()
    )]
    CacheFolder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A part of mlwm broke.
    #[error("a task of mlwm ended unexpectedly: {0}")]
    Broken(String),
}

/// Why a request failed that an artifact in a registry was read by.
fn requested(error: &mlwm_artifacts::Error) -> Option<&Error> {
    match error {
        mlwm_artifacts::Error::Io { source, .. } => source.get_ref()?.downcast_ref(),
        _ => None,
    }
}

impl Error {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Storage(error) => error.exit_code(),
            Self::RemovedInPart { source, .. } => source.exit_code(),
            Self::Artifact(error) => match requested(error) {
                Some(failed) => failed.exit_code(),
                None => error.exit_code(),
            },
            Self::Reference(_) | Self::NoRegistry { .. } | Self::Reserved { .. } => ExitCode::Usage,
            Self::NoCacheFolder => ExitCode::BadConfiguration,
            Self::NotFound { .. } | Self::NoFolder { .. } => ExitCode::InputMissing,
            Self::OtherDigest { .. }
            | Self::NoHashes { .. }
            | Self::Changed { .. }
            | Self::BadRecord { .. }
            | Self::Damaged { .. }
            | Self::DamagedInCache { .. }
            | Self::Replaced { .. }
            | Self::Unsigned { .. }
            | Self::Signature { .. }
            | Self::NotBundled { .. }
            | Self::BadBundle { .. } => ExitCode::ArtifactMismatch,
            Self::Conflict { .. }
            | Self::Claimed { .. }
            | Self::Published { .. }
            | Self::Overtaken { .. }
            | Self::TagTaken { .. }
            | Self::StillUsed { .. }
            | Self::OnlyCopy { .. }
            | Self::UnknownContent { .. }
            | Self::InTheWay { .. } => ExitCode::Conflict,
            Self::NoDeletion { .. } | Self::CacheFolder { .. } => ExitCode::StorageFailed,
            Self::Local {
                action,
                path,
                source,
            } => LocalFailure {
                action,
                path,
                source,
            }
            .exit_code(),
            Self::Unreadable { source, .. } => {
                let inner = source.get_ref().and_then(|inner| inner.downcast_ref());
                inner.map_or(ExitCode::Failed, mlwm_storage::Error::exit_code)
            }
            Self::Broken(_) => ExitCode::Failed,
            Self::Interrupted => ExitCode::Interrupted,
        }
    }

    /// The error for the folder of what is cached or continued.
    pub(crate) fn cache_folder(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::CacheFolder { path, source }
    }

    /// The error for a local file operation.
    pub(crate) fn local(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local {
            action,
            path,
            source,
        }
    }
}

//! What can go wrong in building an image.

use std::io;
use std::path::PathBuf;

use mlwm_spec::{Digest, ExitCode, LocalFailure};

/// A fault of an image's parts, or of building it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] mlwm_engines::Error),
    /// The artifact.
    #[error(transparent)]
    Artifact(#[from] mlwm_artifacts::Error),
    /// The base image is another one than when planned.
    #[error(
        "`{base}` names another image now than when the build of `{reference}` was planned: run the same command again"
    )]
    BaseChanged {
        /// The base.
        base: String,
        /// The image to build.
        reference: String,
    },
    /// A configuration whose name cannot be that of an image.
    #[error(
        "an image cannot be named after the configuration `{0}`: use lower-case letters, digits and single `-`, `_` or `.` between them, or name the image as `docker_image`"
    )]
    Name(String),
    /// A part of the runner that cannot be read.
    #[error(
        "cannot read {}, a part of the runner: {source}; build it with `cargo build --release -p mlwm-runner`, or fetch it with `ci/setup`",
        path.display()
    )]
    Runner {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A part of the runner for another kind of machine than the image.
    #[error(
        "{} runs on {has}, and the image is for {wanted}: give the runner and ONNX Runtime for {wanted} with `--runner` and `--onnxruntime`",
        path.display()
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// What it is for.
        has: String,
        /// What the base is for.
        wanted: String,
    },
    /// A member of the artifact that cannot be read, or is not what the artifact recorded.
    #[error("cannot put {member} into an image: {source}")]
    Member {
        /// The member.
        member: String,
        /// Why not.
        source: io::Error,
    },
    /// Two parts of the runner with one name.
    #[error("two libraries of the runner are both called `{0}`: pass one")]
    SameName(String),
    /// A store or a registry.
    #[error(transparent)]
    Storage(#[from] mlwm_storage::Error),
    /// A text that names no image.
    #[error("`{reference}` names no image: {why}")]
    Reference {
        /// The text.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// An image that cannot be used.
    #[error("the image {image} cannot be used: {why}")]
    BadImage {
        /// The image.
        image: String,
        /// Why not.
        why: String,
    },
    /// A path that no archive can hold.
    #[error("{path} cannot be put into an image: {source}")]
    Entry {
        /// The path in the image.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A layer that cannot be read.
    #[error("layer {layer} of the image cannot be read: {source}")]
    Layer {
        /// Its digest, or what its digest follows from.
        layer: Digest,
        /// Why not.
        source: io::Error,
    },
    /// A layer that is not what its image says, or not what it was.
    #[error(
        "a layer that should have the digest {expected} has {found}: fetch the image that it is of again"
    )]
    LayerChanged {
        /// What it should have.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
    /// The archive for an engine could not be made.
    #[error("cannot make the archive of `{reference}` for the engine: {source}")]
    Archive {
        /// The image.
        reference: String,
        /// Why not.
        source: io::Error,
    },
    /// The engine took an image and has it not.
    #[error("the engine has not the image `{reference}` that it was given: look at its log")]
    NotLoaded {
        /// The image.
        reference: String,
    },
    /// What looks like secrets is in an image that would be given away.
    #[error(
        "the image of `{configuration}` was not sent, since it may hold secrets: {}; take them out, or allow each with `--allow-secret PLACE`, which is recorded in the image",
        found.iter().map(|found| format!("{} ({})", found.place, found.what)).collect::<Vec<_>>().join(", ")
    )]
    Secrets {
        /// The configuration.
        configuration: String,
        /// What was found.
        found: Vec<crate::Finding>,
    },
    /// What looks like secrets is in an image that was made before.
    #[error(
        "{image} was not sent, since it may hold secrets: {}; build it again without them, or allow each with `mlwm image build --allow-secret PLACE`, which is recorded in the image",
        found.iter().map(|found| format!("{} ({})", found.place, found.what)).collect::<Vec<_>>().join(", ")
    )]
    MadeWithSecrets {
        /// The image.
        image: String,
        /// What was found.
        found: Vec<crate::Finding>,
    },
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] mlwm_registries::Error),
    /// A file that does not belong into the build context of a `Containerfile`.
    #[error("{} cannot go into the build of the environment: {why}", path.display())]
    Context {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A secret that the steps of a `Containerfile` read and that was not given.
    #[error(
        "the environment `{reference}` needs the secret `{id}` to be built: give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"
    )]
    NoSecret {
        /// The environment.
        reference: String,
        /// What the `Containerfile` calls the secret.
        id: String,
    },
    /// A lock file that cannot be read.
    #[error(transparent)]
    Lock(#[from] mlwm_spec::yaml::YamlError),
    /// A lock file of another version of mlwm.
    #[error("{} has version {version}, which this mlwm does not know: use a newer mlwm", path.display())]
    LockVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Something is not what it is locked to.
    #[error(
        "{} locks {what} to {locked}, and it is {found} now: look why, then run `mlwm image lock` to lock it anew",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The part.
        what: String,
        /// What is locked.
        locked: String,
        /// What was found.
        found: String,
    },
    /// A file of this machine.
    #[error("{}", LocalFailure { action, path, source })]
    Local {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A part of mlwm that does not work.
    #[error("a task of mlwm ended unexpectedly: {0}; please report this")]
    Broken(String),
}

impl Error {
    /// The exit code that this error ends a command with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Engine(error) => error.exit_code(),
            Self::Artifact(error) => error.exit_code(),
            Self::Name(_) => ExitCode::BadConfiguration,
            Self::Member { .. } => ExitCode::ArtifactMismatch,
            Self::Layer { source, .. }
            | Self::Storage(mlwm_storage::Error::Content { source, .. }) => of_source(source),
            Self::BadImage { .. }
            | Self::LayerChanged { .. }
            | Self::Storage(mlwm_storage::Error::NotExpected { .. }) => ExitCode::ImageMissing,
            Self::Storage(error) => error.exit_code(),
            Self::Bundle(error) => error.exit_code(),
            Self::NoSecret { .. } | Self::OtherMachine { .. } => ExitCode::Usage,
            Self::Secrets { .. } | Self::MadeWithSecrets { .. } => ExitCode::Conflict,
            Self::Reference { .. }
            | Self::Context { .. }
            | Self::Lock(_)
            | Self::LockVersion { .. } => ExitCode::BadConfiguration,
            Self::Locked { .. } => ExitCode::ArtifactMismatch,
            Self::BaseChanged { .. }
            | Self::Runner { .. }
            | Self::SameName(_)
            | Self::Entry { .. }
            | Self::Archive { .. }
            | Self::NotLoaded { .. }
            | Self::Broken(_) => ExitCode::Failed,
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
        }
    }

    /// The error for a local file operation, or that of what should have been written to the file.
    pub(crate) fn local(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            source.downcast().unwrap_or_else(|source| Self::Local {
                action,
                path,
                source,
            })
        }
    }
}

/// The exit code for what could not be read: the artifact or the registry that it lies in may be to
/// blame.
fn of_source(error: &io::Error) -> ExitCode {
    let Some(inner) = error.get_ref() else {
        return ExitCode::Failed;
    };
    match inner.downcast_ref::<mlwm_storage::Error>() {
        Some(error) => error.exit_code(),
        None if inner.is::<mlwm_artifacts::Error>() => ExitCode::ArtifactMismatch,
        None => ExitCode::Failed,
    }
}

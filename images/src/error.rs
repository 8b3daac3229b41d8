//! What can go wrong in building an image.

use std::io;
use std::path::PathBuf;

use mlwm_spec::ExitCode;

/// A fault of an image's parts, or of building it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] mlwm_engines::Error),
    /// The artifact.
    #[error(transparent)]
    Artifact(#[from] mlwm_artifacts::Error),
    /// The base image is not in the engine.
    #[error(
        "the engine has no base image `{base}`, which `{reference}` is to be built on: fetch it with `docker pull {base}`, make it with `ci/setup`, or name another one as `base_image`"
    )]
    BaseMissing {
        /// The base.
        base: String,
        /// The image to build.
        reference: String,
    },
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
    /// A file that is another one than when planned.
    #[error("{what} changed while `{reference}` was built: run the same command again")]
    Changed {
        /// The file.
        what: String,
        /// The image to build.
        reference: String,
    },
    /// The context could not be written.
    #[error("cannot make the build context of `{reference}`: {source}")]
    Context {
        /// The image to build.
        reference: String,
        /// Why not.
        source: io::Error,
    },
    /// The engine built an image without the labels asked for.
    #[error(
        "the engine built `{reference}` without the label `{label}`: its builder cannot be used"
    )]
    Label {
        /// The image.
        reference: String,
        /// The label.
        label: String,
    },
}

impl Error {
    /// The exit code that this error ends a command with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Engine(error) => error.exit_code(),
            Self::Artifact(error) => error.exit_code(),
            Self::BaseMissing { .. } => ExitCode::ImageMissing,
            Self::Name(_) => ExitCode::BadConfiguration,
            Self::Member { .. } => ExitCode::ArtifactMismatch,
            Self::BaseChanged { .. }
            | Self::Runner { .. }
            | Self::SameName(_)
            | Self::Changed { .. }
            | Self::Context { .. }
            | Self::Label { .. } => ExitCode::Failed,
        }
    }
}

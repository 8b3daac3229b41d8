//! What can go wrong between mlwm and a container engine.

use std::fmt;
use std::io;
use std::path::PathBuf;

use mlwm_spec::ExitCode;

/// A fault of the engine, of a request to it, or of the way to it.
///
/// A container that ends with another exit code than 0 is not an error here: see
/// [`crate::Ended`]. No message holds the value of an environment variable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No engine answered at any of the places tried.
    #[error(
        "no container engine answers ({}): start one with `systemctl start docker` or `systemctl --user start podman.socket`, or name it in DOCKER_HOST",
        list(.0)
    )]
    Unreachable(Vec<Attempt>),
    /// An address, or another setting of an engine, that mlwm cannot use.
    #[error("{variable} is `{host}`, which mlwm cannot use: {reason}")]
    Host {
        /// The environment variable that holds it.
        variable: &'static str,
        /// Its value.
        host: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// An engine older than the API that mlwm speaks.
    #[error(
        "the engine at {endpoint} speaks API version {version}, mlwm needs 1.40 or later: upgrade to Docker 19.03 or Podman 3 at least"
    )]
    TooOld {
        /// The engine.
        endpoint: String,
        /// Its API version.
        version: String,
    },
    /// An image that the engine does not have.
    #[error(
        "the engine has no image `{reference}`: build it with `mlwm image build`, or fetch it with `docker pull {reference}`"
    )]
    ImageMissing {
        /// The image.
        reference: String,
    },
    /// A file or folder to mount that is not there.
    #[error("cannot mount {} at `{target}`: {source}", path.display())]
    MountSource {
        /// On the host.
        path: PathBuf,
        /// In the container.
        target: String,
        /// Why not.
        source: io::Error,
    },
    /// A request that no engine could carry out.
    #[error("container `{name}` cannot be run: {reason}")]
    Request {
        /// Name of the container.
        name: String,
        /// What is wrong with the request.
        reason: String,
    },
    /// GPUs that the engine cannot give to a container.
    #[error("container `{name}` asks for GPUs ({wanted}), which the engine cannot give: {reason}")]
    Gpus {
        /// Name of the container.
        name: String,
        /// The GPUs.
        wanted: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A container of this name is there already.
    #[error(
        "a container named `{name}` exists already: another mlwm runs the same task, or it was killed; stop it, or remove it with `docker rm -f {name}`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The engine could not start the container's command.
    #[error("container `{name}` could not be started from image `{image}`: {message}")]
    Start {
        /// Name of the container.
        name: String,
        /// Its image.
        image: String,
        /// What the engine said.
        message: String,
    },
    /// Cancelled before anything ran.
    #[error("container `{name}` was cancelled before it started")]
    Cancelled {
        /// Name of the container.
        name: String,
    },
    /// The engine answered, but refused or failed.
    #[error("the engine could not {action}: {message}")]
    Refused {
        /// What it was asked to do, as `list containers`.
        action: String,
        /// What it said.
        message: String,
    },
    /// The engine stopped answering.
    #[error("lost the engine while it was to {action}: {source}; see `systemctl status docker`")]
    Lost {
        /// What it was asked to do.
        action: String,
        /// Why.
        source: Box<bollard::errors::Error>,
    },
    /// A container that cannot be killed.
    #[error(
        "container `{name}` does not end, although it was killed: one of its processes waits in the kernel for a disk, a network file system or a GPU that does not answer; find it with `ps` (state D), repair what it waits for or restart this machine, and remove it with `docker rm -f {name}`"
    )]
    Undead {
        /// Its name.
        name: String,
    },
    /// A container that was ended by a signal while the engine was away.
    #[error(
        "container `{name}` ended with exit code {exit_code} while the engine was away, which may have killed it; see `systemctl status docker`"
    )]
    Away {
        /// Name of the container.
        name: String,
        /// How it ended.
        exit_code: i64,
    },
    /// What is given as a secret of a build.
    #[error("the secret `{given}` cannot be used: {reason}")]
    Secret {
        /// What was given, without a value.
        given: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// An image that could not be built.
    #[error("image `{tag}` could not be built: {message}")]
    Build {
        /// Its reference.
        tag: String,
        /// What the engine said.
        message: String,
    },
}

impl Error {
    /// The exit code that this error ends a command with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreachable(_)
            | Self::TooOld { .. }
            | Self::Gpus { .. }
            | Self::Refused { .. }
            | Self::Lost { .. }
            | Self::Away { .. } => ExitCode::EngineUnavailable,
            Self::Host { .. } | Self::Secret { .. } => ExitCode::Usage,
            Self::Request { .. } => ExitCode::BadConfiguration,
            Self::ImageMissing { .. } => ExitCode::ImageMissing,
            Self::MountSource { .. } => ExitCode::InputMissing,
            Self::Start { .. } | Self::Undead { .. } => ExitCode::ContainerFailed,
            Self::Cancelled { .. } => ExitCode::Interrupted,
            Self::NameTaken { .. } | Self::Build { .. } => ExitCode::Failed,
        }
    }

    /// What the engine's answer to `action` means.
    pub(crate) fn from_engine(action: impl Into<String>, error: bollard::errors::Error) -> Self {
        let action = action.into();
        match error {
            bollard::errors::Error::DockerResponseServerError { message, .. }
            | bollard::errors::Error::DockerStreamError { error: message } => Self::Refused {
                action,
                message: one_line(&message),
            },
            source => Self::Lost {
                action,
                source: Box::new(source),
            },
        }
    }
}

/// One place where an engine was looked for.
#[derive(Debug)]
pub struct Attempt {
    /// The place, as `/var/run/docker.sock` or `DOCKER_HOST=tcp://…`.
    pub place: String,
    /// What was found there.
    pub problem: Problem,
}

/// Why no engine answers at a place.
#[derive(Debug)]
pub enum Problem {
    /// There is no socket.
    Absent,
    /// There is one, but the caller may not use it.
    Denied,
    /// There is one, but no engine listens on it.
    Silent(io::Error),
    /// Something listens that is not an engine.
    Foreign(String),
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Absent => write!(f, "{}: no such socket", self.place),
            Problem::Denied => write!(
                f,
                "{}: permission denied, so add yourself to its group (`sudo usermod -aG docker $USER`) and log in again",
                self.place
            ),
            Problem::Silent(error) => write!(f, "{}: nothing listens ({error})", self.place),
            Problem::Foreign(answer) => {
                write!(f, "{}: not a container engine ({answer})", self.place)
            }
        }
    }
}

fn list(attempts: &[Attempt]) -> String {
    let texts: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// An engine's message on one line: OCI runtimes answer with several.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The status code of an engine's answer, if it is an answer.
pub(crate) fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

//! Names of the labels of an image. They can be read without the image's layers.

/// What the image is called: the configuration.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Version of mlwm that built it.
pub const VERSION: &str = "org.opencontainers.image.version";
/// Where the sources of the image are.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// Which revision of the sources it is made of.
pub const REVISION: &str = "org.opencontainers.image.revision";
/// When the image says it was created.
pub const CREATED: &str = "org.opencontainers.image.created";
/// Reference of the base image.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Digest of the base image.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// SHA-256 of the artifact's zip.
pub const ARTIFACT_DIGEST: &str = "io.mlwm.artifact.digest";
/// How the container gets the artifact: `mount` if that is not in the image.
pub const DELIVERY: &str = "io.mlwm.artifact.delivery";
/// What that label says of an image that an artifact is mounted into.
pub const MOUNT: &str = "mount";
/// Name of the artifact.
pub const ARTIFACT_NAME: &str = "io.mlwm.artifact.name";
/// Name of the configuration.
pub const CONFIGURATION: &str = "io.mlwm.configuration";
/// SHA-256 of the configuration's `config.yaml`.
pub const CONFIGURATION_DIGEST: &str = "io.mlwm.configuration.digest";
/// Version of mlwm that built it.
pub const MLWM_VERSION: &str = "io.mlwm.version";
/// Version of the container contract that it obeys.
pub const CONTRACT: &str = "io.mlwm.contract";
/// SHA-256 of the runner's executable.
pub const RUNNER_DIGEST: &str = "io.mlwm.runner.digest";
/// Digest of everything that went into the image; an image with the same one need not be built
/// again.
pub const BUILD: &str = "io.mlwm.build";
/// Places that look like secrets and were allowed by whoever built the image.
pub const ALLOWED: &str = "io.mlwm.secrets.allowed";

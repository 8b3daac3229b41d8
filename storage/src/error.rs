//! Why a store operation failed.

use std::io;
use std::path::PathBuf;

use mlwm_spec::local::visible;
use mlwm_spec::{Digest, ExitCode, LocalFailure};

/// Why a store operation failed.
///
/// No variant holds an error of the HTTP client or of the S3 client: their texts embed URLs and
/// server answers, which may hold key identifiers and signatures. They are classified and dropped
/// where they arise.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that is not a URI mlwm understands.
    #[error("`{uri}` is not a place mlwm can read or write: {reason}")]
    InvalidUri {
        /// The text, without credentials and query.
        uri: String,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// The settings of the environment or of the shared configuration files are wrong.
    #[error("the settings cannot be used: {reason}")]
    Settings {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// There is nothing under a URI.
    #[error("there is nothing at {uri}: check the URI, and that the data has arrived")]
    NothingAt {
        /// The URI.
        uri: String,
    },
    /// There is no manifest for a URI.
    #[error("{uri} has no manifest {manifest}: it was not published by mlwm, or not completely")]
    NotPublished {
        /// The URI of the output.
        uri: String,
        /// The URI of the manifest.
        manifest: String,
    },
    /// It was there, and was removed when it had been read.
    #[error(
        "what was published at {uri} was removed on {when}, when all that read it had published: make it again with \
         `mlwm run --republish --analysis-time {time} --model {by}`"
    )]
    Removed {
        /// The URI of the output.
        uri: String,
        /// When it was removed.
        when: String,
        /// The analysis time that it was made for.
        time: mlwm_spec::AnalysisTime,
        /// The configuration that made it.
        by: String,
    },
    /// The bucket does not exist.
    #[error("the bucket of {uri} does not exist at {endpoint}: check its name and the endpoint")]
    BucketMissing {
        /// The URI.
        uri: String,
        /// The S3 endpoint.
        endpoint: String,
    },
    /// The store refused.
    #[error("{endpoint} refused access to {uri} ({code}): check the credentials and their rights")]
    AccessDenied {
        /// The URI.
        uri: String,
        /// The S3 endpoint, or the folder.
        endpoint: String,
        /// The store's word for it.
        code: String,
    },
    /// There are no credentials.
    #[error(
        "no AWS credentials for {uri}: {reason}; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
         AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true to read a public bucket anonymously"
    )]
    NoCredentials {
        /// The URI.
        uri: String,
        /// Where they were looked for, or why they could not be had.
        reason: String,
    },
    /// The endpoint cannot be reached.
    #[error("cannot reach {endpoint} for {uri} ({reason}): check the endpoint and the network")]
    Unreachable {
        /// The URI.
        uri: String,
        /// The S3 endpoint.
        endpoint: String,
        /// What the network said.
        reason: String,
    },
    /// The endpoint did not answer in time.
    #[error("{endpoint} did not answer in time for {uri}: run the same command again")]
    TimedOut {
        /// The URI.
        uri: String,
        /// The S3 endpoint.
        endpoint: String,
    },
    /// The store answered with an error that has no variant of its own.
    #[error("{endpoint} failed on {uri} ({reason})")]
    Service {
        /// The URI.
        uri: String,
        /// The S3 endpoint.
        endpoint: String,
        /// HTTP status and the store's code, or what broke.
        reason: String,
    },
    /// There is too little room for what is to be staged or published.
    #[error("{path} has {free} bytes free, but {needed} are needed: make room, then run again", path = visible(path).display())]
    NotEnoughSpace {
        /// The folder, or what is to be written.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A local file or folder could not be used: it is not there, nobody may, the disk is full.
    #[error("{}", LocalFailure { action, path, source })]
    Local {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A folder, or something else that is no file, where a file is wanted.
    #[error("{path} is {what}: give a file", path = path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A local file is not a regular file, or has a name that cannot be an object's.
    #[error("{path} cannot be an object of a store: {reason}", path = path.display())]
    NotAnObject {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// What is to be sent cannot be read.
    #[error("what is brought to {uri} cannot be read: {source}")]
    Content {
        /// Where it is brought.
        uri: String,
        /// Why not; it names the file.
        source: io::Error,
    },
    /// What is to be created is there, and is something else.
    #[error(
        "{uri} already holds something else ({reason}): choose another place, or remove it; nothing was changed"
    )]
    Exists {
        /// The URI of the object.
        uri: String,
        /// In what it differs.
        reason: String,
    },
    /// What arrived is not what was asked for.
    #[error("{uri} is not what was expected: {reason}; nothing of it was kept")]
    NotExpected {
        /// The URI of the object.
        uri: String,
        /// In what it differs.
        reason: String,
    },
    /// Another process transfers the same.
    #[error("another process is transferring {uri}: wait until it ends")]
    TransferBusy {
        /// The URI.
        uri: String,
    },
    /// An OCI registry refused.
    #[error(
        "{host} refused access to {uri} ({reason}): run `docker login {host}`, or ask for the right \
         to do this"
    )]
    RegistryAccess {
        /// The URI of the repository.
        uri: String,
        /// The registry.
        host: String,
        /// HTTP status and the registry's code, or what is missing.
        reason: String,
    },
    /// There are no Google credentials.
    #[error(
        "no Google credentials for {uri}: {reason}; set GOOGLE_APPLICATION_CREDENTIALS, or run \
         `gcloud auth application-default login`, or set GOOGLE_SKIP_SIGNATURE=true to read a \
         public bucket anonymously"
    )]
    NoGoogleCredentials {
        /// The URI.
        uri: String,
        /// Why they could not be had.
        reason: String,
    },
    /// A local file changed while it was read.
    #[error("{path} changed while it was being read: something still writes to it", path = path.display())]
    LocalChanged {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to publish.
    #[error("{path} holds no files: an output without files is not published", path = path.display())]
    EmptyOutput {
        /// The folder.
        path: PathBuf,
    },
    /// A remote name cannot be a local path below the destination.
    #[error("{uri} holds an object named `{name}`, which cannot be staged: {reason}")]
    UnsafeName {
        /// The URI.
        uri: String,
        /// The name, with control characters escaped.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The destination of staging holds something.
    #[error("{path} is not empty: stage into a folder that is empty or does not exist", path = path.display())]
    DestinationNotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Another process stages to the same place.
    #[error("another process is staging into {path}: wait until it ends", path = path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// An object changed while it was read.
    #[error("{uri} changed while it was being read: run the same command again")]
    Changed {
        /// The URI of the object.
        uri: String,
    },
    /// An object is larger than what is read into memory.
    #[error("{uri} is larger than the {limit} bytes that may be read of it")]
    TooLarge {
        /// The URI of the object.
        uri: String,
        /// The limit.
        limit: u64,
    },
    /// A manifest or marker cannot be understood.
    #[error("{uri} cannot be read: {reason}")]
    BadManifest {
        /// The URI of the manifest.
        uri: String,
        /// Why not.
        reason: String,
    },
    /// A published output is not what its manifest says.
    #[error("{uri} is not what its manifest says: {reason}")]
    Corrupt {
        /// The URI of the output.
        uri: String,
        /// The differences.
        reason: String,
    },
    /// Another task, or the same with other data, is published there.
    #[error(
        "{uri} already holds another publication: task {} with objects {}, while this one is task \
         {} with objects {}; nothing was changed",
        between.theirs, between.their_objects, between.ours, between.our_objects
    )]
    Conflict {
        /// The URI of the output.
        uri: String,
        /// What is published, and what was to be.
        between: Box<Rivals>,
    },
    /// There is another publication, and what this one would bring is not known yet.
    #[error("{uri} already holds a publication, of task {theirs}; nothing was changed")]
    Occupied {
        /// The URI of the output.
        uri: String,
        /// The task that published it.
        theirs: Digest,
    },
    /// An object that was brought to a publication before.
    #[error("`{object}` was sent to {uri} before: each object of a publication is sent once")]
    SentTwice {
        /// The URI of the output.
        uri: String,
        /// Path of the object below it.
        object: String,
    },
    /// A file among those to be sent that has the name of one that is being written.
    #[error(
        "`{object}` was not sent to {uri}: by its name it is still being written, or was left when that ended; \
         only files that are complete may lie there"
    )]
    Unfinished {
        /// The URI of the output.
        uri: String,
        /// Path of the file below its folder.
        object: String,
    },
    /// There is data that mlwm did not publish.
    #[error(
        "{uri} already holds {objects} objects that mlwm did not publish: choose another place, or \
         remove them; nothing was changed"
    )]
    ForeignData {
        /// The URI of the output.
        uri: String,
        /// Number of objects.
        objects: u64,
    },
    /// Another publication to the same URI is going on.
    #[error(
        "another publication to {uri} (task {theirs}) took over while this one (task {ours}) was under way"
    )]
    TakenOver {
        /// The URI of the output.
        uri: String,
        /// The other task.
        theirs: String,
        /// This task.
        ours: Digest,
    },
    /// The manifest to be written does not describe what was uploaded.
    #[error("the manifest made for {uri} is not one of what was uploaded: {reason}")]
    WrongManifest {
        /// The URI of the output.
        uri: String,
        /// What differs.
        reason: String,
    },
    /// A part of mlwm broke.
    #[error("a transfer task of {uri} ended unexpectedly: {reason}")]
    Broken {
        /// The URI.
        uri: String,
        /// What happened.
        reason: String,
    },
    /// Stopped on request.
    #[error("the transfer of {uri} was interrupted: the same command continues it")]
    Interrupted {
        /// The URI.
        uri: String,
    },
}

/// Two publications to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rivals {
    /// The task that is published.
    pub theirs: Digest,
    /// The content that is published.
    pub their_objects: Digest,
    /// The task that was to be published.
    pub ours: Digest,
    /// The content that was to be published.
    pub our_objects: Digest,
}

impl Error {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::InvalidUri { .. } | Self::Settings { .. } => ExitCode::BadConfiguration,
            Self::NothingAt { .. } | Self::NotPublished { .. } | Self::Removed { .. } => {
                ExitCode::InputMissing
            }
            Self::UnsafeName { .. }
            | Self::Corrupt { .. }
            | Self::BadManifest { .. }
            | Self::NotExpected { .. } => ExitCode::InputCorrupt,
            Self::EmptyOutput { .. }
            | Self::NotAFile { .. }
            | Self::NotAnObject { .. }
            | Self::LocalChanged { .. }
            | Self::Content { .. } => ExitCode::Incomplete,
            Self::Conflict { .. }
            | Self::Occupied { .. }
            | Self::ForeignData { .. }
            | Self::TakenOver { .. }
            | Self::Exists { .. } => ExitCode::Conflict,
            Self::Interrupted { .. } => ExitCode::Interrupted,
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
            Self::WrongManifest { .. }
            | Self::SentTwice { .. }
            | Self::Unfinished { .. }
            | Self::Broken { .. } => ExitCode::Failed,
            Self::BucketMissing { .. }
            | Self::AccessDenied { .. }
            | Self::NoCredentials { .. }
            | Self::NoGoogleCredentials { .. }
            | Self::RegistryAccess { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Service { .. }
            | Self::NotEnoughSpace { .. }
            | Self::DestinationNotEmpty { .. }
            | Self::Busy { .. }
            | Self::TransferBusy { .. }
            | Self::Changed { .. }
            | Self::TooLarge { .. } => ExitCode::StorageFailed,
        }
    }

    /// Whether a store or registry refused what it was asked: it will again, until somebody gives other rights.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::AccessDenied { .. } | Self::BucketMissing { .. } | Self::RegistryAccess { .. }
        )
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

//! What can go wrong with an artifact.

use std::io;
use std::path::PathBuf;

use mlwm_spec::datastore::DatastoreNamesError;
use mlwm_spec::interface::PROGRAM_VERSION;
use mlwm_spec::yaml::YamlError;
use mlwm_spec::{Digest, ExitCode, LocalFailure};

use crate::framing::FramingError;
use crate::onnx::OnnxError;
use crate::pickle::PickleError;

/// Why an artifact could not be built, read or verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that cannot be the name of an artifact.
    #[error(
        "`{0}` cannot be the name of an artifact: use letters, digits, `.`, `_` and `-`, and no leading dot"
    )]
    Name(String),
    /// Neither checkpoint nor ONNX.
    #[error("there is no model to pack: give a checkpoint, an ONNX file, or both")]
    NoModel,
    /// ONNX without interface.
    #[error(
        "an ONNX file needs an interface that says what its inputs are: give the JSON file written at export"
    )]
    NoInterface,
    /// An interface of an ONNX model without that.
    #[error(
        "the interface {0} describes an ONNX model, and none is given: give the ONNX file with --onnx, or, for a model that its image runs, an interface of version {PROGRAM_VERSION}, which declares its input state"
    )]
    NoOnnx(String),
    /// An interface of a model without ONNX, and ONNX.
    #[error(
        "the interface {0} is of version {PROGRAM_VERSION}, that of models without ONNX, and an ONNX file is given: leave --onnx out, or give an interface of version 2 that says what its inputs are"
    )]
    OnnxNotDescribed(String),
    /// A neural-lam configuration without training arguments.
    #[error(
        "a neural-lam model is packed with the arguments of its training command: give them with --training-args"
    )]
    NoTrainingArguments,
    /// Facts of a neural-lam export without a neural-lam configuration.
    #[error(
        "the facts that a neural-lam export wrote name features of datastores: give the neural-lam configuration that has them with --nl-config"
    )]
    NoDatastores,
    /// A file given to build from is not there.
    #[error("the {what} {path} is not a file: check the path")]
    MissingSource {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The training dataset is not where neural-lam keeps it.
    #[error(
        "the training dataset {path} of datastore `{datastore}` is not there: it must lie beside the datastore's configuration, under the same name with `.zarr` for `.yaml`"
    )]
    MissingTraining {
        /// Name of the datastore.
        datastore: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}", LocalFailure { action, path, source })]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A YAML file that cannot be understood.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// YAML that could not be written.
    #[error("could not write {what}: {source}")]
    WriteYaml {
        /// What was to be written.
        what: &'static str,
        /// Why not.
        source: Box<serde_saphyr::SerializeError>,
    },
    /// A neural-lam configuration that names its datastores wrongly.
    #[error("{path}: {source}")]
    Datastores {
        /// The configuration.
        path: String,
        /// What is wrong.
        source: DatastoreNamesError,
    },
    /// A datastore configuration, training arguments or neural-lam configuration that mlwm cannot
    /// use.
    #[error("{path}: {why}")]
    Configuration {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// An interface file that is neither of the two kinds.
    #[error(
        "the interface {path} cannot be read: {why}; expected is an mlwm interface (JSON with `version`) or the export facts written beside an ONNX model (JSON with `num_grid_nodes` and `state_features`)"
    )]
    InterfaceFile {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A checkpoint that is not one, or that cannot be followed.
    #[error("the checkpoint {path} cannot be packed: {source}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PickleError,
    },
    /// A checkpoint that imports what is not known to be harmless.
    #[error(
        "loading the checkpoint {path} would import {imports}, which mlwm does not know to be harmless: if you trust where it comes from, allow each with `--allow-global module.name`"
    )]
    CheckpointImports {
        /// The file.
        path: PathBuf,
        /// What it imports, separated by commas.
        imports: String,
    },
    /// A golden case that does not fit the model.
    #[error("the golden case {path} {why}")]
    Golden {
        /// Its folder.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// An ONNX file that cannot be used.
    #[error("{path}: {source}")]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: OnnxError,
    },
    /// Parts of the artifact that contradict each other.
    #[error("{0}")]
    Disagreement(String),
    /// Statistics that could not be extracted or read.
    #[error("the statistics of datastore `{datastore}` cannot be used: {why}")]
    Statistics {
        /// Name of the datastore.
        datastore: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// Another artifact is already there.
    #[error(
        "{path} already holds another artifact ({existing}, this one is {built}): remove it or choose another name"
    )]
    Exists {
        /// The destination.
        path: PathBuf,
        /// Digest of what is there.
        existing: Digest,
        /// Digest of what was built.
        built: Digest,
    },
    /// The zip could not be written.
    #[error("could not write the artifact {name}: {}", said(source))]
    Write {
        /// Name of the artifact.
        name: String,
        /// What the writer said.
        source: io::Error,
    },
    /// A folder, or something else that is no file, in the place of a zip.
    #[error("{path} is {what}: give the zip that `mlwm artifact build` wrote")]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file that is no artifact.
    #[error("{path} is not an inference artifact: {why}")]
    NotAnArtifact {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A zip that is damaged or made to deceive.
    #[error("{path} is damaged or was not made by mlwm: {source}")]
    Framing {
        /// The artifact.
        path: PathBuf,
        /// What is wrong.
        source: FramingError,
    },
    /// An artifact of another version of the format.
    #[error(
        "{path} has format version {found}, this mlwm reads version 1: use the mlwm that wrote it, or build it again"
    )]
    FormatVersion {
        /// The artifact.
        path: String,
        /// Its version.
        found: u32,
    },
    /// An artifact without hashes.
    #[error(
        "{path} cannot be verified, since it was made by a tool that recorded no hashes: build it again with `mlwm artifact build` from its training run"
    )]
    NoHashes {
        /// The artifact.
        path: PathBuf,
    },
    /// A zip with the right contents and other headers.
    #[error(
        "{path} is not the zip that mlwm wrote, although its files are right: it was packed by other means; fetch or build it again"
    )]
    Repacked {
        /// The artifact.
        path: PathBuf,
    },
    /// A member is missing.
    #[error("{path} has no member {member}{hint}")]
    NoMember {
        /// The artifact.
        path: PathBuf,
        /// The member.
        member: String,
        /// What to do, or nothing.
        hint: &'static str,
    },
    /// Nothing in the artifact has this name.
    #[error("{path} has no file that `{pattern}` names: `mlwm artifact inspect` lists what it has")]
    NothingNamed {
        /// The artifact.
        path: PathBuf,
        /// What was asked for.
        pattern: String,
    },
    /// A member that `artifact.yaml` does not list.
    #[error(
        "{path} has the member {member}, which its artifact.yaml does not list: build it again"
    )]
    ExtraMember {
        /// The artifact.
        path: PathBuf,
        /// The member.
        member: String,
    },
    /// A member of another size.
    #[error(
        "member {member} of {path} has {found} bytes, artifact.yaml says {expected}: fetch or build it again"
    )]
    Size {
        /// The artifact.
        path: PathBuf,
        /// The member.
        member: String,
        /// Size in `artifact.yaml`.
        expected: u64,
        /// Size found.
        found: u64,
    },
    /// An `artifact.yaml` that contradicts itself.
    #[error(
        "the set digest in artifact.yaml of {path} is {recorded}, its list of files gives {found}: fetch or build it again"
    )]
    SetDigest {
        /// The artifact.
        path: PathBuf,
        /// As recorded.
        recorded: Digest,
        /// Of the list of files.
        found: Digest,
    },
    /// A source that changed under way: its model may be half a model.
    #[error(
        "{path} changed while it was packed: wait until it is written completely, and build again"
    )]
    Changed {
        /// The source.
        path: PathBuf,
    },
    /// More files, or more bytes, than the format allows.
    #[error("{name} cannot be packed: it would have {files} files with {bytes} bytes")]
    TooMany {
        /// Name of the artifact.
        name: String,
        /// How many files.
        files: usize,
        /// Their size.
        bytes: u64,
    },
    /// A member with other bytes.
    #[error(
        "member {member} of {path} has {found}, expected is {expected}: fetch or build it again"
    )]
    Hash {
        /// The artifact.
        path: PathBuf,
        /// The member.
        member: String,
        /// What was recorded: a SHA-256 or a CRC-32.
        expected: String,
        /// What the bytes give.
        found: String,
    },
    /// A member too large to be read whole.
    #[error("member {member} of {path} has {size} bytes, at most {limit} are read")]
    TooLarge {
        /// The artifact.
        path: PathBuf,
        /// The member.
        member: String,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Something else is in the way of what is unpacked or built.
    #[error("{path} is already there, and is something else: remove it or choose another folder")]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// Another process is at it.
    #[error("another process writes in {path}: wait until it ends")]
    Busy {
        /// Where it works.
        path: PathBuf,
    },
    /// Called off while it was unpacked.
    #[error(
        "stopped before everything was unpacked: what was is kept in {path}, and the same command goes on from there"
    )]
    Interrupted {
        /// Where the files are that were unpacked.
        path: PathBuf,
    },
}

impl Error {
    /// The exit code of a command that fails with this error.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Name(_)
            | Self::NoModel
            | Self::NoInterface
            | Self::NoOnnx(_)
            | Self::OnnxNotDescribed(_)
            | Self::NoTrainingArguments
            | Self::NoDatastores => ExitCode::Usage,
            Self::MissingSource { .. }
            | Self::MissingTraining { .. }
            | Self::NothingNamed { .. } => ExitCode::InputMissing,
            Self::Io {
                action,
                path,
                source,
            } => LocalFailure {
                action,
                path,
                source,
            }
            .exit_code(),
            Self::Write { source, .. } if is_full(source) => ExitCode::StorageFailed,
            Self::Yaml(_)
            | Self::Datastores { .. }
            | Self::Configuration { .. }
            | Self::InterfaceFile { .. } => ExitCode::BadConfiguration,
            Self::Checkpoint { .. }
            | Self::CheckpointImports { .. }
            | Self::Golden { .. }
            | Self::Onnx { .. }
            | Self::Disagreement(_)
            | Self::Statistics { .. }
            | Self::NotAFile { .. }
            | Self::NotAnArtifact { .. }
            | Self::Framing { .. }
            | Self::FormatVersion { .. }
            | Self::NoHashes { .. }
            | Self::Repacked { .. }
            | Self::NoMember { .. }
            | Self::ExtraMember { .. }
            | Self::Size { .. }
            | Self::SetDigest { .. }
            | Self::TooMany { .. }
            | Self::Hash { .. }
            | Self::TooLarge { .. } => ExitCode::ArtifactMismatch,
            Self::Exists { .. } | Self::InTheWay { .. } => ExitCode::Conflict,
            Self::WriteYaml { .. } | Self::Write { .. } | Self::Changed { .. } => ExitCode::Failed,
            Self::Busy { .. } => ExitCode::StorageFailed,
            Self::Interrupted { .. } => ExitCode::Interrupted,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// What a writer said, and what to do if that is plain.
fn said(error: &io::Error) -> String {
    match is_full(error) {
        true => "the disk is full: make room, then run the same command again".to_owned(),
        false => error.to_string(),
    }
}

/// Turns an IO error into [`Error::Io`].
pub(crate) fn io_error(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

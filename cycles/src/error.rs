//! What can go wrong between a configuration and a published forecast.

use std::io;
use std::path::PathBuf;

use mlwm_spec::bytes::ByteSize;
use mlwm_spec::configuration::{ConfigurationError, StepProblem, UriError};
use mlwm_spec::contract::ContractError;
use mlwm_spec::{AnalysisTime, ArtifactDelivery, Digest, ExitCode, Period};

/// An error of planning or running a cycle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration file is wrong.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// A folder or file of configurations cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no configuration of that name.
    #[error("there is no configuration `{name}` in {} (there is: {})", folder.display(), list(known))]
    NoSuchConfiguration {
        /// The name asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// What there is.
        known: Vec<String>,
    },
    /// There is no configuration at all.
    #[error("there is no configuration in {}: each is a folder with a `config.yaml`", .0.display())]
    NoConfigurations(PathBuf),
    /// An artifact is not the one that is pinned.
    #[error("artifact {} is {found}, but the configuration pins {expected}: get the pinned one or change the pin", path.display())]
    PinMismatch {
        /// Where it lies.
        path: PathBuf,
        /// What the configuration says.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// An artifact cannot be read, or is wrong.
    #[error(transparent)]
    Artifact(#[from] mlwm_artifacts::Error),
    /// An artifact cannot be had from its registry, or from the cache.
    #[error(transparent)]
    Registry(#[from] mlwm_registries::Error),
    /// A URI cannot be made from what the configuration says.
    #[error("configuration `{configuration}`: {source}")]
    Uri {
        /// The configuration.
        configuration: String,
        /// Why.
        source: UriError,
    },
    /// The length of the forecast is not given.
    #[error(
        "configuration `{0}` says not how long the forecast is: add `forecast_duration: PT18H` or give --forecast-duration"
    )]
    NoForecastDuration(String),
    /// The length of the forecast is no whole number of steps.
    #[error(
        "configuration `{configuration}`: a forecast of {duration} is no whole number of steps of {step_seconds} s, the step of its model"
    )]
    ForecastDuration {
        /// The configuration.
        configuration: String,
        /// The length.
        duration: Period,
        /// The length of a step.
        step_seconds: i64,
    },
    /// The environment of the container cannot be written.
    #[error("configuration `{configuration}`: {source}")]
    Contract {
        /// The configuration.
        configuration: String,
        /// Why.
        source: ContractError,
    },
    /// JSON cannot be written.
    #[error("cannot write JSON: {0}")]
    Json(serde_json::Error),
    /// A configuration feeds an input that no datastore has.
    #[error(
        "configuration `{configuration}`: `{name}` in datastore_inputs is not an input of the artifact's datastores (they are: {})",
        list(known)
    )]
    UnknownDatastoreInput {
        /// The configuration.
        configuration: String,
        /// The name.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Inputs of the datastores are fed by nothing.
    #[error(
        "configuration `{configuration}`: nothing feeds {}: name them in `datastore_inputs` of the inputs that hold them",
        list(missing)
    )]
    UnfedDatastoreInputs {
        /// The configuration.
        configuration: String,
        /// The inputs.
        missing: Vec<String>,
    },
    /// Two tasks would publish to the same place.
    #[error("{first} and {second} would both publish to {uri}: give them different outputs")]
    SharedOutput {
        /// The place.
        uri: String,
        /// One task.
        first: String,
        /// The other.
        second: String,
    },
    /// Tasks that wait for one another.
    #[error("these tasks read what the others make, so that none can begin: {0}")]
    Circle(String),
    /// A task that reads what is made when all tasks are done.
    #[error(
        "{task} reads {uri}, which is made of all members when the tasks of the plan are done: run it after them, by itself"
    )]
    ReadsEnsemble {
        /// The task.
        task: String,
        /// What it reads.
        uri: String,
    },
    /// A task whose input another did not make.
    #[error("not begun: {by} failed, which makes what it reads")]
    NotMade {
        /// The other task.
        by: String,
        /// How that ended.
        code: ExitCode,
    },
    /// One that reads a part of what is kept until it is read, or what it is a part of.
    #[error(
        "{task} reads a part of {uri}, which is kept until it is read, or what it is a part of: let it read all of it, \
         or keep it always"
    )]
    ReadsPartly {
        /// The task.
        task: String,
        /// What is kept.
        uri: String,
    },
    /// What cannot be removed, as another mlwm makes it again.
    #[error("another mlwm, on {0}, works on it")]
    MadeAgain(String),
    /// What was made of something was removed, and what was made of that is not known to be done.
    #[error("{0}, which was made of it, is removed, and what reads that is not done in this run")]
    ReadFurther(String),
    /// What was made of something that should be removed is not there, or was made of something else.
    #[error("{uri}, for which it was kept, is not there or was made of something else")]
    ReadOtherwise {
        /// What should have been made of it.
        uri: String,
    },
    /// A credential that is not in the environment.
    #[error(
        "configuration `{configuration}` needs the credential {name}: set this environment variable for mlwm"
    )]
    NoCredential {
        /// Name of the environment variable.
        name: String,
        /// The configuration.
        configuration: String,
    },
    /// A command that names what is not there.
    #[error("the command of configuration `{configuration}` cannot be run: {reason}")]
    Command {
        /// The configuration.
        configuration: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A step that cannot be carried out with the files that there are.
    #[error("configuration `{configuration}`: `{key}`: {problem}")]
    Step {
        /// The configuration.
        configuration: String,
        /// The key of what is wrong.
        key: String,
        /// What is wrong and what to do.
        problem: StepProblem,
    },
    /// A step that a configuration does not have.
    #[error("configuration `{configuration}` has no step `{step}`: its steps are {known}")]
    NoSuchStep {
        /// The configuration.
        configuration: String,
        /// What was asked for.
        step: String,
        /// What it has.
        known: String,
    },
    /// The working folder cannot be used.
    #[error("cannot use {} in the working folder: {source}", path.display())]
    Scratch {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A plan that cannot be read.
    #[error(
        "cannot read the plan {name}: {why}; `mlwm plan` prints a right one (docs/plan-format.md)"
    )]
    BadPlan {
        /// The file.
        name: String,
        /// Why not.
        why: String,
    },
    /// A task that a plan has twice.
    #[error("the plan has {0} twice: keep one")]
    Twice(String),
    /// A published output cannot be made again.
    #[error("{uri} cannot be made again: {why}")]
    Replay {
        /// The output.
        uri: String,
        /// Why not.
        why: String,
    },
    /// Another mlwm has taken the task over, because it saw no sign of life of this one.
    #[error("another mlwm has taken this task over ({}): it saw no sign of life of this one; nothing of this attempt is published", claim.display())]
    TakenOver {
        /// The claim.
        claim: PathBuf,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] mlwm_ledger::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] mlwm_engines::Error),
    /// The memory of GPUs.
    #[error(transparent)]
    GpuMemory(#[from] crate::GpuMemoryError),
    /// A store.
    #[error(transparent)]
    Storage(#[from] mlwm_storage::Error),
    /// The image is not in the engine.
    #[error(
        "image `{image}` is not in the engine: run `mlwm image build {configuration}`, or pull it"
    )]
    ImageMissing {
        /// The reference.
        image: String,
        /// The configuration.
        configuration: String,
    },
    /// The image of a converter is not in the engine.
    #[error(
        "image `{image}`, which converts the input `{input}` of `{configuration}`, is not in the engine: build it, or pull it"
    )]
    ConverterMissing {
        /// The reference.
        image: String,
        /// The input.
        input: String,
        /// The configuration.
        configuration: String,
    },
    /// A converter failed.
    #[error("the input `{input}` ({uri}) was not converted by `{image}`: {source}")]
    Convert {
        /// The input.
        input: String,
        /// Where it was staged from.
        uri: String,
        /// The reference of the converter.
        image: String,
        /// Why.
        source: Box<Error>,
    },
    /// What a converter left is not what it should be.
    #[error("the container {reason}; its log is {}", log.display())]
    Converted {
        /// What is wrong with it.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The image was made from another artifact.
    #[error(
        "image `{image}` {built}, but the configuration names {wanted}: run `mlwm image build {configuration}`"
    )]
    ImageArtifact {
        /// The reference.
        image: String,
        /// What the image says.
        built: String,
        /// What the configuration says.
        wanted: Digest,
        /// The configuration.
        configuration: String,
    },
    /// The image is made for another way of getting the artifact.
    #[error(
        "image `{image}` {has}, but the configuration says `artifact_delivery: {delivery}`: run `mlwm image build {configuration}`"
    )]
    ImageDelivery {
        /// The reference.
        image: String,
        /// What it has.
        has: &'static str,
        /// What the configuration says.
        delivery: ArtifactDelivery,
        /// The configuration.
        configuration: String,
    },
    /// Something else is published where the forecast would go.
    #[error(
        "{manifest} is of another task: {difference}; nothing is overwritten, publish elsewhere, or replace it with --republish"
    )]
    Published {
        /// The manifest that is there.
        manifest: String,
        /// What is different.
        difference: String,
    },
    /// Too few members are there.
    #[error(
        "{ensemble}: {there} members are published and {quorum} are wanted, {missing} missing: run the same command again, or lower `ensemble.quorum`"
    )]
    Quorum {
        /// Its title.
        ensemble: String,
        /// How many are published.
        there: usize,
        /// How many must be.
        quorum: u32,
        /// Which are not.
        missing: String,
    },
    /// Members that belong to no one ensemble.
    #[error(
        "{ensemble}: members {first} and {other} were made with different images, artifacts or forecast durations: make those of one kind again with --republish"
    )]
    MixedMembers {
        /// Its title.
        ensemble: String,
        /// A member.
        first: u32,
        /// One that is other.
        other: u32,
    },
    /// Products that cannot be made of what the members published.
    #[error("{ensemble}: no products can be made: {reason}")]
    Products {
        /// Its title.
        ensemble: String,
        /// Why.
        reason: String,
    },
    /// Products that cannot be made.
    #[error(transparent)]
    Ensemble(#[from] mlwm_datasets::ensemble::EnsembleError),
    /// An input is of another analysis time than its place says.
    #[error(
        "{uri} holds the analysis time {}, not {wanted}: whoever writes it there is late or wrong; nothing is run",
        list(found)
    )]
    OtherAnalysisTime {
        /// The input.
        uri: String,
        /// What it holds.
        found: Vec<String>,
        /// What it should.
        wanted: AnalysisTime,
    },
    /// An input is not fit for the model.
    #[error("{source} (staged from {})", uris.join(", "))]
    Preflight {
        /// The inputs, by URI.
        uris: Vec<String>,
        /// Why.
        source: mlwm_datasets::prepare::PrepareError,
    },
    /// The state that a forecast starts from is not what the model declares.
    #[error("{source} (staged from {uri})")]
    State {
        /// The input, by URI.
        uri: String,
        /// Why.
        source: Box<mlwm_datasets::input_state::StateError>,
    },
    /// There is no input that has the state.
    #[error(
        "configuration `{configuration}` has no input `{input}`, which is the state that the model starts from: add it"
    )]
    NoState {
        /// The configuration.
        configuration: String,
        /// The name of the input.
        input: String,
    },
    /// An output asks for a variable that the model does not predict.
    #[error(
        "output `{output}` asks for the variable `{variable}`, which the model does not predict (it predicts: {})",
        list(predicted)
    )]
    NotPredicted {
        /// The output.
        output: String,
        /// The variable.
        variable: String,
        /// What the model predicts.
        predicted: Vec<String>,
    },
    /// Statistics in an artifact cannot be read.
    #[error("the artifact's statistics: {0}")]
    Statistics(#[from] mlwm_datasets::Error),
    /// Credentials for S3 that have ended.
    #[error(
        "the credentials for S3 ended at {end}, and {uri} is read or written with them: set new ones, with their end in \
         AWS_CREDENTIAL_EXPIRATION if they are in the environment, and run the same command again; nothing was begun"
    )]
    CredentialsEnded {
        /// A place that needs them.
        uri: String,
        /// When they ended.
        end: String,
    },
    /// Credentials for S3 that end too soon.
    #[error(
        "the credentials for S3 end at {end}, before --credentials-for {needed} is over, and {uri} is read or written with \
         them: set new ones, or ask for less; nothing was begun"
    )]
    CredentialsShort {
        /// A place that needs them.
        uri: String,
        /// When they end.
        end: String,
        /// How long they should last.
        needed: Period,
    },
    /// There is too little space to start a container.
    #[error(
        "{} has {free} free, and {reserve} must stay free (`mlwm run --keep-free`): make room; no container was started",
        folder.display()
    )]
    DiskShort {
        /// The working folder.
        folder: PathBuf,
        /// What is free.
        free: ByteSize,
        /// What should be.
        reserve: ByteSize,
    },
    /// A container wrote more than it said, and was killed.
    #[error("the container was killed when it had written {written}: with its inputs that is more than {limit}; raise that, or find out why it writes so much; its log is {}{}", log.display(), lines(last))]
    DiskLimit {
        /// What it wrote.
        written: ByteSize,
        /// What it may use, and what says so.
        limit: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        last: Vec<String>,
    },
    /// A warm container wrote more than its windows may take.
    #[error(
        "the container wrote {written} bytes where {room} are reserved for its windows, and was killed; its log is {}: give more with --disk, or let windows be of one size{}", log.display(), lines(last)
    )]
    WindowsOverran {
        /// What it wrote.
        written: u64,
        /// What is reserved.
        room: u64,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        last: Vec<String>,
    },
    /// A container took the disk's last space, and was killed.
    #[error("the container was killed when it had written {written}, more than any other, and the disk of the working folder had {free} free: {reserve} must stay free (`mlwm run --keep-free`); make room, or find out why it writes so much; its log is {}{}", log.display(), lines(last))]
    DiskReserve {
        /// What it wrote.
        written: ByteSize,
        /// What was free.
        free: ByteSize,
        /// What should be.
        reserve: ByteSize,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        last: Vec<String>,
    },
    /// A container failed.
    #[error("the container ended with exit code {code}{hint}; its log is {}{}", log.display(), lines(last))]
    ContainerFailed {
        /// Its exit code.
        code: i64,
        /// What may have made it fail; empty, or after a semicolon.
        hint: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        last: Vec<String>,
    },
    /// A container that serves several members says that it cannot do one.
    #[error("the model failed: {why}; its log is {}{}", log.display(), lines(last))]
    MemberFailed {
        /// What the container says.
        why: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        last: Vec<String>,
    },
    /// A container that serves several members ended well and had not served this one.
    #[error("the container ended before it had served this member, as if it had: mend the image, which breaks the container contract; its log is {}", log.display())]
    EndedEarly {
        /// Its log.
        log: PathBuf,
    },
    /// Windows that the forecast cannot be cut into.
    #[error(
        "configuration `{configuration}`: output `{output}` cannot be cut into windows: {reason}"
    )]
    Windows {
        /// The configuration.
        configuration: String,
        /// The output.
        output: String,
        /// Why, or what to do.
        reason: String,
    },
    /// An output cannot be written as GRIB.
    #[error(
        "configuration `{configuration}`: output `{output}` cannot be written as GRIB: {reason}"
    )]
    Grib {
        /// The configuration.
        configuration: String,
        /// The output.
        output: String,
        /// What is wrong.
        reason: String,
    },
    /// ecCodes is not there, or a file of GRIB cannot be written.
    #[error(transparent)]
    Eccodes(#[from] mlwm_grib::Error),
    /// Inputs that do not fit into the working folder's budget.
    #[error(
        "the inputs of a member take {bytes} bytes, with what is converted of them, and the space for the working folder is {budget}: give more with --disk"
    )]
    InputsTooLarge {
        /// Bytes of the inputs, and those that their converters may write.
        bytes: u64,
        /// The budget.
        budget: u64,
    },
    /// Members that cannot be served together.
    #[error(
        "{0} needs another container than the members before it, since its image was replaced or its plan edited meanwhile: run the same command again"
    )]
    OtherContainer(String),
    /// A window that does not fit into the working folder's budget.
    #[error(
        "a window has {window} bytes and the inputs of its member {inputs}, and the space for the working folder is {budget}: give more with --disk"
    )]
    WindowTooLarge {
        /// Bytes that a window takes.
        window: u64,
        /// Bytes of the inputs.
        inputs: u64,
        /// The budget.
        budget: u64,
    },
    /// Nothing is left for the first window of a member.
    #[error(
        "{inputs} bytes of inputs and what other tasks need, or could not send, leave nothing of the {budget} of the working folder for a window: give more with --disk"
    )]
    NoSpaceLeft {
        /// Bytes of the inputs.
        inputs: u64,
        /// The budget.
        budget: u64,
    },
    /// What takes the place of something that is published does not fit into the working folder's budget.
    #[error(
        "a window has {window} bytes and the inputs of its member {inputs}, and {kept} bytes of the windows before it are kept until all take the place of what is published, which is more than the {budget} of the working folder: give more with --disk, or publish to another place"
    )]
    KeptTooLarge {
        /// Bytes that a window takes.
        window: u64,
        /// Bytes of the inputs.
        inputs: u64,
        /// Bytes of the windows before it.
        kept: u64,
        /// The budget.
        budget: u64,
    },
    /// The inputs of members to come leave no space for a window that is larger than those before it.
    #[error(
        "a window has {window} bytes, more than those before it, and the inputs that are staged leave less of the {budget} of the working folder: the member is made again when they are used up; give more with --disk"
    )]
    NoSpaceForWindow {
        /// Bytes that a window takes.
        window: u64,
        /// The budget.
        budget: u64,
    },
    /// A window that nobody asked for.
    #[error(
        "the container wrote a window `{0}`, which is none of this forecast: mend the image, which breaks the container contract"
    )]
    UnknownWindow(String),
    /// A window that was not written when it was its turn.
    #[error("the container did not write the window {0}, or not in its turn; nothing is published")]
    WindowMissing(String),
    /// A window that is not what it should be.
    #[error(
        "window {window} of output `{output}` is refused: {reason}; nothing of this member is published"
    )]
    BadWindow {
        /// The output.
        output: String,
        /// The window.
        window: String,
        /// What is wrong.
        reason: String,
    },
    /// A window cannot be written for publication.
    #[error(transparent)]
    Window(#[from] mlwm_datasets::forecast_store::StoreError),
    /// A container ran out of memory.
    #[error("the container was killed for using more memory than {limit}: raise `resources.memory`; its log is {}{}", log.display(), lines(last))]
    OutOfMemory {
        /// The limit.
        limit: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        last: Vec<String>,
    },
    /// A container was stopped at its time limit.
    #[error("the container was stopped after its timeout of {timeout}{hint}; its log is {}{}", log.display(), lines(last))]
    Timeout {
        /// The limit.
        timeout: Period,
        /// What may have kept it; empty, or after a semicolon.
        hint: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        last: Vec<String>,
    },
    /// An output is missing or incomplete.
    #[error("the container ended well, but output `{output}` {reason}; nothing is published; its log is {}", log.display())]
    Incomplete {
        /// The output.
        output: String,
        /// What is wrong.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// A configuration and the golden case of its artifact do not fit each other.
    #[error("configuration `{configuration}` cannot run the golden case of its artifact: {why}")]
    GoldenCase {
        /// The configuration.
        configuration: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A forecast of the golden case has another form than the expected one.
    #[error("output `{output}` is not what the golden case expects: {why}")]
    Differs {
        /// The output.
        output: String,
        /// What is different.
        why: String,
    },
    /// A complete output could not be brought to its store.
    #[error("{source}; the complete output is kept in {}", kept.display())]
    Unpublished {
        /// Where it is kept.
        kept: PathBuf,
        /// Why.
        source: mlwm_storage::Error,
    },
    /// Windows could not be brought to their stores, and there is no space for another one.
    #[error(
        "{source}; the windows that were not sent are kept in {} until the member is made again, and leave no space for another one", kept.display()
    )]
    Unsent {
        /// Where they are kept.
        kept: PathBuf,
        /// Why.
        source: mlwm_storage::Error,
    },
    /// What is published is not what its manifest says.
    #[error(
        "{uri} is published, but {damage}: what its manifest records is damaged; --republish makes it again"
    )]
    Damaged {
        /// The output.
        uri: String,
        /// What is wrong.
        damage: String,
    },
    /// Stopped by a signal.
    #[error("interrupted: nothing of this task is published; the same command starts it again")]
    Interrupted,
    /// What is no table of prices.
    #[error(transparent)]
    Prices(mlwm_spec::yaml::YamlError),
    /// A part of mlwm ended in a way it must not.
    #[error("a worker of mlwm ended unexpectedly: {0}; please report this")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    /// The exit code that says why.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_)
            | Self::Prices(_)
            | Self::NoSuchConfiguration { .. }
            | Self::NoConfigurations(_)
            | Self::Uri { .. }
            | Self::NoForecastDuration(_)
            | Self::ForecastDuration { .. }
            | Self::Contract { .. }
            | Self::UnknownDatastoreInput { .. }
            | Self::UnfedDatastoreInputs { .. }
            | Self::NotPredicted { .. }
            | Self::GoldenCase { .. }
            | Self::BadPlan { .. }
            | Self::Twice(_)
            | Self::Circle(_)
            | Self::ReadsEnsemble { .. }
            | Self::ReadsPartly { .. }
            | Self::NoState { .. }
            | Self::Command { .. }
            | Self::NoCredential { .. }
            | Self::NoSuchStep { .. }
            | Self::Step { .. }
            | Self::Grib { .. }
            | Self::SharedOutput { .. } => ExitCode::BadConfiguration,
            Self::Folder { .. } => ExitCode::BadConfiguration,
            Self::PinMismatch { .. }
            | Self::ImageArtifact { .. }
            | Self::ImageDelivery { .. }
            | Self::Statistics(_) => ExitCode::ArtifactMismatch,
            Self::Artifact(source) => source.exit_code(),
            Self::Registry(source) => source.exit_code(),
            Self::Engine(source) => source.exit_code(),
            Self::Storage(source)
            | Self::Unpublished { source, .. }
            | Self::Unsent { source, .. } => source.exit_code(),
            Self::Preflight { source, .. } => source.exit_code(),
            Self::State { source, .. } => source.exit_code(),
            Self::ImageMissing { .. } | Self::ConverterMissing { .. } => ExitCode::ImageMissing,
            Self::GpuMemory(_) => ExitCode::EngineUnavailable,
            Self::Convert { source, .. } => source.exit_code(),
            Self::Converted { .. } => ExitCode::Incomplete,
            Self::Published { .. } | Self::Damaged { .. } | Self::TakenOver { .. } => {
                ExitCode::Conflict
            }
            Self::OtherAnalysisTime { .. } => ExitCode::InputCorrupt,
            Self::Replay { .. } => ExitCode::InputMissing,
            Self::Ledger(source) => source.exit_code(),
            Self::Scratch { .. }
            | Self::CredentialsEnded { .. }
            | Self::CredentialsShort { .. }
            | Self::DiskShort { .. }
            | Self::DiskReserve { .. } => ExitCode::StorageFailed,
            Self::DiskLimit { .. } | Self::WindowsOverran { .. } => ExitCode::ContainerFailed,
            Self::ContainerFailed { .. } | Self::MemberFailed { .. } | Self::EndedEarly { .. } => {
                ExitCode::ContainerFailed
            }
            Self::OutOfMemory { .. } => ExitCode::OutOfMemory,
            Self::Windows { .. }
            | Self::InputsTooLarge { .. }
            | Self::WindowTooLarge { .. }
            | Self::KeptTooLarge { .. } => ExitCode::BadConfiguration,
            Self::NoSpaceForWindow { .. } | Self::NoSpaceLeft { .. } => ExitCode::StorageFailed,
            Self::OtherContainer(_) => ExitCode::ImageMissing,
            Self::UnknownWindow(_) | Self::WindowMissing(_) | Self::BadWindow { .. } => {
                ExitCode::Incomplete
            }
            Self::Window(error) => error.exit_code(),
            Self::Eccodes(error) => error.exit_code(),
            Self::Timeout { .. } => ExitCode::Timeout,
            Self::Incomplete { .. } | Self::Quorum { .. } | Self::Products { .. } => {
                ExitCode::Incomplete
            }
            Self::MixedMembers { .. }
            | Self::ReadOtherwise { .. }
            | Self::MadeAgain(_)
            | Self::ReadFurther(_) => ExitCode::Conflict,
            Self::Ensemble(error) => error.exit_code(),
            Self::Differs { .. } => ExitCode::Differs,
            Self::NotMade { code, .. } => *code,
            Self::Interrupted => ExitCode::Interrupted,
            Self::Json(_) | Self::Worker(_) => ExitCode::Failed,
        }
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

fn lines(last: &[String]) -> String {
    match last {
        [] => "; it printed nothing".to_owned(),
        last => format!("; its last lines:\n  {}", last.join("\n  ")),
    }
}

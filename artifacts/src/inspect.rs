//! What an artifact holds, for people and for scripts.

use mlwm_spec::interface::InputRole;
use mlwm_spec::{Digest, Interface};
use serde::Serialize;

use crate::artifact::Artifact;
use crate::error::{Error, io_error};
use crate::layout::{CHECKPOINT_PICKLE, TRAINING_ARGUMENTS, statistics_member};
use crate::pickle::{self, Checkpoint, CheckpointPolicy, Global};
use crate::record::{FORMAT_VERSION, FileEntry};
use crate::source::Window;
use crate::statistics::TrainingStatistics;

/// What is in an artifact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Its name.
    pub name: String,
    /// Version of its format; none for an artifact of the Python tool.
    pub format_version: Option<u32>,
    /// The version of mlwm that wrote it; none for an artifact of the Python tool.
    pub mlwm_version: Option<String>,
    /// SHA-256 of the zip, where it is known: it takes reading all of it.
    pub digest: Option<Digest>,
    /// Identity of its contents, however packed; none for an artifact of the Python tool.
    pub set_digest: Option<Digest>,
    /// Size of the zip in bytes.
    pub size: u64,
    /// Sum of the sizes of its files in bytes.
    pub content_size: u64,
    /// All files, in the order they lie in.
    pub files: Vec<FileEntry>,
    /// Its datastores, in the order of the neural-lam configuration.
    pub datastores: Vec<DatastoreFacts>,
    /// What the model needs, without the coordinates of its grids, if that is declared.
    pub interface: Option<Interface>,
    /// Whether it holds the arguments of the training command.
    pub has_training_arguments: bool,
    /// Its PyTorch checkpoint, if it has one.
    pub checkpoint: Option<CheckpointFacts>,
}

/// A datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatastoreFacts {
    /// Its name.
    pub name: String,
    /// The variables that there are statistics of.
    pub variables: Vec<VariableFacts>,
}

/// A variable of a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VariableFacts {
    /// Its name, such as `state`.
    pub name: String,
    /// Names of its features, in order.
    pub features: Vec<String>,
}

/// What is known about a checkpoint without running anything of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointFacts {
    /// How it is stored and what loading it imports; none if it cannot be followed.
    pub contents: Option<Checkpoint>,
    /// Why it cannot be followed.
    pub fault: Option<String>,
    /// What it imports that is not on the list of what is known to be harmless.
    pub not_on_the_list: Vec<Global>,
}

impl Inspection {
    /// Looks into an artifact. Of a remote one, only what this takes is read: for usual sizes, its
    /// end (which was read on opening) and the start of the checkpoint.
    pub fn of(artifact: &Artifact) -> Result<Self, Error> {
        Ok(Self {
            name: artifact.name().to_owned(),
            format_version: artifact.set_digest().map(|_| FORMAT_VERSION),
            mlwm_version: artifact.mlwm_version().map(str::to_owned),
            digest: artifact.known_digest(),
            set_digest: artifact.set_digest(),
            size: artifact.size(),
            content_size: artifact.files().iter().map(|file| file.size).sum(),
            files: artifact.files().to_vec(),
            datastores: datastores(artifact)?,
            interface: artifact.interface()?.map(without_coordinates),
            has_training_arguments: artifact.contains(TRAINING_ARGUMENTS),
            checkpoint: match artifact.contains(CHECKPOINT_PICKLE) {
                true => Some(checkpoint(artifact)?),
                false => None,
            },
        })
    }
}

/// The names of features are those of the statistics, which were taken from the training dataset:
/// a configuration alone may leave them to its sources.
fn datastores(artifact: &Artifact) -> Result<Vec<DatastoreFacts>, Error> {
    let scratch =
        tempfile::tempdir().map_err(io_error("create a file in", std::env::temp_dir()))?;
    let mut found = Vec::new();
    for (name, _) in artifact.datastores()? {
        let member = statistics_member(&name);
        artifact.extract_scratch(scratch.path(), &member)?;
        let statistics = TrainingStatistics::open(&name, &scratch.path().join(&member))?;
        let mut variables = Vec::new();
        for variable in statistics.variables() {
            let features = statistics.features(&variable)?.unwrap_or_default();
            variables.push(VariableFacts {
                name: variable,
                features,
            });
        }
        found.push(DatastoreFacts { name, variables });
    }
    Ok(found)
}

fn without_coordinates(mut interface: Interface) -> Interface {
    interface.grid.coordinates.clear();
    for input in &mut interface.inputs {
        let (InputRole::Forcing { grid, .. } | InputRole::Static { grid, .. }) = &mut input.role
        else {
            continue;
        };
        if let Some(grid) = grid {
            grid.coordinates.clear();
        }
    }
    interface
}

fn checkpoint(artifact: &Artifact) -> Result<CheckpointFacts, Error> {
    let (start, size) = artifact.place(CHECKPOINT_PICKLE)?;
    let window = Window::new(artifact.source(), start, size);
    match pickle::inspect(window, size) {
        Ok(contents) => {
            let policy = CheckpointPolicy::default();
            let refused = policy.refused(&contents.globals);
            Ok(CheckpointFacts {
                not_on_the_list: refused
                    .into_iter()
                    .map(|(global, _)| global.clone())
                    .collect(),
                contents: Some(contents),
                fault: None,
            })
        }
        Err(pickle::PickleError::Io(error)) => Err(io_error("read", artifact.path())(error)),
        Err(fault) => Ok(CheckpointFacts {
            contents: None,
            fault: Some(fault.to_string()),
            not_on_the_list: Vec::new(),
        }),
    }
}

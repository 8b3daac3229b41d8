//! Building an artifact from what a training run left.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use mlwm_spec::{Digest, Interface};

use crate::agreement;
use crate::checkpoint;
use crate::datastores::{Datastore, NeuralLam, read_text, require_file};
use crate::error::{Error, io_error};
use crate::facts::{self, Given};
use crate::layout::{
    CHECKPOINT_ONNX, CHECKPOINT_PICKLE, INTERFACE_JSON, NEURAL_LAM_CONFIG, TRAINING_ARGUMENTS,
    datastore_config_member, is_artifact_name, name_fault, statistics_member,
};
use crate::onnx::{self, OnnxSignature};
use crate::pack::{self, Content};
use crate::provenance;
use crate::record::FileEntry;
use crate::training::TrainingArguments;

/// What an artifact is built from. At least one of `checkpoint` and `onnx` is needed; `onnx` and
/// `interface` belong together.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Name of the artifact: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The neural-lam configuration. Paths of datastore configurations in it are relative to its
    /// folder; training datasets lie beside those.
    pub nl_config: PathBuf,
    /// The PyTorch or Lightning checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The arguments of the training command, as YAML.
    pub training_args: PathBuf,
    /// The step model as ONNX.
    pub onnx: Option<PathBuf>,
    /// Its interface, or the export facts that one can be made from, as JSON.
    pub interface: Option<PathBuf>,
    /// The zip to write (ends in `.zip`), or a folder to write `<name>.zip` in.
    pub output: PathBuf,
    /// The command line, for the provenance beside the zip.
    pub arguments: Vec<String>,
}

/// An artifact that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The zip.
    pub path: PathBuf,
    /// Its SHA-256.
    pub digest: Digest,
    /// The files in it, `artifact.yaml` last.
    pub files: Vec<FileEntry>,
    /// Size of the zip.
    pub bytes: u64,
    /// The provenance beside it.
    pub provenance: PathBuf,
    /// The same artifact was already there and was left alone.
    pub unchanged: bool,
}

/// Builds an artifact. Everything is checked before anything is written: names, files, that
/// statistics, feature names, grid, ONNX model, training arguments and interface agree.
pub fn build(request: &BuildRequest) -> Result<Built, Error> {
    let destination = destination(request)?;
    require_sources(request)?;
    let training_text = read_text(&request.training_args)?;
    let arguments =
        TrainingArguments::parse(&training_text, &request.training_args.display().to_string())?;
    if let Some(checkpoint) = &request.checkpoint {
        checkpoint::check(checkpoint)?;
    }
    let scratch = tempfile::tempdir().map_err(io_error("create", std::env::temp_dir()))?;
    let neural_lam = NeuralLam::read(&request.nl_config, scratch.path())?;
    agreement::check_datastores(&neural_lam.datastores)?;
    let model = match (&request.onnx, &request.interface) {
        (Some(onnx), Some(interface)) => Some(read_model(
            onnx,
            interface,
            &neural_lam.datastores,
            &arguments,
        )?),
        _ => {
            agreement::check_state_statistics(&neural_lam.datastores)?;
            None
        }
    };

    let members = members(request, &neural_lam, model)?;
    let packed = pack::pack(&request.name, &members, &destination)?;
    let provenance_path = provenance::path(&destination);
    if !packed.unchanged || !provenance_path.exists() {
        provenance::write(request, &destination, packed.digest)?;
    }
    Ok(Built {
        path: destination,
        digest: packed.digest,
        files: packed.files,
        bytes: packed.bytes,
        provenance: provenance_path,
        unchanged: packed.unchanged,
    })
}

fn destination(request: &BuildRequest) -> Result<PathBuf, Error> {
    if !is_artifact_name(&request.name) {
        return Err(Error::Name(request.name.clone()));
    }
    let is_zip = request.output.extension().is_some_and(|e| e == "zip");
    if is_zip && !request.output.is_dir() {
        return Ok(request.output.clone());
    }
    Ok(request.output.join(format!("{}.zip", request.name)))
}

fn require_sources(request: &BuildRequest) -> Result<(), Error> {
    match (&request.checkpoint, &request.onnx, &request.interface) {
        (_, Some(_), None) => return Err(Error::NoInterface),
        (_, None, Some(_)) => return Err(Error::NoOnnx),
        (None, None, None) => return Err(Error::NoModel),
        _ => {}
    }
    require_file("neural-lam configuration", &request.nl_config)?;
    require_file("file of training arguments", &request.training_args)?;
    let optional = [
        ("checkpoint", &request.checkpoint),
        ("ONNX file", &request.onnx),
        ("interface", &request.interface),
    ];
    for (what, path) in optional {
        if let Some(path) = path {
            require_file(what, path)?;
        }
    }
    Ok(())
}

/// The text of `interface.json`, once model, interface, datastores and training arguments agree.
fn read_model(
    onnx: &Path,
    interface: &Path,
    datastores: &[Datastore],
    arguments: &TrainingArguments,
) -> Result<String, Error> {
    let signature = read_signature(onnx)?;
    let source_name = interface.display().to_string();
    let text = read_text(interface)?;
    let (interface, text) = match facts::parse_given(&text, &source_name)? {
        Given::Interface(interface) => (*interface, text),
        Given::Facts(facts) => {
            let interface = facts::interface_from_facts(&facts, datastores, &signature)?;
            let text = to_json(&interface, &source_name)?;
            (interface, text)
        }
    };
    agreement::check_interface(&interface, datastores, &signature)?;
    agreement::check_training_arguments(&interface, arguments)?;
    Ok(text)
}

fn read_signature(path: &Path) -> Result<OnnxSignature, Error> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let length = file.metadata().map_err(io_error("open", path))?.len();
    onnx::read_signature(file, length).map_err(|source| Error::Onnx {
        path: path.to_owned(),
        source,
    })
}

fn to_json(interface: &Interface, source_name: &str) -> Result<String, Error> {
    serde_json::to_string_pretty(interface)
        .map(|text| text + "\n")
        .map_err(|error| Error::InterfaceFile {
            path: source_name.to_owned(),
            why: error.to_string(),
        })
}

fn members(
    request: &BuildRequest,
    neural_lam: &NeuralLam,
    interface: Option<String>,
) -> Result<BTreeMap<String, Content>, Error> {
    let mut members = BTreeMap::new();
    let mut add = |name: &str, content| members.insert(name.to_owned(), content);
    add(
        NEURAL_LAM_CONFIG,
        Content::Bytes(neural_lam.text.clone().into_bytes()),
    );
    add(
        TRAINING_ARGUMENTS,
        Content::File(request.training_args.clone()),
    );
    if let Some(checkpoint) = &request.checkpoint {
        add(CHECKPOINT_PICKLE, Content::File(checkpoint.clone()));
    }
    if let (Some(onnx), Some(interface)) = (&request.onnx, interface) {
        add(CHECKPOINT_ONNX, Content::File(onnx.clone()));
        add(INTERFACE_JSON, Content::Bytes(interface.into_bytes()));
    }
    for datastore in &neural_lam.datastores {
        let config = Content::File(datastore.config_path.clone());
        add(&datastore_config_member(&datastore.name), config);
    }
    for datastore in &neural_lam.datastores {
        let folder = statistics_member(&datastore.name);
        pack::add_folder(&mut members, &datastore.extracted, &folder)?;
    }
    match members
        .keys()
        .find_map(|name| Some((name, name_fault(name)?)))
    {
        None => Ok(members),
        Some((name, fault)) => Err(Error::Disagreement(format!(
            "the training dataset has a variable that cannot be packed: the name `{name}` {fault}"
        ))),
    }
}

//! Building an artifact from what a training run left.

use std::fs::File;
use std::path::{Path, PathBuf};

use mlwm_spec::{Digest, Interface};

use crate::agreement;
use crate::checkpoint;
use crate::datastores::{Datastore, NeuralLam, read_text, require_file};
use crate::error::{Error, io_error};
use crate::facts::{self, Given};
use crate::framing;
use crate::layout::{
    CHECKPOINT_ONNX, CHECKPOINT_PICKLE, INTERFACE_JSON, NEURAL_LAM_CONFIG, TRAINING_ARGUMENTS,
    datastore_config_member, is_artifact_name, name_fault, statistics_member,
};
use crate::onnx::{self, OnnxSignature};
use crate::pack::{self, Content, Packing, Planned};
use crate::pickle::CheckpointPolicy;
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
    /// What the checkpoint may import besides what is known to be harmless.
    pub checkpoint_policy: CheckpointPolicy,
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
    /// SHA-256 over names and hashes of its files (format §3).
    pub set_digest: Digest,
    /// The files in it, `artifact.yaml` last.
    pub files: Vec<FileEntry>,
    /// Size of the zip.
    pub bytes: u64,
    /// The provenance beside it.
    pub provenance: PathBuf,
    /// The same artifact was already there and was left alone.
    pub unchanged: bool,
}

/// Checks everything that an artifact is built from, and plans the zip: names, files, that
/// statistics, feature names, grid, ONNX model, training arguments and interface agree. Writes
/// nothing but scratch files, which live as long as the [`Packing`].
pub fn prepare(request: &BuildRequest) -> Result<Packing, Error> {
    if !is_artifact_name(&request.name) {
        return Err(Error::Name(request.name.clone()));
    }
    require_sources(request)?;
    let training_text = read_text(&request.training_args)?;
    let arguments =
        TrainingArguments::parse(&training_text, &request.training_args.display().to_string())?;
    let checkpoint = match &request.checkpoint {
        Some(path) => Some(checkpoint::check(path, &request.checkpoint_policy)?),
        None => None,
    };
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
    Packing::new(request.clone(), checkpoint, members, scratch)
}

/// Builds an artifact: prepares it, writes the zip, and its provenance beside it (format §4).
pub fn build(request: &BuildRequest) -> Result<Built, Error> {
    let packing = prepare(request)?;
    let destination = destination(request);
    let packed = packing.write_file(&destination)?;
    let provenance = provenance::path(&destination);
    if !packed.unchanged || !provenance.exists() {
        provenance::write(&packing.provenance(packed.digest)?, &provenance)?;
    }
    Ok(Built {
        path: destination,
        digest: packed.digest,
        set_digest: packed.set_digest,
        files: packed.files,
        bytes: packed.bytes,
        provenance,
        unchanged: packed.unchanged,
    })
}

fn destination(request: &BuildRequest) -> PathBuf {
    let is_zip = request.output.extension().is_some_and(|e| e == "zip");
    if is_zip && !request.output.is_dir() {
        return request.output.clone();
    }
    request.output.join(format!("{}.zip", request.name))
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
) -> Result<Vec<Planned>, Error> {
    let mut members = Vec::new();
    let mut add = |name: &str, source: &Path, content: Content| {
        members.push(Planned {
            name: name.to_owned(),
            source: source.to_owned(),
            content,
        });
    };
    let text = neural_lam.text.clone().into_bytes();
    add(NEURAL_LAM_CONFIG, &request.nl_config, Content::Bytes(text));
    let arguments = &request.training_args;
    add(TRAINING_ARGUMENTS, arguments, Content::file(arguments)?);
    if let Some(checkpoint) = &request.checkpoint {
        add(CHECKPOINT_PICKLE, checkpoint, Content::file(checkpoint)?);
    }
    if let (Some(onnx), Some(source), Some(text)) = (&request.onnx, &request.interface, interface) {
        add(CHECKPOINT_ONNX, onnx, Content::file(onnx)?);
        add(INTERFACE_JSON, source, Content::Bytes(text.into_bytes()));
    }
    for datastore in &neural_lam.datastores {
        let (name, path) = (
            datastore_config_member(&datastore.name),
            &datastore.config_path,
        );
        add(&name, path, Content::file(path)?);
    }
    for datastore in &neural_lam.datastores {
        let folder = statistics_member(&datastore.name);
        pack::add_folder(
            &mut members,
            &datastore.extracted,
            &folder,
            &datastore.training,
        )?;
    }
    members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    check_names(&members)?;
    Ok(members)
}

/// Names come from datastores and from variables of training datasets, which may be called
/// anything.
fn check_names(members: &[Planned]) -> Result<(), Error> {
    let names = || members.iter().map(|member| member.name.as_str());
    if let Some((name, fault)) = names().find_map(|name| Some((name, name_fault(name)?))) {
        return Err(Error::Disagreement(format!(
            "the training dataset has a variable that cannot be packed: the name `{name}` {fault}"
        )));
    }
    if let Some((name, (other, why))) = framing::clash(names()) {
        return Err(Error::Disagreement(format!(
            "datastores or variables of the training dataset cannot be packed beside each other: `{other}` and `{name}` {why}"
        )));
    }
    Ok(())
}

//! Building an artifact from what a training run left.

use std::path::PathBuf;

use mlwm_spec::{Digest, Interface};

use crate::agreement;
use crate::checkpoint;
use crate::datastores::{Datastore, NeuralLam, require_file};
use crate::error::{Error, io_error};
use crate::facts;
use crate::file;
use crate::framing;
use crate::golden;
use crate::input::Input;
use crate::layout::{
    CHECKPOINT_ONNX, CHECKPOINT_PICKLE, INTERFACE_JSON, NEURAL_LAM_CONFIG, TRAINING_ARGUMENTS,
    datastore_config_member, is_artifact_name, name_fault, statistics_member,
};
use crate::onnx::{self, OnnxSignature};
use crate::pack::{self, Packing, Planned};
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
    /// The folder of its golden case (format §10).
    pub golden: Option<PathBuf>,
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
    let given = Given::of(request)?;
    let source_name = request.training_args.display().to_string();
    let arguments = TrainingArguments::parse(&given.training_args.read_text()?, &source_name)?;
    let checkpoint = match &given.checkpoint {
        Some(file) => Some(checkpoint::check(file, &request.checkpoint_policy)?),
        None => None,
    };
    let scratch =
        tempfile::tempdir().map_err(io_error("create a file in", std::env::temp_dir()))?;
    let neural_lam = NeuralLam::read(&given.nl_config, scratch.path())?;
    agreement::check_datastores(&neural_lam.datastores)?;
    let model = match &given.model {
        Some((onnx, interface)) => Some(read_model(
            onnx,
            interface,
            &neural_lam.datastores,
            &arguments,
        )?),
        None => {
            agreement::check_state_statistics(&neural_lam.datastores)?;
            None
        }
    };
    if let Some(golden) = &given.golden {
        let interface = model.as_ref().map(|(interface, _)| interface);
        golden.check(&neural_lam.datastores, interface)?;
    }
    let members = members(given, neural_lam, model.map(|(_, text)| text))?;
    Packing::new(request.clone(), checkpoint, members, scratch)
}

/// Builds an artifact: prepares it, writes the zip, and its provenance beside it (format §4).
pub fn build(request: &BuildRequest) -> Result<Built, Error> {
    let packing = prepare(request)?;
    let destination = destination(request);
    let workplace = file::workplace(&destination)?;
    let packed = packing.write_in(&workplace, &destination)?;
    let provenance = provenance::path(&destination);
    if !packed.unchanged || !provenance.exists() {
        provenance::write(&packing.provenance(packed.digest)?, &provenance, &workplace)?;
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

/// The files of a request, taken before anything in them is looked at.
struct Given {
    nl_config: Input,
    training_args: Input,
    checkpoint: Option<Input>,
    /// The ONNX file and its interface.
    model: Option<(Input, Input)>,
    golden: Option<golden::Given>,
}

impl Given {
    fn of(request: &BuildRequest) -> Result<Self, Error> {
        let model = match (&request.onnx, &request.interface) {
            (Some(_), None) => return Err(Error::NoInterface),
            (None, Some(_)) => return Err(Error::NoOnnx),
            (None, None) if request.checkpoint.is_none() => return Err(Error::NoModel),
            (Some(onnx), Some(interface)) => Some((onnx, interface)),
            (None, None) => None,
        };
        let file = |what, path: &PathBuf| {
            require_file(what, path)?;
            Input::at(path)
        };
        Ok(Self {
            nl_config: file("neural-lam configuration", &request.nl_config)?,
            training_args: file("file of training arguments", &request.training_args)?,
            checkpoint: match &request.checkpoint {
                Some(path) => Some(file("checkpoint", path)?),
                None => None,
            },
            model: match model {
                Some((onnx, interface)) => {
                    Some((file("ONNX file", onnx)?, file("interface", interface)?))
                }
                None => None,
            },
            golden: match &request.golden {
                Some(folder) => Some(golden::Given::of(folder)?),
                None => None,
            },
        })
    }
}

/// The interface and the text of `interface.json`, once model, interface, datastores and training arguments agree.
fn read_model(
    onnx: &Input,
    interface: &Input,
    datastores: &[Datastore],
    arguments: &TrainingArguments,
) -> Result<(Interface, String), Error> {
    let signature = read_signature(onnx)?;
    let source_name = interface.path().display().to_string();
    let text = interface.read_text()?;
    let (interface, text) = match facts::parse_given(&text, &source_name)? {
        facts::Given::Interface(interface) => (*interface, text),
        facts::Given::Facts(facts) => {
            let interface = facts::interface_from_facts(&facts, datastores, &signature)?;
            let text = to_json(&interface, &source_name)?;
            (interface, text)
        }
    };
    agreement::check_interface(&interface, datastores, &signature)?;
    agreement::check_training_arguments(&interface, arguments)?;
    Ok((interface, text))
}

fn read_signature(file: &Input) -> Result<OnnxSignature, Error> {
    onnx::read_signature(file.open()?, file.size()).map_err(|source| Error::Onnx {
        path: file.path().to_owned(),
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
    given: Given,
    neural_lam: NeuralLam,
    interface: Option<String>,
) -> Result<Vec<Planned>, Error> {
    let mut members = vec![
        Planned::text(NEURAL_LAM_CONFIG, neural_lam.text, given.nl_config),
        Planned::file(TRAINING_ARGUMENTS, given.training_args),
    ];
    if let Some(checkpoint) = given.checkpoint {
        members.push(Planned::file(CHECKPOINT_PICKLE, checkpoint));
    }
    if let (Some((onnx, source)), Some(text)) = (given.model, interface) {
        members.push(Planned::file(CHECKPOINT_ONNX, onnx));
        members.push(Planned::text(INTERFACE_JSON, text, source));
    }
    members.extend(given.golden.into_iter().flat_map(golden::Given::members));
    for datastore in neural_lam.datastores {
        let name = datastore_config_member(&datastore.name);
        members.push(Planned::file(&name, datastore.config_file));
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

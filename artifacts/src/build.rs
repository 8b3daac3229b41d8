//! Building an artifact from what a training run left.

use std::path::PathBuf;

use mlwm_spec::datastore::DATASTORE_SUFFIX;
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
    config_member, datastore_config_member, is_artifact_name, name_fault, statistics_member,
};
use crate::onnx::{self, OnnxSignature};
use crate::pack::{self, Packing, Planned};
use crate::pickle::CheckpointPolicy;
use crate::provenance;
use crate::record::FileEntry;
use crate::training::TrainingArguments;

/// What an artifact is built from. At least one of `checkpoint` and `onnx` is needed; `onnx` needs an
/// `interface`, and a checkpoint alone may have one of its own kind.
#[derive(Clone, Debug, Default)]
pub struct BuildRequest {
    /// Name of the artifact: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The neural-lam configuration. Paths of datastore configurations in it are relative to its
    /// folder; training datasets lie beside those. A model of another kind has none: its interface has
    /// an `input_state`, or its image brings its own program.
    pub nl_config: Option<PathBuf>,
    /// Further configurations, packed under their own names.
    pub configs: Vec<PathBuf>,
    /// The PyTorch or Lightning checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// What the checkpoint may import besides what is known to be harmless.
    pub checkpoint_policy: CheckpointPolicy,
    /// The arguments of the training command, as YAML; a neural-lam model needs them.
    pub training_args: Option<PathBuf>,
    /// The step model as ONNX.
    pub onnx: Option<PathBuf>,
    /// Its interface, or the export facts that one can be made from, as JSON. Without ONNX, an interface
    /// of version 4: what the checkpoint's program starts from.
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
    let arguments = match &given.training_args {
        Some(file) => {
            TrainingArguments::parse(&file.read_text()?, &file.path().display().to_string())?
        }
        None => TrainingArguments::default(),
    };
    let checkpoint = match &given.checkpoint {
        Some(file) => Some(checkpoint::check(file, &request.checkpoint_policy)?),
        None => None,
    };
    let scratch =
        tempfile::tempdir().map_err(io_error("create a file in", std::env::temp_dir()))?;
    let neural_lam = match &given.nl_config {
        Some(file) => Some(NeuralLam::read(file, scratch.path())?),
        None => None,
    };
    let datastores = neural_lam
        .as_ref()
        .map_or(&[][..], |found| &found.datastores);
    agreement::check_datastores(datastores)?;
    let interface = match &given.interface {
        Some(file) => Some(read_interface(
            file,
            given.onnx.as_ref(),
            datastores,
            &arguments,
        )?),
        None => {
            if neural_lam.is_some() {
                agreement::check_state_statistics(datastores)?;
            }
            None
        }
    };
    if let Some(golden) = &given.golden {
        let interface = interface.as_ref().map(|(interface, _)| interface);
        golden.check(datastores, interface)?;
    }
    let members = members(given, neural_lam, interface.map(|(_, text)| text))?;
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
    nl_config: Option<Input>,
    configs: Vec<Input>,
    training_args: Option<Input>,
    checkpoint: Option<Input>,
    onnx: Option<Input>,
    /// There is one if there is an ONNX file.
    interface: Option<Input>,
    golden: Option<golden::Given>,
}

impl Given {
    fn of(request: &BuildRequest) -> Result<Self, Error> {
        match (&request.onnx, &request.interface) {
            (Some(_), None) => return Err(Error::NoInterface),
            (None, _) if request.checkpoint.is_none() => return Err(Error::NoModel),
            _ => {}
        }
        if request.nl_config.is_some() && request.training_args.is_none() {
            return Err(Error::NoTrainingArguments);
        }
        let file = |what, path: &PathBuf| {
            require_file(what, path)?;
            Input::at(path)
        };
        let optional = |what, path: &Option<PathBuf>| path.as_ref().map(|path| file(what, path));
        let configs = request.configs.iter();
        Ok(Self {
            nl_config: optional("neural-lam configuration", &request.nl_config).transpose()?,
            configs: configs
                .map(|path| file("configuration", path))
                .collect::<Result<_, _>>()?,
            training_args: optional("file of training arguments", &request.training_args)
                .transpose()?,
            checkpoint: optional("checkpoint", &request.checkpoint).transpose()?,
            onnx: optional("ONNX file", &request.onnx).transpose()?,
            interface: optional("interface", &request.interface).transpose()?,
            golden: match &request.golden {
                Some(folder) => Some(golden::Given::of(folder)?),
                None => None,
            },
        })
    }
}

/// The interface and the text of `interface.json`, once model, interface, datastores and training arguments agree.
fn read_interface(
    file: &Input,
    onnx: Option<&Input>,
    datastores: &[Datastore],
    arguments: &TrainingArguments,
) -> Result<(Interface, String), Error> {
    let source_name = file.path().display().to_string();
    let text = file.read_text()?;
    let given = facts::parse_given(&text, &source_name)?;
    let onnx = match (onnx, &given) {
        (None, facts::Given::Interface(interface)) if interface.program.is_some() => {
            agreement::check_no_datastores(datastores)?;
            return Ok((*interface.clone(), text));
        }
        (None, _) => return Err(Error::NoOnnx(source_name)),
        (Some(_), facts::Given::Interface(interface)) if interface.program.is_some() => {
            return Err(Error::OnnxNotDescribed(source_name));
        }
        (Some(onnx), _) => onnx,
    };
    let signature = read_signature(onnx)?;
    let (interface, text) = match given {
        facts::Given::Interface(interface) => (*interface, text),
        facts::Given::Facts(_) if datastores.is_empty() => return Err(Error::NoDatastores),
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
    neural_lam: Option<NeuralLam>,
    interface: Option<String>,
) -> Result<Vec<Planned>, Error> {
    let mut members = Vec::new();
    if let Some(arguments) = given.training_args {
        members.push(Planned::file(TRAINING_ARGUMENTS, arguments));
    }
    for config in given.configs {
        let name = config.path().file_name().unwrap_or_default();
        let member = config_member(&name.to_string_lossy());
        // Read as what neural-lam has, which it is not.
        if member == NEURAL_LAM_CONFIG || member.ends_with(DATASTORE_SUFFIX) {
            return Err(Error::Disagreement(format!(
                "`{member}` is the name of a configuration of neural-lam: give that with --nl-config, or call this one otherwise"
            )));
        }
        members.push(Planned::file(&member, config));
    }
    if let Some(checkpoint) = given.checkpoint {
        members.push(Planned::file(CHECKPOINT_PICKLE, checkpoint));
    }
    if let Some(onnx) = given.onnx {
        members.push(Planned::file(CHECKPOINT_ONNX, onnx));
    }
    if let (Some(source), Some(text)) = (given.interface, interface) {
        members.push(Planned::text(INTERFACE_JSON, text, source));
    }
    members.extend(given.golden.into_iter().flat_map(golden::Given::members));
    let mut datastores = Vec::new();
    if let (Some(neural_lam), Some(source)) = (neural_lam, given.nl_config) {
        members.push(Planned::text(NEURAL_LAM_CONFIG, neural_lam.text, source));
        datastores = neural_lam.datastores;
    }
    for datastore in datastores {
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

/// Names come from configurations, datastores and variables of training datasets, which may be called
/// anything.
fn check_names(members: &[Planned]) -> Result<(), Error> {
    let names = || members.iter().map(|member| member.name.as_str());
    if let Some((name, fault)) = names().find_map(|name| Some((name, name_fault(name)?))) {
        return Err(Error::Disagreement(format!(
            "a configuration, or a variable of a training dataset, cannot be packed: the name `{name}` {fault}"
        )));
    }
    if let Some((name, (other, why))) = framing::clash(names()) {
        return Err(Error::Disagreement(format!(
            "configurations, datastores or variables of a training dataset cannot be packed beside each other: `{other}` and `{name}` {why}"
        )));
    }
    Ok(())
}

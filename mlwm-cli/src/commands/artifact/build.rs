//! `mlwm artifact build`: from a training run to one zip.

use std::path::PathBuf;

use clap::Args;
use indicatif::HumanBytes;
use mlwm_artifacts::BuildRequest;
use mlwm_spec::ExitCode;

use crate::Outcome;

/// Pack checkpoint, configurations, training arguments and statistics into one zip.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name of the artifact, such as `gefion-1`.
    name: String,
    /// neural-lam configuration; the datastore configurations it names, and their training
    /// datasets, are found from it.
    #[arg(long, alias = "nl_config", value_name = "FILE")]
    nl_config: PathBuf,
    /// PyTorch or Lightning checkpoint, for images that run Python.
    #[arg(long, value_name = "FILE", required_unless_present = "onnx")]
    checkpoint: Option<PathBuf>,
    /// Command-line arguments of the training, as YAML.
    #[arg(long, alias = "cli_training_args_filepath", value_name = "FILE")]
    training_args: PathBuf,
    /// The model as ONNX, for the built-in runner.
    #[arg(long, value_name = "FILE", requires = "interface")]
    onnx: Option<PathBuf>,
    /// What the ONNX model needs besides its weights: an interface, or the facts that the export
    /// wrote.
    #[arg(long, value_name = "FILE", requires = "onnx")]
    interface: Option<PathBuf>,
    /// Zip to write, or the folder to write `<name>.zip` into.
    #[arg(long, short, value_name = "PATH", default_value = ".")]
    output: PathBuf,
    /// Keep the artifact on this machine. It is what happens anyway: uploading is a step of its
    /// own. Accepted for scripts that say it.
    #[arg(long, alias = "skip_upload")]
    skip_upload: bool,
}

pub(crate) fn main(arguments: Arguments) -> Outcome {
    let built = mlwm_artifacts::build(&BuildRequest {
        name: arguments.name,
        nl_config: arguments.nl_config,
        checkpoint: arguments.checkpoint,
        training_args: arguments.training_args,
        onnx: arguments.onnx,
        interface: arguments.interface,
        output: arguments.output,
        arguments: std::env::args().skip(1).collect(),
    })?;
    say!(
        "{}: {} files, {}",
        built.path.display(),
        built.files.len(),
        HumanBytes(built.bytes)
    );
    say!("{}", built.digest);
    Ok(ExitCode::Ok)
}

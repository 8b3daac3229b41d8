//! `mlwm artifact build`: from a training run to one zip.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indicatif::HumanBytes;
use mlwm_artifacts::pickle::CheckpointPolicy;
use mlwm_artifacts::{BuildRequest, Packing};
use mlwm_registries::{PushContent, PushRequest, Registry};
use mlwm_spec::{ExitCode, Tag};

use super::push::tell;
use super::registry::{registry, with_transfer};
use crate::Outcome;

/// Pack checkpoint, configurations, training arguments and statistics into one zip.
///
/// Everything is checked before anything is written, and the checkpoint is inspected without
/// running anything of it. The same inputs give the same bytes.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact build gefion-1 --nl-config config.yaml --checkpoint last.ckpt \\\n      --training-args training_cli_args.yaml --push s3://bucket/models"
)]
pub(crate) struct Arguments {
    /// Name of the artifact, such as `gefion-1`.
    name: String,
    /// neural-lam configuration; the datastore configurations it names, and their training
    /// datasets, are found from it. A model of another kind has none.
    #[arg(
        long,
        alias = "nl_config",
        value_name = "FILE",
        requires = "training_args"
    )]
    nl_config: Option<PathBuf>,
    /// Another configuration to pack, as `configs/<its file name>`; may be given several times.
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,
    /// PyTorch or Lightning checkpoint, for images that run Python.
    #[arg(long, value_name = "FILE", required_unless_present = "onnx")]
    checkpoint: Option<PathBuf>,
    /// Command-line arguments of the training, as YAML; a neural-lam model needs them.
    #[arg(long, alias = "cli_training_args_filepath", value_name = "FILE")]
    training_args: Option<PathBuf>,
    /// The model as ONNX, for the built-in runner.
    #[arg(long, value_name = "FILE", requires = "interface")]
    onnx: Option<PathBuf>,
    /// What the ONNX model needs besides its weights: an interface, or the facts that the export
    /// wrote. For a checkpoint without ONNX, an interface that declares the state that its program
    /// starts from, which is checked before a container is started.
    #[arg(long, value_name = "FILE")]
    interface: Option<PathBuf>,
    /// Folder of a golden case to pack: a small input, and the forecast that the model must make of
    /// it, which `mlwm image test` compares.
    #[arg(long, value_name = "FOLDER")]
    golden: Option<PathBuf>,
    /// Zip to write, or the folder to write `<name>.zip` into [default: this one].
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Import of the checkpoint to accept besides those that are known to be harmless:
    /// `module.name`, or `module.*`; may be given several times.
    #[arg(long, value_name = "GLOBAL")]
    allow_global: Vec<String>,
    /// Publish it in this registry while it is packed; no zip is written on this machine.
    #[arg(
        long,
        value_name = "REGISTRY",
        value_parser = registry,
        conflicts_with_all = ["output", "skip_upload"]
    )]
    push: Option<String>,
    /// Version to publish it as; without it, the name's own permanent publication.
    #[arg(long, requires = "push")]
    tag: Option<Tag>,
    /// Check everything, print what would be packed, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
    /// Keep the artifact on this machine. It is what happens anyway without --push. Accepted for
    /// scripts that say it.
    #[arg(long, alias = "skip_upload")]
    skip_upload: bool,
}

pub(crate) fn main(arguments: Arguments) -> Outcome {
    let request = BuildRequest {
        name: arguments.name,
        nl_config: arguments.nl_config,
        configs: arguments.configs,
        checkpoint: arguments.checkpoint,
        checkpoint_policy: CheckpointPolicy {
            allow: arguments.allow_global,
        },
        training_args: arguments.training_args,
        onnx: arguments.onnx,
        interface: arguments.interface,
        golden: arguments.golden,
        output: arguments.output.unwrap_or_else(|| ".".into()),
        arguments: std::env::args().skip(1).collect(),
    };
    if arguments.dry_run {
        return show(&mlwm_artifacts::prepare(&request)?, arguments.json);
    }
    if let Some(uri) = &arguments.push {
        let packing = mlwm_artifacts::prepare(&request)?;
        let tag = arguments.tag.unwrap_or_else(Tag::latest);
        return publish(packing, uri, tag, arguments.json);
    }
    let built = mlwm_artifacts::build(&request)?;
    if arguments.json {
        let object = serde_json::json!({
            "path": built.path,
            "digest": built.digest,
            "set_digest": built.set_digest,
            "size": built.bytes,
            "files": built.files,
            "provenance": built.provenance,
            "unchanged": built.unchanged,
        });
        say!("{object:#}");
        return Ok(ExitCode::Ok);
    }
    say!(
        "{}: {} files, {}",
        built.path.display(),
        built.files.len(),
        HumanBytes(built.bytes)
    );
    say!("{}", built.digest);
    Ok(ExitCode::Ok)
}

/// Sends the zip to a registry while it is packed.
fn publish(packing: Packing, uri: &str, tag: Tag, json: bool) -> Outcome {
    let (registry, pushed) = with_transfer(async |options| {
        let registry = Registry::open(uri, options).await?;
        let pushed = registry
            .push(PushRequest {
                content: PushContent::Packing(Arc::new(packing)),
                publish_as: None,
                tag,
                provenance: None,
                signatures: Vec::new(),
            })
            .await?;
        Ok((registry, pushed))
    })?;
    tell(&registry, &pushed, json);
    Ok(ExitCode::Ok)
}

/// What would be packed.
fn show(packing: &Packing, json: bool) -> Outcome {
    let entries = packing.entries();
    if json {
        let object = serde_json::json!({
            "name": packing.name(),
            "size": packing.size(),
            "files": entries,
        });
        say!("{object:#}");
        return Ok(ExitCode::Ok);
    }
    for entry in &entries {
        let source = entry
            .source
            .as_deref()
            .map(|path| format!(" <- {}", path.display()));
        say!(
            "{:>12} {}{}",
            entry.size,
            entry.path,
            source.unwrap_or_default()
        );
    }
    let (files, size) = (entries.len(), HumanBytes(packing.size()));
    say!(
        "{}: {files} files, {size}; nothing was written",
        packing.name()
    );
    Ok(ExitCode::Ok)
}

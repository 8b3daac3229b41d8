//! `mlwm image`: one image per configured model.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mlwm_artifacts::Artifact;
use mlwm_cycles::load;
use mlwm_engines::Engine;
use mlwm_images::{BuildInputs, ImagePlan, Runner};
use mlwm_spec::ExitCode;

use crate::Outcome;
use crate::commands::{Configurations, artifacts, runtime};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// The base that `ci/setup` makes.
const DEFAULT_BASE: &str = "mlwm-base:bookworm";
/// Where `ci/setup` puts ONNX Runtime, below the home folder.
const ONNXRUNTIME: &str = ".cache/mlwm/onnxruntime/1.31.1/libonnxruntime.so";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Build the image of a configuration into the local engine.
    Build(Build),
}

#[derive(Args)]
pub(crate) struct Build {
    /// The configuration.
    configuration: String,
    #[command(flatten)]
    configurations: Configurations,
    /// Base image, if the configuration does not name one.
    #[arg(long, value_name = "REF", default_value = DEFAULT_BASE)]
    base: String,
    /// The runner; without it, `mlwm-runner` beside `mlwm`.
    #[arg(long, env = "MLWM_RUNNER", value_name = "FILE")]
    runner: Option<PathBuf>,
    /// ONNX Runtime; without it, `libonnxruntime.so` beside `mlwm`, or the one that `ci/setup`
    /// fetched.
    #[arg(long, env = "MLWM_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
    /// Print what the image would be made of and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn main(command: Command) -> Outcome {
    match command {
        Command::Build(arguments) => build(&arguments),
    }
}

fn build(arguments: &Build) -> Outcome {
    let runtime = runtime()?;
    let loaded = runtime.block_on(async {
        let transfer = Transfer::start()?;
        let artifacts = artifacts(&transfer)?;
        let folder = &arguments.configurations.folder;
        let loaded = load(folder, &arguments.configuration, &artifacts).await;
        transfer.finish();
        Ok::<_, Failure>(loaded?)
    })?;
    let Some(facts) = &loaded.artifact else {
        return Err(Failure::new(
            ExitCode::BadConfiguration,
            format!(
                "configuration `{}` names no artifact: add `artifact: PATH`, or build its image by other means",
                loaded.name
            ),
        ));
    };
    if facts.interface.is_none() {
        return Err(Failure::new(
            ExitCode::ArtifactMismatch,
            format!(
                "artifact {} has no ONNX model, which the built-in runner needs: build it with --onnx and --interface",
                facts.path.display()
            ),
        ));
    }
    let containerfile = arguments
        .configurations
        .folder
        .join(&loaded.name)
        .join("Containerfile");
    if containerfile.exists() {
        return Err(Failure::new(
            ExitCode::BadConfiguration,
            format!(
                "{} is there, but images of a configuration's own are not built yet: build it with your engine and name it in `docker_image`",
                containerfile.display()
            ),
        ));
    }
    let artifact = Artifact::open(&facts.path)?;
    let beside = |name: &str| {
        let executable = std::env::current_exe().ok();
        executable
            .map(|path| path.with_file_name(name))
            .filter(|path| path.is_file())
    };
    let fetched = || {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        home.map(|home| home.join(ONNXRUNTIME))
            .filter(|path| path.is_file())
    };
    let onnxruntime = found(
        arguments
            .onnxruntime
            .clone()
            .or_else(|| beside("libonnxruntime.so"))
            .or_else(fetched),
        "ONNX Runtime",
        "run ci/setup, or give --onnxruntime",
    )?;
    let runner = Runner {
        binary: found(
            arguments.runner.clone().or_else(|| beside("mlwm-runner")),
            "the runner",
            "build it with `cargo build --release -p mlwm-runner`, or give --runner",
        )?,
        libraries: with_providers(onnxruntime),
    };
    let base = loaded
        .configuration
        .base_image
        .as_deref()
        .unwrap_or(&arguments.base);
    let reference = loaded.configuration.image_reference(&loaded.name);
    let inputs = BuildInputs {
        configuration: &loaded.name,
        configuration_digest: loaded.digest,
        reference: Some(&reference),
        base,
        base_image: None,
        containerfile: None,
        runner: Some(&runner),
        artifact: Some(&artifact),
        version: env!("CARGO_PKG_VERSION"),
    };
    if arguments.dry_run {
        show(&mlwm_images::plan(&inputs)?);
        return Ok(ExitCode::Ok);
    }
    let built = runtime.block_on(async {
        let engine = Engine::connect().await?;
        let base_image = engine.image(base).await?;
        let plan = mlwm_images::plan(&BuildInputs {
            base_image: base_image.as_ref(),
            ..inputs
        })?;
        // What the builder says is worth reading only if it fails.
        let mut lines = Vec::new();
        let mut keep = |line: &str| lines.push(line.to_owned());
        let built = mlwm_images::build(&engine, &plan, &mut keep).await;
        let built = built.inspect_err(|_| lines.iter().for_each(|line| eprintln!("{line}")))?;
        Ok::<_, Failure>(built)
    })?;
    let unchanged = if built.unchanged { " (unchanged)" } else { "" };
    say!("{}{unchanged}", built.reference);
    say!("{}", built.id);
    Ok(ExitCode::Ok)
}

/// What an image would be made of.
fn show(plan: &ImagePlan) {
    say!("image {}\nbase  {}", plan.reference, plan.base);
    for (name, value) in &plan.labels {
        say!("label {name}={value}");
    }
    for file in &plan.files {
        say!("file  {:>12} {} {}", file.size, file.digest, file.path);
    }
}

/// ONNX Runtime and the libraries beside it that it loads for GPUs.
fn with_providers(onnxruntime: PathBuf) -> Vec<PathBuf> {
    let folder = onnxruntime
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok());
    let mut providers: Vec<PathBuf> = folder
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libonnxruntime_providers_") && name.ends_with(".so")
        })
        .collect();
    providers.sort();
    providers.insert(0, onnxruntime);
    providers
}

fn found(path: Option<PathBuf>, what: &str, remedy: &str) -> Result<PathBuf, Failure> {
    path.as_deref()
        .filter(|path| Path::is_file(path))
        .map(Path::to_owned)
        .ok_or_else(|| {
            let named = path
                .map(|path| format!(" at {}", path.display()))
                .unwrap_or_default();
            let message = format!("{what} is not there{named}: {remedy}");
            Failure::new(ExitCode::Usage, message)
        })
}

//! `mlwm why`: how a published forecast came about.

use clap::Args;
use indicatif::HumanBytes;
use mlwm_cycles::statement;
use mlwm_spec::manifest::content_digest;
use mlwm_spec::{ExitCode, Manifest};
use mlwm_storage::{Store, Uri};

use crate::Outcome;
use crate::commands::{output_of, runtime};
use crate::failure::Failure;

/// Tell how a published output came about: artifact, image, configuration, inputs, seed, host.
///
/// With --json as a statement of in-toto with a predicate of SLSA provenance, which tools for
/// supply chains read.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm why s3://bucket/danra/2022-04-07T0300Z/member0/surface.zarr"
)]
pub(crate) struct Arguments {
    /// URI of the output, or of its manifest.
    #[arg(value_name = "URI", value_parser = output_of)]
    output: Uri,
    /// Print a statement of in-toto.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let manifest = manifest_of(&arguments.output)?;
    match arguments.json {
        true => say!("{:#}", statement(&manifest)),
        false => tell(&manifest),
    }
    Ok(ExitCode::Ok)
}

/// The manifest of a published output.
pub(super) fn manifest_of(output: &Uri) -> Result<Manifest, Failure> {
    let manifest = runtime()?.block_on(async {
        let store = Store::open(output).await?;
        store.manifest(output).await
    })?;
    manifest.ok_or_else(|| {
        let message = format!(
            "nothing is published at {output}: there is no {output}{}; look at its path, or run the cycle",
            mlwm_spec::manifest::MANIFEST_SUFFIX
        );
        Failure::new(ExitCode::InputMissing, message)
    })
}

fn tell(manifest: &Manifest) {
    let bytes: u64 = manifest.objects.iter().map(|object| object.size).sum();
    say!("{}", manifest.uri);
    say!(
        "  output         {}, {} objects, {}",
        manifest.output,
        manifest.objects.len(),
        HumanBytes(bytes)
    );
    say!("  content        {}", content_digest(&manifest.objects));
    say!("  task           {}", manifest.task);
    say!("  analysis time  {}", manifest.analysis_time);
    match &manifest.ensemble {
        None => say!(
            "  member         {}, seed {}{}",
            manifest.member,
            manifest.seed,
            match manifest.deterministic {
                true => ", the same bytes each time",
                false => "",
            }
        ),
        Some(ensemble) => say!(
            "  members        {} of {} ({} must be there)",
            ensemble.members,
            ensemble.wanted,
            ensemble.quorum
        ),
    }
    if let Some(duration) = &manifest.forecast_duration {
        say!("  duration       {duration}");
    }
    say!("made of");
    say!(
        "  configuration  {}  {}",
        manifest.configuration.name,
        manifest.configuration.digest
    );
    say!(
        "  image          {}  {}",
        manifest.image.name,
        manifest.image.digest
    );
    if let Some(artifact) = &manifest.artifact {
        say!("  artifact       {}  {}", artifact.name, artifact.digest);
    }
    for input in &manifest.inputs {
        say!("  input          {}  {}", input.name, input.digest);
        say!(
            "                 {} ({} objects, {})",
            input.uri,
            input.objects,
            HumanBytes(input.bytes)
        );
        if let Some(converter) = &input.converter {
            say!(
                "                 converted by {}  {}",
                converter.name,
                converter.digest
            );
        }
    }
    let run = &manifest.run;
    say!("run");
    say!("  container      {} to {}", run.started, run.finished);
    if let Some(host) = &run.host {
        say!("  host           {host}");
    }
    say!("  engine         {}", run.engine);
    if !run.gpus.is_empty() {
        say!("  GPUs           {}", run.gpus.join(", "));
    }
    say!("  mlwm           {}", run.mlwm);
    for withdrawn in &manifest.replaces {
        say!("replaces");
        say!(
            "  task           {}, withdrawn {}",
            withdrawn.task,
            withdrawn.withdrawn
        );
        say!("  content        {}", withdrawn.content);
    }
}

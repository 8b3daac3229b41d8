//! `mlwm check`: are the configurations right?

use std::path::Path;

use clap::Args;
use mlwm_cycles::{Artifacts, Loaded, PlanOptions, load_offline, names, plan};
use mlwm_registries::{Cache, RegistryOptions, Unpacked};
use mlwm_spec::{AnalysisTime, ArtifactDelivery, ArtifactReference, Configuration, ExitCode};

use crate::Outcome;
use crate::commands::{Configurations, runtime};
use crate::failure::Failure;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Configurations to check; all if none is named.
    names: Vec<String>,
    #[command(flatten)]
    configurations: Configurations,
    /// Print the JSON Schema of `config.yaml` instead.
    #[arg(long, conflicts_with = "names")]
    schema: bool,
}

pub(crate) fn main(arguments: Arguments) -> Outcome {
    if arguments.schema {
        say!("{:#}", Configuration::json_schema());
        return Ok(ExitCode::Ok);
    }
    let folder = &arguments.configurations.folder;
    let wanted = match arguments.names.is_empty() {
        true => names(folder)?,
        false => arguments.names,
    };
    if wanted.is_empty() {
        return Err(mlwm_cycles::Error::NoConfigurations(folder.clone()).into());
    }
    runtime()?.block_on(async {
        let artifacts = Artifacts {
            cache: Cache::open_default()?,
            registry: None,
            options: RegistryOptions::default(),
            receipts: Artifacts::receipts(false),
            unpacked: Unpacked::open_default(Artifacts::receipts(false))?,
        };
        let mut worst = ExitCode::Ok;
        for name in wanted {
            match planned(folder, &name, &artifacts).await {
                Ok(loaded) => say!("{name}: {}", summary(&loaded)),
                Err(failure) => {
                    eprintln!("{name}: {failure}");
                    worst = worst.max(failure.code());
                }
            }
        }
        Ok(worst)
    })
}

/// What is right with it, and what only its artifact could tell.
fn summary(loaded: &Loaded) -> String {
    let image = loaded.configuration.image_reference(&loaded.name);
    let pinned = match &loaded.configuration.artifact {
        Some(artifact @ ArtifactReference::Published(_)) => format!(", pins {artifact}"),
        _ => String::new(),
    };
    let mounted = match loaded.configuration.artifact_delivery {
        ArtifactDelivery::Mount => ", mounts its artifact",
        ArtifactDelivery::Bake => "",
    };
    let unread = match (&loaded.configuration.artifact, &loaded.artifact) {
        (Some(_), None) => ", which is not on this machine yet and was not read",
        _ => "",
    };
    format!("ok, runs {image}{mounted}{pinned}{unread}")
}

/// The configuration, if it can be read and planned; whether it can does not depend on the time.
/// No registry is asked: an artifact that is not on this machine is left out.
async fn planned(folder: &Path, name: &str, artifacts: &Artifacts) -> Result<Loaded, Failure> {
    let loaded = load_offline(folder, name, artifacts).await?;
    let options = PlanOptions::default();
    plan(
        std::slice::from_ref(&loaded),
        &[AnalysisTime::UNIX_EPOCH],
        &options,
    )?;
    Ok(loaded)
}

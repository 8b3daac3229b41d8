//! `mlwm check`: are the configurations right?

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;
use mlwm_cycles::{Artifacts, Error, Loaded, PlanOptions, load_parts_offline, names, plan};
use mlwm_registries::{Cache, RegistryOptions, Unpacked};
use mlwm_spec::configuration::StepProblem;
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
                Ok(parts) => say!("{name}: {}", summary(&parts)),
                Err(failure) => {
                    note!("{name}: {failure}");
                    worst = worst.max(failure.code());
                }
            }
        }
        Ok(worst)
    })
}

/// What is right with a configuration, and what only its artifacts or files could tell.
fn summary(parts: &Parts) -> String {
    let parts = match parts {
        Parts::All(parts) => parts,
        Parts::NoFiles(problem) => return format!("ok, but cannot be planned yet: {problem}"),
    };
    if let [one] = parts.as_slice()
        && !one.is_part()
    {
        return format!("ok, {}", of_one(one));
    }
    let steps: BTreeSet<String> = parts.iter().map(of_one).collect();
    let steps: Vec<String> = steps.into_iter().collect();
    format!("ok, {} parts: {}", parts.len(), steps.join("; "))
}

fn of_one(loaded: &Loaded) -> String {
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
    format!("runs {image}{mounted}{pinned}{unread}")
}

/// What a configuration runs.
enum Parts {
    All(Vec<Loaded>),
    /// Unknown: it goes over files that are not there.
    NoFiles(StepProblem),
}

/// What the configuration runs, if it can be read and planned; whether it can does not depend on the time.
/// No registry is asked: an artifact that is not on this machine is left out.
async fn planned(folder: &Path, name: &str, artifacts: &Artifacts) -> Result<Parts, Failure> {
    let parts = match load_parts_offline(folder, name, artifacts).await {
        Err(Error::Step {
            problem: problem @ StepProblem::NoFiles(_),
            ..
        }) => {
            return Ok(Parts::NoFiles(problem));
        }
        parts => parts?,
    };
    plan(&parts, &[AnalysisTime::UNIX_EPOCH], &PlanOptions::default())?;
    Ok(Parts::All(parts))
}

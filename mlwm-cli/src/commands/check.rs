//! `mlwm check`: are the configurations right?

use std::path::Path;

use clap::Args;
use mlwm_cycles::{Loaded, PlanOptions, load, names, plan};
use mlwm_spec::{AnalysisTime, Configuration, ExitCode};

use crate::Outcome;
use crate::commands::Configurations;
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
    let mut worst = ExitCode::Ok;
    for name in wanted {
        match planned(folder, &name) {
            Ok(loaded) => {
                let image = loaded.configuration.image_reference(&name);
                say!("{name}: ok, runs {image}");
            }
            Err(failure) => {
                eprintln!("{name}: {failure}");
                worst = worst.max(failure.code());
            }
        }
    }
    Ok(worst)
}

/// The configuration, if it can be read and planned; whether it can does not depend on the time.
fn planned(folder: &Path, name: &str) -> Result<Loaded, Failure> {
    let loaded = load(folder, name)?;
    let options = PlanOptions::default();
    plan(
        std::slice::from_ref(&loaded),
        AnalysisTime::UNIX_EPOCH,
        &options,
    )?;
    Ok(loaded)
}

//! `mlwm check`: are the configurations right?

use clap::Args;
use mlwm_cycles::{PlanOptions, load, names, plan};
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
        // Whether it can be planned does not depend on the time.
        let planned = load(folder, &name).and_then(|loaded| {
            plan(
                std::slice::from_ref(&loaded),
                AnalysisTime::UNIX_EPOCH,
                &PlanOptions::default(),
            )?;
            Ok(loaded)
        });
        match planned {
            Ok(loaded) => {
                let image = loaded.configuration.image_reference(&name);
                say!("{name}: ok, runs {image}");
            }
            Err(error) => {
                let failure = Failure::from(error);
                eprintln!("{name}: {failure}");
                worst = worst.max(failure.code());
            }
        }
    }
    Ok(worst)
}

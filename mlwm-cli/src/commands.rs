//! One module per command: it parses, calls and prints.

pub(crate) mod artifact;
pub(crate) mod check;
pub(crate) mod image;
pub(crate) mod paths;
pub(crate) mod plot;
pub(crate) mod run;

use std::path::PathBuf;

use crate::failure::Failure;

/// Where the configurations lie.
#[derive(clap::Args)]
pub(crate) struct Configurations {
    /// Folder of the configurations, one subfolder each.
    #[arg(
        long = "configurations",
        env = "MLWM_CONFIGURATIONS",
        value_name = "DIR",
        default_value = "configurations"
    )]
    pub(crate) folder: PathBuf,
}

/// The runtime for commands that talk to an engine or a store.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            let message = format!("cannot start the threads that mlwm works with: {error}");
            Failure::new(mlwm_spec::ExitCode::Failed, message)
        })
}

//! `mlwm run`: the configured models for an analysis time.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mlwm_cycles::{Artifacts, PlanOptions, RunOptions, Tell, load_all, plan};
use mlwm_spec::{AnalysisTime, ExitCode, Members, Period};
use tokio_util::sync::CancellationToken;

use crate::Outcome;
use crate::commands::{Configurations, artifacts, runtime, stop_on_signal};
use crate::failure::Failure;
use crate::terminal::{Display, table};
use crate::transfer::Transfer;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The time the forecasts start from, UTC: `2025-09-22T12:00Z`.
    #[arg(long, value_name = "TIME")]
    analysis_time: AnalysisTime,
    /// Configuration to run; may be given several times; all if none is given.
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    #[command(flatten)]
    configurations: Configurations,
    /// Ensemble members instead of the configured ones: `0`, `0-49`, `1-5,7`.
    #[arg(long)]
    members: Option<Members>,
    /// Length of the forecast instead of the configured one: `PT18H`.
    #[arg(long, value_name = "PERIOD")]
    forecast_duration: Option<Period>,
    /// Folder for staged inputs, outputs before publication, and logs.
    #[arg(
        long,
        env = "MLWM_WORKDIR",
        value_name = "DIR",
        default_value = "mlwm-work"
    )]
    workdir: PathBuf,
    /// Hash artifacts again, even those that have not changed since they were hashed.
    #[arg(long)]
    paranoid: bool,
    /// Print the plan as JSON and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print what happens as JSON, one event a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: Arguments) -> Outcome {
    let runtime = runtime()?;
    let loaded = runtime.block_on(async {
        let transfer = Transfer::start()?;
        let artifacts = artifacts(&transfer)?;
        let folder = &arguments.configurations.folder;
        let receipts = Artifacts::receipts(arguments.paranoid);
        let loaded = load_all(folder, &arguments.models, &artifacts, &receipts).await;
        transfer.finish();
        Ok::<_, Failure>(loaded?)
    })?;
    let options = PlanOptions {
        members: arguments.members,
        forecast_duration: arguments.forecast_duration,
    };
    let plan = plan(&loaded, arguments.analysis_time, &options)?;
    if arguments.dry_run {
        let json = serde_json::to_string_pretty(&plan).map_err(mlwm_cycles::Error::Json)?;
        say!("{json}");
        return Ok(ExitCode::Ok);
    }
    let options = RunOptions {
        workdir: arguments.workdir,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let display = Display::choose(arguments.json);
    let reports = runtime.block_on(async {
        let cancel = CancellationToken::new();
        stop_on_signal(
            &cancel,
            "stopping: the container gets 10 s; a second signal ends mlwm at once",
        )?;
        let tell: Tell = Arc::new(move |event| display.tell(&event));
        let reports = mlwm_cycles::run(&plan, &options, &tell, &cancel).await?;
        Ok::<_, Failure>(reports)
    })?;
    if !arguments.json {
        say!("{}", table(&reports));
    }
    let worst = reports.iter().map(|report| report.exit_code).max();
    Ok(worst.unwrap_or(ExitCode::Ok))
}

//! `mlwm replay`: a published forecast made again.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use mlwm_cycles::{Artifacts, ReplayReport, RunOptions, Tell, replay};
use mlwm_registries::{Cache, Unpacked};
use mlwm_spec::{ExitCode, Manifest};
use mlwm_storage::Uri;
use tokio_util::sync::CancellationToken;

use super::run::budget_of_machine;
use super::why::manifest_of;
use crate::Outcome;
use crate::commands::{Workdir, output_of, runtime, stop_on_signal};
use crate::failure::Failure;
use crate::terminal::Display;

/// Make a published output again from its record, and compare.
///
/// The image, the artifact and the inputs must be what they were; nothing is published. Exit code 0
/// says that every byte is the same, 24 that something differs.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm replay s3://bucket/danra/2022-04-07T0300Z/member0/surface.zarr"
)]
pub(crate) struct Arguments {
    /// URI of the output, or of its manifest.
    #[arg(value_name = "URI", value_parser = output_of)]
    output: Uri,
    /// Where the artifact lies, if it lies elsewhere than it did.
    #[arg(long, value_name = "ZIP")]
    artifact: Option<PathBuf>,
    #[command(flatten)]
    workdir: Workdir,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: Arguments) -> Outcome {
    let manifest = manifest_of(&arguments.output)?;
    let options = RunOptions {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unpacked: Unpacked::open_default(Artifacts::receipts(false))?,
        budget: budget_of_machine(&arguments.workdir.workdir),
        republish: false,
        keep_failed: 0,
        credentials_for: None,
        prices: None,
        workdir: arguments.workdir.workdir,
    };
    let display = (!arguments.json).then(|| Display::choose(false));
    let report = runtime()?.block_on(async {
        let cancel = CancellationToken::new();
        stop_on_signal(
            &cancel,
            "stopping: the container gets 10 s; a second signal ends mlwm at once",
        )?;
        let held = cached(&manifest, &cancel).await?;
        let artifact = arguments
            .artifact
            .or(held.as_ref().map(|held| held.path.clone()));
        let tell: Tell = Arc::new(move |event| {
            if let Some(display) = &display {
                display.tell(&event);
            }
        });
        let replayed = replay(&manifest, artifact.as_deref(), &options, &tell, &cancel).await?;
        Ok::<_, Failure>(replayed)
    })?;
    match arguments.json {
        true => {
            let json = serde_json::to_string_pretty(&report).map_err(mlwm_cycles::Error::Json)?;
            say!("{json}");
        }
        false => tell_people(&report),
    }
    Ok(report.exit_code())
}

/// The artifact in the cache, if it is there.
async fn cached(
    manifest: &Manifest,
    cancel: &CancellationToken,
) -> Result<Option<mlwm_registries::CachedArtifact>, Failure> {
    match &manifest.artifact {
        Some(artifact) => Ok(Cache::open_default()?.held(artifact.digest, cancel).await?),
        None => Ok(None),
    }
}

fn tell_people(report: &ReplayReport) {
    if report.replayed.exit_code != ExitCode::Ok {
        return;
    }
    if report.different.is_empty() {
        say!(
            "{}: made again, all {} objects are the same to the bit",
            report.uri,
            report.objects
        );
        return;
    }
    say!(
        "{}: made again, and {} of its objects differ",
        report.uri,
        report.different.len()
    );
    if report.variables.is_empty() {
        say!(
            "no value differs, only how they are written: {}",
            report.different.join(", ")
        );
        return;
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["variable", "values", "different", "largest difference"]);
    for variable in &report.variables {
        table.add_row([
            variable.variable.clone(),
            variable.values.to_string(),
            variable.different.to_string(),
            variable
                .why_not
                .clone()
                .unwrap_or_else(|| format!("{:e}", variable.largest)),
        ]);
    }
    say!("{table}");
}

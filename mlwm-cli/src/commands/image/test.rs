//! `mlwm image test`: does an image make the forecast that its artifact expects?

use std::sync::Arc;

use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use mlwm_artifacts::Tolerance;
use mlwm_cycles::{
    Artifacts, Event, GoldenOptions, GoldenReport, Loaded, Phase, RunOptions, Tell, load,
    test_image,
};
use mlwm_registries::Unpacked;
use mlwm_spec::ExitCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::parts::with_artifacts;
use super::places::{check_places, with_name};
use crate::Outcome;
use crate::commands::run::budget_of_machine;
use crate::commands::{Configurations, Workdir, artifacts, runtime};
use crate::failure::Failure;
use crate::terminal::Display;
use crate::transfer::Transfer;

#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm image test danra_graph_lam\n\nThe golden case is packed by `mlwm artifact build --golden`. The container is run as `mlwm run` runs it; nothing is published."
)]
pub(crate) struct Arguments {
    /// Configurations.
    #[arg(required_unless_present = "all")]
    configurations: Vec<String>,
    /// All configurations.
    #[arg(long, conflicts_with = "configurations")]
    all: bool,
    #[command(flatten)]
    folder: Configurations,
    /// Image of the local engine instead of the configured one; `{name}` in it is the
    /// configuration.
    #[arg(long, value_name = "REF")]
    image: Option<String>,
    /// Fail if an artifact has no golden case.
    #[arg(long)]
    require_golden: bool,
    #[command(flatten)]
    workdir: Workdir,
    /// Print what came of it as JSON, one object per configuration.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let wanted = match arguments.all {
        true => with_artifacts(&arguments.folder.folder)?,
        false => arguments.configurations.clone(),
    };
    check_places(&wanted, arguments.image.iter())?;
    runtime()?.block_on(async {
        let transfer = Transfer::start_saying(
            "stopping: the container gets 10 s; a second signal ends mlwm at once",
        )?;
        let cancel = transfer.cancel.clone();
        let artifacts = artifacts(&transfer)?;
        let mut configurations = Vec::new();
        for name in &wanted {
            configurations.push(load(&arguments.folder.folder, name, &artifacts).await);
        }
        transfer.finish();
        let mut worst = ExitCode::Ok;
        for (name, loaded) in wanted.iter().zip(configurations) {
            let tested = match loaded {
                Ok(loaded) => test(arguments, &loaded, &cancel).await,
                Err(error) => Err(error.into()),
            };
            let code = tested.unwrap_or_else(|failure| {
                note!("{name}: {failure}");
                failure.code()
            });
            worst = worst.max(code);
        }
        Ok(worst)
    })
}

/// Tests one image and says how it went.
async fn test(
    arguments: &Arguments,
    loaded: &Loaded,
    cancel: &CancellationToken,
) -> Result<ExitCode, Failure> {
    let image = arguments.image.as_ref();
    let options = GoldenOptions {
        image: image.map(|image| with_name(image, &loaded.name)),
        run: RunOptions {
            workdir: arguments.workdir.workdir.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unpacked: Unpacked::open_default(Artifacts::receipts(false))?,
            budget: budget_of_machine(&arguments.workdir.workdir),
            republish: false,
            keep_failed: 0,
            credentials_for: None,
            prices: None,
        },
    };
    let display = (!arguments.json).then(|| Display::choose(false));
    let tell: Tell = Arc::new(move |event| {
        if let Some(display) = display.as_ref().filter(|_| !is_of_publication(&event)) {
            display.tell(&event);
        }
    });
    match test_image(loaded, &options, &tell, cancel).await? {
        Some(report) => Ok(say_report(arguments, &loaded.name, &report)),
        None => say_untested(arguments, &loaded.name),
    }
}

/// Whether an event is of what a test does not do for anybody: its outputs go to a folder that is removed.
fn is_of_publication(event: &Event) -> bool {
    match event {
        Event::PhaseStarted { phase, .. }
        | Event::Progress { phase, .. }
        | Event::PhaseFinished { phase, .. } => *phase == Phase::Publish,
        Event::TaskFinished(report) => report.error.is_none() && report.warnings.is_empty(),
        Event::RunProgress(_) | Event::RunFinished(_) => true,
        _ => false,
    }
}

fn say_report(arguments: &Arguments, name: &str, report: &GoldenReport) -> ExitCode {
    let code = report.exit_code();
    if arguments.json {
        let object = json!({"configuration": name, "golden": true, "passed": code == ExitCode::Ok,
            "exit_code": code.number(), "report": report});
        say!("{object}");
        return code;
    }
    if !report.variables.is_empty() {
        say!("{}", table(report));
    }
    match code {
        ExitCode::Ok => say!(
            "{name}: {} makes the forecast that its golden case expects",
            report.image
        ),
        ExitCode::Differs => note!(
            "{name}: {} does not make the forecast that its golden case expects: find out what changed in base, runner or model; if the new forecast is right, build the artifact with a new golden case",
            report.image
        ),
        // Why has been said when it happened.
        _ => note!("{name}: {} could not run its golden case", report.image),
    }
    code
}

fn say_untested(arguments: &Arguments, name: &str) -> Result<ExitCode, Failure> {
    let why = "no golden case: build its artifact with `mlwm artifact build --golden FOLDER`";
    if arguments.require_golden {
        let message = format!("there is {why}");
        return Err(Failure::new(ExitCode::ArtifactMismatch, message));
    }
    match arguments.json {
        true => say!("{}", json!({"configuration": name, "golden": false})),
        false => say!("{name}: not tested, there is {why}"),
    }
    Ok(ExitCode::Ok)
}

fn table(report: &GoldenReport) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header([
        "output",
        "variable",
        "largest difference",
        "tolerance",
        "outside",
        "values",
    ]);
    for index in [2, 4, 5] {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for variable in &report.variables {
        table.add_row([
            variable.output.clone(),
            variable.variable.clone(),
            format!("{:.3e}", variable.largest),
            allowed(variable.tolerance),
            variable.outside.to_string(),
            variable.values.to_string(),
        ]);
    }
    table
}

fn allowed(tolerance: Tolerance) -> String {
    let Tolerance { absolute, relative } = tolerance;
    match (absolute > 0.0, relative > 0.0) {
        (true, true) => format!("{absolute:e} + {relative:e} of it"),
        (false, true) => format!("{relative:e} of it"),
        (true, false) => format!("{absolute:e}"),
        (false, false) => "none".to_owned(),
    }
}

//! What a plan may be expected to come to, on standard error: standard output has the plan.

use std::time::Duration;

use clap::ValueEnum;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanBytes;
use mlwm_cycles::{
    Error, Expectation, KnownFrom, Phase, Plan, credentials_end, input_sizes, ledger_file,
};
use mlwm_ledger::Ledger;

use crate::commands::{Workdir, runtime};
use crate::failure::Failure;
use crate::words::{duration, number};

/// A store that does not list an input in this time is not waited for: a plan is printed also without it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How expectations are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Table,
    /// For programs, in bytes and seconds.
    Json,
}

/// Prints what a plan may be expected to come to. That there is no ledger to learn from is no error.
pub(crate) fn print(plan: &Plan, workdir: &Workdir, form: Form) -> Result<(), Failure> {
    let known = Ledger::look(&ledger_file(&workdir.workdir)).map_err(Error::Ledger);
    let (listed, end) = runtime()?
        .block_on(async { tokio::join!(input_sizes(plan, PATIENCE), credentials_end(plan)) });
    let end = end.unwrap_or_else(|error| {
        note!("how long the credentials last is not known: {error}");
        None
    });
    let expected = known.and_then(|ledger| Expectation::of(plan, ledger.as_ref(), &listed, end));
    let expected = match expected {
        Ok(expected) => expected,
        Err(error) => {
            note!("what earlier runs took is not known: {error}");
            Expectation::of(plan, None, &listed, end)?
        }
    };
    match form {
        // Nothing could be planned, which has been said.
        Form::Table if expected.is_empty() => {}
        Form::Table => {
            note!("{}", table(&expected));
            let mut ends = expected
                .iter()
                .filter_map(|one| one.credentials_end.as_ref());
            if let Some(end) = ends.next() {
                note!("the credentials for S3 end at {end}");
            }
        }
        Form::Json => {
            let json = serde_json::to_string_pretty(&expected).map_err(Error::Json)?;
            note!("{json}");
        }
    }
    Ok(())
}

fn table(expected: &[Expectation]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header([
        "model",
        "duration",
        "tasks",
        "steps",
        "windows",
        "staged",
        "published",
        "disk",
        "time",
        "each: stage, run, publish",
        "known from",
    ]);
    for index in 2..9 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for one in expected {
        table.add_row(row(one));
    }
    table
}

fn row(one: &Expectation) -> [String; 11] {
    let unknown = || "?".to_owned();
    let bytes =
        |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| HumanBytes(bytes).to_string());
    let published = match one.bytes_out_from {
        Some(KnownFrom::Interface) => format!("up to {}", bytes(one.bytes_out)),
        _ => bytes(one.bytes_out),
    };
    let phases = one.phases.as_ref().map(|phases| {
        let wanted = [Phase::Stage, Phase::Run, Phase::Publish];
        let seconds = wanted.map(|phase| number(phases.get(&phase).copied().unwrap_or(0.0)));
        format!("{} s", seconds.join(", "))
    });
    [
        one.configuration.clone(),
        one.forecast_duration.clone().unwrap_or_else(unknown),
        one.tasks.to_string(),
        one.steps.map_or_else(unknown, |steps| steps.to_string()),
        one.windows
            .map_or_else(|| "-".to_owned(), |windows| windows.to_string()),
        bytes(one.bytes_in),
        published,
        bytes(one.disk),
        one.seconds.map_or_else(unknown, duration),
        phases.unwrap_or_else(unknown),
        match one.from_tasks {
            0 => "-".to_owned(),
            1 => "1 task".to_owned(),
            count => format!("{count} tasks"),
        },
    ]
}

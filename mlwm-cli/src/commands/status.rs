//! `mlwm status`: how far each cycle and model is.

use std::collections::BTreeSet;

use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use jiff::Timestamp;
use mlwm_cycles::{ledger_file, names, note_killed, read, rebuild};
use mlwm_ledger::{AttemptRecord, Cell, CycleRow, Ledger, State, TaskName};
use mlwm_spec::{AnalysisTime, ExitCode};
use serde_json::json;

use crate::Outcome;
use crate::commands::{Configurations, Workdir, runtime};
use crate::failure::Failure;

/// Show how far each cycle and model is, as the ledger of the working folder has it.
///
/// With --analysis-time, every task of that cycle: how often it was tried, how long each phase
/// took, and what went wrong.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    workdir: Workdir,
    /// Show the tasks of this cycle.
    #[arg(long, value_name = "TIME")]
    analysis_time: Option<AnalysisTime>,
    /// The oldest cycle to show.
    #[arg(long, value_name = "TIME", conflicts_with = "analysis_time")]
    from: Option<AnalysisTime>,
    /// The newest cycle to show.
    #[arg(long, value_name = "TIME", conflicts_with = "analysis_time")]
    to: Option<AnalysisTime>,
    /// How many cycles to show, from the newest on.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    last: u32,
    /// First look for all that is published of the configurations, and note it in the ledger; makes
    /// one where there is none.
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    configurations: Configurations,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    if arguments.rebuild {
        rebuilt(arguments)?;
    }
    let ledger = ledger(&arguments.workdir)?;
    match arguments.analysis_time {
        Some(time) => cycle(arguments, &ledger, time)?,
        None => cycles(arguments, &ledger)?,
    }
    Ok(ExitCode::Ok)
}

fn rebuilt(arguments: &Arguments) -> Result<(), Failure> {
    let folder = &arguments.configurations.folder;
    let mut configurations = Vec::new();
    for name in names(folder)? {
        configurations.push((name.clone(), read(folder, &name)?.configuration));
    }
    let ledger = Ledger::open(&ledger_file(&arguments.workdir.workdir))?;
    let rebuilt = runtime()?.block_on(rebuild(&ledger, &configurations))?;
    note!(
        "found {} tasks with {} outputs; passed over {} manifests of others",
        rebuilt.tasks,
        rebuilt.outputs,
        rebuilt.passed_over
    );
    Ok(())
}

/// The ledger of a working folder, in which runs that were killed are noted.
pub(super) fn ledger(workdir: &Workdir) -> Result<Ledger, Failure> {
    let file = ledger_file(&workdir.workdir);
    let Some(ledger) = Ledger::look(&file)? else {
        let message = format!(
            "there is no ledger at {}: run a cycle, give the --workdir of one, or make it with --rebuild",
            file.display()
        );
        return Err(Failure::new(ExitCode::InputMissing, message));
    };
    if ledger.open_runs()?.is_empty() {
        return Ok(ledger);
    }
    // Who may only read, or has no room to write, sees a killed run as if it went on.
    if let Ok(writable) = Ledger::open(&file) {
        let _ = note_killed(&writable);
    }
    Ok(ledger)
}

fn cycles(arguments: &Arguments, ledger: &Ledger) -> Result<(), Failure> {
    let rows = ledger.cycles(arguments.from, arguments.to, arguments.last)?;
    if arguments.json {
        say!("{:#}", json!({ "cycles": rows }));
        return Ok(());
    }
    if rows.is_empty() {
        say!("no cycle");
        return Ok(());
    }
    say!("{}", matrix(&rows));
    Ok(())
}

/// A line for each cycle, a column for each configuration.
fn matrix(rows: &[CycleRow]) -> Table {
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.cells.keys()).collect();
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    let header = names.iter().map(|name| name.as_str());
    table.set_header(std::iter::once("analysis time").chain(header));
    for row in rows {
        let cells = names
            .iter()
            .map(|name| row.cells.get(*name).map_or_else(String::new, cell));
        table.add_row(std::iter::once(row.analysis_time.to_string()).chain(cells));
    }
    table
}

/// `published`, or `48/51 published, 2 running, 1 failed`.
fn cell(cell: &Cell) -> String {
    let total = cell.total();
    let there = cell.0.iter().filter(|(_, count)| **count > 0);
    let there: Vec<(State, u64)> = there.map(|(state, count)| (*state, *count)).collect();
    if let [(state, _)] = there[..] {
        return match total {
            1 => state.to_string(),
            _ => format!("{total} {state}"),
        };
    }
    let published = cell.count(State::Published);
    let others = there.iter().filter(|(state, _)| *state != State::Published);
    let others: Vec<String> = others
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    match published {
        0 => others.join(", "),
        _ => format!("{published}/{total} published, {}", others.join(", ")),
    }
}

fn cycle(arguments: &Arguments, ledger: &Ledger, time: AnalysisTime) -> Result<(), Failure> {
    let tasks = ledger.tasks(time)?;
    if tasks.is_empty() {
        let message =
            format!("the ledger has no cycle of {time}: `mlwm status` shows those it has");
        return Err(Failure::new(ExitCode::InputMissing, message));
    }
    let attempts = ledger.newest_attempts(time)?;
    let newest = |task: &TaskName| attempts.iter().find(|attempt| attempt.task == *task);
    if arguments.json {
        let tasks: Result<Vec<_>, Failure> = tasks
            .iter()
            .map(|(task, state)| {
                Ok(json!({
                    "configuration": task.configuration,
                    "member": task.member,
                    "state": state,
                    "attempts": ledger.attempts(task)?,
                    "outputs": ledger.outputs(task)?,
                }))
            })
            .collect();
        say!("{:#}", json!({ "analysis_time": time, "tasks": tasks? }));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header([
        "model", "member", "state", "attempt", "began", "took", "phases",
    ]);
    for (task, state) in &tasks {
        let attempt = newest(task);
        table.add_row([
            task.configuration.clone(),
            task.member.to_string(),
            state.to_string(),
            attempt.map_or_else(String::new, |attempt| attempt.number.to_string()),
            attempt.map_or_else(String::new, |attempt| at(attempt.started)),
            attempt.map_or_else(String::new, took),
            attempt.map_or_else(String::new, phases),
        ]);
    }
    say!("{table}");
    for attempt in &attempts {
        if let Some(error) = &attempt.error {
            let task = &attempt.task;
            say!("{} member {}: {error}", task.configuration, task.member);
        }
    }
    Ok(())
}

/// Milliseconds since 1970-01-01T00:00Z as a time.
pub(super) fn at(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => "-".to_owned(),
    }
}

fn took(attempt: &AttemptRecord) -> String {
    match attempt.ended {
        Some(ended) => format!("{:.1} s", (ended - attempt.started).max(0) as f64 / 1000.0),
        None => String::new(),
    }
}

fn phases(attempt: &AttemptRecord) -> String {
    let phases = attempt.phases.iter().map(|phase| match phase.seconds {
        Some(seconds) => format!("{} {seconds:.1} s", phase.name),
        None => format!("{} …", phase.name),
    });
    phases.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_what_there_is() {
        let of = |counts: &[(State, u64)]| cell(&Cell(counts.iter().copied().collect()));
        assert_eq!(of(&[(State::Published, 1)]), "published");
        assert_eq!(of(&[(State::Planned, 51)]), "51 planned");
        assert_eq!(
            of(&[
                (State::Published, 48),
                (State::Running, 2),
                (State::Failed, 1)
            ]),
            "48/51 published, 2 running, 1 failed"
        );
        assert_eq!(
            of(&[(State::Lost, 1), (State::Planned, 2)]),
            "2 planned, 1 lost"
        );
    }
}

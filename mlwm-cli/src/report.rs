//! The report of a run: for people as a table, for programs as a file.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::HumanBytes;
use mlwm_cycles::{Cost, Error, Phase, ReportedTask, RunCost, RunReport, Summary};
use mlwm_spec::ExitCode;
use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::terminal::outcome;
use crate::words::{duration, number};

/// A file that a report is written to when all is done.
pub(crate) struct ReportFile(PathBuf);

impl ReportFile {
    /// Finds out whether it will be possible, before anything is run.
    pub(crate) fn at(path: &Path) -> Result<Self, Failure> {
        // What is there would be replaced, be it a device.
        if path.exists() && !path.is_file() {
            let text = format!("cannot write {}: it is no regular file", path.display());
            return Err(Failure::new(ExitCode::StorageFailed, text));
        }
        beside(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Writes it: whole, in place of whatever is there, or not at all.
    pub(crate) fn write(&self, report: &RunReport) -> Result<(), Failure> {
        let mut json = serde_json::to_vec_pretty(report).map_err(Error::Json)?;
        json.push(b'\n');
        let mut file = beside(&self.0)?;
        let failed = |error: std::io::Error| Failure::local("write", &self.0, &error);
        file.write_all(&json).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.0).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// A new file in the folder of another, gone if it is not given its name.
fn beside(path: &Path) -> Result<NamedTempFile, Failure> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".writing-")
        // As any file that is created: what the umask leaves of it.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|error| Failure::local("create a file in", folder, &error))
}

const COLUMNS: [&str; 14] = [
    "model",
    "analysis time",
    "member",
    "outcome",
    "stage",
    "check",
    "queue",
    "run",
    "verify",
    "publish",
    "in",
    "out",
    "memory",
    "task",
];

/// The closing table: a line per task, then what it all comes to, then where everything lies.
pub(crate) fn table(report: &RunReport) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    let prices = report.summary.cost.as_ref();
    let cost = prices.map(|cost| cost.prices.currency.clone());
    table.set_header(COLUMNS.map(str::to_owned).into_iter().chain(cost));
    for index in (4..13).chain([COLUMNS.len()]) {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for task in &report.tasks {
        let cost = task.cost.as_ref().map(|cost| number(cost.total));
        table.add_row(row(task).into_iter().chain(cost));
    }
    let mut text = table.to_string();
    for line in closing(&report.summary) {
        text.push_str(&format!("\n{line}"));
    }
    for task in &report.tasks {
        for output in &task.report.outputs {
            text.push_str(&format!(
                "\n{} {}\n  manifest {}\n  content  {}",
                output.name, output.uri, output.manifest, output.digest
            ));
        }
        if let Some(log) = &task.report.log {
            text.push_str(&format!("\nlog {log}"));
        }
    }
    text
}

fn row(task: &ReportedTask) -> [String; 14] {
    let report = &task.report;
    let seconds = |phase: Phase, more: Option<f64>| {
        let found = report.phases.iter().find(|(done, _)| *done == phase);
        let seconds = found.map(|(_, seconds)| seconds + more.unwrap_or(0.0));
        seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2} s"))
    };
    let converted = report
        .phases
        .iter()
        .find(|(done, _)| *done == Phase::Convert);
    let converted = converted.map(|(_, seconds)| *seconds);
    let all = || "all".to_owned();
    let none = || "-".to_owned();
    [
        report.configuration.clone(),
        report.analysis_time.to_string(),
        report.member.map_or_else(all, |member| member.to_string()),
        outcome(report.outcome).to_owned(),
        seconds(Phase::Stage, converted),
        seconds(Phase::Check, None),
        seconds(Phase::Queue, None),
        seconds(Phase::Run, None),
        seconds(Phase::Verify, None),
        seconds(Phase::Publish, report.published_while_running),
        HumanBytes(report.bytes_in).to_string(),
        HumanBytes(report.bytes_out).to_string(),
        report
            .peak_memory
            .map_or_else(none, |bytes| HumanBytes(bytes).to_string()),
        report.identity.map_or_else(none, |digest| digest.short()),
    ]
}

/// What it all comes to, a line each.
fn closing(summary: &Summary) -> Vec<String> {
    let totals = &summary.totals;
    let mut lines = Vec::new();
    if totals.tasks > 1 {
        lines.push(format!(
            "{} of {} are published, {} were before; {} staged and {} published in {}",
            totals.published + totals.already_published,
            totals.tasks,
            totals.already_published,
            HumanBytes(totals.bytes_in),
            HumanBytes(totals.bytes_out),
            duration(summary.seconds)
        ));
        if let Some(model) = &summary.model {
            let who = match model.of_gpus {
                true => "the GPUs were idle",
                false => "no model ran",
            };
            lines.push(format!(
                "{who} for {:.1} % of {}, from the start of the first model to the end of the last",
                model.idle_share * 100.0,
                duration(model.seconds)
            ));
        }
    }
    lines.extend(summary.cost.as_ref().map(price));
    lines
}

fn price(RunCost { prices, cost }: &RunCost) -> String {
    let Cost { total, parts } = cost;
    let parts: Vec<String> = parts
        .iter()
        .map(|(name, part)| format!("{name} {}", number(*part)))
        .collect();
    let (total, currency) = (number(*total), &prices.currency);
    format!("it cost {total} {currency}: {}", parts.join(", "))
}

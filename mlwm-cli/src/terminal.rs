//! How a run is shown: bars on a terminal, plain lines elsewhere, JSON events on request.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use mlwm_cycles::{Event, Outcome, Phase, TaskReport};

/// Shows events as they come.
pub(crate) enum Display {
    /// One bar for the phase that is going on, above it what has ended.
    Bars(Mutex<Option<ProgressBar>>),
    /// A line for each phase that has ended, and the container's log.
    Lines,
    /// One JSON object a line, on standard output.
    Json,
}

impl Display {
    /// What fits where the output goes.
    pub(crate) fn choose(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Bars(Mutex::new(None)),
            (false, false) => Self::Lines,
        }
    }

    /// Shows one event.
    pub(crate) fn tell(&self, event: &Event) {
        match self {
            Self::Json => match serde_json::to_string(event) {
                Ok(line) => say!("{line}"),
                Err(error) => eprintln!("cannot write an event as JSON: {error}"),
            },
            Self::Lines => {
                if let Some(line) = line(event) {
                    eprintln!("{line}");
                }
            }
            Self::Bars(bar) => {
                // A poisoned lock would only mean that a bar was left half drawn.
                let mut bar = bar
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                show(&mut bar, event);
            }
        }
    }
}

fn show(bar: &mut Option<ProgressBar>, event: &Event) {
    match event {
        Event::PhaseStarted { phase, .. } => {
            let new = ProgressBar::new_spinner().with_message(phase.name());
            new.enable_steady_tick(Duration::from_millis(200));
            *bar = Some(new);
        }
        Event::Progress {
            phase, done, total, ..
        } => {
            if let Some(bar) = bar {
                if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                    bar.set_length(total);
                    bar.set_style(style(*phase));
                }
                bar.set_position(*done);
            }
        }
        Event::Log { line, .. } => match bar {
            Some(bar) => bar.suspend(|| eprintln!("    {line}")),
            None => eprintln!("    {line}"),
        },
        Event::TaskStarted { .. } | Event::PhaseFinished { .. } | Event::TaskFinished(_) => {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            if let Some(line) = line(event) {
                eprintln!("{line}");
            }
        }
    }
}

fn style(phase: Phase) -> ProgressStyle {
    let template = match phase {
        Phase::Stage | Phase::Publish => {
            "  {msg:8} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}"
        }
        _ => "  {msg:8} {bar:30} {pos}/{len} steps, {elapsed}, eta {eta}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line(event: &Event) -> Option<String> {
    match event {
        Event::TaskStarted { task, .. } => Some(task.clone()),
        Event::PhaseStarted { .. } | Event::Progress { .. } => None,
        Event::PhaseFinished {
            phase,
            seconds,
            bytes,
            ..
        } => {
            let moved = bytes.map(|bytes| format!(", {}", HumanBytes(bytes)));
            let moved = moved.unwrap_or_default();
            Some(format!("  {:8} {seconds:.2} s{moved}", phase.name()))
        }
        Event::Log { line, .. } => Some(format!("    {line}")),
        Event::TaskFinished(report) => Some(match (&report.error, &report.warning) {
            (Some(error), _) => format!("  failed: {error}"),
            (None, Some(warning)) => format!("  {}, but {warning}", outcome(report.outcome)),
            (None, None) => format!("  {}", outcome(report.outcome)),
        }),
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Published => "published",
        Outcome::AlreadyPublished => "already published",
        Outcome::Failed => "failed",
    }
}

/// The closing table: a line per task, then where everything lies.
pub(crate) fn table(reports: &[TaskReport]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header([
        "model", "member", "outcome", "stage", "check", "run", "verify", "publish", "in", "out",
        "task",
    ]);
    for index in 3..10 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for report in reports {
        let seconds = |phase: Phase| {
            let found = report.phases.iter().find(|(done, _)| *done == phase);
            found.map_or_else(|| "-".to_owned(), |(_, seconds)| format!("{seconds:.2} s"))
        };
        table.add_row([
            report.configuration.clone(),
            report.member.to_string(),
            outcome(report.outcome).to_owned(),
            seconds(Phase::Stage),
            seconds(Phase::Check),
            seconds(Phase::Run),
            seconds(Phase::Verify),
            seconds(Phase::Publish),
            HumanBytes(report.bytes_in).to_string(),
            HumanBytes(report.bytes_out).to_string(),
            report
                .identity
                .map_or_else(|| "-".to_owned(), |digest| digest.short()),
        ]);
    }
    let mut text = table.to_string();
    for report in reports {
        for output in &report.outputs {
            text.push_str(&format!(
                "\n{} {}\n  manifest {}\n  content  {}",
                output.name, output.uri, output.manifest, output.digest
            ));
        }
        if let Some(log) = &report.log {
            text.push_str(&format!("\nlog {log}"));
        }
    }
    text
}

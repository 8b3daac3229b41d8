//! How a run is shown: bars on a terminal, plain lines elsewhere, JSON events on request.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use mlwm_cycles::{Event, Outcome, Phase, TaskReport};

/// Shows events as they come. Several tasks may be under way: each line names its own.
pub(crate) enum Display {
    /// A bar for what each task does, above them what has ended.
    Bars(MultiProgress, Mutex<HashMap<String, ProgressBar>>),
    /// A line for each phase that has ended, and the containers' logs.
    Lines,
    /// One JSON object a line, on standard output.
    Json,
}

impl Display {
    /// What fits where the output goes.
    pub(crate) fn choose(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Bars(MultiProgress::new(), Mutex::default()),
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
            Self::Bars(all, bars) => {
                // A poisoned lock would only mean that a bar was left half drawn.
                let mut bars = bars
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                show(all, &mut bars, event);
                if let Some(line) = line(event) {
                    all.suspend(|| eprintln!("{line}"));
                }
            }
        }
    }
}

fn show(all: &MultiProgress, bars: &mut HashMap<String, ProgressBar>, event: &Event) {
    let message = |task: &str, what: &str| format!("{task}: {what}");
    match event {
        Event::PhaseStarted { task, phase } => {
            let bar = all.add(ProgressBar::new_spinner());
            bar.set_message(message(task, phase.name()));
            bar.enable_steady_tick(Duration::from_millis(200));
            if let Some(before) = bars.insert(task.clone(), bar) {
                before.finish_and_clear();
            }
        }
        Event::TaskWaits { task, holder } => {
            let bar = all.add(ProgressBar::new_spinner());
            bar.set_message(message(task, &format!("another mlwm does it, on {holder}")));
            bar.enable_steady_tick(Duration::from_millis(200));
            bars.insert(task.clone(), bar);
        }
        Event::Progress {
            task,
            phase,
            done,
            total,
        } => {
            if let Some(bar) = bars.get(task) {
                if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                    bar.set_length(total);
                    bar.set_style(style(*phase));
                }
                bar.set_position(*done);
            }
        }
        Event::PhaseFinished { task, .. }
        | Event::TaskStarted { task, .. }
        | Event::TaskAgain { task, .. } => clear(bars, task),
        Event::TaskFinished(report) => clear(bars, &report.task),
        Event::Log { .. } | Event::DiskUsed { .. } => {}
    }
}

fn clear(bars: &mut HashMap<String, ProgressBar>, task: &str) {
    if let Some(bar) = bars.remove(task) {
        bar.finish_and_clear();
    }
}

fn style(phase: Phase) -> ProgressStyle {
    let template = match phase {
        Phase::Stage | Phase::Publish => {
            "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}"
        }
        _ => "{msg} {bar:30} {pos}/{len} steps, {elapsed}, eta {eta}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line(event: &Event) -> Option<String> {
    match event {
        Event::TaskStarted { .. } | Event::PhaseStarted { .. } | Event::Progress { .. } => None,
        Event::TaskWaits { task, holder } => Some(format!(
            "{task}: another mlwm does it, on {holder}; waiting for it"
        )),
        Event::TaskAgain {
            task,
            error,
            pause_seconds,
        } => Some(format!(
            "{task}: failed, and is tried again in {pause_seconds:.0} s: {error}"
        )),
        Event::PhaseFinished {
            phase: Phase::Queue,
            seconds,
            ..
        } if *seconds < 0.1 => None,
        Event::PhaseFinished {
            task,
            phase,
            seconds,
            bytes,
        } => {
            let moved = bytes.map(|bytes| format!(", {}", HumanBytes(bytes)));
            let moved = moved.unwrap_or_default();
            Some(format!("{task}: {:8} {seconds:.2} s{moved}", phase.name()))
        }
        Event::DiskUsed { most, budget } => Some(format!(
            "the working folder held at most {} of {}",
            HumanBytes(*most),
            HumanBytes(*budget)
        )),
        Event::Log { task, line, .. } => Some(format!("{task}: | {line}")),
        Event::TaskFinished(report) => {
            let task = &report.task;
            Some(match (&report.error, &report.warning) {
                (Some(error), _) => format!("{task}: failed: {error}"),
                (None, Some(warning)) => {
                    format!("{task}: {}, but {warning}", outcome(report.outcome))
                }
                (None, None) => format!("{task}: {}", outcome(report.outcome)),
            })
        }
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
        "model",
        "analysis time",
        "member",
        "outcome",
        "stage",
        "check",
        "run",
        "verify",
        "publish",
        "in",
        "out",
        "task",
    ]);
    for index in 4..11 {
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
            report.analysis_time.to_string(),
            report
                .member
                .map_or_else(|| "all".to_owned(), |member| member.to_string()),
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

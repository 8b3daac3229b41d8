//! How a run is shown: bars on a terminal, plain lines elsewhere, JSON events on request.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use mlwm_cycles::{Event, Outcome, Phase, RunProgress};

use crate::words::{duration, lead_time, number};

/// Shows events as they come. Several tasks may be under way: each line names its own.
pub(crate) enum Display {
    /// A bar for what each task does, above them what has ended, below them how far the run is.
    Bars(MultiProgress, Mutex<Bars>),
    /// A line for each phase that has ended, and for how far the run is then; and the containers' logs.
    Lines,
    /// One JSON object a line, on standard output.
    Json,
}

/// The bars of a terminal.
#[derive(Default)]
pub(crate) struct Bars {
    /// What each task does.
    tasks: HashMap<String, (Option<Phase>, ProgressBar)>,
    /// How far the run is, once there is something to say.
    run: Option<ProgressBar>,
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
                Err(error) => note!("cannot write an event as JSON: {error}"),
            },
            Self::Lines => {
                let far = match event {
                    Event::RunProgress(progress) if progress.after.is_some() => how_far(progress),
                    _ => None,
                };
                if let Some(line) = far.or_else(|| line(event)) {
                    note!("{line}");
                }
            }
            Self::Bars(all, bars) => {
                // A poisoned lock would only mean that a bar was left half drawn.
                let mut bars = bars
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                show(all, &mut bars, event);
                if let Some(line) = line(event) {
                    all.suspend(|| note!("{line}"));
                }
            }
        }
    }
}

fn show(all: &MultiProgress, bars: &mut Bars, event: &Event) {
    match event {
        Event::PhaseStarted { task, phase } => bars.add(all, task, phase.name(), Some(*phase)),
        Event::TaskWaits { task, holder } => {
            bars.add(
                all,
                task,
                &format!("another mlwm does it, on {holder}"),
                None,
            );
        }
        Event::Progress {
            task,
            phase,
            done,
            total,
        } => {
            // Windows are published while the model runs, whose bar this is.
            if let Some((Some(of), bar)) = bars.tasks.get(task)
                && of == phase
            {
                if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                    bar.set_length(total);
                    bar.set_style(style(*phase));
                }
                bar.set_position(*done);
            }
        }
        Event::PhaseFinished { task, .. }
        | Event::TaskStarted { task, .. }
        | Event::TaskAgain { task, .. }
        | Event::WindowsAgain { task, .. } => bars.clear(task),
        Event::TaskFinished(report) => bars.clear(&report.task),
        Event::RunProgress(progress) => {
            if let Some(line) = how_far(progress) {
                let run = bars.run.get_or_insert_with(|| {
                    let style = ProgressStyle::with_template("{msg}");
                    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
                    all.add(ProgressBar::new_spinner().with_style(style))
                });
                run.set_message(line);
            }
        }
        Event::RunFinished(_) => {
            if let Some(run) = bars.run.take() {
                run.finish_and_clear();
            }
        }
        Event::CredentialsEnd { .. }
        | Event::WaitsForSpace { .. }
        | Event::HasSpace { .. }
        | Event::Removed { .. }
        | Event::NotRemoved { .. }
        | Event::Log { .. }
        | Event::DiskUsed { .. } => {}
    }
}

impl Bars {
    /// A bar for what a task does now, in place of the one it had.
    fn add(&mut self, all: &MultiProgress, task: &str, what: &str, phase: Option<Phase>) {
        let bar = ProgressBar::new_spinner();
        let bar = match &self.run {
            Some(run) => all.insert_before(run, bar),
            None => all.add(bar),
        };
        bar.set_message(format!("{task}: {what}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Some((_, before)) = self.tasks.insert(task.to_owned(), (phase, bar)) {
            before.finish_and_clear();
        }
    }

    fn clear(&mut self, task: &str) {
        if let Some((_, bar)) = self.tasks.remove(task) {
            bar.finish_and_clear();
        }
    }
}

/// How far a run of several tasks is, in a line.
fn how_far(progress: &RunProgress) -> Option<String> {
    if progress.tasks < 2 {
        return None;
    }
    let done = progress.published + progress.already_published;
    let mut parts = vec![format!("{done} of {} tasks published", progress.tasks)];
    if progress.failed > 0 {
        parts.push(format!("{} failed", progress.failed));
    }
    for running in &progress.running {
        let at = match (running.lead_seconds, running.last_lead_seconds) {
            (Some(lead), Some(last)) => {
                format!("+{} of {}", lead_time(lead), lead_time(last))
            }
            _ => format!("step {} of {}", running.step, running.steps),
        };
        parts.push(format!("{} at {at}", running.task));
    }
    let rates = &progress.rates;
    let bytes = |rate: f64| HumanBytes(rate as u64).to_string();
    let rates = [
        rates
            .stage
            .map(|rate| format!("staged at {}/s", bytes(rate))),
        rates
            .seconds_per_step
            .map(|seconds| format!("{} s a step", number(seconds))),
        rates
            .publish
            .map(|rate| format!("published at {}/s", bytes(rate))),
    ];
    parts.extend(rates.into_iter().flatten());
    if let Some(eta) = progress.eta_seconds {
        parts.push(format!("about {} left", duration(eta.ceil())));
    }
    Some(parts.join(", "))
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
        Event::TaskStarted { .. }
        | Event::PhaseStarted { .. }
        | Event::Progress { .. }
        | Event::WaitsForSpace { .. }
        | Event::HasSpace { .. }
        | Event::RunProgress(_)
        | Event::RunFinished(_) => None,
        Event::CredentialsEnd { end, run_end } => Some(format!(
            "the credentials for S3 end at {end}, and the run is expected to end at {run_end}: what is not published by \
             then fails, and the same command goes on with new ones"
        )),
        Event::TaskWaits { task, holder } => Some(format!(
            "{task}: another mlwm does it, on {holder}; waiting for it"
        )),
        Event::Removed { task, uri, bytes } => Some(format!(
            "{task}: {} at {uri} have been read, and are removed",
            HumanBytes(*bytes)
        )),
        Event::NotRemoved { task, uri, error } => {
            Some(format!("{task}: {uri} is not removed: {error}"))
        }
        Event::WindowsAgain {
            task,
            error,
            pause_seconds,
        } => Some(format!(
            "{task}: its windows are sent again in {pause_seconds:.0} s: {error}"
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
            let warnings = report.warnings.join("; ");
            Some(match (&report.error, warnings.as_str()) {
                (Some(error), "") => format!("{task}: failed: {error}"),
                (Some(error), warnings) => format!("{task}: failed: {error} (also: {warnings})"),
                (None, "") => format!("{task}: {}", outcome(report.outcome)),
                (None, warnings) => format!("{task}: {}, but {warnings}", outcome(report.outcome)),
            })
        }
    }
}

/// An outcome, for people.
pub(crate) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Published => "published",
        Outcome::AlreadyPublished => "already published",
        Outcome::Failed => "failed",
    }
}

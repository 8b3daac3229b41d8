//! A task from its environment to its complete outputs.

use std::path::Path;
use std::time::{Duration, Instant};

use mlwm_spec::contract::Progress;
use serde_json::json;

use crate::artifact::Artifact;
use crate::forecast::Forecast;
use crate::model::OnnxModel;
use crate::output::{Outputs, Provenance};
use crate::rollout::{RolloutTimes, Sink, roll_out};
use crate::{RunnerError, Task};

/// How long a task took and how much memory it used.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Steps.
    pub steps: u64,
    /// Reading the artifact and opening the inputs.
    pub open: Duration,
    /// The rollout.
    pub rollout: RolloutTimes,
    /// Everything.
    pub total: Duration,
    /// Most memory that the process ever had, in bytes, where the system says so.
    pub peak_rss: Option<u64>,
}

impl Timing {
    /// The line of the log that benchmarks read.
    pub fn line(&self) -> String {
        let rollout = &self.rollout;
        let timing = json!({
            "steps": self.steps,
            "open_s": self.open.as_secs_f64(),
            "load_s": rollout.load.as_secs_f64(),
            "rollout_s": rollout.rollout.as_secs_f64(),
            "session_s": rollout.session.as_secs_f64(),
            "drain_s": rollout.drain.as_secs_f64(),
            "total_s": self.total.as_secs_f64(),
            "peak_rss_bytes": self.peak_rss,
        });
        format!("timing: {timing}")
    }
}

/// Runs a task with an unpacked artifact and a library of ONNX Runtime. `log` is called with every
/// line of progress and of log, also from other threads.
///
/// # Errors
/// The first thing that goes wrong; then no output is left behind.
pub fn run(
    task: &Task,
    artifact: &Path,
    library: &Path,
    log: &(dyn Fn(&str) + Sync),
) -> Result<Timing, RunnerError> {
    let begin = Instant::now();
    let artifact = Artifact::read(artifact)?;
    let forecast = Forecast::open(&artifact, task)?;
    announce(&forecast, task, log);
    let provenance = Provenance::of(task, &artifact);
    let outputs = Outputs::create(&task.outputs, &forecast, task.layout, &provenance)?;
    let open = begin.elapsed();
    let load = || OnnxModel::load(library, &artifact.model, &forecast, task);
    let mut sink = Reporting {
        outputs,
        steps: forecast.schedule().steps,
        log,
    };
    let rolled = roll_out(&forecast, load, &mut sink);
    let rollout = match rolled {
        Ok(rollout) => rollout,
        Err(error) => {
            sink.outputs.discard();
            return Err(error);
        }
    };
    sink.outputs.complete()?;
    Ok(Timing {
        steps: forecast.schedule().steps,
        open,
        rollout,
        total: begin.elapsed(),
        peak_rss: peak_rss(),
    })
}

/// Says what begins.
pub(crate) fn announce(forecast: &Forecast<'_>, task: &Task, log: &(dyn Fn(&str) + Sync)) {
    for warning in forecast.warnings() {
        log(&format!("warning: {warning}"));
    }
    log(&format!(
        "running {} steps on {} from {}{}",
        forecast.schedule().steps,
        task.device.name(),
        task.analysis_time,
        match task.deterministic {
            true => ", the same bytes each time",
            false => "",
        }
    ));
}

/// Reports a step once it is written.
struct Reporting<'a> {
    outputs: Outputs<'a>,
    steps: u64,
    log: &'a (dyn Fn(&str) + Sync),
}

impl Sink for Reporting<'_> {
    fn take(&mut self, step: u64, predicted: &[f32]) -> Result<(), RunnerError> {
        self.outputs.take(step, predicted)?;
        (self.log)(
            &Progress {
                step,
                of: self.steps,
            }
            .line(),
        );
        Ok(())
    }
}

/// The peak of the resident memory, from `VmHWM` in `/proc/self/status`.
pub(crate) fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

//! The outputs of a work, window by window: each window is a store of its own, which appears under
//! its name once it is complete, and is not begun before the host has room for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlwm_spec::contract::OutputRequest;
use mlwm_spec::contract::stream::{Event, GO, Window, Work};

use super::works::LOOK;
use crate::forecast::Forecast;
use crate::output::{Predictions, Provenance, StepStore, write_error};
use crate::rollout::Sink;
use crate::{RunnerError, Task};

/// The outputs of a work, being written.
pub(super) struct WindowedOutputs<'a> {
    work: String,
    /// Where the host says which windows may be written.
    go: PathBuf,
    predictions: Predictions<'a>,
    outputs: Vec<Output>,
    steps: u64,
    abandoned: Arc<AtomicBool>,
    log: &'a (dyn Fn(&str) + Sync),
}

/// One output.
struct Output {
    request: OutputRequest,
    /// Numbers of the variables in the layout.
    variables: Vec<usize>,
    /// Those that are not complete.
    windows: std::vec::IntoIter<Window>,
    open: Option<Store>,
}

/// The store of a window, being written.
struct Store {
    window: Window,
    steps: StepStore,
    partial: PathBuf,
    path: PathBuf,
}

impl<'a> WindowedOutputs<'a> {
    /// The outputs that a work asks for; nothing is written yet.
    pub(super) fn new(
        work: &Work,
        folder: &Path,
        forecast: &'a Forecast<'a>,
        task: &Task,
        provenance: &Provenance,
        log: &'a (dyn Fn(&str) + Sync),
    ) -> Result<Self, RunnerError> {
        let predictions = Predictions::new(forecast, task.layout, provenance);
        let steps = forecast.schedule().steps;
        let mut outputs = Vec::new();
        for windowed in &work.outputs {
            let request = windowed.output.clone();
            let windows = Window::all(steps, forecast.schedule().step, windowed.window);
            let windows = windows.map_err(|error| {
                RunnerError::Environment(format!("output `{}`: {error}", request.name))
            })?;
            outputs.push(Output {
                variables: predictions.requested(&request)?,
                request,
                windows: windows.into_iter(),
                open: None,
            });
        }
        Ok(Self {
            work: work.work.clone(),
            go: folder.join(GO),
            predictions,
            outputs,
            steps,
            abandoned: Arc::new(AtomicBool::new(false)),
            log,
        })
    }

    /// Opens the next window of every output that has none open. False if the rollout failed
    /// meanwhile.
    fn open(&mut self) -> Result<bool, RunnerError> {
        for output in &mut self.outputs {
            if output.open.is_some() {
                continue;
            }
            let Some(window) = output.windows.next() else {
                continue;
            };
            let go = self.go.join(window.to_string());
            while !go.exists() {
                if self.abandoned.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                std::thread::sleep(LOOK);
            }
            output.open = Some(Store::start(&self.predictions, output, window)?);
        }
        Ok(true)
    }

    /// Removes what was begun and will not be completed. Windows that are complete belong to the
    /// host.
    pub(super) fn discard(self) {
        for store in self.outputs.into_iter().filter_map(|output| output.open) {
            // If it stays, the host removes it with the work.
            let _ = fs::remove_dir_all(&store.partial);
        }
    }
}

impl Store {
    fn start(
        predictions: &Predictions<'_>,
        output: &Output,
        window: Window,
    ) -> Result<Self, RunnerError> {
        let folder = Path::new(&output.request.path);
        let (path, partial) = (
            folder.join(window.to_string()),
            folder.join(format!(".{window}")),
        );
        if path.exists() {
            return Err(RunnerError::Occupied { path });
        }
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .map_err(|error| write_error(&output.request.name, &error))?;
        }
        let steps = (window.first_step, window.last_step);
        let steps = predictions.start(&output.request, &partial, &output.variables, steps)?;
        Ok(Self {
            window,
            steps,
            partial,
            path,
        })
    }

    fn complete(self, output: &str) -> Result<(), RunnerError> {
        self.steps
            .finish()
            .map_err(|error| write_error(output, &error))?;
        fs::rename(&self.partial, &self.path).map_err(|error| write_error(output, &error))
    }
}

impl Sink for WindowedOutputs<'_> {
    fn take(&mut self, step: u64, predicted: &[f32]) -> Result<(), RunnerError> {
        if !self.open()? {
            return Ok(());
        }
        let mut complete: Vec<Window> = Vec::new();
        for output in &mut self.outputs {
            let name = &output.request.name;
            let Some(store) = output.open.as_mut() else {
                continue;
            };
            let window = store.window;
            self.predictions.write(name, &mut store.steps, predicted)?;
            if step == window.last_step
                && let Some(store) = output.open.take()
            {
                store.complete(name)?;
                if !complete.contains(&window) {
                    complete.push(window);
                }
            }
        }
        let work = || self.work.clone();
        let progress = Event::Step {
            work: work(),
            step,
            of: self.steps,
        };
        (self.log)(&progress.line());
        for window in complete {
            let window = window.to_string();
            let event = Event::Window {
                work: work(),
                window,
            };
            (self.log)(&event.line());
        }
        Ok(())
    }

    fn abandoned(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.abandoned))
    }
}

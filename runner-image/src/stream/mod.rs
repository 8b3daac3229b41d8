//! The streaming mode of the contract: one container serves many members with one loaded model.

mod windows;
mod works;

use std::path::Path;
use std::time::Instant;

use mlwm_spec::contract::stream::{Event, WORK_FILE, Work};

use crate::forecast::Forecast;
use crate::model::OnnxModel;
use crate::output::Provenance;
use crate::rollout::roll_out;
use crate::run::{announce, peak_rss};
use crate::{Artifact, RunnerError, Task, Timing};
use windows::WindowedOutputs;
use works::Works;

/// The longest description of a work that is read.
const LONGEST_WORK: u64 = 16 << 20;

/// Serves the works of a stream one after the other, until there will be no more. A work that fails
/// is reported, and the next is served. `log` is called with every line of progress and of log, also
/// from other threads.
///
/// # Errors
/// What would make every work fail: an artifact or a library that cannot be used, a folder of works
/// that cannot be read.
pub fn serve(
    stream: &Path,
    task: &Task,
    artifact: &Path,
    library: &Path,
    log: &(dyn Fn(&str) + Sync),
) -> Result<(), RunnerError> {
    let artifact = Artifact::read(artifact)?;
    let mut server = Server {
        task,
        artifact: &artifact,
        library,
        models: Vec::new(),
        log,
    };
    let mut works = Works::of(stream);
    while let Some((name, folder)) = works.next()? {
        let work = name.clone();
        let Err(error) = server.work(&name, &folder) else {
            log(&Event::Done { work }.line());
            continue;
        };
        let why = error.to_string();
        let code = Some(error.exit_code().number());
        log(&Event::Failed { work, why, code }.line());
        match error {
            RunnerError::Library(_)
            | RunnerError::Artifact(_)
            | RunnerError::ArtifactFile { .. } => return Err(error),
            // What it left behind in the session is not known.
            RunnerError::Onnx(_) => server.models.clear(),
            _ => {}
        }
    }
    Ok(())
}

/// What lives from one work to the next.
struct Server<'a> {
    task: &'a Task,
    artifact: &'a Artifact,
    library: &'a Path,
    /// Loaded for the first work whose inputs are sound.
    models: Vec<OnnxModel>,
    log: &'a (dyn Fn(&str) + Sync),
}

impl Server<'_> {
    fn work(&mut self, name: &str, folder: &Path) -> Result<(), RunnerError> {
        let begin = Instant::now();
        let (artifact, library, log) = (self.artifact, self.library, self.log);
        let path = folder.join(WORK_FILE);
        let wrong = |reason: String| RunnerError::Work {
            path: path.clone(),
            reason,
        };
        let work = read(&path).map_err(wrong)?;
        if work.work != name {
            return Err(wrong(format!("it is work `{}`", work.work)));
        }
        let task = self.task.of_work(&work).map_err(wrong)?;
        let forecast = Forecast::open(artifact, &task)?;
        announce(&forecast, &task, log);
        let provenance = Provenance::of(&task, artifact);
        let mut sink = WindowedOutputs::new(&work, folder, &forecast, &task, &provenance, log)?;
        let open = begin.elapsed();
        let models = &mut self.models;
        let load = || OnnxModel::load(library, &artifact.model, &forecast, &task);
        let rolled = roll_out(&forecast, move || loaded(models, load), &mut sink);
        let rollout = match rolled {
            Ok(rollout) => rollout,
            Err(error) => {
                sink.discard();
                return Err(error);
            }
        };
        let timing = Timing {
            steps: forecast.schedule().steps,
            open,
            rollout,
            total: begin.elapsed(),
            peak_rss: peak_rss(),
        };
        log(&timing.line());
        Ok(())
    }
}

/// The model that is loaded, or that is loaded now.
fn loaded(
    models: &mut Vec<OnnxModel>,
    load: impl FnOnce() -> Result<Vec<OnnxModel>, RunnerError>,
) -> Result<Vec<&mut OnnxModel>, RunnerError> {
    if models.is_empty() {
        *models = load()?;
    }
    Ok(models.iter_mut().collect())
}

fn read(path: &Path) -> Result<Work, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if size > LONGEST_WORK {
        return Err(format!("it has {size} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Work::parse(&text)
}

//! The container of a task: what it is given, what it prints, how it ended.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{LineWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mlwm_engines::{Ended, Engine, Image, Mount, Output, Request};
use mlwm_registries::UnpackedArtifact;
use mlwm_spec::Digest;
use mlwm_spec::contract::{ARTIFACT_DIR, Progress, env};
use mlwm_storage::points::reach;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::event::{Event, Phase};
use crate::plan::PlannedTask;
use crate::run::Context;
use crate::{Error, scratch};

/// The label that ties a container to its task.
const TASK_LABEL: &str = "io.mlwm.task";
/// The label that all containers of mlwm have: the version of the contract they run under.
const CONTRACT_LABEL: (&str, &str) = ("io.mlwm.contract", "1");
/// Lines of a container's log that an error shows, and characters of each.
const LAST_LINES: usize = 20;
const SHOWN_CHARACTERS: usize = 500;

/// How a container went, for the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub(crate) started: String,
    pub(crate) finished: String,
    pub(crate) log: PathBuf,
    /// The most memory that it used, in bytes, where the engine says it.
    pub(crate) peak_memory: Option<u64>,
}

/// What a container is run for.
pub(crate) struct Job<'a> {
    pub(crate) planned: &'a PlannedTask,
    pub(crate) image: &'a Image,
    /// Mounted, if it is not in the image.
    pub(crate) artifact: Option<&'a UnpackedArtifact>,
    /// Identity of the task.
    pub(crate) identity: Digest,
    /// Where what it prints is kept.
    pub(crate) log: &'a Path,
}

/// Removes the containers that an mlwm left behind which was killed.
pub(crate) async fn sweep(engine: &Engine) -> Result<(), Error> {
    let (name, value) = CONTRACT_LABEL;
    engine
        .sweep(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
        .await?;
    Ok(())
}

/// Runs the container of a task; its inputs are staged.
pub(crate) async fn run(
    context: &Context<'_>,
    job: &Job<'_>,
    cancel: &CancellationToken,
) -> Result<Ran, Error> {
    let request = request(context, job)?;
    let mut lines = Lines::new(context, job.planned, job.log);
    let ended = context
        .engine
        .run(&request, &mut |output| lines.take(output), cancel)
        .await?;
    let (last, written) = lines.finish();
    judge(job.planned, &ended, job.log, last)?;
    written.map_err(|source| unwritable(job.log, source))?;
    Ok(Ran {
        started: ended.started,
        finished: ended.finished,
        log: job.log.to_owned(),
        peak_memory: ended.peak_memory,
    })
}

fn request(context: &Context<'_>, job: &Job<'_>) -> Result<Request, Error> {
    let Job {
        planned,
        image,
        artifact,
        identity,
        ..
    } = *job;
    let artifact = artifact.map(|artifact| Mount {
        source: artifact.path.clone(),
        target: ARTIFACT_DIR.to_owned(),
        read_only: true,
    });
    let mut mounts = Vec::from_iter(artifact);
    for input in &planned.inputs {
        mounts.push(Mount {
            source: context.scratch.input(planned, &input.name),
            target: input.internal_path.clone(),
            read_only: true,
        });
    }
    for output in &planned.outputs {
        let source = context.scratch.output(planned, &output.name);
        scratch::create(&source)?;
        mounts.push(Mount {
            source,
            target: output.internal_path.clone(),
            read_only: false,
        });
    }
    let mut environment = planned.environment.clone();
    environment.insert(env::MLWM_TASK.to_owned(), identity.to_string());
    Ok(Request {
        name: format!(
            "mlwm-{}-{}-member{}-{}",
            planned.configuration,
            planned.analysis_time.path_text(),
            planned.member,
            identity.short()
        ),
        // By its content: a tag may be moved while the inputs are staged.
        image: image.id.to_string(),
        env: environment,
        mounts,
        resources: planned.resources.clone(),
        timeout: planned.timeout.map(|timeout| timeout.duration()),
        labels: BTreeMap::from([
            (TASK_LABEL.to_owned(), identity.to_string()),
            (CONTRACT_LABEL.0.to_owned(), CONTRACT_LABEL.1.to_owned()),
        ]),
        command: None,
        user: caller()?,
    })
}

/// The user and group that mlwm runs as: the container runs as the same.
fn caller() -> Result<(u32, u32), Error> {
    let path = Path::new("/proc/self");
    let me = fs::metadata(path).map_err(|source| Error::Scratch {
        path: path.to_owned(),
        source,
    })?;
    Ok((me.uid(), me.gid()))
}

fn judge(planned: &PlannedTask, ended: &Ended, log: &Path, last: Vec<String>) -> Result<(), Error> {
    let log = log.to_owned();
    if ended.cancelled {
        return Err(Error::Interrupted);
    }
    if let Some(timeout) = planned.timeout.filter(|_| ended.timed_out) {
        return Err(Error::Timeout { timeout, log, last });
    }
    let code = ended.exit_code;
    // Podman does not tell of a kill for want of memory, and Docker not always (it hears of it from a
    // control group that may be gone already): a container with a limit that was killed, and not by
    // us, is taken to have run into it.
    let limit = planned.resources.memory;
    let killed = code == 137 && limit.is_some();
    match (code, ended.oom_killed || killed) {
        (0, false) => Ok(()),
        // Also if the first process lived on: what it made without the one that was killed is not
        // to be trusted.
        (_, true) => Err(Error::OutOfMemory {
            limit: match (limit, ended.oom_killed) {
                (Some(limit), true) => format!("its {limit}"),
                (Some(limit), false) => {
                    format!("its {limit} (the engine says only that it was killed)")
                }
                (None, _) => "the machine has".to_owned(),
            },
            log,
            last,
        }),
        (_, false) => Err(Error::ContainerFailed { code, log, last }),
    }
}

/// The container's output: progress is told, all else is told, kept in a file, and its end kept
/// for an error.
struct Lines<'a> {
    context: &'a Context<'a>,
    task: String,
    path: &'a Path,
    /// Made with the first line, so that a container that was refused leaves no log.
    file: Option<LineWriter<File>>,
    last: VecDeque<String>,
    written: std::io::Result<()>,
}

impl<'a> Lines<'a> {
    fn new(context: &'a Context<'a>, planned: &PlannedTask, path: &'a Path) -> Self {
        Self {
            context,
            task: planned.title(),
            path,
            file: None,
            last: VecDeque::with_capacity(LAST_LINES),
            written: Ok(()),
        }
    }

    fn take(&mut self, output: Output) {
        let (stream, line) = match output {
            Output::Stdout(line) => ("stdout", line),
            Output::Stderr(line) => ("stderr", line),
        };
        reach("container: a line");
        if let Some(progress) = Progress::parse(&line) {
            (self.context.tell)(Event::Progress {
                task: self.task.clone(),
                phase: Phase::Run,
                done: progress.step,
                total: Some(progress.of),
            });
            return;
        }
        if self.written.is_ok() {
            self.written = self.file().and_then(|file| writeln!(file, "{line}"));
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        let line = printable(&line);
        self.last
            .push_back(line.chars().take(SHOWN_CHARACTERS).collect());
        (self.context.tell)(Event::Log {
            task: self.task.clone(),
            stream,
            line,
        });
    }

    fn file(&mut self) -> std::io::Result<&mut LineWriter<File>> {
        if self.file.is_none() {
            fs::create_dir_all(self.path.parent().unwrap_or(self.path))?;
            self.file = Some(LineWriter::new(File::create(self.path)?));
        }
        // It was just made, if it was not there.
        self.file
            .as_mut()
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// The last lines, once all are in the file; an empty file if there are none.
    fn finish(mut self) -> (Vec<String>, std::io::Result<()>) {
        let written = std::mem::replace(&mut self.written, Ok(()));
        let written = written.and_then(|()| self.file()?.flush());
        (self.last.into(), written)
    }
}

/// A line as it can be shown: without characters that would move the cursor or rename the window.
fn printable(line: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\t' {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    line.chars().map(shown).collect()
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    Error::Scratch {
        path: path.to_owned(),
        source,
    }
}

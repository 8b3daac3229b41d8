//! The container of a task: what it is given, what it prints, how it ended.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use mlwm_engines::{Engine, Image, Mount, Output, Redaction, Request};
use mlwm_registries::UnpackedArtifact;
use mlwm_spec::Digest;
use mlwm_spec::contract::stream::STREAM_DIR;
use mlwm_spec::contract::{ARTIFACT_DIR, Progress, env};
use mlwm_storage::points::reach;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::ending::{judge, whole};
use crate::event::{Event, Phase};
use crate::log::{Kept, Log};
use crate::plan::PlannedTask;
use crate::run::Context;
use crate::{Error, scratch, warm};

/// The label that ties a container to its task.
const TASK_LABEL: &str = "io.mlwm.task";
/// The label that all containers of mlwm have: the version of the contract they run under.
const CONTRACT_LABEL: (&str, &str) = ("io.mlwm.contract", "1");
/// What a log has in the place of a credential.
const HIDDEN: &str = "[credential]";
/// Lines of a container's log that an error shows, and characters of each.
const LAST_LINES: usize = 20;
const SHOWN_CHARACTERS: usize = 500;
/// Progress that is told however fast it comes, and the time between two times after that.
const UNHURRIED: u32 = 1000;
const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

/// How a container went, for the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub(crate) started: String,
    pub(crate) finished: String,
    pub(crate) log: PathBuf,
    /// The most memory that it used, in bytes, where the engine says it.
    pub(crate) peak_memory: Option<u64>,
}

impl Ran {
    /// Of a container that serves others, too: it is at this since then, until now.
    pub(crate) fn since(started: &str, log: &Path) -> Self {
        Self {
            started: started.to_owned(),
            finished: now(),
            log: log.to_owned(),
            peak_memory: None,
        }
    }

    /// The same until now.
    pub(crate) fn until_now(&self) -> Self {
        Self::since(&self.started, &self.log)
    }
}

/// The time as manifests say it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%FT%TZ").to_string()
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
    /// Its place in the plan.
    pub(crate) turn: usize,
    /// Bytes that it may write.
    pub(crate) room: u64,
}

/// Removes the containers that an mlwm left behind which was killed.
pub(crate) async fn sweep(engine: &Engine) -> Result<(), Error> {
    let (name, value) = CONTRACT_LABEL;
    engine
        .sweep(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
        .await?;
    Ok(())
}

/// Runs the container of a task; its inputs are staged. Also says whether its log could be written.
pub(crate) async fn run(
    context: &Context<'_>,
    job: &Job<'_>,
    cancel: &CancellationToken,
) -> Result<(Ran, io::Result<()>), Error> {
    if let Some((free, reserve)) = context.disk.short() {
        return Err(Error::DiskShort {
            folder: context.scratch.root().to_owned(),
            free: whole(free),
            reserve: whole(reserve),
        });
    }
    let request = request(context, job)?;
    let mut lines = Lines::new(context, job.planned, job.log);
    let mut take = |output| lines.take(output);
    let watched = context.disk.watch(job.turn, outputs(context, job.planned));
    let (ended, excess) = {
        let running = context.engine.run(&request, &mut take, cancel);
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => (ended?, None),
            excess = watched.excess(job.room) => {
                request.kill.cancel();
                (running.await?, Some(excess))
            }
        }
    };
    drop(watched);
    let (last, written) = lines.finish();
    judge(
        (&job.planned.resources, job.planned.timeout),
        &ended,
        excess,
        job.log,
        last,
    )?;
    let ran = Ran {
        started: ended.started,
        finished: ended.finished,
        log: job.log.to_owned(),
        peak_memory: ended.peak_memory,
    };
    Ok((ran, written))
}

/// Where its outputs lie.
fn outputs(context: &Context<'_>, planned: &PlannedTask) -> Vec<PathBuf> {
    let outputs = planned.outputs.iter();
    outputs
        .map(|output| context.scratch.output(planned, &output.name))
        .collect()
}

fn request(context: &Context<'_>, job: &Job<'_>) -> Result<Request, Error> {
    let Job {
        planned,
        image,
        artifact,
        identity,
        ..
    } = *job;
    let mut mounts = Vec::from_iter(artifact.map(artifact_mount));
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
    environment.extend(credentials(planned)?);
    Ok(Request {
        name: name(
            context,
            planned,
            &format!("member{}", planned.member),
            identity,
        ),
        // By its content: a tag may be moved while the inputs are staged.
        image: image.id.to_string(),
        env: environment,
        mounts,
        resources: planned.resources.clone(),
        timeout: planned.timeout.map(|timeout| timeout.duration()),
        labels: labels(identity),
        command: planned.command.clone(),
        network: planned.network,
        user: caller()?,
        kill: CancellationToken::new(),
    })
}

/// The credentials that a task is given, from the environment of mlwm.
fn credentials(planned: &PlannedTask) -> Result<BTreeMap<String, String>, Error> {
    let value = |name: &String| match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok((name.clone(), value)),
        _ => Err(Error::NoCredential {
            name: name.clone(),
            configuration: planned.configuration.clone(),
        }),
    };
    planned.credentials.iter().map(value).collect()
}

/// The request for a container that serves the task of `job` and others like it.
pub(crate) fn warm_request(
    context: &Context<'_>,
    job: &warm::Job,
    folders: impl IntoIterator<Item = Mount>,
) -> Result<Request, Error> {
    let planned = &job.planned;
    let mut environment = planned.environment.clone();
    for of_one_member in [
        env::MLWM_MEMBER,
        env::MLWM_SEED,
        env::MLWM_OUTPUTS,
        env::DATASTORE_INPUT_PATHS,
    ] {
        environment.remove(of_one_member);
    }
    environment.remove(env::MLWM_INPUTS);
    environment.insert(env::MLWM_STREAM.to_owned(), STREAM_DIR.to_owned());
    let mut mounts = Vec::from_iter(job.artifact.as_ref().map(artifact_mount));
    mounts.extend(folders);
    Ok(Request {
        name: name(context, planned, "members", job.identity),
        image: job.image.id.to_string(),
        env: environment,
        mounts,
        resources: planned.resources.clone(),
        // Each member has its own.
        timeout: None,
        labels: labels(job.identity),
        command: None,
        network: false,
        user: caller()?,
        kill: CancellationToken::new(),
    })
}

/// The name of a container. The same task may run in several working folders, which publish to their own places:
/// they are told apart by the end of it.
pub(crate) fn name(
    context: &Context<'_>,
    planned: &PlannedTask,
    of: &str,
    identity: Digest,
) -> String {
    let folder = Digest::of(context.scratch.root().as_os_str().as_bytes());
    format!(
        "mlwm-{}-{}-{of}-{}-{}",
        planned.configuration.replace('/', "."),
        planned.analysis_time.path_text(),
        identity.short(),
        folder.short()
    )
}

fn artifact_mount(artifact: &UnpackedArtifact) -> Mount {
    Mount {
        source: artifact.path.clone(),
        target: ARTIFACT_DIR.to_owned(),
        read_only: true,
    }
}

pub(crate) fn labels(identity: Digest) -> BTreeMap<String, String> {
    let (contract, version) = CONTRACT_LABEL;
    BTreeMap::from([
        (TASK_LABEL.to_owned(), identity.to_string()),
        (contract.to_owned(), version.to_owned()),
    ])
}

/// The user and group that mlwm runs as: the container runs as the same.
pub(crate) fn caller() -> Result<(u32, u32), Error> {
    let path = Path::new("/proc/self");
    let me = fs::metadata(path).map_err(|source| Error::Scratch {
        path: path.to_owned(),
        source,
    })?;
    Ok((me.uid(), me.gid()))
}

/// The container's output: progress is told; all else is told and kept, as far as there is not too
/// much of it; and its end kept for an error.
pub(crate) struct Lines<'a> {
    context: &'a Context<'a>,
    task: String,
    log: Log,
    last: VecDeque<String>,
    /// What no line may show.
    hidden: Redaction,
    /// How often progress was told, and when last.
    told: (u32, Instant),
}

impl<'a> Lines<'a> {
    pub(crate) fn new(context: &'a Context<'a>, planned: &PlannedTask, path: &Path) -> Self {
        Self {
            context,
            task: planned.title(),
            log: Log::new(path),
            // Without its credentials the container is not begun.
            hidden: Redaction::of(
                credentials(planned)
                    .unwrap_or_default()
                    .values()
                    .map(String::as_bytes),
            ),
            last: VecDeque::with_capacity(LAST_LINES),
            told: (0, Instant::now()),
        }
    }

    fn take(&mut self, output: Output) {
        let (stream, line) = match output {
            Output::Stdout(line) => ("stdout", line),
            Output::Stderr(line) => ("stderr", line),
        };
        reach("container: a line");
        if let Some(progress) = Progress::parse(&line) {
            self.step(&progress);
            return;
        }
        self.log(stream, &line);
    }

    /// A line of log.
    pub(crate) fn log(&mut self, stream: &'static str, line: &str) {
        let line = &*self.hidden.apply(line, HIDDEN);
        let kept = self.log.take(line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        let printable = printable(line);
        self.last
            .push_back(printable.chars().take(SHOWN_CHARACTERS).collect());
        let line = match kept {
            Kept::Written => printable,
            Kept::First(notice) => notice,
            Kept::AtEnd => return,
        };
        (self.context.tell)(Event::Log {
            task: self.task.clone(),
            stream,
            line,
        });
    }

    /// Steps done, and in all.
    pub(crate) fn step(&mut self, progress: &Progress) {
        let (times, last) = self.told;
        if times > UNHURRIED && last.elapsed() < BETWEEN_EVENTS && progress.step != progress.of {
            return;
        }
        self.told = (times.saturating_add(1), Instant::now());
        (self.context.tell)(Event::Progress {
            task: self.task.clone(),
            phase: Phase::Run,
            done: progress.step,
            total: Some(progress.of),
        });
    }

    /// The last lines, once the log is whole.
    pub(crate) fn finish(self) -> (Vec<String>, io::Result<()>) {
        (self.last.into(), self.log.finish())
    }
}

/// A line as it can be shown: without characters that would move the cursor or rename the window.
pub(crate) fn printable(line: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\t' {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    line.chars().map(shown).collect()
}

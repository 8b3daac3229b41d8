//! One container from its creation to its removal.

use std::pin::pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerState, ContainerStateStatusEnum as Status, ContainerWaitResponse};
use bollard::query_parameters::{
    KillContainerOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures::StreamExt;
use futures::future::{Fuse, FusedFuture, FutureExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::connect::{Endpoint, Engine};
use crate::created::Created;
use crate::error::{Error, one_line, status};
use crate::info::Kind;
use crate::lines::Lines;
use crate::request::{Ended, Output, Request};
use crate::{container, follow, gpus};

/// Seconds between `SIGTERM` and `SIGKILL`.
const GRACE_SECONDS: u64 = 10;
/// Exit codes from here on are those of processes that a signal ended, or whose end nobody saw.
const BY_SIGNAL: i64 = 128;
/// How long a container may live on that was told to stop, beyond the time that it is given. A
/// process that waits in the kernel, for a disk or a GPU that does not answer, cannot be killed.
const UNDEAD: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 60 });
/// How often, each half second, an engine is looked at that may be about to leave.
const LEAVING_LOOKS: u32 = 4;
/// How long output may pause after the container's end before it counts as complete, should the
/// engine not close it.
const OUTPUT_PAUSE: Duration = Duration::from_secs(10);
/// A deadline for containers without one.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

impl Engine {
    /// Runs a container to its end and removes it.
    ///
    /// It has no network, no capabilities and no way to new privileges; its root is read-only, but
    /// for `/tmp` (half of its memory, or 1 GiB) and `/dev/shm`. `HOME`, `TMPDIR`, `USER`,
    /// `LOGNAME` and the folders of the XDG specification are set to usable values unless
    /// [`Request::env`] has them. With a limit of memory it gets no swap.
    ///
    /// Every line that it prints goes to `output` before this returns. (An engine that is restarted
    /// while its container lives on, as Podman's service may be, breaks the output off; how the
    /// container ends is still told, if the engine is back in time, see [`Engine::connect`].) At the time limit, or when
    /// `cancel` is cancelled, it gets `SIGTERM`, and `SIGKILL` after 10 s; when [`Request::kill`] is,
    /// `SIGKILL`. One that lives on after that is an error. On every way out, including that this
    /// future is dropped, the container is removed; dropping therefore blocks until the engine has
    /// killed it.
    pub async fn run(
        &self,
        request: &Request,
        output: &mut (dyn FnMut(Output) + Send),
        cancel: &CancellationToken,
    ) -> Result<Ended, Error> {
        request.check()?;
        if self.info.kind == Kind::Podman {
            request.check_for_podman()?;
        }
        if matches!(self.endpoint, Endpoint::Unix(_)) {
            request.check_sources()?;
        }
        let gpus = gpus::request(request.resources.gpus.as_ref(), &self.info)
            .map_err(|reason| gpu_error(request, reason))?;
        self.image(&request.image)
            .await?
            .ok_or_else(|| missing(request))?;
        if cancel.is_cancelled() {
            return Err(Error::Cancelled {
                name: request.name.clone(),
            });
        }
        let body = container::body(request, gpus, &self.info);
        let created = Created::create(self, request, body).await?;
        let result = Running {
            engine: self,
            id: created.id(),
            request,
        }
        .run(output, cancel)
        .await;
        let removed = created.remove().await;
        result.map(|ended| Ended { removed, ..ended })
    }
}

/// The engine does not have the image of a request.
pub(crate) fn missing(request: &Request) -> Error {
    Error::ImageMissing {
        reference: request.image.clone(),
    }
}

fn gpu_error(request: &Request, reason: String) -> Error {
    let wanted = request
        .resources
        .gpus
        .as_ref()
        .map(gpus::describe)
        .unwrap_or_default();
    Error::Gpus {
        name: request.name.clone(),
        wanted,
        reason,
    }
}

/// Why a container was stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    TimedOut,
    Cancelled,
    Killed,
}

struct Running<'a> {
    engine: &'a Engine,
    id: &'a str,
    request: &'a Request,
}

impl Running<'_> {
    async fn run(
        &self,
        output: &mut (dyn FnMut(Output) + Send),
        cancel: &CancellationToken,
    ) -> Result<Ended, Error> {
        // Attached before the start, so that the first line is not missed.
        let mut follower = follow::Follower::attach(&self.engine.docker, self.id).await?;
        self.start().await?;
        follower.sample(&self.engine.docker, self.id);

        let mut printer = Printer {
            output,
            stdout: Lines::default(),
            stderr: Lines::default(),
        };
        let (end, stopped) = self
            .supervise(&mut follower.output, &mut printer, cancel)
            .await?;
        while let Ok(Some(frame)) = timeout(OUTPUT_PAUSE, follower.output.recv()).await {
            printer.print(frame);
        }
        printer.finish();

        let End { state, engine_left } = end;
        let exit_code = state.exit_code.unwrap_or(-1);
        let oom_killed = self.oom_killed(&state).await;
        let by_signal = stopped.is_none() && !oom_killed && exit_code >= BY_SIGNAL;
        if by_signal && (engine_left || self.engine_leaves().await) {
            // Docker's daemon ends its containers when it comes back: that is no fault of the model.
            return Err(Error::Away {
                name: self.request.name.clone(),
                exit_code,
            });
        }
        Ok(Ended {
            exit_code,
            oom_killed,
            timed_out: stopped == Some(Stopped::TimedOut),
            cancelled: stopped == Some(Stopped::Cancelled),
            started: state.started_at.unwrap_or_default(),
            finished: state.finished_at.unwrap_or_default(),
            container_id: self.id.to_owned(),
            peak_memory: follower.peak_memory(),
            peak_processes: follower.peak_processes(),
            removed: false,
        })
    }

    async fn start(&self) -> Result<(), Error> {
        self.engine
            .docker
            .start_container(self.id, None)
            .await
            .map_err(|error| {
                match Error::from_engine(format!("start container `{}`", self.request.name), error)
                {
                    Error::Refused { message, .. }
                        if message.contains("could not select device driver") =>
                    {
                        gpu_error(self.request, message)
                    }
                    Error::Refused { message, .. } => Error::Start {
                        name: self.request.name.clone(),
                        image: self.request.image.clone(),
                        message,
                    },
                    other => other,
                }
            })
    }

    /// Hands on what the container prints until it ends, and sees to it that it does end.
    async fn supervise(
        &self,
        frames: &mut mpsc::Receiver<LogOutput>,
        printer: &mut Printer<'_>,
        cancel: &CancellationToken,
    ) -> Result<(End, Option<Stopped>), Error> {
        let deadline = Instant::now() + self.request.timeout.unwrap_or(NEVER).min(NEVER);
        let mut printing = true;
        let mut stopped: Option<Stopped> = None;
        let mut killed = false;
        let mut undead = Instant::now() + NEVER;
        let mut ended = pin!(self.ended());
        let mut stopping = pin!(Fuse::terminated());
        loop {
            let reason = tokio::select! {
                end = &mut ended => return Ok((end?, stopped)),
                frame = frames.recv(), if printing => {
                    match frame {
                        Some(frame) => printer.print(frame),
                        None => printing = false,
                    }
                    continue;
                }
                result = &mut stopping, if !stopping.is_terminated() => {
                    result?;
                    continue;
                }
                () = cancel.cancelled(), if stopped.is_none() => Stopped::Cancelled,
                () = sleep_until(deadline), if stopped.is_none() => Stopped::TimedOut,
                () = self.request.kill.cancelled(), if !killed => Stopped::Killed,
                () = sleep_until(undead) => {
                    return Err(Error::Undead { name: self.request.name.clone() });
                }
            };
            killed = reason == Stopped::Killed;
            let grace = if killed { 0 } else { GRACE_SECONDS };
            undead = Instant::now() + Duration::from_secs(grace) + UNDEAD;
            stopped.get_or_insert(reason);
            stopping.set(self.stop(killed).fuse());
        }
    }

    /// Whether the engine goes away in the next moments: one that is told to end ends its containers first, and
    /// answers meanwhile.
    async fn engine_leaves(&self) -> bool {
        for _ in 0..LEAVING_LOOKS {
            sleep(Duration::from_millis(500)).await;
            if self.engine.docker.ping().await.is_err() {
                return true;
            }
        }
        false
    }

    async fn stop(&self, at_once: bool) -> Result<(), Error> {
        let docker = &self.engine.docker;
        if !at_once {
            let options = StopContainerOptionsBuilder::default()
                .t(GRACE_SECONDS as i32)
                .build();
            let Err(error) = docker.stop_container(self.id, Some(options)).await else {
                return Ok(());
            };
            if status(&error) == Some(404) {
                return Ok(());
            }
        }
        let options = KillContainerOptionsBuilder::default()
            .signal("SIGKILL")
            .build();
        match docker.kill_container(self.id, Some(options)).await {
            Ok(()) => Ok(()),
            // It has ended in the meantime.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(Error::from_engine(
                format!("stop container `{}`", self.request.name),
                error,
            )),
        }
    }

    /// Waits for the container's end, and says how it ended.
    ///
    /// Nothing removes the container but mlwm, so its state is there to be read however late: the
    /// wait only says when to look. So a wait that is registered after a short-lived container has
    /// ended misses nothing, and neither does one that an engine's restart has broken.
    async fn ended(&self) -> Result<End, Error> {
        let mut engine_left = false;
        let mut away_since = None;
        loop {
            let options = WaitContainerOptionsBuilder::default()
                .condition("not-running")
                .build();
            let waited = pin!(self.engine.docker.wait_container(self.id, Some(options)))
                .next()
                .await;
            engine_left |= broke_off(waited);
            match self.state().await {
                Ok(state) if has_ended(&state) => return Ok(End { state, engine_left }),
                Ok(_) => away_since = None,
                Err(error @ Error::Lost { .. }) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.engine.patience {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn state(&self) -> Result<ContainerState, Error> {
        let action = || format!("inspect container `{}`", self.request.name);
        let found = self.engine.docker.inspect_container(self.id, None).await;
        let found = found.map_err(|error| match status(&error) {
            Some(404) => Error::Refused {
                action: action(),
                message: "somebody removed it while it ran".into(),
            },
            _ => Error::from_engine(action(), error),
        })?;
        let state = found.state.unwrap_or_default();
        match state.error.as_deref() {
            Some(message) if !message.is_empty() && has_ended(&state) => Err(Error::Start {
                name: self.request.name.clone(),
                image: self.request.image.clone(),
                message: one_line(message),
            }),
            _ => Ok(state),
        }
    }

    /// Whether the kernel killed one of its processes for want of memory.
    ///
    /// Docker notes this when it hears of the kill before it hears of the end; else only its
    /// events tell.
    async fn oom_killed(&self, state: &ContainerState) -> bool {
        if state.oom_killed == Some(true) {
            return true;
        }
        let limited = self.request.resources.memory.is_some();
        limited && state.exit_code != Some(0) && follow::saw_oom(self.engine, self.id).await
    }
}

/// How a container ended.
struct End {
    state: ContainerState,
    /// The engine went away while it was waited for.
    engine_left: bool,
}

/// Whether a wait ended without the engine's word for it.
fn broke_off(waited: Option<Result<ContainerWaitResponse, bollard::errors::Error>>) -> bool {
    match waited {
        None => true,
        Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => false,
        // An answer that is long in coming is no sign of a restart.
        Some(Err(bollard::errors::Error::RequestTimeoutError)) => false,
        Some(Err(error)) => status(&error).is_none(),
    }
}

fn has_ended(state: &ContainerState) -> bool {
    matches!(state.status, Some(Status::EXITED | Status::DEAD))
}

/// Cuts the two streams into lines.
struct Printer<'a> {
    output: &'a mut (dyn FnMut(Output) + Send),
    stdout: Lines,
    stderr: Lines,
}

impl Printer<'_> {
    fn print(&mut self, frame: LogOutput) {
        match frame {
            LogOutput::StdErr { message } => {
                self.stderr
                    .push(&message, &mut |line| (self.output)(Output::Stderr(line)));
            }
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                self.stdout
                    .push(&message, &mut |line| (self.output)(Output::Stdout(line)));
            }
            LogOutput::StdIn { .. } => {}
        }
    }

    fn finish(&mut self) {
        self.stdout
            .finish(&mut |line| (self.output)(Output::Stdout(line)));
        self.stderr
            .finish(&mut |line| (self.output)(Output::Stderr(line)));
    }
}

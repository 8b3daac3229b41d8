//! The part of an attempt that a warm container does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mlwm_engines::{Ended, Image};
use mlwm_registries::UnpackedArtifact;
use mlwm_spec::Digest;
use mlwm_spec::contract::Progress;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Work;
use super::threads::aside;
use super::windows::{Cut, Gate, Listening};
use crate::Error;
use crate::container::{Lines, Ran, now, printable};
use crate::disk::Excess;
use crate::ending::judge;
use crate::event::{Event, Phase};
use crate::record::Attempt;
use crate::scratch;
use crate::warm::{self, Job, Told, knows_streaming};

impl Work<'_> {
    /// Whether the container of an image may serve this member and others.
    pub(super) fn is_streamed(&self, image: &Image) -> bool {
        knows_streaming(image)
            && self.planned.command.is_none()
            && !self.planned.network
            && self.planned.credentials.is_empty()
            && (self.planned.is_cut() || self.context.warm.has_others(self.planned))
            && self.planned.windows().is_some()
    }

    /// Has the member served by the container that serves others, too; its outputs are then in
    /// their places, or, cut into windows, in their stores.
    pub(super) async fn streamed(
        &mut self,
        attempt: Attempt,
        image: &Image,
        artifact: Option<UnpackedArtifact>,
        identity: Digest,
        cut: Option<(Listening<'_>, &mut [Cut<'_>])>,
    ) -> Result<Ran, Error> {
        self.claim.check()?;
        let clock = self.begin(Phase::Queue);
        let (told, mut hear) = unbounded_channel();
        let untaken = Arc::new(AtomicUsize::new(0));
        // On every way out of here: the container must not go on with what nobody waits for.
        let given_up = self.context.cancel.child_token();
        let _guard = given_up.clone().drop_guard();
        self.context.warm.serve(Job {
            planned: self.planned.clone(),
            turn: self.turn,
            image: image.clone(),
            artifact,
            identity,
            told,
            untaken: Arc::clone(&untaken),
            given_up,
        });
        let begun = loop {
            match self.hear(&mut hear).await? {
                Told::Begun(work) => break work,
                Told::NotServed(error) => return Err(error),
                _ => {}
            }
        };
        self.end(Phase::Queue, clock, None);
        let clock = self.begin(Phase::Run);
        let log = self.context.scratch.log(self.planned, attempt.number);
        self.report.log = Some(log.display().to_string());
        self.context
            .recorder
            .has_log(attempt, &log.display().to_string());
        let mut lines = Lines::new(self.context, self.planned, &log);
        let started = now();
        let mut model_done = None;
        let mut unsent = None;
        let served = match cut {
            None => {
                let listened = self.listen(begun, &mut hear, &mut lines, &untaken, (clock, None));
                listened.await.map(|ran| model_done = Some((ran, None)))
            }
            Some((listening, cuts)) => {
                let gate = listening.gate();
                let ended = CancellationToken::new();
                let publishing = async {
                    let ran = Ran::since(&started, &log);
                    unsent = self.publish_windows(listening, cuts, &ended, &ran).await?;
                    Ok(())
                };
                let listening = async {
                    let _ended = ended.clone().drop_guard();
                    let gate = (clock, Some(gate));
                    let listened = self.listen(begun, &mut hear, &mut lines, &untaken, gate);
                    let ran = listened.await?;
                    // The last windows are sent while the model serves another.
                    let publishing = (self.sent_seconds(), self.begin(Phase::Publish));
                    model_done = Some((ran, Some(publishing)));
                    Ok::<_, Unserved>(())
                };
                tokio::try_join!(listening, publishing).map(drop)
            }
        };
        let (last, written) = lines.finish();
        let finished = now();
        if let Some((ran, publishing)) = model_done {
            self.report.phases.push((Phase::Run, ran));
            self.report.published_while_running = publishing.map(|(sent, _)| sent);
            self.publishing = publishing.map(|(_, since)| since);
        }
        let unserved = match served {
            Ok(()) => {
                self.unsent = unsent;
                self.warn_of_log(&log, written);
                return Ok(Ran {
                    finished,
                    ..Ran::since(&started, &log)
                });
            }
            Err(unserved) => unserved,
        };
        Err(match unserved {
            Unserved::Error(error) => error,
            Unserved::Late => match self.planned.timeout {
                Some(timeout) => Error::Timeout {
                    timeout,
                    hint: String::new(),
                    log,
                    last,
                },
                None => Error::Interrupted,
            },
            Unserved::Failed(why) => Error::MemberFailed {
                why: printable(&why),
                log,
                last,
            },
            Unserved::Ended(ended, excess) => {
                self.report.peak_memory = ended.peak_memory;
                judge(
                    (&self.planned.resources, self.planned.timeout),
                    &ended,
                    excess,
                    &log,
                    last,
                )?;
                Error::EndedEarly { log }
            }
        })
    }

    /// Until the member is served; for how many seconds the model ran, since the clock was started.
    async fn listen(
        &self,
        work: warm::Work,
        hear: &mut UnboundedReceiver<Told>,
        lines: &mut Lines<'_>,
        untaken: &AtomicUsize,
        (clock, gate): (std::time::Instant, Option<&Gate>),
    ) -> Result<f64, Unserved> {
        let mut work = Arc::new(work);
        let begin = |work: &Arc<warm::Work>| -> Result<Instant, Error> {
            match gate {
                Some(gate) => {
                    if gate.begun(work)? {
                        self.waits_for_space();
                    }
                }
                None => {
                    for window in self.planned.windows().unwrap_or_default() {
                        work.go(&window.to_string())?;
                    }
                }
            }
            // Without a timeout, a day: the plan says so.
            let limit = self
                .planned
                .timeout
                .map_or(DAY, |timeout| timeout.duration());
            Ok(Instant::now() + limit)
        };
        let mut deadline = begin(&work)?;
        loop {
            let told = tokio::select! {
                told = self.hear(hear) => told?,
                () = tokio::time::sleep_until(deadline) => return Err(Unserved::Late),
            };
            match told {
                // Another container took it up, since the first one ended before.
                Told::Begun(again) => {
                    work = Arc::new(again);
                    deadline = begin(&work)?;
                }
                Told::Step(step, of) => lines.step(&Progress { step, of }),
                Told::Log(stream, line) => {
                    untaken.fetch_sub(1, Ordering::Relaxed);
                    lines.log(stream, &line);
                }
                Told::Window(window) => match gate {
                    Some(gate) => {
                        if gate.take(&work, self.planned, &window)? {
                            self.waits_for_space();
                        }
                    }
                    None => self.take(&work, window).await?,
                },
                Told::Done => {
                    // From now on the model serves another.
                    let ran = clock.elapsed().as_secs_f64();
                    self.tell_end(Phase::Run, ran, None);
                    let done = Arc::clone(&work);
                    aside(move || done.clear_inputs()).await?;
                    self.inputs_are_read().await?;
                    return Ok(ran);
                }
                Told::Failed(why) => return Err(Unserved::Failed(why)),
                Told::NotServed(error) => return Err(error.into()),
                Told::Ended(ended, excess) => return Err(Unserved::Ended(ended, excess)),
            }
        }
    }

    /// The model has written all that there is room for.
    fn waits_for_space(&self) {
        (self.context.tell)(Event::WaitsForSpace {
            task: self.planned.title(),
        });
    }

    /// There is room for what the model is to write next.
    pub(super) fn has_space(&self) {
        (self.context.tell)(Event::HasSpace {
            task: self.planned.title(),
        });
    }

    /// Some of its windows were sent, in so much time.
    pub(super) fn was_sent(&self, took: Duration) {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) += took.as_secs_f64();
    }

    fn sent_seconds(&self) -> f64 {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told next.
    async fn hear(&self, hear: &mut UnboundedReceiver<Told>) -> Result<Told, Error> {
        tokio::select! {
            told = hear.recv() => told.ok_or(Error::Interrupted),
            // Another does the task now: two must not.
            () = self.claim.lost.cancelled() => self.claim.check().and(Err(Error::Interrupted)),
            () = self.context.cancel.cancelled() => Err(Error::Interrupted),
        }
    }

    /// Takes the whole forecast from where the container wrote it to where it is published from.
    async fn take(&self, work: &Arc<warm::Work>, window: String) -> Result<(), Error> {
        let windows = self.planned.windows().unwrap_or_default();
        if !windows.iter().any(|known| known.to_string() == window) {
            return Err(Error::UnknownWindow(printable(&window)));
        }
        for output in &self.planned.outputs {
            let to = self.context.scratch.output(self.planned, &output.name);
            let (work, name, window) = (Arc::clone(work), output.name.clone(), window.clone());
            let take = move |_: &CancellationToken| {
                scratch::create(to.parent().unwrap_or(&to))?;
                let taken = work.take(&name, &window, &to);
                taken.map_err(|reason| Error::BadWindow {
                    output: name,
                    window,
                    reason,
                })
            };
            self.write(take).await??;
        }
        Ok(())
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Why a member was not served.
enum Unserved {
    Error(Error),
    Late,
    Failed(String),
    Ended(Box<Ended>, Option<Excess>),
}

impl From<Error> for Unserved {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

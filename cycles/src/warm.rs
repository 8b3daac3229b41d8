//! Warm containers: one serves the members of a configuration one after the other, so that its model is
//! loaded once (container contract, section "Streaming").
//!
//! A task that has staged its inputs hands them over as a [`Job`] and is told how it goes. Jobs are
//! served in the order in which they come; the next ones lie ready while one is served. If the container ends
//! before its time, the job that it was at has failed, and another container serves the rest.

mod container;
mod folder;
mod taken;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mlwm_engines::{Ended, Image};
use mlwm_registries::UnpackedArtifact;
use mlwm_spec::{AnalysisTime, Digest};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::disk::Excess;
use crate::plan::{Plan, PlannedTask};
use crate::run::Context;

pub(crate) use container::knows_streaming;
pub(crate) use folder::{Work, tidy};

/// A member to serve.
pub(crate) struct Job {
    pub(crate) planned: PlannedTask,
    /// Its place in the plan.
    pub(crate) turn: usize,
    pub(crate) image: Image,
    /// Mounted, if it is not in the image.
    pub(crate) artifact: Option<UnpackedArtifact>,
    pub(crate) identity: Digest,
    /// Who is told how it goes.
    pub(crate) told: UnboundedSender<Told>,
    /// Lines of log that were told and not taken yet.
    pub(crate) untaken: Arc<AtomicUsize>,
    /// Cancelled when the task gives up: the container is then stopped.
    pub(crate) given_up: CancellationToken,
}

/// Lines of log that may wait to be taken; more are left out.
const UNTAKEN: usize = 10_000;

impl Job {
    /// Tells a line of log, unless too many wait already.
    fn log(&self, stream: &'static str, line: String) {
        if self.untaken.load(Ordering::Relaxed) < UNTAKEN {
            self.untaken.fetch_add(1, Ordering::Relaxed);
            // If nobody listens any more, nobody misses it.
            let _ = self.told.send(Told::Log(stream, line));
        }
    }
}

/// How a job goes.
#[derive(Debug)]
pub(crate) enum Told {
    /// The container is at it.
    Begun(Work),
    /// Steps done, and in all.
    Step(u64, u64),
    /// A window of all outputs is written.
    Window(String),
    /// A line of log.
    Log(&'static str, String),
    /// All windows are written.
    Done,
    /// The container says that it cannot be done, and why.
    Failed(String),
    /// The container ended before its time; perhaps since it wrote more than there is room for.
    Ended(Box<Ended>, Option<Excess>),
    /// There is no container.
    NotServed(Error),
}

/// What the members of a configuration share.
type GroupKey = (String, AnalysisTime);

/// The warm containers of a run.
#[derive(Debug)]
pub(crate) struct Warm {
    groups: Mutex<BTreeMap<GroupKey, Group>>,
    begun: Mutex<Option<UnboundedSender<UnboundedReceiver<Job>>>>,
    new: Mutex<Option<UnboundedReceiver<UnboundedReceiver<Job>>>>,
    changed: Notify,
}

/// The inputs of a task whose outputs are cut are staged, or are being staged, as long as this lives.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    warm: &'a Warm,
    key: GroupKey,
}

/// The tasks of a plan that one container may serve.
#[derive(Debug, Default)]
struct Group {
    /// Tasks of the plan.
    tasks: usize,
    /// Those that may still come.
    left: usize,
    jobs: Option<UnboundedSender<Job>>,
    /// Bytes of the largest window that was published of a member: what is refused says nothing of the others.
    window: Option<u64>,
    /// Tasks whose inputs are staged.
    staged: usize,
}

impl Warm {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
        for task in &plan.tasks {
            let group = groups.entry(key(task)).or_default();
            group.tasks += 1;
            group.left += 1;
        }
        let (begun, new) = unbounded_channel();
        Self {
            groups: Mutex::new(groups),
            begun: Mutex::new(Some(begun)),
            new: Mutex::new(Some(new)),
            changed: Notify::new(),
        }
    }

    /// Whether there are others that the container of a task could serve.
    pub(crate) fn has_others(&self, task: &PlannedTask) -> bool {
        lock(&self.groups)
            .get(&key(task))
            .is_some_and(|group| group.tasks > 1)
    }

    /// How many tasks to have under way so that a warm container does not wait: one that is published, one
    /// that is served, one whose inputs are staged.
    pub(crate) fn tasks_at_once(&self) -> usize {
        let groups = lock(&self.groups);
        match groups.values().any(|group| group.tasks > 1) {
            true => 3,
            false => 1,
        }
    }

    /// Hands a job over to the container of its group.
    pub(crate) fn serve(&self, job: Job) {
        let mut groups = lock(&self.groups);
        let group = groups.entry(key(&job.planned)).or_default();
        let jobs = group.jobs.get_or_insert_with(|| {
            let (jobs, served) = unbounded_channel();
            if let Some(begun) = &*lock(&self.begun) {
                let _ = begun.send(served);
            }
            jobs
        });
        // Who serves does so as long as there is a task that could hand something over.
        let _ = jobs.send(job);
    }

    /// A window of a member, which was published, took so many bytes.
    pub(crate) fn published_window(&self, task: &PlannedTask, bytes: u64) {
        let mut groups = lock(&self.groups);
        let group = groups.entry(key(task)).or_default();
        group.window = group.window.max(Some(bytes));
        drop(groups);
        self.changed.notify_waiters();
    }

    /// Waits until the inputs of a task may be staged: at once if no others are, or when those are of its group and
    /// it is known how much space a window needs, which must then be left. So what is served always goes on.
    pub(crate) async fn stage(&self, task: &PlannedTask) -> (Staged<'_>, u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let known = self.window_space(task);
            {
                let mut groups = lock(&self.groups);
                let all: usize = groups.values().map(|group| group.staged).sum();
                let group = groups.entry(key(task)).or_default();
                let left = match all {
                    0 => Some(0),
                    _ if group.staged == all => known,
                    _ => None,
                };
                if let Some(left) = left {
                    group.staged += 1;
                    let staged = Staged {
                        warm: self,
                        key: key(task),
                    };
                    return (staged, left);
                }
            }
            changed.await;
        }
    }

    /// Space that a window needs, if one was published.
    pub(crate) fn window_space(&self, task: &PlannedTask) -> Option<u64> {
        let groups = lock(&self.groups);
        groups.get(&key(task))?.window.map(with_slack)
    }

    /// Space that must be left for windows of what is served; `None` if it is not known how much.
    pub(crate) fn left(&self) -> Option<u64> {
        let groups = lock(&self.groups);
        let served = groups.values().filter(|group| group.staged > 0);
        served
            .map(|group| group.window.map(with_slack))
            .try_fold(0, |most, one| Some(most.max(one?)))
    }

    /// A task is over: nothing of it will be handed over any more.
    pub(crate) fn leave(&self, task: &PlannedTask) {
        let mut groups = lock(&self.groups);
        if let Some(group) = groups.get_mut(&key(task)) {
            group.left = group.left.saturating_sub(1);
            if group.left == 0 {
                group.jobs = None;
            }
        }
    }

    /// No task will come any more.
    pub(crate) fn close(&self) {
        lock(&self.begun).take();
        lock(&self.groups).clear();
    }

    /// Serves all that is handed over, until this is closed.
    pub(crate) async fn run(&self, context: &Context<'_>) {
        let Some(mut new) = lock(&self.new).take() else {
            return;
        };
        let mut serving = FuturesUnordered::new();
        let mut open = true;
        while open || !serving.is_empty() {
            tokio::select! {
                group = new.recv(), if open => match group {
                    Some(jobs) => serving.push(container::serve(context, jobs)),
                    None => open = false,
                },
                Some(()) = serving.next(), if !serving.is_empty() => {}
            }
        }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(group) = lock(&self.warm.groups).get_mut(&self.key) {
            group.staged = group.staged.saturating_sub(1);
        }
        self.warm.changed.notify_waiters();
    }
}

/// A little more than the largest window, for what compresses less well.
pub(crate) fn with_slack(window: u64) -> u64 {
    window.saturating_add(window / 5)
}

fn key(task: &PlannedTask) -> GroupKey {
    (task.configuration.clone(), task.analysis_time)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

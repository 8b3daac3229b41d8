//! A warm container from its start to its end.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures::FutureExt;
use mlwm_engines::{Image, Output, Request};
use mlwm_spec::contract::stream::{self, LABEL, LABEL_VALUE};
use mlwm_storage::points::reach;
use tokio::sync::mpsc::UnboundedReceiver;

use super::folder::{Folder, Work};
use super::{Job, Told, lock};
use crate::Error;
use crate::container;
use crate::ending::whole;
use crate::run::Context;

/// Whether the containers of an image can serve several members.
pub(crate) fn knows_streaming(image: &Image) -> bool {
    image
        .labels
        .get(LABEL)
        .is_some_and(|found| found == LABEL_VALUE)
}

/// Serves jobs, with one container after the other if need be, until no more can come.
pub(super) async fn serve(context: &Context<'_>, mut jobs: UnboundedReceiver<Job>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match jobs.recv().await {
                Some(job) => waiting.push_back(job),
                None => return,
            }
        }
        waiting.retain(|job: &Job| !job.given_up.is_cancelled());
        let Some(first) = waiting.front() else {
            continue;
        };
        let room = tokio::select! {
            room = context.machine.room(first.turn, &first.planned.resources) => room,
            () = first.given_up.cancelled() => continue,
        };
        if let Err(error) = one(context, &mut waiting, &mut jobs).await {
            // The fault is nobody's in particular: one is told, so that it does not come back for ever.
            if let Some(job) = waiting.pop_front() {
                let _ = job.told.send(Told::NotServed(error));
            }
        }
        drop(room);
    }
}

/// What a container has been given and has not done.
struct Serving {
    job: Job,
    work: Option<Work>,
    name: String,
    /// Whether it has said anything of it.
    heard_of: bool,
}

/// One container, until it ends. What it was given and did not begin waits again.
async fn one(
    context: &Context<'_>,
    waiting: &mut VecDeque<Job>,
    jobs: &mut UnboundedReceiver<Job>,
) -> Result<(), Error> {
    let Some(first) = waiting.front() else {
        return Ok(());
    };
    if let Some((free, reserve)) = context.disk.short() {
        return Err(Error::DiskShort {
            folder: context.scratch.root().to_owned(),
            free: whole(free),
            reserve: whole(reserve),
        });
    }
    let (turn, is_cut) = (first.turn, first.planned.is_cut());
    let mut folder = Folder::create(context.scratch, &first.planned)?;
    let request = container::warm_request(context, first, folder.mounts())?;
    let stop = context.cancel.child_token();
    let serving = Mutex::new(VecDeque::new());
    let ended = {
        let mut print = |output| take(&serving, output);
        let running = context.engine.run(&request, &mut print, &stop);
        let watched = context.disk.watch(turn, vec![folder.out()]);
        let windows = async {
            match is_cut {
                true => watched.overrun(&context.machine.disk).await,
                false => std::future::pending().await,
            }
        };
        // Of windows it may write what is reserved for them.
        let room = match is_cut {
            true => u64::MAX,
            false => context.machine.most_written(&request.resources),
        };
        let full = async {
            tokio::select! {
                excess = watched.excess(room) => excess,
                excess = windows => excess,
            }
        };
        let full = full.fuse();
        tokio::pin!(running, full);
        let mut open = true;
        let mut excess = None;
        loop {
            while let Some(job) = waiting.pop_front() {
                match request_is_for(context, &request, &job) {
                    true => hand_over(context, &mut folder, &serving, job),
                    false => {
                        let title = job.planned.title();
                        let _ = job.told.send(Told::NotServed(Error::OtherContainer(title)));
                    }
                }
            }
            tokio::select! {
                ended = &mut running => break ended.map(|ended| (ended, excess)),
                most = &mut full => {
                    excess = Some(most);
                    request.kill.cancel();
                }
                job = jobs.recv(), if open => match job {
                    Some(job) => waiting.push_back(job),
                    None => {
                        folder.end()?;
                        open = false;
                    }
                },
                () = given_up(&serving), if !stop.is_cancelled() => {
                    // One that is done needs the container no more, and is not the first any more.
                    let serving = lock(&serving);
                    if serving.front().is_some_and(|first| first.job.given_up.is_cancelled()) {
                        stop.cancel();
                    }
                }
            }
        }
    };
    reach("warm: ended");
    let mut rest = std::mem::take(&mut *lock(&serving));
    let served_some = folder.handed_over() > rest.len();
    // Stopped since a task gave up: what it was given since is not to blame.
    let was_stopped = stop.is_cancelled() && !context.cancel.is_cancelled();
    let blamed = match rest.front() {
        Some(first) if was_stopped && !first.job.given_up.is_cancelled() => None,
        Some(first) if first.heard_of || !served_some => rest.pop_front(),
        _ => None,
    };
    waiting.extend(rest.into_iter().map(|serving: Serving| serving.job));
    match (ended, blamed) {
        (Ok((ended, excess)), Some(blamed)) => {
            let _ = blamed.job.told.send(Told::Ended(Box::new(ended), excess));
        }
        (Err(error), Some(blamed)) => {
            let _ = blamed.job.told.send(Told::NotServed(error.into()));
        }
        // It had served all that it was given.
        (_, None) => {}
    }
    Ok(())
}

/// Whether a container is what a job would ask for: a tag may have been moved, or a plan edited.
fn request_is_for(context: &Context<'_>, request: &Request, job: &Job) -> bool {
    let asked = container::warm_request(context, job, []);
    asked.is_ok_and(|asked| {
        asked.image == request.image
            && asked.env == request.env
            && asked.resources == request.resources
            && asked
                .mounts
                .iter()
                .all(|mount| request.mounts.contains(mount))
    })
}

fn hand_over(
    context: &Context<'_>,
    folder: &mut Folder,
    serving: &Mutex<VecDeque<Serving>>,
    job: Job,
) {
    // Locked until it is in the list: the container may speak of it at once.
    let mut serving = lock(serving);
    match folder.hand_over(context.scratch, &job.planned, job.identity) {
        Ok(work) => {
            reach("warm: handed over");
            let name = work.name.clone();
            serving.push_back(Serving {
                job,
                work: Some(work),
                name,
                heard_of: false,
            });
            begin_first(&mut serving);
        }
        Err(error) => {
            let _ = job.told.send(Told::NotServed(error));
        }
    }
}

/// Tells the first one that it is its turn.
fn begin_first(serving: &mut VecDeque<Serving>) {
    if let Some(first) = serving.front_mut()
        && let Some(work) = first.work.take()
    {
        let _ = first.job.told.send(Told::Begun(work));
    }
}

/// Comes back when the task gives up whose job is served.
async fn given_up(serving: &Mutex<VecDeque<Serving>>) {
    let first = lock(serving)
        .front()
        .map(|first| first.job.given_up.clone());
    match first {
        Some(given_up) => given_up.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What a container prints goes to the task that it speaks of; log, to the one that it is at.
fn take(serving: &Mutex<VecDeque<Serving>>, output: Output) {
    let mut serving = lock(serving);
    if let Output::Stdout(line) = &output
        && let Some(event) = stream::Event::parse(line)
    {
        let (work, told, over) = match event {
            stream::Event::Step { work, step, of } => (work, Told::Step(step, of), false),
            stream::Event::Window { work, window } => (work, Told::Window(window), false),
            stream::Event::Done { work } => (work, Told::Done, true),
            stream::Event::Failed { work, why, .. } => (work, Told::Failed(why), true),
        };
        // It serves in order: of another than the first it has nothing to say.
        let Some(first) = serving.front_mut().filter(|first| first.name == work) else {
            return;
        };
        first.heard_of = true;
        let _ = first.job.told.send(told);
        if over {
            serving.pop_front();
            begin_first(&mut serving);
        }
        return;
    }
    let (stream, line) = match output {
        Output::Stdout(line) => ("stdout", line),
        Output::Stderr(line) => ("stderr", line),
    };
    if let Some(first) = serving.front_mut() {
        first.job.log(stream, line);
    }
}

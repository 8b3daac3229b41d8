//! Carrying out a plan: every task to its end or its error, several at once where there is room.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mlwm_engines::{Engine, owner};
use mlwm_ledger::{NewRun, TaskName};
use mlwm_registries::Unpacked;
use mlwm_spec::Period;
use mlwm_storage::points::reach;
use tokio_util::sync::CancellationToken;

use crate::claim::{Claim, Claims, Tried, What};
use crate::credentials;
use crate::disk::{Disk, allocated};
use crate::event::{Event, TaskReport};
use crate::gpu_memory::GpuMemory;
use crate::history::{ledger_file, this_host};
use crate::kept::Kept;
use crate::machine::{Budget, Machine};
use crate::made::Made;
use crate::plan::{Plan, PlannedEnsemble, PlannedTask};
use crate::prices::Prices;
use crate::progress::Tracker;
use crate::record::Recorder;
use crate::report::{DiskUse, Measured, RunReport};
use crate::scratch::Scratch;
use crate::under_way::{self, Paused};
use crate::warm::{self, Warm};
use crate::{Error, container, ensemble, grib, task};

/// Between two looks at a task that another mlwm does.
const LOOK: Duration = Duration::from_secs(2);

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The working folder.
    pub workdir: PathBuf,
    /// Version of mlwm, for the record.
    pub version: String,
    /// Where artifacts are unpacked that are mounted.
    pub unpacked: Unpacked,
    /// What containers may use in all.
    pub budget: Budget,
    /// Whether what other tasks published is withdrawn for what these make.
    pub republish: bool,
    /// Of what failed tasks wrote, so many bytes are kept in the working folder to be looked at, beside what the
    /// budget says.
    pub keep_failed: u64,
    /// How long the credentials for S3 must last, where their end is known.
    pub credentials_for: Option<Period>,
    /// What it costs, if that is to be reported.
    pub prices: Option<Prices>,
}

/// Receives events, from several threads.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// What every task of a run shares.
pub(crate) struct Context<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) scratch: &'a Scratch,
    pub(crate) machine: &'a Machine,
    pub(crate) disk: &'a Disk,
    pub(crate) recorder: &'a Recorder,
    pub(crate) options: &'a RunOptions,
    pub(crate) tell: &'a Tell,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) warm: &'a Warm,
    pub(crate) gpu_memory: &'a GpuMemory,
    pub(crate) paused: &'a Paused,
    claims: &'a Mutex<Claims>,
}

/// Runs `plan`. A task that fails does not keep the others from running; how each went is in the report, and
/// behind the tasks how the ensembles did. After `cancel`, no further task is begun and those under way are
/// stopped.
///
/// # Errors
/// Only what concerns all tasks: no engine, no working folder, no ecCodes where outputs are GRIB, credentials that have
/// ended.
pub async fn run(
    plan: &Plan,
    options: &RunOptions,
    tell: &Tell,
    cancel: &CancellationToken,
) -> Result<RunReport, Error> {
    grib::check(plan)?;
    let credentials_end = credentials::check(plan, options.credentials_for).await?;
    let (clock, started) = (Instant::now(), Timestamp::now());
    let engine = Engine::connect().await?;
    let scratch = Scratch::open(&options.workdir)?;
    let claims = Claims::of(&scratch.claims())?;
    claims.tidy();
    container::sweep(&engine).await?;
    warm::tidy(&scratch);
    let names: Vec<TaskName> = plan.tasks.iter().map(PlannedTask::name).collect();
    let this_run = NewRun {
        host: this_host(),
        process: owner::this_process().unwrap_or_default(),
        version: options.version.clone(),
        plan: plan.digest(),
    };
    let recorder = Recorder::begin(&ledger_file(scratch.root()), &this_run, &names);
    reach("run: begun");
    // What is complete is published without a model, and takes space until it is.
    let tasks = plan.tasks.iter().enumerate();
    let complete = tasks.filter(|(_, planned)| scratch.complete(planned).is_file());
    let found: BTreeMap<usize, u64> = complete
        .map(|(turn, planned)| (turn, allocated(vec![scratch.windows(planned)], cancel)))
        .collect();
    let mut budget = options.budget;
    if !budget.is_disk_bound {
        // What is free is so beside it.
        budget.disk = budget.disk.saturating_add(found.values().sum());
    }
    let machine = Machine::new(budget);
    for (turn, bytes) in found {
        machine.disk.found(turn, bytes);
    }
    let warm = Warm::new(plan);
    let at_once = machine.tasks_at_once(plan.tasks.iter().map(|task| &task.resources));
    let at_once = at_once.max(warm.tasks_at_once());
    let tracker = Tracker::new(plan, at_once, recorder.usual(&plan.tasks));
    let run_end = credentials_end
        .zip(tracker.expected())
        .and_then(|(end, seconds)| Some((end, credentials::outlived(end, started, seconds)?)));
    if let Some((end, run_end)) = run_end {
        tell(Event::CredentialsEnd {
            end: credentials::text(end),
            run_end: credentials::text(run_end),
        });
    }
    let tracker = Arc::new(Mutex::new(tracker));
    let tell = &tracked(tell, &tracker, clock);
    let context = Context {
        engine: &engine,
        scratch: &scratch,
        machine: &machine,
        disk: &Disk::new(scratch.root(), options.budget.reserve),
        recorder: &recorder,
        options,
        tell,
        cancel,
        warm: &warm,
        gpu_memory: &GpuMemory::look(plan).await,
        paused: &Paused::default(),
        claims: &Mutex::new(claims),
    };
    let made = Made::of(&plan.tasks);
    let kept = Kept::of(&plan.tasks, made.waits());
    // What is complete goes first: it makes room for the others.
    let mut tasks: Vec<(usize, &PlannedTask)> = plan.tasks.iter().enumerate().collect();
    tasks.sort_by_cached_key(|(_, planned)| !scratch.complete(planned).is_file());
    let tasks = tasks.into_iter().map(async |(turn, planned)| {
        let mut report = match made.ready(turn, &context).await {
            Ok(()) => one(&context, turn, planned).await,
            Err(error) => {
                context.warm.leave(planned);
                machine.disk.is_over(turn);
                let report = task::not_begun(planned, &error);
                (context.tell)(Event::TaskFinished(report.clone()));
                report
            }
        };
        made.ended(turn, report.exit_code);
        let not_removed = kept.ended(turn, report.exit_code, &context).await;
        report.warnings.extend(not_removed);
        (turn, report)
    });
    let (mut ended, ()) = tokio::join!(
        async {
            let ended = under_way::all(tasks, at_once, context.paused).await;
            context.warm.close();
            ended
        },
        context.warm.run(&context)
    );
    ended.sort_by_key(|(turn, _)| *turn);
    let mut reports: Vec<TaskReport> = ended.into_iter().map(|(_, report)| report).collect();
    for ensemble in &plan.ensembles {
        reports.extend(ensemble::run(&context, ensemble, has_all(plan, ensemble)).await);
    }
    let is_cut = plan.tasks.iter().any(PlannedTask::is_cut);
    let disk = is_cut.then(|| DiskUse {
        most: machine.disk.most_held(),
        budget: machine.disk.budget(),
    });
    if let Some(DiskUse { most, budget }) = disk {
        tell(Event::DiskUsed { most, budget });
    }
    let report = RunReport::new(
        reports,
        &Measured {
            plan,
            tracker: &tracker.lock().unwrap_or_else(PoisonError::into_inner),
            budget: options.budget,
            seconds: clock.elapsed().as_secs_f64(),
            disk,
            prices: options.prices.as_ref(),
        },
        (
            options.version.clone(),
            started.strftime("%FT%TZ").to_string(),
        ),
    );
    reach("run: all done");
    recorder.end(report.exit_code);
    reach("run: ended");
    tell(Event::RunFinished(report.summary.clone()));
    Ok(report)
}

/// Tells what happens, and now and then how far the run is.
fn tracked(tell: &Tell, tracker: &Arc<Mutex<Tracker>>, clock: Instant) -> Tell {
    let (tell, tracker) = (Arc::clone(tell), Arc::clone(tracker));
    Arc::new(move |event| {
        let progress = tracker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(&event, clock.elapsed().as_secs_f64());
        tell(event);
        if let Some(progress) = progress {
            tell(Event::RunProgress(progress));
        }
    })
}

/// Whether a plan has all members of an ensemble.
fn has_all(plan: &Plan, ensemble: &PlannedEnsemble) -> bool {
    let tasks = plan.tasks.iter().filter(|task| {
        task.configuration == ensemble.configuration && task.analysis_time == ensemble.analysis_time
    });
    let planned: BTreeSet<u32> = tasks.map(|task| task.member).collect();
    ensemble
        .members
        .keys()
        .all(|member| planned.contains(member))
}

async fn one(context: &Context<'_>, turn: usize, planned: &PlannedTask) -> TaskReport {
    let name = format!("member{}", planned.member);
    let what = (&*planned.configuration, planned.analysis_time, &*name);
    let report = match claim(context, &planned.title(), what).await {
        Ok(Some(claim)) => {
            reach("task: claimed");
            task::run(context, turn, planned, &claim).await
        }
        Ok(None) => task::not_begun(planned, &Error::Interrupted),
        Err(error) => task::not_begun(planned, &error),
    };
    context.warm.leave(planned);
    // Also of one that was not begun: nobody waits for the space of what lies there.
    context.machine.disk.is_over(turn);
    (context.tell)(Event::TaskFinished(report.clone()));
    report
}

/// Claims a task unless another does it.
pub(crate) fn claim_at_once(context: &Context<'_>, planned: &PlannedTask) -> Result<Claim, Error> {
    let name = format!("member{}", planned.member);
    let what = (&*planned.configuration, planned.analysis_time, &*name);
    let mut claims = context
        .claims
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match claims.take(what)? {
        Tried::Ours { claim, .. } => Ok(claim),
        Tried::Held(holder) => Err(Error::MadeAgain(holder.host)),
    }
}

/// Claims a task; waits as long as another does it. `None` if this was called off.
pub(crate) async fn claim(
    context: &Context<'_>,
    title: &str,
    what: What<'_>,
) -> Result<Option<Claim>, Error> {
    let mut told = false;
    while !context.cancel.is_cancelled() {
        let tried = context
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(what)?;
        match tried {
            Tried::Ours {
                claim,
                after_a_dead_one,
            } => {
                if after_a_dead_one {
                    // It died since this run began, and may have left its container, with folders.
                    container::sweep(context.engine).await?;
                    warm::tidy(context.scratch);
                }
                return Ok(Some(claim));
            }
            Tried::Held(holder) => {
                if !std::mem::replace(&mut told, true) {
                    (context.tell)(Event::TaskWaits {
                        task: title.to_owned(),
                        holder: holder.host,
                    });
                }
                let _pause = context.paused.begin();
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = context.cancel.cancelled() => {}
                }
            }
        }
    }
    Ok(None)
}

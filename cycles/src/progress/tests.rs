use mlwm_spec::Digest;
use mlwm_spec::contract::{TimeLayout, env};

use super::*;
use crate::plan::{PlannedTask, Steps};

const STEPS: u64 = 132;

fn planned(member: u32, gpus: bool) -> PlannedTask {
    let resources = match gpus {
        true => r#"{"gpus": 1}"#,
        false => "{}",
    };
    PlannedTask {
        key: None,
        configuration: "aifs".into(),
        configuration_digest: Digest::of("yaml"),
        analysis_time: "2026-10-01T00:00Z".parse().unwrap(),
        member,
        image: "aifs:latest".into(),
        artifact: None,
        steps: Some(Steps {
            count: STEPS,
            seconds: 6 * 3600,
            first_lead_seconds: 6 * 3600,
        }),
        time_layout: TimeLayout::Time,
        inputs: Vec::new(),
        outputs: Vec::new(),
        environment: BTreeMap::from([(env::FORECAST_DURATION.to_owned(), "PT792H".to_owned())]),
        resources: serde_json::from_str(resources).unwrap(),
        timeout: None,
        retries: None,
        seed: 0,
        command: None,
        network: false,
        credentials: Vec::new(),
    }
}

/// A run of some members with three of them under way at once.
struct Run {
    tracker: Tracker,
    tasks: Vec<PlannedTask>,
}

impl Run {
    fn of(tasks: Vec<PlannedTask>, earlier: &[Took]) -> Self {
        let kind = Kind::of(&tasks[0]);
        let plan = Plan {
            version: 1,
            tasks: tasks.clone(),
            ensembles: Vec::new(),
        };
        let earlier = Usual::of(earlier).map(|usual| (kind, usual));
        Self {
            tracker: Tracker::new(&plan, 3, earlier.into_iter().collect()),
            tasks,
        }
    }

    fn members(count: u32) -> Self {
        Self::of(
            (0..count).map(|member| planned(member, true)).collect(),
            &[],
        )
    }

    fn title(&self, member: usize) -> String {
        self.tasks[member].title()
    }

    fn take(&mut self, event: &Event, now: f64) -> Option<RunProgress> {
        self.tracker.take(event, now)
    }

    fn start(&mut self, member: usize, now: f64) {
        let event = Event::TaskStarted {
            task: self.title(member),
            configuration: "aifs".into(),
            member: None,
        };
        self.take(&event, now);
    }

    fn phase(&mut self, member: usize, phase: Phase, now: f64) {
        let task = self.title(member);
        self.take(&Event::PhaseStarted { task, phase }, now);
    }

    fn end_phase(&mut self, member: usize, phase: Phase, now: f64, seconds: f64, bytes: u64) {
        let event = Event::PhaseFinished {
            task: self.title(member),
            phase,
            seconds,
            bytes: Some(bytes),
        };
        self.take(&event, now);
    }

    fn step(&mut self, member: usize, done: u64, now: f64) -> Option<RunProgress> {
        let event = Event::Progress {
            task: self.title(member),
            phase: Phase::Run,
            done,
            total: Some(STEPS),
        };
        self.take(&event, now)
    }

    fn fail(&mut self, member: usize, now: f64) -> RunProgress {
        let report = TaskReport::new(&self.tasks[member]);
        self.take(&Event::TaskFinished(report), now).unwrap()
    }

    /// A member that was staged in a second, ran for so long and was published in two.
    fn publish(&mut self, member: usize, now: f64, ran: f64) -> RunProgress {
        let report = TaskReport {
            outcome: Outcome::Published,
            phases: vec![
                (Phase::Stage, 1.0),
                (Phase::Run, ran),
                (Phase::Publish, 2.0),
            ],
            bytes_in: 10,
            bytes_out: 600,
            published_while_running: Some(1.0),
            ..TaskReport::new(&self.tasks[member])
        };
        self.take(&Event::TaskFinished(report), now).unwrap()
    }

    /// From its beginning to its publication, alone.
    fn serve(&mut self, member: usize, began: f64, ran: f64) -> RunProgress {
        self.start(member, began);
        self.phase(member, Phase::Run, began + 1.0);
        self.end_phase(member, Phase::Run, began + 1.0 + ran, ran, 0);
        self.publish(member, began + 3.0 + ran, ran)
    }
}

#[test]
fn members_that_fail_soon_do_not_make_the_rest_look_shorter() {
    let expected = |failed: bool| {
        let mut run = Run::members(10);
        for member in 0..3 {
            run.serve(member, 13.0 * member as f64, 10.0);
        }
        match failed {
            true => {
                run.start(3, 39.0);
                run.phase(3, Phase::Run, 39.0);
                let progress = run.fail(3, 39.1);
                assert_eq!((progress.published, progress.failed), (3, 1));
                progress.eta_seconds.unwrap()
            }
            false => run.publish(3, 39.1, 10.0).eta_seconds.unwrap(),
        }
    };
    // Six are left: a second until the first is staged, 10 s each, and 2 s to publish the last.
    assert_eq!(expected(true), 63.0);
    assert_eq!(expected(false), 63.0);
}

#[test]
fn before_the_first_success_only_earlier_runs_say_how_long_it_takes() {
    let mut run = Run::members(4);
    run.start(0, 0.0);
    let progress = run.fail(0, 0.1);
    assert_eq!((progress.eta_seconds, progress.eta_from), (None, None));

    let earlier = Took {
        phases: BTreeMap::from([(Phase::Stage, 1.0), (Phase::Run, 30.0)]),
        ..Took::default()
    };
    let tasks = (0..3).map(|member| planned(member, true)).collect();
    let mut run = Run::of(tasks, &[earlier]);
    run.start(0, 0.0);
    let progress = run.fail(0, 0.1);
    assert_eq!(progress.eta_seconds, Some(61.0));
    assert_eq!(progress.eta_from, Some(KnownFrom::EarlierRuns));
    // What this run shows counts more.
    let progress = run.serve(1, 1.0, 10.0);
    assert_eq!(progress.eta_seconds, Some(13.0));
    assert_eq!(progress.eta_from, Some(KnownFrom::ThisRun));
}

#[test]
fn what_the_model_has_done_is_not_expected_again() {
    let mut run = Run::members(3);
    run.serve(0, 0.0, 132.0);
    run.start(1, 135.0);
    run.phase(1, Phase::Run, 140.0);
    let progress = run.step(1, STEPS / 2, 206.0).unwrap();
    // Half of this one, the next one, 2 s to publish that.
    assert_eq!(progress.eta_seconds, Some(66.0 + 132.0 + 2.0));
    // It is published beside the next one.
    run.end_phase(1, Phase::Run, 272.0, 132.0, 0);
    run.phase(1, Phase::Publish, 272.0);
    run.start(2, 272.0);
    run.phase(2, Phase::Run, 272.0);
    let progress = run.step(2, 33, 305.0).unwrap();
    assert_eq!(progress.eta_seconds, Some(99.0 + 2.0));
    run.publish(1, 306.0, 132.0);
    run.end_phase(2, Phase::Run, 404.0, 132.0, 0);
    run.phase(2, Phase::Publish, 404.0);
    let progress = run.step(2, STEPS, 407.0);
    // The last one has nothing before it but its own 2 s.
    assert_eq!(progress, None);
    let progress = run.tracker.tell(None, 407.0);
    assert_eq!(progress.eta_seconds, Some(2.0));
}

/// Each attempt is paid for.
#[test]
fn what_is_staged_again_counts_again() {
    let mut run = Run::members(1);
    run.start(0, 0.0);
    run.end_phase(0, Phase::Stage, 1.0, 1.0, 10);
    run.end_phase(0, Phase::Stage, 5.0, 1.0, 10);
    assert_eq!(run.tracker.used(&run.title(0)).unwrap().bytes_in, 20);
}

#[test]
fn models_that_run_beside_each_other_are_done_sooner() {
    let mut run = Run::members(6);
    for member in 0..2 {
        run.start(member, 0.0);
        run.phase(member, Phase::Run, 1.0);
    }
    run.end_phase(0, Phase::Run, 11.0, 10.0, 0);
    run.publish(0, 13.0, 10.0);
    run.end_phase(1, Phase::Run, 11.0, 10.0, 0);
    let progress = run.publish(1, 13.0, 10.0);
    // Four of 10 s, two at a time.
    assert_eq!(progress.eta_seconds, Some(1.0 + 20.0 + 2.0));
}

#[test]
fn at_the_end_nothing_is_expected() {
    let mut run = Run::members(1);
    let progress = run.serve(0, 0.0, 5.0);
    assert_eq!((progress.published, progress.tasks), (1, 1));
    assert_eq!(progress.eta_seconds, None);
}

#[test]
fn the_lead_time_follows_from_the_steps() {
    let mut run = Run::members(2);
    run.start(0, 0.0);
    run.phase(0, Phase::Run, 0.0);
    let running = run.step(0, 12, 5.0).unwrap().running;
    assert_eq!((running[0].step, running[0].steps), (12, STEPS));
    assert_eq!(running[0].lead_seconds, Some(72 * 3600));
    assert_eq!(running[0].last_lead_seconds, Some(792 * 3600));

    // What a container says is not to be relied on.
    let running = run.step(0, u64::MAX, 7.0).unwrap().running;
    assert_eq!(running[0].lead_seconds, None);

    // A model whose steps only its container knows.
    let mut unknown = planned(0, false);
    unknown.steps = None;
    let mut run = Run::of(vec![unknown], &[]);
    run.start(0, 0.0);
    run.phase(0, Phase::Run, 0.0);
    let running = run.step(0, 12, 5.0).unwrap().running;
    assert_eq!(running[0].lead_seconds, Some(72 * 3600));
}

#[test]
fn rates_are_of_what_was_moved_and_of_steps_after_the_first() {
    let mut run = Run::members(2);
    run.start(0, 0.0);
    run.end_phase(0, Phase::Stage, 2.0, 2.0, 100);
    run.phase(0, Phase::Run, 2.0);
    // The first comes late: the model was loaded.
    run.step(0, 1, 30.0);
    run.step(0, 5, 32.0);
    let waits = Event::WaitsForSpace { task: run.title(0) };
    let has = Event::HasSpace { task: run.title(0) };
    run.take(&waits, 32.0);
    run.take(&has, 92.0);
    run.step(0, 9, 94.0);
    let rates = run.publish(0, 95.0, 92.0).rates;
    assert_eq!(rates.stage, Some(50.0));
    assert_eq!(rates.seconds_per_step, Some(0.5));
    // 600 bytes in 2 s, and one while the model ran.
    assert_eq!(rates.publish, Some(200.0));
}

#[test]
fn a_model_that_waits_for_space_or_is_not_there_is_idle() {
    let mut run = Run::members(3);
    run.start(0, 0.0);
    run.phase(0, Phase::Run, 10.0);
    let waits = Event::WaitsForSpace { task: run.title(0) };
    let has = Event::HasSpace { task: run.title(0) };
    run.take(&waits, 20.0);
    run.take(&has, 25.0);
    run.end_phase(0, Phase::Run, 30.0, 20.0, 0);
    run.publish(0, 40.0, 20.0);
    // One that fails has used the GPU, too.
    run.start(1, 30.0);
    run.phase(1, Phase::Run, 32.0);
    let again = Event::TaskAgain {
        task: run.title(1),
        error: String::new(),
        pause_seconds: 1.0,
    };
    run.take(&again, 35.0);
    run.phase(1, Phase::Run, 36.0);
    run.fail(1, 40.0);
    let idle = run.tracker.idle().unwrap();
    assert!(idle.of_gpus);
    assert_eq!((idle.seconds, idle.busy_seconds), (30.0, 22.0));
    let used = run.tracker.used(&run.title(1)).unwrap();
    assert_eq!((used.seconds, used.model_seconds), (10.0, 7.0));
    assert_eq!(run.tracker.used(&run.title(2)).unwrap().seconds, 0.0);
}

#[test]
fn tasks_without_gpus_do_not_keep_gpus_busy() {
    let mut run = Run::of(vec![planned(0, true), planned(1, false)], &[]);
    run.serve(0, 0.0, 10.0);
    run.serve(1, 100.0, 10.0);
    let idle = run.tracker.idle().unwrap();
    assert_eq!(
        (idle.of_gpus, idle.seconds, idle.idle_share),
        (true, 10.0, 0.0)
    );
}

#[test]
fn between_two_ends_of_tasks_progress_is_told_now_and_then() {
    let mut run = Run::members(2);
    run.start(0, 0.0);
    run.phase(0, Phase::Run, 0.0);
    let told: Vec<bool> = (1..=60)
        .map(|step| run.step(0, step, step as f64 / 10.0).is_some())
        .collect();
    let count = told.iter().filter(|told| **told).count();
    assert!((5..=6).contains(&count), "{count}");
}

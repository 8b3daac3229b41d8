use std::path::Path;
use std::time::Instant;

use mlwm_spec::{AnalysisTime, Digest, ExitCode};
use rusqlite::Connection;

use crate::*;

fn task(configuration: &str, time: &str, member: u32) -> TaskName {
    TaskName {
        configuration: configuration.into(),
        analysis_time: time.parse().unwrap(),
        member,
    }
}

fn new_run() -> NewRun {
    NewRun {
        host: "node1".into(),
        process: "17 4711".into(),
        version: "0.1.0".into(),
        plan: Digest::of("plan"),
    }
}

fn result(state: State, exit_code: ExitCode) -> AttemptResult {
    AttemptResult {
        state,
        exit_code,
        identity: Some(Digest::of("identity")),
        error: (state == State::Failed).then(|| "the store\nsaid no".to_owned()),
        log: Some("log/a.log".into()),
        bytes_in: 12,
        bytes_out: u64::MAX,
        peak_memory: None,
        forecast_duration: Some("PT18H".into()),
        outputs: match state {
            State::Published => vec![Published {
                name: "surface".into(),
                uri: "s3://b/surface.zarr".into(),
                manifest: "s3://b/surface.zarr.manifest.json".into(),
                digest: Digest::of("objects"),
            }],
            _ => Vec::new(),
        },
    }
}

#[test]
fn a_failed_attempt_is_kept_beside_the_one_that_published() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("work/ledger.sqlite");
    assert!(Ledger::look(&path).unwrap().is_none());
    let ledger = Ledger::open(&path).unwrap();
    let (a, b) = (
        task("a", "2025-09-22T12:00Z", 0),
        task("a", "2025-09-22T12:00Z", 1),
    );
    let run = ledger.begin_run(&new_run(), [&a, &b]).unwrap();

    // Another process reads while this one writes.
    let reader = Ledger::look(&path).unwrap().unwrap();
    let states = reader.tasks(a.analysis_time).unwrap();
    assert_eq!(
        states,
        [(a.clone(), State::Planned), (b.clone(), State::Planned)]
    );

    let (first, _) = ledger.begin_attempt(run, &a).unwrap();
    ledger.begin_phase(first, "stage").unwrap();
    let seen = reader.attempts(&a).unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].state, seen[0].ended), (State::Running, None));
    assert_eq!(seen[0].phases[0].seconds, None);
    ledger.end_phase(first, "stage", 1.5, Some(12)).unwrap();
    let failed = result(State::Failed, ExitCode::StorageFailed);
    ledger.end_attempt(first, &failed).unwrap();
    let (second, number) = ledger.begin_attempt(run, &a).unwrap();
    assert_eq!(number, 2);
    ledger
        .end_attempt(second, &result(State::Published, ExitCode::Ok))
        .unwrap();
    ledger.end_run(run, ExitCode::StorageFailed).unwrap();

    let attempts = reader.attempts(&a).unwrap();
    let states: Vec<_> = attempts
        .iter()
        .map(|attempt| (attempt.number, attempt.state))
        .collect();
    assert_eq!(states, [(1, State::Failed), (2, State::Published)]);
    assert_eq!(attempts[0].error.as_deref(), Some("the store\nsaid no"));
    assert_eq!(attempts[0].exit_code, Some(30));
    assert_eq!(attempts[0].phases[0].seconds, Some(1.5));
    assert_eq!(attempts[1].bytes_out, i64::MAX as u64);
    assert_eq!(reader.outputs(&a).unwrap()[0].uri, "s3://b/surface.zarr");
    assert!(reader.outputs(&b).unwrap().is_empty());
    assert!(reader.open_runs().unwrap().is_empty());
    let newest = reader.newest_attempts(a.analysis_time).unwrap();
    assert_eq!(newest.len(), 1);
    assert_eq!(newest[0].number, 2);
}

#[test]
fn attempts_of_a_killed_run_are_lost_and_published_tasks_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let (a, b) = (
        task("a", "2025-09-22T12:00Z", 0),
        task("b", "2025-09-22T12:00Z", 0),
    );
    {
        let ledger = Ledger::open(&path).unwrap();
        let run = ledger.begin_run(&new_run(), [&a, &b]).unwrap();
        let (done, _) = ledger.begin_attempt(run, &a).unwrap();
        ledger
            .end_attempt(done, &result(State::Published, ExitCode::Ok))
            .unwrap();
        ledger.begin_attempt(run, &b).unwrap();
        // Killed here.
    }
    let ledger = Ledger::open(&path).unwrap();
    let open = ledger.open_runs().unwrap();
    assert_eq!((open.len(), open[0].host.as_str()), (1, "node1"));
    ledger.lose_run(open[0].id).unwrap();
    assert!(ledger.open_runs().unwrap().is_empty());
    let states = ledger.tasks(a.analysis_time).unwrap();
    assert_eq!(
        states,
        [(a.clone(), State::Published), (b.clone(), State::Lost)]
    );
    let lost = ledger.attempts(&b).unwrap();
    assert_eq!((lost[0].state, lost[0].exit_code), (State::Lost, None));
    assert!(lost[0].ended.is_some());
}

#[test]
fn what_began_before_the_clock_was_set_back_does_not_end_before_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let a = task("a", "2025-09-22T12:00Z", 0);
    let ledger = Ledger::open(&path).unwrap();
    let run = ledger.begin_run(&new_run(), [&a]).unwrap();
    ledger.begin_attempt(run, &a).unwrap();
    // As if it had begun by a clock that was an hour ahead.
    let raw = Connection::open(&path).unwrap();
    for table in ["runs", "attempts"] {
        let ahead = format!("UPDATE {table} SET started = started + 3600000");
        assert_eq!(raw.execute(&ahead, []).unwrap(), 1);
    }
    ledger.lose_run(run).unwrap();
    let lost = ledger.attempts(&a).unwrap().remove(0);
    assert_eq!(lost.ended, Some(lost.started));
    // The engine's clock was set back while the container ran.
    ledger
        .found(&Found {
            task: a.clone(),
            identity: Digest::of("identity"),
            times: Some((1_758_542_460_000, 1_758_542_400_000)),
            outputs: Vec::new(),
        })
        .unwrap();
    let found = ledger.attempts(&a).unwrap().remove(1);
    assert_eq!(found.ended, Some(found.started));
}

#[test]
fn a_lost_ledger_is_filled_from_what_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    let found = Found {
        task: task("a", "2025-09-22T12:00Z", 3),
        identity: Digest::of("identity"),
        times: Some((1_758_542_400_000, 1_758_542_460_000)),
        outputs: result(State::Published, ExitCode::Ok).outputs,
    };
    // The same again changes nothing, another identity is another attempt.
    ledger.found(&found).unwrap();
    ledger.found(&found).unwrap();
    let attempts = ledger.attempts(&found.task).unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].ended, Some(1_758_542_460_000));
    let other = Found {
        identity: Digest::of("other"),
        ..found.clone()
    };
    ledger.found(&other).unwrap();
    assert_eq!(ledger.attempts(&found.task).unwrap().len(), 2);
    assert_eq!(ledger.outputs(&found.task).unwrap().len(), 1);
}

#[test]
fn cycles_are_counted_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    let mut tasks = Vec::new();
    for day in 1..=9 {
        for member in 0..3 {
            tasks.push(task("a", &format!("2025-09-0{day}T00:00Z"), member));
        }
        tasks.push(task("b", &format!("2025-09-0{day}T00:00Z"), 0));
    }
    let run = ledger.begin_run(&new_run(), &tasks).unwrap();
    let (attempt, _) = ledger.begin_attempt(run, tasks.last().unwrap()).unwrap();
    ledger
        .end_attempt(attempt, &result(State::Failed, ExitCode::Timeout))
        .unwrap();

    let cycles = ledger.cycles(None, None, 2).unwrap();
    let times: Vec<String> = cycles
        .iter()
        .map(|row| row.analysis_time.to_string())
        .collect();
    assert_eq!(times, ["2025-09-09T00:00Z", "2025-09-08T00:00Z"]);
    assert_eq!(cycles[0].cells["a"].count(State::Planned), 3);
    assert_eq!(cycles[0].cells["b"].count(State::Failed), 1);
    assert_eq!(cycles[1].cells["b"].total(), 1);
    let time = |day: u32| format!("2025-09-0{day}T00:00Z").parse().unwrap();
    let some = ledger.cycles(Some(time(3)), Some(time(4)), 9).unwrap();
    assert_eq!(some.len(), 2);
    assert_eq!(some[1].analysis_time, time(3));
    assert!(
        ledger
            .cycles(Some(time(9)), Some(time(8)), 9)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_ledger_of_a_newer_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    drop(Ledger::open(&path).unwrap());
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let before = std::fs::read(&path).unwrap();
    for opened in [Ledger::open(&path).map(Some), Ledger::look(&path)] {
        let error = opened.unwrap_err();
        assert!(error.to_string().contains("use a newer mlwm"), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_ledger_of_the_first_version_is_brought_to_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch(include_str!("schema/1.sql")).unwrap();
    raw.execute_batch(
        "INSERT INTO tasks VALUES (1, 'a', 0, 0, 'published');
         INSERT INTO attempts (task, number, started, ended, state, bytes_out)
             VALUES (1, 1, 0, 5, 'published', 7);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(raw);
    let ledger = Ledger::look(&path).unwrap().unwrap();
    let attempts = ledger.attempts(&task("a", "1970-01-01T00:00Z", 0)).unwrap();
    assert_eq!((attempts.len(), attempts[0].bytes_out), (1, 7));
    assert!(ledger.successes("a", Some("PT18H"), 9).unwrap().is_empty());
}

#[test]
fn only_what_ran_well_for_the_same_duration_is_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    let all: Vec<TaskName> = (0..6)
        .map(|member| task("a", "2025-09-22T12:00Z", member))
        .collect();
    let other = task("b", "2025-09-22T12:00Z", 0);
    let run = ledger.begin_run(&new_run(), &all).unwrap();
    let attempt = |task: &TaskName, phase: &str, ended: &AttemptResult| {
        let (id, _) = ledger.begin_attempt(run, task).unwrap();
        ledger.begin_phase(id, phase).unwrap();
        ledger.end_phase(id, phase, 2.5, None).unwrap();
        ledger.end_attempt(id, ended).unwrap();
    };
    let published = result(State::Published, ExitCode::Ok);
    attempt(&all[0], "run", &published);
    attempt(
        &all[1],
        "run",
        &result(State::Failed, ExitCode::ContainerFailed),
    );
    // Complete before, and only published.
    attempt(&all[2], "publish", &published);
    let longer = AttemptResult {
        forecast_duration: Some("PT48H".into()),
        ..published.clone()
    };
    attempt(&all[3], "run", &longer);
    attempt(&other, "run", &published);
    attempt(&all[4], "run", &published);
    let members = |duration: Option<&str>, most: u32| -> Vec<u32> {
        let found = ledger.successes("a", duration, most).unwrap();
        found.iter().map(|attempt| attempt.task.member).collect()
    };
    assert_eq!(members(Some("PT18H"), 9), [4, 0]);
    assert_eq!(members(Some("PT18H"), 1), [4]);
    assert_eq!(members(Some("PT48H"), 9), [3]);
    assert!(members(None, 9).is_empty());
}

#[test]
fn what_is_no_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    std::fs::write(
        &path,
        "this is a text, and a rather long one: no database at all",
    )
    .unwrap();
    let error = Ledger::open(&path).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::StorageFailed);
    assert!(error.to_string().contains("ledger.sqlite"), "{error}");
    let error = Ledger::open(Path::new("/proc/none/ledger.sqlite")).unwrap_err();
    assert!(error.to_string().contains("/proc/none"), "{error}");
}

#[test]
fn a_ledger_is_made_by_many_at_once() {
    for _ in 0..40 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| Ledger::open(&path).unwrap());
            }
        });
    }
}

#[test]
fn many_writers_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let ledger = Ledger::open(path).unwrap();
                let run = ledger.begin_run(&new_run(), []).unwrap();
                for member in 0..25 {
                    let task = task(&format!("m{writer}"), "2025-09-22T12:00Z", member);
                    let (attempt, _) = ledger.begin_attempt(run, &task).unwrap();
                    ledger
                        .end_attempt(attempt, &result(State::Published, ExitCode::Ok))
                        .unwrap();
                }
            });
        }
    });
    let ledger = Ledger::look(&path).unwrap().unwrap();
    let tasks = ledger.tasks("2025-09-22T12:00Z".parse().unwrap()).unwrap();
    assert_eq!(tasks.len(), 100);
    assert!(tasks.iter().all(|(_, state)| *state == State::Published));
}

/// A year of four cycles a day, ten models and 51 members. By hand: takes half a minute.
#[test]
#[ignore = "slow: a measurement"]
#[expect(clippy::print_stdout, reason = "it says what was measured")]
fn status_over_a_year() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).unwrap();
    let mut tasks = Vec::new();
    for cycle in 0..365 * 4 {
        let analysis_time =
            AnalysisTime::from_unix_seconds(1_735_689_600 + cycle * 21_600).unwrap();
        for model in 0..10 {
            for member in 0..51 {
                tasks.push(TaskName {
                    configuration: format!("model-{model}"),
                    analysis_time,
                    member,
                });
            }
        }
    }
    ledger.begin_run(&new_run(), &tasks).unwrap();
    for (limit, what) in [(20, "20 cycles"), (365 * 4, "all cycles")] {
        let clock = Instant::now();
        let rows = ledger.cycles(None, None, limit).unwrap();
        println!("{what}: {} rows in {:?}", rows.len(), clock.elapsed());
    }
}

//! Memory, time, cancellation, and what is left behind, on Docker.

use std::time::{Duration, Instant};

use mlwm_engines::{Error, Output};
use mlwm_spec::bytes::ByteSize;
use tokio_util::sync::CancellationToken;

use crate::support::{LABEL, docker, docker_cli, left_behind, run, script};

const MIB: u64 = 1024 * 1024;
/// A command that fills memory until it is killed.
const GREEDY: &str = "head -c 1G /dev/zero | tail";

#[tokio::test]
async fn want_of_memory_is_told() {
    let engine = docker().await;
    let mut request = script("exec tail /dev/zero");
    request.resources.memory = Some(ByteSize(64 * MIB));
    // Docker hears of the kill from the container's control group. Where that is gone first, its
    // inspection denies the kill (about one in ten, which its events make good), and now and then
    // it never hears of it at all.
    let mut told = 0;
    for _ in 0..25 {
        let run = run(&engine, &request).await;
        assert_eq!(run.ended().exit_code, 137);
        told += u32::from(run.ended().oom_killed);
    }
    assert!(told >= 20, "only {told} of 25 kills were told");
}

#[tokio::test]
async fn a_killed_child_is_told_too() {
    let engine = docker().await;
    let mut request = script(&format!("{GREEDY}; echo survived; sleep 0.2; exit 3"));
    request.resources.memory = Some(ByteSize(64 * MIB));
    let run = run(&engine, &request).await;
    assert_eq!(run.stdout(), ["survived"]);
    assert_eq!((run.ended().exit_code, run.ended().oom_killed), (3, true));
}

#[tokio::test]
async fn memory_within_the_limit_is_measured() {
    let engine = docker().await;
    let mut request = script("x=$(head -c 100M /dev/zero | tr '\\0' x); sleep 3; echo ${#x}");
    request.resources.memory = Some(ByteSize(1024 * MIB));
    request.resources.cpus = Some(1.5);
    request.resources.shm_size = Some(ByteSize(32 * MIB));
    let run = run(&engine, &request).await;
    assert_eq!(run.stdout(), [(100 * MIB).to_string()]);
    let peak = run.ended().peak_memory.expect("samples of three seconds");
    assert!((100 * MIB..1024 * MIB).contains(&peak), "{peak}");
    assert!(!run.ended().oom_killed);
}

#[tokio::test]
async fn limits_reach_the_container() {
    let engine = docker().await;
    let mut request = script(
        "df -B1 --output=size /tmp /dev/shm | tail -2; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null",
    );
    request.resources.memory = Some(ByteSize(256 * MIB));
    request.resources.shm_size = Some(ByteSize(32 * MIB));
    let run = run(&engine, &request).await;
    let expected = [128 * MIB, 32 * MIB, 16 * 1024].map(|number| number.to_string());
    assert_eq!(
        run.stdout()
            .iter()
            .map(|line| line.trim())
            .collect::<Vec<_>>(),
        expected
    );
}

#[tokio::test]
async fn the_time_limit_ends_a_container() {
    let engine = docker().await;
    let mut request = script("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done");
    request.timeout = Some(Duration::from_secs(1));
    let begin = Instant::now();
    let run = run(&engine, &request).await;
    assert!(run.ended().timed_out && !run.ended().cancelled && !run.ended().succeeded());
    assert_eq!(run.ended().exit_code, 5);
    assert_eq!(run.stdout(), ["up", "bye"]);
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "SIGTERM was enough"
    );
}

#[tokio::test]
async fn a_container_that_ignores_sigterm_is_killed() {
    let engine = docker().await;
    let mut request = script("trap '' TERM; while :; do sleep 0.1; done");
    request.timeout = Some(Duration::from_secs(1));
    let begin = Instant::now();
    let run = run(&engine, &request).await;
    assert_eq!((run.ended().exit_code, run.ended().timed_out), (137, true));
    assert!(!run.ended().oom_killed);
    assert!(
        begin.elapsed() > Duration::from_secs(10),
        "no grace: {:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn cancelling_ends_a_container() {
    let engine = docker().await;
    let request = script("echo up; exec sleep 600");
    let cancel = CancellationToken::new();
    let mut print = |line| {
        assert_eq!(line, Output::Stdout("up".into()));
        cancel.cancel();
    };
    let ended = engine.run(&request, &mut print, &cancel).await.unwrap();
    assert_eq!(
        (ended.exit_code, ended.cancelled, ended.timed_out),
        (143, true, false)
    );
    assert_eq!(left_behind(&request), "");

    let before = engine.run(&request, &mut |_| (), &cancel).await;
    assert!(matches!(before, Err(Error::Cancelled { .. })), "{before:?}");
}

#[tokio::test]
async fn dropping_a_run_removes_its_container() {
    let engine = docker().await;
    // From before the container is created to when it runs.
    for delay in [1, 5, 10, 20, 40, 80, 160, 320, 640, 1280] {
        let request = script("sleep 600");
        let cancel = CancellationToken::new();
        let mut print = |_| ();
        let running = engine.run(&request, &mut print, &cancel);
        assert!(
            tokio::time::timeout(Duration::from_millis(delay), running)
                .await
                .is_err()
        );
        // A request to create that was under way is answered, and its container removed, in the
        // background.
        for _ in 0..100 {
            if left_behind(&request).is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(left_behind(&request), "", "dropped after {delay} ms");
    }
}

#[test]
fn a_runtime_that_ends_removes_its_containers() {
    let request = script("sleep 600");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let task = request.clone();
    runtime.spawn(async move {
        let engine = docker().await;
        engine
            .run(&task, &mut |_| (), &CancellationToken::new())
            .await
    });
    while docker_cli(&["ps", "-q", "--filter", &format!("name={}", request.name)]).is_empty() {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(runtime);
    assert_eq!(left_behind(&request), "");
}

#[tokio::test]
async fn somebody_elses_removal_is_told() {
    let engine = docker().await;
    let request = script("echo up; exec sleep 600");
    let name = request.name.clone();
    let mut print = |_| {
        docker_cli(&["rm", "-f", &name]);
    };
    let error = engine
        .run(&request, &mut print, &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("somebody removed it"), "{error}");
}

#[tokio::test]
async fn names_are_taken_once_and_sweeping_spares_the_living() {
    let engine = docker().await;
    let request = script("echo up; exec sleep 600");
    let cancel = CancellationToken::new();
    let (up, mut is_up) = tokio::sync::mpsc::unbounded_channel();
    let (first_engine, first, first_cancel) = (engine.clone(), request.clone(), cancel.clone());
    let running = tokio::spawn(async move {
        first_engine
            .run(&first, &mut |line| up.send(line).unwrap(), &first_cancel)
            .await
    });
    is_up.recv().await.unwrap();

    let second = engine
        .run(&request, &mut |_| (), &CancellationToken::new())
        .await;
    assert!(matches!(second, Err(Error::NameTaken { .. })), "{second:?}");
    let swept = engine.sweep(&request.labels).await.unwrap();
    assert_eq!(swept.alive, [request.name.as_str()]);
    assert!(swept.removed.is_empty() && swept.unknown.is_empty());

    cancel.cancel();
    assert!(running.await.unwrap().unwrap().cancelled);
}

#[tokio::test]
async fn sweeping_removes_what_a_killed_process_left() {
    let engine = docker().await;
    let request = script("exec sleep 600");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let dead = format!(
        "io.mlwm.owner={} {} 999999999 1",
        boot.trim(),
        space.display()
    );
    let other_host = "io.mlwm.owner=another-boot pid:[1] 1 1";
    let mark = format!("{LABEL}={}", request.name);
    let start = |owner: &str, suffix: &str, command: &[&str]| {
        let name = format!("{}-{suffix}", request.name);
        let options = [
            "run", "-d", "--name", &name, "--label", &mark, "--label", owner,
        ];
        docker_cli(&[&options, &["--net=none", crate::support::BASE][..], command].concat());
        name
    };
    let running = start(&dead, "running", &["sleep", "600"]);
    let ended = start(&dead, "ended", &["true"]);
    let elsewhere_ended = start(other_host, "elsewhere-ended", &["true"]);
    let elsewhere = start(other_host, "elsewhere", &["sleep", "600"]);
    docker_cli(&["wait", &ended, &elsewhere_ended]);

    let mut swept = engine.sweep(&request.labels).await.unwrap();
    swept.removed.sort();
    let mut expected = vec![running, ended, elsewhere_ended];
    expected.sort();
    assert_eq!(swept.removed, expected);
    assert_eq!(swept.unknown, [elsewhere.as_str()]);
    docker_cli(&["rm", "-f", &elsewhere]);
    assert_eq!(left_behind(&request), "");
}

//! A container fails, or says it succeeded and did not: nothing is published, and the user sees
//! why. One that obeys the contract is published, whatever runs inside.

use std::io::BufRead;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mlwm_tests::scripted::{no_container_left, scripted};
use mlwm_tests::site::{Site, example_configuration, oracle, ran};
use serde_json::Value;

/// Runs and expects a failure that publishes nothing, but keeps the log.
#[track_caller]
fn fails(site: &Site, code: i32, texts: &[&str]) {
    site.run("danra", &[]).expect(code, texts);
    site.expect_nothing_left();
    assert_eq!(site.files("mlwm-work/log").len(), 1, "the log is kept");
    no_container_left(site);
}

#[test]
fn an_image_that_obeys_the_contract_is_published() {
    let site = scripted("copies", "cp -r /in/surface.zarr/. /out/surface.zarr/", "");
    let done = site.run("danra", &["--json"]).expect(0, &["published"]);
    let events = done.stdout.lines().map(serde_json::from_str);
    let events: Vec<Value> = events.collect::<Result<_, _>>().unwrap();
    let mut ends = events
        .iter()
        .filter(|event| event["event"] == "task-finished");
    assert_eq!(ends.next().unwrap()["outcome"], "published");
    assert!(ends.next().is_none());
    assert_eq!(events.last().unwrap()["event"], "run-finished");
    oracle(
        "manifest.py",
        &[
            site.path("published/surface.zarr").to_str().unwrap(),
            site.path("published/surface.zarr.manifest.json")
                .to_str()
                .unwrap(),
        ],
    );
    site.run("danra", &[]).expect(0, &["already published"]);
}

/// All that is in the logs of a site's containers, each by itself.
fn logs(site: &Site) -> Vec<String> {
    let files = site.files("mlwm-work/log").into_iter();
    let logs = files.map(|file| std::fs::read_to_string(site.path("mlwm-work/log").join(file)));
    logs.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_model_is_told_that_the_same_must_give_the_same_bytes() {
    let script = "echo \"told: $MLWM_DETERMINISTIC.\"; cp -r /in/surface.zarr/. /out/surface.zarr/";
    for (more, told, recorded) in [
        ("", "told: .", None),
        ("deterministic: true", "told: 1.", Some(true)),
    ] {
        let site = scripted("is-told", script, more);
        site.run("danra", &[]).expect(0, &["published", told]);
        let manifest = std::fs::read(site.path("published/surface.zarr.manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let recorded = recorded.map(Value::Bool);
        assert_eq!(manifest.get("deterministic"), recorded.as_ref());
        let why = ["why", "published/surface.zarr", "--json"];
        let why = site.mlwm(&why).expect(0, &[]).json();
        let parameters = &why["predicate"]["buildDefinition"]["internalParameters"];
        assert_eq!(parameters.get("deterministic"), recorded.as_ref());
    }
}

/// The built-in runner, in one container for two members.
#[test]
fn the_runner_of_several_members_makes_the_same_bytes_if_it_is_told_to() {
    let site = Site::with_example();
    let yaml = example_configuration();
    let ensemble = "members: 0-1\nensemble: {uri: ./published/ensemble}";
    site.configure("danra", &format!("deterministic: true\n{ensemble}\n{yaml}"));
    site.run("danra", &[]).expect(0, &["ensemble: published"]);
    let manifest = std::fs::read(site.path("published/ensemble.manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["deterministic"], Value::Bool(true));
    let logs = logs(&site);
    let told = logs
        .iter()
        .filter(|log| log.contains(", the same bytes each time"));
    assert_eq!((logs.len(), told.count()), (2, 2), "{logs:?}");
    site.configure("danra", &yaml);
    site.run("danra", &["--members", "2"])
        .expect(0, &["published"]);
    let said = "the same bytes each time";
    let told = self::logs(&site)
        .iter()
        .filter(|log| log.contains(said))
        .count();
    assert_eq!(told, 2);
    site.mlwm(&["why", "published/2022-04-07T0300Z/member1/surface.zarr"])
        .expect(0, &[said]);
}

/// Two working folders with the same configuration, such as one for tests beside that of operations.
#[test]
fn the_same_task_runs_in_two_working_folders_at_once() {
    let script = "sleep 3; cp -r /in/surface.zarr/. /out/surface.zarr/";
    let sites = [(); 2].map(|()| scripted("sleeps-and-copies", script, ""));
    let runs = sites.each_ref().map(|site| {
        let mut run = site.command(&["run", "--analysis-time", "2022-04-07T03:00Z"]);
        let run = run.stdout(Stdio::piped()).stderr(Stdio::piped());
        run.spawn().unwrap()
    });
    for run in runs {
        ran(&run.wait_with_output().unwrap()).expect(0, &["published"]);
    }
    sites.iter().for_each(no_container_left);
}

#[test]
fn non_zero_exit_shows_code_and_last_lines_and_keeps_the_log() {
    let script = "for i in $(seq 30); do echo line $i; done; echo the end >&2; exit 7";
    let site = scripted("exits-7", script, "");
    fails(&site, 20, &["exit code 7", "line 30", "the end"]);
    let log = std::fs::read_to_string(
        site.path("mlwm-work/log")
            .join(&site.files("mlwm-work/log")[0]),
    );
    let log = log.unwrap();
    assert!(log.contains("line 1\n") && log.contains("the end"), "{log}");
}

#[test]
fn out_of_memory() {
    let script = "cp -r /in/surface.zarr/. /out/surface.zarr/; x=$(head -c 300m /dev/zero | tr '\\0' x); echo ${#x}";
    let site = scripted("eats-memory", script, "resources: {memory: 64MiB}");
    fails(&site, 21, &["64MiB", "resources.memory"]);
}

#[test]
fn timeout() {
    let script = "cp -r /in/surface.zarr/. /out/surface.zarr/; exec sleep 600";
    let site = scripted("sleeps", script, "timeout: PT2S");
    fails(&site, 22, &["timeout", "PT2S"]);
}

#[test]
fn no_output() {
    fails(
        &scripted("writes-nothing", "true", ""),
        23,
        &["surface", "not written"],
    );
}

#[test]
fn output_that_is_no_dataset() {
    let site = scripted("writes-text", "echo hello > /out/surface.zarr/hello", "");
    fails(&site, 23, &["surface", "cannot be read"]);
}

#[test]
fn output_without_a_variable_that_was_asked_for() {
    let script =
        "cp -r /in/surface.zarr/. /out/surface.zarr/; cd /out/surface.zarr; rm -r t2m .zmetadata";
    fails(
        &scripted("drops-variable", script, ""),
        23,
        &["no variable `t2m`"],
    );
}

#[test]
fn output_with_a_chunk_that_was_never_written() {
    let script = "cp -r /in/surface.zarr/. /out/surface.zarr/; rm /out/surface.zarr/t2m/3.0.0";
    fails(
        &scripted("drops-chunk", script, ""),
        23,
        &["`t2m`", "never written"],
    );
}

#[test]
fn output_with_a_truncated_chunk() {
    let script =
        "cp -r /in/surface.zarr/. /out/surface.zarr/; truncate -s 99 /out/surface.zarr/u10m/3.0.0";
    fails(&scripted("truncates-chunk", script, ""), 23, &["u10m"]);
}

#[test]
fn output_that_is_a_link_or_a_pipe() {
    let script = "cp -r /in/surface.zarr/. /out/surface.zarr/; cd /out/surface.zarr/t2m; rm 3.0.0; ln -s /etc/passwd 3.0.0";
    fails(
        &scripted("links", script, ""),
        23,
        &["`3.0.0`", "neither a file nor a folder"],
    );
    let script = "cp -r /in/surface.zarr/. /out/surface.zarr/; cd /out/surface.zarr; rm .zmetadata; mkfifo .zmetadata";
    fails(
        &scripted("pipes", script, ""),
        23,
        &["`.zmetadata`", "neither a file nor a folder"],
    );
}

#[test]
fn an_exit_code_that_looks_like_a_kill_is_not_taken_for_one() {
    let site = scripted("exits-137", "echo bye; exit 137", "");
    fails(&site, 20, &["exit code 137", "bye"]);
}

#[test]
fn what_a_container_prints_cannot_move_the_cursor() {
    let site = scripted("escapes", r"printf '\033[2Jcleared\n'; exit 3", "");
    let done = site.run("danra", &[]).expect(20, &["[2Jcleared"]);
    assert!(!done.stderr.contains('\u{1b}'), "{:?}", done.stderr);
}

#[test]
fn isolation_is_what_the_contract_says() {
    let script = r#"
fail() { echo "NOT ISOLATED: $*"; exit 9; }
touch /here 2>/dev/null && fail root is writable
touch /in/surface.zarr/here 2>/dev/null && fail input is writable
[ "$(ls /sys/class/net)" = lo ] || fail network
grep -q '^CapEff:.*0000000000000000$' /proc/self/status || fail capabilities
grep -q '^NoNewPrivs:.*1$' /proc/self/status || fail new privileges
touch /tmp/here || fail no tmp
env | cut -d= -f1 | sort | tr '\n' ' '
cp -r /in/surface.zarr/. /out/surface.zarr/
"#;
    let mut site = scripted("looks-around", script, "environment: {COLOUR: blue}");
    site.env("AWS_SECRET_ACCESS_KEY", "planted");
    let done = site
        .run("danra", &[])
        .expect(0, &["COLOUR", "MLWM_CONTRACT", "ANALYSIS_TIME"]);
    assert!(!done.stderr.contains("AWS_"), "{}", done.stderr);
}

#[test]
fn interrupted_publishes_nothing_and_the_same_command_starts_again() {
    let script = "echo started; if [ -e /in/surface.zarr/slow ]; then sleep 600; fi; cp -r /in/surface.zarr/. /out/surface.zarr/";
    let site = scripted("waits", script, "");
    std::fs::write(site.path("store/single_levels.zarr/slow"), "").unwrap();
    let mut child = site
        .command(&["run", "--analysis-time", "2022-04-07T03:00Z"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = site.path("mlwm-work/log");
    wait_for(&log);
    std::thread::sleep(Duration::from_secs(1));
    // Another one waits meanwhile, and is told to stop before it would begin.
    let other = site
        .command(&["run", "--analysis-time", "2022-04-07T03:00Z"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    terminate(&other);
    let other = other.wait_with_output().unwrap();
    assert_eq!(other.status.code(), Some(130));
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(said.contains("another mlwm does it"), "{said}");
    assert!(!said.contains("stage"), "{said}");
    terminate(&child);
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(130));
    site.expect_nothing_left();
    no_container_left(&site);
    std::fs::remove_file(site.path("store/single_levels.zarr/slow")).unwrap();
    site.run("danra", &[]).expect(0, &["published"]);
}

#[test]
fn what_was_staged_when_it_was_stopped_is_not_staged_again() {
    let script = "ls -i /in/surface.zarr/extra; cp -r /in/surface.zarr/. /out/surface.zarr/; \
                  rm -r /out/surface.zarr/extra";
    let site = scripted("stopped-staging", script, "");
    let extra = site.path("store/single_levels.zarr/extra");
    std::fs::create_dir(&extra).unwrap();
    for number in 0..2000 {
        std::fs::write(extra.join(format!("{number}")), vec![7; 50_000]).unwrap();
    }
    let run = ["run", "--analysis-time", "2022-04-07T03:00Z", "--json"];
    let mut child = site.command(&run).stdout(Stdio::piped()).spawn().unwrap();
    let mut events = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let is_under_way = |line: &String| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["event"] == "progress" && event["done"].as_u64().unwrap() > 0
    };
    assert!(events.any(|line| is_under_way(&line.unwrap())));
    terminate(&child);
    events.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let tasks = site.path("mlwm-work/tasks");
    let staged: Vec<(String, u64)> = site
        .files("mlwm-work/tasks")
        .into_iter()
        .filter(|file| file.contains("/data/extra/"))
        .map(|file| {
            let inode = std::fs::metadata(tasks.join(&file)).unwrap().ino();
            (file.rsplit('/').next().unwrap().to_owned(), inode)
        })
        .collect();
    assert!(
        !staged.is_empty() && staged.len() < 2000,
        "{}",
        staged.len()
    );
    site.mlwm(&run[..3]).expect(0, &["published"]);
    let log = site.files("mlwm-work/log").pop().unwrap();
    let log = std::fs::read_to_string(site.path("mlwm-work/log").join(log)).unwrap();
    for (name, inode) in staged {
        let kept = format!("{inode} {name}");
        let is_kept = log.lines().any(|line| line.ends_with(&kept));
        assert!(is_kept, "{name} was staged again");
    }
    assert_eq!(site.files("mlwm-work/tasks"), [""; 0]);
}

/// The terminal, or the program that read what it prints, is gone.
#[test]
fn nobody_who_reads_is_needed_to_run_or_to_be_stopped() {
    let script = "echo started; cp -r /in/surface.zarr/. /out/surface.zarr/; sleep $SECONDS_MORE";
    let site = scripted("unread", script, "environment: {SECONDS_MORE: 2}");
    let yaml = std::fs::read_to_string(site.path("configurations/danra/config.yaml")).unwrap();
    let start = || {
        let mut run = site.command(&["run", "--analysis-time", "2022-04-07T03:00Z"]);
        let run = run.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut run = run.spawn().unwrap();
        drop((run.stdout.take(), run.stderr.take()));
        run
    };
    let mut run = start();
    wait_for(&site.path("mlwm-work/log"));
    send("-HUP", &run);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    site.mlwm(&["verify", "published/surface.zarr"])
        .expect(0, &["all as published"]);
    std::fs::remove_dir_all(site.path("published")).unwrap();
    std::fs::remove_dir_all(site.path("mlwm-work")).unwrap();

    site.configure("danra", &yaml.replace("MORE: 2", "MORE: 600"));
    let mut run = start();
    wait_for(&site.path("mlwm-work/log"));
    terminate(&run);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    site.expect_nothing_left();
    no_container_left(&site);
}

fn terminate(child: &std::process::Child) {
    send("-TERM", child);
}

fn send(signal: &str, child: &std::process::Child) {
    let id = child.id().to_string();
    let kill = Command::new("kill").args([signal, &id]).status();
    assert!(kill.unwrap().success());
}

fn wait_for(path: &Path) {
    for _ in 0..300 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{} does not come", path.display());
}

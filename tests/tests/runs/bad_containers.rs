//! A container misbehaves: it does not stop, multiplies, fills memory or disk, prints without end or
//! writes where it must not. It is ended, nothing is published or left, and the user reads why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mlwm_tests::scripted::{no_container_left, scripted};
use mlwm_tests::site::{Site, oracle, ran, sha256};

/// Copies the input to the output: a forecast that is complete.
const COPY: &str = "cp -r /in/surface.zarr/. /out/surface.zarr/";
/// Prints a line and cannot be told to stop.
const STUBBORN: &str = "trap '' TERM INT; echo up; while :; do sleep 0.2; done";
/// Writes 100 MB a second, if the disk is that fast, and ignores that it shall stop.
const FILLS: &str = "trap '' TERM; while :; do head -c 10M /dev/zero >> /out/surface.zarr/big || sleep 1; sleep 0.1; done";

/// Runs and expects a failure that publishes nothing and leaves nothing, but for the log.
#[track_caller]
fn fails(site: &Site, code: i32, texts: &[&str]) -> mlwm_tests::site::Ran {
    let done = site.run("danra", &[]).expect(code, texts);
    site.expect_nothing_left();
    no_container_left(site);
    done
}

/// The one log of a site.
fn log(site: &Site) -> PathBuf {
    let files = site.files("mlwm-work/log");
    assert_eq!(files.len(), 1, "{files:?}");
    site.path("mlwm-work/log").join(&files[0])
}

/// Waits until the container of a site has printed something.
fn wait_for_log(site: &Site) {
    for _ in 0..300 {
        if !site.files("mlwm-work/log").is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the container prints nothing");
}

fn start(site: &Site) -> Child {
    site.command(&["run", "--analysis-time", "2022-04-07T03:00Z"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    ran(&output).expect(0, &[]).stdout.trim().to_owned()
}

/// Whether a process of this machine has a text in its command line.
fn runs(text: &str) -> bool {
    let listed = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    let listed = ran(&listed).expect(0, &[]).stdout;
    listed.lines().any(|line| line.contains(text))
}

#[test]
fn one_that_does_not_stop_at_its_timeout_is_killed() {
    let site = scripted("stubborn-late", STUBBORN, "timeout: PT1S");
    fails(
        &site,
        22,
        &["stopped after its timeout of PT1S", "up", "timeout"],
    );
}

#[test]
fn one_that_does_not_stop_is_killed_when_mlwm_is_interrupted() {
    // Not the same image as that of the other test.
    let script = format!("{STUBBORN} # interrupted");
    let site = scripted("stubborn", &script, "resources: {processes: 100}");
    let mlwm = start(&site);
    wait_for_log(&site);
    // What the engine was told, by its own account.
    let image = "ancestor=mlwm-test/stubborn:latest";
    let id = docker(&["ps", "--quiet", "--filter", image]);
    let told = docker(&["inspect", "--format", "{{json .HostConfig}}", &id]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["PidsLimit"], 100);
    assert_eq!(told["LogConfig"]["Type"], "local");
    assert_eq!(told["LogConfig"]["Config"]["max-size"], "16m");
    let interrupt = Command::new("kill")
        .args(["-INT", &mlwm.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    let done = ran(&mlwm.wait_with_output().unwrap());
    done.expect(130, &["interrupted"]);
    site.expect_nothing_left();
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", image]), "");
}

#[test]
fn a_process_that_it_leaves_behind_ends_with_it() {
    // It keeps standard output open, and would spoil the forecast.
    let marker = format!("60{}", std::process::id());
    let script = format!(
        "setsid bash -c 'sleep 1; rm -r /out/surface.zarr/t2m; exec sleep {marker}' & {COPY}"
    );
    let site = scripted("leaves-a-daemon", &script, "");
    site.run("danra", &[]).expect(0, &["published"]);
    assert!(!runs(&format!("sleep {marker}")));
    oracle(
        "manifest.py",
        &[
            site.path("published/surface.zarr").to_str().unwrap(),
            site.path("published/surface.zarr.manifest.json")
                .to_str()
                .unwrap(),
        ],
    );
    no_container_left(&site);
}

#[test]
fn one_that_multiplies_is_held_at_its_number_of_processes_which_is_named() {
    // The shell tries again and again to make one more, until its time is over.
    let script = "for i in $(seq 100); do sleep 600 & done; wait";
    let more = "timeout: PT4S\nresources: {processes: 64}";
    let site = scripted("multiplies", script, more);
    fails(
        &site,
        22,
        &[
            "timeout of PT4S",
            "64 processes and threads, as many as it may",
            "resources.processes",
        ],
    );
}

#[test]
fn one_that_fails_for_want_of_processes_is_told_of_the_limit() {
    let script = "exec dash -c 'while :; do sleep 600 & done'";
    let site = scripted("wants-processes", script, "resources: {processes: 32}");
    fails(
        &site,
        20,
        &[
            "exit code 2",
            "Cannot fork",
            "32 processes",
            "resources.processes",
        ],
    );
}

#[test]
fn one_that_fills_memory_is_tried_again_as_often_as_is_said() {
    let script = "x=$(head -c 300m /dev/zero | tr '\\0' x); echo ${#x}";
    let more = "resources: {memory: 64MiB}\nretries: {out_of_memory: 1, delay: PT1S}";
    let site = scripted("memory-twice", script, more);
    fails(&site, 21, &["64MiB", "resources.memory"]);
    let status = ["status", "--analysis-time", "2022-04-07T03:00Z", "--json"];
    let status = site.mlwm(&status).json();
    let attempts = status["tasks"][0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{status}");
    for attempt in attempts {
        assert_eq!(attempt["exit_code"], 21);
        let error = attempt["error"].as_str().unwrap();
        assert!(error.contains("more memory than its 64MiB"), "{error}");
    }
}

#[test]
fn one_that_fills_memory_is_not_tried_again_unless_that_is_said() {
    let script = "x=$(head -c 300m /dev/zero | tr '\\0' x); echo ${#x}";
    let more = "resources: {memory: 64MiB}\nretries: 3";
    let site = scripted("memory-once", script, more);
    fails(&site, 21, &["64MiB"]);
    let status = ["status", "--analysis-time", "2022-04-07T03:00Z", "--json"];
    let status = site.mlwm(&status).json();
    assert_eq!(status["tasks"][0]["attempts"].as_array().unwrap().len(), 1);
}

#[test]
fn one_that_fills_tmp_is_told_how_large_it_is() {
    let script = "head -c 100M /dev/zero > /tmp/big || exit 4";
    let site = scripted("fills-tmp", script, "resources: {memory: 64MiB}");
    fails(&site, 20, &["exit code 4", "`/tmp` holds 32MiB"]);
}

#[test]
fn one_that_writes_more_than_it_said_is_killed() {
    let site = scripted("fills-output", FILLS, "resources: {disk: 64MiB}");
    fails(&site, 20, &["killed", "`resources.disk` of 64MiB"]);
}

/// I6, for images that write their output whole: what `--disk` says holds for them, too.
#[test]
fn one_that_says_nothing_writes_no_more_than_the_run_may_use() {
    let site = scripted("fills-disk", FILLS, "");
    let killed = ["killed", "more than `--disk` allows (64MiB"];
    site.run("danra", &["--disk", "64MiB"]).expect(20, &killed);
    site.expect_nothing_left();
    no_container_left(&site);
}

#[test]
fn what_one_wrote_before_it_failed_is_kept_if_that_is_wanted() {
    let script = "head -c 3M /dev/zero > /out/surface.zarr/part; exit 3";
    let site = scripted("fails-late", script, "");
    let kept = || site.files("mlwm-work/failed");
    let run = |quota| site.run("danra", &["--keep-failed", quota]);
    run("1MiB").expect(20, &["was removed", "`--keep-failed` of 1MiB"]);
    assert_eq!(kept(), [""; 0]);
    for _ in 0..2 {
        run("4MiB").expect(20, &["what it wrote is kept in"]);
        let file = "danra/2022-04-07T0300Z_member0/output/surface/part";
        assert_eq!(kept(), [file]);
    }
    let silent = scripted("fails-at-once", "exit 3", "");
    silent
        .run("danra", &["--keep-failed", "4MiB"])
        .expect(20, &["exit code 3"]);
    assert_eq!(silent.files("mlwm-work/failed"), [""; 0]);
    assert!(
        !silent.path("mlwm-work/failed").exists(),
        "it wrote nothing"
    );
    fails(&site, 20, &["exit code 3"]);
    assert_eq!(kept().len(), 1, "it stays until there must be room");
}

/// A small file system, as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: PathBuf, size: &str) -> Self {
        fs::create_dir(&folder).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&folder)
            .status();
        assert!(done.unwrap().success(), "this test mounts and needs root");
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn one_that_takes_the_disk_from_all_others_is_killed_before_it_is_full() {
    let site = scripted("fills-disk", FILLS, "retries: 0");
    let _small = Mounted::at(site.path("small"), "900m");
    let run = |free: &str| site.run("danra", &["--workdir", "small", "--keep-free", free]);
    let done = run("600MiB");
    done.expect(30, &["killed", "600MiB must stay free", "--keep-free"]);
    assert_eq!(site.files("small/tasks"), Vec::<String>::new());
    assert_eq!(site.files("published"), Vec::<String>::new());
    // And where there is too little before it begins, it does not.
    let done = run("1GiB");
    done.expect(30, &["1GiB must stay free", "no container was started"]);
    assert_eq!(site.files("small/log").len(), 1, "of the first");
    no_container_left(&site);
}

/// The most memory that a process used, in MiB, seen until it ends.
fn peak_memory(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = number.map_or(peak, |kilobytes| kilobytes / 1024);
        std::thread::sleep(Duration::from_millis(20));
    }
    peak
}

#[test]
fn of_one_that_prints_without_end_beginning_and_end_are_kept() {
    let script = "echo the beginning; line=$(printf 'x%.0s' $(seq 1000)); yes $line | head -c 100M; echo; echo the end; exit 3";
    let site = scripted("prints", script, "");
    // To a file: a pipe that nobody reads would hold mlwm up.
    let said = site.path("said");
    let mut mlwm = site
        .command(&["run", "--analysis-time", "2022-04-07T03:00Z"])
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let peak = peak_memory(&mut mlwm);
    assert_eq!(mlwm.wait().unwrap().code(), Some(20));
    assert!((1..200).contains(&peak), "{peak} MiB");
    let shown = fs::read_to_string(&said).unwrap();
    assert!(shown.contains("exit code 3") && shown.contains("the end"));
    for (name, text) in [
        ("log", fs::read_to_string(log(&site)).unwrap()),
        ("shown", shown),
    ] {
        assert!(text.contains("the beginning"), "{name}");
        assert!(text.contains("prints too much"), "{name}");
        let size = text.len() >> 20;
        assert!((30..40).contains(&size), "{name}: {size} MiB");
    }
    let text = fs::read_to_string(log(&site)).unwrap();
    assert!(text.ends_with("the end\n"));
    // All lines but the first, the cut one and the last are 1001 bytes long.
    let kept = text.lines().filter(|line| line.len() == 1000).count() as u64;
    let notice = text.lines().find(|line| line.contains("left out")).unwrap();
    let left_out: u64 = notice.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(kept + left_out, (100 << 20) / 1001);
    site.expect_nothing_left();
}

/// Every file below a folder, with its hash.
fn hashes(site: &Site, folder: &str) -> Vec<(String, String)> {
    let files = site.files(folder).into_iter();
    files
        .map(|file| {
            let hash = sha256(&site.path(folder).join(&file));
            (file, hash)
        })
        .collect()
}

#[test]
fn what_is_not_its_output_cannot_be_written() {
    let refused = |what: &str| format!("if {what}; then echo COULD; exit 9; fi; ");
    let script = [
        refused("echo {} > /in/surface.zarr/.zattrs"),
        refused("rm -rf /in/surface.zarr/t2m/0.0.0"),
        refused("chmod 777 /in/surface.zarr"),
        refused("touch /out/other.zarr"),
        refused("cat $NEIGHBOUR/here"),
        refused("mount -o remount,rw /in/surface.zarr"),
        refused("touch /usr/bin/here"),
        "exec touch /in/surface.zarr/here".to_owned(),
    ]
    .concat();
    let site = scripted("writes-elsewhere", &script, "");
    // The folder of another member, by its path on the host.
    let neighbour = site.path("mlwm-work/tasks/danra/2022-04-07T0300Z/member1/output/surface");
    fs::create_dir_all(&neighbour).unwrap();
    fs::write(neighbour.join("here"), "of another").unwrap();
    let yaml = site.path("configurations/danra/config.yaml");
    let text = fs::read_to_string(&yaml).unwrap();
    let more = format!("environment: {{NEIGHBOUR: {}}}\n", neighbour.display());
    fs::write(&yaml, text + &more).unwrap();

    let before = hashes(&site, "store");
    assert!(before.len() > 10, "{before:?}");
    let done = site.run("danra", &[]).expect(
        20,
        &[
            "exit code 1",
            "/in/surface.zarr/here",
            "Read-only file system",
            "it can write to its outputs and `/tmp` alone",
        ],
    );
    assert!(!done.stderr.contains("COULD"), "{}", done.stderr);
    assert_eq!(hashes(&site, "store"), before);
    assert_eq!(
        site.files("mlwm-work/tasks"),
        [only_file_below(&site, &neighbour)]
    );
    assert_eq!(site.files("published"), Vec::<String>::new());
    no_container_left(&site);
}

fn only_file_below(site: &Site, folder: &Path) -> String {
    let tasks = site.path("mlwm-work/tasks");
    let file = folder.join("here");
    file.strip_prefix(tasks).unwrap().display().to_string()
}

#[test]
fn what_it_made_hard_to_remove_is_removed() {
    // Nested deeper than mlwm may have files open here.
    let script =
        "cd /out/surface.zarr; mkdir -p $(printf 'd/%.0s' $(seq 1500)); chmod 0 d/d; exit 3";
    let site = scripted("nests", script, "");
    let mlwm = site.command(&["run", "--analysis-time", "2022-04-07T03:00Z"]);
    let mut limited = Command::new("prlimit");
    limited
        .arg("--nofile=256")
        .arg(mlwm.get_program())
        .args(mlwm.get_args());
    limited.current_dir(site.path("."));
    for (name, value) in mlwm.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let done = ran(&limited.output().unwrap()).expect(20, &["exit code 3"]);
    assert!(!done.stderr.contains("warning"), "{}", done.stderr);
    assert!(!site.path("mlwm-work/tasks/danra").exists());
    no_container_left(&site);
}

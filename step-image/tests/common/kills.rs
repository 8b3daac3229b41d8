//! Kills steps with SIGKILL, and looks at what they leave.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::{files, left_over, run, stderr};

/// How often a step is killed.
const KILLS: u32 = 8;
/// How many of the kills must have come while the step was running.
const IN_TIME: u32 = 2;
/// How often the kills are begun again, sooner or later, where the machine's speed has changed since it was measured.
const ROUNDS: u32 = 5;
/// What the steps say, where the killed one had come to its end after all.
const EXISTS_ALREADY: i32 = 31;

/// Files by their names, with what is in them.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What a step has in its folder while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnderWay {
    /// A part of what it writes: some kills must find one.
    Parts,
    /// Nothing until the end.
    Nothing,
}

/// What became of the kills.
#[derive(Debug)]
struct Kills {
    /// How many came while the step was running.
    in_time: u32,
    /// How many left something that was not all of it.
    parts: u32,
}

/// Kills a step at moments spread over the time that it takes undisturbed, and each time runs it again: then there
/// are the bytes of an undisturbed run, and nothing else. `step_into` is the command that writes into a folder: a
/// dataset called `out`, which is there as a whole or not at all, or files of other names.
pub(crate) fn kill_and_run_again(under_way: UnderWay, step_into: impl Fn(&Path) -> Command) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = scratch.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let (_, cold) = undisturbed(&step_into, &folder("cold"));
    let (whole, warm) = undisturbed(&step_into, &folder("warm"));
    let mut time = cold.min(warm);
    for _ in 0..ROUNDS {
        let mut kills = Kills {
            in_time: 0,
            parts: 0,
        };
        for number in 0..KILLS {
            let place = folder("killed");
            let after = time * (2 * number + 1) / (2 * KILLS);
            kill(&step_into, &place, after, &whole, &mut kills);
            std::fs::remove_dir_all(place).unwrap();
        }
        if kills.in_time >= IN_TIME && (kills.parts > 0 || under_way == UnderWay::Nothing) {
            return;
        }
        time = match kills.in_time {
            KILLS => time * 2,
            _ => time / 2,
        };
    }
    panic!("no kill came when it should, {under_way:?}, after {time:?} and other times");
}

/// Kills a step once, after so long, and runs it again.
fn kill(
    step_into: &impl Fn(&Path) -> Command,
    place: &Path,
    after: Duration,
    whole: &Files,
    kills: &mut Kills,
) {
    let mut command = step_into(place);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    kills.in_time += u32::from(was_killed(child.wait().unwrap()));
    let left = files(place);
    for (name, bytes) in &left {
        let is_whole = whole.get(name).is_none_or(|whole| whole == bytes);
        assert!(is_whole, "{} has its name and is not whole", name.display());
    }
    let of_dataset = |name: &&PathBuf| name.starts_with("out");
    let there = left.keys().filter(of_dataset).count();
    let all = whole.keys().filter(of_dataset).count();
    assert!(there == 0 || there == all, "{there} of {all} files");
    let is_part = !left_over(place).is_empty() || (!left.is_empty() && left != *whole);
    kills.parts += u32::from(is_part);

    let again = step_into(place).output().unwrap();
    let was_done = left == *whole && again.status.code() == Some(EXISTS_ALREADY);
    assert!(again.status.success() || was_done, "{}", stderr(&again));
    let found = files(place);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        whole.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &found {
        assert!(bytes == &whole[name], "{} differs", name.display());
    }
    assert!(left_over(place).is_empty());
}

/// Runs a step to its end; what it writes, and how long that takes.
fn undisturbed(step_into: &impl Fn(&Path) -> Command, folder: &Path) -> (Files, Duration) {
    let began = Instant::now();
    run(&mut step_into(folder));
    let time = began.elapsed();
    let files = files(folder);
    assert!(!files.is_empty(), "it wrote nothing");
    (files, time)
}

/// Starts the command, kills it as soon as it is time, and says whether it was running then.
pub(crate) fn kill_when(command: &mut Command, is_time: impl Fn() -> bool) -> bool {
    let mut child = command.spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        if is_time() {
            child.kill().unwrap();
            return was_killed(child.wait().unwrap());
        }
    }
}

/// Whether a process ended by SIGKILL; else it must have come to its end.
fn was_killed(status: ExitStatus) -> bool {
    match status.signal() {
        Some(9) => true,
        _ => {
            assert!(status.success(), "{status}");
            false
        }
    }
}

//! Files that are replaced, and programs that are killed, at any moment.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{copy_of_case, lengthen_checkpoint, request};
use mlwm_artifacts::{Artifact, build, prepare};
use mlwm_spec::Digest;

/// A checkpoint is replaced again and again by one that would run a command when it is loaded.
/// Whatever the moment, that one is not packed.
#[test]
fn what_was_not_inspected_is_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let request = request(&copy, folder.path());
    let path = request.checkpoint.clone().unwrap();
    let good = fs::read(&path).unwrap();
    let hostile = b"cos\nsystem\n(S'true'\ntR.";
    let stop = AtomicBool::new(false);
    // Each is there for about as long as a build takes.
    let began = Instant::now();
    prepare(&request)
        .unwrap()
        .write_to(&mut std::io::sink())
        .unwrap();
    let pause = began.elapsed() * 3 / 2;
    let put = |bytes: &[u8]| {
        let other = folder.path().join("other.ckpt");
        fs::write(&other, bytes).unwrap();
        fs::rename(&other, &path).unwrap();
    };
    let (mut packed, mut uninspected) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for bytes in [hostile, &*good] {
                    put(bytes);
                    thread::sleep(pause);
                }
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            let mut zip = Vec::new();
            if prepare(&request)
                .and_then(|packing| packing.write_to(&mut zip))
                .is_ok()
            {
                packed += 1;
                uninspected += usize::from(zip.windows(hostile.len()).any(|part| part == hostile));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(uninspected, 0, "of {packed}");
}

/// What a process that is killed does: [`child`] in a process of its own, for so long.
fn killed_after(time: Duration, task: &str, arguments: [&Path; 2]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child"])
        .env("MLWM_CHILD", task)
        .env("MLWM_CHILD_FROM", arguments[0])
        .env("MLWM_CHILD_TO", arguments[1])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "what the tests below run and kill"]
fn child() {
    let path = |name| PathBuf::from(std::env::var_os(name).unwrap_or_default());
    let (from, to) = (path("MLWM_CHILD_FROM"), path("MLWM_CHILD_TO"));
    match std::env::var("MLWM_CHILD").as_deref() {
        Ok("build") => drop(build(&request(&from, &to)).unwrap()),
        Ok("extract") => Artifact::open(&from).unwrap().extract_to(&to).unwrap(),
        _ => {}
    }
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_build_left_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let output = folder.path().join("out/a.zip");
    let request = request(&copy, &output);
    lengthen_checkpoint(&request, 60 << 20, true);
    let mut left = 0;
    for time in 0..12 {
        killed_after(
            Duration::from_millis(40 + 25 * time),
            "build",
            [&copy, &output],
        );
        let _ = fs::remove_file(&output);
        let _ = fs::remove_file(folder.path().join("out/a.provenance.yaml"));
        if folder.path().join("out").exists() {
            left = names(&folder.path().join("out")).len().max(left);
        }
    }
    assert_eq!(
        left, 1,
        "no build was killed while it wrote, or they left more than one"
    );
    let built = build(&request).unwrap();
    Artifact::open(&built.path).unwrap().verify().unwrap();
    assert_eq!(
        names(&folder.path().join("out")),
        ["a.provenance.yaml", "a.zip"]
    );
}

#[test]
fn a_killed_extraction_leaves_whole_files_and_the_next_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let request = request(&copy, &folder.path().join("a.zip"));
    lengthen_checkpoint(&request, 60 << 20, true);
    let zip = build(&request).unwrap().path;
    let artifact = Artifact::open(&zip).unwrap();
    let (new, there) = (folder.path().join("x/new"), folder.path().join("x/there"));
    for time in 0..20 {
        for target in [&new, &there] {
            if target == &there {
                fs::create_dir_all(target).unwrap();
            }
            killed_after(
                Duration::from_millis(4 + 8 * time),
                "extract",
                [&zip, target],
            );
            let mut whole = 0;
            for entry in artifact.files() {
                if let Ok(bytes) = fs::read(target.join(&entry.path)) {
                    assert_eq!(Some(Digest::of(bytes)), entry.sha256, "{}", entry.path);
                    whole += 1;
                }
            }
            assert!(target == &there || whole == 0 || whole == artifact.files().len());
            if time % 3 == 2 {
                artifact.extract_to(target).unwrap();
                assert_eq!(names(target), names_of_all(&artifact));
                fs::remove_dir_all(target).unwrap();
            }
        }
    }
    for target in [&new, &there] {
        artifact.extract_to(target).unwrap();
        assert_eq!(names(target), names_of_all(&artifact));
    }
    assert_eq!(names(&folder.path().join("x")), ["new", "there"]);
}

/// The names at the top.
fn names_of_all(artifact: &Artifact) -> Vec<String> {
    let tops = artifact.files().iter();
    let tops = tops.map(|file| file.path.split('/').next().unwrap().to_owned());
    let tops: BTreeSet<String> = tops.collect();
    tops.into_iter().collect()
}

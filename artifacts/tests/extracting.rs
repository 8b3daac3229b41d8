//! Unpacking: what is there already, what is damaged, what is called off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use common::{case, request};
use mlwm_artifacts::{Artifact, Error, prepare};
use mlwm_spec::ExitCode;

fn zip() -> Vec<u8> {
    let mut bytes = Vec::new();
    let packing = prepare(&request(&case(), Path::new("unused"))).unwrap();
    packing.write_to(&mut bytes).unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Artifact {
    Artifact::from_source(Arc::new(bytes.to_vec()), "a.zip").unwrap()
}

/// All files below a folder, with their node.
fn files(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            let below = files(&entry.path());
            found.extend(
                below
                    .into_iter()
                    .map(|(path, n)| (format!("{name}/{path}"), n)),
            );
        } else {
            found.insert(name, metadata.ino());
        }
    }
    found
}

fn expected(artifact: &Artifact) -> Vec<String> {
    let mut names: Vec<String> = artifact.files().iter().map(|f| f.path.clone()).collect();
    names.sort();
    names
}

#[test]
fn the_same_command_again_accepts_what_is_there() {
    let artifact = open(&zip());
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    artifact.extract_to(&target).unwrap();
    let first = files(&target);
    assert!(first.keys().eq(&expected(&artifact)));
    artifact.extract_to(&target).unwrap();
    assert_eq!(files(&target), first, "a file was replaced");

    fs::remove_file(target.join("checkpoint.onnx")).unwrap();
    fs::write(target.join("notes.txt"), "mine").unwrap();
    artifact.extract_to(&target).unwrap();
    let third = files(&target);
    assert_eq!(third.len(), first.len() + 1);
    assert_eq!(third["configs/config.yaml"], first["configs/config.yaml"]);

    // Before anything is unpacked.
    fs::remove_file(target.join("checkpoint.onnx")).unwrap();
    let config = target.join("training_cli_args.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.to_uppercase()).unwrap();
    let error = artifact.extract_to(&target).unwrap_err();
    assert!(
        matches!(&error, Error::InTheWay { path } if *path == config),
        "{error}"
    );
    assert!(!target.join("checkpoint.onnx").exists());
    assert_eq!(fs::read_to_string(&config).unwrap(), text.to_uppercase());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn nothing_of_a_damaged_artifact_gets_a_name() {
    let mut bytes = zip();
    let place = bytes
        .windows(22)
        .position(|part| part == b"training_cli_args.yaml")
        .unwrap();
    bytes[place + 40] ^= 1;
    let artifact = open(&bytes);
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there");
    fs::create_dir(&there).unwrap();
    for target in [folder.path().join("deep/new"), there.clone()] {
        let error = artifact.extract_to(&target).unwrap_err();
        assert!(matches!(error, Error::Hash { .. }), "{error}");
        assert_eq!(files(folder.path()), BTreeMap::new());
    }
    assert!(!folder.path().join("deep/new").exists() && there.exists());
}

#[test]
fn what_is_called_off_goes_on_from_there() {
    let artifact = open(&zip());
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().join("there");
    fs::create_dir(&there).unwrap();
    for (target, place) in [
        (
            folder.path().join("new"),
            folder.path().join(".new.extracting"),
        ),
        (there.clone(), there.join(".extracting")),
    ] {
        let asked = Cell::new(0);
        let stop_at = |count| {
            asked.set(0);
            move |asked: &Cell<u32>| {
                asked.set(asked.get() + 1);
                asked.get() > count
            }
        };
        let stopped = stop_at(7);
        let error = artifact
            .extract_unless(&target, &[], &|| stopped(&asked))
            .unwrap_err();
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        assert_eq!(error.exit_code(), ExitCode::Interrupted);
        let kept = files(&place.join("files"));
        assert!(kept.len() > 2, "{kept:?}");
        assert_eq!(
            files(&target)
                .keys()
                .filter(|name| !name.starts_with(".extr"))
                .count(),
            0
        );

        // What a crash left of a file, and what is there from another artifact.
        let staged = place.join("files");
        let whole = staged.join("checkpoint.onnx");
        fs::write(staged.join("checkpoint.pkl"), "cut").unwrap();
        fs::create_dir_all(staged.join("stats/other")).unwrap();
        fs::write(staged.join("stats/other/zarr.json"), "{}").unwrap();
        assert!(whole.exists());
        artifact.extract_to(&target).unwrap();
        let unpacked = files(&target);
        assert!(unpacked.keys().eq(&expected(&artifact)), "{unpacked:?}");
        assert_eq!(
            unpacked["checkpoint.onnx"], kept["checkpoint.onnx"],
            "unpacked again"
        );
        let checkpoint = artifact.read("checkpoint.pkl", u64::MAX).unwrap();
        assert!(fs::read(target.join("checkpoint.pkl")).unwrap() == checkpoint);
        assert!(!place.exists());
    }
    let mut stopped = folder.path().join("only");
    let only = ["configs".to_owned()];
    artifact
        .extract_unless(&stopped, &[], &|| true)
        .unwrap_err();
    artifact.extract_unless(&stopped, &only, &|| false).unwrap();
    stopped.push("configs");
    assert_eq!(
        files(&stopped).len(),
        files(stopped.parent().unwrap()).len()
    );
}

#[test]
fn two_at_once_do_not_mix() {
    let artifact = open(&zip());
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    let seen = Cell::new(0);
    let other = || {
        if seen.replace(seen.get() + 1) == 0 {
            let error = artifact.extract_to(&target).unwrap_err();
            assert!(matches!(error, Error::Busy { .. }), "{error}");
        }
        false
    };
    artifact.extract_unless(&target, &[], &other).unwrap();
    assert!(files(&target).keys().eq(&expected(&artifact)));

    // Somebody else makes the folder meanwhile.
    let target = folder.path().join("late");
    let meanwhile = || {
        fs::create_dir_all(target.join("configs")).unwrap();
        fs::write(target.join("configs/mine"), "").unwrap();
        false
    };
    artifact.extract_unless(&target, &[], &meanwhile).unwrap();
    assert_eq!(files(&target).len(), expected(&artifact).len() + 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

//! Folders of unpacked artifacts that are right, changed, short of a file or have one more.

use std::fs::{FileTimes, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::{BuildRequest, build};

/// An artifact, unpacked into `folder`.
struct Place {
    scratch: TempDir,
    artifact: Artifact,
}

impl Place {
    fn new() -> Self {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
        let scratch = tempfile::tempdir().unwrap();
        let built = build(&BuildRequest {
            name: "tiny".into(),
            nl_config: Some(case.join("train/config.yaml")),
            configs: Vec::new(),
            training_args: Some(case.join("train/training_cli_args.yaml")),
            onnx: Some(case.join("onnx/graph_lam.onnx")),
            interface: Some(case.join("onnx/graph_lam.json")),
            output: scratch.path().join("model.zip"),
            ..BuildRequest::default()
        });
        let artifact = Artifact::open(&built.unwrap().path).unwrap();
        let place = Self { scratch, artifact };
        place.unpack();
        place
    }

    fn unpack(&self) {
        let unpacked = self
            .artifact
            .unpack_into(&self.folder(), &self.receipts(), &|| false);
        unpacked.unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path().join("unpacked")
    }

    fn receipts(&self) -> Receipts {
        Receipts::at(self.scratch.path().join("receipts"))
    }

    fn file(&self) -> PathBuf {
        self.folder().join("checkpoint.onnx")
    }

    fn is_right(&self, receipts: &Receipts) -> bool {
        let found = self.artifact.is_unpacked_in(&self.folder(), receipts);
        found.unwrap()
    }

    /// Whether all is right, with and without receipts.
    #[track_caller]
    fn expect(&self, right: bool) {
        assert_eq!(self.is_right(&self.receipts()), right, "with receipts");
        assert_eq!(self.is_right(&Receipts::paranoid()), right, "without");
    }

    /// Flips a bit of the model. Permissions do not stop the owner for long.
    fn flip(&self) {
        let path = self.file();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let (file, mut byte) = (file.unwrap(), [0]);
        file.read_exact_at(&mut byte, 1000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 1000).unwrap();
    }

    /// Makes the receipt say that the files as they are now are right.
    fn forge(&self) {
        let files = states(&self.folder()).unwrap().unwrap();
        let index = self.artifact.index();
        let forged = Receipt { index, files };
        self.receipts().note_folder(&self.folder(), &forged);
    }
}

#[test]
fn what_was_unpacked_is_whole_read_only_and_has_a_receipt() {
    let place = Place::new();
    place.expect(true);
    let found = states(&place.folder()).unwrap().unwrap();
    assert_eq!(found.len(), place.artifact.files().len());
    for name in found.keys() {
        let path = place.folder().join(name);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444, "{name}");
    }
    let receipt: Receipt = place.receipts().of_folder(&place.folder()).unwrap();
    assert_eq!(receipt.files, found);

    // Who believes a receipt does not hash.
    place.flip();
    place.forge();
    assert!(place.is_right(&place.receipts()));
    assert!(!place.is_right(&Receipts::paranoid()));
}

#[test]
fn a_changed_file_is_found_though_size_and_mtime_are_as_before() {
    let place = Place::new();
    let was = fs::metadata(place.file()).unwrap().modified().unwrap();
    place.flip();
    let file = OpenOptions::new().write(true).open(place.file()).unwrap();
    file.set_times(FileTimes::new().set_modified(was)).unwrap();
    assert_eq!(fs::metadata(place.file()).unwrap().modified().unwrap(), was);
    place.expect(false);
    // Back to what it was: hashed, and known again.
    place.flip();
    place.expect(true);
    let receipt: Receipt = place.receipts().of_folder(&place.folder()).unwrap();
    assert_eq!(receipt.files, states(&place.folder()).unwrap().unwrap());
}

#[test]
fn a_file_more_or_less_or_of_another_kind_is_found() {
    let place = Place::new();
    let extra = place.folder().join("stats/extra");
    fs::write(&extra, b"").unwrap();
    place.expect(false);
    fs::remove_file(&extra).unwrap();
    place.expect(true);

    let aside = place.scratch.path().join("aside");
    fs::rename(place.file(), &aside).unwrap();
    place.expect(false);
    std::os::unix::fs::symlink(&aside, place.file()).unwrap();
    place.expect(false);
    fs::remove_file(place.file()).unwrap();
    fs::write(place.file(), b"short").unwrap();
    place.expect(false);
    fs::rename(&aside, place.file()).unwrap();
    place.expect(true);

    fs::rename(place.folder(), &aside).unwrap();
    place.expect(false);
    std::os::unix::fs::symlink(&aside, place.folder()).unwrap();
    place.expect(false);
}

#[test]
fn without_a_receipt_all_is_hashed_and_then_known() {
    let place = Place::new();
    fs::remove_dir_all(place.scratch.path().join("receipts")).unwrap();
    assert!(place.is_right(&Receipts::paranoid()));
    let receipt = || place.receipts().of_folder::<Receipt>(&place.folder());
    assert!(receipt().is_none(), "paranoid writes none");
    assert!(place.is_right(&place.receipts()));
    assert!(receipt().is_some());
}

#[test]
fn what_was_called_off_leaves_no_folder_and_is_taken_up() {
    let place = Place::new();
    fs::remove_dir_all(place.folder()).unwrap();
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) >= 3;
    let stopped = place
        .artifact
        .unpack_into(&place.folder(), &place.receipts(), &stop);
    assert!(matches!(stopped, Err(Error::Interrupted { .. })));
    assert!(!place.folder().exists());
    place.expect(false);
    place.unpack();
    place.expect(true);
    let left = fs::read_dir(place.scratch.path()).unwrap();
    let names: Vec<_> = left
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

//! Receipts that are right, wrong, forged, torn, out of date and in the way.

use std::cell::Cell;
use std::fs::{FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::{BuildRequest, build};

/// A file, and a folder for receipts that does not exist yet.
struct Place(TempDir);

impl Place {
    fn with(bytes: &[u8]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.file(), bytes).unwrap();
        place
    }

    /// A file on another file system than the receipts.
    fn elsewhere(bytes: &[u8]) -> Option<Self> {
        let place = Self(tempfile::tempdir_in("/dev/shm").ok()?);
        fs::write(place.file(), bytes).unwrap();
        Some(place)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("file")
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("cache/receipts")
    }

    fn receipts(&self) -> Receipts {
        Receipts::at(self.folder())
    }

    fn digest(&self) -> Digest {
        self.receipts().digest(&self.file()).unwrap()
    }

    fn note(&self) -> PathBuf {
        note(&self.folder(), &self.file()).unwrap()
    }

    /// Puts another digest into the receipt: who believes it, used the receipt.
    fn forge(&self) -> Digest {
        let forged = Digest::of("forged");
        let mut receipt: Receipt = serde_json::from_slice(&fs::read(self.note()).unwrap()).unwrap();
        receipt.digest = forged;
        fs::write(self.note(), serde_json::to_vec(&receipt).unwrap()).unwrap();
        forged
    }
}

/// Until everything that is there now is old enough for a receipt of a file whose clock is not known.
fn settle() {
    thread::sleep(Duration::from_millis(2100));
}

#[test]
fn a_file_that_is_as_it_was_is_not_hashed_again() {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 7) as u8).collect();
    let place = Place::with(&bytes);
    assert_eq!(place.digest(), Digest::of(&bytes));
    let forged = place.forge();
    assert_eq!(place.digest(), forged);
    let relative = Path::new("/tmp/..").join(place.file().strip_prefix("/").unwrap());
    assert_eq!(
        place.receipts().digest(&relative).unwrap(),
        Digest::of(&bytes),
        "another path has a receipt of its own"
    );

    let text = fs::read_to_string(place.note()).unwrap();
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = fields.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["device", "inode", "size", "mtime_ns", "ctime_ns", "digest"]
    );
    let mode = fs::metadata(place.folder()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn hashing_begins_in_a_later_tick_than_the_last_change() {
    // Each change may come in the tick of the hash before it.
    let place = Place::with(b"0");
    for turn in 1..100u32 {
        let bytes = turn.to_string();
        let mut file = OpenOptions::new().write(true).open(place.file()).unwrap();
        file.write_all(bytes.as_bytes()).unwrap();
        assert_eq!(place.digest(), Digest::of(&bytes), "{turn}");
        assert!(place.note().exists(), "{turn}");
    }
}

#[test]
fn a_young_file_on_another_file_system_gets_no_receipt() {
    let Some(place) = Place::elsewhere(b"young") else {
        return;
    };
    let home = Place::with(b"");
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    if device(home.0.path()) == device(place.0.path()) {
        return;
    }
    let digest = || home.receipts().digest(&place.file()).unwrap();
    let note = note(&home.folder(), &place.file()).unwrap();
    assert_eq!(digest(), Digest::of("young"));
    assert!(!note.exists());
    settle();
    assert_eq!(digest(), Digest::of("young"));
    assert!(note.exists());
}

#[test]
fn what_has_just_been_written_and_checked_is_not_read_again() {
    let place = Place::with(b"bytes");
    place.receipts().note(&place.file(), Digest::of("as told"));
    assert_eq!(place.digest(), Digest::of("as told"));
    fs::write(place.file(), b"other").unwrap();
    assert_eq!(place.digest(), Digest::of("other"));
    Receipts::paranoid().note(&place.file(), Digest::of("as told"));
    assert_eq!(place.digest(), Digest::of("other"));
    let absent = place.0.path().join("absent");
    place.receipts().note(&absent, Digest::of("as told"));
    assert!(place.receipts().digest(&absent).is_err());
}

#[test]
fn the_use_of_a_receipt_is_noted_once_a_day() {
    let place = Place::with(b"bytes");
    place.digest();
    let set = |age: Duration| {
        let file = OpenOptions::new().write(true).open(place.note()).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    let age = || {
        let modified = fs::metadata(place.note()).unwrap().modified().unwrap();
        modified.elapsed().unwrap()
    };
    set(NOTED_AS_USED * 3);
    place.digest();
    assert!(age() < NOTED_AS_USED / 2);
    set(NOTED_AS_USED / 2);
    place.digest();
    assert!(age() >= NOTED_AS_USED / 2);
}

#[test]
fn a_change_is_seen_though_size_and_mtime_are_as_before() {
    let place = Place::with(b"before");
    assert_eq!(place.digest(), Digest::of("before"));
    let was = fs::metadata(place.file()).unwrap();

    let mut file = OpenOptions::new().write(true).open(place.file()).unwrap();
    file.write_all(b"behind").unwrap();
    let times = FileTimes::new().set_modified(was.modified().unwrap());
    file.set_times(times).unwrap();
    let is = fs::metadata(place.file()).unwrap();
    assert_eq!(
        (is.ino(), is.size(), is.modified().unwrap()),
        (was.ino(), was.size(), was.modified().unwrap())
    );
    assert_eq!(place.digest(), Digest::of("behind"));
}

#[test]
fn a_file_in_place_of_another_is_hashed() {
    let place = Place::with(b"before");
    let other = place.0.path().join("other");
    fs::write(&other, b"behind").unwrap();
    assert_eq!(place.digest(), Digest::of("before"));
    let modified = fs::metadata(place.file()).unwrap().modified().unwrap();
    let times = FileTimes::new().set_modified(modified);
    OpenOptions::new()
        .write(true)
        .open(&other)
        .and_then(|file| file.set_times(times))
        .unwrap();
    fs::rename(&other, place.file()).unwrap();
    assert_eq!(place.digest(), Digest::of("behind"));

    // The same inode in another receipt's words: each of the five counts.
    place.digest();
    place.forge();
    let text = fs::read(place.note()).unwrap();
    for field in ["device", "inode", "size", "mtime_ns", "ctime_ns"] {
        let mut receipt: serde_json::Value = serde_json::from_slice(&text).unwrap();
        receipt[field] = (receipt[field].as_i64().unwrap() + 1).into();
        fs::write(place.note(), receipt.to_string()).unwrap();
        assert_eq!(place.digest(), Digest::of("behind"), "{field}");
    }
}

#[test]
fn paranoid_believes_no_receipt_and_writes_none() {
    let place = Place::with(b"bytes");
    place.digest();
    let forged = place.forge();
    let paranoid = Receipts::paranoid();
    let found = paranoid.digest(&place.file()).unwrap();
    assert_eq!(found, Digest::of("bytes"));
    assert_eq!(place.digest(), forged);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_no_error() {
    let place = Place::with(b"bytes");
    let below_file = Receipts::at(place.file().join("receipts"));
    assert_eq!(
        below_file.digest(&place.file()).unwrap(),
        Digest::of("bytes")
    );
    // Also for those whom permissions do not stop.
    let nowhere = Receipts::at("/proc/receipts");
    assert_eq!(nowhere.digest(&place.file()).unwrap(), Digest::of("bytes"));
}

#[test]
fn a_folder_that_others_may_write_to_is_not_believed() {
    let place = Place::with(b"bytes");
    place.digest();
    let forged = place.forge();
    let allow = |mode| fs::set_permissions(place.folder(), Permissions::from_mode(mode));
    for mode in [0o770, 0o702] {
        allow(mode).unwrap();
        assert_eq!(place.digest(), Digest::of("bytes"), "{mode:o}");
        allow(0o700).unwrap();
        place.forge();
    }
    allow(0o755).unwrap();
    assert_eq!(place.digest(), forged);
}

#[test]
fn what_is_no_receipt_is_replaced() {
    let place = Place::with(b"bytes");
    place.digest();
    let right = fs::read_to_string(place.note()).unwrap();
    let torn = &right[..right.len() / 2];
    let other = right.replace("sha256:", "md5:");
    for garbage in ["", "{}", "null", "\u{0}\u{0}", torn, &other] {
        fs::write(place.note(), garbage).unwrap();
        assert_eq!(place.digest(), Digest::of("bytes"), "{garbage:?}");
        assert_eq!(fs::read_to_string(place.note()).unwrap(), right);
    }
}

#[test]
fn many_write_one_receipt() {
    let place = Place::with(&[7; 100_000]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(place.digest(), Digest::of([7; 100_000]));
                    let _ = fs::remove_file(place.note());
                }
            });
        }
    });
    place.digest();
    let left: Vec<_> = fs::read_dir(place.folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, [place.note()]);
    let forged = place.forge();
    assert_eq!(place.digest(), forged);
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_hashed_again() {
    let place = Place::with(b"a");
    let file = File::open(place.file()).unwrap();
    let append = || {
        let mut file = OpenOptions::new().append(true).open(place.file()).unwrap();
        file.write_all(b"b").unwrap();
    };
    let times = Cell::new(0);
    let receipt = hash_unchanged(&file, |file| {
        let digest = hash(file);
        if times.replace(times.get() + 1) == 0 {
            append();
        }
        digest
    });
    assert_eq!(receipt.unwrap().digest, Digest::of("ab"));
    assert_eq!(times.get(), 2);

    let error = hash_unchanged(&file, |file| {
        append();
        hash(file)
    });
    assert!(error.unwrap_err().to_string().contains("it changed"));
}

#[test]
fn what_is_no_file_is_refused() {
    let place = Place::with(b"bytes");
    let refused = |path: &Path| place.receipts().digest(path).unwrap_err().to_string();
    assert!(refused(place.0.path()).contains("not a regular file"));
    assert!(refused(&place.0.path().join("absent")).contains("it is not there"));
    let folder = place.receipts().open(place.0.path());
    assert!(matches!(folder, Err(Error::NotAFile { .. })));
}

#[test]
fn an_artifact_knows_the_digest_of_its_receipt() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
    let place = Place(tempfile::tempdir().unwrap());
    let built = build(&BuildRequest {
        name: "tiny".into(),
        nl_config: Some(case.join("train/config.yaml")),
        configs: Vec::new(),
        training_args: Some(case.join("train/training_cli_args.yaml")),
        onnx: Some(case.join("onnx/graph_lam.onnx")),
        interface: Some(case.join("onnx/graph_lam.json")),
        output: place.0.path().join("model.zip"),
        ..BuildRequest::default()
    })
    .unwrap();
    fs::rename(&built.path, place.file()).unwrap();
    let digest = |receipts: &Receipts| {
        let artifact = receipts.open(&place.file()).unwrap();
        assert_eq!(artifact.name(), "tiny");
        assert!(artifact.interface().unwrap().is_some());
        artifact.digest().unwrap()
    };
    assert_eq!(digest(&place.receipts()), built.digest);
    let forged = place.forge();
    assert_eq!(digest(&place.receipts()), forged);
    assert_eq!(digest(&Receipts::paranoid()), built.digest);
}

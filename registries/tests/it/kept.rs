//! What is kept beside the artifacts: unpacked artifacts, made once and verified; bases, digests and
//! receipts; all of it listed, and removed when it is not used.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlwm_artifacts::{Artifact, Receipts};
use mlwm_registries::{
    Cache, Error, KeptKind, PruneRequest, Unpacked, UnpackedArtifact, hold_kept,
};
use mlwm_spec::Digest;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::common::zip;

/// The folder `mlwm` of a machine, and a zip.
struct Home {
    scratch: TempDir,
    zip: PathBuf,
    digest: Digest,
}

impl Home {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let from = zip(1);
        let path = scratch.path().join("model.zip");
        fs::copy(from, &path).unwrap();
        let digest = Artifact::open(&path).unwrap().digest().unwrap();
        Self {
            scratch,
            zip: path,
            digest,
        }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.scratch.path().join("mlwm").join(relative)
    }

    fn unpacked(&self, receipts: Receipts) -> Unpacked {
        Unpacked::at(self.path("unpacked"), receipts)
    }

    async fn get(&self) -> Result<UnpackedArtifact, Error> {
        let unpacked = self.unpacked(Receipts::at(self.path("receipts")));
        let cancel = CancellationToken::new();
        unpacked.get(&self.zip, self.digest, &cancel).await
    }

    fn cache(&self) -> Cache {
        Cache::at(self.path("artifacts")).with_kept(self.path(""))
    }

    /// Sets back when something was last used.
    fn age(&self, relative: &str, age: Duration) {
        let file = File::open(self.path(relative)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const ALL: PruneRequest = PruneRequest {
    unused_for: None,
    keep_bytes: Some(0),
    dry_run: false,
};

/// Inode of a folder: that of another one in its place is another.
fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// The largest file below the folder of an unpacked artifact, with a flipped bit.
fn damage(folder: &Path) {
    let path = folder.join("artifact.yaml");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 5).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_unpack_once() {
    let home = Home::new();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            // Each with locks of its own, as processes have.
            let unpacked = home.unpacked(Receipts::at(home.path("receipts")));
            let (zip, digest) = (home.zip.clone(), home.digest);
            tokio::spawn(async move {
                let got = unpacked.get(&zip, digest, &CancellationToken::new()).await;
                let path = got.unwrap().path;
                (inode(&path), path)
            })
        })
        .collect();
    let mut got = Vec::new();
    for task in tasks {
        got.push(task.await.unwrap());
    }
    got.dedup();
    assert_eq!(got.len(), 1, "{got:?}");
    let (_, path) = &got[0];
    assert_eq!(path.file_name().unwrap(), home.digest.hex().as_str());
    // As another program unpacks it.
    let oracle = home.scratch.path().join("oracle");
    let unzip = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])";
    let python = std::process::Command::new("python3")
        .args(["-c", unzip])
        .args([&home.zip, &oracle])
        .status();
    assert!(python.unwrap().success());
    let diff = std::process::Command::new("diff")
        .arg("--recursive")
        .args([path, &oracle])
        .status();
    assert!(diff.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_folder_is_made_anew_from_a_zip_that_is_right() {
    let home = Home::new();
    let path = home.get().await.unwrap().path;
    let first = inode(&path);
    drop(home.get().await.unwrap());
    assert_eq!(inode(&path), first, "what is right stays");
    damage(&path);
    // As long as it is open, no other file gets its number.
    let _open = fs::File::open(&path).unwrap();
    let held = home.get().await.unwrap();
    assert_ne!(inode(&held.path), first);
    let artifact = Artifact::open(&home.zip).unwrap();
    let right = artifact.is_unpacked_in(&held.path, &Receipts::paranoid());
    assert!(right.unwrap());
    drop(held);

    // Another zip under the same name is not unpacked in its place.
    damage(&path);
    fs::copy(zip(2), &home.zip).unwrap();
    let error = home.get().await.unwrap_err();
    assert!(matches!(error, Error::Replaced { .. }), "{error}");
    assert_eq!(error.exit_code().number(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_stays_and_what_is_not_goes() {
    let home = Home::new();
    let held = home.get().await.unwrap();
    let base = home.path(&format!("bases/{}", Digest::of("base").hex()));
    let base_lock = hold_kept(&base).await.unwrap();
    fs::create_dir_all(base.join("blobs")).unwrap();
    fs::write(base.join("blobs/layer"), [0; 1000]).unwrap();
    fs::create_dir_all(home.path("layers")).unwrap();
    for note in ["a", "b"] {
        fs::write(home.path(&format!("layers/{note}.json")), "\"sha256:\"").unwrap();
    }
    let cache = home.cache();
    let kept = cache.kept().unwrap();
    let kinds: Vec<(KeptKind, u64)> = kept.iter().map(|one| (one.kind, one.number)).collect();
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    for expected in [
        (KeptKind::Unpacked, 1),
        (KeptKind::Bases, 1),
        (KeptKind::Layers, 2),
        (KeptKind::Receipts, 2),
    ] {
        assert!(kinds.contains(&expected), "{kinds:?}");
    }
    let size = |kind| kept.iter().find(|one| one.kind == kind).unwrap().size;
    assert_eq!(size(KeptKind::Bases), 1000);
    let files = Artifact::open(&home.zip).unwrap();
    let unpacked: u64 = files.files().iter().map(|file| file.size).sum();
    assert_eq!(size(KeptKind::Unpacked), unpacked);

    // By age, first only as a rehearsal.
    home.age("layers/a.json", DAY * 40);
    let old = PruneRequest {
        unused_for: Some(DAY * 30),
        keep_bytes: None,
        dry_run: true,
    };
    for dry_run in [true, false] {
        let request = PruneRequest { dry_run, ..old };
        let pruned = cache.prune(request).await.unwrap();
        assert_eq!(pruned.removed_kept.len(), 1);
        assert_eq!(pruned.removed_kept[0].number, 1);
        assert_eq!(home.path("layers/a.json").exists(), dry_run);
    }

    // All of it, but for what is in use.
    let pruned = cache.prune(ALL).await.unwrap();
    assert_eq!(pruned.in_use_kept.len(), 2, "{pruned:?}");
    assert!(held.path.join("artifact.yaml").exists() && base.join("blobs/layer").exists());
    assert!(!home.path("layers/b.json").exists());
    drop((held, base_lock));
    let pruned = cache.prune(ALL).await.unwrap();
    assert_eq!(pruned.removed_kept.len(), 2, "{pruned:?}");
    assert_eq!(pruned.freed_bytes, unpacked + 1000);
    for kind in KeptKind::ALL {
        let left: Vec<_> = fs::read_dir(home.path(kind.as_str()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // And it is made again.
    home.get().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_processes_left_goes_after_a_day() {
    let home = Home::new();
    let hex = home.digest.hex();
    for left in [
        format!("unpacked/.{hex}.extracting"),
        "unpacked/.removing-abc".to_owned(),
        "bases/.saving-abc".to_owned(),
    ] {
        fs::create_dir_all(home.path(&left)).unwrap();
        fs::write(home.path(&left).join("file"), [0; 10]).unwrap();
        assert!(home.cache().prune(ALL).await.unwrap().unfinished.is_empty());
        home.age(&left, DAY * 2);
        let pruned = home.cache().prune(ALL).await.unwrap();
        assert_eq!(pruned.unfinished, [home.path(&left)]);
        assert_eq!(pruned.freed_bytes, 10);
        assert!(!home.path(&left).exists());
    }
}

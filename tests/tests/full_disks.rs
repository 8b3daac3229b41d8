//! Disks that are full: of the ledger, the store, the working folder. What can go on goes on; what
//! cannot says why, leaves nothing that could be taken for a forecast, and continues when there is
//! room. The small disks are file systems in memory, so that these tests need root.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mlwm_tests::scripted::scripted;
use mlwm_tests::site::{Ran, Site};

const TIME: &str = "2022-04-07T03:00Z";
const RUN: [&str; 3] = ["run", "--analysis-time", TIME];
const COPIES: &str = "cp -r /in/surface.zarr/. /out/surface.zarr/";
const PUBLISHED: &str = "published/surface.zarr";

/// A file system of its own, unmounted when dropped: after the test, whether it went well or not.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// In a folder of a site, which is made, with room for `size`, such as `64k`.
    fn new(site: &Site, folder: &str, size: &str) -> Self {
        Self::with(site, folder, &format!("size={size}"))
    }

    fn with(site: &Site, folder: &str, options: &str) -> Self {
        let folder = site.path(folder);
        fs::create_dir_all(&folder).unwrap();
        let disk = Self { folder };
        disk.mount(options);
        disk
    }

    fn mount(&self, options: &str) {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&self.folder)
            .status()
            .unwrap();
        assert!(
            done.success(),
            "this test mounts a file system and needs root"
        );
    }

    /// Gives it room.
    fn grow(&self) {
        self.mount("remount,size=16m,nr_inodes=10k");
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.folder.join("filler")).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
        let error = file.write_all(&[1; 4096]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.folder)
            .status();
    }
}

/// A site whose ledger lies in the folder `small`.
fn with_ledger_in_small(name: &str, script: &str) -> (Site, SmallDisk) {
    let site = scripted(name, script, "retries: 0\ntimeout: PT2M\n");
    let disk = SmallDisk::new(&site, "small", "256k");
    fs::create_dir(site.path("mlwm-work")).unwrap();
    let ledger = site.path("small").canonicalize().unwrap();
    let link = site.path("mlwm-work/ledger.sqlite");
    std::os::unix::fs::symlink(ledger.join("ledger.sqlite"), link).unwrap();
    (site, disk)
}

/// What the ledger says of the one task.
fn state(site: &Site) -> serde_json::Value {
    let status = ["status", "--analysis-time", TIME, "--json"];
    site.mlwm(&status).expect(0, &[]).json()["tasks"][0]["state"].clone()
}

fn logs(site: &Site) -> usize {
    site.files("mlwm-work/log").len()
}

#[track_caller]
fn same_as_the_model_made(site: &Site) {
    let made = site.files("store/single_levels.zarr");
    assert_eq!(site.files(PUBLISHED), made);
    for file in made {
        let of = |folder: &str| fs::read(site.path(folder).join(&file)).unwrap();
        assert!(of(PUBLISHED) == of("store/single_levels.zarr"), "{file}");
    }
    site.mlwm(&["verify", PUBLISHED])
        .expect(0, &["all as published"]);
}

/// Nothing that a reader could open: no manifest, and no metadata of the whole dataset.
#[track_caller]
fn nothing_to_be_seen(site: &Site) {
    site.mlwm(&["verify", PUBLISHED])
        .expect(11, &["no manifest"]);
    let root = |file: &&String| {
        matches!(
            file.as_str(),
            "surface.zarr.manifest.json"
                | "surface.zarr/.zmetadata"
                | "surface.zarr/.zgroup"
                | "surface.zarr/zarr.json"
        )
    };
    let files = site.files("published");
    assert_eq!(files.iter().find(root), None);
}

/// Every claim was let go: the next mlwm need not find out that somebody died.
#[track_caller]
fn no_claim_held(site: &Site) {
    for claim in site.files("mlwm-work/claims") {
        let text = fs::read_to_string(site.path("mlwm-work/claims").join(&claim)).unwrap();
        assert!(
            text.is_empty() || text.contains("\"released\":true"),
            "{claim}: {text}"
        );
    }
}

#[test]
fn a_ledger_for_which_there_is_no_room_does_not_stop_a_forecast() {
    let (site, disk) = with_ledger_in_small("full-ledger", COPIES);
    disk.fill();
    let done = site.mlwm(&RUN);
    done.expect(0, &["published", "ledger.sqlite", "make room"]);
    same_as_the_model_made(&site);
    no_claim_held(&site);
    // With room it says what it finds, and nothing is done again.
    disk.grow();
    let again = site.mlwm(&RUN).expect(0, &["already published"]);
    assert!(!again.stdout.contains("ledger"), "{}", again.stdout);
    assert_eq!(state(&site), "published");
    assert_eq!(logs(&site), 1);
}

#[test]
fn a_ledger_whose_disk_fills_up_during_a_run_does_not_stop_a_forecast() {
    let wait = "echo begun; while [ ! -e /in/surface.zarr/go ]; do sleep 0.1; done";
    let (site, disk) = with_ledger_in_small(
        "filled-ledger",
        &format!("{wait}; {COPIES}; rm /out/surface.zarr/go"),
    );
    let run = site
        .command(&RUN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let staged = site
        .path("mlwm-work/tasks/danra/2022-04-07T0300Z/member0/input/surface/go")
        .to_owned();
    wait_for(|| logs(&site) == 1);
    disk.fill();
    File::create(staged).unwrap();
    let done = mlwm_tests::site::ran(&run.wait_with_output().unwrap());
    done.expect(0, &["published", "cannot", "ledger.sqlite", "make room"]);
    // It can be read nevertheless, and knows of the attempt whose end could not be written.
    let status = site.mlwm(&["status", "--json"]).expect(0, &[]).json();
    let cell = status["cycles"][0]["cells"]["danra"].clone();
    let known = [
        serde_json::json!({"running": 1}),
        serde_json::json!({"lost": 1}),
    ];
    assert!(known.contains(&cell), "{cell}");
    disk.grow();
    site.mlwm(&RUN).expect(0, &["already published"]);
    assert_eq!(state(&site), "published");
    assert_eq!(logs(&site), 1, "the model ran once");
    no_claim_held(&site);
}

#[track_caller]
fn wait_for(mut there: impl FnMut() -> bool) {
    for _ in 0..600 {
        if there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("it does not come");
}

#[test]
fn a_store_without_room_gets_nothing_and_later_all_without_running_the_model_again() {
    // Too little, as can be seen before; and room for bytes, but not for so many files, as is seen
    // only on the way.
    for (name, options) in [
        ("full-store", "size=300k"),
        ("filled-store", "size=16m,nr_inodes=20"),
    ] {
        published_once_there_is_room(name, options);
    }
}

#[track_caller]
fn published_once_there_is_room(name: &str, options: &str) {
    let site = scripted(name, COPIES, "retries: 0\n");
    let disk = SmallDisk::with(&site, "published", options);
    site.mlwm(&RUN)
        .expect(30, &["surface.zarr", "make room", "kept"]);
    nothing_to_be_seen(&site);
    no_claim_held(&site);
    assert_eq!(state(&site), "failed");
    // Still no room: the same again, and the model need not run for that.
    site.mlwm(&RUN).expect(30, &["make room"]);
    nothing_to_be_seen(&site);
    assert_eq!(logs(&site), 1);
    disk.grow();
    site.mlwm(&RUN).expect(0, &["published"]);
    same_as_the_model_made(&site);
    assert_eq!(logs(&site), 1, "the model ran once");
    assert_eq!(state(&site), "published");
    let left = site.files("published");
    let whole = |file: &&String| !file.starts_with("surface.zarr/") && !file.ends_with("json");
    assert_eq!(left.iter().find(whole), None, "{left:?}");
}

#[test]
fn a_forecast_is_not_lost_to_one_that_would_replace_it_in_a_store_without_room() {
    let site = scripted("full-replaced", COPIES, "retries: 0\n");
    let disk = SmallDisk::new(&site, "published", "16m");
    site.mlwm(&RUN).expect(0, &["published"]);
    let file = site.path("configurations/danra/config.yaml");
    let yaml = fs::read_to_string(&file).unwrap();
    fs::write(&file, yaml + "environment: {CHANGED: 1}\n").unwrap();
    disk.fill();
    let republish = [&RUN[..], &["--republish"]].concat();
    site.mlwm(&republish).expect(30, &["make room"]);
    // What was there is there whole, or it was withdrawn, which is on record.
    let verified = site.mlwm(&["verify", PUBLISHED]);
    let withdrawn = site.files("published").into_iter();
    let withdrawn = withdrawn.filter(|file| file.contains("withdrawn")).count();
    assert_eq!((verified.code, withdrawn), (0, 0), "{}", verified.stderr);
    fs::remove_file(site.path("published/filler")).unwrap();
    site.mlwm(&republish).expect(0, &["published"]);
    same_as_the_model_made(&site);
    assert_eq!(logs(&site), 2, "each model ran once");
}

/// Runs a model whose output does not fit into its working folder.
fn run_without_room(name: &str, script: &str) -> (Site, Ran) {
    let site = scripted(name, script, "retries: 0\n");
    // The input fits, and half of the output.
    let disk = SmallDisk::new(&site, "mlwm-work", "1100k");
    let ran = site.mlwm(&[&RUN[..], &["--keep-free", "0B"]].concat());
    nothing_to_be_seen(&site);
    let left = site.files("mlwm-work/tasks");
    assert!(
        !left.iter().any(|file| file.contains("/output/")),
        "{left:?}"
    );
    no_claim_held(&site);
    disk.grow();
    (site, ran)
}

#[test]
fn an_output_that_does_not_fit_on_the_disk_is_not_published_and_the_reason_is_named() {
    let (_site, ran) = run_without_room("full-scratch", COPIES);
    ran.expect(20, &["No space left on device", "exit code 1"]);
    // A model that does not look whether its output was written is found out.
    let careless = format!("{COPIES} 2>/dev/null; exit 0");
    let (_site, ran) = run_without_room("full-scratch-careless", &careless);
    ran.expect(23, &["nothing is published"]);
}

#[test]
fn an_output_that_takes_the_last_room_of_the_disk_is_published() {
    let script = format!("{COPIES}; cat /dev/zero >/out/surface.zarr/more 2>/dev/null; exit 0");
    let site = scripted("full-scratch-to-the-brim", &script, "retries: 0\n");
    let _disk = SmallDisk::new(&site, "mlwm-work", "2m");
    let done = site.mlwm(&[&RUN[..], &["--keep-free", "0B"]].concat());
    done.expect(0, &["published", "mlwm-work"]);
    site.mlwm(&["verify", PUBLISHED])
        .expect(0, &["all as published"]);
    assert!(Path::new(&site.path(PUBLISHED)).join("more").is_file());
    no_claim_held(&site);
}

//! An artifact is mounted instead of put into the image: the forecast is the same, what is mounted is
//! what was packed, whatever happened to the files, and nobody takes it away while it is used.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mlwm_tests::places::Place;
use mlwm_tests::site::{
    Site, copy, example, example_artifact, example_configuration, example_image, noise_artifact,
    ran, sha256,
};
use serde_json::Value;

/// The image of the example without an artifact. Each test has its own: they run at the same time.
fn mounted_configuration(test: &str) -> String {
    let yaml = example_configuration()
        .replace(example_image(), &format!("mlwm-test/mounted-{test}:latest"));
    format!("{yaml}artifact_delivery: mount\n")
}

/// The example, with an image that its artifact is mounted into.
fn site(test: &str) -> Site {
    let site = Site::with_example();
    site.configure("danra", &mounted_configuration(test));
    site.mlwm(&["image", "build", "danra"])
        .expect(0, &["sha256:"]);
    site
}

/// The bytes of all values that were published, by path.
fn numbers(site: &Site) -> Vec<(String, Vec<u8>)> {
    let files = site.files("published").into_iter();
    let values = files.filter(|path| !path.ends_with(".json"));
    let values: Vec<_> = values
        .map(|path| {
            let bytes = fs::read(site.path("published").join(&path)).unwrap();
            (path, bytes)
        })
        .collect();
    assert!(values.len() > 5, "{}", values.len());
    values
}

fn unpublish(site: &Site) {
    fs::remove_dir_all(site.path("published")).unwrap();
}

/// The folder that the artifact of a zip is unpacked to.
fn unpacked(site: &Site, zip: &Path) -> PathBuf {
    let digest = sha256(zip);
    let hex = digest.strip_prefix("sha256:").unwrap();
    site.path("cache/mlwm/unpacked").join(hex)
}

/// The zip in the cache.
fn in_cache(site: &Site, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    site.path("cache/mlwm/artifacts/sha256")
        .join(format!("{hex}.zip"))
}

/// Fails unless the folder holds what Python finds in the zip.
#[track_caller]
fn expect_whole(folder: &Path, zip: &Path) {
    let script = "
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[2])
packed = {name: data.read(name) for data in [zipfile.ZipFile(sys.argv[1])] for name in data.namelist()}
there = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}
assert packed == there, sorted(packed.keys() ^ there.keys()) or 'other bytes'
";
    let python = Command::new("python3")
        .args(["-c", script])
        .args([zip, folder])
        .output();
    ran(&python.unwrap()).expect(0, &[]);
}

/// Flips a bit in the middle of a file, whose size and mtime stay.
fn flip_behind_mtime(path: &Path) {
    let was = fs::metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, was.len() / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], was.len() / 2).unwrap();
    let times = FileTimes::new().set_modified(was.modified().unwrap());
    file.set_times(times).unwrap();
    fs::set_permissions(path, was.permissions()).unwrap();
}

/// What a receipt says of a file that nobody changed since it was hashed.
fn state(path: &Path) -> Value {
    let found = fs::metadata(path).unwrap();
    let ns = |seconds: i64, ns: i64| seconds * 1_000_000_000 + ns;
    serde_json::json!({"device": found.dev(), "inode": found.ino(), "size": found.size(),
        "mtime_ns": ns(found.mtime(), found.mtime_nsec()), "ctime_ns": ns(found.ctime(), found.ctime_nsec())})
}

/// Makes all receipts say that files are as they were hashed, whatever happened to them: as a disk does
/// that loses bits and tells nobody. `paths` are files and folders that may have a receipt.
fn forge_receipts(site: &Site, paths: &[&Path]) {
    let mut forged = 0;
    for note in fs::read_dir(site.path("cache/mlwm/receipts")).unwrap() {
        let note = note.unwrap().path();
        let mut receipt: Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
        let inode = receipt["inode"].clone();
        if let Some(files) = receipt["files"].as_object_mut() {
            for (name, of_file) in files {
                for folder in paths.iter().filter(|path| path.join(name).is_file()) {
                    *of_file = state(&folder.join(name));
                    forged += 1;
                }
            }
        } else if let Some(path) = paths.iter().find(|path| state(path)["inode"] == inode) {
            let digest = receipt["digest"].clone();
            receipt = state(path);
            receipt["digest"] = digest;
            forged += 1;
        }
        fs::write(&note, receipt.to_string()).unwrap();
    }
    assert!(forged > 0, "there was a receipt to forge");
}

/// An image that an artifact can be mounted into, whose container runs this shell script.
fn scripted(site: &Site, name: &str, zip: &Path, script: &str) {
    let reference = format!("mlwm-test/mounted-{name}:latest");
    let base = std::env::var("MLWM_TEST_BASE_IMAGE").unwrap_or("mlwm-base:bookworm".into());
    let mut build = Command::new("docker")
        .args(["build", "--quiet", "--tag", &reference, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker runs");
    let command = serde_json::to_string(&["/bin/bash", "-c", script]).unwrap();
    let text =
        format!("FROM {base}\nLABEL io.mlwm.artifact.delivery=mount\nENTRYPOINT {command}\n");
    let mut stdin = build.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(build.wait().unwrap().success(), "docker build of {name}");
    site.configure(
        "noise",
        &format!(
            "docker_image: {reference}\nartifact: {}\nartifact_delivery: mount\ninputs: {{}}\noutputs:\n  none:\n    uri: ./published/none.zarr\n    internal_path: /out/none.zarr\n",
            zip.display()
        ),
    );
}

fn start(site: &Site, arguments: &[&str]) -> Child {
    let mut command = site.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(1));
    }
}

const RUN: [&str; 5] = [
    "run",
    "--analysis-time",
    "2022-04-07T03:00Z",
    "--model",
    "noise",
];

#[test]
fn the_forecast_is_that_of_an_image_with_the_artifact_in_it() {
    let baked = Site::with_example();
    baked.run("danra", &[]).expect(0, &["published"]);

    let site = site("same");
    let inspected = Command::new("docker")
        .args(["image", "inspect", "mlwm-test/mounted-same:latest"])
        .output();
    let inspected: Value = serde_json::from_slice(&inspected.unwrap().stdout).unwrap();
    let labels = &inspected[0]["Config"]["Labels"];
    assert_eq!(labels["io.mlwm.artifact.delivery"], "mount");
    for none in ["io.mlwm.artifact.digest", "io.mlwm.artifact.name"] {
        assert!(labels[none].is_null(), "{labels}");
    }
    let listed = Command::new("bash")
        .args([
            "-c",
            "id=$(docker create mlwm-test/mounted-same:latest) && docker export $id | tar --list; docker rm $id >/dev/null",
        ])
        .output();
    let listed = ran(&listed.unwrap()).expect(0, &["opt/mlwm/bin/mlwm-runner"]);
    assert!(!listed.stdout.contains("artifact"), "{}", listed.stdout);

    site.mlwm(&["image", "plan", "danra"])
        .expect(0, &["up to date"]);
    site.mlwm(&["check"]).expect(0, &["mounts its artifact"]);
    site.run("danra", &[]).expect(0, &["published"]);
    assert!(numbers(&site) == numbers(&baked), "the numbers differ");
    let manifests = site.files("published");
    let manifest = manifests
        .iter()
        .find(|path| path.ends_with("manifest.json"));
    let manifest = fs::read_to_string(site.path("published").join(manifest.unwrap())).unwrap();
    assert!(manifest.contains(&sha256(&site.path("danra.zip"))));
    expect_whole(
        &unpacked(&site, &site.path("danra.zip")),
        &site.path("danra.zip"),
    );
}

#[test]
fn an_image_for_the_other_way_is_refused() {
    let site = site("other");
    let mounted = mounted_configuration("other");
    site.configure(
        "danra",
        &mounted.replace("delivery: mount", "delivery: bake"),
    );
    site.run("danra", &[])
        .expect(13, &["has no artifact", "bake", "mlwm image build danra"]);
    site.mlwm(&["image", "plan", "danra"])
        .expect(0, &["rebuild", "artifact delivery mount → none"]);

    let baked = format!("{}artifact_delivery: mount\n", example_configuration());
    site.configure("danra", &baked);
    site.run("danra", &[])
        .expect(13, &["mount", "mlwm image build danra"]);
    site.expect_nothing_left();
    assert!(!site.path("cache/mlwm/unpacked").exists());
}

#[test]
fn a_changed_file_is_found_and_the_folder_made_anew() {
    let site = site("changed");
    site.run("danra", &[]).expect(0, &["published"]);
    let right = numbers(&site);
    let zip = site.path("danra.zip");
    let folder = unpacked(&site, &zip);
    let inode = || fs::metadata(&folder).unwrap().ino();
    // Held open, so that no later folder can be given its number again.
    let hold = || fs::File::open(&folder).unwrap();
    let (_first, first) = (hold(), inode());

    // Nothing has happened: nothing is made.
    unpublish(&site);
    site.run("danra", &[]).expect(0, &["published"]);
    assert_eq!(inode(), first);

    // A time that was set back hides nothing.
    let model = folder.join("checkpoint.onnx");
    flip_behind_mtime(&model);
    unpublish(&site);
    site.run("danra", &[]).expect(0, &["published"]);
    assert_ne!(inode(), first);
    expect_whole(&folder, &zip);
    assert!(numbers(&site) == right, "the numbers differ");

    // What only reading can tell is for the paranoid.
    let (_second, second) = (hold(), inode());
    flip_behind_mtime(&model);
    forge_receipts(&site, &[&folder]);
    unpublish(&site);
    site.run("danra", &[]);
    assert_eq!(inode(), second, "a receipt that fits is believed");
    let _ = fs::remove_dir_all(site.path("published"));
    site.run("danra", &["--paranoid"]).expect(0, &["published"]);
    assert_ne!(inode(), second);
    expect_whole(&folder, &zip);
    assert!(numbers(&site) == right, "the numbers differ");
}

#[test]
fn two_runs_at_once_share_one_folder() {
    let site = site("two");
    let run = |member: &'static str| {
        let work = format!("work{member}");
        let arguments = [
            "run",
            "--analysis-time",
            "2022-04-07T03:00Z",
            "--model",
            "danra",
            "--members",
            member,
            "--workdir",
            &work,
        ];
        start(&site, &arguments)
    };
    for child in [run("0"), run("1")] {
        ran(&child.wait_with_output().unwrap()).expect(0, &["published"]);
    }
    let folder = unpacked(&site, &site.path("danra.zip"));
    expect_whole(&folder, &site.path("danra.zip"));
    let beside = fs::read_dir(folder.parent().unwrap()).unwrap();
    let folders = beside.filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 1);
}

#[test]
fn what_a_kill_interrupts_is_unpacked_by_the_next_run() {
    let site = Site::new();
    let zip = noise_artifact("noise", 200 << 20, 7);
    let check = "ls -l /workspace/inference_artifact; touch /workspace/inference_artifact/new && exit 9; exit 3";
    scripted(&site, "killed", &zip, check);
    let folder = unpacked(&site, &zip);
    let name = folder.file_name().unwrap().to_str().unwrap();
    let unpacking = folder.with_file_name(format!(".{name}.extracting"));
    for _ in 0..3 {
        let mut child = start(&site, &RUN);
        wait_for("it is being unpacked", || {
            unpacking.join("files").exists() || child.try_wait().unwrap().is_some()
        });
        sleep(Duration::from_millis(20));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            unpacking.exists() && !folder.exists(),
            "killed in the middle"
        );
    }
    // Read-only for the container.
    site.mlwm(&RUN).expect(
        20,
        &["exit code 3", "checkpoint.pkl", "Read-only file system"],
    );
    expect_whole(&folder, &zip);
    assert!(!unpacking.exists());
}

#[test]
fn what_a_run_uses_is_not_pruned() {
    let site = Site::new();
    let zip = noise_artifact("noise", 1 << 20, 8);
    let script = "echo begun; sleep 4; ls /workspace/inference_artifact; exit 3";
    scripted(&site, "pruned", &zip, script);
    let folder = unpacked(&site, &zip);
    let log = || site.files("mlwm-work/log").len();
    let child = start(&site, &RUN);
    wait_for("the container runs", || log() == 1);
    site.mlwm(&["cache", "prune", "--all"])
        .expect(0, &["unpacked", "in use, stays"]);
    expect_whole(&folder, &zip);
    let done = ran(&child.wait_with_output().unwrap());
    done.expect(20, &["exit code 3", "artifact.yaml"]);

    let listed = site
        .mlwm(&["cache", "list", "--json"])
        .expect(0, &[])
        .json();
    let entries = listed.as_array().unwrap();
    let of_kind = |kind| entries.iter().find(|entry| entry["kind"] == kind);
    assert_eq!(of_kind("unpacked").unwrap()["digest"], sha256(&zip));
    site.mlwm(&["cache", "list"])
        .expect(0, &["unpacked", "bases", "layers", "receipts"]);
    site.mlwm(&["cache", "prune", "--unused-for", "P1D"])
        .expect(0, &["0 B removed"]);
    expect_whole(&folder, &zip);
    site.mlwm(&["cache", "prune", "--all"])
        .expect(0, &["unpacked", "removed"]);
    assert!(!folder.exists());
    site.mlwm(&["cache", "list"]).expect(0, &["empty"]);
}

#[test]
fn what_is_unpacked_needs_its_zip_only_to_be_made_anew() {
    let place = Place::directory();
    let site = place.site();
    let zip = example_artifact();
    copy(
        &example("source/single_levels.zarr"),
        &site.path("store/single_levels.zarr"),
    );
    site.mlwm(&["artifact", "push", zip.to_str().unwrap(), &place.uri])
        .expect(0, &[]);
    let digest = sha256(zip);
    let pinned = format!("artifact: {}@{digest}", place.reference("danra"));
    let yaml = mounted_configuration("pinned").replace("artifact: danra.zip", &pinned);
    site.configure("danra", &yaml);
    // To build the image, it need not be there.
    site.mlwm(&["image", "build", "danra"])
        .expect(0, &["sha256:"]);
    assert_eq!(site.files("cache/mlwm/artifacts"), Vec::<String>::new());
    site.run("danra", &[]).expect(0, &["published"]);
    let right = numbers(&site);
    let (cached, folder) = (in_cache(&site, &digest), unpacked(&site, zip));
    expect_whole(&folder, zip);

    // Without receipts, and in doubt, the unpacked files are read, and not the zip.
    flip_behind_mtime(&cached);
    let damaged = sha256(&cached);
    for more in [&[][..], &["--paranoid"]] {
        fs::remove_dir_all(site.path("cache/mlwm/receipts")).unwrap();
        fs::create_dir(site.path("cache/mlwm/receipts")).unwrap();
        unpublish(&site);
        site.run("danra", more).expect(0, &["published"]);
        assert!(numbers(&site) == right, "the numbers differ");
        assert_eq!(sha256(&cached), damaged);
    }

    // It is no zip to make them of.
    flip_behind_mtime(&folder.join("checkpoint.onnx"));
    unpublish(&site);
    site.run("danra", &[])
        .expect(13, &["run the same command again"]);
    site.expect_nothing_left();
    site.run("danra", &[]).expect(0, &["published"]);
    assert_eq!(sha256(&cached), digest, "fetched again");
    expect_whole(&folder, zip);
    assert!(numbers(&site) == right, "the numbers differ");
}

#[test]
fn a_paranoid_build_fetches_what_is_damaged_in_the_cache() {
    let place = Place::directory();
    let site = place.site();
    let zip = example_artifact();
    site.mlwm(&["artifact", "push", zip.to_str().unwrap(), &place.uri])
        .expect(0, &[]);
    let digest = sha256(zip);
    let pinned = format!("artifact: {}@{digest}", place.reference("danra"));
    let yaml = example_configuration()
        .replace("artifact: danra.zip", &pinned)
        .replace(example_image(), "mlwm-test/mounted-paranoid:latest");
    site.configure("danra", &yaml);
    let build = ["image", "build", "danra"];
    site.mlwm(&build).expect(0, &["sha256:"]);
    // What was hashed when it was fetched has its receipt at once.
    let cached = in_cache(&site, &digest);
    flip_behind_mtime(&cached);
    forge_receipts(&site, &[&cached]);
    assert_ne!(sha256(&cached), digest);
    site.mlwm(&["image", "build", "danra", "--paranoid"])
        .expect(0, &["sha256:"]);
    assert_eq!(sha256(&cached), digest);
}

//! An artifact built from the neural-lam case is what other programs think it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::{
    case, copy_folder, copy_of_case, lengthen_checkpoint, python, replace, request, succeeded,
};
use mlwm_artifacts::pickle::CheckpointKind;
use mlwm_artifacts::{Artifact, Error, FileSource, Inspection, ReadAt, build, diff, prepare};
use mlwm_spec::interface::InputRole;
use mlwm_spec::{Digest, ExitCode};

#[test]
fn the_case_builds_verifies_and_unpacks() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&request(&case(), folder.path())).unwrap();
    assert_eq!(built.path, folder.path().join("tiny-graph-lam.zip"));
    assert_eq!(built.digest, Digest::of(fs::read(&built.path).unwrap()));
    assert!(!built.unchanged);

    let artifact = Artifact::open(&built.path).unwrap();
    assert_eq!(artifact.name(), "tiny-graph-lam");
    assert_eq!(artifact.digest().unwrap(), built.digest);
    assert_eq!(artifact.files(), built.files);
    let verified = artifact.verify().unwrap();
    assert_eq!(verified.files, built.files.len());
    assert_eq!(
        verified.bytes,
        built.files.iter().map(|file| file.size).sum::<u64>()
    );

    let unpacked = folder.path().join("unpacked");
    artifact.extract_to(&unpacked).unwrap();
    let same = |member: &str, source: &str| {
        let source = fs::read(case().join(source)).unwrap();
        assert_eq!(fs::read(unpacked.join(member)).unwrap(), source, "{member}");
    };
    same(
        "checkpoint.pkl",
        "train/runs/graph_lam/checkpoints/last.ckpt",
    );
    same("checkpoint.onnx", "onnx/graph_lam.onnx");
    same("configs/config.yaml", "train/config.yaml");
    same("configs/danra.datastore.yaml", "train/danra.datastore.yaml");
    same("training_cli_args.yaml", "train/training_cli_args.yaml");
    let part = folder.path().join("part");
    artifact.extract_only(&part, &["stats/"]).unwrap();
    assert!(
        part.join("stats/danra.datastore.stats.zarr/zarr.json")
            .is_file()
    );
    assert_eq!(fs::read_dir(&part).unwrap().count(), 1);
    let absent = artifact.extract_only(&part, &["configs", "stat"]);
    assert!(matches!(absent, Err(Error::NothingNamed { pattern, .. }) if pattern == "stat"));
    assert!(!part.join("configs").exists());
}

/// Without a word of complaint.
fn unzip_and_zipinfo_accept(zip: &Path) {
    let run = |program: &str, option: &str| {
        let output = Command::new(program).arg(option).arg(zip).output().unwrap();
        let text = succeeded(&output);
        assert!(output.stderr.is_empty(), "{output:?}");
        assert!(!text.contains("warning"), "{text}");
        text
    };
    assert!(run("unzip", "-t").contains("No errors detected"));
    let listed = run("zipinfo", "-l");
    assert!(listed.contains("-rw-r--r--  1.0 unx"), "{listed}");
    assert!(
        listed.contains("stor 80-Jan-01 00:00 artifact.yaml"),
        "{listed}"
    );
}

#[test]
fn other_programs_read_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&request(&case(), folder.path())).unwrap();
    unzip_and_zipinfo_accept(&built.path);

    let unpacked = folder.path().join("unpacked");
    let unzip = Command::new("unzip")
        .arg("-q")
        .arg(&built.path)
        .arg("-d")
        .arg(&unpacked)
        .output();
    succeeded(&unzip.unwrap());
    let mut sums = Command::new("sha256sum");
    sums.current_dir(&unpacked)
        .args(built.files.iter().map(|file| &file.path));
    let expected: String = built
        .files
        .iter()
        .map(|file| format!("{}  {}\n", file.sha256.unwrap().hex(), file.path))
        .collect();
    assert_eq!(succeeded(&sums.output().unwrap()), expected);

    let listed = python(
        "import sys, zipfile, yaml, hashlib\n\
         z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None\n\
         record = yaml.safe_load(z.read('artifact.yaml'))\n\
         assert record['format_version'] == 1 and record['name'] == 'tiny-graph-lam'\n\
         assert [i.filename for i in z.infolist()] == [f['path'] for f in record['files']] + ['artifact.yaml']\n\
         for f in record['files']:\n\
         \x20   data = z.read(f['path'])\n\
         \x20   assert len(data) == f['size'] and 'sha256:' + hashlib.sha256(data).hexdigest() == f['sha256'], f\n\
         for i in z.infolist():\n\
         \x20   assert i.date_time == (1980, 1, 1, 0, 0, 0) and i.external_attr >> 16 == 0o100644 and i.compress_type == 0, i\n",
        &[&built.path],
    );
    succeeded(&listed);
}

/// The Python tool copies every variable with a name of three parts, and xarray its coordinates.
#[test]
fn statistics_are_those_that_xarray_finds_in_the_training_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&request(&case(), folder.path())).unwrap();
    let compared = python(
        "import sys, zipfile, tempfile, xarray as xr\n\
         d = tempfile.mkdtemp(); zipfile.ZipFile(sys.argv[1]).extractall(d)\n\
         a = xr.open_zarr(d + '/stats/danra.datastore.stats.zarr').load()\n\
         b = xr.open_zarr(sys.argv[2])\n\
         b = b[[v for v in b.data_vars if len(v.split('__')) == 3]].load()\n\
         xr.testing.assert_identical(a, b)\n\
         assert all(a[v].dtype == b[v].dtype for v in b.variables)\n\
         assert len(a.data_vars) == 10, list(a.data_vars)\n",
        &[&built.path, &case().join("train/danra.datastore.zarr")],
    );
    succeeded(&compared);
}

#[test]
fn export_facts_become_an_interface() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&request(&case(), folder.path())).unwrap();
    let artifact = Artifact::open(&built.path).unwrap();
    let interface = artifact.interface().unwrap().unwrap();
    assert_eq!(interface.step_seconds, 10_800);
    assert_eq!(interface.boundary_width, 4);
    assert_eq!(interface.state.names, ["t2m", "u10m", "v10m"]);
    assert_eq!(interface.state.sources[0].datastore, "danra");
    assert_eq!(interface.grid.dims, ["x", "y"]);
    assert_eq!(interface.grid.shape, [30, 28]);
    let (x, y) = (
        &interface.grid.coordinates[0],
        &interface.grid.coordinates[1],
    );
    assert_eq!((x.len(), y.len()), (30, 28));
    // The coordinates of the source dataset, read by xarray.
    let printed = python(
        "import sys, xarray as xr\n\
         d = xr.open_zarr(sys.argv[1]); print(d.x.values.tolist(), d.y.values.tolist())",
        &[&case().join("source/single_levels.zarr")],
    );
    assert_eq!(succeeded(&printed).trim(), format!("{x:?} {y:?}"));
    let names: Vec<&str> = interface
        .inputs
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    assert_eq!(names, ["prev_state", "prev_prev_state", "forcing"]);
    assert_eq!(interface.inputs[1].role, InputRole::state(1));
    let InputRole::Forcing {
        features,
        past: 1,
        future: 1,
        grid: None,
    } = &interface.inputs[2].role
    else {
        panic!("{:?}", interface.inputs[2]);
    };
    assert_eq!(features.names.len(), 4);

    // The interface that was made is itself an interface to build with.
    let given = folder.path().join("interface.json");
    fs::write(&given, artifact.read("interface.json", 1 << 20).unwrap()).unwrap();
    let mut with_given = request(&case(), &folder.path().join("again"));
    with_given.interface = Some(given);
    assert_eq!(build(&with_given).unwrap().digest, built.digest);
    assert_eq!(artifact.datastores().unwrap()[0].0, "danra");
    assert_eq!(artifact.datastores().unwrap()[0].1.inputs.len(), 3);
}

#[test]
fn the_same_inputs_give_the_same_bytes_anywhere() {
    let first = tempfile::tempdir().unwrap();
    let here = build(&request(&case(), &first.path().join("a.zip"))).unwrap();
    let second = tempfile::tempdir().unwrap();
    let copy = copy_of_case(second.path());
    // Copies have other modification times, and here other modes.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(
        copy.join("train/config.yaml"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let mut other = request(&copy, &second.path().join("deep/er/b.zip"));
    other.arguments = vec!["something else".into()];
    let there = build(&other).unwrap();
    assert_eq!(here.digest, there.digest);
    assert_eq!(
        fs::read(&here.path).unwrap(),
        fs::read(&there.path).unwrap()
    );

    let provenance = fs::read_to_string(&there.provenance).unwrap();
    assert!(there.provenance.ends_with("b.provenance.yaml"));
    assert!(provenance.contains("something else"), "{provenance}");
    assert!(
        provenance.contains(&there.digest.to_string()),
        "{provenance}"
    );
    let zip = fs::read(&there.path).unwrap();
    let holds = |text: &str| {
        zip.windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(holds("tiny-graph-lam") && !holds(second.path().to_str().unwrap()));
    assert!(!holds(host.trim()) || host.trim().len() < 4);
}

#[test]
fn what_is_already_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(&case(), folder.path());
    let built = build(&request).unwrap();
    let provenance = fs::read(&built.provenance).unwrap();
    let modified = fs::metadata(&built.path).unwrap().modified().unwrap();
    let again = build(&request).unwrap();
    assert!(again.unchanged && again.digest == built.digest);
    assert_eq!(
        fs::metadata(&built.path).unwrap().modified().unwrap(),
        modified
    );
    assert_eq!(fs::read(&built.provenance).unwrap(), provenance);

    request.checkpoint = None;
    let error = build(&request).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(error.exit_code(), ExitCode::Conflict);
    assert_eq!(Digest::of(fs::read(&built.path).unwrap()), built.digest);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        2,
        "a temporary file was left"
    );
}

#[test]
fn a_checkpoint_alone_or_an_onnx_model_alone_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut pickle = request(&case(), &folder.path().join("pickle.zip"));
    (pickle.onnx, pickle.interface) = (None, None);
    let artifact = Artifact::open(&build(&pickle).unwrap().path).unwrap();
    artifact.verify().unwrap();
    assert!(artifact.contains("checkpoint.pkl") && !artifact.contains("checkpoint.onnx"));
    assert!(artifact.interface().unwrap().is_none());

    let mut onnx = request(&case(), &folder.path().join("onnx.zip"));
    onnx.checkpoint = None;
    let artifact = Artifact::open(&build(&onnx).unwrap().path).unwrap();
    artifact.verify().unwrap();
    assert!(!artifact.contains("checkpoint.pkl") && artifact.contains("interface.json"));
}

#[test]
fn paths_of_the_training_machine_do_not_remain() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for name in ["danra.datastore.yaml", "danra.datastore.zarr"] {
        fs::rename(copy.join("train").join(name), elsewhere.join(name)).unwrap();
    }
    let absolute = elsewhere.join("danra.datastore.yaml");
    let config = copy.join("train/config.yaml");
    replace(&config, "danra.datastore.yaml", absolute.to_str().unwrap());
    let built = build(&request(&copy, folder.path())).unwrap();
    let artifact = Artifact::open(&built.path).unwrap();
    let text = String::from_utf8(artifact.read("configs/config.yaml", 1 << 20).unwrap()).unwrap();
    assert!(text.contains("config_path: danra.datastore.yaml"), "{text}");
    assert!(
        text.contains("__config_class__: ManualStateFeatureWeighting"),
        "{text}"
    );
    assert!(!text.contains("elsewhere"), "{text}");
}

#[test]
fn two_datastores_are_both_packed() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let train = copy.join("train");
    fs::copy(
        train.join("danra.datastore.yaml"),
        train.join("era5.datastore.yaml"),
    )
    .unwrap();
    copy_folder(
        &train.join("danra.datastore.zarr"),
        &train.join("era5.datastore.zarr"),
    );
    fs::write(
        train.join("config.yaml"),
        "datastores:\n  danra: {kind: mdp, config_path: danra.datastore.yaml}\n  outer: {kind: mdp, config_path: era5.datastore.yaml}\n",
    )
    .unwrap();
    let mut pickle = request(&copy, folder.path());
    (pickle.onnx, pickle.interface) = (None, None);
    let artifact = Artifact::open(&build(&pickle).unwrap().path).unwrap();
    artifact.verify().unwrap();
    let names: Vec<String> = artifact
        .datastores()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["danra", "outer"]);
    assert!(artifact.contains("stats/outer.datastore.stats.zarr/zarr.json"));
    let text = String::from_utf8(artifact.read("configs/config.yaml", 1 << 20).unwrap()).unwrap();
    assert!(
        text.contains("outer.datastore.yaml") && !text.contains("era5"),
        "{text}"
    );

    // The facts name each feature once: two datastores with a state contradict them.
    let error = build(&request(&copy, &folder.path().join("x.zip"))).unwrap_err();
    assert!(
        error.to_string().contains("t2m, u10m, v10m, t2m"),
        "{error}"
    );
}

/// The zip of the Python tool has folders, times, and no hashes.
#[test]
fn the_python_tools_artifact_is_read_but_not_verified() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&request(&case(), folder.path())).unwrap();
    let path = folder.path().join("python.zip");
    let made = python(
        "import sys, zipfile, pathlib, tempfile, yaml\n\
         d = pathlib.Path(tempfile.mkdtemp()); zipfile.ZipFile(sys.argv[1]).extractall(d)\n\
         (d / 'checkpoint.onnx').unlink(); (d / 'interface.json').unlink()\n\
         record = {'argv': ['x'], 'artifact_name': 'tiny', 'cwd': '/home', 'hostname': 'node'}\n\
         (d / 'artifact.yaml').write_text(yaml.dump(record))\n\
         with zipfile.ZipFile(sys.argv[2], 'w', zipfile.ZIP_STORED) as z:\n\
         \x20   for f in d.rglob('*'): z.write(f, f.relative_to(d))\n",
        &[&built.path, &path],
    );
    succeeded(&made);
    let artifact = Artifact::open(&path).unwrap();
    assert_eq!(artifact.name(), "tiny");
    assert_eq!(artifact.datastores().unwrap()[0].0, "danra");
    assert!(artifact.interface().unwrap().is_none());
    assert!(
        artifact
            .files()
            .iter()
            .all(|file| !file.path.ends_with('/'))
    );
    let error = artifact.verify().unwrap_err();
    assert!(matches!(error, Error::NoHashes { .. }), "{error}");
    assert!(error.to_string().contains("mlwm artifact build"), "{error}");
    let unpacked = folder.path().join("unpacked");
    artifact.extract_to(&unpacked).unwrap();
    let checkpoint = case().join("train/runs/graph_lam/checkpoints/last.ckpt");
    let same = fs::read(unpacked.join("checkpoint.pkl")).unwrap() == fs::read(checkpoint).unwrap();
    assert!(same);
}

#[test]
fn a_folder_of_a_zips_name_is_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("dir.zip");
    fs::create_dir(&named).unwrap();
    let built = build(&request(&case(), &named)).unwrap();
    assert_eq!(built.path, named.join("tiny-graph-lam.zip"));
    assert!(Path::new(&built.path).is_file());
}

/// A source that counts how often it is asked, as a registry would.
struct Remote(FileSource, AtomicUsize);

impl ReadAt for Remote {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }
}

#[test]
fn a_remote_artifact_is_inspected_with_two_requests() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let request = request(&copy, folder.path());
    lengthen_checkpoint(&request, 5 << 20, true);
    let built = build(&request).unwrap();
    let remote = Arc::new(Remote(
        FileSource::open(&built.path).unwrap(),
        AtomicUsize::new(0),
    ));
    let artifact = Artifact::from_source(remote.clone(), "s3://bucket/model.zip").unwrap();
    assert_eq!(remote.1.load(Ordering::Relaxed), 1);
    let inspection = Inspection::of(&artifact).unwrap();
    assert_eq!(remote.1.load(Ordering::Relaxed), 2);

    let local = Artifact::open(&built.path).unwrap();
    assert_eq!(Inspection::of(&local).unwrap(), inspection);
    let digest = local.verify().unwrap().digest;
    assert_eq!(Inspection::of(&local).unwrap().digest, Some(digest));
    assert_eq!(inspection.digest, None);
    assert_eq!(inspection.name, "tiny-graph-lam");
    assert_eq!(inspection.set_digest, Some(built.set_digest));
    assert_eq!(inspection.size, built.bytes);
    assert_eq!(inspection.files, built.files);
    assert!(inspection.has_training_arguments);
    let checkpoint = inspection.checkpoint.as_ref().unwrap();
    assert_eq!(
        checkpoint.contents.as_ref().unwrap().kind,
        CheckpointKind::TorchLegacy
    );
    assert_eq!(checkpoint.not_on_the_list, []);
    let interface = inspection.interface.as_ref().unwrap();
    assert_eq!(interface.grid.shape, [30, 28]);
    assert!(interface.grid.coordinates.is_empty());

    let json = serde_json::to_value(&inspection).unwrap();
    assert_eq!(json["format_version"], 1);
    assert_eq!(json["datastores"][0]["name"], "danra");
    let state = &json["datastores"][0]["variables"][1];
    assert_eq!(state["name"], "state");
    assert_eq!(state["features"][0], "t2m");
    assert_eq!(json["files"][0]["path"], "checkpoint.onnx");
    assert_eq!(json["set_digest"], built.set_digest.to_string());
    assert_eq!(json["interface"]["step_seconds"], 10_800);
}

/// The checkpoint of the case, from which the tests of the pickle reader know what it imports.
#[test]
fn the_checkpoint_of_the_case_is_on_the_list() {
    let packing = prepare(&request(&case(), Path::new("unused"))).unwrap();
    let checkpoint = packing.checkpoint().unwrap();
    assert_eq!(checkpoint.kind, CheckpointKind::TorchZip);
    assert!(!checkpoint.globals.is_empty());
}

#[test]
fn what_will_be_packed_is_known_before() {
    let folder = tempfile::tempdir().unwrap();
    let request = request(&case(), folder.path());
    let packing = prepare(&request).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(packing.name(), "tiny-graph-lam");
    let again = prepare(&request).unwrap();
    assert_eq!(packing.fingerprint().unwrap(), again.fingerprint().unwrap());

    let built = build(&request).unwrap();
    assert_eq!(packing.size(), built.bytes);
    let planned: Vec<_> = packing
        .entries()
        .into_iter()
        .map(|e| (e.path, e.size))
        .collect();
    let packed: Vec<_> = built
        .files
        .iter()
        .map(|f| (f.path.clone(), f.size))
        .collect();
    assert_eq!(planned, packed);
    let entries = packing.entries();
    let source = |path: &str| {
        let entry = entries.iter().find(|entry| entry.path == path).unwrap();
        entry.source.clone()
    };
    assert_eq!(source("checkpoint.onnx"), request.onnx);
    assert_eq!(source("artifact.yaml"), None);
    let zarr = source("stats/danra.datastore.stats.zarr/zarr.json").unwrap();
    assert!(zarr.ends_with("train/danra.datastore.zarr"), "{zarr:?}");

    let mut stream = Vec::new();
    let packed = packing.write_to(&mut stream).unwrap();
    assert_eq!(packed.digest, built.digest);
    assert!(stream == fs::read(&built.path).unwrap());
    let provenance = packing.provenance(packed.digest).unwrap();
    assert!(provenance.contains("kind: torch-zip"), "{provenance}");
    assert!(
        provenance.contains(&packed.digest.to_string()),
        "{provenance}"
    );
}

/// The one-liner of the format's documentation.
#[test]
fn the_set_digest_is_what_sha256sum_gives() {
    let folder = tempfile::tempdir().unwrap();
    let built = build(&request(&case(), folder.path())).unwrap();
    let unpacked = folder.path().join("unpacked");
    Artifact::open(&built.path)
        .unwrap()
        .extract_to(&unpacked)
        .unwrap();
    let documentation = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/artifact-format.md");
    let documentation = fs::read_to_string(documentation).unwrap();
    let command = documentation
        .lines()
        .find(|line| line.starts_with("find . -type f"))
        .unwrap();
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(&unpacked)
        .output()
        .unwrap();
    assert_eq!(
        succeeded(&output),
        format!("{}  -\n", built.set_digest.hex())
    );
}

#[test]
fn two_artifacts_are_compared_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let mut request = request(&copy, &folder.path().join("old.zip"));
    let old = Artifact::open(&build(&request).unwrap().path).unwrap();
    replace(
        &copy.join("train/training_cli_args.yaml"),
        "graph_lam",
        "hi_lam",
    );
    (request.checkpoint, request.output) = (None, folder.path().join("new.zip"));
    let new = Artifact::open(&build(&request).unwrap().path).unwrap();

    let same = diff(&old, &old).unwrap();
    assert!(same.is_empty());
    assert_eq!(same.unchanged, old.files().len() - 1);
    let found = diff(&old, &new).unwrap();
    assert!(!found.is_empty());
    assert_eq!(found.added, []);
    assert_eq!(found.removed.len(), 1);
    assert_eq!(found.removed[0].path, "checkpoint.pkl");
    assert_eq!(found.changed.len(), 1);
    let change = &found.changed[0];
    assert_eq!(change.path, "training_cli_args.yaml");
    let text = fs::read(copy.join("train/training_cli_args.yaml")).unwrap();
    assert_eq!(
        (change.new_size, change.new_sha256),
        (text.len() as u64, Digest::of(text))
    );
    assert_eq!(found.unchanged, old.files().len() - 3);
    let back = diff(&new, &old).unwrap();
    assert_eq!((back.added, back.old), (found.removed, found.new));
    let json = serde_json::to_value(&found.changed).unwrap();
    assert_eq!(json[0]["old_sha256"], change.old_sha256.to_string());
}

/// What looks like a variable of some shell or configuration system means something to those who
/// read the arguments, and nothing to mlwm.
#[test]
fn placeholders_in_training_arguments_are_kept_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let path = copy.join("train/training_cli_args.yaml");
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("# $COMMENT\n- config_path: ${HOME}/config.yaml\n- load: \"$DATA/x.ckpt\"\n- logger: '{env:WANDB_PROJECT}'\n- token: !ENV ${TOKEN:none}\n- run: \"{{ run_id }} %USER% ~/x\"\n");
    fs::write(&path, &text).unwrap();
    let built = build(&request(&copy, folder.path())).unwrap();
    let artifact = Artifact::open(&built.path).unwrap();
    let packed = artifact.read("training_cli_args.yaml", 1 << 20).unwrap();
    assert_eq!(String::from_utf8(packed).unwrap(), text);
}

/// A member beyond 4 GiB, and members after it.
#[test]
#[ignore = "writes 4 GiB"]
fn large_files_are_packed_in_zip64() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let request = request(&copy, &folder.path().join("large.zip"));
    let size = (4 << 30) + (20 << 20);
    lengthen_checkpoint(&request, size, false);
    let expected = prepare(&request).unwrap().size();
    let built = build(&request).unwrap();
    assert_eq!(built.bytes, expected);
    assert_eq!(fs::metadata(&built.path).unwrap().len(), expected);
    let artifact = Artifact::open(&built.path).unwrap();
    assert_eq!(artifact.verify().unwrap().digest, built.digest);
    let listed = python(
        "import sys, zipfile\n\
         z = zipfile.ZipFile(sys.argv[1])\n\
         assert z.getinfo('checkpoint.pkl').file_size == int(sys.argv[2])\n\
         assert z.read('configs/config.yaml') == open(sys.argv[3], 'rb').read()\n\
         assert z.testzip() is None\n",
        &[
            &built.path,
            Path::new(&size.to_string()),
            &copy.join("train/config.yaml"),
        ],
    );
    succeeded(&listed);
    unzip_and_zipinfo_accept(&built.path);
    let config = artifact.read("configs/config.yaml", 1 << 20).unwrap();
    assert_eq!(config, fs::read(copy.join("train/config.yaml")).unwrap());
}

/// Prints how long it takes; memory must not depend on the size.
#[test]
#[ignore = "writes 4 GiB; give it a process of its own"]
fn two_gibibytes_take_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_of_case(folder.path());
    let request = request(&copy, folder.path());
    lengthen_checkpoint(&request, 2 << 30, true);
    let (started, used) = (Instant::now(), cpu_seconds());
    let built = build(&request).unwrap();
    let (took, used) = (started.elapsed(), cpu_seconds() - used);
    eprintln!("build {took:.2?}, {used:.2} CPU-s, {} KiB", peak_memory());
    assert!(peak_memory() <= 64 << 10, "{} KiB", peak_memory());

    let (started, used) = (Instant::now(), cpu_seconds());
    let packing = prepare(&request).unwrap();
    let streamed = packing.write_to(&mut std::io::sink()).unwrap();
    let (took, used) = (started.elapsed(), cpu_seconds() - used);
    eprintln!("to nowhere {took:.2?}, {used:.2} CPU-s");
    assert_eq!(streamed.digest, built.digest);

    let (started, used) = (Instant::now(), cpu_seconds());
    Artifact::open(&built.path).unwrap().verify().unwrap();
    let (took, used) = (started.elapsed(), cpu_seconds() - used);
    eprintln!("verify {took:.2?}, {used:.2} CPU-s, {} KiB", peak_memory());
    assert!(peak_memory() <= 64 << 10, "{} KiB", peak_memory());
}

/// Of this process and all its threads, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Of this process so far, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    peak.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

//! The neural-lam case, and what every test does with it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mlwm_artifacts::BuildRequest;
use mlwm_artifacts::pickle::CheckpointPolicy;

/// The bundled neural-lam case.
pub(crate) fn case() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam")
}

/// A request to build from a training run laid out as the case.
pub(crate) fn request(case: &Path, output: &Path) -> BuildRequest {
    BuildRequest {
        name: "tiny-graph-lam".into(),
        nl_config: Some(case.join("train/config.yaml")),
        configs: Vec::new(),
        checkpoint: Some(case.join("train/runs/graph_lam/checkpoints/last.ckpt")),
        training_args: Some(case.join("train/training_cli_args.yaml")),
        onnx: Some(case.join("onnx/graph_lam.onnx")),
        interface: Some(case.join("onnx/graph_lam.json")),
        golden: None,
        checkpoint_policy: CheckpointPolicy::default(),
        output: output.to_owned(),
        arguments: vec!["mlwm".into(), "artifact".into(), "build".into()],
    }
}

/// A copy of the training run that a test may change.
pub(crate) fn copy_of_case(folder: &Path) -> PathBuf {
    let copy = folder.join("case");
    for part in ["train", "onnx"] {
        copy_folder(&case().join(part), &copy.join(part));
    }
    copy
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            // Read and write rather than copy: a copy of a read-only file is read-only.
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// Replaces a text that must be there.
pub(crate) fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no `{from}`", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Runs a Python script with the packages that the project is tested against.
pub(crate) fn python(script: &str, arguments: &[&Path]) -> Output {
    let python = std::env::var("MLWM_TEST_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/mlwm/python/bin/python")
    });
    Command::new(python)
        .arg("-c")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap()
}

/// Fails the test with what the command said.
pub(crate) fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Makes the checkpoint as long as it says: one of the form that PyTorch wrote before 1.6, whose
/// tensors follow its pickles.
pub(crate) fn lengthen_checkpoint(request: &BuildRequest, size: u64, random: bool) {
    let script = "import pickle, sys\n\
        f = open(sys.argv[1], 'wb')\n\
        for part in (0x1950a86a20f9469cfc6c, 1001, {'little_endian': True}, {}, []):\n\
        \x20   pickle.dump(part, f, protocol=2)\n";
    let checkpoint = request.checkpoint.as_ref().unwrap();
    succeeded(&python(script, &[checkpoint]));
    let mut file = fs::File::options().append(true).open(checkpoint).unwrap();
    if random {
        let noise = fs::File::open("/dev/urandom").unwrap();
        std::io::copy(&mut noise.take(size), &mut file).unwrap();
    } else {
        file.set_len(size).unwrap();
    }
}

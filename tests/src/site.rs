//! A user's working folder: configurations, artifacts, a store; and the command `mlwm` in it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in a folder of the repository")
}

/// A file or folder of the bundled example.
pub fn example(relative: &str) -> PathBuf {
    repository().join("examples/neural-lam").join(relative)
}

/// A program that `cargo build` makes, beside the test that asks for it.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test
        .ancestors()
        .nth(2)
        .expect("tests lie in target/<profile>/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --workspace` with the same profile",
        path.display()
    );
    path
}

/// The Python of the oracles.
pub fn python() -> PathBuf {
    let path = std::env::var_os("MLWM_TEST_PYTHON").map_or_else(
        || home().join(".cache/mlwm/python/bin/python"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing: run `ci/setup --tests`",
        path.display()
    );
    path
}

fn home() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").expect("HOME is set"))
}

/// Runs an oracle script of `tests/oracles` and returns what it printed; fails if it fails.
pub fn oracle(script: &str, arguments: &[&str]) -> String {
    let output = Command::new(python())
        .arg(repository().join("tests/oracles").join(script))
        .args(arguments)
        .output()
        .expect("Python runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script} {arguments:?}:\n{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Copies a folder and all in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry can be read");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            // Not fs::copy: the copy must be writable even if the original is not.
            fs::write(&to, fs::read(&from).expect("a file can be read")).expect("and written");
        }
    }
}

/// A working folder of its own, gone when dropped.
pub struct Site {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

/// What a command came to.
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in:\n{}{}", self.stdout, self.stderr))
    }

    /// Fails unless the exit code is this one and the error text holds all of `texts`.
    #[track_caller]
    pub fn expect(self, code: i32, texts: &[&str]) -> Self {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "{all}");
        for text in texts {
            assert!(all.contains(text), "`{text}` is not in:\n{all}");
        }
        self
    }
}

impl Site {
    /// An empty working folder.
    pub fn new() -> Self {
        let folder = crate::scratch::folder();
        fs::create_dir(folder.path().join("configurations")).expect("a folder can be made");
        Self {
            folder,
            environment: Vec::new(),
        }
    }

    /// A working folder with the example's artifact, its source data in a `file://` store, and the
    /// configuration `danra` that runs it from the image of [`example_image`].
    pub fn with_example() -> Self {
        let site = Self::new();
        fs::copy(example_artifact(), site.path("danra.zip")).expect("the artifact can be copied");
        copy(
            &example("source/single_levels.zarr"),
            &site.path("store/single_levels.zarr"),
        );
        site.configure("danra", &example_configuration());
        site
    }

    /// A path in it.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Sets an environment variable for all commands.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Writes `configurations/<name>/config.yaml`.
    pub fn configure(&self, name: &str, yaml: &str) {
        let folder = self.path("configurations").join(name);
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join("config.yaml"), yaml).expect("a file can be written");
    }

    /// The command `mlwm` in this folder, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of("mlwm", arguments)
    }

    /// The same of another program that `cargo build` makes.
    pub fn command_of(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command.current_dir(self.folder.path()).args(arguments);
        for name in [
            "AWS_CA_BUNDLE",
            "AWS_PROFILE",
            "AWS_ENDPOINT_URL",
            "MLWM_WORKDIR",
            "MLWM_CONFIGURATIONS",
            "MLWM_REGISTRY",
            "MLWM_SIGNING_PASSWORD",
            "MLWM_TRUSTED_KEYS",
            "STORAGE_EMULATOR_HOST",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ] {
            command.env_remove(name);
        }
        // Cache and journals of its own, and nobody's credentials for OCI registries.
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.env("DOCKER_CONFIG", self.path("docker"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs `mlwm` in this folder.
    pub fn mlwm(&self, arguments: &[&str]) -> Ran {
        ran(&self.command(arguments).output().expect("mlwm runs"))
    }

    /// `mlwm run` of one configuration for the example's analysis time.
    pub fn run(&self, model: &str, more: &[&str]) -> Ran {
        let mut arguments = vec![
            "run",
            "--analysis-time",
            "2022-04-07T03:00Z",
            "--model",
            model,
        ];
        arguments.extend(more);
        self.mlwm(&arguments)
    }

    /// Everything that lies below a folder, sorted; empty if the folder is not there.
    pub fn files(&self, relative: &str) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => walk(&path, root, found),
                    false => found.push(
                        path.strip_prefix(root)
                            .expect("below")
                            .display()
                            .to_string(),
                    ),
                }
            }
        }
        let (root, mut found) = (self.path(relative), Vec::new());
        walk(&root, &root, &mut found);
        found.sort();
        found
    }

    /// Fails if anything is published, or any dataset is left in the working folder.
    #[track_caller]
    pub fn expect_nothing_left(&self) {
        for folder in ["published", "mlwm-work/tasks"] {
            assert_eq!(
                self.files(folder),
                Vec::<String>::new(),
                "{folder} should be empty"
            );
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

/// What a finished command came to.
pub fn ran(output: &Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The configuration of the example: [`example_image`], input from `store/`, output to `published/`.
pub fn example_configuration() -> String {
    let mut yaml = String::new();
    write!(
        yaml,
        "docker_image: {}
artifact: danra.zip
forecast_duration: PT18H
retries: 0
inputs:
  surface:
    uri: ./store/single_levels.zarr
    internal_path: /volume/inputs/single_levels.zarr
    datastore_inputs: [danra.danra_surface, danra.danra_forcing, danra.danra_static]
outputs:
  surface:
    uri: ./published/{{analysis_time}}/member{{member}}/surface.zarr
    internal_path: /volume/outputs/surface.zarr
",
        example_image()
    )
    .expect("a text can be written");
    yaml
}

/// The example's artifact, built once by `mlwm artifact build`.
pub fn example_artifact() -> &'static Path {
    static ARTIFACT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = ARTIFACT.get_or_init(|| {
        let folder = crate::scratch::folder();
        let output = Command::new(program("mlwm"))
            .args(["artifact", "build", "danra", "--nl-config"])
            .arg(example("train/config.yaml"))
            .arg("--checkpoint")
            .arg(example("train/runs/graph_lam/checkpoints/last.ckpt"))
            .arg("--training-args")
            .arg(example("train/training_cli_args.yaml"))
            .arg("--onnx")
            .arg(example("onnx/graph_lam.onnx"))
            .arg("--interface")
            .arg(example("onnx/graph_lam.json"))
            .arg("--output")
            .arg(folder.path())
            .output()
            .expect("mlwm runs");
        ran(&output).expect(0, &["sha256:"]);
        let path = folder.path().join("danra.zip");
        (folder, path)
    });
    path
}

/// Builds an artifact without an ONNX model around a checkpoint of `bytes` bytes of noise, and
/// returns its zip: other seeds make other artifacts. The same one is built once per process.
pub fn noise_artifact(name: &str, bytes: u64, seed: u64) -> PathBuf {
    static BUILT: OnceLock<(TempDir, Mutex<()>)> = OnceLock::new();
    let (folder, one_at_a_time) = BUILT.get_or_init(|| {
        let folder = crate::scratch::folder();
        (folder, Mutex::new(()))
    });
    let _lock = one_at_a_time.lock();
    let folder = folder.path().join(format!("{name}-{bytes}-{seed}"));
    let zip = folder.join(format!("{name}.zip"));
    if !zip.exists() {
        fs::create_dir_all(&folder).expect("a folder can be made");
        let checkpoint = folder.join("noise.ckpt");
        let (bytes, seed) = (bytes.to_string(), seed.to_string());
        oracle(
            "checkpoint.py",
            &[&checkpoint.to_string_lossy(), &bytes, &seed],
        );
        let output = Command::new(program("mlwm"))
            .args(["artifact", "build", name, "--nl-config"])
            .arg(example("train/config.yaml"))
            .arg("--checkpoint")
            .arg(&checkpoint)
            .arg("--training-args")
            .arg(example("train/training_cli_args.yaml"))
            .arg("--output")
            .arg(&folder)
            .output()
            .expect("mlwm runs");
        ran(&output).expect(0, &["sha256:"]);
        fs::remove_file(checkpoint).expect("a file can be removed");
    }
    zip
}

/// SHA-256 of a file as `sha256:<hex>`, by `sha256sum`.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output();
    let output = output.expect("sha256sum is there");
    assert!(output.status.success(), "{}", path.display());
    format!("sha256:{}", &String::from_utf8_lossy(&output.stdout)[..64])
}

/// An image with the example's artifact, built once by `mlwm image build`.
pub fn example_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let reference = "mlwm-test/danra:latest".to_owned();
        let site = Site::new();
        fs::copy(example_artifact(), site.path("danra.zip")).expect("the artifact can be copied");
        site.configure(
            "danra",
            &format!(
                "docker_image: {reference}\nartifact: danra.zip\ninputs: {{}}\noutputs:\n  surface:\n    uri: ./published/surface.zarr\n    internal_path: /volume/outputs/surface.zarr\n"
            ),
        );
        site.mlwm(&["image", "build", "danra"]).expect(0, &["sha256:"]);
        reference
    })
}

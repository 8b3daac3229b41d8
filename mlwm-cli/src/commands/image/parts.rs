//! What images are made of, and where it is found on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use mlwm_artifacts::{Artifact, Receipts};
use mlwm_cycles::{ArtifactFacts, Artifacts, Loaded, load, load_offline, names, read};
use mlwm_engines::{BuildSecret, Engine};
use mlwm_images::environment::{CONTAINERFILE, Environment};
use mlwm_images::{Image, Lock, Place, Platform, Runner};
use mlwm_spec::{ArtifactDelivery, ExitCode};

use super::places::find_image;
use crate::commands::{Configurations, artifacts};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// The base that `ci/setup` makes.
const DEFAULT_BASE: &str = "mlwm-base:bookworm";
/// Where `ci/setup` puts ONNX Runtime, below the home folder.
const ONNXRUNTIME: &str = ".cache/mlwm/onnxruntime/1.31.1/libonnxruntime.so";
/// Where a configuration pins what its image is made of.
const LOCK: &str = "mlwm.lock";

/// Which configurations, and what their images start from.
#[derive(Args)]
pub(super) struct Chosen {
    /// Configurations.
    #[arg(required_unless_present = "all")]
    configurations: Vec<String>,
    /// All configurations.
    #[arg(long, conflicts_with = "configurations")]
    all: bool,
    #[command(flatten)]
    folder: Configurations,
    /// Base image where the configuration names none: HOST/PATH:TAG in a registry, oci:FOLDER:TAG
    /// in a layout, else of the local engine.
    #[arg(long, value_name = "REF", default_value = DEFAULT_BASE)]
    base: String,
    /// What the image runs on, such as linux/arm64 [default: that of this machine].
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

impl Chosen {
    /// The names.
    pub(super) fn names(&self) -> Result<Vec<String>, Failure> {
        match self.all {
            true => with_artifacts(&self.folder.folder),
            false => Ok(self.configurations.clone()),
        }
    }

    pub(super) fn platform(&self) -> Platform {
        self.platform
            .clone()
            .unwrap_or_else(Platform::of_this_machine)
    }

    /// Reads a configuration and its artifact, which is fetched if it goes into the image and is not
    /// on this machine.
    pub(super) async fn load(
        &self,
        name: &str,
        transfer: &Transfer,
        receipts: &Receipts,
    ) -> Result<Loaded, Failure> {
        let (folder, receipts) = (&self.folder.folder, receipts.clone());
        let artifacts = Artifacts {
            receipts,
            ..artifacts(transfer)?
        };
        match self.read(name)?.configuration.artifact_delivery {
            ArtifactDelivery::Bake => Ok(load(folder, name, &artifacts).await?),
            ArtifactDelivery::Mount => Ok(load_offline(folder, name, &artifacts).await?),
        }
    }

    /// The same without fetching the artifact, of which nothing is known if it is not on this
    /// machine.
    pub(super) async fn look(&self, name: &str, transfer: &Transfer) -> Result<Loaded, Failure> {
        self.read(name)?;
        Ok(load_offline(&self.folder.folder, name, &artifacts(transfer)?).await?)
    }

    /// Reads a configuration, which must name an artifact or, as one of steps may, bring an environment.
    fn read(&self, name: &str) -> Result<Loaded, Failure> {
        let loaded = read(&self.folder.folder, name)?;
        if loaded.configuration.artifact.is_none() && !self.has_containerfile(&loaded) {
            let message = format!(
                "configuration `{name}` names no artifact: add `artifact: PATH` or a Containerfile, or build its image by other means"
            );
            return Err(Failure::new(ExitCode::BadConfiguration, message));
        }
        Ok(loaded)
    }

    /// The base that a configuration names; `None` for one whose `Containerfile` says it.
    pub(super) fn base<'a>(&'a self, loaded: &'a Loaded) -> Option<&'a str> {
        let named = loaded.configuration.base_image.as_deref();
        named.or((!self.has_containerfile(loaded)).then_some(self.base.as_str()))
    }

    /// Whether a configuration brings an environment of its own, and with it what runs the model.
    pub(super) fn has_containerfile(&self, loaded: &Loaded) -> bool {
        let folder = self.folder.folder.join(&loaded.name);
        folder.join(CONTAINERFILE).is_file()
    }

    /// The environment of a configuration that brings its own.
    pub(super) fn environment(&self, loaded: &Loaded) -> Result<Option<Environment>, Failure> {
        if !self.has_containerfile(loaded) {
            return Ok(None);
        }
        let folder = self.folder.folder.join(&loaded.name);
        let base = loaded.configuration.base_image.as_deref();
        Ok(Some(Environment::of(&folder, &loaded.name, base)?))
    }

    pub(super) fn lock_file(&self, name: &str) -> PathBuf {
        self.folder.folder.join(name).join(LOCK)
    }

    /// What the configuration is locked to, checked against what it says now.
    pub(super) fn lock(&self, loaded: &Loaded) -> Result<Option<Lock>, Failure> {
        let path = self.lock_file(&loaded.name);
        let Some(lock) = Lock::read(&path)? else {
            return Ok(None);
        };
        lock.check(&path, self.base(loaded), loaded.artifact_digest())?;
        Ok(Some(lock))
    }

    /// The base image, which must be the locked one; `None` if the configuration names none.
    pub(super) async fn find_base(
        &self,
        loaded: &Loaded,
        lock: Option<&Lock>,
    ) -> Result<Option<Image>, Failure> {
        let Some(named) = self.base(loaded) else {
            return Ok(None);
        };
        let image = find_image(&named.parse()?, &self.platform()).await?;
        if let Some(lock) = lock {
            lock.check_base(&self.lock_file(&loaded.name), &image)?;
        }
        Ok(Some(image))
    }

    /// What the layers of a configuration are put on: its base, or the environment that the engine
    /// builds.
    pub(super) async fn ground(
        &self,
        loaded: &Loaded,
        lock: Option<&Lock>,
        environment: Option<&Environment>,
        secrets: &[BuildSecret],
    ) -> Result<Ground, Failure> {
        let base = self.find_base(loaded, lock).await?;
        let Some(environment) = environment else {
            let image = base.ok_or_else(|| {
                let message = format!("configuration `{}` names no base", loaded.name);
                Failure::new(ExitCode::BadConfiguration, message)
            })?;
            return Ok(Ground {
                image,
                is_environment: false,
                base: None,
            });
        };
        // What the builder says is worth reading only if it fails.
        let mut lines = Vec::new();
        let mut keep = |line: &str| lines.push(line.to_owned());
        let built = environment
            .build(&Engine::connect().await?, secrets, &mut keep)
            .await;
        built.inspect_err(|_| lines.iter().for_each(|line| note!("{line}")))?;
        let place = Place::Engine(environment.reference.clone());
        let image = find_image(&place, &self.platform()).await?;
        Ok(Ground {
            image,
            is_environment: true,
            base,
        })
    }
}

/// What the layers of a configuration are put on.
pub(super) struct Ground {
    pub(super) image: Image,
    /// Whether a `Containerfile` made it.
    pub(super) is_environment: bool,
    /// What the configuration names as the base of its environment.
    pub(super) base: Option<Image>,
}

/// The names of all configurations whose images are made here, which are those with an artifact. Of the
/// others it is said that they are left out.
pub(super) fn with_artifacts(folder: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for name in names(folder)? {
        match read(folder, &name)?.configuration.artifact {
            Some(_) => found.push(name),
            None => note!("note: {name} is left out: it names no artifact"),
        }
    }
    Ok(found)
}

/// An artifact that is on this machine, for the built-in runner if `onnx`.
pub(super) fn artifact_of(facts: &ArtifactFacts, onnx: bool) -> Result<Arc<Artifact>, Failure> {
    let interface = facts.interface.as_ref();
    if onnx && interface.is_none_or(|interface| interface.program.is_some()) {
        return Err(Failure::new(
            ExitCode::ArtifactMismatch,
            format!(
                "artifact {} has no ONNX model, which the built-in runner needs: build it with --onnx and --interface",
                facts.path.display()
            ),
        ));
    }
    Ok(Arc::new(Artifact::open(&facts.path)?))
}

/// The built-in runner on this machine.
pub(super) fn runner(
    binary: Option<PathBuf>,
    onnxruntime: Option<PathBuf>,
) -> Result<Runner, Failure> {
    let beside = |name: &str| {
        let executable = std::env::current_exe().ok();
        executable
            .map(|path| path.with_file_name(name))
            .filter(|path| path.is_file())
    };
    let fetched = || {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        home.map(|home| home.join(ONNXRUNTIME))
            .filter(|path| path.is_file())
    };
    let onnxruntime = found(
        onnxruntime
            .or_else(|| beside("libonnxruntime.so"))
            .or_else(fetched),
        "ONNX Runtime",
        "run ci/setup, or give --onnxruntime",
    )?;
    Ok(Runner {
        binary: found(
            binary.or_else(|| beside("mlwm-runner")),
            "the runner",
            "build it with `cargo build --release -p mlwm-runner`, or give --runner",
        )?,
        libraries: with_providers(onnxruntime),
    })
}

/// ONNX Runtime and the libraries beside it that it loads for GPUs.
fn with_providers(onnxruntime: PathBuf) -> Vec<PathBuf> {
    let folder = onnxruntime
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok());
    let mut providers: Vec<PathBuf> = folder
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libonnxruntime_providers_") && name.ends_with(".so")
        })
        .collect();
    providers.sort();
    providers.insert(0, onnxruntime);
    providers
}

fn found(path: Option<PathBuf>, what: &str, remedy: &str) -> Result<PathBuf, Failure> {
    path.as_deref()
        .filter(|path| Path::is_file(path))
        .map(Path::to_owned)
        .ok_or_else(|| {
            let named = path
                .map(|path| format!(" at {}", path.display()))
                .unwrap_or_default();
            let message = format!("{what} is not there{named}: {remedy}");
            Failure::new(ExitCode::Usage, message)
        })
}

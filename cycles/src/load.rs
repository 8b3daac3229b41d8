//! Configurations and the facts of their artifacts, read from disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_artifacts::{Artifact, Receipts};
use mlwm_registries::Error::DamagedInCache;
use mlwm_registries::{Cache, CachedArtifact, RegistryOptions, Unpacked, cache_home};
use mlwm_spec::configuration::{Files, Keep, Part};
use mlwm_spec::contract::TimeLayout;
use mlwm_spec::task::canonical_json;
use mlwm_spec::{
    ArtifactDelivery, ArtifactFile, ArtifactReference, Configuration, DatastoreConfig, Digest,
    Interface, PublishedArtifact,
};
use mlwm_storage::{Store, Uri};

use crate::Error;

/// A configuration and what its artifact says.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Name: that of the folder.
    pub name: String,
    /// Digest of `config.yaml`.
    pub digest: Digest,
    /// What it says.
    pub configuration: Configuration,
    /// What the artifact says, if the configuration names one and it is known.
    pub artifact: Option<ArtifactFacts>,
    /// All parts of the configuration that this is one of; none if it has none.
    pub parts: Arc<[Part]>,
}

/// What a plan must know of an artifact.
#[derive(Clone, Debug)]
pub struct ArtifactFacts {
    /// Its name, as it says itself.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of the zip.
    pub digest: Digest,
    /// The interface of its model; `None` if it has none.
    pub interface: Option<Interface>,
    /// Its datastores by name.
    pub datastores: Vec<(String, DatastoreConfig)>,
    /// Keeps it in the cache as long as this lives, if it is from there.
    pub held: Option<Arc<CachedArtifact>>,
}

/// Where artifacts in registries come from.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// Where they are kept on this machine.
    pub cache: Cache,
    /// The registry of references without one.
    pub registry: Option<String>,
    /// How they are fetched.
    pub options: RegistryOptions,
    /// What need not be hashed again.
    pub receipts: Receipts,
    /// Where those are unpacked that are mounted.
    pub unpacked: Unpacked,
}

impl Artifacts {
    /// The receipts of this machine: `mlwm/receipts` in `XDG_CACHE_HOME`, else in `~/.cache`. None
    /// without such a folder, or for the `paranoid`, for whom every file is hashed again.
    pub fn receipts(paranoid: bool) -> Receipts {
        match cache_home() {
            Ok(home) if !paranoid => Receipts::at(home.join("mlwm/receipts")),
            _ => Receipts::paranoid(),
        }
    }

    /// Opens the zip at `path`, and says its digest. It is read whole, unless it has a receipt, or is
    /// pinned and only its unpacked files are needed: each of them is verified when they are.
    fn open(
        &self,
        path: &Path,
        pin: Option<Digest>,
        delivery: ArtifactDelivery,
    ) -> Result<(Artifact, Digest), Error> {
        if let (Some(pin), ArtifactDelivery::Mount) = (pin, delivery) {
            let artifact = Artifact::open(path)?;
            if self.unpacked.is_from(&artifact, pin) {
                return Ok((artifact, pin));
            }
        }
        let artifact = self.receipts.open(path)?;
        let digest = artifact.digest()?;
        Ok((artifact, digest))
    }
}

impl Loaded {
    /// The name of the configuration that it is one of the steps of, or its own.
    pub(crate) fn of(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Whether it is one of the steps of a configuration, or one repetition of it.
    pub fn is_part(&self) -> bool {
        self.name.contains('/')
    }

    /// The same with what its artifact says, which is fetched if it is in a registry and not in the cache.
    async fn with_artifact(mut self, artifacts: &Artifacts) -> Result<Self, Error> {
        if let Some(reference) = &self.configuration.artifact {
            let delivery = self.configuration.artifact_delivery;
            self.artifact = Some(ArtifactFacts::get(reference, delivery, artifacts).await?);
        }
        Ok(self)
    }

    /// The same without asking a registry.
    async fn with_artifact_here(mut self, artifacts: &Artifacts) -> Result<Self, Error> {
        if let Some(reference) = &self.configuration.artifact {
            let delivery = self.configuration.artifact_delivery;
            self.artifact = ArtifactFacts::look(reference, delivery, artifacts).await?;
        }
        Ok(self)
    }

    /// SHA-256 of its artifact's zip: of the one that was read, else the pinned one.
    pub fn artifact_digest(&self) -> Option<Digest> {
        let pinned = match &self.configuration.artifact {
            Some(ArtifactReference::Published(published)) => published.digest,
            _ => None,
        };
        self.artifact.as_ref().map(|facts| facts.digest).or(pinned)
    }
}

impl ArtifactFacts {
    /// Reads the artifact that `reference` means. One in a registry is taken from the cache, and
    /// fetched into it if it is not there or was damaged there.
    async fn get(
        reference: &ArtifactReference,
        delivery: ArtifactDelivery,
        artifacts: &Artifacts,
    ) -> Result<Self, Error> {
        match reference {
            ArtifactReference::File(file) => Self::of_file(file, delivery, artifacts),
            ArtifactReference::Published(published) => {
                match Self::of_published(published, delivery, artifacts).await {
                    Err(Error::Registry(DamagedInCache { digest, .. }))
                        if artifacts.cache.remove(digest)? =>
                    {
                        Self::of_published(published, delivery, artifacts).await
                    }
                    done => done,
                }
            }
        }
    }

    async fn of_published(
        reference: &PublishedArtifact,
        delivery: ArtifactDelivery,
        artifacts: &Artifacts,
    ) -> Result<Self, Error> {
        let (cache, registry) = (&artifacts.cache, artifacts.registry.as_deref());
        let options = artifacts.options.clone();
        let cached = cache.get(reference, registry, options).await?;
        Self::of_cached(cached, delivery, artifacts)
    }

    /// The same without a registry: `None` for an artifact that is not in the cache.
    async fn look(
        reference: &ArtifactReference,
        delivery: ArtifactDelivery,
        artifacts: &Artifacts,
    ) -> Result<Option<Self>, Error> {
        match reference {
            ArtifactReference::File(file) => Self::of_file(file, delivery, artifacts).map(Some),
            ArtifactReference::Published(published) => {
                let Some(digest) = published.digest else {
                    return Ok(None);
                };
                let cancel = &artifacts.options.cancel;
                let held = artifacts.cache.held(digest, cancel).await?;
                held.map(|held| Self::of_cached(held, delivery, artifacts))
                    .transpose()
            }
        }
    }

    fn of_file(
        file: &ArtifactFile,
        delivery: ArtifactDelivery,
        artifacts: &Artifacts,
    ) -> Result<Self, Error> {
        let path = Path::new(&file.path);
        let facts = Self::of(path, artifacts.open(path, file.digest, delivery)?)?;
        match file.digest.filter(|expected| *expected != facts.digest) {
            Some(expected) => Err(Error::PinMismatch {
                path: facts.path,
                expected,
                found: facts.digest,
            }),
            None => Ok(facts),
        }
    }

    fn of_cached(
        cached: CachedArtifact,
        delivery: ArtifactDelivery,
        artifacts: &Artifacts,
    ) -> Result<Self, Error> {
        let opened = artifacts.open(&cached.path, Some(cached.digest), delivery);
        let facts = opened.and_then(|opened| Self::of(&cached.path, opened));
        let intact = match &facts {
            Ok(facts) => facts.digest == cached.digest,
            Err(_) => cached.is_intact()?,
        };
        match intact {
            true => Ok(Self {
                held: Some(Arc::new(cached)),
                ..facts?
            }),
            false => Err(cached.damaged().into()),
        }
    }

    fn of(path: &Path, (artifact, digest): (Artifact, Digest)) -> Result<Self, Error> {
        Ok(Self {
            name: artifact.name().to_owned(),
            interface: artifact.interface()?,
            datastores: artifact.datastores()?,
            digest,
            path: path.to_owned(),
            held: None,
        })
    }

    /// The layout of the time axis that its datastores have.
    pub fn time_layout(&self) -> TimeLayout {
        TimeLayout::of(self.datastores.iter().map(|(_, config)| config))
    }
}

/// The names of all configurations below a folder, sorted.
pub fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let unreadable = |source| Error::Folder {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().join("config.yaml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Reads the configuration `name` below `folder`, and its artifact, which is fetched if it is in a
/// registry and not in the cache.
pub async fn load(folder: &Path, name: &str, artifacts: &Artifacts) -> Result<Loaded, Error> {
    read(folder, name)?.with_artifact(artifacts).await
}

/// The same without asking a registry: of an artifact that is not on this machine nothing is known.
pub async fn load_offline(
    folder: &Path,
    name: &str,
    artifacts: &Artifacts,
) -> Result<Loaded, Error> {
    read(folder, name)?.with_artifact_here(artifacts).await
}

/// Reads the configuration `name` below `folder`, and nothing of its artifact.
pub fn read(folder: &Path, name: &str) -> Result<Loaded, Error> {
    let path = folder.join(name).join("config.yaml");
    // `@` stands for `/` in the working folder.
    let plain = !name.is_empty() && !name.contains(['/', '\\', '@']) && !name.starts_with('.');
    if !plain || !path.is_file() {
        return Err(Error::NoSuchConfiguration {
            name: name.to_owned(),
            folder: folder.to_owned(),
            known: names(folder).unwrap_or_default(),
        });
    }
    let text = fs::read_to_string(&path).map_err(|source| Error::Folder {
        path: path.clone(),
        source,
    })?;
    Ok(Loaded {
        name: name.to_owned(),
        digest: Configuration::digest(&text),
        configuration: Configuration::parse(&text, &path.to_string_lossy())?,
        artifact: None,
        parts: Arc::default(),
    })
}

/// Reads all that the configuration `name` below `folder` runs: itself, or its steps for each of what they are
/// repeated over, each with its artifact. Behind the name may stand that of a step, `ai-land/grib2zarr`, or of
/// one repetition, `ai-land/grib2zarr/2020-02`.
pub async fn load_parts(
    folder: &Path,
    name: &str,
    artifacts: &Artifacts,
) -> Result<Vec<Loaded>, Error> {
    let mut loaded = Vec::new();
    for part in parts(folder, name).await? {
        loaded.push(part.with_artifact(artifacts).await?);
    }
    Ok(loaded)
}

/// The same without asking a registry: of an artifact that is not on this machine nothing is known.
pub async fn load_parts_offline(
    folder: &Path,
    name: &str,
    artifacts: &Artifacts,
) -> Result<Vec<Loaded>, Error> {
    let mut loaded = Vec::new();
    for part in parts(folder, name).await? {
        loaded.push(part.with_artifact_here(artifacts).await?);
    }
    Ok(loaded)
}

async fn parts(folder: &Path, name: &str) -> Result<Vec<Loaded>, Error> {
    let (of, wanted) = match name.split_once('/') {
        Some((of, wanted)) => (of, Some(wanted)),
        None => (name, None),
    };
    let whole = read(folder, of)?;
    if !whole.configuration.has_parts() {
        return match wanted {
            None => Ok(vec![whole]),
            Some(step) => Err(no_such_step(of, step, &[])),
        };
    }
    let mut files = Files::new();
    for pattern in whole.configuration.patterns() {
        files.insert(pattern.to_owned(), files_like(pattern).await?);
    }
    let image = whole.configuration.image_reference(of);
    let parts = whole.configuration.parts(&image, &files);
    let parts = parts.map_err(|(key, problem)| Error::Step {
        configuration: of.to_owned(),
        key: key.join("."),
        problem,
    })?;
    let is_wanted = |part: &Part| match wanted {
        None => true,
        Some(wanted) => {
            let rest = part.name.strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    };
    let mut loaded = Vec::new();
    let parts: Arc<[Part]> = parts.into();
    for part in parts.iter().filter(|part| is_wanted(part)) {
        let mut told = part.configuration.clone();
        for output in told.outputs.values_mut() {
            // How long something is kept makes it nothing else.
            output.keep = Keep::Always;
        }
        let text = serde_json::to_value(&told).map_err(Error::Json)?;
        loaded.push(Loaded {
            name: format!("{of}/{}", part.name),
            digest: Digest::of(canonical_json(&text)),
            configuration: part.configuration.clone(),
            artifact: None,
            parts: Arc::clone(&parts),
        });
    }
    match (loaded.is_empty(), wanted) {
        (true, Some(wanted)) => Err(no_such_step(of, wanted, &parts)),
        _ => Ok(loaded),
    }
}

fn no_such_step(configuration: &str, step: &str, parts: &[Part]) -> Error {
    let mut known: Vec<&str> = parts
        .iter()
        .map(|part| part.name.split('/').next().unwrap_or_default())
        .collect();
    known.dedup();
    Error::NoSuchStep {
        configuration: configuration.to_owned(),
        step: step.to_owned(),
        known: known.join(", "),
    }
}

/// The names of the files or folders that a pattern stands for, sorted; hidden ones are none of them.
async fn files_like(pattern: &str) -> Result<Vec<String>, Error> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
    let (start, end) = name.split_once('*').unwrap_or((name, ""));
    let uri: Uri = folder.parse()?;
    let listed = Store::open(&uri).await?.list(&uri).await?;
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let mut names: Vec<String> = listed.iter().map(|object| first(&object.path)).collect();
    names.sort();
    names.dedup();
    names.retain(|name| {
        let rest = name.strip_prefix(start);
        !name.starts_with('.') && rest.is_some_and(|rest| rest.ends_with(end))
    });
    Ok(names)
}

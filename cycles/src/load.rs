//! Configurations and the facts of their artifacts, read from disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_artifacts::Receipts;
use mlwm_registries::Error::DamagedInCache;
use mlwm_registries::{Cache, CachedArtifact, RegistryOptions, cache_home};
use mlwm_spec::contract::TimeLayout;
use mlwm_spec::{
    ArtifactFile, ArtifactReference, Configuration, DatastoreConfig, Digest, Interface,
    PublishedArtifact,
};

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
    /// The interface of its ONNX model; `None` if it has none.
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
}

impl ArtifactFacts {
    /// Reads the artifact that `reference` means. One in a registry is taken from the cache, and
    /// fetched into it if it is not there or was damaged there.
    async fn get(
        reference: &ArtifactReference,
        artifacts: &Artifacts,
        receipts: &Receipts,
    ) -> Result<Self, Error> {
        match reference {
            ArtifactReference::File(file) => Self::of_file(file, receipts),
            ArtifactReference::Published(published) => {
                match Self::of_published(published, artifacts, receipts).await {
                    Err(Error::Registry(DamagedInCache { digest, .. }))
                        if artifacts.cache.remove(digest)? =>
                    {
                        Self::of_published(published, artifacts, receipts).await
                    }
                    done => done,
                }
            }
        }
    }

    async fn of_published(
        reference: &PublishedArtifact,
        artifacts: &Artifacts,
        receipts: &Receipts,
    ) -> Result<Self, Error> {
        let Artifacts {
            cache,
            registry,
            options,
        } = artifacts;
        let cached = cache
            .get(reference, registry.as_deref(), options.clone())
            .await?;
        Self::of_cached(cached, receipts)
    }

    /// The same without a registry: `None` for an artifact that is not in the cache.
    async fn look(
        reference: &ArtifactReference,
        artifacts: &Artifacts,
        receipts: &Receipts,
    ) -> Result<Option<Self>, Error> {
        match reference {
            ArtifactReference::File(file) => Self::of_file(file, receipts).map(Some),
            ArtifactReference::Published(published) => {
                let Some(digest) = published.digest else {
                    return Ok(None);
                };
                let cancel = &artifacts.options.cancel;
                let held = artifacts.cache.held(digest, cancel).await?;
                held.map(|held| Self::of_cached(held, receipts)).transpose()
            }
        }
    }

    fn of_file(file: &ArtifactFile, receipts: &Receipts) -> Result<Self, Error> {
        let facts = Self::of(Path::new(&file.path), receipts)?;
        match file.digest.filter(|expected| *expected != facts.digest) {
            Some(expected) => Err(Error::PinMismatch {
                path: facts.path,
                expected,
                found: facts.digest,
            }),
            None => Ok(facts),
        }
    }

    fn of_cached(cached: CachedArtifact, receipts: &Receipts) -> Result<Self, Error> {
        let facts = Self::of(&cached.path, receipts);
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

    /// Reads the zip at `path`: whole, unless it has a receipt.
    fn of(path: &Path, receipts: &Receipts) -> Result<Self, Error> {
        let artifact = receipts.open(path)?;
        Ok(Self {
            name: artifact.name().to_owned(),
            interface: artifact.interface()?,
            datastores: artifact.datastores()?,
            digest: artifact.digest()?,
            path: path.to_owned(),
            held: None,
        })
    }

    /// The layout of the time axis that its datastores have: `forecast` if any variable has the
    /// dimension `elapsed_forecast_duration`.
    pub fn time_layout(&self) -> TimeLayout {
        let forecast = self.datastores.iter().any(|(_, config)| {
            let mut dims = config.output.variables.values().flatten();
            dims.any(|dim| dim == "elapsed_forecast_duration")
        });
        match forecast {
            true => TimeLayout::Forecast,
            false => TimeLayout::Time,
        }
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
    load_with(folder, name, artifacts, &Artifacts::receipts(false)).await
}

async fn load_with(
    folder: &Path,
    name: &str,
    artifacts: &Artifacts,
    receipts: &Receipts,
) -> Result<Loaded, Error> {
    let mut loaded = read(folder, name)?;
    if let Some(reference) = &loaded.configuration.artifact {
        loaded.artifact = Some(ArtifactFacts::get(reference, artifacts, receipts).await?);
    }
    Ok(loaded)
}

/// The same without asking a registry: of an artifact that is not on this machine nothing is known.
pub async fn load_offline(
    folder: &Path,
    name: &str,
    artifacts: &Artifacts,
) -> Result<Loaded, Error> {
    let mut loaded = read(folder, name)?;
    if let Some(reference) = &loaded.configuration.artifact {
        let receipts = Artifacts::receipts(false);
        loaded.artifact = ArtifactFacts::look(reference, artifacts, &receipts).await?;
    }
    Ok(loaded)
}

/// Reads the configuration `name` below `folder`, and nothing of its artifact.
pub fn read(folder: &Path, name: &str) -> Result<Loaded, Error> {
    let path = folder.join(name).join("config.yaml");
    let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
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
    })
}

/// Loads the named configurations, or all below `folder` if none is named. Artifacts that have none
/// of these receipts are hashed.
pub async fn load_all(
    folder: &Path,
    wanted: &[String],
    artifacts: &Artifacts,
    receipts: &Receipts,
) -> Result<Vec<Loaded>, Error> {
    let wanted = match wanted {
        [] => names(folder)?,
        some => some.to_vec(),
    };
    if wanted.is_empty() {
        return Err(Error::NoConfigurations(folder.to_owned()));
    }
    let mut loaded: Vec<Loaded> = Vec::with_capacity(wanted.len());
    for name in wanted {
        if !loaded.iter().any(|done| done.name == name) {
            loaded.push(load_with(folder, &name, artifacts, receipts).await?);
        }
    }
    Ok(loaded)
}

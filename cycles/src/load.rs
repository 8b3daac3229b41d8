//! Configurations and the facts of their artifacts, read from disk.

use std::fs;
use std::path::{Path, PathBuf};

use mlwm_artifacts::Artifact;
use mlwm_spec::contract::TimeLayout;
use mlwm_spec::{ArtifactReference, Configuration, DatastoreConfig, Digest, Interface};

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
    /// What the artifact says, if the configuration names one.
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
}

impl ArtifactFacts {
    /// Reads the artifact that `reference` means, if it lies on this machine.
    pub fn read(reference: &ArtifactReference) -> Result<Self, Error> {
        match reference {
            ArtifactReference::File(file) => {
                let facts = Self::of(Path::new(&file.path))?;
                match file.digest.filter(|expected| *expected != facts.digest) {
                    Some(expected) => Err(Error::PinMismatch {
                        path: facts.path,
                        expected,
                        found: facts.digest,
                    }),
                    None => Ok(facts),
                }
            }
            ArtifactReference::Published(published) => Err(Error::ArtifactScheme {
                reference: published.to_string(),
                scheme: "registry".to_owned(),
            }),
        }
    }

    /// Reads the zip at `path`.
    fn of(path: &Path) -> Result<Self, Error> {
        let artifact = Artifact::open(path)?;
        Ok(Self {
            name: artifact.name().to_owned(),
            interface: artifact.interface()?,
            datastores: artifact.datastores()?,
            digest: artifact.digest()?,
            path: path.to_owned(),
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

/// Reads the configuration `name` below `folder`, and its artifact.
pub fn load(folder: &Path, name: &str) -> Result<Loaded, Error> {
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
    let configuration = Configuration::parse(&text, &path.to_string_lossy())?;
    let artifact = configuration
        .artifact
        .as_ref()
        .map(ArtifactFacts::read)
        .transpose()?;
    Ok(Loaded {
        name: name.to_owned(),
        digest: Configuration::digest(&text),
        configuration,
        artifact,
    })
}

/// Reads the named configurations, or all below `folder` if none is named.
pub fn load_all(folder: &Path, wanted: &[String]) -> Result<Vec<Loaded>, Error> {
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
            loaded.push(load(folder, &name)?);
        }
    }
    Ok(loaded)
}

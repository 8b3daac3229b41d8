//! The neural-lam configuration and the datastores that a model was trained on.

use std::path::{Path, PathBuf};

use mlwm_spec::datastore::{DATASTORE_SUFFIX, SCHEMA_VERSIONS};
use mlwm_spec::{DatastoreConfig, NeuralLamConfig, yaml};

use crate::error::Error;
use crate::input::Input;
use crate::statistics::TrainingStatistics;

/// A neural-lam configuration with everything it names.
pub(crate) struct NeuralLam {
    /// As it goes into the artifact.
    pub(crate) text: String,
    pub(crate) datastores: Vec<Datastore>,
}

/// A datastore.
pub(crate) struct Datastore {
    pub(crate) name: String,
    pub(crate) config_file: Input,
    pub(crate) config: DatastoreConfig,
    /// The training dataset.
    pub(crate) training: PathBuf,
    /// The Zarr group that its statistics were extracted to.
    pub(crate) extracted: PathBuf,
    pub(crate) statistics: TrainingStatistics,
}

impl NeuralLam {
    /// Reads the configuration in `file` and its datastores; statistics go to the folder
    /// `scratch`.
    pub(crate) fn read(file: &Input, scratch: &Path) -> Result<Self, Error> {
        let (path, text) = (file.path(), file.read_text()?);
        let source_name = path.display().to_string();
        let mut config: NeuralLamConfig = yaml::parse(&text, &source_name)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut datastores = Vec::new();
        let named = config
            .named_datastores()
            .map_err(|source| Error::Datastores {
                path: source_name.clone(),
                source,
            })?;
        for (name, reference) in named {
            let config_path = folder.join(&reference.config_path);
            datastores.push(Datastore::read(name, config_path, scratch)?);
        }
        let text = match relative(&mut config) {
            false => text,
            true => to_yaml(&config, &source_name)?,
        };
        Ok(Self { text, datastores })
    }
}

/// Makes each `config_path` the name of the file beside the configuration in the artifact; true if
/// that changed anything.
fn relative(config: &mut NeuralLamConfig) -> bool {
    let mut changed = false;
    let only = config.datastore.iter_mut().map(|reference| {
        let name = mlwm_spec::datastore::datastore_name(&reference.config_path);
        (name, reference)
    });
    let several = config.datastores.iter_mut().flatten();
    let several = several.map(|(name, reference)| (name.clone(), reference));
    for (name, reference) in only.chain(several) {
        let beside = format!("{name}{DATASTORE_SUFFIX}");
        changed |= reference.config_path != beside;
        reference.config_path = beside;
    }
    changed
}

/// The configuration as YAML again, if nothing is lost by that.
fn to_yaml(config: &NeuralLamConfig, source_name: &str) -> Result<String, Error> {
    let text = serde_saphyr::to_string(config).map_err(|source| Error::WriteYaml {
        what: "configs/config.yaml",
        source: Box::new(source),
    })?;
    let back: NeuralLamConfig = yaml::parse(&text, source_name)?;
    if back != *config {
        return Err(Error::Configuration {
            path: source_name.to_owned(),
            why: "its `config_path` cannot be made relative without changing other values: name each datastore configuration `<name>.datastore.yaml` and put it beside this file".to_owned(),
        });
    }
    Ok(text)
}

impl Datastore {
    fn read(name: String, config_path: PathBuf, scratch: &Path) -> Result<Self, Error> {
        require_file("datastore configuration", &config_path)?;
        let source_name = config_path.display().to_string();
        let config_file = Input::at(&config_path)?;
        let config: DatastoreConfig = yaml::parse(&config_file.read_text()?, &source_name)?;
        if !SCHEMA_VERSIONS.contains(&config.schema_version.as_str()) {
            return Err(Error::Configuration {
                path: source_name,
                why: format!(
                    "schema_version `{}` is not understood: mlwm knows {}",
                    config.schema_version,
                    SCHEMA_VERSIONS.join(", ")
                ),
            });
        }
        // neural-lam keeps the training dataset beside its configuration.
        let training = config_path.with_extension("zarr");
        if !training.is_dir() {
            return Err(Error::MissingTraining {
                datastore: name,
                path: training,
            });
        }
        let extracted = scratch.join(&name);
        let statistics = TrainingStatistics::extract(&name, &training, &extracted)?;
        Ok(Self {
            name,
            config_file,
            config,
            training,
            extracted,
            statistics,
        })
    }

    /// Whether one of its inputs goes into this variable.
    pub(crate) fn has_variable(&self, variable: &str) -> bool {
        self.config
            .inputs
            .values()
            .any(|input| input.target_output_variable == variable)
    }
}

/// A file that must be there.
pub(crate) fn require_file(what: &'static str, path: &Path) -> Result<(), Error> {
    if path.is_file() {
        return Ok(());
    }
    Err(Error::MissingSource {
        what,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> NeuralLamConfig {
        yaml::parse(text, "config.yaml").unwrap()
    }

    #[test]
    fn only_paths_that_lead_elsewhere_are_changed() {
        let mut beside = config("datastore: {kind: mdp, config_path: danra.datastore.yaml}\n");
        assert!(!relative(&mut beside));
        for path in [
            "/data/danra.datastore.yaml",
            "../danra.datastore.yaml",
            "danra.yaml",
        ] {
            let text = format!(
                "datastore:\n  kind: mdp\n  config_path: {path}\ntraining:\n  weights: {{t2m: 1.0, m: 1}}\n"
            );
            let mut elsewhere = config(&text);
            assert!(relative(&mut elsewhere), "{path}");
            let text = to_yaml(&elsewhere, "config.yaml").unwrap();
            assert!(!text.contains("/data"), "{text}");
            assert_eq!(
                config(&text),
                config(
                    "datastore:\n  kind: mdp\n  config_path: danra.datastore.yaml\ntraining:\n  weights: {t2m: 1.0, m: 1}\n"
                )
            );
        }
    }

    #[test]
    fn several_datastores_are_called_as_the_configuration_calls_them() {
        let mut several = config(
            "datastores:\n  lam: {kind: mdp, config_path: a/x.datastore.yaml}\n  era5: {kind: mdp, config_path: era5.datastore.yaml}\n",
        );
        assert!(relative(&mut several));
        let paths: Vec<String> = several
            .datastores
            .unwrap()
            .values()
            .map(|reference| reference.config_path.clone())
            .collect();
        assert_eq!(paths, ["lam.datastore.yaml", "era5.datastore.yaml"]);
    }
}

//! The variables of a datastore (`state`, `forcing`, `static`), made from opened inputs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mlwm_spec::contract::TimeLayout;
use mlwm_spec::interface::Grid;
use mlwm_spec::{AnalysisTime, DatastoreConfig};

use super::PrepareError;
use super::grid::grid_difference;
use super::mapping::{Mapping, check_config};
use super::opening::Opening;
use super::reader::Reader;
use super::source::{Feature, SourceInput};

/// A datastore: a configuration and the datasets that feed its inputs.
#[derive(Debug)]
pub struct Datastore<'a> {
    name: &'a str,
    config: &'a DatastoreConfig,
    paths: BTreeMap<String, PathBuf>,
    layout: TimeLayout,
    analysis_time: AnalysisTime,
}

impl<'a> Datastore<'a> {
    /// A datastore with a path per input; inputs whose variable is never asked for need none.
    /// Nothing is opened yet.
    ///
    /// # Errors
    /// If the configuration as a whole is not supported.
    pub fn new(
        name: &'a str,
        config: &'a DatastoreConfig,
        paths: BTreeMap<String, PathBuf>,
        layout: TimeLayout,
        analysis_time: AnalysisTime,
    ) -> Result<Self, PrepareError> {
        check_config(name, config)?;
        if let Some(unknown) = paths
            .keys()
            .find(|input| !config.inputs.contains_key(*input))
        {
            return Err(PrepareError::Configuration {
                datastore: name.to_owned(),
                message: format!(
                    "it has no input `{unknown}`; it has: {}",
                    config.inputs.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            });
        }
        Ok(Self {
            name,
            config,
            paths,
            layout,
            analysis_time,
        })
    }

    /// Opens one of its variables and checks everything that does not need the data itself.
    ///
    /// # Errors
    /// Whatever does not fit between the configuration and the datasets.
    pub fn variable(&self, target: &str) -> Result<PreparedVariable, PrepareError> {
        let inputs: Vec<_> = self
            .config
            .inputs
            .iter()
            .filter(|(_, input)| input.target_output_variable == target)
            .collect();
        if inputs.is_empty() {
            return Err(PrepareError::Configuration {
                datastore: self.name.to_owned(),
                message: format!("no input goes into `{target}`"),
            });
        }
        let mut sources: Vec<SourceInput> = Vec::new();
        for (name, input) in inputs {
            let mapping = Mapping::of(self.name, self.config, name, self.layout)?;
            let path = self.paths.get(name).ok_or_else(|| PrepareError::NoPath {
                datastore: self.name.to_owned(),
                input: name.clone(),
            })?;
            let opening = Opening {
                datastore: self.name,
                name,
                input,
                mapping: &mapping,
                path,
                analysis_time: self.analysis_time,
            };
            let source = opening.open()?;
            if let Some(first) = sources.first() {
                if let Some(difference) = grid_difference(&first.grid, &source.grid) {
                    return Err(opening.unusable(format!(
                        "its grid is not that of input `{}`, which also goes into `{target}`: \
                         {difference}",
                        first.name
                    )));
                }
                if first.times.is_some() != source.times.is_some() {
                    return Err(opening.wrong(format!(
                        "it and input `{}` go into `{target}`, but only one has time",
                        first.name
                    )));
                }
            }
            sources.push(source);
        }
        let names: Vec<&String> = sources
            .iter()
            .flat_map(|source| &source.features)
            .map(|f| &f.name)
            .collect();
        if let Some((_, twice)) = names
            .iter()
            .enumerate()
            .find(|(at, name)| names[..*at].contains(name))
        {
            return Err(PrepareError::Configuration {
                datastore: self.name.to_owned(),
                message: format!("two features of `{target}` are called `{twice}`"),
            });
        }
        Ok(PreparedVariable {
            datastore: self.name.to_owned(),
            name: target.to_owned(),
            sources,
        })
    }
}

/// A variable of a datastore, ready to be read.
#[derive(Debug)]
pub struct PreparedVariable {
    datastore: String,
    name: String,
    sources: Vec<SourceInput>,
}

impl PreparedVariable {
    /// Name of the datastore.
    pub fn datastore(&self) -> &str {
        &self.datastore
    }

    /// Its name: `state`, `forcing`, `static`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its features in order.
    pub fn features(&self) -> impl Iterator<Item = &Feature> {
        self.sources.iter().flat_map(|source| &source.features)
    }

    /// The inputs that it is made of, in order.
    pub fn sources(&self) -> &[SourceInput] {
        &self.sources
    }

    /// The input with a name.
    pub fn source(&self, input: &str) -> Option<&SourceInput> {
        self.sources.iter().find(|source| source.name == input)
    }

    /// Its grid: stacked dimensions, lengths and coordinates where the dataset has them.
    pub fn grid(&self) -> &Grid {
        &self.sources[0].grid
    }

    /// Whether a feature is not float32: NumPy would standardize all of them in float64.
    pub fn is_double(&self) -> bool {
        self.sources.iter().any(|source| source.is_double)
    }

    /// Starts reading. `times` are the valid times that will be read: they bound how much of a
    /// chunk is kept.
    pub fn reader(&self, times: &[i64]) -> Reader<'_> {
        Reader::new(self, times)
    }
}

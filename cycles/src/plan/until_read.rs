//! What is kept until it is read, and the tasks that read it.

use std::collections::BTreeMap;

use mlwm_spec::configuration::Keep;
use mlwm_spec::{AnalysisTime, Members};

use super::order::{makers, place};
use super::title;
use crate::Error;
use crate::load::Loaded;

/// What the parts of a configuration keep until it is read, and what they read, at an analysis time.
#[derive(Default)]
pub(super) struct UntilRead {
    kept: BTreeMap<String, usize>,
    /// By place the number of its readers.
    read: BTreeMap<String, usize>,
    readers: Vec<Vec<String>>,
}

impl UntilRead {
    /// Of all parts of the configuration that this is one of, whether or not they are planned now.
    pub(super) fn of(loaded: &Loaded, analysis_time: AnalysisTime) -> Result<Self, Error> {
        let mut all = Self::default();
        let outputs = loaded
            .parts
            .iter()
            .flat_map(|part| part.configuration.outputs.values());
        if outputs.clone().all(|output| output.keep == Keep::Always) {
            return Ok(all);
        }
        for part in loaded.parts.iter() {
            let name = format!("{}/{}", loaded.of(), part.name);
            let in_part = |source| Error::Uri {
                configuration: name.clone(),
                source,
            };
            let members = part.configuration.members.clone();
            for member in members.unwrap_or_else(Members::control).iter() {
                for output in part.configuration.outputs.values() {
                    if output.keep == Keep::UntilRead {
                        let uri = output.uri(analysis_time, member).map_err(in_part)?;
                        all.kept.insert(place(&uri), 0);
                    }
                }
                for input in part.configuration.inputs.values() {
                    let uri = input.uri(analysis_time, member).map_err(in_part)?;
                    let number = *all.read.entry(place(&uri)).or_insert(all.readers.len());
                    if number == all.readers.len() {
                        all.readers.push(Vec::new());
                    }
                    all.readers[number].push(title(&name, analysis_time, member));
                }
            }
        }
        Ok(all)
    }

    /// Whether a place has to do with what is kept until it is read.
    pub(super) fn has(&self, uri: &str) -> bool {
        makers(&place(uri), &self.kept).next().is_some()
    }

    /// The titles of the tasks that read what is published at a place.
    ///
    /// # Errors
    /// [`Error::ReadsPartly`] if one reads a part of it, or what it is a part of: whether that is done could not be
    /// known.
    pub(super) fn readers(&self, uri: &str) -> Result<Vec<String>, Error> {
        let place = place(uri);
        let of_place = self.read.get(&place);
        if let Some(other) = makers(&place, &self.read).find(|number| Some(number) != of_place) {
            return Err(Error::ReadsPartly {
                task: self.readers[other].first().cloned().unwrap_or_default(),
                uri: uri.to_owned(),
            });
        }
        let mut readers = of_place.map_or_else(Vec::new, |number| self.readers[*number].clone());
        readers.dedup();
        Ok(readers)
    }
}

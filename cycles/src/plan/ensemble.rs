//! What is to be published of the members of a configuration together.

use std::collections::BTreeMap;

use mlwm_spec::configuration::{self, Product};
use mlwm_spec::{AnalysisTime, Digest, Members, Period};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::load::Loaded;

/// An ensemble: its manifest, and products of the members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedEnsemble {
    /// Name of the configuration.
    pub configuration: String,
    /// Digest of its `config.yaml`.
    pub configuration_digest: Digest,
    /// The time the forecasts start from.
    pub analysis_time: AnalysisTime,
    /// The members that belong to it, and where each output of them is published.
    pub members: BTreeMap<u32, BTreeMap<String, String>>,
    /// How many of them must be there.
    pub quorum: u32,
    /// Where it is published.
    pub uri: String,
    /// What is made of their values, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub products: Option<PlannedProducts>,
}

/// Products of the members' values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedProducts {
    /// The output that they are made of.
    pub of: String,
    /// What is made of each variable.
    pub variables: BTreeMap<String, Vec<Product>>,
    /// How that output is cut.
    pub windows: configuration::Windows,
    /// Length of the forecast.
    pub forecast_duration: Period,
}

impl PlannedEnsemble {
    /// What people call it: `aifs 2022-04-07T03:00Z ensemble`.
    pub fn title(&self) -> String {
        format!("{} {} ensemble", self.configuration, self.analysis_time)
    }
}

/// The ensemble of a configuration at an analysis time, if it has one.
pub(super) fn plan(
    loaded: &Loaded,
    analysis_time: AnalysisTime,
    duration: Option<Period>,
) -> Result<Option<PlannedEnsemble>, Error> {
    let configuration = &loaded.configuration;
    let Some(ensemble) = &configuration.ensemble else {
        return Ok(None);
    };
    let in_configuration = |source| Error::Uri {
        configuration: loaded.name.clone(),
        source,
    };
    let wanted = configuration.members.clone();
    let wanted = wanted.unwrap_or_else(Members::control);
    let mut members = BTreeMap::new();
    for member in wanted.iter() {
        let mut places = BTreeMap::new();
        for (name, output) in &configuration.outputs {
            let uri = output.uri(analysis_time, member);
            places.insert(name.clone(), uri.map_err(in_configuration)?);
        }
        members.insert(member, places);
    }
    let of = match &ensemble.of {
        Some(name) => configuration.outputs.get_key_value(name),
        None => configuration.outputs.first(),
    };
    let cut = of.and_then(|(name, output)| Some((name, output.windows.clone()?)));
    let products = match (cut, duration) {
        (Some((of, windows)), Some(forecast_duration)) if !ensemble.products.is_empty() => {
            Some(PlannedProducts {
                of: of.clone(),
                variables: ensemble.products.clone().into_iter().collect(),
                windows,
                forecast_duration,
            })
        }
        _ => None,
    };
    let all = u32::try_from(members.len()).unwrap_or(u32::MAX);
    Ok(Some(PlannedEnsemble {
        configuration: loaded.name.clone(),
        configuration_digest: loaded.digest,
        analysis_time,
        members,
        quorum: ensemble.quorum.unwrap_or(all),
        uri: ensemble.uri(analysis_time).map_err(in_configuration)?,
        products,
    }))
}

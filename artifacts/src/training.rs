//! The arguments of the training command, as the training run left them.

use mlwm_spec::yaml;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// Arguments by name, without leading dashes.
#[derive(Debug)]
pub(crate) struct TrainingArguments {
    source_name: String,
    values: Map<String, Value>,
}

/// A mapping, or a list of mappings (the Python tool writes one per argument).
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Map(Map<String, Value>),
    List(Vec<Map<String, Value>>),
}

impl TrainingArguments {
    /// Reads `training_cli_args.yaml`.
    pub(crate) fn parse(text: &str, source_name: &str) -> Result<Self, Error> {
        // Parsed as any YAML first, so that a fault of syntax is told with its line.
        let value: Value = yaml::parse(text, source_name)?;
        let written = serde_json::from_value(value).map_err(|_| Error::Configuration {
            path: source_name.to_owned(),
            why: "training arguments must be a mapping, or a list of mappings, of names to values"
                .to_owned(),
        })?;
        let values = match written {
            Written::Map(values) => values,
            Written::List(list) => list.into_iter().flatten().collect(),
        };
        Ok(Self {
            source_name: source_name.to_owned(),
            values,
        })
    }

    /// A whole number, if it is among the arguments.
    pub(crate) fn count(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        value
            .as_u64()
            .map(Some)
            .ok_or_else(|| Error::Configuration {
                path: self.source_name.clone(),
                why: format!("`{name}` is {value}: it must be a whole number"),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_list_or_a_mapping() {
        for text in [
            "- model: graph_lam\n- num_past_forcing_steps: 2\n",
            "model: graph_lam\nnum_past_forcing_steps: 2\n",
        ] {
            let arguments = TrainingArguments::parse(text, "x").unwrap();
            assert_eq!(arguments.count("num_past_forcing_steps").unwrap(), Some(2));
            assert_eq!(arguments.count("absent").unwrap(), None);
            assert!(arguments.count("model").is_err());
        }
    }

    #[test]
    fn refuses_anything_else() {
        for text in ["just text", "- 1\n- 2\n", "a: [", "3"] {
            assert!(TrainingArguments::parse(text, "x").is_err(), "{text}");
        }
    }
}

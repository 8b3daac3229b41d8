//! The arguments of the training command, as the training run left them.

use mlwm_spec::yaml;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// Arguments by name, without leading dashes and with underscores.
#[derive(Debug, Default)]
pub(crate) struct TrainingArguments {
    source_name: String,
    values: Map<String, Value>,
}

/// A mapping, or a list with one entry per argument (the Python tool writes mappings).
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Map(Map<String, Value>),
    List(Vec<Entry>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Map(Map<String, Value>),
    /// As on the command line: a flag, or `--name=value`.
    Text(String),
}

impl Entry {
    fn values(self) -> Map<String, Value> {
        match self {
            Self::Map(values) => values,
            Self::Text(text) => Map::from_iter([match text.split_once(['=', ' ']) {
                Some((name, value)) => (name.to_owned(), Value::from(value)),
                None => (text, Value::Null),
            }]),
        }
    }
}

/// `--num-past-forcing-steps` is `num_past_forcing_steps`.
fn plain_name(name: &str) -> String {
    name.trim_start_matches('-').replace('-', "_")
}

/// A whole number, also written as `1.0` or `'1'`.
fn whole_number(value: &Value) -> Option<u64> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    let whole = text.split_once('.').map_or(text.as_str(), |(whole, rest)| {
        match rest.trim_end_matches('0') {
            "" => whole,
            _ => "",
        }
    });
    whole.parse().ok()
}

impl TrainingArguments {
    /// Reads `training_cli_args.yaml`.
    pub(crate) fn parse(text: &str, source_name: &str) -> Result<Self, Error> {
        // Parsed as any YAML first, so that a fault of syntax is told with its line.
        let value: Value = yaml::parse(text, source_name)?;
        let written = serde_json::from_value(value).map_err(|_| Error::Configuration {
            path: source_name.to_owned(),
            why: "training arguments must be a mapping of names to values, or a list of such mappings and of flags"
                .to_owned(),
        })?;
        let values = match written {
            Written::Map(values) => values,
            Written::List(list) => list.into_iter().flat_map(Entry::values).collect(),
        };
        let values = values
            .into_iter()
            .map(|(name, value)| (plain_name(&name), value))
            .collect();
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
        whole_number(value)
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
    fn reads_names_and_numbers_as_people_write_them() {
        for text in [
            "--num_past_forcing_steps: 2\n",
            "num-past-forcing-steps: 2\n",
            "- --num-past-forcing-steps: 2\n",
            "num_past_forcing_steps: '2'\n",
            "num_past_forcing_steps: 2.0\n",
            "- restore_opt\n- num_past_forcing_steps: 2\n",
            "- --restore_opt\n- --num_past_forcing_steps=2\n",
            "- --num_past_forcing_steps 2\n",
        ] {
            let arguments = TrainingArguments::parse(text, "x").unwrap();
            let count = arguments.count("num_past_forcing_steps").unwrap();
            assert_eq!(count, Some(2), "{text}");
        }
        for value in ["1.5", "-1", "null", "true", "''", "'.0'", "[1]", "1e99"] {
            let text = format!("num_past_forcing_steps: {value}\n");
            let read = TrainingArguments::parse(&text, "x")
                .and_then(|arguments| arguments.count("num_past_forcing_steps"));
            assert!(read.is_err(), "{text}");
        }
        // The value of a flag stands in the next entry: not understood, and not passed over.
        let apart = "- --num_past_forcing_steps\n- '2'\n";
        let apart = TrainingArguments::parse(apart, "x").unwrap();
        assert!(apart.count("num_past_forcing_steps").is_err());
    }

    #[test]
    fn refuses_anything_else() {
        for text in ["just text", "- 1\n- 2\n", "a: [", "3"] {
            assert!(TrainingArguments::parse(text, "x").is_err(), "{text}");
        }
    }
}

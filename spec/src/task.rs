//! The identity of a task: what it is made of, as one digest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AnalysisTime, Digest};

/// Everything that decides what a task produces. Two tasks with the same identity are the same
/// task: if the output of one is published, the other has nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskKey {
    /// Content of the image that runs.
    pub image: Digest,
    /// Content of the artifact, if the configuration names one.
    pub artifact: Option<Digest>,
    /// Content of the configuration's `config.yaml`.
    pub configuration: Digest,
    /// The time the forecast starts from.
    pub analysis_time: AnalysisTime,
    /// Ensemble member.
    pub member: u32,
    /// Length of the forecast, ISO 8601, where one is given.
    pub forecast_duration: Option<String>,
    /// What the plan asks for beside that: an edited plan is another task.
    pub asked: Digest,
    /// Name and content of each input, ordered by name.
    pub inputs: Vec<InputIdentity>,
}

/// Name and content of an input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputIdentity {
    /// Name of the input in the configuration.
    pub name: String,
    /// Digest over the path, size and SHA-256 of all its objects.
    pub digest: Digest,
    /// Content of the image of its converter, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converter: Option<Digest>,
}

impl TaskKey {
    /// The identity: SHA-256 over the canonical JSON of this key.
    pub fn identity(&self) -> Digest {
        let mut key = self.clone();
        key.inputs.sort();
        Digest::of(canonical_json(&serde_json::json!(key)))
    }

    /// The seed of the task's random numbers, derived from analysis time and member alone, so that
    /// a re-run with another image draws the same numbers. At most 53 bits, exact in JSON.
    pub fn seed(analysis_time: AnalysisTime, member: u32) -> u64 {
        let digest = Digest::of(format!("mlwm seed 1\n{analysis_time}\n{member}\n"));
        u64::from_str_radix(&digest.hex()[..13], 16).unwrap_or_default()
    }
}

/// JSON with the keys of every object in byte order and no white space: the form that is hashed.
pub fn canonical_json(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical_json).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_bytes());
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(key, value)| {
                    format!("{}:{}", Value::from(key.as_str()), canonical_json(value))
                })
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TaskKey {
        let input = |name: &str| InputIdentity {
            name: name.into(),
            digest: Digest::of(name),
            converter: None,
        };
        TaskKey {
            image: Digest::of("image"),
            artifact: None,
            configuration: Digest::of("configuration"),
            analysis_time: "2022-04-07T03:00Z".parse().unwrap(),
            member: 0,
            forecast_duration: Some("PT18H".into()),
            asked: Digest::of("plan"),
            inputs: vec![input("b"), input("a")],
        }
    }

    #[test]
    fn the_order_of_inputs_does_not_matter_and_all_else_does() {
        let base = key().identity();
        let mut other = key();
        other.inputs.reverse();
        assert_eq!(other.identity(), base);
        other.member = 1;
        assert_ne!(other.identity(), base);
        let mut other = key();
        other.inputs[0].digest = Digest::of("changed");
        assert_ne!(other.identity(), base);
        let mut other = key();
        other.inputs[0].converter = Some(Digest::of("converter"));
        assert_ne!(other.identity(), base);
    }

    #[test]
    fn canonical_json_sorts_and_keeps_text() {
        let value = serde_json::json!({"b": [1, null, true], "a": {"z": "\u{e9}\n", "y": -1}});
        assert_eq!(
            canonical_json(&value),
            "{\"a\":{\"y\":-1,\"z\":\"\u{e9}\\n\"},\"b\":[1,null,true]}"
        );
    }

    #[test]
    fn seeds_differ_by_member() {
        let time = "2022-04-07T03:00Z".parse().unwrap();
        assert_ne!(TaskKey::seed(time, 0), TaskKey::seed(time, 1));
        assert!(TaskKey::seed(time, 0) < 1 << 53);
    }
}

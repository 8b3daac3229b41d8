//! How often a task that failed is tried again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Period;

/// How often a task that failed is tried again in one run, by what made it fail: a number, which
/// counts for faults of the infrastructure alone, or a number for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written")]
#[schemars(with = "Written")]
pub struct Retries {
    /// After a fault of a store or of the container engine.
    pub infrastructure: u32,
    /// After a container was killed for using more memory than it may.
    pub out_of_memory: u32,
    /// After a container was stopped at its time limit.
    pub timeout: u32,
    /// After a container failed, or left its output incomplete.
    pub model: u32,
    /// The pause before the first of them; it doubles each time, up to 10 minutes.
    pub delay: Period,
}

impl Default for Retries {
    fn default() -> Self {
        Written::Each(Each::default()).into()
    }
}

/// As it stands in YAML.
#[derive(Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number of retries, or `infrastructure`, `out_of_memory`, `timeout`, `model` and `delay`"
)]
enum Written {
    /// After faults of the infrastructure.
    Number(u32),
    Each(Each),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Each {
    /// After a fault of a store or of the container engine; 2 if absent.
    infrastructure: Option<u32>,
    /// After a container was killed for using more memory than it may; 0 if absent.
    #[serde(default)]
    out_of_memory: u32,
    /// After a container was stopped at its time limit; 0 if absent.
    #[serde(default)]
    timeout: u32,
    /// After a container failed, or left its output incomplete; 0 if absent.
    #[serde(default)]
    model: u32,
    /// The pause before the first retry, `PT5S` if absent; it doubles each time, up to 10 minutes.
    delay: Option<Period>,
}

const INFRASTRUCTURE: u32 = 2;
const DELAY_SECONDS: i64 = 5;

impl From<Written> for Retries {
    fn from(written: Written) -> Self {
        let each = match written {
            Written::Number(infrastructure) => Each {
                infrastructure: Some(infrastructure),
                ..Each::default()
            },
            Written::Each(each) => each,
        };
        Self {
            infrastructure: each.infrastructure.unwrap_or(INFRASTRUCTURE),
            out_of_memory: each.out_of_memory,
            timeout: each.timeout,
            model: each.model,
            delay: each.delay.unwrap_or(Period::of_seconds(DELAY_SECONDS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_a_number_for_each_cause() {
        let read = |json| serde_json::from_str::<Retries>(json);
        let default = Retries::default();
        assert_eq!((default.infrastructure, default.model), (2, 0));
        assert_eq!(read("{}").unwrap(), default);
        assert_eq!(read("7").unwrap().infrastructure, 7);
        let each = read(r#"{"model": 1, "delay": "PT1M"}"#).unwrap();
        assert_eq!(
            (each.infrastructure, each.model, each.delay.seconds()),
            (2, 1, 60)
        );
        let error = read(r#"{"modle": 1}"#).unwrap_err().to_string();
        assert!(error.contains("number of retries"), "{error}");
        // What is written is read as the same.
        let json = serde_json::to_string(&each).unwrap();
        assert_eq!(read(&json).unwrap(), each);
    }
}

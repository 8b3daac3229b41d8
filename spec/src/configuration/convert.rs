//! What becomes of an input before the model sees it.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Resources;
use crate::Period;

/// A container that makes what the model reads of what is staged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Convert {
    /// Reference of the image.
    #[serde(alias = "image")]
    pub docker_image: String,
    /// What the container may use: one processor and 4 GiB of memory if nothing is said. `disk` is what it
    /// may write, without it as much as the input has and 1 MiB.
    #[serde(default)]
    pub resources: Resources,
    /// Time after which it is stopped, ISO 8601; an hour if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Environment variables for it. Never credentials: they would be recorded.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("additionalProperties" = {"type": ["string", "number", "boolean"]}))]
    pub environment: IndexMap<String, String>,
}

//! The schema of an input state: what the file must hold that a forecast starts from.

use serde::{Deserialize, Serialize};

/// The schema of input states, with its version.
pub const STATE_SCHEMA: &str = "state/1";

/// What an input state must hold: nothing more, nothing less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSchema {
    /// [`STATE_SCHEMA`].
    pub schema: String,
    /// The name of the configuration's input.
    pub input: String,
    /// Valid times relative to the analysis time, in seconds: ascending, the last is 0.
    pub offsets_seconds: Vec<i64>,
    /// The fields, each `[time, <dimensions of the grid>]`, in the order of the state's features.
    pub fields: Vec<StateField>,
    /// Further arrays over dimensions of the grid, such as `latitude`, copied into outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coordinates: Vec<String>,
}

/// A field of an input state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateField {
    /// Its name.
    pub name: String,
    /// The type of its values.
    #[serde(default)]
    pub dtype: FieldType,
    /// The least and the greatest value that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// Where it is NaN, and nowhere else; without, it is finite everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingInput>,
    /// Whether it is the same at all times.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub constant: bool,
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// 32-bit floating point.
    #[default]
    Float32,
    /// 64-bit floating point; the model sees it rounded to float32.
    Float64,
}

impl FieldType {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }
}

/// Points of the grid: those where a constant field of the input state has a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingWhere {
    /// The constant field.
    pub field: String,
    /// The value.
    pub equals: f64,
}

/// Where a field of an input state is NaN, and what the model sees there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingInput {
    /// Where.
    #[serde(rename = "where")]
    pub place: MissingWhere,
    /// What the model sees in place of NaN; NaN itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<f32>,
}

impl StateSchema {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&StateField> {
        self.fields.iter().find(|field| field.name == name)
    }
}

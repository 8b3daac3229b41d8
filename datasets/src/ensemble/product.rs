//! What can be said about the members at a point.

use serde_json::{Map, Value, json};

/// A product of an ensemble: a variable of its output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Product {
    /// The mean of the members.
    Mean,
    /// Their sample standard deviation (n − 1).
    Spread,
    /// The smallest value of any member.
    Minimum,
    /// The largest value of any member.
    Maximum,
    /// The share of the members with a value above this.
    Above(f64),
    /// The value below which this percentage of the members lie, from 0 to 100, interpolated
    /// linearly between members.
    Percentile(f64),
}

impl Product {
    /// The name of the product of a variable: `t2m_mean`, `t2m_spread`, `t2m_min`, `t2m_max`,
    /// `t2m_above_300`, `t2m_p90`.
    pub fn name(&self, variable: &str) -> String {
        match self {
            Self::Mean => format!("{variable}_mean"),
            Self::Spread => format!("{variable}_spread"),
            Self::Minimum => format!("{variable}_min"),
            Self::Maximum => format!("{variable}_max"),
            Self::Above(threshold) => format!("{variable}_above_{threshold}"),
            Self::Percentile(percent) => format!("{variable}_p{percent}"),
        }
    }

    /// Why it cannot be made.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::Above(threshold) if !threshold.is_finite() => {
                Some(format!("the threshold {threshold} is not finite"))
            }
            Self::Percentile(percent) if !(0.0..=100.0).contains(percent) => {
                Some(format!("the percentile {percent} is not from 0 to 100"))
            }
            _ => None,
        }
    }

    /// The attributes of the product by the CF conventions, made from those of the variable.
    pub(super) fn attributes(&self, variable: &str, of: &Map<String, Value>) -> Map<String, Value> {
        let mut attributes = of.clone();
        let long_name = of.get("long_name").and_then(Value::as_str);
        let subject = long_name.unwrap_or(variable).to_owned();
        let mut set = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
        let (text, method) = match self {
            Self::Mean => ("ensemble mean".to_owned(), Some("mean")),
            Self::Spread => (
                "ensemble standard deviation".to_owned(),
                Some("standard_deviation"),
            ),
            Self::Minimum => ("ensemble minimum".to_owned(), Some("minimum")),
            Self::Maximum => ("ensemble maximum".to_owned(), Some("maximum")),
            Self::Above(threshold) => {
                set("units", json!("1"));
                set("threshold", json!(threshold));
                (format!("probability of more than {threshold}"), None)
            }
            Self::Percentile(percent) => {
                set("percentile", json!(percent));
                let method = (*percent == 50.0).then_some("median");
                (format!("ensemble percentile {percent}"), method)
            }
        };
        set("long_name", json!(format!("{subject}, {text}")));
        if let Some(method) = method {
            let before = of.get("cell_methods").and_then(Value::as_str);
            let methods = [before.unwrap_or(""), &format!("realization: {method}")].join(" ");
            set("cell_methods", json!(methods.trim()));
        }
        // What the standard name means is no longer there.
        if matches!(self, Self::Above(_)) {
            attributes.remove("standard_name");
            attributes.remove("cell_methods");
        }
        attributes
    }
}

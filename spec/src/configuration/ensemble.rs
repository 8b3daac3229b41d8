//! What is made of the members of a configuration together.

use std::fmt;
use std::str::FromStr;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::uri::{self, UriError};
use crate::AnalysisTime;

/// What is published of the members together, when enough of them are: which they are, and products of their
/// values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// Where it is published, as a URI with `{analysis_time}`.
    pub uri: String,
    /// The fewest members that make an ensemble; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<u32>,
    /// The output that products are made of, which is cut into windows; may be left out if there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// What is made of each variable: `t2m: [mean, spread, p10, p90, above_300]`.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub products: IndexMap<String, Vec<Product>>,
}

impl Ensemble {
    /// Where it is published for an analysis time.
    ///
    /// # Errors
    /// If the template is none, or names a member.
    pub fn uri(&self, analysis_time: AnalysisTime) -> Result<String, UriError> {
        uri::resolve(None, Some(&self.uri), analysis_time, 0)
    }
}

/// A product of an ensemble: what can be said about the members at a point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
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

/// A text that does not name a product.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no product: write `mean`, `spread`, `min`, `max`, a percentile like `p90`, or a probability like `above_300`"
)]
pub struct InvalidProduct(String);

impl Product {
    /// The name of the product of a variable: `t2m_mean`, `t2m_spread`, `t2m_min`, `t2m_max`,
    /// `t2m_above_300`, `t2m_p90`.
    pub fn name(&self, variable: &str) -> String {
        format!("{variable}_{self}")
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => f.write_str("mean"),
            Self::Spread => f.write_str("spread"),
            Self::Minimum => f.write_str("min"),
            Self::Maximum => f.write_str("max"),
            Self::Above(threshold) => write!(f, "above_{threshold}"),
            Self::Percentile(percent) => write!(f, "p{percent}"),
        }
    }
}

impl FromStr for Product {
    type Err = InvalidProduct;

    fn from_str(text: &str) -> Result<Self, InvalidProduct> {
        let invalid = || InvalidProduct(text.to_owned());
        let number = |text: &str| {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(invalid)
        };
        match text {
            "mean" => Ok(Self::Mean),
            "spread" => Ok(Self::Spread),
            "min" => Ok(Self::Minimum),
            "max" => Ok(Self::Maximum),
            _ => {
                if let Some(threshold) = text.strip_prefix("above_") {
                    return Ok(Self::Above(number(threshold)?));
                }
                let percent = number(text.strip_prefix('p').ok_or_else(invalid)?)?;
                match (0.0..=100.0).contains(&percent) {
                    true => Ok(Self::Percentile(percent)),
                    false => Err(invalid()),
                }
            }
        }
    }
}

impl TryFrom<String> for Product {
    type Error = InvalidProduct;

    fn try_from(text: String) -> Result<Self, InvalidProduct> {
        text.parse()
    }
}

impl From<Product> for String {
    fn from(product: Product) -> Self {
        product.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_read_as_they_are_written() {
        for text in [
            "mean",
            "spread",
            "min",
            "max",
            "p0",
            "p2.5",
            "p100",
            "above_300",
            "above_-0.5",
        ] {
            assert_eq!(text.parse::<Product>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Mean",
            "p",
            "p101",
            "p-1",
            "pNaN",
            "above_",
            "above_inf",
            "above",
            "q5",
        ] {
            let error = text.parse::<Product>().unwrap_err();
            assert!(error.to_string().contains("p90"), "{error}");
        }
        assert_eq!(Product::Above(300.0).name("t2m"), "t2m_above_300");
    }
}

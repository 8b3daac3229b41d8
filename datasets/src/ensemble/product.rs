//! What can be said about the members at a point.

use mlwm_spec::configuration::Product;
use serde_json::{Map, Value, json};

/// Why a product cannot be made.
pub(super) fn fault(product: &Product) -> Option<String> {
    match product {
        Product::Above(threshold) if !threshold.is_finite() => {
            Some(format!("the threshold {threshold} is not finite"))
        }
        Product::Percentile(percent) if !(0.0..=100.0).contains(percent) => {
            Some(format!("the percentile {percent} is not from 0 to 100"))
        }
        _ => None,
    }
}

/// The attributes of a product by the CF conventions, made from those of the variable.
pub(super) fn attributes(
    product: &Product,
    variable: &str,
    of: &Map<String, Value>,
) -> Map<String, Value> {
    let mut attributes = of.clone();
    let long_name = of.get("long_name").and_then(Value::as_str);
    let subject = long_name.unwrap_or(variable).to_owned();
    let mut set = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
    let (text, method) = match product {
        Product::Mean => ("ensemble mean".to_owned(), Some("mean")),
        Product::Spread => (
            "ensemble standard deviation".to_owned(),
            Some("standard_deviation"),
        ),
        Product::Minimum => ("ensemble minimum".to_owned(), Some("minimum")),
        Product::Maximum => ("ensemble maximum".to_owned(), Some("maximum")),
        Product::Above(threshold) => {
            set("units", json!("1"));
            set("threshold", json!(threshold));
            (format!("probability of more than {threshold}"), None)
        }
        Product::Percentile(percent) => {
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
    if matches!(product, Product::Above(_)) {
        attributes.remove("standard_name");
        attributes.remove("cell_methods");
    }
    attributes
}

//! What the levels of a dimension are.

use serde_json::{Map, Value, json};

/// By type of level, as cfgrib says it: units, which way is positive, long name, and standard name.
const KINDS: [(&str, &str, &str, &str, Option<&str>); 8] = [
    (
        "isobaricInhPa",
        "hPa",
        "down",
        "pressure",
        Some("air_pressure"),
    ),
    (
        "isobaricInPa",
        "Pa",
        "down",
        "pressure",
        Some("air_pressure"),
    ),
    (
        "hybrid",
        "1",
        "down",
        "hybrid level",
        Some("atmosphere_hybrid_sigma_pressure_coordinate"),
    ),
    (
        "heightAboveGround",
        "m",
        "up",
        "height above the surface",
        Some("height"),
    ),
    ("depthBelowLand", "m", "down", "soil depth", Some("depth")),
    (
        "depthBelowLandLayer",
        "m",
        "down",
        "soil depth",
        Some("depth"),
    ),
    // cfgrib says nothing of these, which are numbers of layers.
    ("soilLayer", "1", "down", "soil layer", None),
    ("snowLayer", "1", "down", "snow layer", None),
];

/// The attributes of levels of a type, in messages of an edition; none of a type that is not known.
pub(super) fn attributes(kind: &str, edition: u8) -> Map<String, Value> {
    let mut attributes = Map::new();
    let known = KINDS.iter().find(|known| known.0 == kind);
    let Some((_, units, positive, long_name, standard_name)) = known else {
        return attributes;
    };
    // Depths are in centimetres in edition 1, which cfgrib does not say.
    let units = match (edition, kind) {
        (1, "depthBelowLand" | "depthBelowLandLayer") => "cm",
        _ => units,
    };
    for (name, value) in [
        ("units", Some(units)),
        ("positive", Some(positive)),
        ("long_name", Some(long_name)),
        ("standard_name", standard_name.as_deref()),
    ] {
        if let Some(value) = value {
            attributes.insert(name.to_owned(), json!(value));
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_in_the_units_of_their_edition() {
        assert_eq!(attributes("depthBelowLandLayer", 2)["units"], "m");
        assert_eq!(attributes("depthBelowLandLayer", 1)["units"], "cm");
        assert_eq!(attributes("isobaricInhPa", 1)["units"], "hPa");
        assert!(attributes("entireLake", 2).is_empty());
    }
}

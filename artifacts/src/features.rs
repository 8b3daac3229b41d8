//! Which features a datastore configuration makes, as far as it alone tells.

use std::fmt;

use indexmap::IndexMap;
use mlwm_spec::DatastoreConfig;
use mlwm_spec::datastore::{InputDataset, SelectedValues, ValueSelection, Variables};

/// How far two spellings of a level may lie apart, relative: a float32 level is spelt with the
/// digits of a float64.
const LEVEL_TOLERANCE: f64 = 1e-6;

/// A feature that a configuration makes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfiguredFeature {
    /// Its name around the places where the level stands.
    pieces: Vec<String>,
    level: f64,
}

impl ConfiguredFeature {
    /// `{var_name}{altitude}m` with its placeholders filled in; `None` if it has others, or any
    /// with a format specification.
    fn new(format: &str, variable: &str, level: Option<(&str, f64)>) -> Option<Self> {
        let name = format.replace("{var_name}", variable);
        let pieces: Vec<String> = match level {
            Some((dim, _)) => name
                .split(&format!("{{{dim}}}"))
                .map(str::to_owned)
                .collect(),
            None => vec![name],
        };
        let whole = !pieces.iter().any(|piece| piece.contains(['{', '}']));
        let level = level.map_or(0.0, |(_, level)| level);
        whole.then_some(Self { pieces, level })
    }

    /// Whether a feature of this name is this one, however its level is spelt: Python writes
    /// `100`, `100.0` or `1e-05`, and 0.995 in float32 as `0.9950000047683716`.
    fn is_called(&self, name: &str) -> bool {
        let places = self.pieces.len() - 1;
        if places == 0 {
            return name == self.pieces[0];
        }
        let around: usize = self.pieces.iter().map(String::len).sum();
        let start = self.pieces[0].len();
        let spelt = name
            .len()
            .checked_sub(around)
            .and_then(|spellings| name.get(start..start + spellings / places));
        spelt.is_some_and(|spelt| {
            self.pieces.join(spelt) == name
                && spelt.parse::<f64>().is_ok_and(|level| {
                    (level - self.level).abs() <= LEVEL_TOLERANCE * self.level.abs()
                })
        })
    }
}

impl fmt::Display for ConfiguredFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pieces.join(&self.level.to_string()))
    }
}

/// Whether these are the names of these features, in this order.
pub(crate) fn are_called(features: &[ConfiguredFeature], names: &[String]) -> bool {
    features.len() == names.len()
        && features
            .iter()
            .zip(names)
            .all(|(feature, name)| feature.is_called(name))
}

/// Which levels the variables of an input have.
#[derive(Clone, Copy)]
pub(crate) enum Levels {
    /// Each its own.
    OfEach,
    /// Those of the first: xarray aligns the variables of a dataset on the coordinate of the
    /// first, so mllam-data-prep reorders and drops levels of the others.
    OfFirst,
}

/// The features of a variable that a configuration makes. `None` if the sources have a say in
/// which there are.
pub(crate) fn configured_features(
    config: &DatastoreConfig,
    variable: &str,
    levels: Levels,
) -> Option<Vec<ConfiguredFeature>> {
    let mut features = Vec::new();
    for input in config.inputs.values() {
        if input.target_output_variable == variable {
            features.extend(features_of_input(input, levels)?);
        }
    }
    Some(features)
}

fn features_of_input(input: &InputDataset, levels: Levels) -> Option<Vec<ConfiguredFeature>> {
    let format = input
        .dim_mapping
        .values()
        .find_map(|mapping| mapping.name_format.as_deref())?;
    let plain = |name: &str| ConfiguredFeature::new(format, name, None);
    let mut features = Vec::new();
    match &input.variables {
        None => {}
        Some(Variables::Names(names)) => {
            for name in names {
                features.push(plain(name)?);
            }
        }
        Some(Variables::Selections(selections)) => {
            let first = selections.values().flatten().find(|s| !s.is_empty());
            for (name, selection) in selections {
                let own = selection.as_ref().filter(|s| !s.is_empty());
                let Some(own) = own else {
                    features.push(plain(name)?);
                    continue;
                };
                let selection = match (levels, first) {
                    (Levels::OfFirst, Some(first)) if first.keys().eq(own.keys()) => first,
                    _ => own,
                };
                features.extend(selected_features(format, name, selection)?);
            }
        }
    }
    for name in input
        .derived_variables
        .iter()
        .flat_map(|derived| derived.keys())
    {
        features.push(plain(name)?);
    }
    Some(features)
}

/// The features of one variable on the selected levels.
fn selected_features(
    format: &str,
    variable: &str,
    selection: &IndexMap<String, ValueSelection>,
) -> Option<Vec<ConfiguredFeature>> {
    let (dim, selected) = selection.first().filter(|_| selection.len() == 1)?;
    let SelectedValues::List(levels) = &selected.values else {
        return None;
    };
    levels
        .iter()
        .map(|level| ConfiguredFeature::new(format, variable, Some((dim, *level))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_compared_as_numbers() {
        let feature = |level| {
            ConfiguredFeature::new("{var_name}_{altitude}m", "u", Some(("altitude", level)))
                .unwrap()
        };
        for (level, name) in [
            (100.0, "u_100m"),
            (100.0, "u_100.0m"),
            (0.995, "u_0.995m"),
            (0.995, "u_0.9950000047683716m"),
            (1e-5, "u_1e-05m"),
            (-2.0, "u_-2m"),
            (0.0, "u_0.0m"),
        ] {
            assert!(feature(level).is_called(name), "{level} {name}");
        }
        for (level, name) in [
            (100.0, "u_100"),
            (100.0, "u_m"),
            (100.0, "u"),
            (100.0, "v_100m"),
            (100.0, "u_100.001m"),
            (0.0, "u_1e-5m"),
            (100.0, "u_infm"),
            (100.0, "u_é00m"),
        ] {
            assert!(!feature(level).is_called(name), "{level} {name}");
        }
        assert_eq!(feature(0.995).to_string(), "u_0.995m");
        let twice = ConfiguredFeature::new("{l}{var_name}{l}", "u", Some(("l", 2.0))).unwrap();
        assert!(twice.is_called("2.0u2.0"));
        assert!(!twice.is_called("2.0u3.0"));
        assert!(!twice.is_called("2.0u2"));
    }

    /// The names are those that mllam-data-prep makes of a source with integer levels.
    #[test]
    fn variables_are_aligned_on_the_levels_of_the_first() {
        let made = |variables: &str, names: &[&str]| {
            let text = format!(
                "path: a.zarr\ndims: [time, altitude, x, y]\nvariables: {variables}\n\
                 dim_mapping:\n  state_feature:\n    method: stack_variables_by_var_name\n    \
                 dims: [altitude]\n    name_format: \"{{var_name}}{{altitude}}m\"\n\
                 target_output_variable: state\n"
            );
            let input: InputDataset = mlwm_spec::yaml::parse(&text, "input").unwrap();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            [Levels::OfEach, Levels::OfFirst]
                .map(|levels| are_called(&features_of_input(&input, levels).unwrap(), &names))
        };
        let u = "u: {altitude: {values: [100, 50]}}";
        let other = format!("{{{u}, t: {{altitude: {{values: [50, 100]}}}}}}");
        let names = ["u100m", "u50m", "t100m", "t50m"];
        assert_eq!(made(&other, &names), [false, true]);
        assert_eq!(
            made(&other, &["u100m", "u50m", "t50m", "t100m"]),
            [true, false]
        );
        assert_eq!(
            made(&other, &["u50m", "u100m", "t50m", "t100m"]),
            [false; 2]
        );
        let more = format!("{{{u}, t: {{altitude: {{values: [50, 200, 100]}}}}}}");
        assert_eq!(made(&more, &names), [false, true]);
        let same = format!("{{{u}, t: {{altitude: {{values: [100, 50]}}}}}}");
        assert_eq!(made(&same, &names), [true; 2]);
    }

    #[test]
    fn other_placeholders_are_left_to_the_source() {
        let level = Some(("altitude", 2.0));
        for format in ["{var_name}{altitude:.1f}", "{var_name}{height}"] {
            assert_eq!(ConfiguredFeature::new(format, "u", level), None);
        }
    }
}

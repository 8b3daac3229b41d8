//! Which features a datastore configuration makes, as far as it alone tells.

use indexmap::IndexMap;
use mlwm_spec::DatastoreConfig;
use mlwm_spec::datastore::{InputDataset, SelectedValues, ValueSelection, Variables};

/// The features of a variable that a configuration makes; for each, the names it may have (the
/// type of a level decides how it is written). `None` if the sources have a say in which there
/// are.
pub(crate) fn configured_features(
    config: &DatastoreConfig,
    variable: &str,
) -> Option<Vec<Vec<String>>> {
    let mut features = Vec::new();
    for input in config.inputs.values() {
        if input.target_output_variable == variable {
            features.extend(features_of_input(input)?);
        }
    }
    Some(features)
}

fn features_of_input(input: &InputDataset) -> Option<Vec<Vec<String>>> {
    let format = input
        .dim_mapping
        .values()
        .find_map(|mapping| mapping.name_format.as_deref())?;
    let plain = |name: &str| Some(vec![feature_name(format, name, None)?]);
    let mut features = Vec::new();
    match &input.variables {
        None => {}
        Some(Variables::Names(names)) => {
            for name in names {
                features.push(plain(name)?);
            }
        }
        Some(Variables::Selections(selections)) => {
            for (name, selection) in selections {
                features.extend(selected_features(format, name, selection.as_ref())?);
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
    selection: Option<&IndexMap<String, ValueSelection>>,
) -> Option<Vec<Vec<String>>> {
    let Some(selection) = selection.filter(|selection| !selection.is_empty()) else {
        return Some(vec![vec![feature_name(format, variable, None)?]]);
    };
    let (dim, selected) = selection.first().filter(|_| selection.len() == 1)?;
    let SelectedValues::List(levels) = &selected.values else {
        return None;
    };
    let names_of = |level: &f64| {
        // Python writes a whole level as `100` or `100.0`, as the source stores it.
        let texts = [level.to_string(), format!("{level:?}")];
        let names = texts.map(|text| feature_name(format, variable, Some((dim, &text))));
        names.into_iter().collect::<Option<Vec<String>>>()
    };
    levels.iter().map(names_of).collect()
}

/// `{var_name}{altitude}m` with its placeholders filled in; `None` if it has others, or any with a
/// format specification.
fn feature_name(format: &str, variable: &str, level: Option<(&str, &str)>) -> Option<String> {
    let mut name = format.replace("{var_name}", variable);
    if let Some((dim, text)) = level {
        name = name.replace(&format!("{{{dim}}}"), text);
    }
    (!name.contains(['{', '}'])).then_some(name)
}

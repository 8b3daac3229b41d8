//! What a datastore configuration says about one of its inputs, checked.

use mlwm_spec::contract::TimeLayout;
use mlwm_spec::datastore::{DatastoreConfig, InputDataset, SCHEMA_VERSIONS, Variables};

use super::PrepareError;

/// Names of the dimensions of time of a forecast dataset.
pub const ANALYSIS_DIM: &str = "analysis_time";
/// See [`ANALYSIS_DIM`].
pub const ELAPSED_DIM: &str = "elapsed_forecast_duration";
/// Name of the dimension of time of a datastore.
pub const TIME_DIM: &str = "time";

/// The dimensions of time of a source dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimeDims {
    /// Valid time.
    Valid(String),
    /// Time of the analysis and time since it.
    Forecast {
        /// Time of the analysis.
        analysis: String,
        /// Time since it.
        elapsed: String,
    },
}

/// How the dimensions of one input map to those of its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Dimensions of the source that are stacked, the first varying slowest.
    pub grid: Vec<String>,
    /// What they are called once they are renamed.
    pub grid_names: Vec<String>,
    /// Dimensions of time; none for static features.
    pub time: Option<TimeDims>,
    /// Name of the time dimension in the configuration.
    pub time_name: Option<String>,
    /// Dimension that becomes part of the features.
    pub level: Option<String>,
    /// How features are called.
    pub name_format: String,
    /// Dimensions that variables may have.
    pub allowed: Vec<String>,
}

/// Checks what concerns the whole configuration.
pub(crate) fn check_config(name: &str, config: &DatastoreConfig) -> Result<(), PrepareError> {
    let wrong = |message: String| PrepareError::Configuration {
        datastore: name.to_owned(),
        message,
    };
    if !SCHEMA_VERSIONS.contains(&config.schema_version.as_str()) {
        return Err(wrong(format!(
            "schema_version `{}` is not supported: only {} are",
            config.schema_version,
            SCHEMA_VERSIONS.join(", ")
        )));
    }
    if config.schema_version == "v0.2.0" && config.extra.is_some() {
        return Err(wrong(
            "schema_version `v0.2.0` has no `extra`: write v0.5.0".to_owned(),
        ));
    }
    if config.output.domain_cropping.is_some() {
        return Err(wrong(
            "`domain_cropping` is not supported: crop the input dataset".to_owned(),
        ));
    }
    for (coordinate, _) in config.output.coord_ranges.iter().flatten() {
        let is_time = [TIME_DIM, ANALYSIS_DIM, ELAPSED_DIM].contains(&coordinate.as_str());
        // mllam-data-prep applies the other ranges only to dimensions of the target.
        let is_dim = config
            .output
            .variables
            .values()
            .flatten()
            .any(|dim| dim == coordinate);
        if !is_time && is_dim {
            return Err(wrong(format!(
                "output.coord_ranges of `{coordinate}` is not supported: \
                 use coord_ranges of the inputs"
            )));
        }
    }
    Ok(())
}

impl Mapping {
    /// The mapping of one input, for datasets of a time layout.
    pub(crate) fn of(
        datastore: &str,
        config: &DatastoreConfig,
        input_name: &str,
        layout: TimeLayout,
    ) -> Result<Self, PrepareError> {
        let wrong = |message: String| PrepareError::InputConfiguration {
            datastore: datastore.to_owned(),
            input: input_name.to_owned(),
            message,
        };
        let input = config
            .inputs
            .get(input_name)
            .ok_or_else(|| wrong("it is not in the configuration".to_owned()))?;
        check_variables(input).map_err(wrong)?;
        let target = &input.target_output_variable;
        let output_dims = config.output.variables.get(target).ok_or_else(|| {
            wrong(format!(
                "its target `{target}` is not among output.variables"
            ))
        })?;

        let mut mapping = Self {
            grid: Vec::new(),
            grid_names: Vec::new(),
            time: None,
            time_name: None,
            level: None,
            name_format: String::new(),
            allowed: input.dims.clone(),
        };
        let (mut analysis, mut elapsed) = (None, None);
        if let Some(dim) = output_dims
            .iter()
            .find(|dim| !input.dim_mapping.contains_key(*dim))
        {
            return Err(wrong(format!(
                "dim_mapping lacks the dimension `{dim}` of `{target}`"
            )));
        }
        // Dimensions may be renamed first, and stacked under their new names.
        let mut renamed: Vec<(&str, &str)> = Vec::new();
        for (dim, how) in &input.dim_mapping {
            if !output_dims.contains(dim) {
                match (how.method.as_str(), &how.dim) {
                    ("rename", Some(from)) => renamed.push((from, dim)),
                    _ => {
                        return Err(wrong(format!(
                            "dim_mapping makes `{dim}`, which is not a dimension of `{target}`"
                        )));
                    }
                }
                continue;
            }
            let is_time = [TIME_DIM, ANALYSIS_DIM, ELAPSED_DIM].contains(&dim.as_str());
            match how.method.as_str() {
                "rename" => {
                    let from = how
                        .dim
                        .clone()
                        .ok_or_else(|| wrong(format!("dim_mapping `{dim}` lacks `dim`")))?;
                    match dim.as_str() {
                        TIME_DIM => mapping.time_name = Some(from),
                        ANALYSIS_DIM => analysis = Some(from),
                        ELAPSED_DIM => elapsed = Some(from),
                        _ if mapping.grid.is_empty() => mapping.grid = vec![from],
                        _ => return Err(wrong(format!("`{dim}` is a second spatial dimension"))),
                    }
                }
                "stack" if is_time || !mapping.grid.is_empty() => {
                    return Err(wrong(format!("dim_mapping `{dim}` cannot be stacked")));
                }
                "stack" => {
                    mapping.grid = how.dims.clone().unwrap_or_default();
                    if mapping.grid.is_empty() {
                        return Err(wrong(format!("dim_mapping `{dim}` lacks `dims`")));
                    }
                }
                "stack_variables_by_var_name" if mapping.name_format.is_empty() => {
                    mapping.name_format = how
                        .name_format
                        .clone()
                        .ok_or_else(|| wrong(format!("dim_mapping `{dim}` lacks `name_format`")))?;
                    mapping.level = match how.dims.as_deref().unwrap_or_default() {
                        [] => None,
                        [level] => Some(level.clone()),
                        dims => {
                            return Err(wrong(format!(
                                "dim_mapping `{dim}` stacks {} dimensions: only one is supported",
                                dims.len()
                            )));
                        }
                    };
                }
                "stack_variables_by_var_name" => {
                    return Err(wrong(
                        "two entries of dim_mapping stack the variables".to_owned(),
                    ));
                }
                other => {
                    return Err(wrong(format!(
                        "dim_mapping `{dim}` has the method `{other}`: use rename, stack or \
                         stack_variables_by_var_name"
                    )));
                }
            }
        }
        if mapping.name_format.is_empty() {
            return Err(wrong(
                "no entry of dim_mapping stacks the variables".to_owned(),
            ));
        }
        if mapping.grid.is_empty() {
            return Err(wrong(
                "no entry of dim_mapping makes a spatial dimension".to_owned(),
            ));
        }
        mapping.use_source_names(&renamed).map_err(wrong)?;
        mapping.set_time(analysis, elapsed, layout).map_err(wrong)?;
        Ok(mapping)
    }

    /// Replaces dimensions that are renamed before they are stacked by what the source calls them.
    fn use_source_names(&mut self, renamed: &[(&str, &str)]) -> Result<(), String> {
        self.grid_names.clone_from(&self.grid);
        for (from, to) in renamed {
            let mut used = false;
            for dim in self.grid.iter_mut().filter(|dim| dim == to) {
                *dim = (*from).to_owned();
                used = true;
            }
            if self.level.as_deref() == Some(to) {
                self.level = Some((*from).to_owned());
                for end in ["}", ":"] {
                    let (new, old) = (format!("{{{to}{end}"), format!("{{{from}{end}"));
                    self.name_format = self.name_format.replace(&new, &old);
                }
                used = true;
            }
            if !used {
                return Err(format!("dim_mapping makes `{to}`, which nothing stacks"));
            }
        }
        Ok(())
    }

    /// Decides which dimensions of time the source has, from those that the configuration maps.
    fn set_time(
        &mut self,
        analysis: Option<String>,
        elapsed: Option<String>,
        layout: TimeLayout,
    ) -> Result<(), String> {
        self.time = match (self.time_name.clone(), analysis, elapsed, layout) {
            (None, None, None, _) => None,
            (Some(time), None, None, TimeLayout::Time) => Some(TimeDims::Valid(time)),
            (Some(time), None, None, TimeLayout::Forecast) => {
                // Trained on valid time, run on forecasts: time has two dimensions instead of one.
                self.allowed.retain(|dim| *dim != time);
                self.allowed
                    .splice(0..0, [ANALYSIS_DIM.to_owned(), ELAPSED_DIM.to_owned()]);
                Some(TimeDims::Forecast {
                    analysis: ANALYSIS_DIM.to_owned(),
                    elapsed: ELAPSED_DIM.to_owned(),
                })
            }
            (None, Some(analysis), Some(elapsed), TimeLayout::Forecast) => {
                Some(TimeDims::Forecast { analysis, elapsed })
            }
            (None, Some(_), Some(_), TimeLayout::Time) => {
                return Err(format!(
                    "it maps {ANALYSIS_DIM} and {ELAPSED_DIM}: set the time dimensions to `{}`",
                    TimeLayout::Forecast.as_str()
                ));
            }
            _ => {
                return Err(format!(
                    "dim_mapping has a mixture of dimensions of time: map either {TIME_DIM}, or \
                     {ANALYSIS_DIM} and {ELAPSED_DIM}"
                ));
            }
        };
        Ok(())
    }
}

fn check_variables(input: &InputDataset) -> Result<(), String> {
    let selected: Vec<&String> = match &input.variables {
        Some(Variables::Names(names)) => names.iter().collect(),
        Some(Variables::Selections(selections)) => selections.keys().collect(),
        None => Vec::new(),
    };
    let derived: Vec<&String> = input
        .derived_variables
        .iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    if selected.is_empty() && derived.is_empty() {
        return Err("it has neither `variables` nor `derived_variables`".to_owned());
    }
    for (at, name) in selected.iter().enumerate() {
        if selected[..at].contains(name) || derived.contains(name) {
            return Err(format!("the variable `{name}` is there twice"));
        }
    }
    Ok(())
}

//! The outputs: physical values in the layout of the source datasets, with times, coordinates and
//! provenance.

use std::path::Path;

use mlwm_datasets::prepare::{ForecastInputs, Schedule, SourceInput};
use mlwm_datasets::{
    Dataset, Definition, Element, Values, Writer, ZarrFormat, duration_attributes, time_attributes,
};
use mlwm_spec::contract::{OutputRequest, TimeLayout};
use mlwm_spec::{AnalysisTime, Digest};
use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value, json};

use crate::RunnerError;
use crate::layout::{Layout, Levels, Variable};
use crate::place::Place;
use crate::rollout::Sink;
use crate::standardize::Standardization;

/// Names of coordinates that say where a grid point lies.
const POSITIONS: [&str; 4] = ["lat", "lon", "latitude", "longitude"];

/// Attributes of a predicted variable that are those of the source variable.
const KEPT_ATTRIBUTES: [&str; 3] = ["standard_name", "cell_methods", "positive"];

/// The scalar or dimension coordinate of the analysis time.
const ANALYSIS_TIME: &str = "analysis_time";

/// The time since the analysis.
const ELAPSED: &str = "elapsed_forecast_duration";

/// Where a forecast comes from, to be recorded in its outputs.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// Name of the architecture.
    pub model: Option<String>,
    /// Name and digest of the artifact's `artifact.yaml`.
    pub artifact: Option<(String, Digest)>,
    /// Identity of the task.
    pub task: Option<String>,
    /// The analysis time.
    pub analysis_time: AnalysisTime,
    /// The ensemble member.
    pub member: u32,
    /// The seed of random numbers.
    pub seed: Option<u64>,
}

impl Provenance {
    /// Global attributes; nothing in them depends on where or when the forecast is made.
    fn attributes(&self) -> Map<String, Value> {
        let version = env!("CARGO_PKG_VERSION");
        let model = self
            .model
            .as_deref()
            .unwrap_or("machine-learning weather model");
        let mut attributes = Map::new();
        let mut set = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
        set("Conventions", json!("CF-1.11"));
        set(
            "title",
            json!(format!("Forecast from {}", self.analysis_time)),
        );
        set(
            "source",
            json!(format!("{model}, run by mlwm-runner {version}")),
        );
        set("analysis_time", json!(self.analysis_time.to_string()));
        set("member", json!(self.member));
        if let Some(seed) = self.seed {
            set("seed", json!(seed));
        }
        if let Some((name, digest)) = &self.artifact {
            set("artifact", json!(name));
            set("artifact_record_digest", json!(digest.to_string()));
        }
        if let Some(task) = &self.task {
            set("mlwm_task", json!(task));
        }
        set("mlwm_runner_version", json!(version));
        attributes
    }
}

/// The outputs of a forecast, being written.
pub struct Outputs<'a> {
    layout: Layout<'a>,
    standardization: Standardization,
    features: usize,
    files: Vec<File>,
}

/// One output.
struct File {
    name: String,
    place: Place,
    writer: Writer,
    /// Numbers of the variables in the layout.
    variables: Vec<usize>,
}

impl<'a> Outputs<'a> {
    /// Starts all outputs that are asked for, with their coordinates.
    ///
    /// # Errors
    /// If an output asks for a variable that is not predicted, or cannot be written.
    pub fn create(
        requests: &[OutputRequest],
        inputs: &'a ForecastInputs,
        time_layout: TimeLayout,
        provenance: &Provenance,
    ) -> Result<Self, RunnerError> {
        let mut outputs = Self {
            layout: Layout::of(inputs, time_layout),
            standardization: Standardization::of(&inputs.state),
            features: inputs.state.len(),
            files: Vec::new(),
        };
        for request in requests {
            let variables = outputs.requested(request)?;
            let place = Place::find(&request.name, Path::new(&request.path))?;
            let format = match request.zarr_format {
                2 => ZarrFormat::V2,
                3 => ZarrFormat::V3,
                other => {
                    return Err(RunnerError::Environment(format!(
                        "output `{}` asks for Zarr format {other}: write 2 or 3",
                        request.name
                    )));
                }
            };
            let failed = |error: mlwm_datasets::Error| write_error(&request.name, &error);
            let mut writer =
                Writer::create(&place.partial, format, provenance.attributes()).map_err(failed)?;
            let plan = Plan {
                layout: &outputs.layout,
                schedule: &inputs.schedule,
            };
            plan.define(&mut writer, &variables).map_err(failed)?;
            outputs.files.push(File {
                name: request.name.clone(),
                place,
                writer,
                variables,
            });
        }
        Ok(outputs)
    }

    fn requested(&self, request: &OutputRequest) -> Result<Vec<usize>, RunnerError> {
        let names = || {
            self.layout
                .variables
                .iter()
                .map(|variable| variable.name.as_str())
        };
        let Some(wanted) = &request.variables else {
            return Ok((0..self.layout.variables.len()).collect());
        };
        let find = |name: &String| {
            names()
                .position(|there| there == name)
                .ok_or_else(|| RunnerError::NoVariable {
                    output: request.name.clone(),
                    variable: name.clone(),
                    there: names().collect::<Vec<_>>().join(", "),
                })
        };
        wanted.iter().map(find).collect()
    }

    /// Writes the metadata and brings every output to its place.
    ///
    /// # Errors
    /// If an output cannot be written, or a step of it never was.
    pub fn complete(self) -> Result<(), RunnerError> {
        for file in self.files {
            file.writer
                .finish()
                .map_err(|error| write_error(&file.name, &error))?;
            file.place.complete(&file.name)?;
        }
        Ok(())
    }

    /// Removes what was written of outputs that will not be completed.
    pub fn discard(self) {
        for file in self.files {
            // If it stays, the next run removes it.
            let _ = std::fs::remove_dir_all(&file.place.partial);
        }
    }
}

impl Sink for Outputs<'_> {
    fn take(&mut self, step: u64, state: &[f32]) -> Result<(), RunnerError> {
        for file in &self.files {
            for &number in &file.variables {
                let variable = &self.layout.variables[number];
                let physical = |column, value| self.standardization.physical(column, value);
                let values = self
                    .layout
                    .unstack(variable, state, self.features, physical);
                let step_dim = self.layout.step_dim.as_str();
                let start: Vec<u64> = self
                    .layout
                    .dims(variable, 1)
                    .iter()
                    .map(|(dim, _)| if *dim == step_dim { step - 1 } else { 0 })
                    .collect();
                file.writer
                    .write_block(&variable.name, &start, Values::F32(values))
                    .map_err(|error| write_error(&file.name, &error))?;
            }
        }
        Ok(())
    }
}

/// What one output consists of.
struct Plan<'a> {
    layout: &'a Layout<'a>,
    schedule: &'a Schedule,
}

impl Plan<'_> {
    /// Defines the variables of an output and writes their coordinates.
    fn define(&self, writer: &mut Writer, numbers: &[usize]) -> Result<(), mlwm_datasets::Error> {
        let mut written: Vec<String> = Vec::new();
        self.times(writer)?;
        for &number in numbers {
            let variable = &self.layout.variables[number];
            let positions = positions(variable.source, &self.layout.grid_dims);
            for name in self.layout.grid_dims.iter().chain(&positions) {
                copy_coordinate(writer, variable.source, name, &mut written)?;
            }
            let mapping = copy_grid_mapping(writer, variable, &mut written)?;
            let levels = variable.axes.iter().filter_map(|axis| match axis {
                crate::layout::Axis::Level(number) => Some(&self.layout.levels[*number]),
                _ => None,
            });
            for levels in levels {
                write_levels(writer, variable.source.dataset(), levels, &mut written)?;
            }
            let dims = self.layout.dims(variable, self.schedule.steps);
            let chunks: Vec<u64> = dims
                .iter()
                .map(|(dim, length)| {
                    if *dim == self.layout.step_dim {
                        1
                    } else {
                        *length
                    }
                })
                .collect();
            let mut definition = Definition::new(&variable.name, &dims, Element::F32)
                .chunks(&chunks)
                .attributes(attributes(variable))
                .attribute("coordinates", self.coordinate_names(&positions));
            if let Some(mapping) = mapping {
                definition = definition.attribute("grid_mapping", mapping);
            }
            writer.define(&definition)?;
        }
        Ok(())
    }

    /// Names of the coordinates of a variable other than those of its dimensions.
    fn coordinate_names(&self, positions: &[String]) -> String {
        let times = match self.layout.analysis_dim {
            None => [ANALYSIS_TIME, ELAPSED].as_slice(),
            Some(_) => ["time"].as_slice(),
        };
        let names = times
            .iter()
            .copied()
            .chain(positions.iter().map(String::as_str));
        names.collect::<Vec<_>>().join(" ")
    }

    /// Valid time, analysis time, and time since the analysis.
    fn times(&self, writer: &mut Writer) -> Result<(), mlwm_datasets::Error> {
        let valid = self.schedule.predicted();
        let analysis = self.schedule.analysis;
        let elapsed: Vec<i64> = valid.iter().map(|time| time - analysis).collect();
        let count = self.schedule.steps;
        let step = (self.layout.step_dim.as_str(), count);
        let (analysis_name, analysis_dims) = match self.layout.analysis_dim.as_deref() {
            None => (ANALYSIS_TIME, vec![]),
            Some(dim) => (dim, vec![(dim, 1)]),
        };
        let (valid_name, valid_dims, elapsed_name) = match analysis_dims.first() {
            None => (step.0, vec![step], ELAPSED),
            Some(analysis) => ("time", vec![*analysis, step], step.0),
        };
        let definitions = [
            (
                valid_name,
                valid_dims,
                valid,
                time_attributes(),
                "time",
                "valid time",
            ),
            (
                analysis_name,
                analysis_dims,
                vec![analysis],
                time_attributes(),
                "forecast_reference_time",
                "analysis time",
            ),
            (
                elapsed_name,
                vec![step],
                elapsed,
                duration_attributes(),
                "forecast_period",
                "time since the analysis",
            ),
        ];
        for (name, dims, values, attributes, standard_name, long_name) in definitions {
            let definition = Definition::new(name, &dims, Element::I64)
                .attributes(attributes)
                .attribute("standard_name", standard_name)
                .attribute("long_name", long_name);
            writer.define(&definition)?;
            let shape: Vec<usize> = dims.iter().map(|(_, length)| *length as usize).collect();
            let values = ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap_or_default();
            writer.write(name, Values::I64(values))?;
        }
        Ok(())
    }
}

/// Attributes of a predicted variable.
fn attributes(variable: &Variable<'_>) -> Map<String, Value> {
    let mut attributes = Map::new();
    let feature = variable.feature;
    for (name, value) in [("units", &feature.units), ("long_name", &feature.long_name)] {
        if !value.is_empty() {
            attributes.insert(name.to_owned(), json!(value));
        }
    }
    if let Ok(source) = variable.source.dataset().variable(&feature.variable) {
        for name in KEPT_ATTRIBUTES {
            if let Some(value) = source.attributes().get(name) {
                attributes.insert(name.to_owned(), value.clone());
            }
        }
    }
    attributes
}

/// Names of the coordinates that say where the points of the grid lie: those that the source's
/// variables or the source itself name, and well-known ones.
fn positions(source: &SourceInput, grid_dims: &[String]) -> Vec<String> {
    let dataset = source.dataset();
    let variables = dataset
        .names()
        .filter_map(|name| dataset.variable(name).ok());
    let named = variables.filter_map(|variable| variable.text_attribute("coordinates"));
    let global = dataset
        .attributes()
        .get("coordinates")
        .and_then(Value::as_str);
    let named = named.chain(global).flat_map(str::split_whitespace);
    let mut names: Vec<String> = POSITIONS
        .into_iter()
        .chain(named)
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names.retain(|name| {
        dataset.variable(name).is_ok_and(|variable| {
            let dims = variable.dims();
            !dims.is_empty()
                && !grid_dims.contains(name)
                && dims.iter().all(|dim| grid_dims.contains(dim))
                && variable.element() != Element::Text
        })
    });
    names
}

/// Copies a coordinate over the grid, cut to the part that is taken.
fn copy_coordinate(
    writer: &mut Writer,
    source: &SourceInput,
    name: &str,
    written: &mut Vec<String>,
) -> Result<(), mlwm_datasets::Error> {
    let Ok(variable) = source.dataset().variable(name) else {
        return Ok(());
    };
    if written.iter().any(|done| done == name) {
        return Ok(());
    }
    let ranges = source.grid_ranges_of(variable.dims());
    let lengths = ranges.iter().map(|range| range.end - range.start);
    let dims: Vec<(&str, u64)> = variable
        .dims()
        .iter()
        .map(String::as_str)
        .zip(lengths)
        .collect();
    let definition =
        Definition::new(name, &dims, variable.element()).attributes(plain_attributes(variable));
    writer.define(&definition)?;
    writer.write(name, variable.read_range(&ranges)?)?;
    written.push(name.to_owned());
    Ok(())
}

/// Copies the variable that describes the map projection; returns its name.
fn copy_grid_mapping(
    writer: &mut Writer,
    variable: &Variable<'_>,
    written: &mut Vec<String>,
) -> Result<Option<String>, mlwm_datasets::Error> {
    let dataset = variable.source.dataset();
    let name = dataset
        .variable(&variable.feature.variable)
        .ok()
        .and_then(|variable| variable.text_attribute("grid_mapping"));
    let Some(name) = name else { return Ok(None) };
    let Ok(mapping) = dataset.variable(name) else {
        return Ok(None);
    };
    if !mapping.dims().is_empty() {
        return Ok(None);
    }
    if !written.iter().any(|done| done == name) {
        let definition =
            Definition::new(name, &[], Element::I64).attributes(plain_attributes(mapping));
        writer.define(&definition)?;
        // Its value means nothing by convention.
        writer.write(name, Values::I64(ArrayD::from_elem(IxDyn(&[]), 0)))?;
        written.push(name.to_owned());
    }
    Ok(Some(name.to_owned()))
}

fn write_levels(
    writer: &mut Writer,
    dataset: &Dataset,
    levels: &Levels,
    written: &mut Vec<String>,
) -> Result<(), mlwm_datasets::Error> {
    if written.contains(&levels.name) {
        return Ok(());
    }
    let values = levels.stored();
    let dims = [(levels.name.as_str(), levels.values.len() as u64)];
    let attributes = plain_attributes(dataset.variable(&levels.source_name)?);
    let definition = Definition::new(&levels.name, &dims, values.element()).attributes(attributes);
    writer.define(&definition)?;
    writer.write(&levels.name, values)?;
    written.push(levels.name.clone());
    Ok(())
}

/// The attributes of a coordinate without those that name other variables.
fn plain_attributes(variable: &mlwm_datasets::Variable) -> Map<String, Value> {
    const LEFT_OUT: [&str; 4] = ["coordinates", "bounds", "grid_mapping", "dtype"];
    let mut attributes = variable.decoded_attributes();
    attributes.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    attributes
}

fn write_error(output: &str, error: &mlwm_datasets::Error) -> RunnerError {
    RunnerError::Write {
        output: output.to_owned(),
        reason: error.to_string(),
    }
}

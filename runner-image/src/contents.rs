//! What an output contains: predicted variables, times, and the coordinates of the source.

use mlwm_datasets::prepare::{Schedule, SourceInput};
use mlwm_datasets::{
    Dataset, Definition, Element, Values, Writer, duration_attributes, time_attributes,
};
use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value, json};

use crate::layout::{Axis, Layout, Levels, Variable};

/// Names of coordinates that say where a grid point lies.
const POSITIONS: [&str; 4] = ["lat", "lon", "latitude", "longitude"];

/// Attributes of a predicted variable that are those of the source variable.
const KEPT_ATTRIBUTES: [&str; 3] = ["standard_name", "cell_methods", "positive"];

/// The scalar or dimension coordinate of the analysis time.
const ANALYSIS_TIME: &str = "analysis_time";

/// The time since the analysis.
const ELAPSED: &str = "elapsed_forecast_duration";

/// What an output is made of.
pub(crate) struct Contents<'a> {
    pub(crate) layout: &'a Layout<'a>,
    pub(crate) schedule: &'a Schedule,
}

impl Contents<'_> {
    /// Defines the variables of an output and writes their coordinates.
    pub(crate) fn define(
        &self,
        writer: &mut Writer,
        numbers: &[usize],
    ) -> Result<(), mlwm_datasets::Error> {
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
                Axis::Level(number) => Some(&self.layout.levels[*number]),
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
    for (name, value) in &feature.selected {
        attributes.insert(name.clone(), json!(value.as_f64()));
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

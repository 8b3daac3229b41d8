//! What an output contains: predicted variables, times, and the coordinates of the source.

use mlwm_datasets::prepare::SourceInput;
use mlwm_datasets::{
    Dataset, Definition, Element, Values, Writer, duration_attributes, time_attributes,
};
use ndarray::{Array1, ArrayD, IxDyn};
use serde_json::{Map, Value, json};

use crate::forecast::{Forecast, Inputs};
use crate::layout::{Axis, Layout, Levels, Origin, Variable};

/// Names of coordinates that say where a grid point lies.
const POSITIONS: [&str; 4] = ["lat", "lon", "latitude", "longitude"];

/// Attributes of a predicted variable that are those of the source variable.
const KEPT_ATTRIBUTES: [&str; 3] = ["standard_name", "cell_methods", "positive"];

/// The scalar or dimension coordinate of the analysis time.
const ANALYSIS_TIME: &str = "analysis_time";

/// The time since the analysis.
const ELAPSED: &str = "elapsed_forecast_duration";

/// The attribute of a variable that has no value at some points of the grid: how many those are, at
/// every step.
const MISSING_POINTS: &str = "missing_points";

/// What an output is made of.
pub(crate) struct Contents<'a> {
    pub(crate) forecast: &'a Forecast<'a>,
    pub(crate) layout: &'a Layout<'a>,
    /// First and last step, from 1.
    pub(crate) steps: (u64, u64),
    /// How many steps a chunk has.
    pub(crate) chunk_steps: u64,
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
            let origin = variable.origin.or_else(|| self.any_origin());
            let mut mapping = None;
            let positions = match origin {
                Some(origin) => {
                    let positions = positions(origin.source, &self.layout.grid_dims);
                    for name in self.layout.grid_dims.iter().chain(&positions) {
                        copy_coordinate(writer, origin.source, name, &mut written)?;
                    }
                    mapping = copy_grid_mapping(writer, origin, &mut written)?;
                    positions
                }
                None => self.grid_of_state(writer, &mut written)?,
            };
            let levels = variable.axes.iter().filter_map(|axis| match axis {
                Axis::Level(number) => Some(&self.layout.levels[*number]),
                _ => None,
            });
            if let Some(origin) = origin {
                for levels in levels {
                    write_levels(writer, origin.source.dataset(), levels, &mut written)?;
                }
            }
            let dims = self.layout.dims(variable, self.count());
            let chunks: Vec<u64> = dims
                .iter()
                .map(|(dim, length)| {
                    if *dim == self.layout.step_dim {
                        self.chunk_steps
                    } else {
                        *length
                    }
                })
                .collect();
            let mut definition = Definition::new(&variable.name, &dims, Element::F32)
                .chunks(&chunks)
                .attributes(self.attributes(variable))
                .attribute("coordinates", self.coordinate_names(&positions));
            if let Some(mapping) = mapping {
                definition = definition.attribute("grid_mapping", mapping);
            }
            writer.define(&definition)?;
        }
        Ok(())
    }

    /// Number of steps.
    fn count(&self) -> u64 {
        self.steps.1 + 1 - self.steps.0
    }

    /// The origin of any variable: a diagnostic lies on the grid of the others.
    fn any_origin(&self) -> Option<Origin<'_>> {
        self.layout
            .variables
            .iter()
            .find_map(|variable| variable.origin)
    }

    /// Writes coordinates that come from the interface and what the forecast starts from; returns the names of
    /// those that are not dimensions.
    fn grid_of_state(
        &self,
        writer: &mut Writer,
        written: &mut Vec<String>,
    ) -> Result<Vec<String>, mlwm_datasets::Error> {
        let grid = &self.forecast.interface.grid;
        let names = grid.dims.iter().map(String::as_str);
        let lengths = self.layout.grid_shape.iter().map(|length| *length as u64);
        let dims: Vec<(&str, u64)> = names.zip(lengths).collect();
        let carried = match &self.forecast.inputs {
            Inputs::State(state) => state.coordinates(),
            Inputs::Points(inputs) => inputs.coordinates(),
            Inputs::Datastores(_) => &[],
        };
        let names = carried.iter().map(|coordinate| coordinate.name.clone());
        let names = names.filter(|name| !grid.dims.contains(name)).collect();
        if !written.is_empty() {
            return Ok(names);
        }
        for (dim, values) in dims.iter().zip(&grid.coordinates) {
            writer.define(&Definition::new(dim.0, &[*dim], Element::F64))?;
            writer.write(dim.0, Values::F64(Array1::from(values.clone()).into_dyn()))?;
        }
        for coordinate in carried {
            let element = coordinate.values.element();
            let definition = Definition::new(&coordinate.name, &dims, element)
                .attributes(coordinate.attributes.clone());
            writer.define(&definition)?;
            writer.write(&coordinate.name, coordinate.values.clone())?;
        }
        written.extend(grid.dims.clone());
        Ok(names)
    }

    /// Attributes of a predicted variable.
    fn attributes(&self, variable: &Variable<'_>) -> Map<String, Value> {
        let mut attributes = match variable.origin {
            Some(origin) => attributes(origin),
            None => match &self.forecast.inputs {
                Inputs::Points(inputs) => inputs
                    .attributes(&variable.name)
                    .cloned()
                    .unwrap_or_default(),
                _ => Map::new(),
            },
        };
        let declared = self.forecast.interface.attributes.get(&variable.name);
        for (name, value) in declared.into_iter().flatten() {
            attributes.insert(name.clone(), json!(value));
        }
        let masks = self.forecast.masks().iter();
        let missing = masks.filter(|mask| variable.columns.contains(&mask.column));
        for mask in missing {
            attributes.insert(MISSING_POINTS.to_owned(), json!(mask.points.len()));
        }
        attributes
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
        let schedule = self.forecast.schedule();
        let steps = self.steps.0..=self.steps.1;
        let valid: Vec<i64> = steps.map(|step| schedule.valid_time(step as i64)).collect();
        let analysis = schedule.analysis;
        let elapsed: Vec<i64> = valid.iter().map(|time| time - analysis).collect();
        let count = self.count();
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

/// Attributes of a variable in its source.
fn attributes(origin: Origin<'_>) -> Map<String, Value> {
    let mut attributes = Map::new();
    let feature = origin.feature;
    for (name, value) in [("units", &feature.units), ("long_name", &feature.long_name)] {
        if !value.is_empty() {
            attributes.insert(name.to_owned(), json!(value));
        }
    }
    for (name, value) in &feature.selected {
        attributes.insert(name.clone(), json!(value.as_f64()));
    }
    if let Ok(source) = origin.source.dataset().variable(&feature.variable) {
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
        Definition::new(name, &dims, variable.element()).attributes(variable.plain_attributes());
    writer.define(&definition)?;
    writer.write(name, variable.read_range(&ranges)?)?;
    written.push(name.to_owned());
    Ok(())
}

/// Copies the variable that describes the map projection; returns its name.
fn copy_grid_mapping(
    writer: &mut Writer,
    origin: Origin<'_>,
    written: &mut Vec<String>,
) -> Result<Option<String>, mlwm_datasets::Error> {
    let dataset = origin.source.dataset();
    let name = dataset
        .variable(&origin.feature.variable)
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
            Definition::new(name, &[], Element::I64).attributes(mapping.plain_attributes());
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
    let attributes = dataset.variable(&levels.source_name)?.plain_attributes();
    let definition = Definition::new(&levels.name, &dims, values.element()).attributes(attributes);
    writer.define(&definition)?;
    writer.write(&levels.name, values)?;
    written.push(levels.name.clone());
    Ok(())
}

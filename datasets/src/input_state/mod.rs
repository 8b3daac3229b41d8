//! Input states: one file with the fields that a forecast starts from, as `interface.json`
//! declares them. A state is checked wholly before the model is loaded, so that one of another
//! time, or with other contents, never becomes a forecast. [`InitialState::read`] is both what the
//! runner starts from, and the check before anything is started.

mod check;
mod error;
mod file;
mod npy;
mod npz;
#[cfg(test)]
mod tests;

use std::path::Path;

use mlwm_spec::AnalysisTime;
use mlwm_spec::interface::{InputRole, Interface, MissingWhere, StateField, StateSchema};
use serde_json::{Map, Value};

use crate::Values;
use crate::prepare::Schedule;

pub use error::StateError;
use file::StateFile;
pub use npy::npy_integers;

/// An input state that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct StateRequest<'a> {
    /// What the model needs.
    pub interface: &'a Interface,
    /// What the file must hold.
    pub schema: &'a StateSchema,
    /// The file: a Zarr store, NetCDF, or a `.npz`.
    pub path: &'a Path,
    /// The analysis time.
    pub analysis_time: AnalysisTime,
    /// Number of steps to predict.
    pub steps: u64,
}

/// An input state, read and checked.
#[derive(Debug)]
pub struct InitialState {
    /// The times of the forecast.
    pub schedule: Schedule,
    /// The known states that the model looks at, oldest first, `[grid_index, feature]`.
    pub states: Vec<Vec<f32>>,
    /// Names of the features.
    names: Vec<String>,
    /// Further arrays over the grid.
    coordinates: Vec<Coordinate>,
}

/// An array over the grid that outputs get, too.
#[derive(Clone, Debug)]
pub struct Coordinate {
    /// Its name.
    pub name: String,
    /// Its values, over all dimensions of the grid.
    pub values: Values,
    /// Its attributes, without those that name other variables.
    pub attributes: Map<String, Value>,
}

/// Checks names, times and fields of a state; each field, by its number, is handed over once.
fn checked(
    request: &StateRequest<'_>,
    mut take: impl FnMut(usize, &[f32]),
) -> Result<StateFile, StateError> {
    let StateRequest {
        interface, schema, ..
    } = *request;
    let mut file = StateFile::open(request.path)?;
    check::names(&mut file, interface, schema)?;
    check::times(&mut file, schema, request.analysis_time.unix_seconds())?;
    // Constant fields that are nowhere missing come first: masks are made of them.
    let mut constants = Vec::new();
    let is_mask = |field: &&StateField| field.constant && field.missing.is_none();
    for field in schema.fields.iter().filter(is_mask) {
        let values = check::field(&mut file, interface, schema, field, &constants)?;
        constants.push((field.name.clone(), values));
    }
    for (column, field) in schema.fields.iter().enumerate() {
        let known = constants.iter().find(|(name, _)| *name == field.name);
        match known {
            Some((_, values)) => take(column, values),
            None => {
                let values = check::field(&mut file, interface, schema, field, &constants)?;
                take(column, &values);
            }
        }
    }
    Ok(file)
}

impl InitialState {
    /// Reads a state and checks all of it.
    ///
    /// # Errors
    /// What the schema does not allow, with the field and what was expected.
    pub fn read(request: &StateRequest<'_>) -> Result<Self, StateError> {
        let StateRequest {
            interface, schema, ..
        } = *request;
        let points = interface.grid.points() as usize;
        let features = schema.fields.len();
        let mut all = vec![vec![0.0; points * features]; schema.offsets_seconds.len()];
        let mut file = checked(request, |column, values| {
            for (state, values) in all.iter_mut().zip(values.chunks_exact(points)) {
                for (row, value) in state.chunks_exact_mut(features).zip(values) {
                    row[column] = *value;
                }
            }
        })?;
        Ok(Self {
            schedule: Schedule {
                analysis: request.analysis_time.unix_seconds(),
                last_known: request.analysis_time.unix_seconds(),
                step: interface.step_seconds,
                steps: request.steps,
            },
            states: needed(all, interface, schema),
            names: interface.state.names.clone(),
            coordinates: check::coordinates(&mut file, interface, schema)?,
        })
    }

    /// Checks a state as [`InitialState::read`] does, without keeping it: one field is in memory, and those that say
    /// where others are missing.
    ///
    /// # Errors
    /// What the schema does not allow, with the field and what was expected.
    pub fn check(request: &StateRequest<'_>) -> Result<(), StateError> {
        let mut file = checked(request, |_, _| {})?;
        check::coordinates(&mut file, request.interface, request.schema).map(drop)
    }

    /// Static features by name of the model's input, `[grid_index, feature]`.
    pub fn statics(&self, interface: &Interface) -> Vec<(String, Vec<f32>)> {
        let features = self.names.len();
        let last = self.states.last().map_or(&[][..], Vec::as_slice);
        let mut statics = Vec::new();
        for input in &interface.inputs {
            if let InputRole::Static {
                features: wanted, ..
            } = &input.role
            {
                let columns: Vec<usize> = wanted
                    .names
                    .iter()
                    .filter_map(|name| self.column(name))
                    .collect();
                let rows = last.chunks_exact(features.max(1));
                let values = rows.flat_map(|row| columns.iter().map(|column| row[*column]));
                statics.push((input.name.clone(), values.collect()));
            }
        }
        statics
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|there| there == name)
    }

    /// The points where a field has a value; `None` if there is no such field.
    pub fn points_where(&self, place: &MissingWhere) -> Option<Vec<usize>> {
        let column = self.column(&place.field)?;
        let rows = self.states.last()?.chunks_exact(self.names.len());
        let is_there = |row: &[f32]| f64::from(row[column]) == place.equals;
        let numbered = rows.enumerate().filter(|(_, row)| is_there(row));
        Some(numbered.map(|(point, _)| point).collect())
    }

    /// Further arrays over the grid, for outputs.
    pub fn coordinates(&self) -> &[Coordinate] {
        &self.coordinates
    }
}

/// The states that the model looks at, oldest first, of those in the file.
fn needed(all: Vec<Vec<f32>>, interface: &Interface, schema: &StateSchema) -> Vec<Vec<f32>> {
    let mut numbered: Vec<Option<Vec<f32>>> = all.into_iter().map(Some).collect();
    let backs = (0..interface.known_states()).rev();
    let states = backs.filter_map(|back| {
        let offset = -interface.step_seconds.saturating_mul(back.cast_signed());
        let at = schema
            .offsets_seconds
            .iter()
            .position(|there| *there == offset)?;
        numbered.get_mut(at)?.take()
    });
    states.collect()
}

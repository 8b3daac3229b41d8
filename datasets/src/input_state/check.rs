//! Whether a file is the input state that is declared.

use std::path::Path;

use mlwm_spec::interface::{Interface, MissingWhere, StateField, StateSchema};

use super::file::StateFile;
use super::{Coordinate, StateError};
use crate::Values;

/// Nothing is missing and nothing too much.
pub(super) fn names(
    file: &mut StateFile,
    interface: &Interface,
    schema: &StateSchema,
) -> Result<(), StateError> {
    let there = file.names();
    let fields = schema.fields.iter().map(|field| &field.name);
    let mut needed = fields.chain(&schema.coordinates);
    if let Some(name) = needed.find(|name| !there.contains(name)) {
        return Err(StateError::Missing {
            path: file.path().to_owned(),
            name: name.clone(),
            there,
        });
    }
    let is_known = |name: &String| {
        name == "time"
            || schema.field(name).is_some()
            || schema.coordinates.contains(name)
            || interface.grid.dims.contains(name)
    };
    match there.into_iter().find(|name| !is_known(name)) {
        Some(name) => Err(StateError::Extra {
            path: file.path().to_owned(),
            name,
        }),
        None => Ok(()),
    }
}

/// The state is that of the analysis time.
pub(super) fn times(
    file: &mut StateFile,
    schema: &StateSchema,
    analysis: i64,
) -> Result<(), StateError> {
    let expected: Vec<i64> = schema
        .offsets_seconds
        .iter()
        .map(|offset| analysis + offset)
        .collect();
    let found = file.times(expected.len())?;
    match found == expected {
        true => Ok(()),
        false => Err(StateError::Times {
            path: file.path().to_owned(),
            found,
            expected,
        }),
    }
}

/// The values of a field, `[time, grid_index]`, with what the model sees where they are missing.
pub(super) fn field(
    file: &mut StateFile,
    interface: &Interface,
    schema: &StateSchema,
    field: &StateField,
    constants: &[(String, Vec<f32>)],
) -> Result<Vec<f32>, StateError> {
    let points = interface.grid.points() as usize;
    let mut dims = vec![("time", schema.offsets_seconds.len() as u64)];
    let lengths = interface.grid.shape.iter().copied();
    dims.extend(interface.grid.dims.iter().map(String::as_str).zip(lengths));
    let mut values = floats(file.read(&field.name, &dims, field.dtype.name())?);
    let path = file.path();
    let is_missing = match &field.missing {
        None => vec![false; points],
        Some(missing) => mask(&missing.place, constants, points),
    };
    check_finite(path, field, &values, &is_missing)?;
    check_range(path, field, &values)?;
    if field.constant {
        let first = &values[..points];
        let same = |other: &[f32]| {
            let pairs = other.iter().zip(first);
            pairs
                .into_iter()
                .all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
        };
        if !values.chunks_exact(points).all(same) {
            return Err(StateError::NotConstant {
                path: path.to_owned(),
                field: field.name.clone(),
            });
        }
    }
    if let Some(fill) = field.missing.as_ref().and_then(|missing| missing.fill) {
        for time in values.chunks_exact_mut(points) {
            let masked = time
                .iter_mut()
                .zip(&is_missing)
                .filter(|(_, missing)| **missing);
            masked.for_each(|(value, _)| *value = fill);
        }
    }
    Ok(values)
}

fn mask(place: &MissingWhere, constants: &[(String, Vec<f32>)], points: usize) -> Vec<bool> {
    let field = constants.iter().find(|(name, _)| *name == place.field);
    let values = field.map_or(&[][..], |(_, values)| &values[..points]);
    values
        .iter()
        .map(|value| f64::from(*value) == place.equals)
        .collect()
}

fn check_finite(
    path: &Path,
    field: &StateField,
    values: &[f32],
    is_missing: &[bool],
) -> Result<(), StateError> {
    let of_mask = is_missing.iter().cycle();
    let (mut wrong, mut present) = (0, 0);
    for (value, missing) in values.iter().zip(of_mask) {
        match missing {
            true if !value.is_nan() => present += 1,
            false if !value.is_finite() => wrong += 1,
            _ => {}
        }
    }
    let place = field.missing.as_ref().map(|missing| &missing.place);
    let place = |always: &str, but: &str| match place {
        None => always.to_owned(),
        Some(place) => format!("{but}where `{}` is {}", place.field, place.equals),
    };
    if wrong > 0 {
        return Err(StateError::NotFinite {
            path: path.to_owned(),
            field: field.name.clone(),
            count: wrong,
            place: place("everywhere", "but "),
        });
    }
    match present {
        0 => Ok(()),
        count => Err(StateError::NotMissing {
            path: path.to_owned(),
            field: field.name.clone(),
            count,
            place: place("nowhere", ""),
        }),
    }
}

fn check_range(path: &Path, field: &StateField, values: &[f32]) -> Result<(), StateError> {
    let Some(range) = field.range else {
        return Ok(());
    };
    let is_out = |value: &f64| *value < range[0] || *value > range[1];
    match values.iter().map(|value| f64::from(*value)).find(is_out) {
        None => Ok(()),
        Some(value) => Err(StateError::Range {
            path: path.to_owned(),
            field: field.name.clone(),
            value,
            range,
        }),
    }
}

/// The arrays over the grid that outputs get, too.
pub(super) fn coordinates(
    file: &mut StateFile,
    interface: &Interface,
    schema: &StateSchema,
) -> Result<Vec<Coordinate>, StateError> {
    let lengths = interface.grid.shape.iter().copied();
    let dims: Vec<(&str, u64)> = interface
        .grid
        .dims
        .iter()
        .map(String::as_str)
        .zip(lengths)
        .collect();
    let mut coordinates = Vec::new();
    for name in &schema.coordinates {
        let values = file.read(name, &dims, "float32 or float64")?;
        coordinates.push(Coordinate {
            name: name.clone(),
            attributes: file.attributes(name),
            values,
        });
    }
    Ok(coordinates)
}

/// Values that are known to be floating point, as float32.
fn floats(values: Values) -> Vec<f32> {
    match values {
        Values::F32(values) => values.into_iter().collect(),
        Values::F64(values) => values.into_iter().map(|value| value as f32).collect(),
        Values::I64(_) | Values::Text(_) => Vec::new(),
    }
}

//! Where the points lie: the same in all stores.

use mlwm_spec::interface::PointModel;

use super::Coordinate;
use super::store::Store;
use crate::Values;
use crate::prepare::PrepareError;

/// How far coordinates of the same point may lie apart: those of one grid, computed by two programs,
/// differ by up to 5e-5 degrees.
const TOLERANCE: f64 = 1e-3;

/// Checks that numbers and coordinates of the points are the same in all stores that have them, and
/// returns those that outputs get.
pub(super) fn check(
    stores: &[Store],
    model: &PointModel,
    dim: &str,
    points: u64,
) -> Result<Vec<Coordinate>, PrepareError> {
    let mut coordinates = Vec::new();
    let needed = model
        .coordinates
        .iter()
        .map(|name| (name.as_str(), TOLERANCE));
    for (name, tolerance) in [(dim, 0.0)].into_iter().chain(needed) {
        let mut with = stores.iter().filter(|store| store.dataset.contains(name));
        match with.next() {
            Some(first) => {
                let coordinate = read(first, name, dim, points)?;
                for other in with {
                    compare(first, &coordinate, other, dim, tolerance)?;
                }
                coordinates.push(coordinate);
            }
            // Points without numbers are known by their order.
            None if name == dim => {}
            None => {
                // Says what the store has instead.
                stores[0].dataset.variable(name)?;
            }
        }
    }
    Ok(coordinates)
}

fn read(store: &Store, name: &str, dim: &str, points: u64) -> Result<Coordinate, PrepareError> {
    let variable = store.dataset.variable(name)?;
    if variable.dims() != [dim] {
        return Err(store.unusable(format!(
            "the coordinate `{name}` has the dimensions ({}), not ({dim})",
            variable.dims().join(", ")
        )));
    }
    store.check_points(variable, dim, points)?;
    Ok(Coordinate {
        name: name.to_owned(),
        values: variable.read()?,
        attributes: variable.plain_attributes(),
    })
}

fn compare(
    first: &Store,
    coordinate: &Coordinate,
    other: &Store,
    dim: &str,
    tolerance: f64,
) -> Result<(), PrepareError> {
    let name = &coordinate.name;
    let expected = doubles(&coordinate.values)?;
    let found = read(other, name, dim, expected.len() as u64)?;
    let found = doubles(&found.values)?;
    let differs = |(expected, found): &(f64, f64)| {
        let apart = (expected - found).abs();
        // Longitudes go around.
        let apart = match name.starts_with("lon") {
            true => apart.min((360.0 - apart).abs()),
            false => apart,
        };
        // NaN is nowhere.
        apart > tolerance || apart.is_nan()
    };
    let pairs = expected.into_iter().zip(found).enumerate();
    let mut different = pairs.filter(|(_, pair)| differs(pair));
    match different.next() {
        None => Ok(()),
        Some((point, (expected, found))) => Err(other.unusable(format!(
            "its points are others than those of `{}`: `{name}` of point {point} is {found}, not {expected} \
             ({} points differ): give stores of the same points in the same order",
            first.path.display(),
            different.count() + 1
        ))),
    }
}

fn doubles(values: &Values) -> Result<Vec<f64>, PrepareError> {
    Ok(values.clone().into_f64()?.into_iter().collect())
}

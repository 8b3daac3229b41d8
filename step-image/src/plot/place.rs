//! Where the values of a variable are on Earth.

use mlwm_datasets::{Dataset, Values, Variable};

use crate::{Fault, new_store};

/// The latitudes and longitudes of a store.
pub(super) struct Places {
    latitude: Coordinate,
    longitude: Coordinate,
}

/// One of them, along one dimension.
struct Coordinate {
    dim: String,
    values: Vec<f64>,
}

/// How a variable lies on Earth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Rows and columns: the dimensions of the latitudes and of the longitudes.
    Grid { y: usize, x: usize },
    /// Points along one dimension.
    Points { dim: usize },
}

impl Layout {
    pub(super) fn has(self, axis: usize) -> bool {
        match self {
            Self::Grid { y, x } => axis == y || axis == x,
            Self::Points { dim } => axis == dim,
        }
    }
}

/// The point of a variable nearest to another.
pub(super) struct Nearest {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    /// Its number along dimensions.
    pub(super) indices: Vec<(usize, u64)>,
}

impl Places {
    pub(super) fn of(dataset: &Dataset) -> Result<Self, Fault> {
        Ok(Self {
            latitude: coordinate(dataset, ["lat", "latitude"], "north")?,
            longitude: coordinate(dataset, ["lon", "longitude"], "east")?,
        })
    }

    /// How a variable lies on Earth, if it does.
    pub(super) fn layout(&self, variable: &Variable) -> Option<Layout> {
        let axis = |coordinate: &Coordinate| {
            variable
                .dims()
                .iter()
                .position(|dim| *dim == coordinate.dim)
        };
        let (y, x) = (axis(&self.latitude)?, axis(&self.longitude)?);
        Some(match y == x {
            true => Layout::Points { dim: y },
            false => Layout::Grid { y, x },
        })
    }

    /// The longitudes and latitudes of a map.
    pub(super) fn coordinates(&self, layout: &Layout) -> (Vec<f64>, Vec<f64>) {
        let (x, y) = (self.longitude.values.clone(), self.latitude.values.clone());
        match layout {
            Layout::Grid { .. } => (x, y),
            // East of 180 degrees is west, so that a map of the world has Europe in its middle.
            Layout::Points { .. } => (
                x.into_iter()
                    .map(|x| if x > 180.0 { x - 360.0 } else { x })
                    .collect(),
                y,
            ),
        }
    }

    /// The nearest point on the sphere.
    pub(super) fn nearest(&self, layout: &Layout, latitude: f64, longitude: f64) -> Nearest {
        let (latitudes, longitudes) = (&self.latitude.values, &self.longitude.values);
        match *layout {
            Layout::Points { dim } => {
                let distance =
                    |at: &usize| apart((latitudes[*at], longitudes[*at]), (latitude, longitude));
                let at = least(latitudes.len().min(longitudes.len()), distance);
                Nearest {
                    latitude: latitudes[at],
                    longitude: longitudes[at],
                    indices: vec![(dim, at as u64)],
                }
            }
            Layout::Grid { y, x } => {
                let row = least(latitudes.len(), |at| (latitudes[*at] - latitude).abs());
                let around = |at: &usize| apart((latitude, longitudes[*at]), (latitude, longitude));
                let column = least(longitudes.len(), around);
                Nearest {
                    latitude: latitudes[row],
                    longitude: longitudes[column],
                    indices: vec![(y, row as u64), (x, column as u64)],
                }
            }
        }
    }
}

fn least(count: usize, distance: impl Fn(&usize) -> f64) -> usize {
    let all = (0..count).min_by(|one, other| distance(one).total_cmp(&distance(other)));
    all.unwrap_or(0)
}

/// The square of the length of the straight line between two points of a unit sphere.
fn apart(one: (f64, f64), other: (f64, f64)) -> f64 {
    let place = |(latitude, longitude): (f64, f64)| {
        let (latitude, longitude) = (latitude.to_radians(), longitude.to_radians());
        [
            latitude.cos() * longitude.cos(),
            latitude.cos() * longitude.sin(),
            latitude.sin(),
        ]
    };
    let pairs = place(one).into_iter().zip(place(other));
    pairs.map(|(one, other)| (one - other).powi(2)).sum()
}

fn coordinate(dataset: &Dataset, names: [&str; 2], direction: &str) -> Result<Coordinate, Fault> {
    let is_it = |variable: &&Variable| {
        let units = variable.text_attribute("units").unwrap_or_default();
        let in_degrees = units.starts_with("degree") && units.ends_with(direction);
        variable.dims().len() == 1 && (names.contains(&variable.name()) || in_degrees)
    };
    let found = new_store::variables(dataset)?.into_iter().find(is_it);
    let variable = found.ok_or_else(|| {
        let reason = format!(
            "it has no `{}` along one dimension, so that nothing can be placed on a map",
            names[1]
        );
        Fault::store(dataset.path(), reason)
    })?;
    Ok(Coordinate {
        dim: variable.dims()[0].clone(),
        values: variable.read()?.into_f64()?.into_iter().collect(),
    })
}

/// A point as people write it: `51.83°N 11.23°E`.
pub(super) fn text(latitude: f64, longitude: f64) -> String {
    let longitude = if longitude > 180.0 {
        longitude - 360.0
    } else {
        longitude
    };
    let (north, east) = (
        if latitude < 0.0 { 'S' } else { 'N' },
        if longitude < 0.0 { 'W' } else { 'E' },
    );
    format!(
        "{:.2}°{north} {:.2}°{east}",
        latitude.abs(),
        longitude.abs()
    )
}

/// What a map says of a number along a dimension: its coordinate, if there is one.
pub(super) fn described(dataset: &Dataset, dim: &str, at: u64) -> String {
    let range = at..at + 1;
    let value = dataset
        .variable(dim)
        .and_then(|variable| variable.read_range(&[range]));
    match value {
        Ok(Values::F32(values)) if !values.is_empty() => format!("{dim} {}", values[[0]]),
        Ok(Values::F64(values)) if !values.is_empty() => format!("{dim} {}", values[[0]]),
        Ok(Values::I64(values)) if !values.is_empty() => format!("{dim} {}", values[[0]]),
        Ok(Values::Text(values)) if !values.is_empty() => format!("{dim} {}", values[[0]]),
        _ => format!("{dim} number {at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_point_is_taken_across_the_date_line() {
        let places = Places {
            latitude: Coordinate {
                dim: "x".to_owned(),
                values: vec![0.0, 10.0, 10.0, 89.0],
            },
            longitude: Coordinate {
                dim: "x".to_owned(),
                values: vec![0.0, 179.0, 350.0, 90.0],
            },
        };
        let at = |latitude, longitude| {
            places
                .nearest(&Layout::Points { dim: 1 }, latitude, longitude)
                .indices
        };
        assert_eq!(at(11.0, -179.0), [(1, 1)]);
        assert_eq!(at(9.0, -12.0), [(1, 2)]);
        assert_eq!(at(80.0, -90.0), [(1, 3)]);
        let grid = places.nearest(&Layout::Grid { y: 0, x: 2 }, 8.0, -5.0);
        assert_eq!(grid.indices, [(0, 1), (2, 0)]);
        assert_eq!(text(51.826, 358.5), "51.83°N 1.50°W");
    }
}

//! What the training dataset tells: statistics, feature names and the grid.

use std::path::Path;

use mlwm_datasets::{Dataset, Statistics};

use crate::error::Error;

/// Feature names and statistics of one datastore.
pub(crate) struct TrainingStatistics {
    datastore: String,
    stored: Statistics,
}

impl TrainingStatistics {
    /// Copies the statistics of a training dataset into a Zarr group of their own.
    pub(crate) fn extract(datastore: &str, training: &Path, group: &Path) -> Result<Self, Error> {
        mlwm_datasets::extract_statistics(training, group)
            .map_err(|error| fault(datastore, error.to_string()))?;
        Self::open(datastore, group)
    }

    /// Reads a Zarr group of statistics.
    pub(crate) fn open(datastore: &str, group: &Path) -> Result<Self, Error> {
        Statistics::open(group)
            .map(|stored| Self {
                datastore: datastore.to_owned(),
                stored,
            })
            .map_err(|error| fault(datastore, error.to_string()))
    }

    /// The variables that there are statistics of.
    pub(crate) fn variables(&self) -> Vec<String> {
        self.stored.variables()
    }

    /// Names of the features of a variable, or none if there are no statistics of it.
    pub(crate) fn features(&self, variable: &str) -> Result<Option<Vec<String>>, Error> {
        if !self
            .stored
            .variables()
            .iter()
            .any(|known| known == variable)
        {
            return Ok(None);
        }
        self.stored
            .features(variable)
            .map(Some)
            .map_err(|error| fault(&self.datastore, error.to_string()))
    }

    /// One statistic of a variable, one finite value per feature, in the unit of the feature.
    pub(crate) fn get(
        &self,
        variable: &str,
        split: &str,
        operation: &str,
    ) -> Result<Vec<f64>, Error> {
        let why = match (
            self.features(variable)?,
            self.stored.get(variable, split, operation),
        ) {
            (Some(features), Ok(found)) if features.len() == found.values.len() => {
                return Ok(found.values);
            }
            (Some(features), Ok(found)) => format!(
                "`{variable}__{split}__{operation}` has {} values for {} features",
                found.values.len(),
                features.len()
            ),
            (None, _) | (_, Err(mlwm_datasets::Error::NoVariable { .. })) => format!(
                "the training dataset has no `{variable}__{split}__{operation}`: make it again with `compute_statistics` for the split `{split}`"
            ),
            (_, Err(error)) => error.to_string(),
        };
        Err(fault(&self.datastore, why))
    }
}

fn fault(datastore: &str, why: String) -> Error {
    Error::Statistics {
        datastore: datastore.to_owned(),
        why,
    }
}

/// The coordinate values of each stacked dimension of a training dataset, of the lengths in
/// `shape`, or nothing if the dataset does not hold them. `dims` are in stacking order, slowest
/// first.
pub(crate) fn grid_coordinates(
    datastore: &str,
    training: &Path,
    dims: &[String],
    shape: &[u64],
) -> Result<Vec<Vec<f64>>, Error> {
    let fault = |why: String| grid_fault(datastore, why);
    let dataset = Dataset::open(training).map_err(|error| fault(error.to_string()))?;
    let Some(stored) = stored_coordinates(&dataset, dims).map_err(fault)? else {
        return Ok(Vec::new());
    };
    let mut coordinates = Vec::with_capacity(dims.len());
    for (axis, (dim, stored)) in dims.iter().zip(stored).enumerate() {
        coordinates.push(match stored {
            Stored::Stacked(values) => unstack(&values, axis, shape)
                .ok_or_else(|| fault(format!("its `{dim}` does not change along `grid_index` as it must where {} are stacked to {shape:?}", dims.join(", "))))?,
            Stored::Gathered(values) if values.len() as u64 == shape[axis] => values,
            Stored::Gathered(values) => {
                return Err(fault(format!(
                    "its `{dim}` has {} values where {} are expected",
                    values.len(),
                    shape[axis]
                )));
            }
        });
    }
    if let Some(order) = gathering_order(&dataset)
        && order != dims
    {
        return Err(fault(format!(
            "it is stacked in the order {}, the interface says {}",
            order.join(", "),
            dims.join(", ")
        )));
    }
    Ok(coordinates)
}

/// The length of each stacked dimension of a training dataset, as its coordinates tell; `None` if
/// it does not hold them.
pub(crate) fn grid_shape(
    datastore: &str,
    training: &Path,
    dims: &[String],
) -> Result<Option<Vec<u64>>, Error> {
    let fault = |why: String| grid_fault(datastore, why);
    let dataset = Dataset::open(training).map_err(|error| fault(error.to_string()))?;
    let stored = stored_coordinates(&dataset, dims).map_err(fault)?;
    let length = |stored: Stored| match stored {
        Stored::Stacked(values) if dims.len() > 1 => distinct(values),
        // A dimension that is stacked alone may repeat a value.
        Stored::Stacked(values) | Stored::Gathered(values) => values.len() as u64,
    };
    Ok(stored.map(|stored| stored.into_iter().map(length).collect()))
}

fn grid_fault(datastore: &str, why: String) -> Error {
    Error::Disagreement(format!(
        "the grid of the training dataset of datastore `{datastore}` is not that of the interface: {why}"
    ))
}

/// How a training dataset holds the coordinate of a stacked dimension.
enum Stored {
    /// At every point of the stacked grid.
    Stacked(Vec<f64>),
    /// On its own dimension, where `grid_index` says the order (CF gathering).
    Gathered(Vec<f64>),
}

/// The coordinates of all `dims`; `None` if one of them is not there.
fn stored_coordinates(dataset: &Dataset, dims: &[String]) -> Result<Option<Vec<Stored>>, String> {
    if !dims.iter().all(|dim| dataset.contains(dim)) {
        return Ok(None);
    }
    let mut coordinates = Vec::with_capacity(dims.len());
    for dim in dims {
        let read = || {
            let variable = dataset.variable(dim)?;
            let values = variable.read()?.into_f64()?;
            Ok((
                variable.dims().to_vec(),
                values.into_iter().collect::<Vec<f64>>(),
            ))
        };
        let (own_dims, values) = read().map_err(|error: mlwm_datasets::Error| error.to_string())?;
        coordinates.push(match own_dims.as_slice() {
            [own] if own == "grid_index" => Stored::Stacked(values),
            [own] if own == dim => Stored::Gathered(values),
            _ => {
                return Err(format!(
                    "its `{dim}` has dimensions {own_dims:?}, it must have `grid_index` or its own"
                ));
            }
        });
    }
    Ok(Some(coordinates))
}

/// How many different values there are.
fn distinct(mut values: Vec<f64>) -> u64 {
    values.sort_by(f64::total_cmp);
    values.dedup();
    values.len() as u64
}

/// The stacking order of a dataset compressed by gathering (CF conventions, §8.2).
fn gathering_order(dataset: &Dataset) -> Option<Vec<String>> {
    let variable = dataset.variable("grid_index").ok()?;
    let order = variable.text_attribute("compress")?;
    Some(order.split_whitespace().map(str::to_owned).collect())
}

/// The coordinate of dimension `axis` from its value at every point of the stacked grid; `None` if
/// the values are not those of a stack of this shape.
fn unstack(values: &[f64], axis: usize, shape: &[u64]) -> Option<Vec<f64>> {
    let lengths: Vec<usize> = shape
        .iter()
        .map(|length| usize::try_from(*length).ok())
        .collect::<Option<_>>()?;
    let points = lengths
        .iter()
        .try_fold(1usize, |all, length| all.checked_mul(*length))?;
    if values.len() != points || points == 0 {
        return None;
    }
    let stride: usize = lengths[axis + 1..].iter().product();
    let coordinate: Vec<f64> = (0..lengths[axis]).map(|i| values[i * stride]).collect();
    let fits = values
        .iter()
        .enumerate()
        .all(|(point, value)| *value == coordinate[point / stride % lengths[axis]]);
    fits.then_some(coordinate)
}

#[cfg(test)]
mod tests {
    use mlwm_datasets::{Definition, Values, Writer, ZarrFormat};
    use ndarray::Array1;
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn a_stack_is_taken_apart_in_its_own_order_only() {
        // x has 2 values, y has 3; x varies slowest.
        let x = [10.0, 10.0, 10.0, 20.0, 20.0, 20.0];
        let y = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0];
        assert_eq!(unstack(&x, 0, &[2, 3]), Some(vec![10.0, 20.0]));
        assert_eq!(unstack(&y, 1, &[2, 3]), Some(vec![1.0, 2.0, 3.0]));
        assert_eq!(unstack(&y, 0, &[2, 3]), None);
        assert_eq!(unstack(&x, 1, &[2, 3]), None);
        assert_eq!(unstack(&x, 0, &[3, 2]), None);
        assert_eq!(unstack(&x[..5], 0, &[2, 3]), None);
        assert_eq!(unstack(&[], 0, &[0, 3]), None);
    }

    /// A training dataset with these coordinates, each with the name of its only dimension.
    fn training(folder: &Path, coordinates: &[(&str, &str, &[f64])], order: Option<&str>) {
        let mut writer = Writer::create(folder, ZarrFormat::V3, Map::new()).unwrap();
        let mut write = |name: &str, dim: &str, values: Values, attributes: Map<String, Value>| {
            let dims = [(dim, values.shape()[0] as u64)];
            let definition = Definition::new(name, &dims, values.element()).attributes(attributes);
            writer.define(&definition).unwrap();
            writer.write(name, values).unwrap();
        };
        for (name, dim, values) in coordinates {
            let values = Values::F64(Array1::from(values.to_vec()).into_dyn());
            write(name, dim, values, Map::new());
        }
        if let Some(order) = order {
            let attributes = Map::from_iter([("compress".to_owned(), Value::from(order))]);
            let points = Values::I64(Array1::from((0..6).collect::<Vec<i64>>()).into_dyn());
            write("grid_index", "grid_index", points, attributes);
        }
        writer.finish().unwrap();
    }

    /// The layouts that mllam-data-prep writes (0.7.0, and its CF gathering).
    #[test]
    fn coordinates_are_found_in_every_layout() {
        let folder = tempfile::tempdir().unwrap();
        let dims = ["x".to_owned(), "y".to_owned()];
        let read = |name: &str| grid_coordinates("d", &folder.path().join(name), &dims, &[2, 3]);
        let expected = vec![vec![10.0, 20.0], vec![1.0, 2.0, 3.0]];

        let (x, y) = (
            [10.0, 10.0, 10.0, 20.0, 20.0, 20.0],
            [1.0, 2.0, 3.0, 1.0, 2.0, 3.0],
        );
        let stacked: [(&str, &str, &[f64]); 2] = [("x", "grid_index", &x), ("y", "grid_index", &y)];
        training(&folder.path().join("stacked"), &stacked, None);
        assert_eq!(read("stacked").unwrap(), expected);
        let shape = |name: &str| grid_shape("d", &folder.path().join(name), &dims).unwrap();
        assert_eq!(shape("stacked"), Some(vec![2, 3]));
        let swapped: [(&str, &str, &[f64]); 2] = [("x", "grid_index", &y), ("y", "grid_index", &x)];
        training(&folder.path().join("swapped"), &swapped, None);
        assert!(matches!(read("swapped"), Err(Error::Disagreement(_))));

        let gathered: [(&str, &str, &[f64]); 2] =
            [("x", "x", &expected[0]), ("y", "y", &expected[1])];
        training(&folder.path().join("gathered"), &gathered, Some("x y"));
        assert_eq!(read("gathered").unwrap(), expected);
        assert_eq!(shape("gathered"), Some(vec![2, 3]));
        training(&folder.path().join("other order"), &gathered, Some("y x"));
        assert!(matches!(read("other order"), Err(Error::Disagreement(_))));
        let short: [(&str, &str, &[f64]); 2] = [("x", "x", &[10.0]), ("y", "y", &expected[1])];
        training(&folder.path().join("short"), &short, Some("x y"));
        assert!(matches!(read("short"), Err(Error::Disagreement(_))));

        training(&folder.path().join("without"), &stacked[..1], None);
        assert_eq!(read("without").unwrap(), Vec::<Vec<f64>>::new());
        assert_eq!(shape("without"), None);
        let alone = grid_shape("d", &folder.path().join("stacked"), &dims[..1]);
        assert_eq!(alone.unwrap(), Some(vec![6]));
    }
}

//! A part of the points of a grid.

use std::collections::HashSet;
use std::path::Path;

use mlwm_datasets::{Dataset, NetCdfFile, Values, npy_integers};

use crate::Error;

/// Reads numbers of points, counted from 1, from a variable of a NetCDF file or Zarr store, or from a `.npy`.
/// They are in the order of the file, and counted from 0.
///
/// # Errors
/// [`Error::Data`] if they cannot be read, [`Error::Points`] if they are no such numbers.
pub(crate) fn read(path: &Path, variable: &str) -> Result<Vec<usize>, Error> {
    let numbers = if path.is_dir() {
        floats(Dataset::open(path)?.variable(variable)?.read()?)?
    } else if path.extension().is_some_and(|extension| extension == "npy") {
        let integers = npy_integers(path)?.into_iter();
        integers.map(|number| number as f64).collect()
    } else {
        floats(NetCdfFile::open(path)?.read(variable)?)?
    };
    from_one(&numbers).map_err(|reason| Error::Points {
        path: path.to_owned(),
        reason,
    })
}

fn floats(values: Values) -> Result<Vec<f64>, Error> {
    Ok(values.into_f64()?.into_iter().collect())
}

fn from_one(numbers: &[f64]) -> Result<Vec<usize>, String> {
    if numbers.is_empty() {
        return Err("there are none".to_owned());
    }
    let mut seen = HashSet::new();
    let index = |number: &f64| {
        if number.fract() != 0.0 || !(1.0..=f64::from(u32::MAX)).contains(number) {
            return Err(format!(
                "{number} is no number of a point: they are counted from 1"
            ));
        }
        let index = *number as usize - 1;
        match seen.insert(index) {
            true => Ok(index),
            false => Err(format!("the point {number} is there twice")),
        }
    };
    numbers.iter().map(index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_counted_from_one_and_there_once() {
        assert_eq!(from_one(&[3.0, 1.0]), Ok(vec![2, 0]));
        for wrong in [vec![], vec![0.0], vec![1.5], vec![f64::NAN], vec![2.0, 2.0]] {
            assert!(from_one(&wrong).is_err(), "{wrong:?}");
        }
    }
}

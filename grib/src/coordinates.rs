//! Where the points of a grid are.

use std::ffi::CStr;

use crate::Error;
use crate::ffi::{Failure, Handle, gaussian_latitudes};
use crate::grid::{Grid, ReducedGaussian, RegularLatLon, Rows};

/// The coordinates of each point, in the order of the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinates {
    /// In degrees north.
    pub latitudes: Vec<f64>,
    /// In degrees east; negative ones where a row goes across longitude 0.
    pub longitudes: Vec<f64>,
}

impl Coordinates {
    pub(crate) fn read(handle: &Handle, grid: &Grid) -> Result<Self, String> {
        match grid {
            // From the grid's definition. ecCodes would look at corners that a message need not state
            // rightly, and end the process over some.
            Grid::ReducedGaussian(grid) => {
                grid.coordinates().map_err(|failure| failure.to_string())
            }
            Grid::RegularGaussian { rows, .. }
            | Grid::RegularLatLon(RegularLatLon { rows, .. }) => Self::of_rows(handle, rows),
        }
    }

    /// ecCodes knows the coordinates of values that are row after row, all in one direction; where
    /// other orders have them follows from that.
    fn of_rows(handle: &Handle, rows: &Rows) -> Result<Self, String> {
        let plain = plain(handle, rows).map_err(|failure| failure.to_string())?;
        let latitudes = reals(&plain, c"latitudes", rows.points())?;
        let longitudes = reals(&plain, c"longitudes", rows.points())?;
        let ni = rows.ni as usize;
        Ok((0..rows.points())
            .map(|value| rows.position(value))
            .map(|(row, column)| (latitudes[row * ni], longitudes[column]))
            .collect())
    }
}

impl ReducedGaussian {
    /// The coordinates of its points, row after row.
    ///
    /// # Errors
    /// [`Error::Latitudes`] if ecCodes cannot compute its latitudes.
    pub fn coordinates(&self) -> Result<Coordinates, Error> {
        let n = self.n();
        let latitudes = gaussian_latitudes(n).map_err(|failure| Error::Latitudes {
            n,
            reason: failure.to_string(),
        })?;
        Ok(latitudes
            .iter()
            .zip(self.points_per_latitude())
            .flat_map(|(&latitude, &points)| {
                let width = f64::from(points);
                (0..points).map(move |point| (latitude, f64::from(point) * 360.0 / width))
            })
            .collect())
    }
}

impl FromIterator<(f64, f64)> for Coordinates {
    /// From latitude and longitude of each point.
    fn from_iter<I: IntoIterator<Item = (f64, f64)>>(points: I) -> Self {
        let (latitudes, longitudes) = points.into_iter().unzip();
        Self {
            latitudes,
            longitudes,
        }
    }
}

/// A copy of a message that says that its values are row after row, all in one direction.
fn plain(handle: &Handle, rows: &Rows) -> Result<Handle, Failure> {
    let mut plain = handle.copy()?;
    if rows.scanning.j_consecutive {
        plain.set_integer(c"jPointsAreConsecutive", 0)?;
    }
    if rows.scanning.alternating {
        plain.set_integer(c"alternativeRowScanning", 0)?;
    }
    Ok(plain)
}

fn reals(handle: &Handle, key: &CStr, points: usize) -> Result<Vec<f64>, String> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        format!(
            "the {} of its points cannot be read ({reason})",
            key.to_string_lossy()
        )
    };
    let mut values = vec![0.0; points];
    let found = handle
        .reals(key, &mut values)
        .map_err(|failure| unreadable(&failure))?;
    if found != points {
        return Err(unreadable(&format!("there are {found}, not {points}")));
    }
    Ok(values)
}

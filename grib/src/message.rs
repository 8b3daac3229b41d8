//! One message: its header, its grid, and its values.

use crate::ffi::Handle;
use crate::grid::{Grid, GridFailure};
use crate::{Coordinates, Error, Header, Place};

/// No field has a value like this one, so that it can stand for a missing one inside ecCodes.
pub(crate) const MISSING: f64 = -1e300;

/// A GRIB message with one field.
#[derive(Debug)]
pub struct Message {
    handle: Handle,
    place: Place,
    header: Header,
}

impl Message {
    /// Reads the header of a message, whose bounds are known to be sound.
    pub(crate) fn parse(bytes: &[u8], place: Place) -> Result<Self, Error> {
        let parsed = Handle::from_message(bytes)
            .map_err(|failure| failure.to_string())
            .and_then(|mut handle| Ok((Header::read(&mut handle)?, handle)));
        match parsed {
            Ok((header, handle)) => Ok(Self {
                handle,
                place,
                header,
            }),
            Err(reason) => Err(Error::Message { place, reason }),
        }
    }

    /// What the message says about its field.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the message is in its file.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The grid of the field.
    ///
    /// # Errors
    /// [`Error::Grid`] if it is of a kind that mlwm does not read, [`Error::Message`] if the grid
    /// has not as many points as the message has values.
    pub fn grid(&self) -> Result<Grid, Error> {
        let grid = Grid::read(&self.handle).map_err(|failure| match failure {
            GridFailure::Other(grid) => Error::Grid {
                place: self.place.clone(),
                grid,
            },
            GridFailure::Damaged(reason) => self.damaged(reason),
        })?;
        if grid.points() != self.header.points {
            return Err(self.damaged(format!(
                "its grid has {} points, but there are {} values",
                grid.points(),
                self.header.points
            )));
        }
        Ok(grid)
    }

    /// The coordinates of each value, in the order of the values.
    ///
    /// # Errors
    /// Those of [`Self::grid`].
    pub fn coordinates(&self) -> Result<Coordinates, Error> {
        let grid = self.grid()?;
        Coordinates::read(&self.handle, &grid).map_err(|reason| self.damaged(reason))
    }

    /// The values, in the order of the message (of a regular grid, see [`crate::Scanning`]), in the
    /// units of the header; NaN where there is none.
    ///
    /// # Errors
    /// [`Error::Message`] if they cannot be decoded.
    pub fn values(&mut self) -> Result<Vec<f64>, Error> {
        let mut values = Vec::new();
        self.decode(&mut values)?;
        Ok(values)
    }

    /// Like [`Self::values`], rounded to single precision, into a buffer with as many places.
    /// The values are decoded into `decoded` first, which is kept by who reads many messages.
    ///
    /// # Errors
    /// [`Error::Message`] if they cannot be decoded, [`Error::Buffer`] if they do not fit.
    pub fn read_f32(&mut self, values: &mut [f32], decoded: &mut Vec<f64>) -> Result<(), Error> {
        if values.len() != self.header.points {
            return Err(Error::Buffer {
                place: self.place.clone(),
                points: self.header.points,
                room: values.len(),
            });
        }
        self.decode(decoded)?;
        for (value, decoded) in values.iter_mut().zip(decoded) {
            *value = *decoded as f32;
        }
        Ok(())
    }

    fn decode(&mut self, values: &mut Vec<f64>) -> Result<(), Error> {
        // A damaged one ends the process inside ecCodes 2.28.
        if self.header.packing == "grid_jpeg" {
            return Err(self.damaged(
                "its values are packed as JPEG 2000, which mlwm does not read: repack them with \
                 `grib_set -r -w packingType=grid_jpeg -s packingType=grid_ccsds`"
                    .to_owned(),
            ));
        }
        values.resize(self.header.points, 0.0);
        let decoded = self
            .handle
            .set_real(c"missingValue", MISSING)
            .and_then(|()| self.handle.reals(c"values", values))
            .map_err(|failure| self.damaged(format!("its values cannot be decoded ({failure})")))?;
        if decoded != self.header.points {
            return Err(self.damaged(format!(
                "it has {decoded} values, but should have {}",
                self.header.points
            )));
        }
        if self.header.bitmap {
            for value in values.iter_mut().filter(|value| **value == MISSING) {
                *value = f64::NAN;
            }
        }
        Ok(())
    }

    /// The largest difference between a value that was packed and what is decoded, in the units of
    /// the values.
    ///
    /// # Errors
    /// [`Error::Message`] if the packing does not say so.
    pub fn packing_error(&self) -> Result<f64, Error> {
        self.handle
            .real(c"packingError")
            .map_err(|failure| self.damaged(format!("its packing error is unknown ({failure})")))
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Message {
            place: self.place.clone(),
            reason,
        }
    }
}

//! One message: its header, its grid, and its values.

use std::ffi::CStr;
use std::hash::{DefaultHasher, Hasher};

use crate::ffi::Handle;
use crate::frame;
use crate::grid::{Grid, GridFailure};
use crate::header::Known;
use crate::{Coordinates, Error, Header, Place};

/// No field has a value like this one, so that it can stand for a missing one inside ecCodes.
pub(crate) const MISSING: f64 = -1e300;

/// Names of a field by the CF conventions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CfNames {
    /// What its variable is usually called, such as `t2m`. Also what cfgrib calls it.
    pub variable: Option<String>,
    /// The standard name, such as `air_temperature`.
    pub standard_name: Option<String>,
}

/// What it takes to read the values of a message again, without its header.
#[derive(Clone, Debug)]
pub struct Seen {
    pub(crate) place: Place,
    /// A hash of what says how its values are packed.
    mark: u64,
    points: usize,
    bitmap: bool,
}

impl Seen {
    /// Where the message is in its file.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Reads the values from the bytes that are in the place now.
    pub(crate) fn read(&self, bytes: &[u8], values: &mut Vec<f64>) -> Result<(), Error> {
        if mark(bytes) != self.mark {
            return Err(Error::Changed {
                place: self.place.clone(),
            });
        }
        let damaged = |reason| Error::Message {
            place: self.place.clone(),
            reason,
        };
        let handle = Handle::from_message(bytes);
        let mut handle = handle.map_err(|failure| damaged(failure.to_string()))?;
        decode(&mut handle, self.points, self.bitmap, values).map_err(damaged)
    }
}

/// A number that differs where other bytes stand before the packed values or at the end of a message.
fn mark(message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_usize(message.len());
    hasher.write(frame::head(message));
    hasher.write(&message[message.len().saturating_sub(4)..]);
    hasher.finish()
}

/// Decodes values; the reason if they cannot be.
fn decode(
    handle: &mut Handle,
    points: usize,
    bitmap: bool,
    values: &mut Vec<f64>,
) -> Result<(), String> {
    values.resize(points, 0.0);
    let decoded = handle
        .set_real(c"missingValue", MISSING)
        .and_then(|()| handle.reals(c"values", values))
        .map_err(|failure| format!("its values cannot be decoded ({failure})"))?;
    if decoded != points {
        return Err(format!("it has {decoded} values, but should have {points}"));
    }
    if bitmap {
        for value in values.iter_mut().filter(|value| **value == MISSING) {
            *value = f64::NAN;
        }
    }
    Ok(())
}

/// A GRIB message with one field.
#[derive(Debug)]
pub struct Message {
    handle: Handle,
    place: Place,
    mark: u64,
    header: Header,
    /// The name of the grid if it is of a kind that mlwm does not read.
    grid: Result<Grid, String>,
}

impl Message {
    /// Reads the header of a message, whose bounds are known to be sound.
    pub(crate) fn parse(bytes: &[u8], place: Place, known: &mut Known) -> Result<Self, Error> {
        match Self::read(bytes, known) {
            Ok((handle, grid, header)) => Ok(Self {
                handle,
                place,
                mark: mark(bytes),
                header,
                grid,
            }),
            Err(reason) => Err(Error::Message { place, reason }),
        }
    }

    /// The grid comes first: over a damaged one ecCodes ends the process when it is asked for other
    /// keys.
    fn read(
        bytes: &[u8],
        known: &mut Known,
    ) -> Result<(Handle, Result<Grid, String>, Header), String> {
        let mut handle = Handle::from_message(bytes).map_err(|failure| failure.to_string())?;
        let grid = match Grid::read(&handle) {
            Ok(grid) => Ok(grid),
            Err(GridFailure::Other(name)) => Err(name),
            Err(GridFailure::Damaged(reason)) => return Err(reason),
        };
        let header = Header::read(&mut handle, known)?;
        match &grid {
            Ok(grid) if grid.points() != header.points => Err(format!(
                "its grid has {} points, but there are {} values",
                grid.points(),
                header.points
            )),
            _ => Ok((handle, grid, header)),
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

    /// What it takes to read its values later.
    pub fn seen(&self) -> Seen {
        Seen {
            place: self.place.clone(),
            mark: self.mark,
            points: self.header.points,
            bitmap: self.header.bitmap,
        }
    }

    /// The grid of the field, with as many points as there are values.
    ///
    /// # Errors
    /// [`Error::Grid`] if it is of a kind that mlwm does not read.
    pub fn grid(&self) -> Result<&Grid, Error> {
        self.grid.as_ref().map_err(|name| Error::Grid {
            place: self.place.clone(),
            grid: name.clone(),
        })
    }

    /// The coordinates of each value, in the order of the values.
    ///
    /// # Errors
    /// Those of [`Self::grid`], and [`Error::Message`] if they cannot be computed.
    pub fn coordinates(&self) -> Result<Coordinates, Error> {
        let grid = self.grid()?;
        Coordinates::read(&self.handle, grid).map_err(|reason| self.damaged(reason))
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

    /// What the CF conventions call the field, as far as ecCodes knows. It is not in the header since it is
    /// the same for all messages of a parameter.
    ///
    /// # Errors
    /// [`Error::Message`] if its keys cannot be read.
    pub fn cf_names(&self) -> Result<CfNames, Error> {
        let text = |key: &CStr| {
            if !self.handle.has(key) {
                return Ok(None);
            }
            let text = self.handle.text(key).map_err(|failure| {
                let key = key.to_string_lossy();
                self.damaged(format!("its {key} cannot be read ({failure})"))
            })?;
            let is_known = !matches!(text.as_str(), "" | "unknown" | "undef");
            Ok(is_known.then_some(text))
        };
        Ok(CfNames {
            variable: text(c"cfVarName")?,
            standard_name: text(c"cfName")?,
        })
    }

    /// What the centre is called. It is not in the header for the same reason.
    ///
    /// # Errors
    /// [`Error::Message`] if its key cannot be read.
    pub fn centre_name(&self) -> Result<String, Error> {
        let name = self.handle.text(c"centreDescription");
        name.map_err(|failure| {
            self.damaged(format!("its centreDescription cannot be read ({failure})"))
        })
    }

    fn decode(&mut self, values: &mut Vec<f64>) -> Result<(), Error> {
        let Header { points, bitmap, .. } = self.header;
        decode(&mut self.handle, points, bitmap, values).map_err(|reason| self.damaged(reason))
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

//! Writes the fields of a forecast as GRIB edition 2.

use std::ffi::CString;
use std::path::Path;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use crate::encoding::template;
use crate::ffi::{Failure, Handle};
use crate::grid::{ReducedGaussian, RegularLatLon};
use crate::header::Known;
use crate::message::MISSING;
use crate::{Error, Field, Forecast, Grid, Header, Level, Member, Message, Method, Place, Span};

/// Makes the messages of a forecast. The same fields give the same bytes with the same ecCodes.
#[derive(Debug)]
pub struct Writer {
    forecast: Forecast,
    /// Messages without a parameter: for one time, and for an interval.
    instant: Handle,
    interval: Handle,
    /// The values of a field as ecCodes takes them; kept for the next one.
    values: Vec<f64>,
    known: Known,
}

impl Writer {
    /// Starts a forecast.
    ///
    /// # Errors
    /// [`Error::Forecast`] if GRIB cannot say what the fields have in common.
    pub fn new(forecast: Forecast) -> Result<Self, Error> {
        let refused = |reason: String| Error::Forecast { reason };
        check(&forecast).map_err(refused)?;
        let template =
            |interval| common(&forecast, interval).map_err(|failure| refused(failure.to_string()));
        Ok(Self {
            instant: template(false)?,
            interval: template(true)?,
            values: Vec::with_capacity(forecast.grid.points()),
            known: Known::default(),
            forecast,
        })
    }

    /// What the fields have in common.
    pub fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    /// The message of a field. What it says is read again and compared before it is returned.
    ///
    /// # Errors
    /// [`Error::Field`] if it does not fit the forecast or its variable, holds an infinite value,
    /// or if GRIB cannot say what it is.
    pub fn message(&mut self, field: &Field) -> Result<Vec<u8>, Error> {
        self.encode(field).map_err(|reason| Error::Field {
            name: field.encoding.name().to_owned(),
            lead_time: format!("{} h", field.span.lead_time()),
            reason,
        })
    }

    fn encode(&mut self, field: &Field) -> Result<Vec<u8>, String> {
        let missing = self.prepare(field)?;
        let said = |failure: Failure| failure.to_string();
        let template = match field.span {
            Span::Instant(_) => &self.instant,
            Span::Interval { .. } => &self.interval,
        };
        let mut handle = template.copy().map_err(said)?;
        describe(&mut handle, field).map_err(said)?;
        if let Some(member) = self.forecast.member {
            number(&mut handle, member).map_err(said)?;
        }
        if missing {
            handle.set_integer(c"bitmapPresent", 1).map_err(said)?;
            handle.set_real(c"missingValue", MISSING).map_err(said)?;
        }
        handle.set_reals(c"values", &self.values).map_err(said)?;
        let message = handle.message().map_err(said)?.to_vec();
        self.verify(field, &message)?;
        Ok(message)
    }

    /// Checks a field and puts its values where ecCodes takes them; whether some are missing.
    fn prepare(&mut self, field: &Field) -> Result<bool, String> {
        let points = self.forecast.grid.points();
        if field.values.len() != points {
            return Err(format!(
                "it has {} values, but the grid {} has {points} points",
                field.values.len(),
                self.forecast.grid.name()
            ));
        }
        match field.span {
            Span::Instant(_) if field.encoding.needs_interval() => {
                return Err("the parameter is defined over an interval: say which".to_owned());
            }
            Span::Interval { start, end, .. } if start >= end => {
                return Err(format!("its interval {start}-{end} h is empty"));
            }
            _ => {}
        }
        if let Some(point) = field.values.iter().position(|value| value.is_infinite()) {
            return Err(format!("its value at point {point} is infinite"));
        }
        let missing = field.values.iter().any(|value| value.is_nan());
        self.values.clear();
        self.values
            .extend(field.values.iter().map(|&value| match value {
                value if value.is_nan() => MISSING,
                value => f64::from(value),
            }));
        Ok(missing)
    }

    /// Compares what a message says with what it should. A key of ecCodes can change others.
    fn verify(&mut self, field: &Field, message: &[u8]) -> Result<(), String> {
        let place = Place {
            path: Path::new("the new message").into(),
            offset: 0,
            length: message.len() as u64,
        };
        let message =
            Message::parse(message, place, &mut self.known).map_err(|error| error.to_string())?;
        let header = message.header();
        let hours = |hours: u32| SignedDuration::from_hours(i64::from(hours));
        let member = self.forecast.member;
        if let Some(level) = &field.level
            && !header.level.is_close(level)
        {
            return Err(format!(
                "ecCodes makes another level of `{}` {}: {}",
                level.kind,
                level.value,
                described(header)
            ));
        }
        let checks = [
            ("parameter", header.param_id == field.encoding.param_id()),
            ("step type", header.step_type == field.span.step_type()),
            (
                "analysis time",
                header.reference_time == self.forecast.analysis_time,
            ),
            ("start", header.start_step == hours(field.span.start())),
            (
                "lead time",
                header.end_step == hours(field.span.lead_time()),
            ),
            (
                "member",
                header.member == member.map(|member| member.number),
            ),
            (
                "number of members",
                header.members == member.map(|member| member.count),
            ),
            (
                "grid",
                message.grid().is_ok_and(|grid| *grid == self.forecast.grid),
            ),
        ];
        match checks.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((what, _)) => Err(format!(
                "ecCodes makes another {what} of it: {}",
                described(header)
            )),
        }
    }
}

/// A header in a few words, for an error.
fn described(header: &Header) -> String {
    format!(
        "{} (paramId {}), {} {}, {} from {:#} to {:#} after {}, member {:?} of {:?}",
        header.short_name,
        header.param_id,
        header.level.kind,
        header.level.value,
        header.step_type,
        header.start_step,
        header.end_step,
        header.reference_time,
        header.member,
        header.members,
    )
}

fn check(forecast: &Forecast) -> Result<(), String> {
    if forecast.analysis_time.subsec_nanosecond() != 0 {
        return Err(format!(
            "its analysis time {} is not in whole seconds",
            forecast.analysis_time
        ));
    }
    let bits = forecast.packing.bits_per_value;
    if !(1..=32).contains(&bits) {
        return Err(format!("{bits} bits per value are not from 1 to 32"));
    }
    if forecast.grid.points() == 0 {
        return Err("its grid has no points".to_owned());
    }
    if let Some(Member { number, count }) = forecast.member
        && (number > 254 || count > 254)
    {
        return Err(format!(
            "the member {number} of {count} is more than GRIB counts, which is 254"
        ));
    }
    match forecast.grid {
        Grid::RegularGaussian { .. } => Err("its grid is a regular Gaussian one".to_owned()),
        Grid::ReducedGaussian(_) | Grid::RegularLatLon(_) => Ok(()),
    }
}

/// A message with what all fields have in common.
fn common(forecast: &Forecast, interval: bool) -> Result<Handle, Failure> {
    /// A sphere with the radius of ECMWF's models, 6,371,229 m.
    const EARTH: i64 = 6;
    let mut handle = template(forecast.member.is_some(), interval)?;
    let time = forecast.analysis_time.to_zoned(TimeZone::UTC);
    let date = i64::from(time.year()) * 10_000 + i64::from(time.month()) * 100;
    handle.set_integer(c"dataDate", date + i64::from(time.day()))?;
    handle.set_integer(c"hour", i64::from(time.hour()))?;
    handle.set_integer(c"minute", i64::from(time.minute()))?;
    handle.set_integer(c"second", i64::from(time.second()))?;
    // From code table 1.4: forecast, control forecast, perturbed forecast.
    let processed = match forecast.member {
        None => 1,
        Some(Member { number: 0, .. }) => 3,
        Some(_) => 4,
    };
    handle.set_integer(c"typeOfProcessedData", processed)?;
    handle.set_integer(c"shapeOfTheEarth", EARTH)?;
    match &forecast.grid {
        Grid::ReducedGaussian(grid) => set_reduced_gaussian(&mut handle, grid)?,
        Grid::RegularLatLon(grid) => set_regular_lat_lon(&mut handle, grid)?,
        Grid::RegularGaussian { .. } => {}
    }
    let method = match forecast.packing.method {
        Method::Simple => c"grid_simple",
        Method::Ccsds => c"grid_ccsds",
    };
    handle.set_text(c"packingType", method)?;
    handle.set_integer(c"bitsPerValue", i64::from(forecast.packing.bits_per_value))?;
    Ok(handle)
}

fn set_reduced_gaussian(handle: &mut Handle, grid: &ReducedGaussian) -> Result<(), Failure> {
    let points: Vec<i64> = grid
        .points_per_latitude()
        .iter()
        .map(|&points| i64::from(points))
        .collect();
    handle.set_text(c"gridType", c"reduced_gg")?;
    handle.set_integer(c"N", i64::from(grid.n()))?;
    handle.set_integer(c"Nj", points.len() as i64)?;
    handle.set_integers(c"pl", &points)?;
    // Computes the first and the last point.
    handle.set_integer(c"global", 1)?;
    handle.set_integer(c"numberOfDataPoints", grid.points() as i64)?;
    handle.set_integer(c"numberOfValues", grid.points() as i64)
}

fn set_regular_lat_lon(handle: &mut Handle, grid: &RegularLatLon) -> Result<(), Failure> {
    let rows = grid.rows;
    let scanning = rows.scanning;
    let (west, east) = if scanning.i_negative {
        (grid.last_longitude, grid.first_longitude)
    } else {
        (grid.first_longitude, grid.last_longitude)
    };
    let width = (east - west).rem_euclid(360_000_000);
    let height = (grid.first_latitude - grid.last_latitude).abs();
    let step = |length: i64, points: u32| match i64::from(points) - 1 {
        0 => 0,
        steps => (length + steps / 2) / steps,
    };
    handle.set_text(c"gridType", c"regular_ll")?;
    for (key, value) in [
        (c"Ni", i64::from(rows.ni)),
        (c"Nj", i64::from(rows.nj)),
        (c"latitudeOfFirstGridPoint", grid.first_latitude),
        (c"longitudeOfFirstGridPoint", grid.first_longitude),
        (c"latitudeOfLastGridPoint", grid.last_latitude),
        (c"longitudeOfLastGridPoint", grid.last_longitude),
        (c"iDirectionIncrement", step(width, rows.ni)),
        (c"jDirectionIncrement", step(height, rows.nj)),
        (c"iScansNegatively", i64::from(scanning.i_negative)),
        (c"jScansPositively", i64::from(scanning.j_positive)),
        (c"jPointsAreConsecutive", i64::from(scanning.j_consecutive)),
        (c"alternativeRowScanning", i64::from(scanning.alternating)),
        (c"numberOfDataPoints", rows.points() as i64),
        (c"numberOfValues", rows.points() as i64),
    ] {
        handle.set_integer(key, value)?;
    }
    Ok(())
}

/// Sets what a field is. The order matters: the parameter sets its own level and process.
fn describe(handle: &mut Handle, field: &Field) -> Result<(), Failure> {
    handle.set_integer(c"paramId", field.encoding.param_id())?;
    if let Some(level) = &field.level {
        set_level(handle, level)?;
    }
    // Hours.
    handle.set_integer(c"indicatorOfUnitOfTimeRange", 1)?;
    let range = match field.span {
        Span::Instant(hours) => hours.to_string(),
        Span::Interval {
            process,
            start,
            end,
        } => {
            handle.set_integer(c"typeOfStatisticalProcessing", process.code())?;
            handle.set_integer(c"indicatorOfUnitForTimeRange", 1)?;
            format!("{start}-{end}")
        }
    };
    set_text(handle, c"stepRange", &range)
}

fn set_level(handle: &mut Handle, level: &Level) -> Result<(), Failure> {
    set_text(handle, c"typeOfLevel", &level.kind)?;
    let set = |handle: &mut Handle, key, value: f64| {
        if value.fract() == 0.0 {
            handle.set_integer(key, value as i64)
        } else {
            handle.set_real(key, value)
        }
    };
    if level.top == level.bottom {
        return set(handle, c"level", level.value);
    }
    set(handle, c"topLevel", level.top)?;
    set(handle, c"bottomLevel", level.bottom)
}

fn number(handle: &mut Handle, member: Member) -> Result<(), Failure> {
    handle.set_integer(c"number", i64::from(member.number))?;
    handle.set_integer(c"numberOfForecastsInEnsemble", i64::from(member.count))
}

/// Sets a text; one with a zero character is cut there, and then not what is read again.
fn set_text(handle: &mut Handle, key: &std::ffi::CStr, text: &str) -> Result<(), Failure> {
    let text: Vec<u8> = text.bytes().take_while(|&byte| byte != 0).collect();
    handle.set_text(key, &CString::new(text).unwrap_or_default())
}

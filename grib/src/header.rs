//! What a message says about its field, but for grid and values.

use std::collections::HashMap;
use std::ffi::CStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::ffi::{Failure, Handle};

/// Fields with more points are refused, so that a damaged message cannot ask for any amount of
/// memory. The largest grids in use have 30 million.
const POINTS_LIMIT: usize = 1 << 26;

/// What a message says about its field, but for the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The edition of GRIB: 1 or 2.
    pub edition: u8,
    /// The centre that made the field, such as `ecmf`.
    pub centre: String,
    /// The number of a part of the centre; 0 if it has none.
    pub sub_centre: i64,
    /// ECMWF's number of the parameter; 0 if ecCodes does not know the parameter.
    pub param_id: i64,
    /// The short name of the parameter, such as `2t`; `unknown` if ecCodes does not know it.
    pub short_name: String,
    /// The name of the parameter, such as `2 metre temperature`.
    pub name: String,
    /// The units of the values, such as `K`.
    pub units: String,
    /// Where in the vertical the field is.
    pub level: Level,
    /// What the values are over the steps, in ecCodes' words: `instant`, `accum`, `avg`, `max`, …
    pub step_type: String,
    /// When the steps are counted from: the analysis time of a forecast.
    pub reference_time: Timestamp,
    /// The beginning of the field's interval, since the reference time. Equal to the end if the
    /// field has no interval.
    pub start_step: SignedDuration,
    /// The end of the field's interval, since the reference time: the lead time.
    pub end_step: SignedDuration,
    /// The time at the end of the field's interval.
    pub validity_time: Timestamp,
    /// The kind of product, such as `an`, `fc`, `cf` or `pf`, if the message says it: edition 1 does so only in what
    /// some centres add.
    pub data_type: Option<String>,
    /// Where MARS keeps the field, if the message says so.
    pub mars: Option<Mars>,
    /// The number that the centre gives to what made the field, such as a version of its model.
    pub generating_process: Option<u32>,
    /// The number of the ensemble member; `None` if the message says nothing of an ensemble. In
    /// edition 1 it is 0 in many messages that are of none.
    pub member: Option<u32>,
    /// The number of members of the ensemble, if the message says so.
    pub members: Option<u32>,
    /// The number of values, missing ones among them.
    pub points: usize,
    /// Whether values may be missing.
    pub bitmap: bool,
    /// How the values are packed, such as `grid_simple` or `grid_ccsds`.
    pub packing: String,
    /// The bits of a packed value.
    pub bits_per_value: u32,
}

/// Where ECMWF's archive keeps a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mars {
    /// The class, such as `od` or `ea`.
    pub class: String,
    /// The stream, such as `oper`.
    pub stream: String,
    /// The version of the experiment, such as `0001`, or `0005` of what is not yet final in ERA5.
    pub expver: String,
}

/// A level or layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Its type in ecCodes' words, which tell the unit: `surface`, `isobaricInhPa`,
    /// `heightAboveGround` (m), `depthBelowLandLayer` (m in edition 2, cm in edition 1), …
    pub kind: String,
    /// The level. Of a layer, its top.
    pub value: f64,
    /// The top of a layer; of a level, the level.
    pub top: f64,
    /// The bottom of a layer; of a level, the level.
    pub bottom: f64,
}

impl Level {
    /// A level of a type in ecCodes' words, such as `isobaricInhPa`.
    pub fn at(kind: &str, value: f64) -> Self {
        Self::layer(kind, value, value)
    }

    /// A layer of a type in ecCodes' words, such as `depthBelowLandLayer`.
    pub fn layer(kind: &str, top: f64, bottom: f64) -> Self {
        Self {
            kind: kind.to_owned(),
            value: top,
            top,
            bottom,
        }
    }

    /// Whether this is a level as it comes out of a message, where it is a scaled integer.
    pub(crate) fn is_close(&self, other: &Self) -> bool {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
        self.kind == other.kind && close(self.top, other.top) && close(self.bottom, other.bottom)
    }
}

/// What ecCodes calls parameters, by edition and number: it looks through all that it knows for each name, which
/// takes longer than decoding a small field.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<(u8, i64), Parameter>);

/// What a parameter is called.
#[derive(Clone, Debug)]
struct Parameter {
    short_name: String,
    name: String,
    units: String,
}

/// The keys of a message.
struct Keys<'a>(&'a mut Handle);

impl Header {
    /// Reads the keys of a message; the reason if one cannot be used.
    pub(crate) fn read(handle: &mut Handle, known: &mut Known) -> Result<Self, String> {
        Keys(handle).header(known)
    }
}

impl Keys<'_> {
    fn header(&mut self, known: &mut Known) -> Result<Header, String> {
        let points = self.points()?;
        let reference_time = self.reference_time()?;
        let (start_step, end_step) = self.steps()?;
        let validity_time = reference_time
            .checked_add(end_step)
            .map_err(|error| format!("its step leads out of the calendar ({error})"))?;
        let edition = self.small(c"edition")?;
        let param_id = self.integer(c"paramId")?;
        let Parameter {
            short_name,
            name,
            units,
        } = self.parameter(edition, param_id, known)?;
        Ok(Header {
            edition,
            centre: self.text(c"centre")?,
            sub_centre: self.integer(c"subCentre")?,
            param_id,
            short_name,
            name,
            units,
            level: self.level()?,
            step_type: self.text(c"stepType")?,
            reference_time,
            start_step,
            end_step,
            validity_time,
            data_type: match self.0.has(c"dataType") {
                true => Some(self.text(c"dataType")?),
                false => None,
            },
            mars: self.mars()?,
            generating_process: self.optional(c"generatingProcessIdentifier")?,
            member: self.optional(c"number")?,
            members: self.optional(c"numberOfForecastsInEnsemble")?,
            points,
            bitmap: self.integer(c"bitmapPresent")? != 0,
            packing: self.text(c"packingType")?,
            bits_per_value: self.small(c"bitsPerValue")?,
        })
    }

    fn parameter(
        &self,
        edition: u8,
        param_id: i64,
        known: &mut Known,
    ) -> Result<Parameter, String> {
        if let Some(parameter) = known.0.get(&(edition, param_id)) {
            return Ok(parameter.clone());
        }
        let parameter = Parameter {
            short_name: self.text(c"shortName")?,
            name: self.text(c"name")?,
            units: self.text(c"units")?,
        };
        // 0 stands for all that ecCodes does not know.
        if param_id != 0 {
            known.0.insert((edition, param_id), parameter.clone());
        }
        Ok(parameter)
    }

    fn points(&self) -> Result<usize, String> {
        let points = self
            .0
            .size(c"values")
            .map_err(|failure| unreadable(c"values", &failure))?;
        if points > POINTS_LIMIT {
            return Err(format!(
                "it says that it has {points} values, more than the limit of {POINTS_LIMIT}"
            ));
        }
        self.check_data(points)?;
        Ok(points)
    }

    /// ecCodes takes room for as many packed values as a message states, and reads as many bits of
    /// simple packing, whether they are there or not.
    fn check_data(&self, points: usize) -> Result<(), String> {
        let packing = self.text(c"packingType")?;
        // A damaged one ends the process inside ecCodes 2.28.
        if packing == "grid_jpeg" {
            return Err(
                "its values are packed as JPEG 2000, which mlwm does not read: repack them with \
                 `grib_set -r -w packingType=grid_jpeg -s packingType=grid_ccsds`"
                    .to_owned(),
            );
        }
        if !self.0.has(c"numberOfCodedValues") {
            return Ok(());
        }
        let packed = self.integer(c"numberOfCodedValues")?;
        if !usize::try_from(packed).is_ok_and(|packed| packed <= points) {
            return Err(format!(
                "it says that {packed} of its {points} values are packed"
            ));
        }
        match packing.as_str() {
            "grid_simple" => self.check_simple(packed),
            "grid_ccsds" => self.check_ccsds(),
            _ => Ok(()),
        }
    }

    fn check_simple(&self, packed: i64) -> Result<(), String> {
        let bits = self.integer(c"bitsPerValue")?;
        let begin = self.integer(c"offsetBeforeData")?;
        let bytes = self.integer(c"offsetAfterData")?.saturating_sub(begin);
        if packed.saturating_mul(bits) > bytes.saturating_mul(8) {
            return Err(format!(
                "it says that {packed} values of {bits} bits are packed in {bytes} bytes"
            ));
        }
        Ok(())
    }

    /// libaec writes beyond its buffers if a reference interval has no blocks.
    fn check_ccsds(&self) -> Result<(), String> {
        let interval = self.integer(c"ccsdsRsi")?;
        let block = self.integer(c"ccsdsBlockSize")?;
        if !(1..=4096).contains(&interval) || ![8, 16, 32, 64].contains(&block) {
            return Err(format!(
                "its values are packed in intervals of {interval} blocks of {block} samples, which \
                 CCSDS does not know"
            ));
        }
        Ok(())
    }

    /// The keys of MARS, which are there together or not at all.
    fn mars(&self) -> Result<Option<Mars>, String> {
        if !self.0.has(c"expver") {
            return Ok(None);
        }
        Ok(Some(Mars {
            class: self.text(c"class")?,
            stream: self.text(c"stream")?,
            expver: self.text(c"expver")?,
        }))
    }

    fn level(&self) -> Result<Level, String> {
        let value = self.real(c"level")?;
        let or_value = |key: &CStr| {
            if self.0.has(key) {
                self.real(key)
            } else {
                Ok(value)
            }
        };
        Ok(Level {
            kind: self.text(c"typeOfLevel")?,
            value,
            top: or_value(c"topLevel")?,
            bottom: or_value(c"bottomLevel")?,
        })
    }

    fn reference_time(&self) -> Result<Timestamp, String> {
        let date = self.integer(c"dataDate")?;
        let (hour, minute) = (self.small(c"hour")?, self.small(c"minute")?);
        let second = if self.0.has(c"second") {
            self.small(c"second")?
        } else {
            0
        };
        let invalid = |error: &dyn std::fmt::Display| {
            format!("its reference time {date} {hour}:{minute}:{second} does not exist ({error})")
        };
        let part = |number: i64| i8::try_from(number).map_err(|error| invalid(&error));
        let year = i16::try_from(date / 10_000).map_err(|error| invalid(&error))?;
        DateTime::new(
            year,
            part(date / 100 % 100)?,
            part(date % 100)?,
            hour,
            minute,
            second,
            0,
        )
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map(|time| time.timestamp())
        .map_err(|error| invalid(&error))
    }

    /// Beginning and end of the field's interval. ecCodes converts them to seconds, whatever their
    /// units are; but months and years have no length.
    fn steps(&mut self) -> Result<(SignedDuration, SignedDuration), String> {
        for key in [
            c"indicatorOfUnitOfTimeRange",
            c"indicatorOfUnitForTimeRange",
        ] {
            if self.0.has(key) && (3..=7).contains(&self.integer(key)?) {
                return Err("its steps are in months, years or longer".to_owned());
            }
        }
        self.0
            .set_text(c"stepUnits", c"s")
            .map_err(|failure| unreadable(c"stepUnits", &failure))?;
        let start = SignedDuration::from_secs(self.integer(c"startStep")?);
        let end = SignedDuration::from_secs(self.integer(c"endStep")?);
        if start > end {
            return Err(format!(
                "its interval ends before it begins: {start:#} to {end:#}"
            ));
        }
        Ok((start, end))
    }

    /// A number that only some messages have.
    fn optional(&self, key: &CStr) -> Result<Option<u32>, String> {
        if !self.0.has(key) {
            return Ok(None);
        }
        let missing = self.0.is_missing(key);
        if missing.map_err(|failure| unreadable(key, &failure))? {
            return Ok(None);
        }
        self.small(key).map(Some)
    }

    fn small<N: TryFrom<i64>>(&self, key: &CStr) -> Result<N, String> {
        let number = self.integer(key)?;
        N::try_from(number).map_err(|_| format!("its {} is {number}", key.to_string_lossy()))
    }

    fn integer(&self, key: &CStr) -> Result<i64, String> {
        self.0
            .integer(key)
            .map_err(|failure| unreadable(key, &failure))
    }

    fn real(&self, key: &CStr) -> Result<f64, String> {
        self.0
            .real(key)
            .map_err(|failure| unreadable(key, &failure))
    }

    fn text(&self, key: &CStr) -> Result<String, String> {
        self.0
            .text(key)
            .map_err(|failure| unreadable(key, &failure))
    }
}

fn unreadable(key: &CStr, failure: &Failure) -> String {
    format!("its {} cannot be read ({failure})", key.to_string_lossy())
}

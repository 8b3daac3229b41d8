//! Times and durations by the CF conventions: `hours since 2022-04-01`, `hours`.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::Values;
use crate::stored::Stored;

const SECOND: i128 = 1_000_000_000;

/// A float time may be this far from a whole second, in nanoseconds: more than the rounding of a
/// double counting days, far less than anything meant.
const TOLERANCE: i128 = 1_000_000;

/// What the units of a variable make of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeLike {
    No,
    Time,
    Duration,
}

/// Whether xarray would decode the variable as times or durations.
pub(crate) fn time_like(attributes: &Map<String, Value>) -> TimeLike {
    let Some(units) = attributes.get("units").and_then(Value::as_str) else {
        return TimeLike::No;
    };
    if units.contains(" since ") {
        TimeLike::Time
    } else if matches!(
        units,
        "days" | "hours" | "minutes" | "seconds" | "milliseconds" | "microseconds" | "nanoseconds"
    ) {
        TimeLike::Duration
    } else {
        TimeLike::No
    }
}

/// Attributes with which integers are seconds since 1970-01-01T00:00Z.
pub fn time_attributes() -> Map<String, Value> {
    Map::from_iter([
        (
            "units".to_owned(),
            Value::from("seconds since 1970-01-01 00:00:00"),
        ),
        ("calendar".to_owned(), Value::from("proleptic_gregorian")),
    ])
}

/// Attributes with which integers are durations in seconds.
pub fn duration_attributes() -> Map<String, Value> {
    Map::from_iter([
        ("units".to_owned(), Value::from("seconds")),
        ("dtype".to_owned(), Value::from("timedelta64[ns]")),
    ])
}

/// Decodes times to seconds since 1970-01-01T00:00Z.
pub(crate) fn times(
    values: &Values,
    stored: Stored,
    attributes: &Map<String, Value>,
) -> Result<Vec<i64>, String> {
    if let Stored::Time {
        nanoseconds,
        is_duration: false,
    } = stored
    {
        return seconds(values, nanoseconds, 0);
    }
    let units = units(attributes)?;
    let (unit, reference) = units.split_once(" since ").ok_or_else(|| {
        format!("the units `{units}` are not of the form `hours since 2000-01-01`")
    })?;
    let nanoseconds = unit_nanoseconds(unit)?;
    let reference = parse_reference(reference)
        .ok_or_else(|| format!("the reference time of the units `{units}` is not a date"))?;
    check_calendar(attributes, reference)?;
    seconds(values, nanoseconds, reference)
}

/// Decodes durations to seconds.
pub(crate) fn durations(
    values: &Values,
    stored: Stored,
    attributes: &Map<String, Value>,
) -> Result<Vec<i64>, String> {
    if let Stored::Time {
        nanoseconds,
        is_duration: true,
    } = stored
    {
        return seconds(values, nanoseconds, 0);
    }
    seconds(values, unit_nanoseconds(units(attributes)?)?, 0)
}

fn units(attributes: &Map<String, Value>) -> Result<&str, String> {
    attributes
        .get("units")
        .and_then(Value::as_str)
        .ok_or_else(|| "it has no attribute `units`".to_owned())
}

/// The length of a unit of time in nanoseconds.
fn unit_nanoseconds(unit: &str) -> Result<i64, String> {
    let lower = unit.trim().to_ascii_lowercase();
    Ok(match lower.as_str() {
        "days" | "day" | "d" => 86_400_000_000_000,
        "hours" | "hour" | "hrs" | "hr" | "h" => 3_600_000_000_000,
        "minutes" | "minute" | "mins" | "min" => 60_000_000_000,
        "seconds" | "second" | "secs" | "sec" | "s" => 1_000_000_000,
        "milliseconds" | "millisecond" | "millisecs" | "millisec" | "msecs" | "msec" | "ms" => {
            1_000_000
        }
        "microseconds" | "microsecond" | "microsecs" | "microsec" | "us" => 1_000,
        "nanoseconds" | "nanosecond" | "ns" => 1,
        _ => return Err(format!("the unit of time `{unit}` is not supported")),
    })
}

/// Refuses calendars other than the one in use, and the days on which the standard calendar is
/// the Julian one.
fn check_calendar(attributes: &Map<String, Value>, reference: i128) -> Result<(), String> {
    /// 1582-10-15 in seconds since 1970-01-01.
    const GREGORIAN_START: i128 = -12_219_292_800;
    let calendar = attributes
        .get("calendar")
        .and_then(Value::as_str)
        .unwrap_or("standard");
    match calendar.to_ascii_lowercase().as_str() {
        "proleptic_gregorian" => Ok(()),
        "standard" | "gregorian" if reference >= GREGORIAN_START * SECOND => Ok(()),
        "standard" | "gregorian" => Err(format!(
            "a reference time before 1582-10-15 needs the calendar `proleptic_gregorian`, not \
             `{calendar}`"
        )),
        _ => Err(format!(
            "the calendar `{calendar}` is not supported: only standard, gregorian and \
             proleptic_gregorian are"
        )),
    }
}

/// Counts of a unit, in whole seconds after a reference in nanoseconds.
fn seconds(values: &Values, unit: i64, reference: i128) -> Result<Vec<i64>, String> {
    let whole = |nanoseconds: i128, tolerance: i128| {
        let rounded = (nanoseconds + SECOND / 2).div_euclid(SECOND);
        if (nanoseconds - rounded * SECOND).abs() > tolerance {
            return Err(format!(
                "a value is not a whole second ({} ns off)",
                nanoseconds - rounded * SECOND
            ));
        }
        i64::try_from(rounded).map_err(|_| "a value is out of range".to_owned())
    };
    match values {
        Values::I64(values) => values
            .iter()
            .map(|&value| {
                if value == i64::MIN {
                    return Err(MISSING.to_owned());
                }
                whole(i128::from(value) * i128::from(unit) + reference, 0)
            })
            .collect(),
        Values::F64(values) => values
            .iter()
            .map(|&value| whole(float(value, unit)? + reference, TOLERANCE))
            .collect(),
        Values::F32(values) => values
            .iter()
            .map(|&value| whole(float(f64::from(value), unit)? + reference, TOLERANCE))
            .collect(),
        Values::Text(_) => Err("its values are texts".to_owned()),
    }
}

const MISSING: &str = "a value is missing (NaT)";

/// A float count of a unit in nanoseconds.
fn float(value: f64, unit: i64) -> Result<i128, String> {
    if value.is_nan() {
        return Err(MISSING.to_owned());
    }
    let nanoseconds = value * unit as f64;
    if nanoseconds.abs() >= 2f64.powi(100) {
        return Err(format!("the value {value} is out of range"));
    }
    Ok(nanoseconds.round() as i128)
}

/// A reference time in nanoseconds since 1970-01-01T00:00Z: a date, then optionally a time and a
/// zone, as in `2000-01-01`, `1970-1-1 0:0:0`, `2000-01-01T12:00:00.5Z`, `2000-01-01 00:00 +01:00`.
fn parse_reference(text: &str) -> Option<i128> {
    let text = text.trim();
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(end) => (&text[..end], text[end + 1..].trim()),
        None => (text, ""),
    };
    let date = parse_date(date)?;
    let (clock, zone) = split_zone(rest);
    let (time, nanoseconds) = parse_clock(clock)?;
    let utc = DateTime::from_parts(date, time)
        .to_zoned(TimeZone::UTC)
        .ok()?;
    let seconds = i128::from(utc.timestamp().as_second()) - parse_zone(zone)?;
    Some(seconds * SECOND + nanoseconds)
}

fn parse_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let year: i16 = parts.next()?.parse().ok()?;
    let month: i8 = parts.next().map_or(Some(1), |part| part.parse().ok())?;
    let day: i8 = parts.next().map_or(Some(1), |part| part.parse().ok())?;
    Date::new(year, month, day)
        .ok()
        .filter(|_| parts.next().is_none())
}

/// The time of day, and the fraction of its second in nanoseconds.
fn parse_clock(text: &str) -> Option<(Time, i128)> {
    if text.is_empty() {
        return Some((Time::midnight(), 0));
    }
    let mut parts = text.split(':');
    let hour: i8 = parts.next()?.parse().ok()?;
    let minute: i8 = parts.next().map_or(Some(0), |part| part.parse().ok())?;
    let (second, fraction) = match parts.next() {
        Some(part) => part.split_once('.').unwrap_or((part, "")),
        None => ("0", ""),
    };
    if parts.next().is_some() || fraction.len() > 9 {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").parse().ok()?;
    let time = Time::new(hour, minute, second.parse().ok()?, 0).ok()?;
    Some((time, i128::from(nanoseconds)))
}

/// Divides `12:00:00+01:00` into the time of day and its zone.
fn split_zone(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.')));
    let (clock, zone) = text.split_at(end.unwrap_or(text.len()));
    (clock, zone.trim())
}

/// The offset of a zone from UTC in seconds.
fn parse_zone(text: &str) -> Option<i128> {
    if matches!(text, "" | "Z" | "z" | "UTC" | "GMT") {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() == 4 => digits.split_at_checked(2)?,
        None => (digits, "0"),
    };
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60)
        .then(|| sign * (i128::from(hours) * 3600 + i128::from(minutes) * 60))
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;
    use serde_json::json;

    use super::*;

    const INT: Stored = Stored::Int {
        bytes: 8,
        signed: true,
    };

    fn attributes(units: &str) -> Map<String, Value> {
        Map::from_iter([("units".to_owned(), json!(units))])
    }

    fn one(units: &str, value: i64) -> Result<i64, String> {
        let values = Values::I64(ArrayD::from_elem(vec![1], value));
        times(&values, INT, &attributes(units)).map(|times| times[0])
    }

    fn one_float(units: &str, value: f64) -> Result<i64, String> {
        let values = Values::F64(ArrayD::from_elem(vec![1], value));
        times(&values, Stored::Float { bytes: 8 }, &attributes(units)).map(|times| times[0])
    }

    #[test]
    fn reference_times_in_all_their_forms() {
        for text in [
            "2000-01-01",
            "2000-1-1",
            "2000-01-01 00:00",
            "2000-01-01 0:0:0",
            "2000-01-01T00:00:00",
            "2000-01-01T00:00:00Z",
            "2000-01-01 00:00:00.000000",
            "2000-01-01 00:00:00 UTC",
            "2000-01-01 01:00:00 +01:00",
            "2000-01-01T01:00:00+0100",
            "1999-12-31 19:00:00 -5",
        ] {
            assert_eq!(
                one(&format!("seconds since {text}"), 0),
                Ok(946_684_800),
                "{text}"
            );
        }
        for text in [
            "yesterday",
            "2000-13-01",
            "2000-01-01 25:00",
            "2000-01-01 00:00 CET",
            "",
        ] {
            assert!(one(&format!("seconds since {text}"), 0).is_err(), "{text}");
        }
    }

    #[test]
    fn units_and_values() {
        assert_eq!(one("hours since 1970-01-01", 5), Ok(18_000));
        assert_eq!(one("days since 1969-12-31", 2), Ok(86_400));
        assert_eq!(one("nanoseconds since 1970-01-01", -2_000_000_000), Ok(-2));
        assert_eq!(one("milliseconds since 1970-01-01 00:00:00.5", 1500), Ok(2));
        assert!(one("milliseconds since 1970-01-01", 1500).is_err());
        assert!(one("months since 1970-01-01", 1).is_err());
        assert!(one("seconds since 1970-01-01", i64::MIN).is_err());
        assert_eq!(
            one_float("days since 1900-01-01", 44_655.125),
            Ok(1_649_214_000)
        );
        assert_eq!(one_float("hours since 1970-01-01", 1.0 / 3.0), Ok(1200));
        assert!(one_float("seconds since 1970-01-01", 0.25).is_err());
        assert!(one_float("seconds since 1970-01-01", f64::NAN).is_err());
        assert!(one_float("days since 1970-01-01", 1e300).is_err());
    }

    #[test]
    fn calendars() {
        let values = Values::I64(ArrayD::from_elem(vec![1], 0));
        let with = |calendar: &str, units: &str| {
            let mut attributes = attributes(units);
            attributes.insert("calendar".to_owned(), json!(calendar));
            times(&values, INT, &attributes)
        };
        let (now, old) = ("days since 2000-01-01", "days since 0001-01-01");
        for calendar in ["standard", "gregorian", "GREGORIAN", "proleptic_gregorian"] {
            assert_eq!(with(calendar, now), Ok(vec![946_684_800]), "{calendar}");
        }
        assert!(with("standard", old).is_err());
        assert_eq!(with("proleptic_gregorian", old), Ok(vec![-62_135_596_800]));
        for calendar in ["noleap", "360_day", "julian"] {
            assert!(with(calendar, now).unwrap_err().contains(calendar));
        }
    }
}

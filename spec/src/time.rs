//! Analysis times and periods, always in UTC.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that is not a time or period that mlwm understands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidTime {
    /// Not a time.
    #[error("`{0}` is not a time: write it in UTC like `2025-09-22T12:00Z` or `2025-09-22T1200Z`")]
    Time(String),
    /// A time with a part of a minute.
    #[error("`{0}` has seconds: an analysis time is given to the minute")]
    Seconds(String),
    /// Not a period.
    #[error("`{0}` is not a period: write it in ISO 8601 like `PT18H` or `P1DT6H`")]
    Period(String),
    /// A period whose length depends on the calendar, or that is not positive.
    #[error("`{0}` is not a positive number of days, hours, minutes and seconds")]
    PeriodLength(String),
}

/// The time a forecast starts from: UTC, to the minute. Text form: `2025-09-22T12:00Z`; in paths
/// `2025-09-22T1200Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AnalysisTime(Timestamp);

impl AnalysisTime {
    /// The form in paths, for [`AnalysisTime::formatted`].
    pub const PATH_FORM: &str = "%Y-%m-%dT%H%MZ";

    /// 1970-01-01T00:00Z.
    pub const UNIX_EPOCH: Self = Self(Timestamp::UNIX_EPOCH);

    /// The analysis time at a number of seconds since 1970-01-01T00:00Z; `None` if it is not a
    /// whole minute or out of range.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        (seconds % 60 == 0)
            .then(|| Timestamp::from_second(seconds).ok().map(Self))
            .flatten()
    }

    /// Seconds since 1970-01-01T00:00Z.
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// As written in paths: `2025-09-22T1200Z`.
    pub fn path_text(self) -> String {
        self.0.strftime(Self::PATH_FORM).to_string()
    }

    /// As a form says that has `%Y`, `%m`, `%d`, `%H` and `%M`: `20250922` by `%Y%m%d`. `None` if it has
    /// others, or none.
    pub fn formatted(self, form: &str) -> Option<String> {
        let mut parts = form.split('%').skip(1).peekable();
        parts.peek()?;
        parts
            .all(|part| part.starts_with(['Y', 'm', 'd', 'H', 'M']))
            .then(|| self.0.strftime(form).to_string())
    }
}

/// Seconds since 1970-01-01T00:00Z as people read them: `2025-09-22T12:00Z`, with seconds only
/// where there are some.
pub fn utc_text(unix_seconds: i64) -> String {
    match Timestamp::from_second(unix_seconds) {
        Ok(time) if unix_seconds % 60 == 0 => time.strftime("%Y-%m-%dT%H:%MZ").to_string(),
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => format!("{unix_seconds} s since 1970-01-01"),
    }
}

impl fmt::Display for AnalysisTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&utc_text(self.unix_seconds()))
    }
}

impl fmt::Debug for AnalysisTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AnalysisTime {
    type Err = InvalidTime;

    /// Reads ISO 8601 with or without a time zone (none means UTC), a colon or seconds.
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let invalid = || InvalidTime::Time(text.to_owned());
        let time = match text.parse::<Timestamp>() {
            Ok(time) => time,
            Err(_) => DateTime::strptime(Self::PATH_FORM, text)
                .or_else(|_| DateTime::strptime("%Y-%m-%dT%H:%MZ", text))
                .or_else(|_| text.parse::<DateTime>())
                .map_err(|_| invalid())?
                .to_zoned(TimeZone::UTC)
                .map_err(|_| invalid())?
                .timestamp(),
        };
        if time.as_second() % 60 != 0 || time.subsec_nanosecond() != 0 {
            return Err(InvalidTime::Seconds(text.to_owned()));
        }
        Ok(Self(time))
    }
}

impl TryFrom<String> for AnalysisTime {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

impl From<AnalysisTime> for String {
    fn from(time: AnalysisTime) -> Self {
        time.to_string()
    }
}

/// A positive length of time in whole seconds, written in ISO 8601: `PT3H`, `P1DT6H`. A day is 24
/// hours; months and years have no length and are refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Period(i64);

impl Period {
    /// A period of this many seconds; `None` unless positive.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        (seconds > 0).then_some(Self(seconds))
    }

    /// A period of a known number of seconds; of less than one, one second.
    pub(crate) const fn of_seconds(seconds: i64) -> Self {
        Self(if seconds > 0 { seconds } else { 1 })
    }

    /// Its length in seconds.
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// Its length for timers.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0.unsigned_abs())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SignedDuration::from_secs(self.0))
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Period {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let span: Span = text
            .parse()
            .map_err(|_| InvalidTime::Period(text.to_owned()))?;
        let length = || InvalidTime::PeriodLength(text.to_owned());
        if span.get_years() != 0 || span.get_months() != 0 {
            return Err(length());
        }
        let duration = span
            .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
            .map_err(|_| length())?;
        if duration.subsec_nanos() != 0 {
            return Err(length());
        }
        Self::from_seconds(duration.as_secs()).ok_or_else(length)
    }
}

impl TryFrom<String> for Period {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_common_way_to_write_a_time() {
        let expected = AnalysisTime::from_unix_seconds(1_649_300_400);
        for text in [
            "2022-04-07T03:00Z",
            "2022-04-07T0300Z",
            "2022-04-07T03:00:00Z",
            "2022-04-07T05:00+02:00",
            "2022-04-07T03:00",
            "2022-04-07 03:00:00",
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
        assert_eq!(
            expected.map(|t| t.to_string()).as_deref(),
            Some("2022-04-07T03:00Z")
        );
        assert_eq!(
            expected.map(AnalysisTime::path_text).as_deref(),
            Some("2022-04-07T0300Z")
        );
    }

    #[test]
    fn refuses_what_is_not_a_time_to_the_minute() {
        for text in [
            "",
            "now",
            "2022-13-01T00:00Z",
            "2022-04-07T03:00:01Z",
            "1649300400",
        ] {
            assert!(text.parse::<AnalysisTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn periods_round_trip() {
        for (text, seconds) in [("PT3H", 10_800), ("PT90M", 5_400), ("P1DT6H", 108_000)] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.seconds(), seconds, "{text}");
            assert_eq!(period.to_string().parse(), Ok(period));
        }
        for text in ["", "3h?", "P1M", "P1Y", "PT0S", "-PT3H", "PT0.5S"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}

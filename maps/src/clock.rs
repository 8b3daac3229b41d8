//! Round times along an axis.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A tick: seconds since 1970, and its text.
pub(crate) type Tick = (i64, String);

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// Steps in seconds up to half a month.
const STEPS: [i64; 9] = [
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    5 * DAY,
    10 * DAY,
    15 * DAY,
];
/// Steps in months.
const MONTHS: [i32; 9] = [1, 2, 3, 6, 12, 24, 60, 120, 240];

/// At most `count` round times from `first` to `last`, in UTC.
pub(crate) fn ticks(first: i64, last: i64, count: usize) -> Vec<Tick> {
    let length = last - first;
    let fits = |step: i64| length / step < count.max(1) as i64;
    if let Some(step) = STEPS.into_iter().find(|&step| fits(step)) {
        let start = first.div_euclid(step) * step;
        let all = (0..)
            .map(|at| start + at * step)
            .take_while(|&time| time <= last);
        return all
            .filter(|&time| time >= first)
            .map(|time| (time, text(time, step)))
            .collect();
    }
    let months = MONTHS
        .into_iter()
        .find(|&months| fits(i64::from(months) * 30 * DAY));
    let months = months.unwrap_or(240);
    let Ok(begin) = Timestamp::from_second(first) else {
        return Vec::new();
    };
    let date = begin.to_zoned(TimeZone::UTC).date();
    let month = i32::from(date.month() - 1) / months.min(12) * months.min(12) + 1;
    let year = match months > 12 {
        true => i32::from(date.year()) / (months / 12) * (months / 12),
        false => i32::from(date.year()),
    };
    let mut ticks = Vec::new();
    let mut at = Date::new(year as i16, month as i8, 1).ok();
    while let Some(date) = at {
        let Ok(time) = DateTime::from_parts(date, Time::midnight()).to_zoned(TimeZone::UTC) else {
            break;
        };
        let seconds = time.timestamp().as_second();
        if seconds > last {
            break;
        }
        if seconds >= first {
            let text = match months >= 12 {
                true => date.strftime("%Y").to_string(),
                false => date.strftime("%Y-%m").to_string(),
            };
            ticks.push((seconds, text));
        }
        at = date.checked_add(months.months()).ok();
    }
    ticks
}

fn text(seconds: i64, step: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else {
        return String::new();
    };
    match step < DAY {
        true => time.strftime("%m-%d %H:%M").to_string(),
        false => time.strftime("%Y-%m-%d").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_round_and_inside() {
        // 2020-02-01 to 2020-02-02 12:00.
        let texts = |first, last| -> Vec<String> {
            ticks(first, last, 6)
                .into_iter()
                .map(|tick| tick.1)
                .collect()
        };
        let start = 1_580_515_200;
        assert_eq!(
            texts(start, start + 36 * HOUR),
            ["02-01 00:00", "02-01 12:00", "02-02 00:00", "02-02 12:00"]
        );
        assert_eq!(texts(start + HOUR, start + 20 * DAY)[0], "2020-02-03");
        assert_eq!(
            texts(start, start + 120 * DAY),
            ["2020-02", "2020-03", "2020-04", "2020-05"]
        );
        assert_eq!(
            texts(start, start + 3 * 365 * DAY),
            ["2021", "2022", "2023"]
        );
        assert_eq!(texts(start, start + 30 * 365 * DAY)[0], "2030");
        assert_eq!(texts(start, start).len(), 1);
    }
}

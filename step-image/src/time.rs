//! Times as people read them, and how far apart they are.

use jiff::{SignedDuration, Timestamp};

/// A time in seconds since 1970-01-01T00:00Z as text, `2020-02-01T00:00:00Z`.
pub(crate) fn text(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{seconds} s since 1970"),
    }
}

/// A length of time as text, `PT6H`.
pub(crate) fn length(seconds: i64) -> String {
    SignedDuration::from_secs(seconds).to_string()
}

/// The largest length that all distances of sorted times are multiples of; `None` of fewer than two times.
pub(crate) fn spacing(times: &[i64]) -> Option<i64> {
    let distances = times.windows(2).map(|pair| pair[1] - pair[0]);
    distances.reduce(common_divisor)
}

fn common_divisor(a: i64, b: i64) -> i64 {
    match b {
        0 => a,
        _ => common_divisor(b, a % b),
    }
}

/// What is wrong with sorted times that should be evenly spaced; the first of it.
pub(crate) fn unevenness(times: &[i64]) -> Option<String> {
    let shortest = times.windows(2).map(|pair| pair[1] - pair[0]).min()?;
    let gap = times
        .windows(2)
        .find(|pair| pair[1] - pair[0] != shortest)?;
    Some(format!(
        "the times are not evenly spaced: {} follows {} after {}, others after {}",
        text(gap[1]),
        text(gap[0]),
        length(gap[1] - gap[0]),
        length(shortest)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spacing_is_found_around_gaps() {
        assert_eq!(spacing(&[0, 3600, 7200, 14_400]), Some(3600));
        assert_eq!(spacing(&[0, 10_800, 32_400]), Some(10_800));
        assert_eq!(spacing(&[5]), None);
    }

    #[test]
    fn the_first_gap_is_named() {
        assert_eq!(unevenness(&[0, 3600, 7200]), None);
        let text = unevenness(&[0, 3600, 10_800]).unwrap_or_default();
        assert!(
            text.contains("1970-01-01T03:00:00Z follows 1970-01-01T01:00:00Z after PT2H"),
            "{text}"
        );
    }
}

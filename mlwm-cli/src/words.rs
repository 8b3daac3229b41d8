//! Numbers as people read them.

/// A length of time: `0.523 s`, `45 s`, `3 min 05 s`, `7 h 02 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        _ if seconds < 1.0 => format!("{} s", number(seconds)),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A lead time: in hours, where it has whole ones.
pub(crate) fn lead_time(seconds: i64) -> String {
    match seconds % 3600 {
        0 => format!("{} h", seconds / 3600),
        _ => format!("{} min", seconds / 60),
    }
}

/// A number with three digits that count: `123`, `1.23`, `0.0123`.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let before_the_point = value.abs().log10().floor() as i32;
    let places = (2 - before_the_point).clamp(0, 9);
    format!("{value:.*}", places.unsigned_abs() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let said = [0.0, 0.5234, 9.4, 45.2, 59.6, 185.0, 25320.0].map(duration);
        let wanted = [
            "0 s",
            "0.523 s",
            "9 s",
            "45 s",
            "1 min 00 s",
            "3 min 05 s",
            "7 h 02 min",
        ];
        assert_eq!(said, wanted);
        assert_eq!([259_200, 5400].map(lead_time), ["72 h", "90 min"]);
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [123.4, 1.234, 0.01234, 0.0].map(number),
            ["123", "1.23", "0.0123", "0"]
        );
    }
}

//! Units as people write them: `m s⁻¹` for `m s-1`, `m s**-1` or `m s^-1`.

use crate::ticks::significant;

/// Typesets the units of CF and of GRIB.
pub(crate) fn typeset(units: &str) -> String {
    let units = units.trim().replace("**", "^");
    let words: Vec<String> = units.split_whitespace().map(word).collect();
    match words.join(" ").as_str() {
        "1" => String::new(),
        "degC" | "Celsius" | "degree_Celsius" | "degrees_Celsius" => "°C".to_owned(),
        "degree" | "degrees" => "°".to_owned(),
        other => other.to_owned(),
    }
}

/// What is written below a picture: the lowest and the highest value.
pub(crate) fn range_text(found: Option<(f64, f64)>, units: &str) -> String {
    let Some((low, high)) = found else {
        return "no values".to_owned();
    };
    let (low, high) = (significant(low), significant(high));
    let text = format!("min {low}   max {high} {}", typeset(units));
    text.trim_end().to_owned()
}

/// One unit with its power: letters, then `^` or nothing, then a whole number.
fn word(text: &str) -> String {
    let split = text.find(|c: char| matches!(c, '^' | '-' | '+') || c.is_ascii_digit());
    let Some((unit, power)) = split.filter(|at| *at > 0).map(|at| text.split_at(at)) else {
        return text.to_owned();
    };
    let power = power.strip_prefix('^').unwrap_or(power);
    match power.parse::<i32>() {
        Ok(power) if unit.chars().all(|c| c.is_alphabetic() || c == '_') => {
            format!("{unit}{}", superscript(power))
        }
        _ => text.to_owned(),
    }
}

/// A whole number as an exponent.
pub(crate) fn superscript(number: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let raised = |c: char| match c.to_digit(10) {
        Some(digit) => DIGITS.get(digit as usize).copied().unwrap_or(c),
        None => '⁻',
    };
    number.to_string().chars().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_raised_and_the_rest_is_kept() {
        for (units, expected) in [
            ("m s-1", "m s⁻¹"),
            ("m s**-1", "m s⁻¹"),
            ("kg m^-2", "kg m⁻²"),
            ("J m-2", "J m⁻²"),
            ("m2 s-2", "m² s⁻²"),
            ("K", "K"),
            ("m/s", "m/s"),
            ("1", ""),
            ("%", "%"),
            ("degC", "°C"),
            ("hPa h-10", "hPa h⁻¹⁰"),
            ("1e-3", "1e-3"),
            ("", ""),
        ] {
            assert_eq!(typeset(units), expected, "{units}");
        }
    }
}

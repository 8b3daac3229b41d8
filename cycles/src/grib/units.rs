//! Whether two texts mean the same units, as `m s-1`, `m/s` and `m s**-1` do.
//!
//! Nothing is converted: what differs by a factor, as `hPa` and `Pa`, is not the same.

use std::collections::BTreeMap;

/// Texts for numbers without units, besides those whose units cancel each other.
const NUMBERS: [&str; 9] = [
    "",
    "1",
    "-",
    "(0 - 1)",
    "fraction",
    "proportion",
    "dimensionless",
    "numeric",
    "none",
];

/// What ecCodes says of parameters whose units it does not know.
const UNKNOWN: &str = "~";

/// Whether values in the units `found` are in those that GRIB has, `due`.
pub(super) fn are_same(found: &str, due: &str) -> bool {
    let (found, due) = (found.trim(), due.trim());
    if found == due || due == UNKNOWN {
        return true;
    }
    match (powers(found), powers(due)) {
        (Some(found), Some(due)) => found == due,
        _ => false,
    }
}

/// The powers of base units that a text is the product of; `None` of a text that is none, or has a factor.
fn powers(text: &str) -> Option<BTreeMap<String, i32>> {
    let mut all = BTreeMap::new();
    if NUMBERS.contains(&text.to_ascii_lowercase().as_str()) {
        return Some(all);
    }
    let text = text.trim_end_matches("of water equivalent");
    let text = text.replace("**", "^").replace(['*', '.', '\u{b7}'], " ");
    // A slash divides by the one that follows it.
    for (number, part) in text.split('/').enumerate() {
        for (place, unit) in part.split_whitespace().enumerate() {
            let sign = if number > 0 && place == 0 { -1 } else { 1 };
            add(unit, sign, &mut all)?;
        }
    }
    all.retain(|_, power| *power != 0);
    Some(all)
}

/// Adds a unit with its power, such as `m`, `m2`, `m-2` or `m^-2`.
fn add(unit: &str, sign: i32, all: &mut BTreeMap<String, i32>) -> Option<()> {
    if unit == "1" {
        return Some(());
    }
    let end = unit.find(|c: char| c.is_ascii_digit() || "^+-".contains(c));
    let (name, power) = unit.split_at(end.unwrap_or(unit.len()));
    let power: i32 = match power.trim_start_matches('^') {
        "" if power.is_empty() => 1,
        power => power.parse().ok()?,
    };
    let base: &[(&str, i32)] = match name {
        "" => return None,
        "N" => &[("kg", 1), ("m", 1), ("s", -2)],
        "J" => &[("kg", 1), ("m", 2), ("s", -2)],
        "W" => &[("kg", 1), ("m", 2), ("s", -3)],
        "Pa" | "pascal" | "pascals" => &[("kg", 1), ("m", -1), ("s", -2)],
        "m" | "meter" | "meters" | "metre" | "metres" | "gpm" => &[("m", 1)],
        "s" | "sec" | "second" | "seconds" => &[("s", 1)],
        "K" | "kelvin" | "Kelvin" | "degK" => &[("K", 1)],
        "%" | "percent" => &[("%", 1)],
        "degree" | "degrees" | "deg" => &[("degree", 1)],
        other => {
            *all.entry(other.to_owned()).or_default() += sign * power;
            return Some(());
        }
    };
    for (name, each) in base {
        *all.entry((*name).to_owned()).or_default() +=
            sign.checked_mul(power)?.checked_mul(*each)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_the_same_however_they_are_written() {
        for (found, due) in [
            ("K", "K"),
            ("kelvin", "K"),
            ("m s-1", "m s**-1"),
            ("m/s", "m s**-1"),
            ("m.s^-1", "m s**-1"),
            ("m2 s-2", "m**2 s**-2"),
            ("J kg-1", "m**2 s**-2"),
            ("1", "kg kg**-1"),
            ("kg/kg", "kg kg**-1"),
            ("1", "(0 - 1)"),
            ("Proportion", "(0 - 1)"),
            ("1/s", "s**-1"),
            ("kg/m2/s", "kg m**-2 s**-1"),
            ("m", "m of water equivalent"),
            ("gpm", "m"),
            ("anything", "~"),
        ] {
            assert!(are_same(found, due), "{found} and {due}");
        }
    }

    #[test]
    fn units_that_differ_by_a_factor_or_altogether_are_not_the_same() {
        for (found, due) in [
            ("degC", "K"),
            ("hPa", "Pa"),
            ("mm", "m"),
            ("kg m-2", "m"),
            ("%", "(0 - 1)"),
            ("g/kg", "kg kg**-1"),
            ("m s-2", "m s**-1"),
            ("km/h", "m s**-1"),
            ("100 Pa", "Pa"),
            ("0.01 m", "m"),
            ("Pa^", "Pa"),
            ("m99999999999", "m"),
        ] {
            assert!(!are_same(found, due), "{found} and {due}");
        }
    }
}

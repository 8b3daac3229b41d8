//! Round numbers along an axis, and how they are written.

use crate::units::superscript;

/// Positions and texts of ticks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ticks {
    /// Values, rising, all within the axis.
    pub(crate) values: Vec<f64>,
    /// The text of each value, divided by `10^exponent`.
    pub(crate) texts: Vec<String>,
    /// Power of ten that is written once for all; 0 for none.
    pub(crate) exponent: i32,
}

impl Ticks {
    /// About `count` ticks at 1, 2 or 5 times a power of ten, from `low` to `high`.
    pub(crate) fn between(low: f64, high: f64, count: usize) -> Self {
        let step = round_step((high - low) / count.max(1) as f64);
        // Multiples are counted from the first, so that no error adds up.
        let tolerance = 1e-9;
        let first = (low / step - tolerance).ceil();
        let last = (high / step + tolerance).floor();
        let exponent = exponent(low, high);
        let scale = 10f64.powi(exponent);
        let decimals = decimals(step / scale);
        let mut ticks = Self {
            values: Vec::new(),
            texts: Vec::new(),
            exponent,
        };
        let mut multiple = first;
        while multiple <= last && ticks.values.len() < 100 {
            let value = multiple * step;
            ticks.values.push(value.clamp(low, high));
            ticks.texts.push(number(value / scale, decimals));
            multiple += 1.0;
        }
        ticks
    }

    /// The power of ten as text, `×10⁵`; empty for none.
    pub(crate) fn factor(&self) -> String {
        match self.exponent {
            0 => String::new(),
            exponent => format!("×10{}", superscript(exponent)),
        }
    }
}

/// The round number nearest to `step`, by ratio.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powi(step.log10().floor() as i32);
    let distance = |round: &f64| (step / power / round).ln().abs();
    let rounds = [1.0, 2.0, 5.0, 10.0].into_iter();
    let round = rounds.min_by(|one, other| distance(one).total_cmp(&distance(other)));
    round.unwrap_or(10.0) * power
}

/// The power of ten that keeps texts short: none from a hundredth to a million.
fn exponent(low: f64, high: f64) -> i32 {
    let largest = low.abs().max(high.abs());
    match largest {
        largest if largest == 0.0 || (1e-2..1e6).contains(&largest) => 0,
        largest => largest.log10().floor() as i32,
    }
}

/// Decimals that a multiple of `step` needs.
fn decimals(step: f64) -> usize {
    (0..12)
        .find(|decimals| {
            let scaled = step * 10f64.powi(*decimals);
            (scaled - scaled.round()).abs() < 1e-6 * scaled.abs().max(1e-9)
        })
        .unwrap_or(12) as usize
}

/// A number with a true minus sign, and no sign on zero.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    match text.strip_prefix('-') {
        Some(digits) if zero => digits.to_owned(),
        Some(digits) => format!("\u{2212}{digits}"),
        None => text,
    }
}

/// A number to four significant digits.
pub(crate) fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&magnitude) {
        let exponent = magnitude.log10().floor() as i32;
        let mantissa = number(value / 10f64.powi(exponent), 2);
        return format!("{mantissa}×10{}", superscript(exponent));
    }
    let digits_before = if magnitude < 1.0 {
        0
    } else {
        magnitude.log10().floor() as usize + 1
    };
    number(value, 4usize.saturating_sub(digits_before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        for (low, high, count, expected) in [
            (0.0, 1.0, 5, "0.0 0.2 0.4 0.6 0.8 1.0"),
            (271.3, 284.9, 5, "272 274 276 278 280 282 284"),
            (-9.0, 9.0, 4, "−5 0 5"),
            (-1005.0, -705.0, 4, "−1000 −900 −800"),
            (0.0, 3e-6, 3, "0 1 2 3"),
            (0.0, 2.1e6, 5, "0.0 0.5 1.0 1.5 2.0"),
            (99_000.0, 103_000.0, 4, "99000 100000 101000 102000 103000"),
        ] {
            let ticks = Ticks::between(low, high, count);
            assert_eq!(ticks.texts.join(" "), expected, "{low}..{high}");
            assert!(
                ticks
                    .values
                    .iter()
                    .all(|value| (low..=high).contains(value))
            );
        }
        assert_eq!(Ticks::between(0.0, 3e-6, 5).factor(), "×10⁻⁶");
        assert_eq!(Ticks::between(0.0, 30.0, 5).factor(), "");
    }

    #[test]
    fn narrow_and_wide_ranges_have_a_few_ticks() {
        for (low, high) in [
            (1e-300, 2e-300),
            (-1e300, 1e300),
            (280.0, 280.000_1),
            (0.0, 5e-324),
        ] {
            let ticks = Ticks::between(low, high, 5);
            assert!(ticks.values.len() <= 12, "{low}..{high}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_for_people() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (278.2523, "278.3"),
            (-1.00234, "−1.002"),
            (0.012_34, "0.0123"),
            (921_240.7, "921241"),
            (1.5e-7, "1.50×10⁻⁷"),
            (-2.0e9, "−2.00×10⁹"),
        ] {
            assert_eq!(significant(value), expected);
        }
        assert_eq!(number(-0.04, 1), "0.0");
    }
}

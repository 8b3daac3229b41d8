//! Sums that do not depend on the order of what is added, and what follows from them.

use ethnum::U256;

/// Values are counted in units of 2 to the power of minus this.
const UNIT: i32 = 80;

/// The largest magnitude: 2³⁰. With it, the sums of 65,535 members and of their squares always fit.
const LARGEST: i128 = 1 << (30 + UNIT);

/// A value in units of 2⁻⁸⁰: exactly, or, below 10⁻¹⁷, rounded to the nearest (ties to even). None
/// beyond 2³⁰ and for what is not finite.
pub(super) fn fixed(value: f32) -> Option<i128> {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32;
    let fraction = i128::from(bits & 0x007f_ffff);
    let (mantissa, power) = match exponent {
        0 => (fraction, -149),
        _ => (fraction | 1 << 23, exponent - 150),
    };
    let magnitude = match power + UNIT {
        // Beyond the largest, or not finite.
        88.. => return None,
        shift @ 0.. => mantissa << shift,
        shift => rounded(mantissa, shift.unsigned_abs()),
    };
    let value = if value.is_sign_negative() {
        -magnitude
    } else {
        magnitude
    };
    (magnitude <= LARGEST).then_some(value)
}

/// A mantissa of 24 bits without its last bits.
fn rounded(mantissa: i128, bits: u32) -> i128 {
    if bits > 25 {
        return 0;
    }
    let (kept, rest, half) = (
        mantissa >> bits,
        mantissa & ((1 << bits) - 1),
        1 << (bits - 1),
    );
    kept + i128::from(rest > half || rest == half && kept & 1 == 1)
}

/// The square of a value, in units of 2⁻¹⁶⁰.
pub(super) fn square(value: i128) -> U256 {
    let magnitude = U256::from(value.unsigned_abs());
    magnitude * magnitude
}

/// The mean of `count` values with this sum.
pub(super) fn mean(sum: i128, count: u16) -> f64 {
    sum as f64 / f64::from(count) * 2f64.powi(-UNIT)
}

/// The standard deviation (n − 1) of `count` values: the root of (n Σx² − (Σx)²) / n (n − 1), whose
/// numerator is exact. NaN of fewer than two values.
pub(super) fn spread(sum: i128, squares: U256, count: u16) -> f64 {
    if count < 2 {
        return f64::NAN;
    }
    let n = f64::from(count);
    let numerator = U256::from(count) * squares - square(sum);
    (double(numerator) / (n * (n - 1.0))).sqrt() * 2f64.powi(-UNIT)
}

/// The nearest double.
fn double(value: U256) -> f64 {
    let shift = 192_u32.saturating_sub(value.leading_zeros());
    // The first 64 bits; whatever is cut off counts as a last bit, which only breaks ties.
    let cut = value >> shift;
    let is_inexact = (cut << shift) != value;
    (cut.as_u64() | u64::from(is_inexact)) as f64 * 2f64.powi(shift as i32)
}

/// A percentile of sorted values by linear interpolation, as NumPy's default. NaN of none.
pub(super) fn percentile(sorted: &[f32], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = percent / 100.0 * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let (low, high) = (f64::from(sorted[below]), f64::from(sorted[above]));
    low + (high - low) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact_where_they_can_be() {
        let unit = 2f64.powi(-80);
        for value in [
            0.0,
            1.0,
            -1.0,
            0.1,
            273.15,
            -101_325.25,
            1e-16,
            3.2e-17,
            1_073_741_824.0,
        ] {
            let exact = fixed(value).unwrap();
            assert_eq!(exact as f64 * unit, f64::from(value), "{value}");
        }
        assert_eq!(fixed(-0.0), Some(0));
        // A quarter, a half and three quarters of the unit, one and a half.
        let units = |count: f32| fixed(count * 2f32.powi(-80)).unwrap();
        let rounded = [0.25, 0.5, 0.75, 1.5, 2.5, -1.5].map(units);
        assert_eq!(rounded, [0, 0, 1, 2, 2, -2]);
        assert_eq!(fixed(f32::MIN_POSITIVE), Some(0));
        assert_eq!(fixed(f32::from_bits(1)), Some(0));
        for value in [1_073_741_952.0, -1e10, f32::MAX, f32::INFINITY, f32::NAN] {
            assert_eq!(fixed(value), None, "{value}");
        }
    }

    #[test]
    fn sums_of_the_most_and_largest_members_fit() {
        let largest = fixed(-1_073_741_824.0).unwrap();
        let count = super::super::MAX_MEMBERS as u16;
        let sum = largest.checked_mul(i128::from(count)).unwrap();
        let squares = square(largest).checked_mul(U256::from(count)).unwrap();
        assert_eq!(mean(sum, count), -1_073_741_824.0);
        assert_eq!(spread(sum, squares, count), 0.0);
        assert!(squares.checked_mul(U256::from(count)).is_some());
    }

    #[test]
    fn nothing_cancels() {
        // In float64 the squares of these differ by less than their rounding.
        let values = [1_000_000.0_f32, 1_000_000.06];
        let fixed = values.map(|value| fixed(value).unwrap());
        let squares = square(fixed[0]) + square(fixed[1]);
        let difference = f64::from(values[1]) - f64::from(values[0]);
        let spread = spread(fixed[0] + fixed[1], squares, 2);
        assert_eq!(spread, (difference * difference / 2.0).sqrt());
    }

    #[test]
    fn doubles_are_the_nearest() {
        let one = U256::ONE;
        assert_eq!(double(U256::ZERO), 0.0);
        assert_eq!(double(one << 200_u32), 2f64.powi(200));
        let tie = (one << 200_u32) + (one << 147_u32);
        assert_eq!(double(tie), 2f64.powi(200), "ties to even");
        let above = tie + one;
        assert_eq!(double(above), 2f64.powi(200) + 2f64.powi(148));
        assert_eq!(double(U256::from(u64::MAX)), u64::MAX as f64);
    }
}

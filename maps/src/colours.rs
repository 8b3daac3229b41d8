//! From values to colours.

use colorous::{Gradient, RED_BLUE, VIRIDIS};

use crate::Error;

/// Colour of missing values.
pub(crate) const MISSING: [u8; 3] = [198, 198, 198];

/// A side of zero this much smaller than the other is noise, and no reason to split the colours.
const SMALLEST_SIDE: f64 = 0.1;

/// What colour each value has.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Value at the lower end of the colour bar.
    pub(crate) low: f64,
    /// Value at its upper end.
    pub(crate) high: f64,
    gradient: Gradient,
    /// The gradient runs the other way: red is to be warm, blue cold.
    reversed: bool,
}

impl Scale {
    /// The colours for a field: those of `range` if given, else from its least to its greatest
    /// value. Where the values lie on both sides of zero the colours part there, with the same
    /// length on both sides; elsewhere lightness rises evenly with the value.
    pub(crate) fn of(values: &[f64], range: Option<(f64, f64)>) -> Result<Self, Error> {
        let (low, high) = match range {
            Some((low, high)) if low < high && (high - low).is_finite() => (low, high),
            Some((low, high)) => return Err(Error::Range { low, high }),
            None => extremes(values).map_or((0.0, 1.0), |(low, high)| widened(low, high)),
        };
        let (shorter, longer) = (low.abs().min(high.abs()), low.abs().max(high.abs()));
        let both_sides = low < 0.0 && high > 0.0 && shorter >= SMALLEST_SIDE * longer;
        Ok(match both_sides {
            true => Self {
                low: -longer,
                high: longer,
                gradient: RED_BLUE,
                reversed: true,
            },
            false => Self {
                low,
                high,
                gradient: VIRIDIS,
                reversed: false,
            },
        })
    }

    /// The colour of a value; values beyond the ends have the colour of the end, and what is not a
    /// finite number is missing.
    pub(crate) fn colour(&self, value: f64) -> [u8; 3] {
        if !value.is_finite() {
            return MISSING;
        }
        // Halves, so that the length of the longest scale is still finite.
        let along = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        let along = along.clamp(0.0, 1.0);
        let colour = self
            .gradient
            .eval_continuous(if self.reversed { 1.0 - along } else { along });
        [colour.r, colour.g, colour.b]
    }
}

/// The least and the greatest finite value.
pub(crate) fn extremes(values: &[f64]) -> Option<(f64, f64)> {
    let mut finite = values.iter().copied().filter(|value| value.is_finite());
    let first = finite.next()?;
    Some(finite.fold((first, first), |(low, high), value| {
        (low.min(value), high.max(value))
    }))
}

/// A constant field gets a scale around its value.
fn widened(low: f64, high: f64) -> (f64, f64) {
    let least = low.abs().max(high.abs()) * 1e-6;
    if high - low > least && (high - low).is_finite() {
        return (low, high);
    }
    if high - low > least {
        // Too long to be measured: the ends are drawn as one half each.
        return (low / 2.0, high / 2.0);
    }
    let margin = if low == 0.0 { 1.0 } else { low.abs() * 1e-2 };
    (low - margin, high + margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lightness(colour: [u8; 3]) -> f64 {
        let linear = |c: u8| (f64::from(c) / 255.0).powf(2.2);
        0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
    }

    #[test]
    fn plain_fields_grow_lighter_evenly() {
        let scale = Scale::of(&[270.0, 290.0, f64::NAN], None).unwrap();
        assert_eq!((scale.low, scale.high), (270.0, 290.0));
        let lights: Vec<f64> = (0..=20)
            .map(|step| lightness(scale.colour(270.0 + f64::from(step))))
            .collect();
        assert!(lights.is_sorted(), "{lights:?}");
    }

    #[test]
    fn winds_part_at_zero_with_warm_colours_above() {
        let scale = Scale::of(&[-4.0, 9.0], None).unwrap();
        assert_eq!((scale.low, scale.high), (-9.0, 9.0));
        let [zero, below, above] = [0.0, -9.0, 9.0].map(|value| scale.colour(value));
        assert!(lightness(zero) > 0.8, "{zero:?}");
        assert!(
            below[2] > below[0] && above[0] > above[2],
            "{below:?} {above:?}"
        );
        let noise = Scale::of(&[-0.01, 9.0], None).unwrap();
        assert_eq!((noise.low, noise.high), (-0.01, 9.0));
    }

    #[test]
    fn constants_and_nothing_have_a_scale() {
        for values in [
            vec![],
            vec![f64::NAN],
            vec![0.0],
            vec![273.15; 3],
            vec![-5.0],
            vec![f64::MAX, f64::MIN],
        ] {
            let scale = Scale::of(&values, None).unwrap();
            assert!(
                scale.low < scale.high && (scale.high - scale.low).is_finite(),
                "{values:?}"
            );
        }
        assert_eq!(Scale::of(&[1.0], None).unwrap().colour(f64::NAN), MISSING);
        for bad in [
            (1.0, 1.0),
            (2.0, 1.0),
            (f64::NAN, 1.0),
            (0.0, f64::INFINITY),
        ] {
            assert!(Scale::of(&[1.0], Some(bad)).is_err());
        }
    }
}

//! Mean, variance, least and greatest value of many, put together from parts.

/// What is known of some values. Parts are merged in one order, so that the result does not depend on who made them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    pub(super) count: u64,
    pub(super) missing: u64,
    pub(super) mean: f64,
    /// The sum of the squares of the distances from the mean.
    squares: f64,
    pub(super) least: f64,
    pub(super) greatest: f64,
}

impl Moments {
    pub(super) const NONE: Self = Self {
        count: 0,
        missing: 0,
        mean: 0.0,
        squares: 0.0,
        least: f64::INFINITY,
        greatest: f64::NEG_INFINITY,
    };

    /// Of these values in two passes; NaN is missing.
    pub(super) fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let mut moments = Self::NONE;
        let mut sum = 0.0;
        for value in values.clone() {
            if value.is_nan() {
                moments.missing += 1;
                continue;
            }
            moments.count += 1;
            sum += value;
            moments.least = moments.least.min(value);
            moments.greatest = moments.greatest.max(value);
        }
        if moments.count == 0 {
            return moments;
        }
        moments.mean = sum / moments.count as f64;
        let known = values.filter(|value| !value.is_nan());
        moments.squares = known.map(|value| (value - moments.mean).powi(2)).sum();
        moments
    }

    /// Of one value.
    pub(super) fn one(value: f64) -> Self {
        match value.is_nan() {
            true => Self {
                missing: 1,
                ..Self::NONE
            },
            false => Self {
                count: 1,
                missing: 0,
                mean: value,
                squares: 0.0,
                least: value,
                greatest: value,
            },
        }
    }

    /// Adds what is known of other values (Chan, Golub and LeVeque 1979).
    pub(super) fn add(&mut self, other: &Self) {
        self.missing += other.missing;
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            let missing = self.missing;
            *self = Self { missing, ..*other };
            return;
        }
        let (mine, others) = (self.count as f64, other.count as f64);
        let all = mine + others;
        let apart = other.mean - self.mean;
        self.mean += apart * (others / all);
        self.squares += other.squares + apart * apart * (mine * others / all);
        self.count += other.count;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    /// The standard deviation of these values themselves (divided by n).
    pub(super) fn deviation(&self) -> f64 {
        match self.count {
            0 => f64::NAN,
            count => (self.squares / count as f64).sqrt(),
        }
    }

    /// NaN of nothing.
    pub(super) fn known(&self, value: f64) -> f64 {
        if self.count == 0 { f64::NAN } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        let values: Vec<f64> = (0..1000).map(|i| 1e6 + f64::from(i * i % 97)).collect();
        let whole = Moments::of(values.iter().copied());
        let mut parts = Moments::NONE;
        for part in values.chunks(7) {
            parts.add(&Moments::of(part.iter().copied()));
        }
        assert_eq!(
            (parts.count, parts.least, parts.greatest),
            (1000, whole.least, whole.greatest)
        );
        assert!((parts.mean - whole.mean).abs() < 1e-9);
        assert!((parts.deviation() / whole.deviation() - 1.0).abs() < 1e-12);
        let mut single = Moments::NONE;
        values
            .iter()
            .for_each(|value| single.add(&Moments::one(*value)));
        assert!((single.deviation() / whole.deviation() - 1.0).abs() < 1e-11);
    }

    #[test]
    fn missing_values_are_counted_and_left_out() {
        let moments = Moments::of([1.0, f64::NAN, 3.0].into_iter());
        assert_eq!((moments.count, moments.missing, moments.mean), (2, 1, 2.0));
        assert_eq!(moments.deviation(), 1.0);
        let mut none = Moments::of([f64::NAN].into_iter());
        assert!(none.deviation().is_nan() && none.known(none.mean).is_nan());
        none.add(&moments);
        assert_eq!((none.count, none.missing, none.mean), (2, 2, 2.0));
    }
}

//! Fields of a window into one, in double precision.

use crate::resample::Method;

/// Fields that become one. A point that is missing in one of them is missing in the result: a mean of fewer
/// fields would look like any other.
#[derive(Debug)]
pub(crate) struct Fold {
    method: Method,
    values: Vec<f64>,
    fields: u32,
    seconds: f64,
    /// Whether the fields stand for different lengths of time.
    is_weighted: bool,
}

impl Fold {
    pub(crate) fn new(method: Method) -> Self {
        Self {
            method,
            values: Vec::new(),
            fields: 0,
            seconds: 0.0,
            is_weighted: false,
        }
    }

    /// Begins a result; `is_weighted` if its fields stand for different lengths of time.
    pub(crate) fn begin(&mut self, is_weighted: bool) {
        self.fields = 0;
        self.seconds = 0.0;
        self.is_weighted = is_weighted;
    }

    /// Adds a field that stands for so many seconds.
    pub(crate) fn add(&mut self, field: &[f64], seconds: i64) {
        let weight = self.weight(seconds);
        self.put(field.iter().map(|value| value * weight));
    }

    /// Adds by how much a field is more than another one.
    pub(crate) fn add_difference(&mut self, field: &[f64], minus: &[f64]) {
        self.put(field.iter().zip(minus).map(|(value, minus)| value - minus));
    }

    /// The result.
    pub(crate) fn finish(&mut self) -> &[f64] {
        if self.method == Method::Mean {
            let count = match self.is_weighted {
                true => self.seconds,
                false => f64::from(self.fields),
            };
            self.values.iter_mut().for_each(|value| *value /= count);
        }
        &self.values
    }

    fn weight(&mut self, seconds: i64) -> f64 {
        let seconds = seconds as f64;
        self.seconds += seconds;
        match self.method == Method::Mean && self.is_weighted {
            true => seconds,
            false => 1.0,
        }
    }

    fn put(&mut self, field: impl Iterator<Item = f64>) {
        self.fields += 1;
        if self.fields == 1 {
            self.values.clear();
            self.values.extend(field);
            return;
        }
        let both = self.values.iter_mut().zip(field);
        match self.method {
            Method::Mean | Method::Sum | Method::Deaccumulate => {
                both.for_each(|(value, new)| *value += new);
            }
            Method::Last => both.for_each(|(value, new)| *value = new),
            Method::Min => both.for_each(|(value, new)| {
                if new.is_nan() || new < *value {
                    *value = new;
                }
            }),
            Method::Max => both.for_each(|(value, new)| {
                if new.is_nan() || new > *value {
                    *value = new;
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(method: Method, fields: &[([f64; 3], i64)], is_weighted: bool) -> Vec<f64> {
        let mut fold = Fold::new(method);
        fold.begin(is_weighted);
        for (field, seconds) in fields {
            fold.add(field, *seconds);
        }
        fold.finish().to_vec()
    }

    #[test]
    fn a_missing_point_stays_missing() {
        let fields = [([1.0, f64::NAN, 3.0], 1), ([2.0, 2.0, f64::NAN], 1)];
        for method in [Method::Mean, Method::Sum, Method::Min, Method::Max] {
            let found = fold(method, &fields, false);
            assert!(!found[0].is_nan() && found[1].is_nan() && found[2].is_nan());
        }
    }

    #[test]
    fn methods_do_what_they_say() {
        let fields = [([1.0, 5.0, 3.0], 1), ([2.0, 2.0, 9.0], 3)];
        assert_eq!(fold(Method::Mean, &fields, false), [1.5, 3.5, 6.0]);
        assert_eq!(fold(Method::Mean, &fields, true), [1.75, 2.75, 7.5]);
        assert_eq!(fold(Method::Sum, &fields, true), [3.0, 7.0, 12.0]);
        assert_eq!(fold(Method::Min, &fields, false), [1.0, 2.0, 3.0]);
        assert_eq!(fold(Method::Max, &fields, false), [2.0, 5.0, 9.0]);
        assert_eq!(fold(Method::Last, &fields, false), [2.0, 2.0, 9.0]);
    }

    #[test]
    fn what_is_left_of_one_result_is_not_in_the_next() {
        let mut fold = Fold::new(Method::Sum);
        for _ in 0..2 {
            fold.begin(false);
            fold.add_difference(&[3.0], &[1.0]);
            fold.add(&[1.0], 1);
            assert_eq!(fold.finish(), [3.0]);
        }
    }
}

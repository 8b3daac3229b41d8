//! The times of several stores, which must follow each other without a gap.

use std::path::{Path, PathBuf};

use mlwm_spec::time::utc_text as text;

use crate::Fault;

/// The times of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) store: PathBuf,
    /// Seconds since 1970.
    pub(super) values: Vec<i64>,
}

impl Times {
    fn first(&self) -> i64 {
        self.values[0]
    }

    fn last(&self) -> i64 {
        self.values[self.values.len() - 1]
    }

    /// Refuses a store without times, and times that do not rise.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.values.is_empty() {
            return Err(Fault::store(&self.store, "it has no times"));
        }
        match self.values.windows(2).find(|pair| pair[1] <= pair[0]) {
            None => Ok(()),
            Some([one, other]) if one == other => Err(Fault::store(
                &self.store,
                format!("the time {} is there twice", text(*one)),
            )),
            Some(pair) => Err(Fault::store(
                &self.store,
                format!(
                    "the time {} comes after {}: times must rise",
                    text(pair[1]),
                    text(pair[0])
                ),
            )),
        }
    }
}

/// The step from one time to the next in all of them, in order; none of a single time.
///
/// # Errors
/// For times that overlap, are missing or shifted, with their stores.
pub(super) fn check_series(series: &[Times]) -> Result<Option<i64>, Fault> {
    let mut step = None;
    for (number, times) in series.iter().enumerate() {
        if let Some(before) = number.checked_sub(1).map(|before| &series[before]) {
            check_order(before, times)?;
            check_step(
                &mut step,
                before.last(),
                times.first(),
                &times.store,
                Some(&before.store),
            )?;
        }
        for pair in times.values.windows(2) {
            check_step(&mut step, pair[0], pair[1], &times.store, None)?;
        }
    }
    Ok(step)
}

fn check_order(before: &Times, after: &Times) -> Result<(), Fault> {
    if after.first() > before.last() {
        return Ok(());
    }
    let (store, other) = (after.store.clone(), before.store.clone());
    if after.values == before.values {
        let (first, last) = (text(after.first()), text(after.last()));
        let reason = format!("both have the times {first} to {last}: leave one of them out");
        return Err(Fault::Differs {
            store,
            other,
            reason,
        });
    }
    let common = |time: &&i64| before.values.binary_search(time).is_ok();
    let count = after.values.iter().filter(common).count();
    let reason = match after.values.iter().find(common) {
        Some(first) => format!(
            "they overlap: {count} time(s) are in both, from {} on",
            text(*first)
        ),
        None => format!(
            "they overlap: it begins at {}, but the other ends at {}",
            text(after.first()),
            text(before.last())
        ),
    };
    Err(Fault::Differs {
        store,
        other,
        reason,
    })
}

/// Compares a step with the one so far; `other` is the store before, where it leads from one to the next.
fn check_step(
    step: &mut Option<i64>,
    from: i64,
    to: i64,
    store: &Path,
    other: Option<&Path>,
) -> Result<(), Fault> {
    let found = to - from;
    let expected = *step.get_or_insert(found);
    if found == expected {
        return Ok(());
    }
    let whole = found % expected == 0;
    let reason = match whole {
        true => format!(
            "{} time(s) are missing, from {} to {} (the step is {})",
            found / expected - 1,
            text(from + expected),
            text(to - expected),
            duration(expected)
        ),
        false => format!(
            "the step from {} to {} is {}, but {} before: the times are shifted",
            text(from),
            text(to),
            duration(found),
            duration(expected)
        ),
    };
    let store = store.to_owned();
    Err(match other {
        Some(other) => Fault::Differs {
            store,
            other: other.to_owned(),
            reason,
        },
        None => Fault::Store { store, reason },
    })
}

/// A length of time as people read it: `6 h`.
pub(crate) fn duration(seconds: i64) -> String {
    for (unit, length) in [("d", 86_400), ("h", 3600), ("min", 60)] {
        if seconds % length == 0 {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn times(name: &str, values: &[i64]) -> Times {
        Times {
            store: PathBuf::from(name),
            values: values.iter().map(|hours| hours * 3600).collect(),
        }
    }

    #[test]
    fn times_that_follow_each_other() {
        let one = times("a", &[0, 6, 12, 18]);
        assert_eq!(
            check_series(&[one.clone(), times("b", &[24, 30])]).unwrap(),
            Some(21_600)
        );
        assert_eq!(
            check_series(&[times("a", &[0]), times("b", &[6]), times("c", &[12])]).unwrap(),
            Some(21_600)
        );
        assert_eq!(check_series(&[times("a", &[0])]).unwrap(), None);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let one = times("a", &[0, 6, 12, 18]);
        for (other, expected) in [
            (
                times("b", &[0, 6, 12, 18]),
                "b does not fit a: both have the times 1970-01-01T00:00Z to 1970-01-01T18:00Z",
            ),
            (
                times("b", &[12, 18, 24]),
                "b does not fit a: they overlap: 2 time(s) are in both, from 1970-01-01T12:00Z",
            ),
            (
                times("b", &[15, 21]),
                "b does not fit a: they overlap: it begins at 1970-01-01T15:00Z",
            ),
            (
                times("b", &[36, 42]),
                "b does not fit a: 2 time(s) are missing, from 1970-01-02T00:00Z to 1970-01-02T06:00Z",
            ),
            (
                times("b", &[25, 31]),
                "b does not fit a: the step from 1970-01-01T18:00Z to 1970-01-02T01:00Z is 7 h, but 6 h before",
            ),
            (
                times("b", &[24, 36]),
                "b: 1 time(s) are missing, from 1970-01-02T06:00Z to 1970-01-02T06:00Z",
            ),
        ] {
            let error = check_series(&[one.clone(), other]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(
            times("c", &[0, 0])
                .check()
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
        assert!(
            times("c", &[6, 0])
                .check()
                .unwrap_err()
                .to_string()
                .contains("rise")
        );
        assert!(times("c", &[]).check().is_err());
    }
}

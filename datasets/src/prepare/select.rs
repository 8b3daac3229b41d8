//! Selections by coordinate value, as `xarray`'s `sel` makes them.

use std::ops::Range;

use mlwm_spec::datastore::{Range as ValueRange, SelectedValues};

/// Values of a coordinate that cannot be selected.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum SelectError {
    /// A value that is not there.
    #[error("`{coordinate}` = {value} is not there; the dataset has {available}")]
    Missing {
        /// The coordinate.
        coordinate: String,
        /// The value looked for.
        value: f64,
        /// What there is.
        available: String,
    },
    /// A selection that makes no sense.
    #[error("the selection of `{coordinate}` {reason}")]
    Wrong {
        /// The coordinate.
        coordinate: String,
        /// What is wrong.
        reason: String,
    },
}

/// Which positions of a coordinate are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// These; the dimension stays.
    Many(Vec<usize>),
    /// This one; the dimension goes away.
    One(usize),
}

/// The positions of the selected values among `values`. A list keeps its order; a range takes both
/// ends and the order of the coordinate.
pub(crate) fn positions(
    coordinate: &str,
    values: &[f64],
    selected: &SelectedValues,
) -> Result<Positions, SelectError> {
    match selected {
        SelectedValues::One(value) => Ok(Positions::One(position(coordinate, values, *value)?)),
        SelectedValues::List(wanted) => {
            let mut taken = Vec::with_capacity(wanted.len());
            for value in wanted {
                let at = position(coordinate, values, *value)?;
                if taken.contains(&at) {
                    return Err(wrong(coordinate, format!("takes {value} twice")));
                }
                taken.push(at);
            }
            match taken.is_empty() {
                true => Err(wrong(coordinate, "is empty".to_owned())),
                false => Ok(Positions::Many(taken)),
            }
        }
        SelectedValues::Range(range) => Ok(Positions::Many(
            range_positions(coordinate, values, range)?.collect(),
        )),
    }
}

fn position(coordinate: &str, values: &[f64], wanted: f64) -> Result<usize, SelectError> {
    // Float32 levels such as 0.1 are written as 0.1 in a configuration.
    let equals = |value: f64| value == wanted || value == f64::from(wanted as f32);
    let mut found = values
        .iter()
        .enumerate()
        .filter(|(_, value)| equals(**value));
    match (found.next(), found.next()) {
        (Some((at, _)), None) => Ok(at),
        (Some(_), Some(_)) => Err(wrong(
            coordinate,
            format!("is ambiguous: the dataset has {wanted} more than once"),
        )),
        (None, _) => Err(SelectError::Missing {
            coordinate: coordinate.to_owned(),
            value: wanted,
            available: listed(values),
        }),
    }
}

/// The positions from `start` to `end`, both included, following the direction of the coordinate
/// as a pandas index does: on a falling coordinate `start` must not be below `end`.
pub(crate) fn range_positions(
    coordinate: &str,
    values: &[f64],
    range: &ValueRange,
) -> Result<Range<usize>, SelectError> {
    let number = |value: &serde_json::Value| {
        value
            .as_f64()
            .ok_or_else(|| wrong(coordinate, format!("has the bound {value}: write a number")))
    };
    let (start, end) = (number(&range.start)?, number(&range.end)?);
    if start == end {
        return Err(wrong(coordinate, "has the same start and end".to_owned()));
    }
    let rising = values.windows(2).all(|pair| pair[0] < pair[1]);
    let falling = values.windows(2).all(|pair| pair[0] > pair[1]);
    let inside: Vec<usize> = match (rising, falling) {
        (true, _) => (0..values.len())
            .filter(|&i| start <= values[i] && values[i] <= end)
            .collect(),
        (_, true) => (0..values.len())
            .filter(|&i| end <= values[i] && values[i] <= start)
            .collect(),
        _ => {
            let reason = "is a range, but its values neither only rise nor only fall";
            return Err(wrong(coordinate, reason.to_owned()));
        }
    };
    match (inside.first(), inside.last()) {
        (Some(first), Some(last)) => Ok(*first..last + 1),
        _ => Err(wrong(
            coordinate,
            format!(
                "from {start} to {end} is empty; the dataset has {}",
                listed(values)
            ),
        )),
    }
}

fn wrong(coordinate: &str, reason: String) -> SelectError {
    SelectError::Wrong {
        coordinate: coordinate.to_owned(),
        reason,
    }
}

/// Values as a message lists them: all of a few, the ends of many.
pub(crate) fn listed(values: &[f64]) -> String {
    let text: Vec<String> = values.iter().map(f64::to_string).collect();
    match text.as_slice() {
        [] => "none".to_owned(),
        [first, .., last] if text.len() > 40 => {
            format!("{} values from {first} to {last}", text.len())
        }
        all => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn range(start: f64, end: f64) -> ValueRange {
        ValueRange {
            start: json!(start),
            end: json!(end),
            step: None,
        }
    }

    #[test]
    fn lists_keep_their_order_and_single_values_drop_the_dimension() {
        let levels = [50.0, 75.0, 100.0, f64::from(0.1_f32)];
        let list = SelectedValues::List(vec![100.0, 50.0, 0.1]);
        assert_eq!(
            positions("z", &levels, &list),
            Ok(Positions::Many(vec![2, 0, 3]))
        );
        assert_eq!(
            positions("z", &levels, &SelectedValues::One(75.0)),
            Ok(Positions::One(1))
        );
        for bad in [vec![60.0], vec![50.0, 50.0], vec![]] {
            assert!(positions("z", &levels, &SelectedValues::List(bad)).is_err());
        }
    }

    #[test]
    fn ranges_include_both_ends_and_follow_the_direction() {
        let rising = [1.0, 2.0, 3.0, 4.0];
        let falling = [4.0, 3.0, 2.0, 1.0];
        assert_eq!(range_positions("z", &rising, &range(2.0, 3.0)), Ok(1..3));
        assert_eq!(range_positions("z", &falling, &range(3.0, 2.0)), Ok(1..3));
        assert_eq!(range_positions("z", &rising, &range(1.5, 9.0)), Ok(1..4));
        assert!(range_positions("z", &falling, &range(2.0, 3.0)).is_err());
        assert!(range_positions("z", &rising, &range(5.0, 9.0)).is_err());
        assert!(range_positions("z", &rising, &range(2.0, 2.0)).is_err());
        assert!(range_positions("z", &[1.0, 3.0, 2.0], &range(1.0, 2.0)).is_err());
    }
}

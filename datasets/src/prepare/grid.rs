//! Grids: points in the order of the stacked dimensions, the first varying slowest.

use mlwm_spec::interface::Grid;

/// How far two coordinates may lie apart and still be the same, as a fraction of their spacing.
pub const COORDINATE_TOLERANCE: f64 = 0.01;

/// Whether two coordinates are the same up to [`COORDINATE_TOLERANCE`] of the spacing of `expected`.
pub(crate) fn same_coordinate(expected: &[f64], actual: &[f64]) -> bool {
    let spacing = expected
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).abs())
        .fold(f64::INFINITY, f64::min);
    // A coordinate of one value has no spacing: then it must agree to a millionth.
    let allowed = if spacing.is_finite() {
        spacing * COORDINATE_TOLERANCE
    } else {
        expected.first().map_or(0.0, |value| value.abs() * 1e-6)
    };
    expected.len() == actual.len()
        && expected
            .iter()
            .zip(actual)
            .all(|(a, b)| (a - b).abs() <= allowed)
}

/// Says how `actual` is not the grid `expected`; `None` if it is. A dimension of `expected` without
/// coordinate values is compared by its length only; one of `actual` counts as 0, 1, 2, …, which
/// `xarray` gives to a dimension without a coordinate when it stacks it.
pub fn grid_difference(expected: &Grid, actual: &Grid) -> Option<String> {
    if expected.dims != actual.dims {
        return Some(format!(
            "it is stacked over ({}), not ({})",
            actual.dims.join(", "),
            expected.dims.join(", ")
        ));
    }
    if expected.shape != actual.shape {
        return Some(format!(
            "it has {} points along ({}), not {}",
            shape_text(&actual.shape),
            actual.dims.join(", "),
            shape_text(&expected.shape)
        ));
    }
    for (axis, dim) in expected.dims.iter().enumerate() {
        let Some(wanted) = expected.coordinates.get(axis).filter(|c| !c.is_empty()) else {
            continue;
        };
        match actual.coordinates.get(axis).filter(|c| !c.is_empty()) {
            None => {
                let numbers: Vec<f64> = (0..wanted.len()).map(|number| number as f64).collect();
                if !same_coordinate(wanted, &numbers) {
                    return Some(format!(
                        "it has no coordinate `{dim}`, which counts as 0, 1, 2, …, but the values \
                         to compare run from {} to {}",
                        ends(wanted).0,
                        ends(wanted).1
                    ));
                }
            }
            Some(found) if !same_coordinate(wanted, found) => {
                return Some(format!(
                    "its coordinate `{dim}` runs from {} to {}, not from {} to {}",
                    ends(found).0,
                    ends(found).1,
                    ends(wanted).0,
                    ends(wanted).1
                ));
            }
            Some(_) => {}
        }
    }
    None
}

fn shape_text(shape: &[u64]) -> String {
    let lengths: Vec<String> = shape.iter().map(u64::to_string).collect();
    lengths.join(" x ")
}

fn ends(values: &[f64]) -> (f64, f64) {
    let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
    (end(values.first()), end(values.last()))
}

/// The points within `width` of either end of any dimension, in ascending order.
pub fn boundary_points(shape: &[u64], width: u64) -> Vec<usize> {
    let points: u64 = shape.iter().product();
    let is_boundary = |mut point: u64| {
        shape.iter().rev().any(|&length| {
            let index = point % length;
            point /= length;
            index < width || index + width >= length
        })
    };
    (0..points)
        .filter(|&point| is_boundary(point))
        .map(|point| point as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(dims: &[&str], coordinates: Vec<Vec<f64>>) -> Grid {
        Grid {
            dims: dims.iter().map(|d| (*d).to_owned()).collect(),
            shape: coordinates.iter().map(|c| c.len() as u64).collect(),
            coordinates,
        }
    }

    #[test]
    fn boundary_is_the_outer_frame() {
        assert_eq!(
            boundary_points(&[4, 3], 1),
            [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
        );
        assert_eq!(boundary_points(&[4, 4], 0), [] as [usize; 0]);
        assert_eq!(boundary_points(&[3, 3], 2).len(), 9);
        assert_eq!(boundary_points(&[30, 28], 4).len(), 30 * 28 - 22 * 20);
    }

    #[test]
    fn grids_differ_by_dims_shape_and_coordinates() {
        let expected = grid(
            &["x", "y"],
            vec![vec![0.0, 2500.0], vec![0.0, 2500.0, 5000.0]],
        );
        assert_eq!(grid_difference(&expected, &expected), None);
        let close = grid(
            &["x", "y"],
            vec![vec![1.0, 2501.0], vec![0.0, 2500.0, 5000.0]],
        );
        assert_eq!(grid_difference(&expected, &close), None);
        for other in [
            grid(&["y", "x"], expected.coordinates.clone()),
            grid(&["x", "y"], vec![vec![0.0, 2500.0], vec![0.0, 2500.0]]),
            grid(
                &["x", "y"],
                vec![vec![0.0, 2500.0], vec![5000.0, 2500.0, 0.0]],
            ),
            grid(
                &["x", "y"],
                vec![vec![100.0, 2600.0], vec![0.0, 2500.0, 5000.0]],
            ),
            Grid {
                coordinates: vec![],
                ..expected.clone()
            },
        ] {
            assert!(grid_difference(&expected, &other).is_some(), "{other:?}");
        }
        let lengths_only = Grid {
            coordinates: vec![],
            ..expected.clone()
        };
        assert_eq!(grid_difference(&lengths_only, &expected), None);
    }

    #[test]
    fn a_dimension_without_a_coordinate_counts_from_zero() {
        let numbered = grid(&["x", "y"], vec![vec![0.0, 1.0], vec![0.0, 1.0, 2.0]]);
        let bare = Grid {
            coordinates: vec![vec![], vec![]],
            ..numbered.clone()
        };
        assert_eq!(grid_difference(&numbered, &bare), None);
        let real = grid(&["x", "y"], vec![vec![0.0, 1.0], vec![1.0, 2.0, 3.0]]);
        let difference = grid_difference(&real, &bare).unwrap();
        assert!(difference.contains("no coordinate `y`"), "{difference}");
    }
}

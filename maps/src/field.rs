//! The field itself: from cells to pixels.

use std::ops::Range;

use crate::axis::Axis;
use crate::colours::Scale;

/// The pixels of the field, RGB, row by row from the top; `width` by `height`.
///
/// A cell that covers several pixels colours them all, unsmoothed; a pixel that covers several
/// cells has the colour of their mean, missing ones left out.
pub(crate) fn paint(
    values: &[f64],
    x: &Axis,
    y: &Axis,
    scale: &Scale,
    (width, height): (u32, u32),
) -> Vec<u8> {
    let columns = cells_of_pixels(x, width as usize);
    let rows = cells_of_pixels(y, height as usize);
    let mut rgb = Vec::with_capacity(columns.len() * rows.len() * 3);
    let mut drawn: Option<(&Range<usize>, usize)> = None;
    let row_bytes = columns.len() * 3;
    for row in rows.iter().rev() {
        // Neighbouring rows of pixels in the same cells are the same.
        if let Some((_, start)) = drawn.filter(|(cells, _)| *cells == row) {
            rgb.extend_from_within(start..start + row_bytes);
            continue;
        }
        drawn = Some((row, rgb.len()));
        for column in &columns {
            rgb.extend(scale.colour(mean(values, x.len(), column, row)));
        }
    }
    rgb
}

/// The cells of each pixel from the low to the high end, in the order of storage.
fn cells_of_pixels(axis: &Axis, pixels: usize) -> Vec<Range<usize>> {
    let (low, _) = axis.ends();
    let pixel = axis.length() / pixels as f64;
    let cells = axis.len();
    let in_storage = |cells_rising: Range<usize>| match axis.reversed {
        true => cells - cells_rising.end..cells - cells_rising.start,
        false => cells_rising,
    };
    let cell_at = |place: f64| {
        let edges = axis.edges.partition_point(|edge| *edge <= place);
        edges.saturating_sub(1).min(cells - 1)
    };
    (0..pixels)
        .map(|at| {
            let start = low + pixel * at as f64;
            if cells <= pixels {
                let middle = cell_at(start + pixel / 2.0);
                return in_storage(middle..middle + 1);
            }
            let first = cell_at(start);
            let next = if at + 1 == pixels {
                cells
            } else {
                cell_at(start + pixel)
            };
            in_storage(first..next.max(first + 1))
        })
        .collect()
}

fn mean(values: &[f64], row_length: usize, columns: &Range<usize>, rows: &Range<usize>) -> f64 {
    if columns.len() == 1 && rows.len() == 1 {
        return values[rows.start * row_length + columns.start];
    }
    let (mut sum, mut count) = (0.0, 0.0);
    for row in rows.clone() {
        let start = row * row_length;
        for value in &values[start + columns.start..start + columns.end] {
            if value.is_finite() {
                sum += value;
                count += 1.0;
            }
        }
    }
    sum / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(coordinates: &[f64]) -> Axis {
        Axis::new(coordinates, "x", "", 1.0).unwrap()
    }

    #[test]
    fn every_cell_is_in_some_pixel_and_in_order() {
        for (cells, pixels) in [
            (3, 10),
            (10, 10),
            (1000, 300),
            (7, 5),
            (299, 300),
            (450, 300),
        ] {
            let rising: Vec<f64> = (0..cells).map(f64::from).collect();
            let ranges = cells_of_pixels(&axis(&rising), pixels);
            assert_eq!(ranges.len(), pixels);
            assert!(ranges.is_sorted_by_key(|range| range.start));
            assert!(
                ranges
                    .iter()
                    .all(|range| !range.is_empty() && range.end <= cells as usize)
            );
            let falling: Vec<f64> = rising.iter().rev().copied().collect();
            let mirrored = cells_of_pixels(&axis(&falling), pixels);
            for (one, other) in ranges.iter().zip(&mirrored) {
                assert_eq!(one.start, cells as usize - other.end);
            }
        }
    }

    #[test]
    fn great_values_are_drawn_high_whatever_the_order_of_storage() {
        let scale = Scale::of(&[0.0, 3.0], None).unwrap();
        let x = axis(&[0.0, 1.0]);
        let south_up = paint(
            &[0.0, 1.0, 2.0, 3.0],
            &x,
            &axis(&[0.0, 1.0]),
            &scale,
            (4, 4),
        );
        let north_up = paint(
            &[2.0, 3.0, 0.0, 1.0],
            &x,
            &axis(&[1.0, 0.0]),
            &scale,
            (4, 4),
        );
        assert_eq!(south_up, north_up);
        assert_eq!(&south_up[..3], scale.colour(2.0));
        assert_eq!(&south_up[4 * 4 * 3 - 3..], scale.colour(1.0));
    }

    #[test]
    fn a_pixel_of_many_cells_is_their_mean_without_missing_ones() {
        let scale = Scale::of(&[0.0, 10.0], None).unwrap();
        let places: Vec<f64> = (0..4).map(f64::from).collect();
        let values: Vec<f64> = (0..4).flat_map(|_| [2.0, 4.0, f64::NAN, 9.0]).collect();
        let one = paint(&values, &axis(&places), &axis(&places), &scale, (1, 1));
        assert_eq!(one, scale.colour(5.0));
        let missing = paint(
            &[f64::NAN; 16],
            &axis(&places),
            &axis(&places),
            &scale,
            (1, 1),
        );
        assert_eq!(missing, crate::colours::MISSING);
    }
}

//! Points without a grid: each a disc.

use crate::Map;
use crate::axis::Axis;
use crate::colours::Scale;

/// Colour where there are no points.
const EMPTY: [u8; 3] = [243, 243, 243];
/// Smallest and largest radius of a disc, in pixels.
const RADII: (f64, f64) = (0.8, 9.0);
/// How much of the field all discs together would cover if they lay side by side.
const COVER: f64 = 1.6;

/// The pixels of the field, RGB, row by row from the top. A pixel has the colour of the nearest point within the
/// radius of a disc.
pub(crate) fn paint(
    map: &Map,
    x: &Axis,
    y: &Axis,
    scale: &Scale,
    (width, height): (u32, u32),
) -> Vec<u8> {
    let (columns, rows) = (width as usize, height as usize);
    let area = (columns * rows) as f64;
    let radius = (area * COVER / std::f64::consts::PI / map.values.len().max(1) as f64).sqrt();
    let radius = radius.clamp(RADII.0, RADII.1);
    let mut nearest = vec![(f64::INFINITY, usize::MAX); columns * rows];
    let factor = |axis: &Axis, units_factor: f64| (axis.ends().0, units_factor / axis.length());
    let (x_low, x_scale) = factor(x, f64::from(width));
    let (y_low, y_scale) = factor(y, f64::from(height));
    for point in 0..map.values.len() {
        // The middle of pixel 0 is at a half.
        let across = (x.drawn(map.x[point]) - x_low) * x_scale - 0.5;
        let up = (y.drawn(map.y[point]) - y_low) * y_scale - 0.5;
        let down = f64::from(height) - 1.0 - up;
        let reach = |middle: f64, count: usize| {
            let first = (middle - radius).ceil().max(0.0) as usize;
            first..((middle + radius).floor() + 1.0).clamp(0.0, count as f64) as usize
        };
        for row in reach(down, rows) {
            for column in reach(across, columns) {
                let distance = (row as f64 - down).powi(2) + (column as f64 - across).powi(2);
                let place = &mut nearest[row * columns + column];
                if distance <= radius * radius && distance < place.0 {
                    *place = (distance, point);
                }
            }
        }
    }
    let colour = |(_, point): &(f64, usize)| match map.values.get(*point) {
        Some(value) => scale.colour(*value),
        None => EMPTY,
    };
    nearest.iter().flat_map(colour).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_where_it_belongs() {
        let map = Map {
            values: vec![1.0, 2.0, f64::NAN],
            x: vec![0.0, 10.0, 5.0],
            y: vec![0.0, 10.0, 5.0],
            ..Map::default()
        };
        let axis = Axis::around(&map.x, "x", "").unwrap();
        let scale = Scale::of(&map.values, None).unwrap();
        let pixels = paint(&map, &axis, &axis, &scale, (103, 103));
        let at = |column: usize, row: usize| {
            let start = (row * 103 + column) * 3;
            [pixels[start], pixels[start + 1], pixels[start + 2]]
        };
        assert_eq!(at(1, 101), scale.colour(1.0));
        assert_eq!(at(101, 1), scale.colour(2.0));
        assert_eq!(at(51, 51), crate::colours::MISSING);
        assert_eq!(at(10, 50), EMPTY);
    }

    #[test]
    fn one_point_has_a_map_and_odd_ones_are_refused() {
        let map = Map {
            values: vec![1.0],
            x: vec![7.0],
            y: vec![51.0],
            ..Map::default()
        };
        assert!(crate::encode_points(&map).is_ok());
        let map = Map { y: vec![], ..map };
        assert!(matches!(
            crate::encode_points(&map),
            Err(crate::Error::Points { .. })
        ));
        let map = Map {
            y: vec![f64::NAN],
            ..map
        };
        assert!(matches!(
            crate::encode_points(&map),
            Err(crate::Error::Coordinates { at: 0, .. })
        ));
    }
}

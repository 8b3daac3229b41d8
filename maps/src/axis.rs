//! One axis of the map: where its cells begin and end, and how its numbers are written.

use crate::Error;
use crate::colours::extremes;
use crate::ticks::{Ticks, number};
use crate::units;

/// One axis, rising from left to right or from bottom to top.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Where each cell begins, and where the last ends, rising; one more than there are cells.
    pub(crate) edges: Vec<f64>,
    /// The coordinates fall in the order of storage.
    pub(crate) reversed: bool,
    /// What is written along it.
    pub(crate) label: String,
    kind: Kind,
    /// What coordinates are drawn as: metres as kilometres.
    factor: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Longitude,
    Latitude,
    Plain,
}

impl Axis {
    /// The axis of these coordinates. `lone_width` is the width of the cell if there is but one.
    pub(crate) fn new(
        coordinates: &[f64],
        name: &str,
        units: &str,
        lone_width: f64,
    ) -> Result<Self, Error> {
        let out_of_order = |at| Error::Coordinates {
            axis: name.to_owned(),
            at,
        };
        let reversed = coordinates.len() > 1 && coordinates.first() > coordinates.last();
        let (kind, scale, units) = written(units);
        let mut centres: Vec<f64> = coordinates.iter().map(|value| value * scale).collect();
        if reversed {
            centres.reverse();
        }
        for (at, pair) in centres.windows(2).enumerate() {
            let step = pair[1] - pair[0];
            if !(step > 0.0 && step.is_finite()) {
                let at = if reversed {
                    centres.len() - 1 - at
                } else {
                    at + 1
                };
                return Err(out_of_order(at));
            }
        }
        if centres.is_empty() || !centres.iter().all(|value| value.is_finite()) {
            return Err(out_of_order(0));
        }
        let label = match (name.is_empty(), units.is_empty()) {
            (_, true) => name.to_owned(),
            (true, false) => format!("[{units}]"),
            (false, false) => format!("{name} [{units}]"),
        };
        Ok(Self {
            edges: edges(&centres, lone_width * scale),
            reversed,
            label,
            kind,
            factor: scale,
        })
    }

    /// An axis of one cell around all of these coordinates, in any order.
    pub(crate) fn around(coordinates: &[f64], name: &str, units: &str) -> Result<Self, Error> {
        let Some((low, high)) = extremes(coordinates) else {
            return Err(Error::Coordinates {
                axis: name.to_owned(),
                at: 0,
            });
        };
        if let Some(at) = coordinates.iter().position(|value| !value.is_finite()) {
            return Err(Error::Coordinates {
                axis: name.to_owned(),
                at,
            });
        }
        // A little more than the points, so that none is cut.
        let margin = match high > low {
            true => (high - low) * 0.015,
            false => 0.5,
        };
        let is_latitude = written(units).0 == Kind::Latitude;
        let (lowest, highest) = match is_latitude {
            true => (-90.0, 90.0),
            false => (f64::NEG_INFINITY, f64::INFINITY),
        };
        let (low, high) = ((low - margin).max(lowest), (high + margin).min(highest));
        Self::new(&[low / 2.0 + high / 2.0], name, units, high - low)
    }

    /// A coordinate as it is drawn.
    pub(crate) fn drawn(&self, coordinate: f64) -> f64 {
        coordinate * self.factor
    }

    /// Number of cells.
    pub(crate) fn len(&self) -> usize {
        self.edges.len() - 1
    }

    /// Lower and upper end.
    pub(crate) fn ends(&self) -> (f64, f64) {
        let low = self.edges.first().copied().unwrap_or(0.0);
        (low, self.edges.last().copied().unwrap_or(low))
    }

    /// Length from end to end.
    pub(crate) fn length(&self) -> f64 {
        let (low, high) = self.ends();
        high - low
    }

    /// Whether it counts degrees of longitude or latitude.
    pub(crate) fn is_geographic(&self) -> bool {
        self.kind != Kind::Plain
    }

    /// About `count` ticks with their texts.
    pub(crate) fn ticks(&self, count: usize) -> Ticks {
        let (low, high) = self.ends();
        let mut ticks = Ticks::between(low, high, count);
        let (positive, negative) = match self.kind {
            Kind::Plain => return ticks,
            Kind::Longitude => ('E', 'W'),
            Kind::Latitude => ('N', 'S'),
        };
        for (value, text) in ticks.values.iter().zip(&mut ticks.texts) {
            let decimals = text
                .split_once('.')
                .map_or(0, |(_, decimals)| decimals.len());
            // Eastern longitudes beyond 180 degrees are western ones to a reader.
            let wraps = self.kind == Kind::Longitude && *value > 180.0;
            let value = if wraps { value - 360.0 } else { *value };
            let digits = number(value.abs(), decimals);
            let zero = digits.chars().all(|c| matches!(c, '0' | '.'));
            *text = match (zero, value > 0.0) {
                (true, _) => format!("{digits}°"),
                (false, true) => format!("{digits}°{positive}"),
                (false, false) => format!("{digits}°{negative}"),
            };
        }
        ticks
    }
}

/// The kind of an axis, the factor its coordinates are drawn with, and the units beside its name.
fn written(units: &str) -> (Kind, f64, String) {
    match units.trim() {
        "m" | "metre" | "metres" | "meter" | "meters" => (Kind::Plain, 1e-3, "km".to_owned()),
        "degrees_east" | "degree_east" | "degrees_E" | "degreeE" => {
            (Kind::Longitude, 1.0, String::new())
        }
        "degrees_north" | "degree_north" | "degrees_N" | "degreeN" => {
            (Kind::Latitude, 1.0, String::new())
        }
        other => (Kind::Plain, 1.0, units::typeset(other)),
    }
}

/// Cells end half-way to the next; the outermost reach as far out as in.
fn edges(centres: &[f64], lone_width: f64) -> Vec<f64> {
    let middle = |pair: &[f64]| pair[0] / 2.0 + pair[1] / 2.0;
    let (first, last) = (centres[0], centres[centres.len() - 1]);
    let inner: Vec<f64> = centres.windows(2).map(middle).collect();
    let (low, high) = match (inner.first(), inner.last()) {
        (Some(second), Some(before_last)) => (2.0 * first - second, 2.0 * last - before_last),
        _ => (first - lone_width / 2.0, last + lone_width / 2.0),
    };
    [low].into_iter().chain(inner).chain([high]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metres_become_kilometres_in_rising_order() {
        let axis = Axis::new(&[-4000.0, -6000.0, -8000.0], "y", "m", 1.0).unwrap();
        assert_eq!(axis.edges, [-9.0, -7.0, -5.0, -3.0]);
        assert!(axis.reversed);
        assert_eq!(axis.label, "y [km]");
    }

    #[test]
    fn uneven_cells_end_half_way() {
        let axis = Axis::new(&[0.0, 1.0, 3.0, 7.0], "x", "", 1.0).unwrap();
        assert_eq!(axis.edges, [-0.5, 0.5, 2.0, 5.0, 9.0]);
        let lone = Axis::new(&[5.0], "x", "km", 2.0).unwrap();
        assert_eq!(lone.edges, [4.0, 6.0]);
    }

    #[test]
    fn degrees_name_their_hemisphere() {
        let longitude = Axis::new(&[-10.0, 0.0, 10.0], "longitude", "degrees_east", 1.0).unwrap();
        assert_eq!(longitude.ticks(4).texts, ["10°W", "0°", "10°E"]);
        let global =
            Axis::new(&[0.0, 90.0, 180.0, 270.0], "longitude", "degrees_east", 1.0).unwrap();
        assert_eq!(global.ticks(4).texts, ["0°", "100°E", "160°W", "60°W"]);
        let latitude = Axis::new(&[55.0, 54.75], "latitude", "degrees_north", 1.0).unwrap();
        assert_eq!(latitude.ticks(4).texts[0], "54.7°N");
        assert!(latitude.is_geographic());
    }

    #[test]
    fn coordinates_without_order_are_refused() {
        for (bad, place) in [
            (vec![], 0),
            (vec![f64::NAN], 0),
            (vec![0.0, 1.0, 1.0], 2),
            (vec![0.0, 2.0, 1.0, 3.0], 2),
            (vec![3.0, 2.0, 2.5, 0.0], 2),
            (vec![0.0, f64::INFINITY], 1),
        ] {
            let Err(Error::Coordinates { at, .. }) = Axis::new(&bad, "x", "m", 1.0) else {
                panic!("{bad:?}");
            };
            assert_eq!(at, place, "{bad:?}");
        }
    }
}

//! Variables that are computed from time and position. The formulas are those of mllam-data-prep
//! 0.7 (`ops/derive_variable`), in the order of operations and the float types that NumPy uses.

use std::f64::consts::PI;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Which part of a cyclic encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
}

impl Component {
    fn of(self, angle: f64) -> f64 {
        match self {
            Self::Sin => angle.sin(),
            Self::Cos => angle.cos(),
        }
    }
}

/// Hour of the day (0–23) and day of the year (1–366) of a time in UTC; minutes are ignored.
fn hour_and_day(unix_seconds: i64) -> (f64, f64) {
    let hour = unix_seconds.rem_euclid(86_400) / 3600;
    let day = Timestamp::from_second(unix_seconds).map_or(1, |time| {
        TimeZone::UTC.to_datetime(time).date().day_of_year()
    });
    (hour as f64, f64::from(day))
}

/// `sin` or `cos` of the hour of the day: `h/24 * 2 * pi`.
pub(crate) fn hour_of_day(unix_seconds: i64, component: Component) -> f64 {
    let (hour, _) = hour_and_day(unix_seconds);
    component.of((hour / 24.0) * 2.0 * PI)
}

/// `sin` or `cos` of the day of the year: `doy/366 * 2 * pi`, also in years of 365 days.
pub(crate) fn day_of_year(unix_seconds: i64, component: Component) -> f64 {
    let (_, day) = hour_and_day(unix_seconds);
    component.of((day / 366.0) * 2.0 * PI)
}

/// A latitude or longitude in degrees on every point of a grid, in the type of the source: float32
/// stays float32 until it meets a float64.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Degrees {
    /// From a float32 source.
    Single(Vec<f32>),
    /// From a float64 or integer source.
    Double(Vec<f64>),
}

/// Top-of-atmosphere radiation on a grid, W m**-2, with what does not depend on time computed once.
#[derive(Clone, Debug)]
pub(crate) struct ToaRadiation {
    sin_latitude: Vec<f64>,
    cos_latitude: Vec<f64>,
    /// Longitude in hours: degrees over 15.
    longitude_hours: Vec<f64>,
}

impl ToaRadiation {
    pub(crate) fn new(latitude: &Degrees, longitude: &Degrees) -> Self {
        let (sin_latitude, cos_latitude) = match latitude {
            Degrees::Double(degrees) => {
                let angle = |d: &f64| d * PI / 180.0;
                (
                    degrees.iter().map(|d| angle(d).sin()).collect(),
                    degrees.iter().map(|d| angle(d).cos()).collect(),
                )
            }
            Degrees::Single(degrees) => {
                let angle = |d: &f32| d * std::f32::consts::PI / 180.0;
                (
                    degrees.iter().map(|d| f64::from(angle(d).sin())).collect(),
                    degrees.iter().map(|d| f64::from(angle(d).cos())).collect(),
                )
            }
        };
        let longitude_hours = match longitude {
            Degrees::Double(degrees) => degrees.iter().map(|d| d / 15.0).collect(),
            Degrees::Single(degrees) => degrees.iter().map(|d| f64::from(d / 15.0)).collect(),
        };
        Self {
            sin_latitude,
            cos_latitude,
            longitude_hours,
        }
    }

    /// The radiation at one time, on all points.
    pub(crate) fn at(&self, unix_seconds: i64) -> Vec<f64> {
        const SOLAR_CONSTANT: f64 = 1366.0;
        let (hour, day) = hour_and_day(unix_seconds);
        // Duffie and Beckman, Solar Engineering of Thermal Processes, 4th ed., eq. 1.6.1a.
        let declination = PI / 180.0 * 23.45 * (2.0 * PI * (284.0 + day) / 365.0).sin();
        let (sin_declination, cos_declination) = declination.sin_cos();
        let points = self
            .sin_latitude
            .iter()
            .zip(&self.cos_latitude)
            .zip(&self.longitude_hours);
        points
            .map(|((sin_latitude, cos_latitude), longitude_hours)| {
                let hour_angle = 15.0 * ((hour + longitude_hours) - 12.0);
                // Eq. 1.6.2 with a horizontal surface.
                let cos_zenith = sin_latitude * sin_declination
                    + cos_latitude * cos_declination * (hour_angle * PI / 180.0).cos();
                let radiation = SOLAR_CONSTANT * cos_zenith;
                if radiation < 0.0 { 0.0 } else { radiation }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: mllam-data-prep 0.7.0 with `datetime` arguments.
    #[test]
    fn equals_mllam_data_prep() {
        let time = "2022-04-07T03:45:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .as_second();
        assert_eq!(hour_and_day(time), (3.0, 97.0));
        assert!(
            (hour_of_day(time, Component::Sin) - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-15
        );
        assert!((day_of_year(time, Component::Cos) - (-0.094_279_221_775_424_4)).abs() < 1e-15);
    }

    #[test]
    fn leap_days_and_times_before_1970() {
        let day = |text: &str| hour_and_day(text.parse::<Timestamp>().unwrap().as_second());
        assert_eq!(day("2024-12-31T23:59:59Z"), (23.0, 366.0));
        assert_eq!(day("1969-12-31T22:00:00Z"), (22.0, 365.0));
    }
}

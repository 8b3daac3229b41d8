//! The grid of a field: which points its values are for.

use std::ffi::CStr;
use std::fmt::Write as _;

use mlwm_spec::Digest;

use crate::Error;
use crate::ffi::{Failure, Handle};

/// The grid of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grid {
    /// Rows on the Gaussian latitudes of the whole globe, with fewer points towards the poles.
    ReducedGaussian(ReducedGaussian),
    /// Rows on the Gaussian latitudes of the whole globe, all with as many points.
    RegularGaussian {
        /// The number of latitudes between a pole and the equator.
        n: u32,
        /// Longitude of the first point, in 1e-6 degrees, from 0 to 360e6.
        first_longitude: i64,
        /// Points and their order.
        rows: Rows,
    },
    /// Rows and columns at constant distances in degrees.
    RegularLatLon(RegularLatLon),
}

/// A reduced Gaussian grid of the whole globe, such as N320 or O96. Its points are in one order:
/// rows from north to south, from longitude 0 eastwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReducedGaussian {
    /// The number of points of each latitude, from north to south.
    points_per_latitude: Vec<u32>,
}

/// A grid of latitudes and longitudes at constant distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegularLatLon {
    /// Points and their order.
    pub rows: Rows,
    /// Latitude of the first point, in 1e-6 degrees.
    pub first_latitude: i64,
    /// Longitude of the first point, in 1e-6 degrees, from 0 to 360e6.
    pub first_longitude: i64,
    /// Latitude of the last point, in 1e-6 degrees.
    pub last_latitude: i64,
    /// Longitude of the last point, in 1e-6 degrees, from 0 to 360e6.
    pub last_longitude: i64,
}

/// Rows and columns of a regular grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The number of points of a row, along a latitude.
    pub ni: u32,
    /// The number of rows.
    pub nj: u32,
    /// The order of the points.
    pub scanning: Scanning,
}

/// The order of the points of a regular grid. With nothing set: rows from north to south, each from
/// west to east.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanning {
    /// Rows go from east to west.
    pub i_negative: bool,
    /// Rows follow each other from south to north.
    pub j_positive: bool,
    /// Consecutive values are of one column, not of one row.
    pub j_consecutive: bool,
    /// Every other row (or column) goes the other way.
    pub alternating: bool,
}

/// Why there is no grid.
pub(crate) enum GridFailure {
    /// It is of another kind, which has this name.
    Other(String),
    /// It contradicts itself, or cannot be read.
    Damaged(String),
}

impl ReducedGaussian {
    /// An octahedral grid, such as O96.
    pub fn octahedral(n: u32) -> Self {
        let north: Vec<u32> = (0..n).map(|row| 20 + 4 * row).collect();
        Self::mirrored(north)
    }

    /// A classic grid, such as N320, with the points that ecCodes knows.
    ///
    /// # Errors
    /// [`Error::NoSample`] if ecCodes does not know one.
    pub fn classic(n: u32) -> Result<Self, Error> {
        let no_sample = |reason: String| Error::NoSample { n, reason };
        let name = std::ffi::CString::new(format!("reduced_gg_pl_{n}_grib2"))
            .map_err(|error| no_sample(error.to_string()))?;
        let handle =
            Handle::from_sample(&name).map_err(|failure| no_sample(failure.to_string()))?;
        match Grid::read(&handle) {
            Ok(Grid::ReducedGaussian(grid)) => Ok(grid),
            Ok(_) => Err(no_sample("it is of another grid".to_owned())),
            Err(GridFailure::Other(reason) | GridFailure::Damaged(reason)) => {
                Err(no_sample(reason))
            }
        }
    }

    /// A grid with these points on its latitudes, which are as many in the south as in the north.
    /// `None` if there are none, their number is odd, or one of them has less than two points.
    pub fn new(points_per_latitude: Vec<u32>) -> Option<Self> {
        let sound = !points_per_latitude.is_empty()
            && points_per_latitude.len().is_multiple_of(2)
            && points_per_latitude.iter().all(|&points| points >= 2);
        sound.then_some(Self {
            points_per_latitude,
        })
    }

    fn mirrored(mut north: Vec<u32>) -> Self {
        let south: Vec<u32> = north.iter().rev().copied().collect();
        north.extend(south);
        Self {
            points_per_latitude: north,
        }
    }

    /// The number of latitudes between a pole and the equator.
    pub fn n(&self) -> u32 {
        (self.points_per_latitude.len() / 2) as u32
    }

    /// Whether the grid is octahedral: 20 points next to the poles, and 4 more on each latitude
    /// towards the equator.
    pub fn is_octahedral(&self) -> bool {
        *self == Self::octahedral(self.n())
    }

    /// The number of points of each latitude, from north to south.
    pub fn points_per_latitude(&self) -> &[u32] {
        &self.points_per_latitude
    }

    /// The number of points.
    pub fn points(&self) -> usize {
        self.points_per_latitude
            .iter()
            .map(|&points| points as usize)
            .sum()
    }
}

impl Rows {
    /// The number of points.
    pub fn points(&self) -> usize {
        (self.ni as usize).saturating_mul(self.nj as usize)
    }

    /// Whether a row of which these are the first and the last longitude goes around the globe.
    fn goes_round(&self, first: i64, last: i64) -> bool {
        // Edition 1 has thousandths of degrees.
        const PRECISION: i64 = 2_000;
        let length = if self.scanning.i_negative {
            first - last
        } else {
            last - first
        };
        let whole = 360_000_000 - 360_000_000 / i64::from(self.ni.max(1));
        (length.rem_euclid(360_000_000) - whole).abs() <= PRECISION
    }

    /// Row and column of a value, counted from those of the first value.
    pub fn position(&self, value: usize) -> (usize, usize) {
        let Self { ni, nj, .. } = *self;
        let (ni, nj) = (ni.max(1) as usize, nj.max(1) as usize);
        let turned = |index: usize, line: usize, length: usize| {
            if self.scanning.alternating && line % 2 == 1 {
                length - 1 - index
            } else {
                index
            }
        };
        if self.scanning.j_consecutive {
            let (column, row) = (value / nj, value % nj);
            (turned(row, column, nj), column)
        } else {
            let (row, column) = (value / ni, value % ni);
            (row, turned(column, row, ni))
        }
    }
}

impl Grid {
    /// The number of points.
    pub fn points(&self) -> usize {
        match self {
            Self::ReducedGaussian(grid) => grid.points(),
            Self::RegularGaussian { rows, .. } => rows.points(),
            Self::RegularLatLon(grid) => grid.rows.points(),
        }
    }

    /// Its type in ecCodes' words, such as `reduced_gg`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ReducedGaussian(_) => "reduced_gg",
            Self::RegularGaussian { .. } => "regular_gg",
            Self::RegularLatLon(_) => "regular_ll",
        }
    }

    /// A name for people, such as `O96`, `N320`, `F80` or `1440 x 721 latitudes and longitudes`.
    pub fn name(&self) -> String {
        match self {
            Self::ReducedGaussian(grid) if grid.is_octahedral() => format!("O{}", grid.n()),
            Self::ReducedGaussian(grid) => format!("N{}", grid.n()),
            Self::RegularGaussian { n, .. } => format!("F{n}"),
            Self::RegularLatLon(RegularLatLon { rows, .. }) => {
                format!("{} x {} latitudes and longitudes", rows.nj, rows.ni)
            }
        }
    }

    /// The same for all messages on the same points in the same order, and for no others.
    pub fn digest(&self) -> Digest {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = match self {
            Self::ReducedGaussian(grid) => {
                write!(text, "reduced Gaussian {:?}", grid.points_per_latitude)
            }
            Self::RegularGaussian {
                n,
                first_longitude,
                rows,
            } => write!(text, "regular Gaussian {n} {first_longitude} {rows:?}"),
            Self::RegularLatLon(grid) => write!(text, "latitudes and longitudes {grid:?}"),
        };
        Digest::of(text)
    }

    pub(crate) fn read(handle: &Handle) -> Result<Self, GridFailure> {
        let kind = handle
            .text(c"gridType")
            .map_err(|failure| damaged(c"gridType", &failure))?;
        let keys = Keys(handle);
        match kind.as_str() {
            "reduced_gg" => keys.reduced_gaussian().map(Self::ReducedGaussian),
            "regular_gg" => keys.regular_gaussian(),
            "regular_ll" => keys.regular_lat_lon().map(Self::RegularLatLon),
            _ => Err(GridFailure::Other(format!("the grid `{kind}`"))),
        }
    }
}

struct Keys<'a>(&'a Handle);

impl Keys<'_> {
    fn reduced_gaussian(&self) -> Result<ReducedGaussian, GridFailure> {
        /// Latitudes of the finest grid that may be asked for; finer ones than 1 km.
        const LATITUDES_LIMIT: usize = 20_000;
        let n = self.integer(c"N")?;
        let latitudes = self
            .0
            .size(c"pl")
            .map_err(|failure| damaged(c"pl", &failure))?;
        // All of these are refused with the message: ecCodes ends the process over some of them
        // when it is asked for other keys.
        let refused = |what: String| {
            GridFailure::Damaged(format!(
                "its reduced Gaussian grid N{n} {what}, but mlwm reads those of the whole globe, \
                 southwards, and eastwards from longitude 0"
            ))
        };
        let whole = usize::try_from(n).is_ok_and(|n| n.checked_mul(2) == Some(latitudes));
        if !whole || latitudes > LATITUDES_LIMIT {
            return Err(refused(format!("has {latitudes} latitudes")));
        }
        let mut points = vec![0; latitudes];
        self.0
            .integers(c"pl", &mut points)
            .map_err(|failure| damaged(c"pl", &failure))?;
        let begin = self.longitude(c"longitudeOfFirstGridPointInDegrees")?;
        if begin != 0 || self.scanning()? != Scanning::default() {
            return Err(refused("begins or goes on elsewhere".to_owned()));
        }
        let points: Option<Vec<u32>> = points.iter().map(|&n| u32::try_from(n).ok()).collect();
        points
            .and_then(ReducedGaussian::new)
            .ok_or_else(|| refused("has a latitude with less than two points".to_owned()))
    }

    fn regular_gaussian(&self) -> Result<Grid, GridFailure> {
        let rows = self.rows()?;
        let n = self.integer(c"N")?;
        let first_longitude = self.longitude(c"longitudeOfFirstGridPointInDegrees")?;
        let last_longitude = self.longitude(c"longitudeOfLastGridPointInDegrees")?;
        match u32::try_from(n) {
            Ok(n)
                if n.checked_mul(2) == Some(rows.nj)
                    && rows.goes_round(first_longitude, last_longitude) =>
            {
                Ok(Grid::RegularGaussian {
                    n,
                    first_longitude,
                    rows,
                })
            }
            _ => Err(GridFailure::Other(format!(
                "a part of the regular Gaussian grid F{n}, of {} x {} points",
                rows.nj, rows.ni
            ))),
        }
    }

    fn regular_lat_lon(&self) -> Result<RegularLatLon, GridFailure> {
        Ok(RegularLatLon {
            rows: self.rows()?,
            first_latitude: self.micro_degrees(c"latitudeOfFirstGridPointInDegrees")?,
            first_longitude: self.longitude(c"longitudeOfFirstGridPointInDegrees")?,
            last_latitude: self.micro_degrees(c"latitudeOfLastGridPointInDegrees")?,
            last_longitude: self.longitude(c"longitudeOfLastGridPointInDegrees")?,
        })
    }

    fn rows(&self) -> Result<Rows, GridFailure> {
        let count = |key: &CStr| {
            let number = self.integer(key)?;
            u32::try_from(number)
                .ok()
                .filter(|&number| number > 0 && number < u32::MAX >> 1)
                .ok_or_else(|| {
                    GridFailure::Damaged(format!("its {} is {number}", key.to_string_lossy()))
                })
        };
        Ok(Rows {
            ni: count(c"Ni")?,
            nj: count(c"Nj")?,
            scanning: self.scanning()?,
        })
    }

    fn scanning(&self) -> Result<Scanning, GridFailure> {
        let is = |key| Ok(self.integer(key)? != 0);
        Ok(Scanning {
            i_negative: is(c"iScansNegatively")?,
            j_positive: is(c"jScansPositively")?,
            j_consecutive: is(c"jPointsAreConsecutive")?,
            // Edition 1 has no such order.
            alternating: self.0.has(c"alternativeRowScanning") && is(c"alternativeRowScanning")?,
        })
    }

    /// Edition 1 has longitudes from -180 degrees, too.
    fn longitude(&self, key: &CStr) -> Result<i64, GridFailure> {
        let degrees = self.micro_degrees(key)?;
        Ok(if degrees < 0 {
            degrees + 360_000_000
        } else {
            degrees
        })
    }

    fn micro_degrees(&self, key: &CStr) -> Result<i64, GridFailure> {
        let degrees = self.0.real(key).map_err(|failure| damaged(key, &failure))?;
        Ok((degrees * 1e6).round() as i64)
    }

    fn integer(&self, key: &CStr) -> Result<i64, GridFailure> {
        self.0
            .integer(key)
            .map_err(|failure| damaged(key, &failure))
    }
}

fn damaged(key: &CStr, failure: &Failure) -> GridFailure {
    GridFailure::Damaged(format!(
        "the {} of its grid cannot be read ({failure})",
        key.to_string_lossy()
    ))
}

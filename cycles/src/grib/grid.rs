//! The grid of an output, as GRIB knows it.

use mlwm_datasets::forecast_store::ForecastStore;
use mlwm_datasets::{Definition, Values};
use mlwm_grib::{Grid, ReducedGaussian, RegularLatLon, Rows, Scanning};
use mlwm_spec::configuration::GaussianGrid;

use super::{is_level, named_grid};

/// How far a coordinate may lie from that of the grid, in degrees: those of float32 have lost that much.
const NEAR: f64 = 1e-3;

/// The grid of points with these dimensions: the one that is named, or the one that their coordinates show.
pub(super) fn of(
    store: &ForecastStore,
    dims: &[(&str, u64)],
    named: Option<GaussianGrid>,
) -> Result<Grid, String> {
    let points: u64 = dims.iter().map(|(_, length)| length).product();
    match (named, dims) {
        (Some(named), [(dim, _)]) => {
            let grid = named_grid(named)?;
            // Before its coordinates are made, which may be many.
            let grid = of_points(Grid::ReducedGaussian(grid), points)?;
            if let Grid::ReducedGaussian(grid) = &grid {
                compare(store, grid, named, dim)?;
            }
            Ok(grid)
        }
        (None, [(first, _), (second, _)]) => of_points(regular(store, first, second)?, points),
        (Some(named), _) => Err(format!(
            "points of {named} have one dimension, and these have {}",
            in_words(dims)
        )),
        (None, _) => Err(format!(
            "the points have {}, which are not latitudes and longitudes at constant distances: name their \
             `grid`, such as `O96`",
            in_words(dims)
        )),
    }
}

/// The grid again, if it has so many points.
fn of_points(grid: Grid, points: u64) -> Result<Grid, String> {
    match grid.points() as u64 == points {
        true => Ok(grid),
        false => Err(format!(
            "the grid {} has {} points, and a field has {points}",
            grid.name(),
            grid.points()
        )),
    }
}

/// Dimensions in an error.
pub(super) fn in_words(dims: &[(&str, u64)]) -> String {
    let dims: Vec<String> = dims.iter().map(|(dim, n)| format!("{dim}: {n}")).collect();
    format!("the dimensions ({})", dims.join(", "))
}

/// Refuses points whose coordinates, if the dataset has them, are not those of the grid.
fn compare(
    store: &ForecastStore,
    grid: &ReducedGaussian,
    named: GaussianGrid,
    dim: &str,
) -> Result<(), String> {
    let (latitudes, longitudes) = (
        coordinate(store, dim, &NORTH)?,
        coordinate(store, dim, &EAST)?,
    );
    if latitudes.is_none() && longitudes.is_none() {
        return Ok(());
    }
    let theirs = grid.coordinates().map_err(|error| error.to_string())?;
    // Longitudes may be counted from elsewhere.
    let is_near = |a: f64, b: f64| {
        let around = (a - b).rem_euclid(360.0);
        around.min(360.0 - around) <= NEAR
    };
    for (what, found, due) in [
        ("latitude", latitudes, theirs.latitudes),
        ("longitude", longitudes, theirs.longitudes),
    ] {
        let pairs = found.iter().flatten().zip(&due).enumerate();
        let mut wrong = pairs.filter(|(_, (found, due))| !is_near(**found, **due));
        if let Some((point, (found, due))) = wrong.next() {
            return Err(format!(
                "the {what} of point {point} is {found}, and on {named} it is {due}: the points are those of another \
                 grid, or in another order"
            ));
        }
    }
    Ok(())
}

/// How a coordinate says what it is.
struct Kind {
    names: [&'static str; 2],
    units: [&'static str; 2],
}

const NORTH: Kind = Kind {
    names: ["latitude", "lat"],
    units: ["degrees_north", "degree_north"],
};
const EAST: Kind = Kind {
    names: ["longitude", "lon"],
    units: ["degrees_east", "degree_east"],
};

impl Kind {
    fn is(&self, definition: &Definition) -> bool {
        let text = |name| {
            definition
                .attributes
                .get(name)
                .and_then(|text| text.as_str())
        };
        match text("units") {
            Some(units) if units != "degrees" => self.units.contains(&units),
            _ => {
                self.names.contains(&definition.name.as_str())
                    || text("standard_name") == Some(self.names[0])
            }
        }
    }
}

/// The coordinate of a kind along a dimension, in degrees.
fn coordinate(store: &ForecastStore, dim: &str, kind: &Kind) -> Result<Option<Vec<f64>>, String> {
    let mut all = store.coordinates();
    let found = all.find(|(definition, _)| definition.dims == [dim] && kind.is(definition));
    found.map(|(_, values)| decimal(values)).transpose()
}

/// The levels along a dimension, which its coordinate says; those in Pa in hPa, as GRIB has them.
pub(super) fn levels(store: &ForecastStore, dim: &str, count: u64) -> Result<Vec<f64>, String> {
    let mut all = store.coordinates();
    let found = all.find(|(definition, _)| {
        definition.name == dim && definition.dims == [dim] && definition.shape == [count]
    });
    let (definition, values) =
        found.ok_or_else(|| format!("the dimension `{dim}` has no coordinate with its levels"))?;
    let in_pascals = definition
        .attributes
        .get("units")
        .is_some_and(|units| units == "Pa");
    let unit = if in_pascals { 100.0 } else { 1.0 };
    let levels = decimal(values)?.into_iter();
    levels.map(|level| is_level(level / unit)).collect()
}

/// Values, where those of float32 are what they are in decimals: `359.9`, not 359.8999939.
fn decimal(values: &Values) -> Result<Vec<f64>, String> {
    if let Values::F32(values) = values {
        let in_decimals = |value: &f32| value.to_string().parse().unwrap_or(f64::NAN);
        return Ok(values.iter().map(in_decimals).collect());
    }
    let values = values.clone().into_f64();
    Ok(values
        .map_err(|error| error.to_string())?
        .into_iter()
        .collect())
}

/// Latitudes and longitudes, in either order of the dimensions.
fn regular(store: &ForecastStore, first: &str, second: &str) -> Result<Grid, String> {
    let along = |north: &str, east: &str| -> Result<_, String> {
        let latitudes = coordinate(store, north, &NORTH)?;
        Ok(latitudes.zip(coordinate(store, east, &EAST)?))
    };
    let (found, j_consecutive) = match along(first, second)? {
        Some(found) => (Some(found), false),
        None => (along(second, first)?, true),
    };
    let (latitudes, longitudes) = found.ok_or_else(|| {
        format!(
            "`{first}` and `{second}` have no coordinates in degrees north and east, each along one of them, which \
             GRIB needs"
        )
    })?;
    let width = longitudes.len();
    let [first_latitude, last_latitude] = ends("latitudes", &latitudes)?;
    let [first_longitude, last_longitude] = ends("longitudes", &unwound(longitudes))?;
    let count = |values: usize| u32::try_from(values).map_err(|error| error.to_string());
    let around = |longitude: i64| longitude.rem_euclid(360_000_000);
    Ok(Grid::RegularLatLon(RegularLatLon {
        rows: Rows {
            ni: count(width)?,
            nj: count(latitudes.len())?,
            scanning: Scanning {
                i_negative: last_longitude < first_longitude,
                j_positive: first_latitude < last_latitude,
                j_consecutive,
                alternating: false,
            },
        },
        first_latitude,
        first_longitude: around(first_longitude),
        last_latitude,
        last_longitude: around(last_longitude),
    }))
}

/// Longitudes that go on where they would begin anew: 359, 360 for 359, 0.
fn unwound(longitudes: Vec<f64>) -> Vec<f64> {
    let mut before = longitudes.first().copied().unwrap_or_default();
    let go_on = |longitude: f64| {
        before = longitude + 360.0 * ((before - longitude) / 360.0).round();
        before
    };
    longitudes.into_iter().map(go_on).collect()
}

/// The first and the last of values at constant distances, in 1e-6 degrees.
fn ends(what: &str, values: &[f64]) -> Result<[i64; 2], String> {
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return Err(format!("there are no {what}"));
    };
    let distance = (last - first) / (values.len().max(2) - 1) as f64;
    let is_regular = |(at, value): (usize, &f64)| {
        (value - (first + distance * at as f64)).abs() <= NEAR.min(distance.abs() / 100.0)
    };
    if !first.is_finite() || !values.iter().enumerate().all(is_regular) {
        return Err(format!(
            "its {what} are not at constant distances, from {first} to {last}: GRIB has no such grid"
        ));
    }
    if (last - first).abs() > 360.0 {
        return Err(format!(
            "its {what}, from {first} to {last}, go around more than once"
        ));
    }
    Ok([first, last].map(|degrees| (degrees * 1e6).round() as i64))
}

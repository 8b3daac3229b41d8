//! Maps of a two-dimensional field or of points, series over time and matrices of what is there, as PNG.
//!
//! [`draw`] makes one figure: the field on its projected or geographic axes, a colour bar, a title.
//! Fonts are built in, and the same [`Map`] always gives the same bytes.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod axis;
mod chart;
mod clock;
mod colours;
mod error;
mod field;
mod figure;
mod layout;
mod matrix;
mod png;
mod points;
mod series;
mod text;
mod ticks;
mod units;

use std::path::Path;

pub use error::Error;
pub use matrix::Matrix;
pub use series::{Line, Series};

/// A field on a grid, and what is written around it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    /// The field, row by row: the value at `(y, x)` is `values[y * x.len() + x]`. NaN is missing.
    pub values: Vec<f64>,
    /// Coordinates of the columns, rising or falling, in `x_units`.
    pub x: Vec<f64>,
    /// Coordinates of the rows, rising or falling, in `y_units`; greater ones are drawn higher.
    pub y: Vec<f64>,
    /// Name of the horizontal axis.
    pub x_label: String,
    /// Name of the vertical axis.
    pub y_label: String,
    /// Units of `x`: `m` is drawn as km, `degrees_east` as `10°E`.
    pub x_units: String,
    /// Units of `y`: `m` is drawn as km, `degrees_north` as `56°N`.
    pub y_units: String,
    /// Long name of the field.
    pub title: String,
    /// Model, analysis time, valid time and lead time; each line of it becomes one.
    pub subtitle: String,
    /// Units of the field, as CF writes them: `K`, `m s-1`.
    pub units: String,
    /// Values at the ends of the colour bar; those of the field if absent. Give one to compare
    /// several maps.
    pub range: Option<(f64, f64)>,
}

/// Draws `map` and writes it to `path` as PNG, whole or not at all.
pub fn draw(map: &Map, path: &Path) -> Result<(), Error> {
    png::write(path, &encode(map)?)
}

/// Draws `map`; the bytes of a PNG file.
pub fn encode(map: &Map) -> Result<Vec<u8>, Error> {
    let figure = figure::draw(map)?;
    png::encode(&figure, &map.title)
}

/// Draws points without a grid and writes them to `path` as PNG, whole or not at all: as many values as there are
/// `x` and `y`, each in a disc of its colour.
pub fn draw_points(map: &Map, path: &Path) -> Result<(), Error> {
    png::write(path, &encode_points(map)?)
}

/// Draws points without a grid; the bytes of a PNG file.
pub fn encode_points(map: &Map) -> Result<Vec<u8>, Error> {
    png::encode(&figure::draw_points(map)?, &map.title)
}

/// Draws `series` and writes it to `path` as PNG, whole or not at all.
pub fn draw_series(series: &Series, path: &Path) -> Result<(), Error> {
    png::write(path, &encode_series(series)?)
}

/// Draws `series`; the bytes of a PNG file.
pub fn encode_series(series: &Series) -> Result<Vec<u8>, Error> {
    png::encode(&series::draw(series)?, &series.title)
}

/// Draws `matrix` and writes it to `path` as PNG, whole or not at all.
pub fn draw_matrix(matrix: &Matrix, path: &Path) -> Result<(), Error> {
    png::write(path, &encode_matrix(matrix)?)
}

/// Draws `matrix`; the bytes of a PNG file.
pub fn encode_matrix(matrix: &Matrix) -> Result<Vec<u8>, Error> {
    png::encode(&matrix::draw(matrix)?, &matrix.title)
}

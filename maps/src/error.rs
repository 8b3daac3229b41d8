//! Why a map could not be drawn.

use std::path::PathBuf;

/// Why a map could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The field does not fit its coordinates.
    #[error(
        "the field has {values} values and its grid {rows} rows and {columns} columns: give one value for each point"
    )]
    Shape {
        /// Number of values.
        values: usize,
        /// Number of y coordinates.
        rows: usize,
        /// Number of x coordinates.
        columns: usize,
    },
    /// Points without a value or a place.
    #[error(
        "there are {values} values, {x} x and {y} y coordinates of points: give one of each for each point"
    )]
    Points {
        /// Number of values.
        values: usize,
        /// Number of x coordinates.
        x: usize,
        /// Number of y coordinates.
        y: usize,
    },
    /// A chart without times, rows or columns, or with rows of another length than it has times.
    #[error("the chart `{title}` cannot be drawn: {reason}")]
    Chart {
        /// Its title.
        title: String,
        /// What is wrong.
        reason: String,
    },
    /// Coordinates that do not order the points.
    #[error(
        "the coordinates of `{axis}` neither rise nor fall from point to point (see number {at}): give finite coordinates in order"
    )]
    Coordinates {
        /// Name of the axis.
        axis: String,
        /// The first point out of order, counted from 0.
        at: usize,
    },
    /// A colour bar without length.
    #[error("the colour bar cannot reach from {low} to {high}: give two finite values in order")]
    Range {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// The built-in font could not be read.
    #[error("the built-in font could not be read: this mlwm was built with a damaged one")]
    Font,
    /// The drawing failed.
    #[error("the map could not be drawn: {0}")]
    Canvas(String),
    /// The PNG encoder failed.
    #[error("the map could not be encoded as PNG")]
    Encode(#[from] ::png::EncodingError),
    /// The file could not be written.
    #[error(
        "the map {path} could not be written: give a path in a folder that exists and can be written"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
}

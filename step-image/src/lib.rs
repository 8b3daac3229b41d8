//! Steps of a data pipeline, each of which also is a plain command line.
//!
//! A step reads files and writes one new dataset: whole, or not at all ([`Target`]). What it read and what
//! became of it is in its report.

mod axis;
mod error;
pub mod fetch;
mod fold;
pub mod grib2zarr;
pub mod nc2zarr;
mod output;
mod points;
mod pour;
mod problems;
pub mod report;
pub mod resample;
mod target;
mod time;

pub use error::Error;
pub use output::{ChunkLength, Format, Output, ResampleOption};
pub use problems::Problems;
pub use target::Target;

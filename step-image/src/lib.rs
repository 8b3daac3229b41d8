//! Steps of a data pipeline, each of which also is a plain command line.
//!
//! A step reads files and writes one new dataset: whole, or not at all ([`Target`]). What it read and what
//! became of it is in its report.

mod axis;
mod blocks;
mod chunking;
pub mod concat;
mod error;
mod fault;
pub mod fetch;
mod fold;
pub mod grib2zarr;
mod lost;
mod memory;
mod moving;
pub mod nc2zarr;
mod new_store;
mod output;
pub mod plot;
mod points;
mod pour;
mod presence;
mod problems;
mod provenance;
pub mod rechunk;
pub mod report;
pub mod resample;
pub mod stats;
mod target;
mod time;
pub mod validate;

pub use chunking::{Compression, Format, Lengths};
pub use error::Error;
pub use fault::Fault;
pub use output::{Output, ResampleOption};
pub use problems::Problems;
pub use target::Target;

//! Steps of a data pipeline, each of which also is a plain command line.
//!
//! A step reads files and writes one new dataset: whole, or not at all ([`Target`]). What it read and what
//! became of it is in its report.

mod error;
mod target;

pub use error::Error;
pub use target::Target;

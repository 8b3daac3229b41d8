//! Steps of a data pipeline, each of which also is a plain command line.
//!
//! A step reads files and writes one new dataset: whole, or not at all ([`Target`]). What it read and what
//! became of it is in its report.

mod blocks;
mod chunking;
pub mod concat;
mod error;
mod fault;
mod moving;
mod new_store;
pub mod plot;
mod presence;
pub mod rechunk;
pub mod stats;
mod target;
pub mod validate;

pub use chunking::{Compression, Lengths};
pub use error::Error;
pub use fault::Fault;
pub use target::Target;

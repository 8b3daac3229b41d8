//! The published store of a forecast: Zarr version 3, one shard for each variable and window of
//! lead times, one inner chunk for each step.
//!
//! A model writes its forecast window by window, each a Zarr store of its own. Here they become one
//! store with few, large files (a shard is a whole file, written once) of which a reader still
//! fetches single steps. The same data give the same bytes, in whatever order the windows come.
//!
//! ```text
//! t2m/c/0/0      steps 1-12 of `t2m`: twelve compressed planes, an index at the end
//! t2m/c/1/0      steps 13-24
//! t2m/zarr.json  metadata, written by `finish`, like those of the coordinates
//! zarr.json      the group's, last
//! ```

mod cast;
mod coordinates;
mod error;
mod files;
mod metadata;
mod plan;
mod shard;
mod source;
#[cfg(test)]
mod tests;
mod windows;
mod write;

pub use cast::StoredAs;
pub use error::{BadValue, StoreError};
pub use plan::{ForecastStore, Missing, StoreOptions, VariableOptions};
pub use windows::Windows;
pub use write::Written;

pub(crate) use cast::{Permission, Rules};
pub(crate) use files::FileInProgress;
pub(crate) use plan::Layout;
pub(crate) use source::WindowSource;

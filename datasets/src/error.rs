//! What can go wrong with a Zarr store.

use std::path::PathBuf;

/// A store that could not be read or written as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No Zarr group is there.
    #[error(
        "`{}` is not a Zarr group: it has no group metadata (`zarr.json` or `.zgroup`)",
        path.display()
    )]
    NotZarr {
        /// The folder.
        path: PathBuf,
    },
    /// A file that is no NetCDF, or a damaged one.
    #[error("`{}` cannot be read as NetCDF: {reason}", path.display())]
    NotNetCdf {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A `.npy` that has not what is wanted, or is damaged.
    #[error("`{}` cannot be used: {reason}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Metadata that does not say what it must.
    #[error("the Zarr metadata in `{}` is not valid: {reason}", path.display())]
    Metadata {
        /// The metadata file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Metadata that names an array outside the store.
    #[error(
        "the Zarr metadata in `{}` names the array `{name}`, which is not inside the store",
        path.display()
    )]
    UnsafeName {
        /// The metadata file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// No such variable.
    #[error("`{}` has no variable `{name}`; it has: {}", path.display(), names.join(", "))]
    NoVariable {
        /// The store.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The names there are.
        names: Vec<String>,
    },
    /// An array that mlwm cannot read, for example because of an unknown codec.
    #[error("the variable `{name}` of `{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// The store.
        path: PathBuf,
        /// The variable.
        name: String,
        /// Why.
        reason: String,
    },
    /// A part of a variable that is not there.
    #[error(
        "the part {range} of the variable `{name}` of `{}` is not inside its shape {shape:?}",
        path.display()
    )]
    Range {
        /// The store.
        path: PathBuf,
        /// The variable.
        name: String,
        /// What was asked for.
        range: String,
        /// The shape of the variable.
        shape: Vec<u64>,
    },
    /// More than a machine can hold, usually because metadata is corrupt.
    #[error(
        "the variable `{name}` of `{}` is too large to read at once: {what}; read a smaller part \
         or check its metadata",
        path.display()
    )]
    TooLarge {
        /// The store.
        path: PathBuf,
        /// The variable.
        name: String,
        /// What is too large, with its limit.
        what: String,
    },
    /// A chunk that is there but cannot be decoded.
    #[error("the chunk `{}` of the variable `{name}` is corrupt: {reason}", path.display())]
    Chunk {
        /// The chunk's file.
        path: PathBuf,
        /// The variable.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Values of another type than asked for.
    #[error("expected {expected} values, found {found}")]
    Element {
        /// The type asked for.
        expected: &'static str,
        /// The type there is.
        found: &'static str,
    },
    /// Times or durations that cannot be decoded.
    #[error("the times in the variable `{name}` of `{}` cannot be read: {reason}", path.display())]
    Time {
        /// The store.
        path: PathBuf,
        /// The variable.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be written.
    #[error("cannot write `{}`: {reason}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is something already where a store should be written.
    #[error("`{}` exists already: choose another path or remove it first", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A variable that cannot be written as defined, or values that do not fit its definition.
    #[error("the variable `{name}` cannot be written to `{}`: {reason}", path.display())]
    Definition {
        /// The store.
        path: PathBuf,
        /// The variable.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A store whose statistics are not there or do not fit together.
    #[error("the statistics in `{}` cannot be used: {reason}", path.display())]
    Statistics {
        /// The store.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

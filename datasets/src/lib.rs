//! Labelled arrays over Zarr: read, write, CF time, preparation, statistics.
//!
//! A [`Dataset`] is a Zarr group on a local file system, read as xarray reads it; a [`Writer`]
//! writes one that xarray reads back. [`Statistics`] are what a model was trained with.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod blosc;
mod cf_time;
mod chunks;
#[cfg(feature = "netcdf")]
mod classic;
mod dataset;
#[cfg(test)]
mod dataset_tests;
mod decode;
mod documents;
pub mod ensemble;
mod error;
pub mod forecast_store;
mod form;
mod group;
pub mod input_state;
#[cfg(feature = "netcdf")]
mod netcdf;
#[cfg(feature = "netcdf")]
mod netcdf_file;
pub mod points;
pub mod prepare;
mod statistics;
#[cfg(test)]
mod statistics_tests;
mod stored;
mod stored_chunks;
#[cfg(test)]
mod testing;
mod values;
mod variable;
mod writer;
#[cfg(test)]
mod writer_tests;

pub use blosc::Blosc;
pub use cf_time::{duration_attributes, time_attributes};
pub use dataset::Dataset;
pub use error::Error;
pub use form::{BloscCodecName, Compressor, Form, StoredDefinition};
pub use group::ZarrFormat;
pub use input_state::npy_integers;
#[cfg(feature = "netcdf")]
pub use netcdf_file::NetCdfFile;
pub use statistics::{StatisticValues, Statistics, extract_statistics};
pub use values::{Element, Values};
pub use variable::Variable;
pub use writer::{Definition, Writer};

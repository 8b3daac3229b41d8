//! Tests of registries against a folder, Garage, moto, the GCS emulator and docker-registry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cache;
mod claims;
mod common;
mod kept;
mod parts;
mod publications;
mod races;
mod removal;
mod requests;
mod trust;

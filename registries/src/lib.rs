//! Where inference artifacts are published and kept: registries, the local cache, bundles for
//! machines without a network, signatures.
//!
//! A [`Registry`] is a directory, a bucket or an OCI registry; what it keeps is specified in
//! `docs/registries.md`, and the numbers of sections in comments refer to it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod claims;
mod error;
mod random;
mod record;
mod registry;
pub mod signature;

pub use error::Error;
pub use record::{Publication, REGISTRY_VERSION};
pub use registry::{Pulled, PushContent, PushRequest, Pushed, Registry, RegistryOptions};

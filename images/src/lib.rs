//! One OCI image per configured model: a base image, the runner, the inference artifact.
//!
//! A [`plan`] says what goes into an image: its files with their digests, its labels, its base.
//! [`assemble`] makes an [`Image`] of it without an engine: the base's layers, wherever they are, with
//! our own on top, which are tar archives that are never written down. It then goes to a registry
//! ([`push`]), into a folder ([`Layout::put`]) or into a local engine ([`engine::load`]). The same
//! plan on the same base gives the same bytes on any machine.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod assemble;
mod assembled;
pub mod bundle;
mod compose;
mod digests;
pub mod engine;
pub mod environment;
mod error;
mod image;
pub mod labels;
mod layout;
mod leaving;
mod leftovers;
mod lock;
mod machine;
mod oci;
mod place;
mod plan;
mod rebase;
mod registry;
mod remote;
mod scan;
mod tarball;

pub use assemble::{assemble, secrets};
pub use digests::LayerDigests;
pub use error::Error;
pub use image::{Image, LayerSummary, Summary};
pub use layout::Layout;
pub use leaving::check_secrets;
pub use lock::Lock;
pub use oci::Platform;
pub use place::{Place, find};
pub use plan::{BuildInputs, ImagePlan, PlannedFile, Runner, Source, plan};
pub use rebase::{RebaseInputs, rebase};
pub use registry::{Pushed, Transfers, push};
pub use scan::{Allowed, Finding, refused, scan_layers};

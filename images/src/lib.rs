//! One OCI image per configured model: a base image, the runner, the inference artifact.
//!
//! A [`plan`] says what goes into an image: its files with their digests, its labels, its base.
//! [`build`] carries it out with the builder of a local engine. The plan knows nothing of
//! engines' builders, so that another way to make the image can take its place.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod build;
mod context;
mod error;
pub mod labels;
mod plan;

pub use build::{Built, build};
pub use error::Error;
pub use plan::{BuildInputs, ImagePlan, PlannedFile, Runner, Source, plan};

//! Pure types of mlwm: no IO, no clock, no environment.
//!
//! Everything that two parts of mlwm must agree on lives here: the configuration of a model, the
//! path of a dataset, the way a time is written, the environment of a container, the record that
//! makes a published forecast visible.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod artifact_reference;
pub mod bytes;
pub mod configuration;
pub mod contract;
pub mod dataset_path;
pub mod datastore;
pub mod digest;
pub mod exit;
pub mod interface;
pub mod local;
pub mod manifest;
pub mod members;
pub mod number;
mod outline;
pub mod patience;
mod redacted;
pub mod task;
pub mod time;
pub mod yaml;

pub use artifact_reference::{
    ArtifactFile, ArtifactName, ArtifactReference, PublishedArtifact, Tag,
};
pub use configuration::{ArtifactDelivery, Configuration, repository_name};
pub use dataset_path::{BoundingBox, DatasetPath, Resolution, is_plain_name};
pub use datastore::{DatastoreConfig, NeuralLamConfig};
pub use digest::Digest;
pub use exit::ExitCode;
pub use interface::Interface;
pub use local::LocalFailure;
pub use manifest::Manifest;
pub use members::Members;
pub use redacted::without_credentials;
pub use time::{AnalysisTime, Period};

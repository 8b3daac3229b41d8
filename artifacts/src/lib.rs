//! Inference artifacts: build, read, verify.
//!
//! An artifact is one zip that holds everything needed from training to run a model. Its format
//! is specified in `docs/artifact-format.md`; the numbers of sections in comments refer to it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod agreement;
mod artifact;
mod build;
mod checkpoint;
mod datastores;
mod error;
mod extract;
mod facts;
mod features;
mod framing;
mod layout;
mod onnx;
mod pack;
mod provenance;
mod record;
mod statistics;
mod training;
mod verify;

pub use artifact::{Artifact, MemberReader};
pub use build::{BuildRequest, Built, build};
pub use error::Error;
pub use framing::FramingError;
pub use layout::{
    ARTIFACT_YAML, CHECKPOINT_ONNX, CHECKPOINT_PICKLE, INTERFACE_JSON, NEURAL_LAM_CONFIG,
    TRAINING_ARGUMENTS, datastore_config_member, statistics_member,
};
pub use onnx::{Dimension, GraphTensor, OnnxError, OnnxSignature};
pub use record::{FORMAT_VERSION, FileEntry};
pub use verify::Verified;

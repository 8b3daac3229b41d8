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
mod diff;
mod error;
mod extract;
mod facts;
mod features;
mod file;
mod form;
mod framing;
mod golden;
mod hashing;
mod input;
mod inspect;
mod layout;
mod member;
mod onnx;
mod pack;
pub mod pickle;
mod provenance;
mod receipt;
mod record;
mod source;
mod statistics;
#[cfg(test)]
mod tests;
mod training;
mod unpacked;
mod verify;
mod workplace;

pub use artifact::Artifact;
pub use build::{BuildRequest, Built, build, prepare};
pub use diff::{Change, Diff, Side, diff};
pub use error::Error;
pub use framing::FramingError;
pub use golden::{GOLDEN, GoldenCase, GoldenInput, Tolerance};
pub use hashing::digest_of;
pub use inspect::{CheckpointFacts, DatastoreFacts, Inspection, VariableFacts};
pub use layout::{
    ARTIFACT_YAML, CHECKPOINT_ONNX, CHECKPOINT_PICKLE, INTERFACE_JSON, NEURAL_LAM_CONFIG,
    TRAINING_ARGUMENTS, datastore_config_member, statistics_member,
};
pub use member::MemberReader;
pub use onnx::{Dimension, GraphTensor, OnnxError, OnnxSignature};
pub use pack::{Entry, Packed, Packing};
pub use receipt::Receipts;
pub use record::{FORMAT_VERSION, FileEntry};
pub use source::{FileSource, ReadAt};
pub use verify::Verified;

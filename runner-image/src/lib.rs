//! The built-in runner: runs an ONNX step model of an inference artifact on prepared datasets, as
//! the container contract asks (`docs/container-contract.md`).
//!
//! [`run`] is the whole; its parts are public so that intermediate arrays can be compared with
//! those of neural-lam.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod arrange;
mod artifact;
mod contents;
mod error;
mod forecast;
mod layout;
mod model;
mod noise;
mod output;
mod place;
mod points;
mod producer;
mod rollout;
mod run;
mod standardize;
mod stepping;
mod stream;
mod task;

pub use artifact::Artifact;
pub use error::RunnerError;
pub use forecast::{Forecast, Inputs};
pub use model::{OnnxModel, find_library};
pub use noise::Seed;
pub use output::{Outputs, Provenance};
pub use producer::{Producer, Start, StepInputs};
pub use rollout::{Feed, RolloutTimes, Sink, StepModel, roll_out};
pub use run::{Timing, run};
pub use standardize::{Standardization, standardized_static};
pub use stream::serve;
pub use task::{Device, Task};

//! Where containers run: a Docker or Podman socket.
//!
//! An [`Engine`] runs one container at a time per call of [`Engine::run`], isolated as the
//! container contract says: no network, a read-only root, no capabilities, no new privileges, the
//! caller's user, limits on memory, processors and processes. What a container prints comes line
//! by line while it runs; why it ended comes as [`Ended`]; nothing of it stays behind, whether it
//! succeeds, fails, is cancelled, or the future is dropped.
//!
//! **No host environment.** A container sees the variables of [`Request::env`] and those of its
//! image, and a home folder in its temporary one; nothing of the process that starts it.
//!
//! **SELinux.** Where it is enforcing, a container may only read files labelled for containers
//! (`container_file_t`). Mounts are not relabelled, as that would change the labels of shared
//! input data on the host, and confinement is not switched off: label the scratch folder once,
//! with `semanage fcontext` and `restorecon`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod archive;
mod build;
mod connect;
mod container;
mod created;
mod error;
mod follow;
mod gpus;
mod image;
mod info;
mod limits;
mod lines;
pub mod owner;
mod request;
mod run;
mod sweep;
mod wire;

pub use build::{BuildRequest, BuildSecret, Redaction};
pub use connect::{Endpoint, Engine};
pub use error::{Attempt, Error, Problem};
pub use image::Image;
pub use info::{Info, Kind};
pub use limits::Limits;
pub use request::{Ended, Mount, Output, Request};
pub use sweep::Swept;

//! Runs containers on the engines of this machine: Docker, and Podman where it is installed.
//!
//! The tests need `docker` and `mmdebstrap`, and for Podman `podman`, `runc` and `catatonit`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod builds;
mod docker;
mod limits;
mod podman;
mod support;

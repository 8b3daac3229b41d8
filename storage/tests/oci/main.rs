//! Tests of the client of OCI registries against Debian's `docker-registry`, open, with a password
//! and with a token server, and against an imitation that treats uploads as other registries do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod blobs;
mod common;
mod faults;
mod interruption;
mod manifests;
mod measure;
mod refusals;
mod uploads;

use mlwm_tests::faulty;

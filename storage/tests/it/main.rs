//! Tests of the storage library against a file system, Garage and moto.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod child;
mod common;
mod continuing;
mod environment;
mod faults;
mod interruption;
mod kills;
mod limits;
mod measure;
mod names;
mod patience;
mod pieces;
mod publication;
mod republication;
mod staging;
mod transfers;

use mlwm_tests::faulty;

//! End-to-end tests of mlwm, by what a user does.

pub mod s3;
pub mod site;

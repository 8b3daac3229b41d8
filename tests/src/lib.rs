//! End-to-end tests of mlwm, by what a user does.

pub mod bench;
pub mod counting_proxy;
pub mod faulty;
pub mod gcs;
pub mod images;
pub mod places;
pub mod registry;
pub mod s3;
pub mod scratch;
pub mod scripted;
pub mod site;
pub mod space;
pub mod synthetic;
pub mod witness;

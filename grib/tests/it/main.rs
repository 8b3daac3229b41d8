//! Tests of GRIB against ecCodes' Python interface and cfgrib, which come with a library of their
//! own, newer than the one that mlwm is linked with.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damage;
mod encoding;
mod oracle;
mod reading;
mod refusals;
mod round_trip;
mod window;
mod writing;

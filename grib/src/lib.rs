//! GRIB messages: read edition 1 and 2, write edition 2.
//!
//! The coding itself is ECMWF's ecCodes, a C library that is loaded when it is first needed
//! ([`eccodes_version`]): a program works without it as long as it asks for no GRIB. [`Reader`] finds
//! the messages of a file and accounts for each byte of it; a [`Message`] says what its field is and
//! decodes its values. [`Writer`] encodes the fields of a forecast, for variables that GRIB has a
//! code for ([`Encoding`]), and [`window`] writes a window of lead time to a file.
//!
//! One lock is held during each call of ecCodes: threads that decode do so one after the other.
//! The damage that is known to end the process inside ecCodes is refused before it gets there; since
//! there may be more, a file that was made to do harm is read in a process of its own.

mod coordinates;
mod encoding;
mod error;
#[allow(unsafe_code)] // the calls of the C library, and nothing else
mod ffi;
mod forecast;
mod frame;
mod grid;
mod header;
mod message;
mod reader;
pub mod window;
mod writer;

pub use coordinates::Coordinates;
pub use encoding::Encoding;
pub use error::{Error, Place};
pub use forecast::{Field, Forecast, Member, Method, Packing, Process, Span};
pub use grid::{Grid, ReducedGaussian, RegularLatLon, Rows, Scanning};
pub use header::{Header, Level, Mars};
pub use message::{CfNames, Message, Seen};
pub use reader::Reader;
pub use writer::Writer;

/// Loads ecCodes, if it is not loaded yet, and says its version: `2.28.0`. It is the library that `MLWM_ECCODES`
/// names, or the `libeccodes.so.0` or `libeccodes.so` that the system finds.
///
/// # Errors
/// [`Error::Library`] if there is none of version 2.28 or newer.
pub fn eccodes_version() -> Result<String, Error> {
    ffi::version()
}

//! Writes the fields of a window of lead time to one file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use crate::{Error, Field, Forecast, Span, Writer};

/// A window of lead time in hours, both ends within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first lead time that may be in it.
    pub start: u32,
    /// The last lead time.
    pub end: u32,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The number of messages, one for each field.
    pub messages: u64,
}

/// The name of a window's file:
/// `<prefix>_<YYYYMMDD>_<HHMM>_member<MMM>_h<SSS>-<EEE>.grib`, with the analysis time in UTC;
/// without `_member<MMM>` if the forecast is not one of an ensemble.
pub fn file_name(prefix: &str, forecast: &Forecast, window: Window) -> String {
    let time = forecast.analysis_time.to_zoned(TimeZone::UTC);
    let member = forecast
        .member
        .map(|member| format!("_member{:03}", member.number))
        .unwrap_or_default();
    format!(
        "{prefix}_{}{member}_h{:03}-{:03}.grib",
        time.strftime("%Y%m%d_%H%M"),
        window.start,
        window.end
    )
}

/// Writes the fields of a window to a file in a folder. One field is in memory at a time. The file
/// has another name (`.<name>.part`) until it is complete and on the disk; one that has its name
/// already is replaced. If a field or the disk fails, nothing is left.
///
/// # Errors
/// The first that `fields` yields; [`Error::Field`] if one cannot be encoded, is not of the window,
/// or comes twice; [`Error::Forecast`] if there is no field; [`Error::Write`].
pub fn write<E: From<Error>>(
    folder: &Path,
    prefix: &str,
    forecast: Forecast,
    window: Window,
    fields: impl IntoIterator<Item = Result<Field, E>>,
) -> Result<Written, E> {
    let name = file_name(prefix, &forecast, window);
    let path = folder.join(&name);
    let partial = folder.join(format!(".{name}.part"));
    let written =
        write_partial(&partial, forecast, window, fields).and_then(|(bytes, messages)| {
            fs::rename(&partial, &path)
                .and_then(|()| File::open(folder)?.sync_all())
                .map_err(failed(&path))?;
            Ok(Written {
                path,
                bytes,
                messages,
            })
        });
    if written.is_err() {
        // What failed is told; that this fails, too, would not help.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Writes all fields to a file and waits until it is on the disk; bytes and messages.
fn write_partial<E: From<Error>>(
    path: &Path,
    forecast: Forecast,
    window: Window,
    fields: impl IntoIterator<Item = Result<Field, E>>,
) -> Result<(u64, u64), E> {
    let mut writer = Writer::new(forecast)?;
    let mut file = BufWriter::new(File::create(path).map_err(failed(path))?);
    let mut seen = HashSet::new();
    let (mut bytes, mut messages) = (0, 0);
    for field in fields {
        let field = field?;
        check(&field, window, &mut seen)?;
        let message = writer.message(&field)?;
        file.write_all(&message).map_err(failed(path))?;
        bytes += message.len() as u64;
        messages += 1;
    }
    if messages == 0 {
        let Window { start, end } = window;
        let reason = format!("there is no field from {start} to {end} h");
        return Err(Error::Forecast { reason }.into());
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(failed(path))?;
    Ok((bytes, messages))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error {
    |source| Error::Write {
        path: path.to_owned(),
        source,
    }
}

/// What tells fields apart: parameter, level and span.
type Identity = (i64, Option<(String, [u64; 2])>, Span);

fn check(field: &Field, window: Window, seen: &mut HashSet<Identity>) -> Result<(), Error> {
    let refused = |reason: String| Error::Field {
        name: field.encoding.name().to_owned(),
        lead_time: format!("{} h", field.span.lead_time()),
        reason,
    };
    let Window { start, end } = window;
    if !(start..=end).contains(&field.span.lead_time()) {
        return Err(refused(format!(
            "it is not in the window from {start} to {end} h"
        )));
    }
    let level = field.level.as_ref().map(|level| {
        (
            level.kind.clone(),
            [level.top, level.bottom].map(f64::to_bits),
        )
    });
    if !seen.insert((field.encoding.param_id(), level, field.span)) {
        return Err(refused("it comes twice".to_owned()));
    }
    Ok(())
}

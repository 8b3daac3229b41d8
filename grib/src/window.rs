//! The fields of a window of lead time in one file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
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

/// A file of a window that is being written. It has another name (`.<name>.part`) until it is complete and on
/// the disk; one that has its name already is replaced. Dropped before, it leaves nothing.
#[derive(Debug)]
pub struct WindowFile {
    writer: Writer,
    window: Window,
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
    seen: HashSet<Identity>,
    bytes: u64,
    messages: u64,
    is_complete: bool,
}

impl WindowFile {
    /// Begins a file in a folder.
    ///
    /// # Errors
    /// [`Error::Forecast`] if GRIB cannot say what the fields have in common; [`Error::Write`].
    pub fn create(
        folder: &Path,
        prefix: &str,
        forecast: Forecast,
        window: Window,
    ) -> Result<Self, Error> {
        let name = file_name(prefix, &forecast, window);
        let partial = folder.join(format!(".{name}.part"));
        Ok(Self {
            writer: Writer::new(forecast)?,
            window,
            file: BufWriter::new(File::create(&partial).map_err(failed(&partial))?),
            partial,
            path: folder.join(name),
            seen: HashSet::new(),
            bytes: 0,
            messages: 0,
            is_complete: false,
        })
    }

    /// Writes a field.
    ///
    /// # Errors
    /// [`Error::Field`] if it cannot be encoded, is not of the window, or came before; [`Error::Write`].
    pub fn push(&mut self, field: &Field) -> Result<(), Error> {
        check(field, self.window, &mut self.seen)?;
        let message = self.writer.message(field)?;
        self.file
            .write_all(&message)
            .map_err(failed(&self.partial))?;
        self.bytes += message.len() as u64;
        self.messages += 1;
        Ok(())
    }

    /// Gives the file its name when it is on the disk.
    ///
    /// # Errors
    /// [`Error::Forecast`] if there is no field; [`Error::Write`].
    pub fn finish(mut self) -> Result<Written, Error> {
        if self.messages == 0 {
            let Window { start, end } = self.window;
            let reason = format!("there is no field from {start} to {end} h");
            return Err(Error::Forecast { reason });
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.partial, &self.path))
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(failed(&self.path))?;
        self.is_complete = true;
        Ok(Written {
            path: self.path.clone(),
            bytes: self.bytes,
            messages: self.messages,
        })
    }
}

impl Drop for WindowFile {
    fn drop(&mut self) {
        if !self.is_complete {
            // What failed is told; that this fails, too, would not help.
            let _ = fs::remove_file(&self.partial);
        }
    }
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

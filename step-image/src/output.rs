//! What steps that write a Zarr store have in common: their options, and the coordinates of time.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use mlwm_datasets::{Definition, Element, Values, Writer, time_attributes};
use mlwm_spec::Period;
use mlwm_spec::bytes::ByteSize;
use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value};

use crate::chunking::{Compression, Format, Lengths};
use crate::resample::{Method, Resampling};
use crate::{Error, Problems, Target};

/// Options of steps that write a Zarr store.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Version of the Zarr format.
    #[arg(long, value_enum, default_value = "3")]
    pub zarr_format: Format,
    /// Lengths of chunks, like `time=124,x=-1` (-1: the whole dimension); else one time and one level, and all
    /// points.
    #[arg(long)]
    pub chunk: Option<Lengths>,
    /// The most memory that the process takes.
    #[arg(long, default_value = "1GiB")]
    pub memory: ByteSize,
    /// How chunks are compressed.
    #[arg(long, value_enum, default_value = "fast")]
    pub compression: Compression,
    /// Windows of time, and how the fields in each become one, such as `6h=mean`: mean, sum, min, max, last or
    /// deaccumulate. A window is labelled by its beginning (00 has 00 to 05), and fails unless it is complete.
    #[arg(long, value_name = "LENGTH=METHOD")]
    pub resample: Option<ResampleOption>,
    /// Accept times that are not evenly spaced.
    #[arg(long)]
    pub uneven_times: bool,
    /// Write NaN where a variable has no field at a time that others have, or not all fields of a window; the
    /// report lists what is missing.
    #[arg(long)]
    pub allow_missing: bool,
    /// Write the report here, also of a failure; else it is `report.json` in the folder of the result.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Windows of time that the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResampleOption(pub Resampling);

impl FromStr for ResampleOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (every, method) = text
            .split_once('=')
            .ok_or("write a length and a method, such as `6h=mean`")?;
        let method = Method::named(method).ok_or_else(|| {
            format!("`{method}` is no method: there are mean, sum, min, max, last, deaccumulate")
        })?;
        let every: Period = every.parse().map_err(|error| format!("{error}"))?;
        check_window(every)?;
        Ok(Self(Resampling { every, method }))
    }
}

/// Refuses windows that would begin at another time of day each day.
///
/// # Errors
/// What is wrong with the length.
pub(crate) fn check_window(every: Period) -> Result<(), String> {
    const DAY: i64 = 86_400;
    let seconds = every.seconds();
    match DAY % seconds == 0 || seconds % DAY == 0 {
        true => Ok(()),
        false => Err(format!(
            "windows of {every} would begin at another time each day: take a part of a day, or whole days"
        )),
    }
}

impl Output {
    /// The chunks of a variable with these dimensions, of which time and level are one each unless asked for.
    pub(crate) fn chunks(&self, dims: &[(&str, u64)], level: Option<&str>) -> Vec<u64> {
        let of_dim = |&(dim, length): &(&str, u64)| {
            let asked = self.chunk.as_ref().and_then(|chunk| chunk.of(dim, length));
            let default = match dim == TIME || Some(dim) == level {
                true => 1,
                false => length,
            };
            asked.unwrap_or(default).clamp(1, length.max(1))
        };
        dims.iter().map(of_dim).collect()
    }

    /// Names the dimensions that chunks are asked for and that are not there.
    pub(crate) fn check_chunks(&self, dims: &[&str], problems: &mut Problems) {
        let asked = self.chunk.iter().flat_map(Lengths::dims);
        for dim in asked.filter(|dim| !dims.contains(dim)) {
            let there = dims.join(", ");
            problems.push(format!(
                "`--chunk` has `{dim}`: there is no such dimension, only {there}"
            ));
        }
    }
}

/// Writes a result into the folder that it gets; what fails leaves nothing.
pub(crate) fn whole(
    place: &Path,
    write: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let target = Target::begin(place)?;
    if let Err(error) = write(target.folder()) {
        // What failed is told; that this fails, too, would not help, and the next attempt removes it.
        let _ = std::fs::remove_dir_all(target.folder());
        return Err(error);
    }
    target.finish()
}

/// The dimension of time.
pub(crate) const TIME: &str = "time";

/// How the long name of times begins that are the beginnings of windows; the length follows.
pub(crate) const WINDOW: &str = "beginning of a window of ";

/// Defines and writes the coordinate of time, with its own attributes; of windows of a length, their beginnings.
pub(crate) fn write_times(
    writer: &mut Writer,
    times: &[i64],
    own: Map<String, Value>,
    windows: Option<Period>,
) -> Result<(), Error> {
    let mut attributes = time_attributes();
    for key in ["standard_name", "long_name"] {
        attributes.insert(key.to_owned(), TIME.into());
    }
    attributes.extend(own);
    if let Some(every) = windows {
        let name = format!("{WINDOW}{every}");
        attributes.insert("long_name".to_owned(), name.into());
    }
    let values = array(&[times.len()], times.to_vec())?;
    write_coordinate(
        writer,
        TIME,
        &[(TIME, times.len() as u64)],
        attributes,
        Values::I64(values),
    )
}

/// Defines and writes a variable in one chunk.
pub(crate) fn write_coordinate(
    writer: &mut Writer,
    name: &str,
    dims: &[(&str, u64)],
    attributes: Map<String, Value>,
    values: Values,
) -> Result<(), Error> {
    let element = values.element();
    writer.define(&Definition::new(name, dims, element).attributes(attributes))?;
    Ok(writer.write(name, values)?)
}

/// Values in a shape.
pub(crate) fn array<T>(shape: &[usize], values: Vec<T>) -> Result<ArrayD<T>, Error> {
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|error| Error::Shape(error.to_string()))
}

/// A type that values of this one are kept in when several of them become one.
pub(crate) fn floating(element: Element) -> Element {
    match element {
        Element::F32 => Element::F32,
        _ => Element::F64,
    }
}

/// The files that arguments name: a folder stands for all files below it, in the order of their names. Hidden
/// files are none of them.
///
/// # Errors
/// [`Error::Read`], [`Error::NoFiles`].
pub(crate) fn files(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for argument in arguments {
        collect(argument, &mut files)?;
    }
    match files.is_empty() {
        true => Err(Error::NoFiles(arguments.to_vec())),
        false => Ok(files),
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    if !path.metadata().map_err(failed)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in path.read_dir().map_err(failed)? {
        entries.push(entry.map_err(failed)?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let shown = entries
        .iter()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    shown
        .map(std::fs::DirEntry::path)
        .try_for_each(|path| collect(&path, files))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_say_what_is_wrong_with_them() {
        let option: ResampleOption = "6h=mean".parse().unwrap();
        assert_eq!(option.0.every.seconds(), 21_600);
        assert_eq!(option, "PT6H=mean".parse().unwrap());
        assert!("5h=mean".parse::<ResampleOption>().is_err());
        let error = "6h=median".parse::<ResampleOption>().unwrap_err();
        assert!(error.contains("deaccumulate"), "{error}");
    }

    #[test]
    fn a_folder_stands_for_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("a")).unwrap();
        for name in ["b.grib", "a/z.grib", ".hidden"] {
            std::fs::write(path(name), "").unwrap();
        }
        let found = files(&[folder.path().to_owned()]).unwrap();
        assert_eq!(found, [path("a/z.grib"), path("b.grib")]);
        std::fs::remove_dir_all(path("a")).unwrap();
        std::fs::remove_file(path("b.grib")).unwrap();
        assert!(matches!(
            files(&[folder.path().to_owned()]),
            Err(Error::NoFiles(_))
        ));
    }
}

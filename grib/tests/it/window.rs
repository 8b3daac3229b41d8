//! Files of a window of lead time.

use std::path::Path;

use mlwm_grib::window::{self, Window, WindowFile, Written};
use mlwm_grib::{Error, Field, Forecast, Grid, Reader, ReducedGaussian, Span};

use crate::oracle::describe;
use crate::writing::{field, forecast};

const WINDOW: Window = Window { start: 0, end: 72 };

fn grid() -> Grid {
    Grid::ReducedGaussian(ReducedGaussian::octahedral(8))
}

/// Twelve steps of two variables.
fn fields() -> impl Iterator<Item = Field> {
    (1..=12).flat_map(|step| {
        ["2t", "msl"].map(|name| field(&grid(), name, None, Span::Instant(6 * step)))
    })
}

/// Writes fields to a file of the window.
fn write(
    folder: &Path,
    prefix: &str,
    forecast: Forecast,
    fields: impl IntoIterator<Item = Field>,
) -> Result<Written, Error> {
    let mut file = WindowFile::create(folder, prefix, forecast, WINDOW)?;
    for field in fields {
        file.push(&field)?;
    }
    file.finish()
}

/// The names of all files of a folder, hidden ones among them.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_window_has_all_fields_and_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = "aifs_ens_forecast";
    let written = write(folder.path(), prefix, forecast(grid()), fields()).unwrap();
    let name = "aifs_ens_forecast_20240229_0600_member007_h000-072.grib";
    assert_eq!(names(folder.path()), [name]);
    assert_eq!(written.path, folder.path().join(name));
    assert_eq!(written.messages, 24);
    assert_eq!(
        written.bytes,
        std::fs::metadata(&written.path).unwrap().len()
    );
    let said = describe(&written.path);
    assert_eq!(said.len(), 24);
    for (said, field) in said.iter().zip(fields()) {
        assert_eq!(said["paramId"], field.encoding.param_id());
        assert_eq!(said["endStep"], field.span.lead_time() * 3600);
        assert_eq!(said["number"], 7);
    }
    assert!(
        Reader::open(&written.path)
            .unwrap()
            .all(|item| item.is_ok())
    );
}

#[test]
fn the_same_window_again_replaces_it_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = || {
        let written = write(folder.path(), "x", forecast(grid()), fields());
        std::fs::read(written.unwrap().path).unwrap()
    };
    assert_eq!(bytes(), bytes());
    assert_eq!(names(folder.path()).len(), 1);
}

#[test]
fn a_forecast_without_ensemble_has_no_member_in_its_name() {
    let mut alone = forecast(grid());
    alone.member = None;
    let window = Window {
        start: 720,
        end: 1008,
    };
    let name = window::file_name("x", &alone, window);
    assert_eq!(name, "x_20240229_0600_h720-1008.grib");
}

/// The error of a window of these fields, after a check that nothing is left of it.
fn refused(fields: Vec<Field>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = write(folder.path(), "x", forecast(grid()), fields).unwrap_err();
    assert_eq!(names(folder.path()), [""; 0]);
    error.to_string()
}

#[test]
fn a_window_that_fails_leaves_nothing() {
    let good = || field(&grid(), "2t", None, Span::Instant(6));
    let late = field(&grid(), "2t", None, Span::Instant(78));
    let mut infinite = field(&grid(), "2t", None, Span::Instant(12));
    infinite.values[0] = f32::INFINITY;
    assert!(refused(vec![good(), late]).contains("from 0 to 72 h"));
    assert!(refused(vec![good(), good()]).contains("comes twice"));
    assert!(refused(vec![good(), infinite]).contains("infinite"));
    assert!(refused(vec![]).contains("no field"));
    let folder = tempfile::tempdir().unwrap();
    let mut dropped = WindowFile::create(folder.path(), "x", forecast(grid()), WINDOW).unwrap();
    dropped.push(&good()).unwrap();
    drop(dropped);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let written = write(&missing, "x", forecast(grid()), fields());
    assert!(matches!(written, Err(Error::Write { .. })));
}

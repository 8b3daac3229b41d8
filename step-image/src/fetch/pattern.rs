//! Patterns of names in one place of a store: `s3://bucket/data/*.grib`.

use mlwm_spec::ExitCode;
use mlwm_storage::{Store, Uri};

use super::{refused, shown};
use crate::Error;

/// The places that a text stands for: with a `*` in its last part those whose names fit, in the order of the names; else
/// itself.
pub(super) async fn places(text: &str) -> Result<Vec<Uri>, Error> {
    let Some((folder, start, end)) = split(text)? else {
        return Ok(vec![text.parse()?]);
    };
    let folder: Uri = folder.parse()?;
    let listed = Store::open(&folder).await?.list(&folder).await?;
    let paths: Vec<&str> = listed.iter().map(|object| object.path.as_str()).collect();
    let names = fitting(&paths, start, end);
    if names.is_empty() {
        let reason = "nothing there has such a name".to_owned();
        return Err(refused(&shown(text), reason, ExitCode::InputMissing));
    }
    let places = names.into_iter().map(|name| folder.join(name));
    Ok(places.collect::<Result<_, _>>()?)
}

/// The folder of a pattern, and what is before and after its `*`; none if it is no pattern.
fn split(text: &str) -> Result<Option<(&str, &str, &str)>, Error> {
    let (folder, name) = text.rsplit_once('/').unwrap_or((".", text));
    match (folder.contains('*'), name.split_once('*')) {
        (false, None) => Ok(None),
        (false, Some((start, end))) if !end.contains('*') => {
            // What is in the root of the file system.
            let folder = if folder.is_empty() { "/" } else { folder };
            Ok(Some((folder, start, end)))
        }
        _ => Err(refused(
            &shown(text),
            "a pattern has one `*`, in its last part".to_owned(),
            ExitCode::BadConfiguration,
        )),
    }
}

/// The first parts of paths that fit, sorted. Hidden ones do only if that is asked for.
fn fitting<'a>(paths: &[&'a str], start: &str, end: &str) -> Vec<&'a str> {
    let first = |path: &&'a str| path.split('/').next().unwrap_or_default();
    let mut names: Vec<&str> = paths.iter().map(first).collect();
    names.retain(|name| {
        let rest = name.strip_prefix(start);
        let is_shown = !name.starts_with('.') || start.starts_with('.');
        is_shown && rest.is_some_and(|rest| rest.ends_with(end))
    });
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_one_star_in_its_last_part() {
        assert_eq!(split("s3://b/a/x.grib").unwrap(), None);
        let split_of = |text| split(text).unwrap().unwrap();
        assert_eq!(split_of("s3://b/a/*.grib"), ("s3://b/a", "", ".grib"));
        assert_eq!(split_of("s3://b/*"), ("s3://b", "", ""));
        assert_eq!(split_of("x*"), (".", "x", ""));
        assert_eq!(split_of("/x*"), ("/", "x", ""));
        for wrong in ["a/*/b", "a/*b*", "s3://*/a"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_fit_in_one_folder_and_once() {
        let paths = [
            "b.grib",
            "a.grib",
            "c.zarr/x",
            "c.zarr/y",
            ".hidden.grib",
            "ab",
        ];
        assert_eq!(
            fitting(&paths, "", ""),
            ["a.grib", "ab", "b.grib", "c.zarr"]
        );
        assert_eq!(fitting(&paths, "", ".grib"), ["a.grib", "b.grib"]);
        assert_eq!(fitting(&paths, ".h", ".grib"), [".hidden.grib"]);
        // What is before and after the star does not overlap.
        assert_eq!(fitting(&paths, "ab", "b"), [""; 0]);
    }
}

//! Where a result appears: whole, or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// What the folder of an unfinished result is called: the name of the result between these.
const UNFINISHED: (&str, &str) = (".", ".unfinished");
/// In a mounted folder, a whole result whose entries are being moved up: what else is there is of it.
const MOVING: &str = ".moving";
/// What of a Zarr store is moved last, so that a store without it is not taken for one.
const ROOT_METADATA: [&str; 4] = [".zgroup", ".zattrs", ".zmetadata", "zarr.json"];

/// A result under way: written beside its place and renamed when it is whole, so that who is killed leaves
/// nothing under its name. In a container its place is a mounted, empty folder, which cannot be renamed: there
/// it is written inside, and moved up when it is whole.
#[derive(Debug)]
pub struct Target {
    place: PathBuf,
    unfinished: PathBuf,
    is_mounted: bool,
}

impl Target {
    /// Begins a result at `place`; what an earlier attempt left unfinished there is removed.
    ///
    /// # Errors
    /// [`Error::Exists`] if something is there, [`Error::Write`].
    pub fn begin(place: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write {
            path: place.to_owned(),
            source,
        };
        let is_mounted = place.is_dir();
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = match is_mounted {
            true => place.join(UNFINISHED.1),
            false => place.with_file_name(format!("{}{name}{}", UNFINISHED.0, UNFINISHED.1)),
        };
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        if is_mounted && place.join(MOVING).is_dir() {
            // Killed on the way: the next one is the same.
            for entry in fs::read_dir(place).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                if path.file_name() != Some(MOVING.as_ref()) {
                    remove(&path).map_err(failed)?;
                }
            }
            fs::remove_dir_all(place.join(MOVING)).map_err(failed)?;
        }
        let taken = match is_mounted {
            true => fs::read_dir(place).map_err(failed)?.next().is_some(),
            false => place.symlink_metadata().is_ok(),
        };
        if taken {
            return Err(Error::Exists(place.to_owned()));
        }
        fs::create_dir_all(&unfinished).map_err(failed)?;
        Ok(Self {
            place: place.to_owned(),
            unfinished,
            is_mounted,
        })
    }

    /// The folder that it is written into.
    pub fn folder(&self) -> &Path {
        &self.unfinished
    }

    /// It is whole: from now on it is in its place.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish(self) -> Result<(), Error> {
        let failed = |source| Error::Write {
            path: self.place.clone(),
            source,
        };
        if !self.is_mounted {
            return fs::rename(&self.unfinished, &self.place).map_err(failed);
        }
        let moving = self.place.join(MOVING);
        fs::rename(&self.unfinished, &moving).map_err(failed)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(&moving).map_err(failed)? {
            entries.push(entry.map_err(failed)?.file_name());
        }
        let is_root = |name: &std::ffi::OsString| ROOT_METADATA.iter().any(|root| name == *root);
        entries.sort_by_key(|name| (is_root(name), name.clone()));
        for name in entries {
            let to = self.place.join(&name);
            fs::rename(moving.join(name), to).map_err(failed)?;
        }
        fs::remove_dir(&moving).map_err(failed)
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata()?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.zarr");
        let target = Target::begin(&place).unwrap();
        fs::write(target.folder().join("zarr.json"), "{}").unwrap();
        assert!(!place.exists());
        target.finish().unwrap();
        assert!(place.join("zarr.json").is_file());
        assert!(matches!(Target::begin(&place), Err(Error::Exists(_))));
    }

    #[test]
    fn a_mounted_folder_is_filled_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        // Killed once:
        let left = Target::begin(place).unwrap();
        fs::write(left.folder().join("zarr.json"), "half").unwrap();
        let target = Target::begin(place).unwrap();
        fs::create_dir(target.folder().join("t2m")).unwrap();
        fs::write(target.folder().join("zarr.json"), "{}").unwrap();
        target.finish().unwrap();
        assert_eq!(fs::read_to_string(place.join("zarr.json")).unwrap(), "{}");
        assert_eq!(fs::read_dir(place).unwrap().count(), 2);
    }

    #[test]
    fn who_was_killed_while_a_mounted_folder_was_filled_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        // Half of it was moved.
        fs::create_dir_all(place.join(MOVING).join("u10")).unwrap();
        fs::create_dir(place.join("t2m")).unwrap();
        fs::write(place.join("report.json"), "old").unwrap();
        let target = Target::begin(place).unwrap();
        fs::write(target.folder().join("zarr.json"), "{}").unwrap();
        target.finish().unwrap();
        let names = fs::read_dir(place).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["zarr.json"]);
        // What nobody of us was filling stays as it is.
        assert!(matches!(Target::begin(place), Err(Error::Exists(_))));
    }
}

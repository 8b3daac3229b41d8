//! Where an output is written until it is complete.

use std::fs;
use std::path::{Path, PathBuf};

use crate::RunnerError;

/// What an incomplete output is called.
const PARTIAL: &str = ".mlwm-partial";

/// Metadata of a Zarr group: once it is there, readers can open the store.
const GROUP_METADATA: [&str; 4] = [".zattrs", ".zgroup", ".zmetadata", "zarr.json"];

/// The place of an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it belongs.
    path: PathBuf,
    /// Where it is written.
    pub(crate) partial: PathBuf,
    /// Whether `path` is a folder that exists, such as a mount, and cannot be replaced.
    is_folder: bool,
}

impl Place {
    /// Finds a place for an output and removes what an interrupted run left of it.
    ///
    /// # Errors
    /// [`RunnerError::Occupied`] if there is something at `path`; an empty folder is fine.
    pub(crate) fn find(output: &str, path: &Path) -> Result<Self, RunnerError> {
        let failed = |error: std::io::Error| write_error(output, path, &error);
        let is_folder = path.exists();
        let partial = if is_folder {
            let entries = fs::read_dir(path).map_err(failed)?;
            if entries.flatten().any(|entry| entry.file_name() != PARTIAL) {
                return Err(RunnerError::Occupied {
                    path: path.to_owned(),
                });
            }
            path.join(PARTIAL)
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.with_file_name(format!(".{name}{PARTIAL}"))
        };
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(failed)?;
        }
        Ok(Self {
            path: path.to_owned(),
            partial,
            is_folder,
        })
    }

    /// Brings the complete store to where it belongs, its group metadata last.
    pub(crate) fn complete(&self, output: &str) -> Result<(), RunnerError> {
        let failed = |error: std::io::Error| write_error(output, &self.path, &error);
        if !self.is_folder {
            return fs::rename(&self.partial, &self.path).map_err(failed);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.partial).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort_by_key(|name| GROUP_METADATA.iter().position(|metadata| name == metadata));
        for name in names {
            fs::rename(self.partial.join(&name), self.path.join(&name)).map_err(failed)?;
        }
        fs::remove_dir(&self.partial).map_err(failed)
    }
}

fn write_error(output: &str, path: &Path, error: &std::io::Error) -> RunnerError {
    RunnerError::Write {
        output: output.to_owned(),
        reason: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(place: &Place) {
        fs::create_dir_all(place.partial.join("t2m")).unwrap();
        fs::write(place.partial.join("t2m/zarr.json"), "{}").unwrap();
        fs::write(place.partial.join("zarr.json"), "{}").unwrap();
    }

    #[test]
    fn an_output_appears_at_once_beside_or_inside() {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("mounted.zarr");
        fs::create_dir(&mounted).unwrap();
        for path in [folder.path().join("new.zarr"), mounted] {
            // A run before was interrupted.
            let place = Place::find("out", &path).unwrap();
            store(&place);
            let place = Place::find("out", &path).unwrap();
            assert!(!place.partial.exists());
            store(&place);
            assert!(!path.join("zarr.json").exists());
            place.complete("out").unwrap();
            assert!(path.join("zarr.json").is_file() && path.join("t2m/zarr.json").is_file());
            assert!(!place.partial.exists());
            assert!(matches!(
                Place::find("out", &path),
                Err(RunnerError::Occupied { .. })
            ));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

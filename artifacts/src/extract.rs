//! Unpacking an artifact into a folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::Artifact;
use crate::error::{Error, io_error};

impl Artifact {
    /// Unpacks everything into `folder`, which is made if it is not there. Sizes and hashes are
    /// checked while writing; existing files are never touched.
    pub fn extract_to(&self, folder: &Path) -> Result<(), Error> {
        for entry in self.files() {
            self.extract_member(&entry.path, folder)?;
        }
        Ok(())
    }

    /// Unpacks only the file or folder `prefix` (`stats`, `configs/config.yaml`), under the names
    /// that it has in the artifact.
    pub fn extract_prefix(&self, prefix: &str, folder: &Path) -> Result<(), Error> {
        let prefix = prefix.trim_end_matches('/');
        let inside = |path: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut found = false;
        for entry in self.files().iter().filter(|entry| inside(&entry.path)) {
            found = true;
            self.extract_member(&entry.path, folder)?;
        }
        if found {
            Ok(())
        } else {
            Err(Error::NoMember {
                path: self.path().to_owned(),
                member: prefix.to_owned(),
                hint: "",
            })
        }
    }

    fn extract_member(&self, member: &str, folder: &Path) -> Result<(), Error> {
        let mut reader = self.reader(member)?;
        let target = make_parents(folder, member)?;
        let mut file = File::create_new(&target).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::InTheWay {
                path: target.clone(),
            },
            _ => io_error("create", &target)(source),
        })?;
        io::copy(&mut reader, &mut file).map_err(|error| {
            // What did not verify must not be left for others to find.
            let _ = fs::remove_file(&target);
            match error.downcast::<Error>() {
                Ok(ours) => ours,
                Err(source) => io_error("unpack to", &target)(source),
            }
        })?;
        Ok(())
    }
}

/// Makes the folders of `member` below `folder` and gives the path of the file. Each must be a
/// real folder: through a link, a file would land outside.
fn make_parents(folder: &Path, member: &str) -> Result<PathBuf, Error> {
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let mut path = folder.to_owned();
    let mut parts = member.split('/').peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        if parts.peek().is_none() {
            break;
        }
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let kind = fs::symlink_metadata(&path).map_err(io_error("open", &path))?;
                if !kind.is_dir() {
                    return Err(Error::InTheWay { path });
                }
            }
            Err(error) => return Err(io_error("create", path)(error)),
        }
    }
    Ok(path)
}

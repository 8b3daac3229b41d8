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

    /// Unpacks only what the patterns name, under the names that it has in the artifact. A pattern
    /// is a file (`artifact.yaml`) or a folder (`stats`, `stats/`); `*` in it stands for any letters
    /// but `/`. Each pattern must name something.
    pub fn extract_only<P: AsRef<str>>(&self, folder: &Path, patterns: &[P]) -> Result<(), Error> {
        let mut used = vec![false; patterns.len()];
        let mut wanted = Vec::new();
        for entry in self.files() {
            let mut is_wanted = false;
            for (pattern, used) in patterns.iter().zip(&mut used) {
                let named = names(pattern.as_ref().trim_end_matches('/'), &entry.path);
                *used |= named;
                is_wanted |= named;
            }
            if is_wanted {
                wanted.push(&entry.path);
            }
        }
        if let Some((pattern, _)) = patterns.iter().zip(used).find(|(_, used)| !used) {
            return Err(self.no_member(pattern.as_ref(), ""));
        }
        for member in wanted {
            self.extract_member(member, folder)?;
        }
        Ok(())
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

/// Whether a pattern names this file or a folder above it.
fn names(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    pattern
        .split('/')
        .all(|pattern| parts.next().is_some_and(|part| matches(pattern, part)))
}

/// Whether `*` in the pattern can stand for letters so that the name results.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut name) = name.strip_suffix(end) else {
        return false;
    };
    // The first place where a part fits leaves most room for the others.
    for part in middle.split('*') {
        match name.split_once(part) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_and_folders() {
        let path = "stats/danra.datastore.stats.zarr/zarr.json";
        for pattern in [
            "stats",
            "stats/danra.datastore.stats.zarr",
            path,
            "*",
            "stats/*.zarr",
            "*/*/zarr.json",
            "s*s/d*.*.z*r/*.json",
            "stats/**",
        ] {
            assert!(names(pattern, path), "{pattern}");
        }
        for pattern in [
            "",
            "stat",
            "tats",
            "*/zarr.json",
            "stats/*.json",
            "s*st*s/*",
            "stats/*/x*",
        ] {
            assert!(!names(pattern, path), "{pattern}");
        }
        assert!(matches("a*a", "aa") && !matches("a*a", "a") && !matches("*ab*b", "ab"));
    }
}

//! Unpacking an artifact into a folder.
//!
//! Files are unpacked in a workplace, checked and flushed to disk, and get their names when all of
//! them are whole: a new folder at once, in a folder that is there one file after the other. What
//! was unpacked when a process was killed is taken up by the next one.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::artifact::Artifact;
use crate::error::{Error, io_error};
use crate::hashing::digest_of;
use crate::record::FileEntry;
use crate::workplace::{Workplace, beside, make_folder, parent, sync_folder};

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

impl Artifact {
    /// Unpacks everything into `folder`, which is made if it is not there. Sizes and hashes are
    /// checked before any file gets its name. A file that is there stays as it is: one with other
    /// contents is an error, the same one is not.
    pub fn extract_to(&self, folder: &Path) -> Result<(), Error> {
        self.extract_unless(folder, &[], &|| false)
    }

    /// Unpacks only what the patterns name, under the names that it has in the artifact. A pattern
    /// is a file (`artifact.yaml`) or a folder (`stats`, `stats/`); `*` in it stands for any letters
    /// but `/`. Each pattern must name something.
    pub fn extract_only<P: AsRef<str>>(&self, folder: &Path, patterns: &[P]) -> Result<(), Error> {
        let wanted = self.named(patterns)?;
        self.extract(&wanted, folder, Access::Writable, &|| false)
    }

    /// Unpacks what the patterns name, or everything if there are none, unless it is called off
    /// meanwhile: then the same call goes on from there.
    pub fn extract_unless(
        &self,
        folder: &Path,
        patterns: &[String],
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        match patterns {
            [] => self.extract(&self.all(), folder, Access::Writable, is_stopped),
            patterns => self.extract(&self.named(patterns)?, folder, Access::Writable, is_stopped),
        }
    }

    /// The same with everything, of which each file may only be read.
    pub(crate) fn extract_read_only(
        &self,
        folder: &Path,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.extract(&self.all(), folder, Access::ReadOnly, is_stopped)
    }

    /// Unpacks one folder into a scratch folder of the caller's, which nobody else sees and which
    /// need not outlive a crash.
    pub(crate) fn extract_scratch(&self, scratch: &Path, pattern: &str) -> Result<(), Error> {
        for entry in self.named(&[pattern])? {
            self.unpack(entry, scratch, &|| false)?;
        }
        Ok(())
    }

    fn all(&self) -> Vec<&FileEntry> {
        self.files().iter().collect()
    }

    /// The files that the patterns name.
    fn named<P: AsRef<str>>(&self, patterns: &[P]) -> Result<Vec<&FileEntry>, Error> {
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
                wanted.push(entry);
            }
        }
        match patterns.iter().zip(used).find(|(_, used)| !used) {
            Some((pattern, _)) => Err(Error::NothingNamed {
                path: self.path().to_owned(),
                pattern: pattern.as_ref().to_owned(),
            }),
            None => Ok(wanted),
        }
    }

    fn extract(
        &self,
        wanted: &[&FileEntry],
        folder: &Path,
        access: Access,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let (workplace, is_new) = workplace(folder)?;
        let staged = workplace.path("files");
        let missing = missing(wanted, folder)?;
        let done = self
            .stage(&missing, &staged, is_stopped)
            .and_then(|()| match access {
                Access::Writable => Ok(()),
                Access::ReadOnly => protect(&missing, &staged),
            })
            .and_then(|()| put_in_place(&missing, &staged, folder, is_new));
        // What was called off, or failed for reasons outside the artifact, is taken up again.
        if !matches!(done, Err(Error::Interrupted { .. } | Error::Io { .. })) {
            let _ = fs::remove_dir_all(&staged);
        }
        done
    }

    /// Unpacks what a run before this one has not unpacked, and flushes it to disk.
    fn stage(
        &self,
        missing: &[&FileEntry],
        staged: &Path,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let names: BTreeSet<&str> = missing.iter().map(|entry| &*entry.path).collect();
        clear_others(staged, "", &names)?;
        for entry in missing {
            if let Some(path) = find(staged, &entry.path)? {
                if entry.sha256.is_some() && is_whole(&path, entry)? {
                    continue;
                }
                fs::remove_file(&path).map_err(io_error("remove", path))?;
            }
            self.unpack(entry, staged, is_stopped)
                .and_then(|file| file.sync_all().map_err(io_error("write", staged)))
                .map_err(|error| match is_stopped() {
                    // Of reading from a registry, too.
                    true => Error::Interrupted {
                        path: staged.to_owned(),
                    },
                    false => error,
                })?;
        }
        sync_folders(missing, staged)
    }

    /// Writes a file below `folder`, where it is not yet.
    fn unpack(
        &self,
        entry: &FileEntry,
        folder: &Path,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<File, Error> {
        let mut reader = self.reader(&entry.path)?;
        let target = make_parents(folder, &entry.path)?;
        let mut file = File::create_new(&target).map_err(io_error("create", &target))?;
        let mut piece = vec![
            0;
            PIECE
                .min(usize::try_from(entry.size).unwrap_or(PIECE))
                .max(1)
        ];
        loop {
            if is_stopped() {
                return Err(Error::Interrupted { path: target });
            }
            match reader.read(&mut piece) {
                Ok(0) => return Ok(file),
                Ok(read) => file
                    .write_all(&piece[..read])
                    .map_err(io_error("unpack to", &target))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        }
    }
}

/// What may be done with files that were unpacked.
#[derive(Clone, Copy)]
enum Access {
    Writable,
    ReadOnly,
}

/// Takes the right to write to these files from everybody.
fn protect(entries: &[&FileEntry], staged: &Path) -> Result<(), Error> {
    entries.iter().try_for_each(|entry| {
        let path = staged.join(&entry.path);
        fs::set_permissions(&path, Permissions::from_mode(0o444)).map_err(io_error("write", path))
    })
}

/// Where the files for `folder` are unpacked, and whether the folder is new: beside one that is, so
/// that it can appear at once; in one that is there, since it may be a file system of its own.
fn workplace(folder: &Path) -> Result<(Workplace, bool), Error> {
    let is_new = fs::symlink_metadata(folder).is_err();
    let (place, parent, is_new) = match beside(folder, "extracting") {
        Some(place) if is_new => (place, parent(folder), true),
        _ => (folder.join(".extracting"), folder, false),
    };
    fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    Ok((Workplace::enter(place)?, is_new))
}

/// What is not in the folder yet. Something else in the place of a file is an error.
fn missing<'a>(wanted: &[&'a FileEntry], folder: &Path) -> Result<Vec<&'a FileEntry>, Error> {
    let mut missing = Vec::new();
    for entry in wanted {
        match find(folder, &entry.path)? {
            Some(path) if !is_whole(&path, entry)? => return Err(Error::InTheWay { path }),
            // Of the same size, but of unknown contents: told when it has been unpacked.
            Some(_) if entry.sha256.is_none() => missing.push(*entry),
            Some(_) => {}
            None => missing.push(entry),
        }
    }
    Ok(missing)
}

/// The path of `member` below `folder`, if it is there: a file, in real folders.
fn find(folder: &Path, member: &str) -> Result<Option<PathBuf>, Error> {
    let mut path = folder.to_owned();
    let mut parts = member.split('/').peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", path)(error)),
        };
        let is_expected = match parts.peek() {
            Some(_) => found.is_dir(),
            None => found.is_file(),
        };
        if !is_expected {
            return Err(Error::InTheWay { path });
        }
    }
    Ok(Some(path))
}

/// Removes what another call, of other files or of another artifact, has left below `folder`.
fn clear_others(folder: &Path, prefix: &str, names: &BTreeSet<&str>) -> Result<(), Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io_error("read", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(io_error("read", folder))?;
        let (path, name) = (
            entry.path(),
            format!("{prefix}{}", entry.file_name().to_string_lossy()),
        );
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            clear_others(&path, &format!("{name}/"), names)?;
            // One that is not empty stays.
            let _ = fs::remove_dir(&path);
        } else if !names.contains(&*name) {
            fs::remove_file(&path).map_err(io_error("remove", path))?;
        }
    }
    Ok(())
}

/// Whether a file has the size, and the hash if there is one, that are recorded.
fn is_whole(path: &Path, entry: &FileEntry) -> Result<bool, Error> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let size = file.metadata().map_err(io_error("open", path))?.len();
    Ok(size == entry.size
        && match entry.sha256 {
            Some(sha256) => digest_of(file).map_err(io_error("read", path))? == sha256,
            None => true,
        })
}

/// Gives everything that was staged its name.
fn put_in_place(
    missing: &[&FileEntry],
    staged: &Path,
    folder: &Path,
    is_new: bool,
) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    // Somebody may have made it meanwhile: a folder with anything in it is not replaced.
    if is_new && fs::rename(staged, folder).is_ok() {
        return sync_folder(parent(folder));
    }
    for entry in missing {
        let target = make_parents(folder, &entry.path)?;
        give_name(&staged.join(&entry.path), &target)?;
    }
    sync_folders(missing, folder)
}

/// Renames a file; another one that has the name already must be the same.
fn give_name(staged: &Path, target: &Path) -> Result<(), Error> {
    let digest = |path: &Path| {
        File::open(path)
            .and_then(digest_of)
            .map_err(io_error("read", path))
    };
    let temporary = TempPath::try_from_path(staged).map_err(io_error("open", staged))?;
    let Err(failed) = temporary.persist_noclobber(target) else {
        return Ok(());
    };
    // It stays where it is if it cannot be renamed.
    let _ = failed.path.keep();
    if failed.error.kind() != io::ErrorKind::AlreadyExists {
        return Err(io_error("write", target)(failed.error));
    }
    let is_file = fs::symlink_metadata(target).is_ok_and(|found| found.is_file());
    if is_file && digest(staged)? == digest(target)? {
        return Ok(());
    }
    Err(Error::InTheWay {
        path: target.to_owned(),
    })
}

/// Flushes the names of these files to disk.
fn sync_folders(entries: &[&FileEntry], folder: &Path) -> Result<(), Error> {
    let mut folders = BTreeSet::new();
    for entry in entries {
        let above = Path::new(&entry.path).ancestors().skip(1);
        folders.extend(above.map(|above| folder.join(above)));
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

/// Makes the folders of `member` below `folder` and gives the path of the file. Each must be a
/// real folder: through a link, a file would land outside.
fn make_parents(folder: &Path, member: &str) -> Result<PathBuf, Error> {
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let mut path = folder.to_owned();
    let mut parts = member.split('/').peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        if parts.peek().is_some() {
            make_folder(&path)?;
        }
    }
    Ok(path)
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

//! Artifacts that are unpacked into a folder and used from there, as by a container that it is mounted
//! into: each file is verified before.
//!
//! The receipt of such a folder says what each of its files was like when all were found to be those of
//! the artifact (see [`crate::receipt`]). What has changed since then is hashed again, and what has
//! not is looked at only.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mlwm_spec::Digest;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::error::{Error, io_error};
use crate::hashing::digest_of;
use crate::receipt::{Receipts, State, hash, hash_unchanged};
use crate::record::FileEntry;

#[cfg(test)]
mod tests;

/// Files of this size or larger are read by one thread and hashed by another.
const BIG: u64 = 1 << 20;

/// What the files of a folder were like when they were found to be those of an artifact.
#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    /// Of the names, sizes and hashes that the artifact records.
    index: Digest,
    files: BTreeMap<String, State>,
}

impl Artifact {
    /// Unpacks everything into the new folder `folder`, read-only. The folder appears when it is
    /// whole and on the disk. What a process that was killed, or `is_stopped` meanwhile, has unpacked
    /// is taken up by the next call. Each file is verified while it is unpacked, and need not be again.
    pub fn unpack_into(
        &self,
        folder: &Path,
        receipts: &Receipts,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.extract_read_only(folder, is_stopped)?;
        if let Some(files) = states(folder)?
            && receipts.has_settled(files.values())
        {
            let index = self.index();
            receipts.note_folder(folder, &Receipt { index, files });
        }
        Ok(())
    }

    /// Whether `folder` holds all files of the artifact, each as it was packed, and nothing else. Those
    /// that have changed since they were verified are hashed, all of them if there is no receipt.
    pub fn is_unpacked_in(&self, folder: &Path, receipts: &Receipts) -> Result<bool, Error> {
        let Some(found) = states(folder)? else {
            return Ok(false);
        };
        let entries = self.files();
        let is_there = |entry: &FileEntry| {
            let state = found.get(&entry.path);
            state.is_some_and(|state| state.size == entry.size)
        };
        if found.len() != entries.len() || !entries.iter().all(is_there) {
            return Ok(false);
        }
        let index = self.index();
        let known = receipts.of_folder::<Receipt>(folder);
        let known = known.filter(|receipt| receipt.index == index);
        let known = known.map(|receipt| receipt.files).unwrap_or_default();
        if known == found {
            return Ok(true);
        }
        let has_settled = receipts.has_settled(found.values());
        let mut files = BTreeMap::new();
        for entry in entries {
            let state = found[&entry.path];
            if known.get(&entry.path) != Some(&state) && !self.is_same(entry, folder, &state)? {
                return Ok(false);
            }
            files.insert(entry.path.clone(), state);
        }
        if has_settled {
            receipts.note_folder(folder, &Receipt { index, files });
        }
        Ok(true)
    }

    /// Whether a file of the folder has the bytes of the artifact, and still the state that was found.
    fn is_same(&self, entry: &FileEntry, folder: &Path, found: &State) -> Result<bool, Error> {
        let expected = match entry.sha256 {
            Some(sha256) => sha256,
            // An artifact of the original project, which records no hashes.
            None => digest_of(self.reader(&entry.path)?).map_err(|error| self.read_error(error))?,
        };
        let path = folder.join(&entry.path);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(io_error("open", &path))?,
        };
        // Bytes that were written through a mapping and are not on the disk have told no time yet.
        let synced = file.sync_all();
        let hashed = synced.and_then(|()| {
            hash_unchanged(&file, |file| match entry.size < BIG {
                true => whole(file),
                false => hash(file),
            })
        });
        let hashed = hashed.map_err(io_error("read", path))?;
        Ok(hashed.digest == expected && hashed.state == *found)
    }

    /// Digest of what the artifact says of its files: names, sizes and hashes.
    pub fn index(&self) -> Digest {
        let entry = |entry: &FileEntry| {
            let sha256 = entry.sha256.map(|digest| digest.to_string());
            (entry.path.clone(), entry.size, sha256)
        };
        let entries: Vec<_> = self.files().iter().map(entry).collect();
        Digest::of(serde_json::json!(entries).to_string())
    }
}

/// SHA-256 of a small file.
fn whole(mut file: &File) -> io::Result<Digest> {
    io::Seek::rewind(&mut file)?;
    digest_of(file)
}

/// All files below a folder. `None` if it is not there, or anything but files and folders is in it.
fn states(folder: &Path) -> Result<Option<BTreeMap<String, State>>, Error> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", folder)(error)),
    }
    let mut states = BTreeMap::new();
    match collect(folder, "", &mut states) {
        Ok(true) => Ok(Some(states)),
        Ok(false) => Ok(None),
        // It is being removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", folder)(error)),
    }
}

/// Adds the files of a folder; false for anything else.
fn collect(folder: &Path, prefix: &str, states: &mut BTreeMap<String, State>) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            return Ok(false);
        };
        let (name, metadata) = (format!("{prefix}{name}"), entry.metadata()?);
        if metadata.is_dir() {
            if !collect(&entry.path(), &format!("{name}/"), states)? {
                return Ok(false);
            }
        } else if metadata.is_file() {
            states.insert(name, State::of(&metadata));
        } else {
            return Ok(false);
        }
    }
    Ok(true)
}

//! What a later process must know to continue an upload.
//!
//! One file for each (target, content), in JSON lines: the first is the state the upload was begun
//! with, the others are notes appended since. It may hold the URL of an upload session, which is a
//! capability: files are for the user's eyes only, and their content is never told.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use mlwm_spec::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::download::open_locked;
use crate::Error;

/// The folder of the journals of this user's uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journals {
    folder: PathBuf,
}

impl Journals {
    /// `mlwm/transfers` in `XDG_CACHE_HOME`, else in `~/.cache`.
    pub fn default_folder() -> Result<Self, Error> {
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let cache = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .ok_or_else(|| Error::Settings {
                reason: "neither XDG_CACHE_HOME nor HOME is an absolute path: set one, so that \
                         transfers can be continued"
                    .to_owned(),
            })?;
        Ok(Self::at(cache.join("mlwm/transfers")))
    }

    /// In this folder, which is made when it is needed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The journal of bringing the content with this fingerprint to `target`, held against other
    /// processes until it is dropped.
    pub(crate) fn open(&self, target: &str, fingerprint: &str) -> Result<Journal, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(Error::local("create the folder", &self.folder))?;
        let name = Digest::of(format!("{target}\n{fingerprint}")).hex();
        let path = self.folder.join(format!("{}.json", &name[..32]));
        let lock_path = path.with_extension("lock");
        let lock = open_locked(target, &lock_path)?;
        Ok(Journal {
            path,
            lock_path,
            _lock: lock,
        })
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// The journal of one upload.
pub(crate) struct Journal {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Journal {
    /// What an earlier process began, and its notes; `None` if there is nothing to continue. A
    /// note that was torn off is removed, and so is everything after it, so that notes can follow.
    pub(crate) fn read<S: DeserializeOwned, N: DeserializeOwned>(
        &self,
    ) -> Result<Option<(S, Vec<N>)>, Error> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::local("read", &self.path)(error)),
        };
        let mut lines = text
            .split_inclusive('\n')
            .take_while(|line| line.ends_with('\n'));
        let first = lines.next().unwrap_or_default();
        // Of another version, or damaged when the machine stopped: it is begun anew.
        let Ok(state) = serde_json::from_str(first) else {
            return Ok(None);
        };
        let mut good = first.len();
        let mut notes = Vec::new();
        for line in lines {
            let Ok(note) = serde_json::from_str(line) else {
                break;
            };
            good += line.len();
            notes.push(note);
        }
        if good < text.len() {
            self.cut(good as u64)?;
        }
        Ok(Some((state, notes)))
    }

    fn cut(&self, length: u64) -> Result<(), Error> {
        let file = OpenOptions::new().write(true).open(&self.path);
        file.and_then(|file| file.set_len(length))
            .map_err(Error::local("write", &self.path))
    }

    /// Writes the state an upload is begun with, in place of everything before.
    pub(crate) fn begin(&self, state: &impl Serialize) -> Result<(), Error> {
        let arriving = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = private().create(true).truncate(true).open(&arriving)?;
            file.write_all(&line(state)?)?;
            file.sync_all()?;
            std::fs::rename(&arriving, &self.path)
        };
        write().map_err(Error::local("write", &self.path))
    }

    /// Appends a note.
    pub(crate) fn note(&self, note: &impl Serialize) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).open(&self.path)?;
            file.write_all(&line(note)?)
        };
        write().map_err(Error::local("write", &self.path))
    }

    /// Forgets what was begun: it cannot be continued.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        crate::local::remove(&self.path)
    }

    /// Removes it: the upload is complete, or is no longer to be continued.
    pub(crate) fn finish(self) -> Result<(), Error> {
        for path in [&self.path, &self.lock_path] {
            crate::local::remove(path)?;
        }
        Ok(())
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_journal_is_private_held_and_continued() {
        let folder = tempfile::tempdir().unwrap();
        let journals = Journals::at(folder.path().join("transfers"));
        let journal = journals.open("s3://b/k", "file 1").unwrap();
        assert_eq!(journal.read::<String, u32>().unwrap(), None);
        let busy = journals.open("s3://b/k", "file 1").map(|_| ()).unwrap_err();
        assert!(matches!(busy, Error::TransferBusy { .. }), "{busy}");
        let other = journals.open("s3://b/k", "file 2").unwrap();
        other.finish().unwrap();

        journal.begin(&"session").unwrap();
        journal.note(&1).unwrap();
        journal.note(&2).unwrap();
        let found = journal.read::<String, u32>().unwrap();
        assert_eq!(found, Some(("session".to_owned(), vec![1, 2])));
        let mode = std::fs::metadata(&journal.path)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        // As if killed while the third note was written.
        let mut file = OpenOptions::new().append(true).open(&journal.path).unwrap();
        file.write_all(b"3").unwrap();
        let path = journal.path.clone();
        drop(journal);
        let journal = journals.open("s3://b/k", "file 1").unwrap();
        let found = journal.read::<String, u32>().unwrap();
        assert_eq!(found, Some(("session".to_owned(), vec![1, 2])));
        // What is noted now is not lost behind the torn note.
        journal.note(&4).unwrap();
        let found = journal.read::<String, u32>().unwrap();
        assert_eq!(found, Some(("session".to_owned(), vec![1, 2, 4])));

        std::fs::write(&path, "{\"of\": \"another version\"}\n").unwrap();
        assert_eq!(journal.read::<String, u32>().unwrap(), None);
        journal.finish().unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path().join("transfers"))
                .unwrap()
                .count(),
            0
        );
    }
}

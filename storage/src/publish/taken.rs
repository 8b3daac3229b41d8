//! Notes of what a store has taken of a publication, with which one that was killed goes on.
//!
//! One line of JSON for each object: its path, size and SHA-256, and the version that the store gave it. A
//! note counts as long as the store lists the object with this size and version, and the local file still has
//! that SHA-256; everything else is sent again. So what a line says can be old, torn or missing, and nobody
//! waits for the disk to have it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mlwm_spec::manifest::ObjectRecord;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Sent;
use crate::stage::hash_file;
use crate::tree::LocalFile;
use crate::{Error, Listed, Uri, pool};

/// What earlier attempts at a publication brought, and what this one brings.
#[derive(Debug, Default)]
pub(super) struct Taken {
    notes: Option<PathBuf>,
    /// Opened with the first note.
    file: Mutex<Option<File>>,
    /// By path.
    known: Mutex<BTreeMap<String, Note>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    object: ObjectRecord,
    version: String,
}

impl Taken {
    /// What the file `notes` says, if there is one.
    pub(super) async fn read(uri: &Uri, notes: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = notes.map(Path::to_owned) else {
            return Ok(Self::default());
        };
        pool::blocking(uri, move || {
            let text = std::fs::read(&path).unwrap_or_default();
            let notes = text
                .split(|byte| *byte == b'\n')
                .filter_map(|line| serde_json::from_slice::<Note>(line).ok());
            let known = notes.map(|note| (note.object.path.clone(), note)).collect();
            Ok(Self {
                notes: Some(path),
                file: Mutex::default(),
                known: Mutex::new(known),
            })
        })
        .await
    }

    /// Whether the store lists an object as it took it.
    pub(super) fn has(&self, listed: &Listed) -> bool {
        is_as_noted(&self.known(), listed)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Note>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all but these: what is not in the store any more, or is something else.
    pub(super) fn keep(&mut self, listed: &[Listed]) {
        let mut known = self.known();
        let noted = std::mem::take(&mut *known);
        let is_there = |path: &str| {
            let found = listed.binary_search_by(|listed| listed.path.as_str().cmp(path));
            found.is_ok_and(|index| is_as_noted(&noted, &listed[index]))
        };
        let there = noted.iter().filter(|(path, _)| is_there(path));
        *known = there
            .map(|(path, note)| (path.clone(), note.clone()))
            .collect();
    }

    /// The objects that the store has taken.
    pub(super) fn names(&self) -> Vec<String> {
        self.known().keys().cloned().collect()
    }

    /// What the store has taken that is this object.
    pub(super) fn sent(&self, object: &ObjectRecord) -> Option<Sent> {
        let known = self.known();
        let note = known.get(&object.path)?;
        (note.object == *object).then(|| (note.object.clone(), Some(note.version.clone())))
    }

    /// What the store has of this file, if it is what the file holds.
    pub(super) async fn find(
        &self,
        uri: &Uri,
        file: &LocalFile,
        cancel: &CancellationToken,
    ) -> Result<Option<Sent>, Error> {
        let known = self.known().get(&file.name).cloned();
        let Some(known) = known.filter(|note| note.object.size == file.size) else {
            return Ok(None);
        };
        let sent = (known.object, Some(known.version));
        let (path, called, cancel) = (file.path.clone(), uri.clone(), cancel.clone());
        pool::blocking(uri, move || {
            let sha256 = hash_file(&called, &path, &|_| (), &cancel)?;
            Ok((sha256 == sent.0.sha256).then_some(sent))
        })
        .await
    }

    /// Notes that the store has taken an object. That it cannot be noted, on a full disk, keeps nobody from
    /// publishing.
    pub(super) fn note(&self, (object, version): &Sent) {
        let (Some(path), Some(version)) = (&self.notes, version) else {
            return;
        };
        let note = Note {
            object: object.clone(),
            version: version.to_owned(),
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = open(path).ok();
        }
        if let (Some(file), Ok(mut line)) = (file.as_mut(), serde_json::to_vec(&note)) {
            line.push(b'\n');
            let _ = file.write_all(&line);
        }
        drop(file);
        // The same publication may try again, too.
        self.known().insert(object.path.clone(), note);
    }
}

fn is_as_noted(known: &BTreeMap<String, Note>, listed: &Listed) -> bool {
    known
        .get(&listed.path)
        .is_some_and(|note| note.object.size == listed.size && note.version == listed.version())
}

/// Opens a file to write lines behind those that are there, of which the last may be torn.
fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options.create(true).read(true).append(true).open(path)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

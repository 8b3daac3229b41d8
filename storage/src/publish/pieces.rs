//! A publication whose objects come little by little: the windows of a forecast, while its model still runs.

use std::path::Path;
use std::sync::Arc;

use mlwm_spec::manifest::ObjectRecord;
use mlwm_spec::{Digest, Manifest};
use tokio_util::sync::CancellationToken;

use super::marker::Marker;
use super::taken::Taken;
use super::{Published, Sent};
use crate::points::reach;
use crate::tree::LocalFile;
use crate::verify::Differences;
use crate::{Error, Progress, Store, Uri, pool};

/// A publication that is under way: nobody sees it before [`Publishing::finish`]. If it is dropped, what was
/// sent is leftovers, of which the next publication to the same place keeps what is noted and still the same.
#[derive(Debug)]
pub struct Publishing {
    store: Store,
    uri: Uri,
    task: Digest,
    marker: Marker,
    taken: Arc<Taken>,
    sent: Vec<Sent>,
}

impl Store {
    /// Begins a publication at `uri`: steps 1 to 4 of the protocol. In the file `notes` it is noted what the store
    /// has taken, as for [`Source`](super::Source).
    ///
    /// # Errors
    /// If something is published there, also by the same task; if foreign objects lie there; if the store
    /// fails.
    pub async fn begin(
        &self,
        uri: &Uri,
        task: Digest,
        notes: Option<&Path>,
        cancel: &CancellationToken,
    ) -> Result<Publishing, Error> {
        if uri.is_root() {
            return Err(Error::InvalidUri {
                uri: uri.to_string(),
                reason: "an output needs a name below the bucket or root folder".to_owned(),
            });
        }
        let progress = Progress::none();
        let work = self.publication(uri, task, &progress, cancel);
        if let Some(theirs) = self.manifest(uri).await? {
            return Err(occupied(uri, &theirs));
        }
        let marker = pool::unless_cancelled(uri, cancel, work.mark()).await?;
        if let Some(theirs) = self.manifest(uri).await? {
            return Err(occupied(uri, &theirs));
        }
        reach("publish: marked");
        let mut taken = Taken::read(uri, notes).await?;
        taken.keep(&work.clear(&marker, |left| taken.has(left)).await?);
        reach("publish: cleared");
        Ok(Publishing {
            store: self.clone(),
            uri: uri.clone(),
            task,
            marker,
            taken: Arc::new(taken),
            sent: Vec::new(),
        })
    }
}

impl Publishing {
    /// Sends the files below the folder `local`. When this returns, the store has them, as it lists and
    /// names them itself: the local ones may be deleted. Returns their bytes.
    ///
    /// # Errors
    /// If they cannot be read or sent, if an object was sent before, if one of them or its folder has a name that
    /// begins with a dot, as those of files have that are being written, if another publication took over.
    pub async fn add(
        &mut self,
        local: &Path,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<u64, Error> {
        let files = self.store.local_files(local, &self.uri).await?;
        let is_sent =
            |file: &&LocalFile| self.sent.iter().any(|(object, _)| object.path == file.name);
        if let Some(file) = files.iter().find(is_sent) {
            return Err(Error::SentTwice {
                uri: self.uri.to_string(),
                object: file.name.clone(),
            });
        }
        if let Some(file) = files.iter().find(|file| is_unfinished(&file.name)) {
            return Err(Error::Unfinished {
                uri: self.uri.to_string(),
                object: file.name.clone(),
            });
        }
        let bytes = files.iter().map(|file| file.size).sum();
        let work = self
            .store
            .publication(&self.uri, self.task, progress, cancel);
        work.check_marker(&self.marker).await?;
        let sent = work.send(files, &self.marker, &self.taken).await?;
        work.check_each(&sent).await?;
        self.sent.extend(sent);
        self.sent.sort();
        Ok(bytes)
    }

    /// What was sent so far.
    pub fn objects(&self) -> Vec<ObjectRecord> {
        let sent = self.sent.iter();
        sent.map(|(object, _)| object.clone()).collect()
    }

    /// Takes these as sent, which [`Self::objects`] of an earlier attempt said and of which nothing need be here any
    /// more.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the store does not have one of them as it took it.
    pub fn recall(&mut self, objects: &[ObjectRecord]) -> Result<(), Error> {
        let mut differences = Differences::default();
        for object in objects {
            if self.sent.iter().any(|(sent, _)| sent.path == object.path) {
                continue;
            }
            match self.taken.sent(object) {
                Some(sent) => self.sent.push(sent),
                None => differences.add(&object.path, "is not there any more as it was sent"),
            }
        }
        self.sent.sort();
        differences.check(&self.uri)
    }

    /// Makes what was sent visible: steps 6 to 8 of the protocol.
    ///
    /// # Errors
    /// As [`Store::publish`].
    pub async fn finish(
        self,
        make_manifest: impl FnOnce(Vec<ObjectRecord>) -> Manifest + Send,
        cancel: &CancellationToken,
    ) -> Result<Published, Error> {
        let progress = Progress::none();
        let work = self
            .store
            .publication(&self.uri, self.task, &progress, cancel);
        let was_sent = |name: &str| {
            let found = self
                .sent
                .binary_search_by(|(object, _)| object.path.as_str().cmp(name));
            found.is_ok()
        };
        let mut unsent = self.taken.names();
        unsent.retain(|name| !was_sent(name));
        if !unsent.is_empty() {
            work.check_marker(&self.marker).await?;
            self.store.delete(&self.uri, unsent).await?;
        }
        work.check_arrived(&self.sent).await?;
        work.close(&self.marker, self.sent, make_manifest).await
    }
}

/// Files that begin with a dot and are complete: the metadata of Zarr version 2.
const OF_ZARR: [&str; 4] = [".zarray", ".zattrs", ".zgroup", ".zmetadata"];

fn is_unfinished(name: &str) -> bool {
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    let is_hidden = |part: &str| part.starts_with('.');
    folders.split('/').any(is_hidden) || is_hidden(file) && !OF_ZARR.contains(&file)
}

fn occupied(uri: &Uri, theirs: &Manifest) -> Error {
    Error::Occupied {
        uri: uri.to_string(),
        theirs: theirs.task,
    }
}

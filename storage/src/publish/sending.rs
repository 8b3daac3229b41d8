//! Steps 4 to 6 of the protocol: what is in the way is removed, objects are sent, and the store says that it
//! has them.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use mlwm_spec::manifest::ObjectRecord;
use tokio_util::sync::CancellationToken;

use super::marker::Marker;
use super::taken::Taken;
use super::{Publication, Sent};
use crate::points::reach;
use crate::progress::Counter;
use crate::store::PARTS_AT_ONCE;
use crate::tree::LocalFile;
use crate::verify::Differences;
use crate::{Error, Listed, Phase, Store, Uri, pool};

/// Zarr metadata of the root group, in the order in which it is written: a reader looks for the
/// last ones first.
const ROOT_METADATA: [&str; 5] = [".zattrs", ".zarray", ".zgroup", ".zmetadata", "zarr.json"];

impl Publication<'_> {
    /// Step 4: removes what an interrupted publication left, unless it `stays`; what stays, ordered by path.
    pub(super) async fn clear(
        &self,
        marker: &Marker,
        stays: impl Fn(&Listed) -> bool,
    ) -> Result<Vec<Listed>, Error> {
        if marker.took_over {
            // Not everybody who may write may list them; what remains is the bucket's rule for them.
            let _ = self.store.end_uploads(self.uri).await;
        }
        let (left, leftovers): (Vec<Listed>, Vec<Listed>) = self
            .store
            .list(self.uri)
            .await?
            .into_iter()
            .partition(|object| stays(object) && !ROOT_METADATA.contains(&object.path.as_str()));
        if !leftovers.is_empty() {
            let names = leftovers.into_iter().map(|object| object.path);
            self.store.delete(self.uri, names.collect()).await?;
        }
        Ok(left)
    }

    /// Step 5, while the marker is watched: every object with its version, ordered by path.
    pub(super) async fn send(
        &self,
        files: Vec<LocalFile>,
        marker: &Marker,
        taken: &Arc<Taken>,
    ) -> Result<Vec<Sent>, Error> {
        let stop = self.cancel.child_token();
        let sending = self.send_all(files, taken, &stop);
        tokio::pin!(sending);
        tokio::select! {
            sent = &mut sending => sent,
            lost = self.lost(marker) => {
                stop.cancel();
                // What is under way ends by itself, so that no part of it is left behind.
                let _ = sending.await;
                Err(lost)
            }
        }
    }

    async fn send_all(
        &self,
        files: Vec<LocalFile>,
        taken: &Arc<Taken>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Sent>, Error> {
        let sizes = files.iter().map(|file| file.size);
        let counter = Counter::start(self.progress, Phase::Uploading, sizes);
        let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        let last = |file: &LocalFile| ROOT_METADATA.iter().position(|name| *name == file.name);
        let (data, mut metadata): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| last(file).is_none());
        metadata.sort_by_key(|file| last(file));
        let options = &self.store.options;
        let (big, small): (Vec<_>, Vec<_>) = data
            .into_iter()
            .partition(|file| file.size > options.part_bytes);
        let mut sent = Vec::new();
        // Of big ones a few fill the line, and the fewer are begun, the less is lost if this is killed.
        for (files, at_once) in [
            (big, PARTS_AT_ONCE),
            (small, options.in_flight),
            (metadata, 1),
        ] {
            let send_one = |file: LocalFile, cancel| {
                let (store, uri, counter) = (self.store.clone(), self.uri.clone(), counter.clone());
                let taken = Arc::clone(taken);
                async move { send_one(&store, &uri, file, &taken, &counter, &cancel).await }
            };
            sent.extend(pool::run_all(self.uri, files, at_once, cancel, send_one).await?);
        }
        self.store.sync(self.uri, names).await?;
        sent.sort();
        Ok(sent)
    }

    /// Step 6: the store lists what was sent, and nothing else.
    pub(super) async fn check_arrived(&self, sent: &[Sent]) -> Result<(), Error> {
        let listed = self.store.list(self.uri).await?;
        let objects: Vec<ObjectRecord> = sent.iter().map(|(object, _)| object.clone()).collect();
        let mut differences = Differences::default();
        differences.of_listing(&listed, &objects);
        for sent in sent {
            let found = listed.binary_search_by(|listed| listed.path.cmp(&sent.0.path));
            if found.is_ok_and(|index| is_another(sent, &listed[index])) {
                differences.add(&sent.0.path, ANOTHER);
            }
        }
        differences.check(self.uri)
    }

    /// The store has these objects, asked for one by one: among many others they are found sooner than by
    /// listing all.
    pub(super) async fn check_each(&self, sent: &[Sent]) -> Result<(), Error> {
        let mut differences = Differences::default();
        let mut found = futures::stream::iter(sent)
            .map(async |sent| {
                let found = self.store.head(&self.uri.join(&sent.0.path)?).await?;
                Ok::<_, Error>((sent, found))
            })
            .buffered(self.store.options.in_flight);
        while let Some((sent, found)) = found.try_next().await? {
            match found {
                None => differences.add(&sent.0.path, "is missing"),
                Some(found) if found.size != sent.0.size || is_another(sent, &found) => {
                    differences.add(&sent.0.path, ANOTHER);
                }
                Some(_) => {}
            }
        }
        differences.check(self.uri)
    }
}

const ANOTHER: &str = "is not the object that was sent";

/// Whether an object has another entity tag than the store gave it. A time may be told more coarsely the second
/// time.
fn is_another((_, version): &Sent, found: &Listed) -> bool {
    let etags = version.as_ref().zip(found.etag.as_ref());
    etags.is_some_and(|(sent, found)| sent != found)
}

async fn send_one(
    store: &Store,
    uri: &Uri,
    file: LocalFile,
    taken: &Taken,
    counter: &Counter,
    cancel: &CancellationToken,
) -> Result<Sent, Error> {
    if let Some(sent) = taken.find(uri, &file, cancel).await? {
        counter.kept(file.size);
        counter.object();
        return Ok(sent);
    }
    let (path, size) = (file.name.clone(), file.size);
    let target = uri.join(&path)?;
    let uploaded = store.upload(&target, file, counter, cancel).await?;
    reach("publish: object");
    let object = ObjectRecord {
        path,
        size,
        sha256: uploaded.sha256,
    };
    let sent = (object, uploaded.version);
    taken.note(&sent);
    reach("publish: noted");
    Ok(sent)
}

//! Removing the objects of a published output, whose manifest stays.

use std::collections::BTreeSet;

use mlwm_spec::Manifest;
use mlwm_spec::manifest::{MANIFEST_SUFFIX, Removed, content_digest};

use crate::points::reach;
use crate::{Error, Rivals, Store, Uri};

/// Removes the objects of a published output, with the settings of the environment ([`Store::remove_published`]).
pub async fn remove_published(uri: &Uri, known: &Manifest, removed: Removed) -> Result<u64, Error> {
    let store = Store::open(uri).await?;
    store.remove_published(uri, known, removed).await
}

/// Refuses an input that was removed, or is just being removed, with the settings of the environment
/// ([`Store::refuse_removed`]).
pub async fn refuse_removed(uri: &Uri) -> Result<(), Error> {
    Store::open(uri).await?.refuse_removed(uri).await
}

impl Store {
    /// Removes the objects of the output published at `uri`, whose manifest is `known`, and says so in its manifest,
    /// which stays; returns the bytes that were there. It is said before it is done, so that nobody takes what is left
    /// for damage, or for all, if this is killed; and can then be done again. Nobody else may publish there meanwhile.
    ///
    /// # Errors
    /// [`Error::NotPublished`] without a manifest, [`Error::Conflict`] with another one, and what the store says.
    pub async fn remove_published(
        &self,
        uri: &Uri,
        known: &Manifest,
        removed: Removed,
    ) -> Result<u64, Error> {
        let manifest = self.manifest(uri).await?;
        let place = uri.sibling_suffix(MANIFEST_SUFFIX);
        let mut manifest = manifest.ok_or_else(|| Error::NotPublished {
            uri: uri.to_string(),
            manifest: place.to_string(),
        })?;
        if (manifest.task, &manifest.objects) != (known.task, &known.objects) {
            return Err(Error::Conflict {
                uri: uri.to_string(),
                between: Box::new(Rivals {
                    theirs: manifest.task,
                    their_objects: content_digest(&manifest.objects),
                    ours: known.task,
                    our_objects: content_digest(&known.objects),
                }),
            });
        }
        if manifest.removed.is_none() {
            manifest.removed = Some(removed);
            let text =
                serde_json::to_vec_pretty(&manifest).map_err(|error| Error::BadManifest {
                    uri: place.to_string(),
                    reason: error.to_string(),
                })?;
            self.put(&place, text).await?;
        }
        reach("remove: said");
        let of_it: BTreeSet<&str> = manifest.objects.iter().map(|o| o.path.as_str()).collect();
        let mut there = self.list(uri).await?;
        there.retain(|object| of_it.contains(object.path.as_str()));
        let bytes = there.iter().map(|object| object.size).sum();
        if !there.is_empty() {
            let names = there.into_iter().map(|object| object.path).collect();
            self.delete(uri, names).await?;
        }
        Ok(bytes)
    }

    /// The manifest of what was published at `uri` and removed; none if that is not so, or there is no manifest that
    /// can be read.
    pub async fn removed(&self, uri: &Uri) -> Result<Option<Manifest>, Error> {
        match self.manifest(uri).await {
            Ok(manifest) => Ok(manifest.filter(|manifest| manifest.removed.is_some())),
            // Somebody else's, or in somebody else's place.
            Err(Error::BadManifest { .. } | Error::AccessDenied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses a place whose objects were removed, or are just being removed.
    ///
    /// # Errors
    /// [`Error::Removed`].
    pub async fn refuse_removed(&self, uri: &Uri) -> Result<(), Error> {
        refuse(uri, self.removed(uri).await?.as_ref())
    }
}

/// The error for one who needs objects that were removed, if they were.
pub(crate) fn refuse(uri: &Uri, manifest: Option<&Manifest>) -> Result<(), Error> {
    match manifest.and_then(|manifest| Some((manifest, manifest.removed.as_ref()?))) {
        None => Ok(()),
        Some((manifest, removed)) => Err(Error::Removed {
            uri: uri.to_string(),
            when: removed.removed.clone(),
            time: manifest.analysis_time,
            by: manifest.configuration.name.clone(),
        }),
    }
}

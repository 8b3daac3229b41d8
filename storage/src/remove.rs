//! Removing the objects of a published output, whose manifest stays.

use std::collections::BTreeSet;

use mlwm_spec::Manifest;
use mlwm_spec::manifest::{MANIFEST_SUFFIX, Removed};

use crate::points::reach;
use crate::{Error, Store, Uri};

/// Removes the objects of the output published at `uri`, with the settings of the environment
/// ([`Store::remove_published`]).
pub async fn remove_published(uri: &Uri, removed: Removed) -> Result<u64, Error> {
    Store::open(uri).await?.remove_published(uri, removed).await
}

impl Store {
    /// Removes the objects of the output published at `uri`, and says so in its manifest, which stays; returns
    /// the bytes that were there. It is said before it is done, so that nobody takes what is left for damage if this
    /// is killed; and can then be done again.
    ///
    /// # Errors
    /// [`Error::NotPublished`] without a manifest, and what the store says.
    pub async fn remove_published(&self, uri: &Uri, removed: Removed) -> Result<u64, Error> {
        let manifest = self.manifest(uri).await?;
        let place = uri.sibling_suffix(MANIFEST_SUFFIX);
        let mut manifest = manifest.ok_or_else(|| Error::NotPublished {
            uri: uri.to_string(),
            manifest: place.to_string(),
        })?;
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
}

/// The error for one who needs objects that were removed, if they were.
pub(crate) fn refuse_removed(uri: &Uri, manifest: Option<&Manifest>) -> Result<(), Error> {
    match manifest.and_then(|manifest| Some((manifest, manifest.removed.as_ref()?))) {
        None => Ok(()),
        Some((manifest, removed)) => Err(Error::Removed {
            uri: uri.to_string(),
            when: removed.removed.clone(),
            by: manifest.configuration.name.clone(),
        }),
    }
}

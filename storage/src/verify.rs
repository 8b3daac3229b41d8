//! Verifying: reading a published output again and comparing it with its manifest.

use std::collections::BTreeMap;

use mlwm_spec::manifest::{MANIFEST_SUFFIX, ObjectRecord};
use mlwm_spec::{Digest, Manifest};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::progress::Counter;
use crate::remove;
use crate::{Error, Listed, Phase, Progress, Store, Uri, pool};

/// Differences that an error names, at most.
const NAMED: usize = 5;

/// A published output that is what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Reads the output published at `uri` again and compares it with its manifest, with the settings
/// of the environment.
pub async fn verify(
    uri: &Uri,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Verified, Error> {
    Store::open(uri).await?.verify(uri, progress, cancel).await
}

impl Store {
    /// Reads the output published at `uri` again and compares every object's size and SHA-256, and
    /// the set of objects, with its manifest.
    pub async fn verify(
        &self,
        uri: &Uri,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Verified, Error> {
        let manifest = self
            .manifest(uri)
            .await?
            .ok_or_else(|| Error::NotPublished {
                uri: uri.to_string(),
                manifest: uri.sibling_suffix(MANIFEST_SUFFIX).to_string(),
            })?;
        remove::refuse(uri, Some(&manifest))?;
        let listed = self.list(uri).await?;
        let mut differences = Differences::default();
        differences.of_listing(&listed, &manifest.objects);
        differences.check(uri)?;
        let counter = Counter::start(progress, Phase::Verifying, listed.iter().map(|o| o.size));
        let bytes = listed.iter().map(|object| object.size).sum();
        let digests = pool::run_all(
            uri,
            listed,
            self.options.in_flight,
            cancel,
            |object: Listed, cancel| {
                let (store, uri, counter) = (self.clone(), uri.clone(), counter.clone());
                async move {
                    let hasher = store
                        .read(&uri, &object, Sha256::new(), hash, &counter, &cancel)
                        .await?;
                    Ok((object.path, Digest::from_hasher(hasher)))
                }
            },
        )
        .await?;
        let found: BTreeMap<String, Digest> = digests.into_iter().collect();
        for object in &manifest.objects {
            if found.get(&object.path) != Some(&object.sha256) {
                differences.add(&object.path, "has other content");
            }
        }
        differences.check(uri)?;
        Ok(Verified { manifest, bytes })
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it has the type that `Store::read` wants"
)]
fn hash(hasher: &mut Sha256, part: &[bytes::Bytes]) -> Result<(), Error> {
    for piece in part {
        hasher.update(piece);
    }
    Ok(())
}

/// In what a store differs from what should be there.
#[derive(Default)]
pub(crate) struct Differences {
    named: Vec<String>,
    count: usize,
}

impl Differences {
    pub(crate) fn add(&mut self, path: &str, what: &str) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("`{path}` {what}"));
        }
    }

    /// Compares names and sizes.
    pub(crate) fn of_listing(&mut self, listed: &[Listed], expected: &[ObjectRecord]) {
        let mut sizes: BTreeMap<&str, u64> = listed
            .iter()
            .map(|object| (object.path.as_str(), object.size))
            .collect();
        for object in expected {
            match sizes.remove(object.path.as_str()) {
                None => self.add(&object.path, "is missing"),
                Some(size) if size != object.size => {
                    let what = format!("has {size} bytes instead of {}", object.size);
                    self.add(&object.path, &what);
                }
                Some(_) => {}
            }
        }
        for path in sizes.keys() {
            self.add(path, "does not belong to it");
        }
    }

    /// Fails if there is any.
    pub(crate) fn check(&self, uri: &Uri) -> Result<(), Error> {
        if self.count == 0 {
            return Ok(());
        }
        let mut reason = self.named.join(", ");
        if self.count > self.named.len() {
            reason.push_str(&format!(", and {} more", self.count - self.named.len()));
        }
        Err(Error::Corrupt {
            uri: uri.to_string(),
            reason,
        })
    }
}

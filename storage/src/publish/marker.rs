//! The marker of an unfinished publication (steps 2 and 3 of the protocol).

use mlwm_spec::Digest;
use serde::{Deserialize, Serialize};

use super::{Publication, json};
use crate::{Error, Uri};

/// What is appended to an output's URI to name the marker of an unfinished publication.
pub const MARKER_SUFFIX: &str = ".publishing.json";

/// A marker has about 200 bytes.
const MARKER_LIMIT: u64 = 64 << 10;

/// Whose unfinished work lies at a URI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    version: u32,
    pub(super) task: Digest,
    attempt: String,
}

impl Publication<'_> {
    /// Steps 2 and 3: makes sure that what lies here is mlwm's, and says that it is ours now.
    pub(super) async fn mark(&self) -> Result<Marker, Error> {
        let place = self.marker_place();
        let old = self.marker().await?;
        if old.is_none() {
            let existing = self.store.list(self.uri).await?.len() as u64;
            if existing > 0 {
                return Err(Error::ForeignData {
                    uri: self.uri.to_string(),
                    objects: existing,
                });
            }
        }
        let marker = Marker {
            version: 1,
            task: self.task,
            attempt: random_number(),
        };
        let text = json(&place, &marker)?;
        let alone = match old {
            Some(_) => {
                self.store.put(&place, text).await?;
                false
            }
            None => {
                if !self.store.create(&place, text.clone()).await? {
                    self.check_marker(&marker).await?;
                }
                // A store that now creates it again does not know conditional writes.
                !self.store.create(&place, text).await?
            }
        };
        if !alone {
            tokio::time::sleep(self.store.options.watch.mul_f64(2.5)).await;
        }
        self.check_marker(&marker).await?;
        Ok(marker)
    }

    /// Comes back when another attempt has put its marker here.
    pub(super) async fn lost(&self, marker: &Marker) -> Error {
        loop {
            tokio::time::sleep(self.store.options.watch).await;
            if let Err(lost @ Error::TakenOver { .. }) = self.check_marker(marker).await {
                return lost;
            }
        }
    }

    /// Fails if another attempt has put its marker here.
    pub(super) async fn check_marker(&self, ours: &Marker) -> Result<(), Error> {
        let found = self.marker().await?;
        if found.as_ref() == Some(ours) {
            return Ok(());
        }
        Err(Error::TakenOver {
            uri: self.uri.to_string(),
            theirs: found.map_or_else(|| "unknown".to_owned(), |marker| marker.task.to_string()),
            ours: self.task,
        })
    }

    pub(super) fn marker_place(&self) -> Uri {
        self.uri.sibling_suffix(MARKER_SUFFIX)
    }

    pub(super) async fn marker(&self) -> Result<Option<Marker>, Error> {
        let place = self.marker_place();
        let Some(bytes) = self.store.get(&place, MARKER_LIMIT).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::BadManifest {
                uri: place.to_string(),
                reason: format!("{error}; remove it if no publication is under way"),
            })
    }
}

/// Tells one attempt from another.
fn random_number() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new();
    format!(
        "{:016x}{:016x}",
        random.hash_one(std::process::id()),
        RandomState::new().hash_one(0)
    )
}

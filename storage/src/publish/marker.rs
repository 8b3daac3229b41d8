//! The marker of an unfinished publication (steps 2 and 3 of the protocol).

use jiff::Timestamp;
use mlwm_spec::manifest::{MANIFEST_SUFFIX, Withdrawn, content_digest};
use mlwm_spec::{Digest, Manifest};
use serde::{Deserialize, Serialize};

use super::{Publication, json};
use crate::points::reach;
use crate::{Error, Uri};

/// What is appended to an output's URI to name the marker of an unfinished publication.
pub const MARKER_SUFFIX: &str = ".publishing.json";

/// What is appended to an output's URI, with the beginning of its content's digest behind it and
/// `.json`, to name the record of one that was withdrawn.
pub const WITHDRAWN_SUFFIX: &str = ".withdrawn-";

/// A marker has about 200 bytes, and as many for each output that was withdrawn.
const MARKER_LIMIT: u64 = 64 << 10;

/// Whose unfinished work lies at a URI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    version: u32,
    pub(super) task: Digest,
    attempt: String,
    /// What was withdrawn for this task: not lost if it is killed before it has published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) replaces: Vec<Withdrawn>,
    /// Another marker was here, whose publication was killed or is to be replaced.
    #[serde(skip)]
    pub(super) took_over: bool,
}

/// What remains of an output that was withdrawn, beside its place.
#[derive(Serialize)]
struct Record<'a> {
    version: u32,
    #[serde(flatten)]
    withdrawn: &'a Withdrawn,
    /// The task that it was withdrawn for.
    replaced_by: Digest,
    manifest: &'a Manifest,
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
        let replaces = old.iter().flat_map(|old| old.replaces.clone());
        let marker = self.new_marker(replaces.collect());
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
        Ok(Marker {
            took_over: !alone,
            ..marker
        })
    }

    /// Withdraws what is published here: says so in a record beside it, and removes its manifest. The
    /// data are then leftovers of this task.
    pub(super) async fn withdraw(&self, theirs: &Manifest) -> Result<(), Error> {
        let withdrawn = Withdrawn {
            task: theirs.task,
            content: content_digest(&theirs.objects),
            withdrawn: Timestamp::now().strftime("%FT%TZ").to_string(),
        };
        let mut replaces = theirs.replaces.clone();
        replaces.push(withdrawn.clone());
        let place = self.marker_place();
        let marker = self.new_marker(replaces);
        self.store.put(&place, json(&place, &marker)?).await?;
        tokio::time::sleep(self.store.options.watch.mul_f64(2.5)).await;
        self.check_marker(&marker).await?;
        let content = &withdrawn.content.hex()[..16];
        let place = self
            .uri
            .sibling_suffix(&format!("{WITHDRAWN_SUFFIX}{content}.json"));
        let record = Record {
            version: 1,
            withdrawn: &withdrawn,
            replaced_by: self.task,
            manifest: theirs,
        };
        reach("withdraw: marked");
        self.store.put(&place, json(&place, &record)?).await?;
        reach("withdraw: recorded");
        self.check_marker(&marker).await?;
        self.store
            .remove(&self.uri.sibling_suffix(MANIFEST_SUFFIX))
            .await
    }

    fn new_marker(&self, replaces: Vec<Withdrawn>) -> Marker {
        Marker {
            version: 1,
            task: self.task,
            attempt: random_number(),
            replaces,
            took_over: false,
        }
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
        if found
            .as_ref()
            .is_some_and(|found| found.attempt == ours.attempt)
        {
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

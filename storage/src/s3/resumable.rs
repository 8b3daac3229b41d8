//! Bringing one big content to a key, continued where an earlier process was killed.
//!
//! The journal holds the identifier of the multipart upload, and of every part its SHA-256, noted
//! before it is sent. A server that checks signatures takes a part only if it has the SHA-256 that
//! was signed; one that does not is believed. So a part that the server lists, with the right size
//! and one SHA-256 in the journal, which is the one that is read now, is there; every other is sent
//! again.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mlwm_spec::Digest;
use serde::{Deserialize, Serialize};

use super::S3;
use super::multipart::{Completed, Part, Upload};
use crate::transfer::download::Limits;
use crate::transfer::feed::Piece;
use crate::transfer::journal::Journal;
use crate::transfer::object::Object;
use crate::transfer::retry::persist;
use crate::transfer::upload::{BEGINNINGS, Sending};
use crate::{Error, Uri, pool};

/// Parts that are on their way at once, at most.
const AT_ONCE: u64 = 3;

/// Bytes that are on their way at once, unless a single part has more.
const BYTES_AT_ONCE: u64 = 48 << 20;

/// What an upload was begun with.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Begun {
    s3_upload: String,
    part_bytes: u64,
}

/// A part is about to be sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Note {
    part: u32,
    sha256: Digest,
}

impl S3 {
    /// Brings the content to `uri`, where nothing or the same may be.
    pub(crate) async fn upload_content(
        &self,
        uri: &Uri,
        sending: &Sending<'_>,
    ) -> Result<Digest, Error> {
        if sending.content.size() <= self.part_bytes {
            let sent = sending.send_whole(self.part_bytes, |bytes| self.create(uri, bytes));
            return match sent.await? {
                Some(digest) => Ok(digest),
                None => self.compare(uri, sending).await,
            };
        }
        let journal = sending.journal(&self.endpoint, &sending.content.fingerprint())?;
        for _ in 0..BEGINNINGS {
            let Some(transfer) = self.take_up(uri, sending, &journal).await? else {
                journal.finish()?;
                return self.compare(uri, sending).await;
            };
            match transfer.run().await? {
                Some((digest, Completed::Done)) => {
                    journal.finish()?;
                    return Ok(digest);
                }
                Some((_, Completed::Taken)) => {
                    let upload = &transfer.upload;
                    self.persist(sending, || upload.abort()).await?;
                    journal.finish()?;
                    return self.compare(uri, sending).await;
                }
                // Completed by a request whose answer was lost, or removed by the server.
                Some((_, Completed::Gone)) | None => {}
                // The server's list of parts tells which is to be sent again.
                Some((_, Completed::Amiss)) => {}
            }
        }
        Err(Error::Service {
            uri: sending.place.clone(),
            endpoint: self.endpoint.clone(),
            reason: "it forgets uploads that are under way, or parts of them".to_owned(),
        })
    }

    /// Ends an upload that is not to be continued.
    pub(crate) async fn abandon(
        &self,
        uri: &Uri,
        sending: &Sending<'_>,
        fingerprint: &str,
    ) -> Result<(), Error> {
        let journal = sending.journal(&self.endpoint, fingerprint)?;
        if let Some((begun, _)) = journal.read::<Begun, Note>()? {
            let upload = Upload {
                s3: self,
                uri,
                id: begun.s3_upload,
            };
            self.persist(sending, || upload.abort()).await?;
        }
        journal.finish()
    }

    /// Continues what the journal knows, or begins; `None` if the object is there already.
    async fn take_up<'a>(
        &'a self,
        uri: &'a Uri,
        sending: &'a Sending<'a>,
        journal: &'a Journal,
    ) -> Result<Option<Transfer<'a>>, Error> {
        let transfer = |begun: Begun, notes: Vec<Note>, parts: Vec<Part>| {
            let mut known: BTreeMap<u32, BTreeSet<Digest>> = BTreeMap::new();
            for note in notes {
                known.entry(note.part).or_default().insert(note.sha256);
            }
            Transfer {
                upload: Upload {
                    s3: self,
                    uri,
                    id: begun.s3_upload,
                },
                part_bytes: begun.part_bytes,
                known,
                there: parts
                    .into_iter()
                    .map(|part| (part.part_number, part))
                    .collect(),
                sending,
                journal,
            }
        };
        if let Some((begun, notes)) = journal.read::<Begun, Note>()? {
            let upload = Upload {
                s3: self,
                uri,
                id: begun.s3_upload.clone(),
            };
            if let Some(parts) = self.persist(sending, || upload.parts()).await? {
                return Ok(Some(transfer(begun, notes, parts)));
            }
        }
        if self.head(uri).await?.is_some() {
            return Ok(None);
        }
        let size = sending.content.size();
        let begun = Begun {
            s3_upload: self.persist(sending, || self.begin(uri)).await?,
            part_bytes: self.part_bytes_of(size),
        };
        journal.begin(&begun)?;
        Ok(Some(transfer(begun, Vec::new(), Vec::new())))
    }

    async fn compare(&self, uri: &Uri, sending: &Sending<'_>) -> Result<Digest, Error> {
        let there = Object {
            server: self,
            uri,
            limits: sending.limits,
        };
        match self.head(uri).await? {
            Some(found) => sending.compare(&there, found.size).await,
            None => Err(Error::NothingAt {
                uri: sending.place.clone(),
            }),
        }
    }

    async fn persist<R, F>(
        &self,
        sending: &Sending<'_>,
        request: impl FnMut() -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<R, crate::transfer::retry::Failure>>,
    {
        let Limits { retry_for, .. } = sending.limits;
        persist(&sending.place, retry_for, sending.cancel, request).await
    }
}

/// An upload that is under way.
struct Transfer<'a> {
    upload: Upload<'a>,
    part_bytes: u64,
    /// What has been noted of each part.
    known: BTreeMap<u32, BTreeSet<Digest>>,
    /// The parts the server has.
    there: BTreeMap<u32, Part>,
    sending: &'a Sending<'a>,
    journal: &'a Journal,
}

impl Transfer<'_> {
    /// Sends what is missing and completes; `None` if the server has lost the upload meanwhile.
    async fn run(&self) -> Result<Option<(Digest, Completed)>, Error> {
        let sending = self.sending;
        let part_bytes = usize::try_from(self.part_bytes).unwrap_or(usize::MAX);
        let at_once = at_once(self.part_bytes);
        // One more is read meanwhile.
        let mut feed = sending.feed(part_bytes, at_once + 1);
        let mut under_way = FuturesUnordered::new();
        let mut parts = Vec::new();
        let mut done = 0;
        let mut number = 0;
        while let Some(piece) =
            pool::unless_cancelled(&sending.place, sending.cancel, feed.next()).await?
        {
            number += 1;
            let sha256 = piece.sha256(&sending.place).await?;
            if let Some(part) = self.has(number, &piece, sha256) {
                done += part.size;
                parts.push(part.clone());
                sending.counter.reach_kept(done);
                continue;
            }
            self.journal.note(&Note {
                part: number,
                sha256,
            })?;
            under_way.push(self.send(number, piece, sha256));
            while under_way.len() == at_once {
                let Some(sent) = under_way.next().await else {
                    break;
                };
                let Some(part) = sent? else { return Ok(None) };
                done += part.size;
                parts.push(part);
                sending.counter.reach(done);
            }
        }
        while let Some(sent) = under_way.next().await {
            let Some(part) = sent? else { return Ok(None) };
            done += part.size;
            parts.push(part);
            sending.counter.reach(done);
        }
        let digest = feed.finish().await?;
        parts.sort_by_key(|part| part.part_number);
        let upload = &self.upload;
        let completed = upload
            .s3
            .persist(sending, || upload.complete(&parts))
            .await?;
        Ok(Some((digest, completed)))
    }

    fn has(&self, number: u32, piece: &Piece, sha256: Digest) -> Option<&Part> {
        let part = self.there.get(&number)?;
        let noted = self.known.get(&number)?;
        let same =
            part.size == piece.bytes.len() as u64 && noted.len() == 1 && noted.contains(&sha256);
        same.then_some(part)
    }

    async fn send(&self, number: u32, piece: Piece, sha256: Digest) -> Result<Option<Part>, Error> {
        let upload = &self.upload;
        upload
            .s3
            .persist(self.sending, || {
                upload.send(number, piece.bytes.clone(), sha256)
            })
            .await
    }
}

/// How many parts of this length are on their way at once: objects of more than 160 GB have parts
/// so large that there are fewer.
fn at_once(part_bytes: u64) -> usize {
    let count = (BYTES_AT_ONCE / part_bytes.max(1)).clamp(1, AT_ONCE);
    usize::try_from(count).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_the_parts_the_fewer_at_once() {
        let counts = [5, 8, 16, 17, 24, 25, 48, 49, 600].map(|mib| at_once(mib << 20));
        assert_eq!(counts, [3, 3, 3, 2, 2, 1, 1, 1, 1]);
    }
}

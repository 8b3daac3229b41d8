//! Bringing one big content to a key, continued where an earlier process was killed.
//!
//! The journal holds the identifier of the multipart upload, and of every part its SHA-256, noted
//! before it is sent. The server takes a part only if it has the SHA-256 that was signed. So a part
//! that the server lists, with the right size and one SHA-256 in the journal, which is the one that
//! is read now, is there; every other is sent again.

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
use crate::transfer::upload::Sending;
use crate::{Error, Uri, pool};

/// Parts that are on their way at once; one more is read meanwhile.
const AT_ONCE: usize = 3;

/// S3 takes at most 10,000 parts.
const MOST_PARTS: u64 = 9_999;

/// How often an upload that the server has lost is begun anew.
const BEGINNINGS: u32 = 3;

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
            return self.send_whole(uri, sending).await;
        }
        let journal = sending
            .journals
            .open(&sending.place, &sending.content.fingerprint())?;
        for _ in 0..BEGINNINGS {
            let Some(transfer) = self.take_up(uri, sending, &journal).await? else {
                let digest = self.compare(uri, sending).await?;
                journal.finish()?;
                return Ok(digest);
            };
            match transfer.run().await? {
                Some((digest, Completed::Done)) => {
                    journal.finish()?;
                    return Ok(digest);
                }
                Some((_, Completed::Taken)) => {
                    let upload = &transfer.upload;
                    self.persist(sending, || upload.abort()).await?;
                    let digest = self.compare(uri, sending).await?;
                    journal.finish()?;
                    return Ok(digest);
                }
                // Completed by a request whose answer was lost, or removed by the server.
                Some((_, Completed::Gone)) | None => {}
            }
        }
        Err(Error::Service {
            uri: sending.place.clone(),
            endpoint: self.endpoint.clone(),
            reason: "it forgets uploads that are under way".to_owned(),
        })
    }

    /// Ends an upload that is not to be continued.
    pub(crate) async fn abandon(
        &self,
        uri: &Uri,
        sending: &Sending<'_>,
        journal: Journal,
    ) -> Result<(), Error> {
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

    async fn send_whole(&self, uri: &Uri, sending: &Sending<'_>) -> Result<Digest, Error> {
        let mut feed = sending.feed(usize::try_from(self.part_bytes).unwrap_or(usize::MAX), 2);
        let bytes = feed
            .next()
            .await?
            .map(|piece| piece.bytes)
            .unwrap_or_default();
        let create = self.create(uri, bytes);
        let created = pool::unless_cancelled(&sending.place, sending.cancel, create).await?;
        let digest = feed.finish().await?;
        if !created {
            return self.compare(uri, sending).await;
        }
        sending.counter.reach(sending.content.size());
        Ok(digest)
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
            part_bytes: self.part_bytes.max(size.div_ceil(MOST_PARTS)),
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
        let mut feed = sending.feed(part_bytes, AT_ONCE + 1);
        let mut under_way = FuturesUnordered::new();
        let mut parts = Vec::new();
        let mut done = 0;
        let mut number = 0;
        while let Some(piece) =
            pool::unless_cancelled(&sending.place, sending.cancel, feed.next()).await?
        {
            number += 1;
            let (piece, sha256) = hash(&sending.place, piece).await?;
            if let Some(part) = self.has(number, &piece, sha256) {
                done += part.size;
                parts.push(part.clone());
                sending.counter.reach(done);
                continue;
            }
            self.journal.note(&Note {
                part: number,
                sha256,
            })?;
            under_way.push(self.send(number, piece, sha256));
            while under_way.len() == AT_ONCE {
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

async fn hash(place: &str, piece: Piece) -> Result<(Piece, Digest), Error> {
    pool::blocking(place, move || {
        let sha256 = Digest::of(&piece.bytes);
        Ok((piece, sha256))
    })
    .await
}

//! Sending a blob, so that it can be continued (chapter "Pushing a blob in chunks").
//!
//! A `POST` begins an upload session, each `PATCH` adds a chunk, and a `PUT` with the digest ends
//! it. The journal knows the session and how much of the blob the registry has acknowledged. When
//! a connection breaks, or a later process continues, the registry is asked how much it has, which
//! may be part of a chunk; if it knows nothing of the session any more, the blob is begun anew.
//!
//! Registries built on `distribution` 2.8 and older sign the offset of a session into its URL, and
//! refuse the URL when they got part of a chunk: there a break in the midst of a chunk costs what
//! was sent before. Some registries take one `PATCH` only, or none: they get the blob at once.

mod finish;
mod session;

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mlwm_spec::Digest;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::session::{Body, ChunkLimits, Said, Session, Status};
use super::Repository;
use super::connection::Connection;
use crate::progress::Counter;
use crate::transfer::feed::Feed;
use crate::transfer::journal::{Journal, Journals};
use crate::transfer::retry::{Failure, Patience};
use crate::{Content, Error, Phase, Progress, pool};

/// Content is read in pieces of this many bytes.
const PIECE: usize = 1 << 20;

/// Pieces that may be in memory.
const PIECES: usize = 8;

/// How often a registry may forget what it had of a blob.
const LOSSES: u32 = 5;

/// Where connections break again and again, chunks become smaller, but not smaller than this.
const SMALL_CHUNK: u64 = 4 << 20;

/// How long a chunk that is on its way is waited for when the transfer is called off.
const LAST_CHUNK: Duration = Duration::from_secs(5);

/// What the journal knows of an upload.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    url: String,
    acknowledged: u64,
    limits: ChunkLimits,
    /// Of the whole blob, once all of it was sent.
    digest: Option<Digest>,
}

/// How a registry takes a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// In as many requests as are wanted.
    Chunks,
    /// In one `PATCH`.
    OnePatch,
    /// In the `PUT` that ends the upload, which needs the digest beforehand.
    OnePut,
}

/// How an upload goes, over all its sessions.
struct Course {
    manner: Manner,
    chunk: u64,
    patience: Patience,
    /// How often something that was sent is lost.
    losses: u32,
    /// Whether the registry has lost or damaged a blob of which it had everything.
    spoilt: bool,
}

/// What became of an upload session.
enum Sent {
    Complete(Digest),
    /// The registry does not know it any more, before it had anything.
    NotBegun,
    /// The registry does not know it any more, though it had something.
    Lost,
    /// The registry had everything, and does not make a blob of it.
    Spoilt(Failure),
    /// The registry does not take a blob in this manner.
    Refused(Failure),
}

impl Repository {
    /// Sends a blob, and gives its digest. If the digest is `known` beforehand, a blob that is
    /// there is not sent again. An upload of the same content that was interrupted is continued.
    pub async fn upload_blob(
        &self,
        content: Arc<dyn Content>,
        known: Option<&Digest>,
        journals: &Journals,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Digest, Error> {
        let counter = Counter::start(progress, Phase::Uploading, [content.size()].into_iter());
        let place = self.connection.place();
        if let Some(digest) = known {
            let there = pool::unless_cancelled(place, cancel, self.blob_size(digest)).await?;
            if there.is_some() {
                // What a process has left that was killed when the blob had arrived.
                match journals.open(place, &content.fingerprint()) {
                    Ok(journal) => journal.finish()?,
                    Err(Error::TransferBusy { .. }) => {}
                    Err(error) => return Err(error),
                }
                counter.kept(content.size());
                counter.object();
                return Ok(*digest);
            }
        }
        let journal = journals.open(place, &content.fingerprint())?;
        let upload = Upload {
            repository: self,
            content,
            known: known.copied(),
            journal: &journal,
            counter: &counter,
            counted: AtomicU64::new(0),
            cancel,
        };
        let digest = upload.run().await?;
        journal.finish()?;
        counter.object();
        Ok(digest)
    }
}

/// A blob on its way.
struct Upload<'a> {
    repository: &'a Repository,
    content: Arc<dyn Content>,
    known: Option<Digest>,
    journal: &'a Journal,
    counter: &'a Counter,
    /// Bytes that were reported: a session that is lost does not take them back.
    counted: AtomicU64,
    cancel: &'a CancellationToken,
}

impl Upload<'_> {
    async fn run(&self) -> Result<Digest, Error> {
        let mut course = Course {
            manner: Manner::Chunks,
            chunk: self.repository.options.chunk_bytes,
            patience: Patience::new(self.connection().retry_for()),
            losses: 0,
            spoilt: false,
        };
        let mut left = self.uncancelled(self.left_over()).await?;
        loop {
            let session = match left.take() {
                Some(Left::Complete(digest)) => return Ok(digest),
                Some(Left::Session(session)) => session,
                None => self.uncancelled(self.begin()).await?,
            };
            let sent = match course.manner {
                Manner::OnePut => self.put_whole(session, &mut course).await?,
                _ => self.send(session, &mut course).await?,
            };
            match sent {
                Sent::Complete(digest) => return Ok(digest),
                Sent::NotBegun => {}
                Sent::Lost if course.losses == LOSSES => {
                    let reason = format!("it lost {LOSSES} times what it had of a blob");
                    return Err(self.connection().peer().service(reason));
                }
                Sent::Lost => course.losses += 1,
                Sent::Spoilt(failure) if course.spoilt => return Err(failure.error),
                Sent::Spoilt(_) => course.spoilt = true,
                Sent::Refused(failure) => {
                    course.manner = match course.manner {
                        Manner::Chunks => Manner::OnePatch,
                        Manner::OnePatch => Manner::OnePut,
                        Manner::OnePut => return Err(failure.error),
                    }
                }
            }
        }
    }

    /// What an earlier process left.
    async fn left_over(&self) -> Result<Option<Left>, Error> {
        let Some((first, later)) = self.journal.read::<Entry, Entry>()? else {
            return Ok(None);
        };
        let entry = later.into_iter().next_back().unwrap_or(first);
        if let Some(digest) = entry.digest
            && self.repository.blob_size(&digest).await?.is_some()
        {
            self.counter.reach_kept(self.content.size());
            return Ok(Some(Left::Complete(digest)));
        }
        let Ok(url) = Url::parse(&entry.url) else {
            return Ok(None);
        };
        let mut session = Session {
            url,
            acknowledged: 0,
            limits: entry.limits,
        };
        let mut patience = Patience::new(self.connection().retry_for());
        let known = self.ask(&mut session, &mut patience).await?;
        if known {
            self.counter.reach_kept(session.acknowledged);
            self.counted.store(session.acknowledged, Relaxed);
        }
        Ok(known.then_some(Left::Session(session)))
    }

    async fn begin(&self) -> Result<Session, Error> {
        let mut patience = Patience::new(self.connection().retry_for());
        let session = loop {
            match self.repository.begin_upload().await {
                Ok(session) => break session,
                Err(failure) => patience.after(failure).await?,
            }
        };
        self.journal.begin(&entry(&session, None))?;
        Ok(session)
    }

    /// Asks the registry how much it has; whether it knows of the session, and has something.
    async fn ask(&self, session: &mut Session, patience: &mut Patience) -> Result<bool, Error> {
        loop {
            match session.status(self.connection()).await {
                Ok(Status::Has(count)) if count <= self.content.size() => {
                    session.acknowledged = count;
                    return Ok(true);
                }
                Ok(Status::Has(_) | Status::Unknown) => return Ok(false),
                Err(failure) => patience.after(failure).await?,
            }
        }
    }

    /// Sends what the registry has not got yet.
    async fn send(&self, mut session: Session, course: &mut Course) -> Result<Sent, Error> {
        let size = self.content.size();
        let in_chunks = course.manner == Manner::Chunks;
        let mut body: Option<Body> = None;
        while session.acknowledged < size {
            if self.cancel.is_cancelled() {
                return Err(pool::interrupted(self.connection().place()));
            }
            let from = session.acknowledged;
            if body.as_ref().is_none_or(|body| body.position() != from) {
                body = Some(self.uncancelled(self.body_from(from)).await?);
            }
            let Some(current) = &body else { continue };
            let length = match in_chunks {
                true => session.limits.fit(course.chunk),
                false => size,
            };
            let end = from.saturating_add(length).min(size);
            let failure = match self.patch(&mut session, current, end, in_chunks).await? {
                Said::Has(count) if count > from => {
                    session.acknowledged = count;
                    self.journal.note(&entry(&session, None))?;
                    self.report(count);
                    course.patience.progress();
                    continue;
                }
                Said::Has(_) => {
                    let reason = "it took nothing of what it was sent".to_owned();
                    Failure::transient(self.connection().peer().service(reason))
                }
                Said::Refuses(failure) => return Ok(Sent::Refused(failure)),
                Said::OutOfPlace(failure) if from == 0 => return Ok(Sent::Refused(failure)),
                Said::OutOfPlace(failure) => {
                    body = None;
                    let patience = &mut course.patience;
                    if !self.uncancelled(self.ask(&mut session, patience)).await? {
                        return Ok(Sent::Lost);
                    }
                    self.report(session.acknowledged);
                    match session.acknowledged.cmp(&from) {
                        // It does go on there, but not with such a request.
                        Ordering::Equal => return Ok(Sent::Refused(failure)),
                        Ordering::Less => return Ok(Sent::Lost),
                        Ordering::Greater => continue,
                    }
                }
                Said::Unknown => return Ok(Sent::Lost),
                Said::Fails(failure) => return Err(failure.error),
                Said::TooLarge(failure) if !in_chunks || length <= SMALL_CHUNK => {
                    return Err(failure.error);
                }
                Said::TooLarge(failure) => Failure::transient(failure.error),
                Said::Unclear(failure) => failure,
            };
            // The connection may still hold this body, and must not take more of the content.
            body = None;
            course.chunk = (length / 2).max(SMALL_CHUNK).min(course.chunk);
            let patience = &mut course.patience;
            let wait_and_ask = async {
                patience.after(failure).await?;
                self.ask(&mut session, patience).await
            };
            if !self.uncancelled(wait_and_ask).await? {
                return Ok(match from {
                    0 => Sent::NotBegun,
                    _ => Sent::Lost,
                });
            }
            self.report(session.acknowledged);
            if session.acknowledged > from {
                course.patience.progress();
            }
        }
        self.finish(session, body, course).await
    }

    /// The content from byte `offset` on; what is before is only hashed.
    async fn body_from(&self, offset: u64) -> Result<Body, Error> {
        let piece = PIECE.min(usize::try_from(self.content.size()).unwrap_or(PIECE));
        let place = self.connection().place();
        let mut feed = Feed::start(place, Arc::clone(&self.content), piece, PIECES);
        feed.skip(offset).await?;
        Ok(Body::new(feed, offset))
    }

    /// Sends a chunk. If the transfer is called off, the chunk is given a moment to arrive: that
    /// keeps the session alive.
    async fn patch(
        &self,
        session: &mut Session,
        body: &Body,
        end: u64,
        ranged: bool,
    ) -> Result<Said, Error> {
        let connection = self.connection();
        // A request is not begun before there is something to send, lest its token grow old.
        self.uncancelled(body.fill()).await?;
        let said = {
            let sending = session.patch(connection, body, end, ranged);
            tokio::pin!(sending);
            tokio::select! {
                said = &mut sending => Some(said),
                () = self.cancel.cancelled() => {
                    let last = tokio::time::timeout(LAST_CHUNK, &mut sending).await;
                    last.ok().filter(|said| matches!(said, Said::Has(_)))
                }
            }
        };
        if let Some(error) = body.error() {
            return Err(error);
        }
        if self.cancel.is_cancelled() {
            if let Some(Said::Has(count)) = said {
                session.acknowledged = count;
                self.journal.note(&entry(session, None))?;
            }
            return Err(pool::interrupted(connection.place()));
        }
        said.ok_or_else(|| pool::interrupted(connection.place()))
    }

    /// Whether the content is what it was said to be.
    fn check(&self, digest: &Digest) -> Result<(), Error> {
        match self.known {
            Some(known) if known != *digest => Err(Error::NotExpected {
                uri: self.repository.named(&known.to_string()),
                reason: format!("what was to be sent has the digest {digest}"),
            }),
            _ => Ok(()),
        }
    }

    fn connection(&self) -> &Connection {
        &self.repository.connection
    }

    async fn uncancelled<R>(
        &self,
        work: impl Future<Output = Result<R, Error>>,
    ) -> Result<R, Error> {
        pool::unless_cancelled(self.connection().place(), self.cancel, work).await
    }

    /// The registry has this many bytes.
    fn report(&self, acknowledged: u64) {
        let before = self.counted.fetch_max(acknowledged, Relaxed);
        if acknowledged > before {
            self.counter.bytes(acknowledged - before);
        }
    }
}

/// What an earlier process left of an upload.
enum Left {
    /// It was complete, which that process did not live to hear.
    Complete(Digest),
    /// The registry knows of it.
    Session(Session),
}

fn entry(session: &Session, digest: Option<Digest>) -> Entry {
    Entry {
        url: session.url.to_string(),
        acknowledged: session.acknowledged,
        limits: session.limits,
        digest,
    }
}

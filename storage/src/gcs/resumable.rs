//! Bringing a big content in chunks, continued where an earlier process was killed.
//!
//! The journal holds the URL of the upload session, which lets anyone write who knows it: it is
//! told nowhere else. It also holds the SHA-256 of every chunk, noted before it is sent. The server
//! is asked how much it has; if the content before that still has the noted hashes, the rest is
//! sent, else the upload is begun anew.

mod folder;

use std::collections::{BTreeMap, BTreeSet};

use mlwm_spec::Digest;
use reqwest::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use reqwest::{Method, Response};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Gcs;
use super::listing::ObjectRecord;
use super::wire::Ask;
use crate::progress::Counter;
use crate::transfer::feed::{Feed, Piece};
use crate::transfer::http::{Refusal, encode};
use crate::transfer::journal::Journal;
use crate::transfer::object::Getter;
use crate::transfer::retry::{Failure, Patience, persist};
use crate::transfer::stall::StallWatch;
use crate::transfer::upload::{BEGINNINGS, Sending};
use crate::{Error, Uri, pool};

/// Chunks that are in memory: one is sent, the others are read meanwhile.
const CHUNKS: usize = 3;

/// What an upload was begun with.
#[derive(Serialize, Deserialize)]
struct Begun {
    gcs_session: String,
    chunk_bytes: u64,
}

/// A chunk is about to be sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Note {
    offset: u64,
    sha256: Digest,
}

/// What the server has of an upload.
enum State {
    /// The bytes before this one.
    Has(u64),
    /// All, and the object is there.
    Done { generation: Option<String> },
    /// It does not know the session any more.
    Gone,
    /// Another object has the name.
    Taken,
    /// What it has is not what the content begins with now.
    Differs,
}

/// An upload session.
struct Session<'a> {
    gcs: &'a Gcs,
    uri: &'a Uri,
    url: String,
    size: u64,
}

/// What the journal knows of the chunks of an upload.
struct Ledger<'a> {
    journal: &'a Journal,
    chunk_bytes: u64,
    known: BTreeMap<u64, BTreeSet<Digest>>,
}

impl Ledger<'_> {
    /// Whether this chunk, and no other, can have been sent before.
    fn has(&self, offset: u64, sha256: Digest) -> bool {
        let known = self.known.get(&offset);
        known.is_some_and(|known| known.len() == 1 && known.contains(&sha256))
    }
}

impl Gcs {
    /// Brings the content to `uri`, where nothing or the same may be.
    pub(crate) async fn upload_content(
        &self,
        uri: &Uri,
        sending: &Sending<'_>,
    ) -> Result<Digest, Error> {
        if sending.content.size() <= self.chunk {
            let sent = sending.send_whole(self.chunk, |bytes| self.create(uri, bytes));
            return match sent.await? {
                Some(digest) => Ok(digest),
                None => self.compare(uri, sending).await,
            };
        }
        let journal = sending.journal(self.endpoint(), &sending.content.fingerprint())?;
        for _ in 0..BEGINNINGS {
            let (session, ledger, state) = match self.take_up(uri, sending, &journal).await? {
                Some(taken_up) => taken_up,
                None => match self.head(uri).await? {
                    Some(_) => break,
                    None => self.begin(uri, sending, &journal).await?,
                },
            };
            let (digest, state) = match state {
                State::Has(offset) => {
                    let mut feed = sending.feed(usize_of(ledger.chunk_bytes), CHUNKS);
                    let state = session
                        .send(
                            &mut feed,
                            offset,
                            Some(&ledger),
                            sending.counter,
                            sending.cancel,
                        )
                        .await?;
                    match state {
                        State::Done { .. } => (Some(feed.finish().await?), state),
                        _ => (None, state),
                    }
                }
                other => (None, other),
            };
            match (digest, state) {
                (Some(digest), _) => {
                    journal.finish()?;
                    return Ok(digest);
                }
                (None, State::Done { .. } | State::Taken) => break,
                (None, State::Differs) => {
                    self.end_session(uri, sending, &session.url).await?;
                    journal.clear()?;
                }
                (None, State::Gone | State::Has(_)) => {}
            }
        }
        journal.finish()?;
        self.compare(uri, sending).await
    }

    /// Ends an upload that is not to be continued.
    pub(crate) async fn abandon(
        &self,
        uri: &Uri,
        sending: &Sending<'_>,
        fingerprint: &str,
    ) -> Result<(), Error> {
        let journal = sending.journal(self.endpoint(), fingerprint)?;
        if let Some((begun, _)) = journal.read::<Begun, Note>()? {
            self.end_session(uri, sending, &begun.gcs_session).await?;
        }
        journal.finish()
    }

    async fn end_session(
        &self,
        uri: &Uri,
        sending: &Sending<'_>,
        session: &str,
    ) -> Result<(), Error> {
        let limit = self.limits.retry_for;
        persist(&sending.place, limit, sending.cancel, || {
            self.call_off(uri, session)
        })
        .await
    }

    async fn call_off(&self, uri: &Uri, session: &str) -> Result<(), Failure> {
        let ask = Ask::session(Method::DELETE, uri, session);
        match self.ask(ask, &StallWatch::new(self.limits.stall)).await {
            Ok(_) => Ok(()),
            // 499 is the answer to success; an emulator knows no such request.
            Err(refusal) if matches!(refusal.status, 404 | 410 | 499 | 501) => Ok(()),
            Err(refusal) => Err(refusal.failure),
        }
    }

    /// Opens a session and calls it off: whether it may be done.
    pub(crate) async fn try_upload(&self, uri: &Uri) -> Result<(), Failure> {
        let session = self.open_session(uri, 0, "").await?;
        // Otherwise Google forgets it by itself.
        let _ = self.call_off(uri, &session).await;
        Ok(())
    }

    /// Continues what the journal knows.
    async fn take_up<'a>(
        &'a self,
        uri: &'a Uri,
        sending: &Sending<'_>,
        journal: &'a Journal,
    ) -> Result<Option<(Session<'a>, Ledger<'a>, State)>, Error> {
        let Some((begun, notes)) = journal.read::<Begun, Note>()? else {
            return Ok(None);
        };
        let mut ledger = Ledger {
            journal,
            chunk_bytes: begun.chunk_bytes,
            known: BTreeMap::new(),
        };
        for Note { offset, sha256 } in notes {
            ledger.known.entry(offset).or_default().insert(sha256);
        }
        let session = Session {
            gcs: self,
            uri,
            url: begun.gcs_session,
            size: sending.content.size(),
        };
        let limit = self.limits.retry_for;
        let state = persist(&sending.place, limit, sending.cancel, || session.state()).await?;
        match state {
            State::Gone => Ok(None),
            state => Ok(Some((session, ledger, state))),
        }
    }

    async fn begin<'a>(
        &'a self,
        uri: &'a Uri,
        sending: &Sending<'_>,
        journal: &'a Journal,
    ) -> Result<(Session<'a>, Ledger<'a>, State), Error> {
        let size = sending.content.size();
        let limit = self.limits.retry_for;
        let url = persist(&sending.place, limit, sending.cancel, || {
            self.open_session(uri, size, "&ifGenerationMatch=0")
        })
        .await?;
        journal.begin(&Begun {
            gcs_session: url.clone(),
            chunk_bytes: self.chunk,
        })?;
        let ledger = Ledger {
            journal,
            chunk_bytes: self.chunk,
            known: BTreeMap::new(),
        };
        let session = Session {
            gcs: self,
            uri,
            url,
            size,
        };
        Ok((session, ledger, State::Has(0)))
    }

    /// The URL of a new session.
    async fn open_session(&self, uri: &Uri, size: u64, condition: &str) -> Result<String, Failure> {
        let name = encode(uri.key(), false);
        let query = format!("uploadType=resumable&name={name}{condition}");
        let ask = Ask::upload(uri, &query)
            .with_header(
                HeaderName::from_static("x-upload-content-type"),
                "application/octet-stream",
            )
            .with_header(
                HeaderName::from_static("x-upload-content-length"),
                &size.to_string(),
            );
        let answer = self.ask(ask, &StallWatch::new(self.limits.stall)).await?;
        let url = answer.headers().get(LOCATION);
        let url = url.and_then(|url| url.to_str().ok()).map(ToOwned::to_owned);
        url.ok_or_else(|| {
            let place = uri.to_string();
            let error = self
                .peer(&place)
                .service("it opened no upload session".to_owned());
            Failure::permanent(error)
        })
    }

    async fn compare(&self, uri: &Uri, sending: &Sending<'_>) -> Result<Digest, Error> {
        match self.head(uri).await? {
            Some(found) => sending.compare(&self.object(uri), found.size).await,
            None => Err(self
                .peer(&sending.place)
                .service("it forgets uploads that are under way".to_owned())),
        }
    }
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Session<'_> {
    /// Sends what the feed has from byte `from` on, which is as much as the server has, if the
    /// chunks before are those that the ledger knows.
    async fn send(
        &self,
        feed: &mut Feed,
        from: u64,
        ledger: Option<&Ledger<'_>>,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<State, Error> {
        let place = self.uri.to_string();
        let work = async {
            let mut patience = Patience::new(self.gcs.limits.retry_for);
            while let Some(piece) = feed.next().await? {
                if let Some(ledger) = ledger {
                    let (offset, sha256) = (piece.offset, piece.sha256(&place).await?);
                    if offset >= from {
                        ledger.journal.note(&Note { offset, sha256 })?;
                    } else if !ledger.has(offset, sha256) {
                        return Ok(State::Differs);
                    }
                }
                if piece.end() <= from {
                    continue;
                }
                let piece = piece.starting_at(from);
                match piece.offset == from {
                    true => counter.reach_kept(from),
                    false => counter.reach(piece.offset),
                }
                match self.send_piece(piece, &mut patience).await? {
                    State::Has(_) => {}
                    other => {
                        if matches!(other, State::Done { .. }) {
                            counter.reach(self.size);
                        }
                        return Ok(other);
                    }
                }
            }
            // The server has all bytes, and has not said that it is done.
            Ok(State::Gone)
        };
        pool::unless_cancelled(self.uri, cancel, work).await
    }

    /// Sends one piece until the server has all of it.
    async fn send_piece(&self, piece: Piece, patience: &mut Patience) -> Result<State, Error> {
        let end = piece.end();
        let mut from = piece.offset;
        loop {
            let mut rest = piece.bytes.clone();
            drop(rest.split_to(usize::try_from(from - piece.offset).unwrap_or_default()));
            let range = format!("bytes {from}-{}/{}", end - 1, self.size);
            let ask = Ask::session(Method::PUT, self.uri, &self.url)
                .with_header(CONTENT_RANGE, &range)
                .with_body(rest, "application/octet-stream");
            let mut answer = self.put(ask).await;
            let state = loop {
                match answer {
                    Ok(state) => break state,
                    Err(failure) => patience.after(failure).await?,
                }
                answer = self.state().await;
            };
            match state {
                State::Has(reached) if reached >= end => {
                    patience.progress();
                    return Ok(State::Has(reached));
                }
                State::Has(reached) if reached > from => {
                    patience.progress();
                    from = reached;
                }
                State::Has(reached) if reached >= piece.offset => {
                    let place = self.uri.to_string();
                    let error = self.gcs.peer(&place).service("it takes nothing".to_owned());
                    patience.after(Failure::transient(error)).await?;
                    from = reached;
                }
                // It has lost what it had before: whoever holds the content begins again there.
                other => return Ok(other),
            }
        }
    }

    /// Asks how much the server has.
    async fn state(&self) -> Result<State, Failure> {
        let range = format!("bytes */{}", self.size);
        let ask = Ask::session(Method::PUT, self.uri, &self.url).with_header(CONTENT_RANGE, &range);
        self.put(ask).await
    }

    async fn put(&self, ask: Ask<'_>) -> Result<State, Failure> {
        let watch = StallWatch::new(self.gcs.limits.stall);
        match self.gcs.ask(ask, &watch).await {
            Ok(answer) if answer.status().as_u16() == 308 => Ok(State::Has(received(&answer))),
            Ok(answer) => {
                let place = self.uri.to_string();
                let record: ObjectRecord = self.gcs.json(&place, answer, &watch).await?;
                Ok(State::Done {
                    generation: record.generation,
                })
            }
            Err(Refusal {
                status: 404 | 410, ..
            }) => Ok(State::Gone),
            Err(refusal) if refusal.is(412) => Ok(State::Taken),
            Err(refusal) => Err(refusal.failure),
        }
    }
}

/// How much the server has, from `Range: bytes=0-<last>`.
fn received(answer: &Response) -> u64 {
    let last = answer
        .headers()
        .get(RANGE)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes=0-")?.parse().ok());
    match last {
        // An emulator says this for nothing. Google never has a single byte of a larger object.
        None | Some(0) => 0,
        Some(last) => u64::saturating_add(last, 1),
    }
}

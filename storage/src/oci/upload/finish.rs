//! The request that ends an upload, after all chunks or with the whole blob.

use super::session::{Body, Session};
use super::{Course, LOSSES, SMALL_CHUNK, Sent, Upload, entry};
use crate::Error;
use crate::transfer::http::Refusal;

impl Upload<'_> {
    /// Ends an upload of which the registry has everything.
    pub(super) async fn finish(
        &self,
        mut session: Session,
        body: Option<Body>,
        course: &mut Course,
    ) -> Result<Sent, Error> {
        let body = match body {
            Some(body) => body,
            None => {
                self.uncancelled(self.body_from(self.content.size()))
                    .await?
            }
        };
        let digest = self.uncancelled(body.digest()).await?;
        self.check(&digest)?;
        self.journal.note(&entry(&session, Some(digest)))?;
        let work = async {
            loop {
                let put = session.put(self.connection(), &digest, None, self.content.size());
                let Err(refusal) = put.await else {
                    return Ok(Sent::Complete(digest));
                };
                // It may have arrived, and the answer not.
                if self.repository.blob_size(&digest).await?.is_some() {
                    return Ok(Sent::Complete(digest));
                }
                if refusal.is(404) || refusal.has_code("DIGEST_INVALID") {
                    return Ok(Sent::Spoilt(refusal.failure));
                }
                // What will not pass is the error.
                course.patience.after(refusal.failure).await?;
                let there = self.ask(&mut session, &mut course.patience).await?;
                if !there || session.acknowledged < self.content.size() {
                    return Ok(Sent::Lost);
                }
            }
        };
        self.uncancelled(work).await
    }

    /// Sends everything with the request that ends the upload.
    pub(super) async fn put_whole(
        &self,
        mut session: Session,
        course: &mut Course,
    ) -> Result<Sent, Error> {
        let size = self.content.size();
        let hashed = self.uncancelled(self.body_from(size)).await?;
        let digest = self.uncancelled(hashed.digest()).await?;
        self.check(&digest)?;
        let work = async {
            loop {
                let body = self.body_from(0).await?;
                let put = session.put(self.connection(), &digest, Some(&body), size);
                let put = put.await;
                if let Some(error) = body.error() {
                    return Err(error);
                }
                // It may have arrived, and the answer not.
                let arrived = match &put {
                    Ok(()) => true,
                    Err(_) => self.repository.blob_size(&digest).await?.is_some(),
                };
                let Err(Refusal { failure, .. }) = put else {
                    self.report(size);
                    return Ok(Sent::Complete(digest));
                };
                if arrived {
                    self.report(size);
                    return Ok(Sent::Complete(digest));
                }
                // A long way that broke at its end is no reason to give up, the first times.
                if body.position() > SMALL_CHUNK && course.losses < LOSSES {
                    course.losses += 1;
                    course.patience.progress();
                }
                course.patience.after(failure).await?;
                session = self.begin().await?;
            }
        };
        self.uncancelled(work).await
    }
}

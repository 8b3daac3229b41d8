//! The zips of an OCI registry: one blob each, or several if they are large (`docs/registries.md`
//! §9).

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use mlwm_spec::{ArtifactName, Digest};
use mlwm_storage::oci::Repository;
use mlwm_storage::{ByteRange, Content, Expected, Journals, Progress, ProgressEvent};

use super::Oci;
use super::spans::{Part, Span, Whole, spans};
use crate::manifest::ArtifactManifest;
use crate::registry::blocking;
use crate::transfers::Ticket;
use crate::{Error, Publication};

/// The parts of the zips that were sent or looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownParts(Arc<Mutex<ByZip>>);

/// By name and digest of the zip.
type ByZip = HashMap<(ArtifactName, Digest), Arc<[Part]>>;

impl KnownParts {
    pub(super) fn keep(&self, name: &ArtifactName, zip: Digest, parts: &[Part]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((name.clone(), zip), parts.into());
    }

    pub(super) fn get(&self, name: &ArtifactName, zip: Digest) -> Option<Arc<[Part]>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(name.clone(), zip)).cloned()
    }
}

impl Oci {
    /// The blobs of the zip of a publication.
    async fn parts(&self, publication: &Publication) -> Result<Arc<[Part]>, Error> {
        let (name, zip) = (&publication.name, publication.digest);
        if let Some(parts) = self.known_parts.get(name, zip) {
            return Ok(parts);
        }
        let repository = self.repository(name.as_str())?;
        let bytes = self.manifest_of(&repository, publication).await?;
        let manifest = ArtifactManifest::parse(&bytes).map_err(|why| Error::BadRecord {
            record: self.named(name, &publication.tag),
            why,
        })?;
        self.known_parts.keep(name, zip, &manifest.parts);
        Ok(manifest.parts.into())
    }

    pub(crate) async fn range(
        &self,
        publication: &Publication,
        range: ByteRange,
    ) -> Result<Vec<u8>, Error> {
        let repository = self.repository(publication.name.as_str())?;
        let (mut start, mut left) = match range {
            ByteRange::From { start, length } => {
                (start, length.min(publication.size.saturating_sub(start)))
            }
            ByteRange::Last(count) => {
                let count = count.min(publication.size);
                (publication.size - count, count)
            }
        };
        let mut bytes = Vec::new();
        for (digest, size) in self.parts(publication).await?.iter() {
            if start >= *size {
                start -= size;
                continue;
            }
            let length = left.min(size - start);
            if length == 0 {
                break;
            }
            let range = ByteRange::From { start, length };
            bytes.extend_from_slice(&repository.read_blob_range(digest, range).await?.bytes);
            (start, left) = (0, left - length);
        }
        Ok(bytes)
    }

    pub(crate) async fn download(
        &self,
        publication: &Publication,
        destination: &Path,
    ) -> Result<(), Error> {
        let repository = self.repository(publication.name.as_str())?;
        let (progress, cancel) = (&self.options.progress, &self.options.cancel);
        let parts = self.parts(publication).await?;
        let expected = Expected {
            size: publication.size,
            digest: publication.digest,
        };
        Ok(repository
            .download_blobs(&parts, &expected, destination, progress, cancel)
            .await?)
    }

    /// Whether a zip of this size is sent in several parts.
    pub(crate) fn is_split(&self, size: u64) -> bool {
        spans(size, self.options.oci.chunk_bytes).len() > 1
    }

    /// Sends a zip, or what of it the registry has not, in the parts that a publication of it has
    /// already if there is one. Gives its digest.
    pub(crate) async fn upload(
        &self,
        name: &ArtifactName,
        content: Arc<dyn Content>,
        known: Option<Digest>,
        journals: &Journals,
        ticket: &mut Ticket,
    ) -> Result<Digest, Error> {
        let repository = self.repository(name.as_str())?;
        let (progress, cancel) = (&self.options.progress, &self.options.cancel);
        let size = content.size();
        let published = known.and_then(|zip| self.known_parts.get(name, zip));
        let published = published.as_deref().unwrap_or_default();
        let spans = match published {
            [] => spans(size, self.options.oci.chunk_bytes),
            parts => one_after_another(parts),
        };
        if spans.len() == 1 {
            let zip = repository
                .upload_blob(content, known.as_ref(), journals, progress, cancel)
                .await?;
            self.known_parts.keep(name, zip, &[(zip, size)]);
            return Ok(zip);
        }
        let whole = Whole::of(content);
        let mut parts = Vec::new();
        let kept = Arc::new(AtomicU64::new(0));
        for (index, (start, length)) in spans.into_iter().enumerate() {
            let noted = ticket.state.parts.get(index).copied();
            let noted = noted.or(published.get(index).map(|(digest, _)| *digest));
            let span = || whole.span(start, length);
            let part = match noted {
                Some(part) if self.is_there(&repository, part, span()).await? => {
                    kept.fetch_add(length, Relaxed);
                    part
                }
                _ => {
                    let progress = of_whole(progress, start, size, &kept);
                    self.send_part(&repository, span(), journals, &progress)
                        .await?
                }
            };
            if published
                .get(index)
                .is_some_and(|(there, _)| *there != part)
            {
                return Err(Error::Damaged {
                    publication: crate::registry::named(&self.root.to_string(), name, None),
                    why: "the parts of a zip are not those of its publication: remove that"
                        .to_owned(),
                });
            }
            ticket.part_arrived(index, part)?;
            parts.push((part, length));
        }
        let zip = whole
            .digest()
            .ok_or_else(|| Error::Broken("a zip was not read to its end".to_owned()))?;
        self.known_parts.keep(name, zip, &parts);
        Ok(zip)
    }

    /// Whether the registry has a part with this digest, and it is what the zip has here.
    async fn is_there(
        &self,
        repository: &Repository,
        part: Digest,
        span: Span,
    ) -> Result<bool, Error> {
        if repository.blob_size(&part).await? != Some(span.size()) {
            return Ok(false);
        }
        Ok(blocking(move || span.hash()).await? == part)
    }

    /// Sends a part. One that arrived in an earlier run, which was killed before it knew, is not
    /// sent again, but read for the digest of the whole.
    async fn send_part(
        &self,
        repository: &Repository,
        span: Span,
        journals: &Journals,
        progress: &Progress,
    ) -> Result<Digest, Error> {
        let span = Arc::new(span);
        let cancel = &self.options.cancel;
        let sending = repository.upload_blob(span.clone(), None, journals, progress, cancel);
        let part = sending.await?;
        if span.is_hashed() || blocking(move || span.hash()).await? == part {
            return Ok(part);
        }
        let reason = "the zip has changed since a part of it was sent: push it again".to_owned();
        Err(Error::local("read", "the zip to be sent")(
            io::Error::other(reason),
        ))
    }
}

/// Shows how far one part has come as progress of the whole zip.
/// `kept` is how much of it was there before.
fn of_whole(progress: &Progress, start: u64, size: u64, kept: &Arc<AtomicU64>) -> Progress {
    let (progress, kept) = (progress.clone(), Arc::clone(kept));
    let kept_before = kept.load(Relaxed);
    Progress::new(move |event| {
        progress.report(ProgressEvent {
            done_bytes: start + event.done_bytes,
            kept_bytes: kept_before + event.kept_bytes,
            total_bytes: size,
            ..event
        });
        kept.store(kept_before + event.kept_bytes, Relaxed);
    })
}

/// First byte and length of parts.
fn one_after_another(parts: &[Part]) -> Vec<(u64, u64)> {
    let mut start = 0;
    let span = |(_, length): &Part| {
        let span = (start, *length);
        start += length;
        span
    };
    parts.iter().map(span).collect()
}

//! An artifact on its way into a registry: where its bytes come from, and what it is.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use mlwm_artifacts::{Artifact, FileSource, Packed, Packing, ReadAt};
use mlwm_spec::{ArtifactName, Digest};
use mlwm_storage::{Content, FileContent};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::stopping::{Stopping, unless_stopped};

/// Pieces of a zip that is being packed which wait to be sent.
const WAITING: usize = 4;

/// Pieces are of this many bytes.
const PIECE: usize = 1 << 20;

/// Where the bytes of the zip come from.
#[derive(Clone)]
pub enum PushContent {
    /// A zip on this machine.
    File(PathBuf),
    /// An artifact that is packed on its way, without a copy on this machine.
    Packing(Arc<Packing>),
    /// A zip that lies elsewhere, such as in a bundle.
    Stored(StoredZip),
}

/// A zip that lies elsewhere.
#[derive(Clone)]
pub struct StoredZip {
    /// What errors call it.
    pub label: String,
    /// Its bytes, to be sent.
    pub content: Arc<dyn Content>,
    /// Its bytes, to be looked at.
    pub source: Arc<dyn ReadAt>,
    /// What its digest is said to be.
    pub digest: Digest,
}

impl std::fmt::Debug for PushContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Packing(packing) => f.debug_tuple("Packing").field(&packing.name()).finish(),
            Self::Stored(zip) => f.debug_tuple("Stored").field(&zip.label).finish(),
        }
    }
}

/// An artifact on its way into a registry.
#[derive(Clone)]
pub(crate) struct Outgoing {
    /// What errors call it.
    pub(crate) label: String,
    /// What the artifact calls itself.
    pub(crate) own_name: ArtifactName,
    pub(crate) content: Arc<dyn Content>,
    /// Its digest, where it is known without reading it.
    pub(crate) known: Option<Digest>,
    facts: Facts,
    stop: CancellationToken,
}

#[derive(Clone)]
enum Facts {
    Artifact(Arc<Artifact>),
    Packing(Arc<PackingContent>),
}

/// What is known of an artifact that was sent or read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) digest: Digest,
    pub(crate) set_digest: Digest,
    pub(crate) files: u64,
}

impl Outgoing {
    /// Looks at what is to be sent. Reads the end of a zip, and nothing of a packing. All that is
    /// read here ends early when `stop` is cancelled.
    pub(crate) fn of(content: PushContent, stop: CancellationToken) -> Result<Self, Error> {
        let (label, content, source, known): (_, Arc<dyn Content>, Arc<dyn ReadAt>, _) =
            match content {
                PushContent::File(path) => {
                    let source = FileSource::open(&path)?;
                    let content = Arc::new(FileContent::open(&path)?);
                    (path.display().to_string(), content, Arc::new(source), None)
                }
                PushContent::Stored(zip) => (zip.label, zip.content, zip.source, Some(zip.digest)),
                PushContent::Packing(packing) => return Self::packing(packing, stop),
            };
        let source = Arc::new(Stopping::new(source, &stop));
        let artifact = unless_stopped(&stop, Artifact::from_source(source, &label))?;
        if artifact.set_digest().is_none() {
            return Err(Error::NoHashes { zip: label });
        }
        Ok(Self {
            label,
            own_name: artifact.name().parse()?,
            content,
            known,
            facts: Facts::Artifact(Arc::new(artifact)),
            stop,
        })
    }

    fn packing(packing: Arc<Packing>, stop: CancellationToken) -> Result<Self, Error> {
        let content = Arc::new(PackingContent {
            fingerprint: format!("packing {}", packing.fingerprint()?),
            packing,
            packed: Arc::default(),
        });
        Ok(Self {
            label: format!("the artifact `{}`", content.packing.name()),
            own_name: content.packing.name().parse()?,
            known: None,
            facts: Facts::Packing(Arc::clone(&content)),
            content,
            stop,
        })
    }

    /// Its digest, for which all of it is read if need be.
    pub(crate) fn digest(&self) -> Result<Digest, Error> {
        match (self.known, &self.facts) {
            (Some(digest), _) => Ok(digest),
            (None, Facts::Artifact(artifact)) => unless_stopped(&self.stop, artifact.digest()),
            (None, Facts::Packing(content)) => Ok(content.packed(&self.stop)?.digest),
        }
    }

    /// Checks every byte of a zip. A packing has nothing that could be damaged.
    pub(crate) fn verify(&self) -> Result<(), Error> {
        if let Facts::Artifact(artifact) = &self.facts {
            unless_stopped(&self.stop, artifact.verify())?;
        }
        Ok(())
    }

    /// What it is, if the bytes that were sent have its digest.
    pub(crate) fn known(&self, sent: Digest) -> Result<Known, Error> {
        let expected = self.digest()?;
        let (set_digest, files) = match &self.facts {
            Facts::Artifact(artifact) => {
                let set_digest = artifact.set_digest().ok_or_else(|| Error::NoHashes {
                    zip: self.label.clone(),
                })?;
                (set_digest, artifact.files().len())
            }
            Facts::Packing(content) => {
                let packed = content.packed(&self.stop)?;
                (packed.set_digest, packed.files.len())
            }
        };
        if expected != sent {
            return Err(Error::Changed {
                zip: self.label.clone(),
                expected,
                sent,
            });
        }
        Ok(Known {
            digest: sent,
            set_digest,
            files: files as u64,
        })
    }

    /// A reader of the zip from its first byte.
    pub(crate) fn open(&self) -> Result<impl Read + Send, Error> {
        let opened = self.content.open();
        let opened = opened.map_err(Error::local("read", &self.label))?;
        Ok(Stopping::new(opened, &self.stop))
    }
}

/// An artifact that is packed while it is read.
struct PackingContent {
    packing: Arc<Packing>,
    fingerprint: String,
    /// What came of packing it, once it was read to its end.
    packed: Arc<Mutex<Option<Packed>>>,
}

impl PackingContent {
    /// What comes of packing it, for which it is packed to nowhere if need be.
    fn packed(&self, stop: &CancellationToken) -> Result<Packed, Error> {
        let known = || {
            let packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
            packed.clone()
        };
        if let Some(packed) = known() {
            return Ok(packed);
        }
        let mut nowhere = Stopping::new(io::sink(), stop);
        let packed = unless_stopped(stop, self.packing.write_to(&mut nowhere))?;
        let mut kept = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(packed.clone());
        Ok(packed)
    }
}

impl Content for PackingContent {
    fn size(&self) -> u64 {
        self.packing.size()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Packs on a thread; what is not read holds it up, and it ends when the reader is dropped.
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let (pieces, reader) = mpsc::sync_channel(WAITING);
        let (empty, emptied) = mpsc::channel();
        let (packing, packed) = (Arc::clone(&self.packing), Arc::clone(&self.packed));
        std::thread::Builder::new()
            .name("packing".to_owned())
            .spawn(move || {
                let mut pipe = Pipe {
                    pieces,
                    emptied,
                    filling: Vec::new(),
                };
                match packing.write_to(&mut pipe) {
                    Ok(outcome) => {
                        *packed.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                        // An empty piece says that all is well.
                        let _ = pipe.pieces.send(Ok(Vec::new()));
                    }
                    Err(error) => {
                        let _ = pipe.pieces.send(Err(io::Error::other(error)));
                    }
                }
            })?;
        Ok(Box::new(Outlet {
            pieces: reader,
            empty,
            piece: Vec::new(),
            at: 0,
            ended: false,
        }))
    }
}

/// The end of a pipe that is written to. Buffers come back to it when they were read.
struct Pipe {
    pieces: mpsc::SyncSender<io::Result<Vec<u8>>>,
    emptied: mpsc::Receiver<Vec<u8>>,
    filling: Vec<u8>,
}

impl Pipe {
    fn send(&mut self) -> io::Result<()> {
        let next = self
            .emptied
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(PIECE));
        let full = std::mem::replace(&mut self.filling, next);
        self.pieces
            .send(Ok(full))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.filling.len());
        self.filling.extend_from_slice(&bytes[..count]);
        if self.filling.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.filling.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}

/// The end of a pipe that is read.
struct Outlet {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    empty: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Outlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended {
            let mut read = std::mem::take(&mut self.piece);
            read.clear();
            // The writer may have ended.
            let _ = self.empty.send(read);
            self.at = 0;
            let lost = || io::Error::other("the thread that packs ended");
            self.piece = self.pieces.recv().map_err(|_| lost())??;
            self.ended = self.piece.is_empty();
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_carries_everything_in_few_buffers_and_ends_when_its_reader_does() {
        let (pieces, reader) = mpsc::sync_channel(WAITING);
        let (empty, emptied) = mpsc::channel();
        let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|at| (at % 251) as u8).collect();
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || {
            let mut pipe = Pipe {
                pieces,
                emptied,
                filling: Vec::new(),
            };
            pipe.write_all(&sent)?;
            pipe.flush()?;
            let _ = pipe.pieces.send(Ok(Vec::new()));
            loop {
                pipe.write_all(&[0; 1000])?;
            }
        });
        let mut outlet = Outlet {
            pieces: reader,
            empty,
            piece: Vec::new(),
            at: 0,
            ended: false,
        };
        let mut read = Vec::new();
        outlet.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(outlet.read(&mut [0; 8]).unwrap(), 0);
        drop(outlet);
        let ended: io::Result<()> = writer.join().unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

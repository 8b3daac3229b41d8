//! Writing the zip: one pass over the sources, the same bytes for the same contents (format §5).
//!
//! A thread reads the sources and sends what it read three ways: to the hash of the member, to the
//! hash of the whole zip, and to the caller's thread, which writes it. Nothing is read twice and
//! nothing is read back, so that the zip can go to a file or straight to a registry.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use mlwm_spec::Digest;
use tempfile::TempDir;

use crate::build::BuildRequest;
use crate::error::{Error, io_error};
use crate::form::{Placed, Plan};
use crate::framing::MAX_MEMBERS;
use crate::hashing::digest_of;
use crate::hashing::{Lane, Piece, Pool};
use crate::input::Input;
use crate::layout::ARTIFACT_YAML;
use crate::pickle::Checkpoint;
use crate::record::{FileEntry, Record, RecordedFile};

/// Where the bytes of a member come from.
#[derive(Debug)]
pub(crate) enum Content {
    /// A file that was given.
    File(Input),
    /// A file that was made out of another for this packing.
    Extracted(PathBuf),
    /// The text of a file that was given, or made out of it.
    Text(String, Input),
}

impl Content {
    fn size(&self) -> Result<u64, Error> {
        match self {
            Self::File(input) => Ok(input.size()),
            Self::Extracted(path) => fs::metadata(path)
                .map(|metadata| metadata.len())
                .map_err(io_error("open", path)),
            Self::Text(text, _) => Ok(text.len() as u64),
        }
    }
}

/// One member that is to be packed.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    /// What a person would call its source.
    pub(crate) source: PathBuf,
    pub(crate) content: Content,
}

impl Planned {
    pub(crate) fn file(name: &str, input: Input) -> Self {
        Self {
            name: name.to_owned(),
            source: input.path().to_owned(),
            content: Content::File(input),
        }
    }

    pub(crate) fn text(name: &str, text: String, input: Input) -> Self {
        Self {
            name: name.to_owned(),
            source: input.path().to_owned(),
            content: Content::Text(text, input),
        }
    }
}

/// A file that is to be packed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// Name of the member.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// The file or dataset that it comes from; none for `artifact.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
}

/// An artifact that has been checked and is ready to be written, as often as is wanted. Its size
/// is known; its hashes are found while it is written.
#[derive(Debug)]
pub struct Packing {
    pub(crate) request: BuildRequest,
    pub(crate) checkpoint: Option<Checkpoint>,
    members: Vec<Planned>,
    /// With `artifact.yaml` last.
    plan: Plan,
    /// Holds what was extracted from the training datasets.
    _scratch: TempDir,
}

/// A written artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// SHA-256 of the zip.
    pub digest: Digest,
    /// SHA-256 over names and hashes of its files (format §3).
    pub set_digest: Digest,
    /// The files in it, `artifact.yaml` last.
    pub files: Vec<FileEntry>,
    /// Size of the zip.
    pub bytes: u64,
    /// The same artifact was already there and was left alone.
    pub unchanged: bool,
}

impl Packing {
    /// Plans a zip of these members, which are sorted by name.
    pub(crate) fn new(
        request: BuildRequest,
        checkpoint: Option<Checkpoint>,
        members: Vec<Planned>,
        scratch: TempDir,
    ) -> Result<Self, Error> {
        let mut sizes = Vec::with_capacity(members.len() + 1);
        for member in &members {
            sizes.push((member.name.clone(), member.content.size()?));
        }
        // Every hash is written with the same number of letters.
        let unhashed = sizes.iter().map(|(path, size)| RecordedFile {
            path: path.clone(),
            size: *size,
            sha256: Digest::of(""),
        });
        let text = Record::new(&request.name, unhashed.collect()).to_yaml()?;
        sizes.push((ARTIFACT_YAML.to_owned(), text.len() as u64));
        let too_many = Error::TooMany {
            name: request.name.clone(),
            files: sizes.len(),
            bytes: sizes
                .iter()
                .fold(0, |sum, (_, size)| sum.saturating_add(*size)),
        };
        let plan = match Plan::new(sizes) {
            Some(plan) if plan.members.len() as u64 <= MAX_MEMBERS => plan,
            _ => return Err(too_many),
        };
        Ok(Self {
            request,
            checkpoint,
            members,
            plan,
            _scratch: scratch,
        })
    }

    /// Name of the artifact.
    pub fn name(&self) -> &str {
        &self.request.name
    }

    /// Size of the zip in bytes, to the byte.
    pub fn size(&self) -> u64 {
        self.plan.size()
    }

    /// All files that go into the zip, in the order they will lie in.
    pub fn entries(&self) -> Vec<Entry> {
        let sources = self.members.iter().map(|member| Some(&member.source));
        let placed = self.plan.members.iter();
        placed
            .zip(sources.chain([None]))
            .map(|(placed, source)| Entry {
                path: placed.name.clone(),
                size: placed.size,
                source: source.cloned(),
            })
            .collect()
    }

    /// What tells these bytes from others without reading them all: equal for another [`Packing`]
    /// of the same sources, also in another process, as long as no source was written to. Made for
    /// taking up an interrupted upload.
    pub fn fingerprint(&self) -> Result<Digest, Error> {
        let mut text = format!("{}\n{}\n", env!("CARGO_PKG_VERSION"), self.request.name);
        for member in &self.members {
            let content = match &member.content {
                Content::File(input) => format!("{input:?}"),
                Content::Extracted(path) => File::open(path)
                    .and_then(digest_of)
                    .map_err(io_error("read", path))?
                    .to_string(),
                Content::Text(text, _) => Digest::of(text).to_string(),
            };
            text.push_str(&format!("{} {content}\n", member.name));
        }
        Ok(Digest::of(text))
    }

    /// What is known about the PyTorch checkpoint, if there is one.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Writes the zip. The bytes are the same wherever they go. What the sink refuses ends it.
    pub fn write_to(&self, sink: &mut dyn Write) -> Result<Packed, Error> {
        thread::scope(|scope| {
            let (pieces, to_write) = channel::<Arc<Piece>>();
            let (whole, contents) = (Lane::spawn(scope), Lane::spawn(scope));
            let reading = scope.spawn(move || {
                let output = Output {
                    packing: self,
                    whole: &whole,
                    pieces,
                };
                let (set_digest, files) = output.write(contents)?;
                let digest = whole.digest().map_err(|error| self.failed(error))?;
                Ok(Packed {
                    digest,
                    set_digest,
                    files,
                    bytes: self.size(),
                    unchanged: false,
                })
            });
            for piece in to_write {
                sink.write_all(&piece).map_err(|error| self.failed(error))?;
            }
            let lost = |_| Err(self.failed(io::Error::other("the reading thread failed")));
            let packed = reading.join().unwrap_or_else(lost)?;
            sink.flush().map_err(|error| self.failed(error))?;
            Ok(packed)
        })
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write {
            name: self.request.name.clone(),
            source,
        }
    }
}

/// Where the pieces of the zip go.
struct Output<'a, 'scope> {
    packing: &'a Packing,
    whole: &'a Lane<'scope>,
    pieces: Sender<Arc<Piece>>,
}

impl Output<'_, '_> {
    /// Sends the zip from its first to its last byte. Gives the set digest and the files.
    fn write(self, contents: Lane<'_>) -> Result<(Digest, Vec<FileEntry>), Error> {
        let Packing { members, plan, .. } = self.packing;
        let mut pool = Pool::new();
        let mut checksums = Vec::with_capacity(plan.members.len());
        for (placed, member) in plan.members.iter().zip(members) {
            self.send(Piece::of(placed.local_header()))?;
            let crc32 = self.content(placed, &member.content, &mut pool, &contents)?;
            self.send(Piece::of(placed.descriptor(crc32)))?;
            checksums.push(crc32);
        }
        let hashes = contents
            .digests()
            .map_err(|error| self.packing.failed(error))?;
        let recorded = plan.members.iter().zip(hashes);
        let recorded = recorded.map(|(placed, sha256)| RecordedFile {
            path: placed.name.clone(),
            size: placed.size,
            sha256,
        });
        let record = Record::new(self.packing.name(), recorded.collect());
        let text = record.to_yaml()?;
        for own in plan.members.iter().skip(members.len()) {
            let crc32 = crc32fast::hash(text.as_bytes());
            self.send(Piece::of(own.local_header()))?;
            self.send(Piece::of(text.clone().into_bytes()))?;
            self.send(Piece::of(own.descriptor(crc32)))?;
            checksums.push(crc32);
        }
        self.send(Piece::of(plan.tail(checksums)))?;
        Ok((record.set_digest, entries(&record, &text)))
    }

    /// Sends the content of a member; its CRC-32.
    fn content(
        &self,
        placed: &Placed,
        content: &Content,
        pool: &mut Pool,
        contents: &Lane<'_>,
    ) -> Result<u32, Error> {
        let (mut source, path): (Box<dyn Read>, &Path) = match content {
            Content::Text(text, input) => (Box::new(text.as_bytes()), input.path()),
            Content::File(input) => (Box::new(input.open()?), input.path()),
            Content::Extracted(path) => {
                let file = File::open(path).map_err(io_error("open", path))?;
                (Box::new(file), path)
            }
        };
        let mut crc32 = crc32fast::Hasher::new();
        let mut left = placed.size;
        while left > 0 {
            let piece = pool
                .read(&mut source, left)
                .map_err(io_error("read", path))?;
            if piece.is_empty() {
                return Err(Error::Changed {
                    path: path.to_owned(),
                });
            }
            left -= piece.len() as u64;
            crc32.update(&piece);
            contents.push(&piece);
            self.send(piece)?;
        }
        contents.end();
        // A source that grew or was written to was not complete when it was read.
        if let Content::File(input) | Content::Text(_, input) = content {
            input.require_unchanged()?;
        }
        Ok(crc32.finalize())
    }

    fn send(&self, piece: Arc<Piece>) -> Result<(), Error> {
        self.whole.push(&piece);
        // The writer is gone if it failed, and says why itself.
        let gone = |_| self.packing.failed(io::ErrorKind::BrokenPipe.into());
        self.pieces.send(piece).map_err(gone)
    }
}

fn entries(record: &Record, text: &str) -> Vec<FileEntry> {
    let own = FileEntry {
        path: ARTIFACT_YAML.to_owned(),
        size: text.len() as u64,
        sha256: Some(Digest::of(text)),
    };
    let others = record.files.iter().map(|file| FileEntry {
        path: file.path.clone(),
        size: file.size,
        sha256: Some(file.sha256),
    });
    others.chain([own]).collect()
}

/// All files below `folder`, as members below `prefix`; `source` is what they were made out of.
pub(crate) fn add_folder(
    members: &mut Vec<Planned>,
    folder: &Path,
    prefix: &str,
    source: &Path,
) -> Result<(), Error> {
    let entries = fs::read_dir(folder).map_err(io_error("read", folder))?;
    for entry in entries {
        let entry = entry.map_err(io_error("read", folder))?;
        let path = entry.path();
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(io_error("read", &path))?;
        if kind.is_dir() {
            add_folder(members, &path, &name, source)?;
        } else {
            members.push(Planned {
                name,
                source: source.to_owned(),
                content: Content::Extracted(path),
            });
        }
    }
    Ok(())
}

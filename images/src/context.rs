//! The build context of a plan: a tar archive, made while it is sent.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use mlwm_artifacts::Artifact;
use mlwm_spec::Digest;
use mlwm_spec::contract::ARTIFACT_DIR;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::plan::{ImagePlan, PlannedFile, Source};

/// Name of the `Containerfile` in the context.
pub(crate) const CONTAINERFILE: &str = "Containerfile";
/// Bytes that go to the engine at once, and how many such pieces may wait for it.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;

/// The context as a stream, and the thread that writes it, which says what went wrong. Neither
/// holds more than [`PIECES`] pieces, and nothing is written to disk.
pub(crate) fn stream(
    plan: ImagePlan,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    JoinHandle<Result<(), Error>>,
) {
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let writer = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces {
            sender,
            pending: BytesMut::with_capacity(PIECE),
        };
        let result = write(&plan, &mut pieces).and_then(|()| {
            pieces
                .flush()
                .map_err(|source| context_error(&plan, source))
        });
        if result.is_err() {
            // Breaks the request off, lest the engine takes half a context for a whole one.
            let broken = io::Error::other("the build context could not be made");
            let _ = pieces.sender.blocking_send(Err(broken));
        }
        result
    });
    (
        futures::stream::poll_fn(move |context| receiver.poll_recv(context)),
        writer,
    )
}

/// Writes the context: the `Containerfile`, then folders and files by path. Owners, times and modes
/// are the same on every host.
fn write(plan: &ImagePlan, output: &mut impl Write) -> Result<(), Error> {
    let failed = |source| context_error(plan, source);
    let mut archive = Builder::new(output);
    let text = plan.containerfile.as_bytes();
    archive
        .append_data(&mut header(text.len() as u64, false), CONTAINERFILE, text)
        .map_err(failed)?;
    for folder in folders(plan) {
        archive
            .append_data(&mut folder_header(), folder, io::empty())
            .map_err(failed)?;
    }
    let mut artifact = None;
    for file in &plan.files {
        append(plan, file, &mut artifact, &mut archive)?;
    }
    archive.finish().map_err(failed)
}

fn append<'a>(
    plan: &'a ImagePlan,
    file: &'a PlannedFile,
    artifact: &mut Option<Artifact>,
    archive: &mut Builder<impl Write>,
) -> Result<(), Error> {
    let reader: Box<dyn Read> = match &file.source {
        Source::File(path) => Box::new(File::open(path).map_err(|source| Error::Runner {
            path: path.clone(),
            source,
        })?),
        Source::Member {
            artifact: path,
            member,
        } => {
            let open = match artifact.take() {
                Some(open) if open.path() == path => open,
                _ => Artifact::open(path)?,
            };
            Box::new(artifact.insert(open).reader(member)?)
        }
    };
    let mut checked = Checked {
        inner: reader,
        hasher: Sha256::new(),
        size: 0,
        limit: file.size,
    };
    let mut header = header(file.size, file.executable);
    let result = archive.append_data(&mut header, &file.path, &mut checked);
    if checked.size <= file.size {
        result.map_err(|source| match &file.source {
            Source::Member { member, .. } if source.kind() != ErrorKind::BrokenPipe => {
                Error::Member {
                    member: member.clone(),
                    source,
                }
            }
            _ => context_error(plan, source),
        })?;
    }
    if checked.size != file.size || Digest::from_hasher(checked.hasher) != file.digest {
        let what = match &file.source {
            Source::File(path) => path.display().to_string(),
            Source::Member { artifact, member } => format!("{member} of {}", artifact.display()),
        };
        return Err(Error::Changed {
            what,
            reference: plan.reference.clone(),
        });
    }
    Ok(())
}

fn context_error(plan: &ImagePlan, source: io::Error) -> Error {
    Error::Context {
        reference: plan.reference.clone(),
        source,
    }
}

/// All folders above the files, and that of the artifact even where it is empty, as the
/// `Containerfile` copies it.
fn folders(plan: &ImagePlan) -> BTreeSet<String> {
    let artifact = format!("{ARTIFACT_DIR}/")
        .trim_start_matches('/')
        .to_owned();
    let paths = plan
        .files
        .iter()
        .map(|file| file.path.as_str())
        .chain([artifact.as_str()]);
    let mut found = BTreeSet::new();
    for path in paths {
        found.extend(
            path.match_indices('/')
                .map(|(end, _)| path[..=end].to_owned()),
        );
    }
    found
}

fn header(size: u64, executable: bool) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn folder_header() -> Header {
    let mut header = header(0, true);
    header.set_entry_type(EntryType::Directory);
    header
}

/// Hashes and counts what is read, but lets no more through than was planned: the header of the
/// archive has been written with that size.
struct Checked<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
    limit: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        if self.size > self.limit {
            Err(io::Error::other("it has grown"))
        } else {
            Ok(read)
        }
    }
}

/// Sends what is written in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    pending: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = self.pending.split().freeze();
        self.pending.reserve(PIECE);
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| ErrorKind::BrokenPipe.into())
    }
}

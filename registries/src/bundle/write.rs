//! Writing a bundle: each zip and each layer is read once and never held.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use mlwm_spec::Digest;
use mlwm_storage::Content;

use super::hashing::{Lane, PIECE};
use super::layout::{Blob, Layout};
use super::parts::{Place, list_path, part_path, part_sizes, parts_there};
use super::sink::{Sink, in_the_way};
use super::{Bundle, ImageSource, Source, Watch, tape};
use crate::Error;

/// A bundle that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its files: the tar, or its parts and at the end the list of them.
    pub files: Vec<PathBuf>,
    /// Size of the tar in bytes.
    pub size: u64,
    /// SHA-256 of the tar, or of all its parts in order.
    pub digest: Digest,
    /// The same bundle was already there and was left alone.
    pub unchanged: bool,
}

/// Writes a bundle of these artifacts and images to the file `destination`, or with a `part_size` to
/// parts of it with at most so many bytes. It appears whole or not at all, never replaces anything
/// else, and every zip and layer in it has the digest that it should have. Blocks; to be called
/// outside of async code.
pub fn write(
    sources: &[Source],
    images: &[ImageSource],
    destination: &Path,
    part_size: Option<u64>,
    watch: &Watch,
) -> Result<Written, Error> {
    let bad = |why: String| Error::BadBundle {
        bundle: destination.display().to_string(),
        why,
    };
    let artifacts = sources.iter().map(|source| source.artifact.clone());
    let described = images.iter().map(|source| source.image.clone());
    let layout = Layout::of(artifacts.collect(), described.collect()).map_err(bad)?;
    if let Some(part_size) = part_size {
        let _sizes = part_sizes(layout.size, part_size).map_err(bad)?;
    }
    if let Some(there) = already_there(&layout, destination, part_size, watch)? {
        return Ok(there);
    }
    let mut sink = Sink::create(destination, part_size)?;
    let mut tell = Teller::new(watch, layout.size);
    sink.write(Bytes::from(layout.head.clone()))?;
    tell.done(layout.head.len() as u64)?;
    let lane = Lane::spawn();
    let contents = contents(sources, images).map_err(bad)?;
    for blob in &layout.blobs {
        let (what, content) = contents
            .get(&blob.digest)
            .ok_or_else(|| bad(format!("it has no source for {}", blob.digest)))?;
        write_blob(&mut sink, what, content, blob, &lane, &mut tell)?;
    }
    sink.write(zeros(tape::END))?;
    let (digest, files) = sink.finish()?;
    tell.done(tape::END)?;
    Ok(Written {
        files,
        size: layout.size,
        digest,
        unchanged: false,
    })
}

/// Zips and layers by digest: what errors call each, and its bytes.
type Contents = BTreeMap<Digest, (String, Arc<dyn Content>)>;

fn contents(sources: &[Source], images: &[ImageSource]) -> Result<Contents, String> {
    let mut contents = Contents::new();
    for Source { artifact, zip } in sources {
        let what = format!("the zip of {}:{}", artifact.name, artifact.tag);
        contents.insert(artifact.digest, (what, Arc::clone(zip)));
    }
    for ImageSource { image, layers } in images {
        for ((digest, _), layer) in image.layers()?.into_iter().zip(layers) {
            let what = format!("the layer {digest} of {}", image.reference());
            contents.insert(digest, (what, Arc::clone(layer)));
        }
    }
    Ok(contents)
}

fn write_blob(
    sink: &mut Sink,
    what: &str,
    content: &Arc<dyn Content>,
    blob: &Blob,
    lane: &Lane,
    tell: &mut Teller,
) -> Result<(), Error> {
    let unreadable = |error: io::Error| Error::Unreadable {
        what: what.to_owned(),
        source: error,
    };
    sink.write(Bytes::copy_from_slice(&tape::header(
        &blob.name(),
        blob.size,
    )))?;
    let mut reader = content.open().map_err(unreadable)?;
    let mut left = blob.size;
    // One byte more than it should have tells that it has grown.
    loop {
        let piece = read_piece(&mut reader, left.saturating_add(1)).map_err(unreadable)?;
        if piece.is_empty() {
            break;
        }
        let read = piece.len() as u64;
        left = left.checked_sub(read).ok_or_else(|| {
            unreadable(io::Error::other(format!(
                "it has more than {} bytes",
                blob.size
            )))
        })?;
        lane.push(&piece);
        sink.write(piece)?;
        tell.done(read)?;
    }
    let found = lane.end()?;
    if found != blob.digest {
        return Err(Error::NotBundled {
            what: what.to_owned(),
            expected: blob.digest,
            found,
        });
    }
    // Whoever described it said another size than its content has.
    if left > 0 {
        return Err(unreadable(io::Error::other(format!(
            "it has fewer than {} bytes",
            blob.size
        ))));
    }
    let pad = tape::padding(blob.size);
    sink.write(zeros(pad))?;
    tell.done(tape::BLOCK + pad)
}

/// Looks whether the bundle is there, whole: `None` if it is not, an error if something else is.
fn already_there(
    layout: &Layout,
    destination: &Path,
    part_size: Option<u64>,
    watch: &Watch,
) -> Result<Option<Written>, Error> {
    let listed = match part_size {
        None => destination.to_owned(),
        Some(_) => list_path(destination),
    };
    match std::fs::symlink_metadata(&listed) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Some(part_size) = part_size {
                check_parts_there(layout, destination, part_size)?;
            }
            return Ok(None);
        }
        Err(error) => return Err(Error::local("look at", &listed)(error)),
        Ok(_) => {}
    }
    let place = match part_size {
        None => Place::File(destination.to_owned()),
        Some(_) => Place::Parts(destination.to_owned()),
    };
    let other = |_| in_the_way(&listed);
    let bundle = Bundle::open_place(&place).map_err(other)?;
    let sizes = |size| part_sizes(layout.size, size).ok().map(Iterator::collect);
    let expected: Option<Vec<u64>> = part_size.and_then(sizes);
    let expected = expected.unwrap_or_else(|| vec![layout.size]);
    if bundle.identity() != layout.identity || bundle.file_sizes() != expected {
        return Err(in_the_way(&listed));
    }
    let digest = bundle.verified_digest(watch).map_err(|error| match error {
        Error::BadBundle { .. } => in_the_way(&listed),
        other => other,
    })?;
    let mut files = bundle.files();
    if part_size.is_some() {
        files.push(listed);
    }
    Ok(Some(Written {
        files,
        size: layout.size,
        digest,
        unchanged: true,
    }))
}

/// Parts without a list: what a killed run left is no obstacle, other files are.
fn check_parts_there(layout: &Layout, base: &Path, part_size: u64) -> Result<(), Error> {
    let sizes: Vec<u64> = match part_sizes(layout.size, part_size) {
        Ok(sizes) => sizes.collect(),
        Err(_) => return Ok(()),
    };
    for index in parts_there(base)? {
        let path = part_path(base, index);
        let size = std::fs::metadata(&path).map_err(Error::local("look at", &path))?;
        if sizes.get(index) != Some(&size.len()) {
            return Err(in_the_way(&path));
        }
    }
    Ok(())
}

fn zeros(count: u64) -> Bytes {
    Bytes::from(vec![0; count as usize])
}

/// The next bytes of a reader, at most `limit` of them; none only at its end.
pub(super) fn read_piece(reader: &mut impl Read, limit: u64) -> io::Result<Bytes> {
    let mut piece = BytesMut::zeroed(usize::try_from(limit).map_or(PIECE, |l| l.min(PIECE)));
    let mut filled = 0;
    while filled < piece.len() {
        match reader.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece.freeze())
}

/// Counts what is done, and stops when it is called off.
pub(super) struct Teller<'a> {
    watch: &'a Watch,
    done: u64,
    total: u64,
}

impl<'a> Teller<'a> {
    pub(super) fn new(watch: &'a Watch, total: u64) -> Self {
        Self {
            watch,
            done: 0,
            total,
        }
    }

    pub(super) fn done(&mut self, bytes: u64) -> Result<(), Error> {
        if self.watch.cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        self.done += bytes;
        (self.watch.progress)(self.done, self.total);
        Ok(())
    }
}

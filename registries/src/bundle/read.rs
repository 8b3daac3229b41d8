//! Reading a bundle, which may be damaged or made to deceive.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_artifacts::ReadAt;
use mlwm_spec::Digest;
use mlwm_storage::Content;

use super::hashing::Lane;
use super::layout::{Layout, PREAMBLE, Preamble};
use super::parts::{self, PartList, Place, part_path};
use super::source::{BlobInBundle, Files, FromStart};
use super::write::{Teller, read_piece};
use super::{BundledArtifact, BundledImage, Watch, tape};
use crate::Error;

/// A bundle whose head has been read and checked: all that is known of its artifacts and images, and
/// where their zips and layers lie. These are checked when they are read to their end, or by
/// [`Bundle::verify`].
pub struct Bundle {
    /// For people.
    name: String,
    layout: Layout,
    files: Arc<Files>,
    /// Of a bundle in parts.
    list: Option<PartList>,
}

impl Bundle {
    /// Opens the bundle at `path`: the tar, or for a bundle in parts any of them, or its
    /// `.parts.json`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_place(&parts::find(path))
    }

    pub(super) fn open_place(place: &Place) -> Result<Self, Error> {
        let (name, files, list) = match place {
            Place::File(path) => {
                let files = Files::open(vec![path.clone()]);
                let files = files.map_err(|(path, error)| Error::local("read", path)(error))?;
                (path, files, None)
            }
            Place::Parts(base) => {
                let list = PartList::read(base)?;
                (base, open_parts(base, &list)?, Some(list))
            }
        };
        let name = name.display().to_string();
        let layout = read_layout(&files).map_err(|error| match error {
            Unusable::Why(why) => Error::BadBundle {
                bundle: name.clone(),
                why,
            },
            Unusable::Io(error) => Error::local("read", &name)(error),
        })?;
        Ok(Self {
            name,
            layout,
            files: Arc::new(files),
            list,
        })
    }

    /// The artifacts, ordered by name and tag.
    pub fn artifacts(&self) -> &[BundledArtifact] {
        &self.layout.artifacts
    }

    /// The images, ordered by name and tag.
    pub fn images(&self) -> &[BundledImage] {
        &self.layout.images
    }

    /// What errors call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Size in bytes; of all parts together.
    pub fn size(&self) -> u64 {
        self.layout.size
    }

    /// The tar or the parts.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.files.sizes();
        files.map(|(path, _)| path.to_owned()).collect()
    }

    /// The zip of one of its artifacts, to be sent somewhere. What reads it must compare the digest.
    pub fn content(&self, artifact: &BundledArtifact) -> Result<Arc<dyn Content>, Error> {
        Ok(Arc::new(self.blob(artifact.digest)?))
    }

    /// The zip of one of its artifacts, to be opened in the bundle.
    pub fn read_at(&self, artifact: &BundledArtifact) -> Result<Arc<dyn ReadAt>, Error> {
        Ok(Arc::new(self.blob(artifact.digest)?))
    }

    /// The layer of an image with this digest. What reads it must compare the digest.
    pub fn layer(&self, digest: Digest) -> Result<Arc<dyn Content>, Error> {
        Ok(Arc::new(self.blob(digest)?))
    }

    fn blob(&self, digest: Digest) -> Result<BlobInBundle, Error> {
        let mut blobs = self.layout.blobs.iter();
        let blob = blobs.find(|blob| blob.digest == digest);
        Ok(BlobInBundle {
            files: Arc::clone(&self.files),
            blob: *blob.ok_or_else(|| self.bad(format!("it has no {digest}")))?,
            bundle: self.layout.identity,
        })
    }

    /// Reads all of it and compares every digest: of the zips, layers, and parts. All parts that are
    /// damaged are named, so that only they have to be copied again.
    pub fn verify(&self, watch: &Watch) -> Result<(), Error> {
        self.read(watch, self.list.is_some()).map(drop)
    }

    /// The same; gives the digest of the tar, or of all parts in order.
    pub(super) fn verified_digest(&self, watch: &Watch) -> Result<Digest, Error> {
        self.read(watch, true)
    }

    /// Reads all of it; what it gives is the digest of the whole only if `is_hashed_whole`.
    fn read(&self, watch: &Watch, is_hashed_whole: bool) -> Result<Digest, Error> {
        let mut damaged_parts = Vec::new();
        let mut damaged_blobs = Vec::new();
        let marks = Marks::new(self);
        let (whole, part, blob) = (Lane::spawn(), Lane::spawn(), Lane::spawn());
        let files: Arc<dyn ReadAt> = self.files.clone();
        let mut reader = FromStart::new(files);
        let mut tell = Teller::new(watch, self.layout.size);
        while reader.at < self.layout.size {
            let in_blob = marks.in_blob(reader.at);
            let length = marks.next(reader.at) - reader.at;
            let piece =
                read_piece(&mut reader, length).map_err(Error::local("read", &self.name))?;
            if piece.is_empty() {
                return Err(self.bad("it became shorter while it was read".to_owned()));
            }
            if is_hashed_whole {
                whole.push(&piece);
            }
            if self.list.is_some() {
                part.push(&piece);
            }
            if in_blob {
                blob.push(&piece);
            }
            if let Some(expected) = marks.part_ends(reader.at)
                && part.end()? != expected.1
            {
                damaged_parts.push(expected.0);
            }
            if let Some(expected) = marks.blob_ends(reader.at)
                && blob.end()? != expected
            {
                damaged_blobs.push(expected);
            }
            tell.done(piece.len() as u64)?;
        }
        if !damaged_parts.is_empty() {
            return Err(Error::BadBundle {
                bundle: damaged_parts.join(", "),
                why: "it is not what was written: copy it again".to_owned(),
            });
        }
        if let Some(digest) = damaged_blobs.first() {
            return Err(self.bad(format!(
                "{} was changed: copy the bundle again",
                self.names_of(*digest)
            )));
        }
        let digest = whole.end()?;
        match &self.list {
            Some(list) if digest != list.digest => {
                Err(self.bad("its list of parts tells another digest of the whole".to_owned()))
            }
            _ => Ok(digest),
        }
    }

    fn names_of(&self, digest: Digest) -> String {
        let artifacts = self.layout.artifacts.iter();
        let zips = artifacts
            .filter(|artifact| artifact.digest == digest)
            .map(|artifact| format!("the zip of {}:{}", artifact.name, artifact.tag));
        let images = self.layout.images.iter();
        let layers = images
            .filter(|image| {
                let layers = image.layers().unwrap_or_default();
                layers.iter().any(|layer| layer.0 == digest)
            })
            .map(|image| format!("a layer of {}", image.reference()));
        zips.chain(layers).collect::<Vec<_>>().join(", ")
    }

    /// What stands for its whole content.
    pub(super) fn identity(&self) -> Digest {
        self.layout.identity
    }

    pub(super) fn file_sizes(&self) -> Vec<u64> {
        self.files.sizes().map(|(_, size)| size).collect()
    }

    fn bad(&self, why: String) -> Error {
        Error::BadBundle {
            bundle: self.name.clone(),
            why,
        }
    }
}

/// Opens exactly the parts that are listed.
fn open_parts(base: &Path, list: &PartList) -> Result<Files, Error> {
    let bad = |path: &Path, why: String| Error::BadBundle {
        bundle: path.display().to_string(),
        why,
    };
    if let Some(index) = parts::parts_there(base)?
        .into_iter()
        .find(|index| *index >= list.parts.len())
    {
        let count = list.parts.len();
        return Err(bad(
            &part_path(base, index),
            format!(
                "the bundle has only {count} parts: remove it, or fetch the list that belongs to it"
            ),
        ));
    }
    let paths = (0..list.parts.len()).map(|index| part_path(base, index));
    let files = Files::open(paths.collect()).map_err(|(path, error)| match error.kind() {
        std::io::ErrorKind::NotFound => bad(&path, "this part is missing: copy it here".to_owned()),
        _ => Error::local("read", path)(error),
    })?;
    for ((path, size), part) in files.sizes().zip(&list.parts) {
        if size != part.size {
            let why = format!("it has {size} bytes, not {}: copy it again", part.size);
            return Err(bad(path, why));
        }
    }
    Ok(files)
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({})", self.name)
    }
}

enum Unusable {
    Why(String),
    Io(std::io::Error),
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl From<std::io::Error> for Unusable {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads everything but the zips and layers themselves.
fn read_layout(files: &Files) -> Result<Layout, Unusable> {
    let size = files.size();
    if size < PREAMBLE {
        return Err("it is not a bundle of mlwm".to_owned().into());
    }
    let mut head = vec![0; PREAMBLE as usize];
    files.read_exact_at(&mut head, 0)?;
    let preamble = Preamble::parse(&head)?;
    if preamble.size != size {
        return Err(format!("it has {size} bytes, not {}: copy it again", preamble.size).into());
    }
    if PREAMBLE + preamble.head_size > size {
        return Err("it is shorter than its head".to_owned().into());
    }
    head.resize((PREAMBLE + preamble.head_size) as usize, 0);
    files.read_exact_at(&mut head[PREAMBLE as usize..], PREAMBLE)?;
    let layout = Layout::parse(&head)?;
    for blob in &layout.blobs {
        let mut header = [0; tape::BLOCK as usize];
        files.read_exact_at(&mut header, blob.at - tape::BLOCK)?;
        let mut after = vec![0; tape::padding(blob.size) as usize];
        files.read_exact_at(&mut after, blob.at + blob.size)?;
        if header != tape::header(&blob.name(), blob.size) || after.iter().any(|byte| *byte != 0) {
            let why = format!(
                "the entry of its {} was changed: copy it again",
                blob.digest
            );
            return Err(why.into());
        }
    }
    let mut end = [0; tape::END as usize];
    files.read_exact_at(&mut end, size - tape::END)?;
    match end.iter().all(|byte| *byte == 0) {
        true => Ok(layout),
        false => Err("its end was changed: copy it again".to_owned().into()),
    }
}

/// Where in a bundle something begins or ends that has a digest of its own.
struct Marks {
    /// Start, end and digest.
    blobs: Vec<(u64, u64, Digest)>,
    /// End, name and digest.
    parts: Vec<(u64, String, Digest)>,
    all: Vec<u64>,
}

impl Marks {
    fn new(bundle: &Bundle) -> Self {
        let blobs = bundle.layout.blobs.iter();
        let blobs: Vec<_> = blobs
            .map(|blob| (blob.at, blob.at + blob.size, blob.digest))
            .collect();
        let mut end = 0;
        let listed = bundle.list.iter().flat_map(|list| &list.parts);
        let parts: Vec<_> = listed
            .zip(bundle.files.sizes())
            .map(|(part, (path, size))| {
                end += size;
                (end, path.display().to_string(), part.digest)
            })
            .collect();
        let mut all: Vec<u64> = blobs.iter().flat_map(|blob| [blob.0, blob.1]).collect();
        all.extend(parts.iter().map(|part| part.0));
        all.push(bundle.layout.size);
        all.sort_unstable();
        Self { blobs, parts, all }
    }

    fn in_blob(&self, at: u64) -> bool {
        let next = self.blobs.partition_point(|blob| blob.1 <= at);
        self.blobs.get(next).is_some_and(|blob| blob.0 <= at)
    }

    fn next(&self, at: u64) -> u64 {
        let next = self.all.partition_point(|mark| *mark <= at);
        self.all.get(next).copied().unwrap_or(at)
    }

    fn part_ends(&self, at: u64) -> Option<(String, Digest)> {
        let found = self.parts.binary_search_by_key(&at, |part| part.0).ok()?;
        let (_, name, digest) = &self.parts[found];
        Some((name.clone(), *digest))
    }

    fn blob_ends(&self, at: u64) -> Option<Digest> {
        let found = self.blobs.binary_search_by_key(&at, |blob| blob.1).ok()?;
        Some(self.blobs[found].2)
    }
}

//! OCI image layouts: images in a folder.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use mlwm_artifacts::Receipts;
use mlwm_spec::Digest;

use crate::Error;
use crate::image::{Image, Layer, LayerSource};
use crate::leftovers;
use crate::oci::{Descriptor, Found, INDEX, Index, REF_NAME, to_json};

/// Documents that are read at once.
pub(crate) const LIMIT: u64 = 16 << 20;

/// What the name of a file begins with that is being written.
const WRITING: &str = ".writing-";

/// A folder with images.
#[derive(Clone, Debug)]
pub struct Layout {
    folder: PathBuf,
    /// What says which blobs need not be hashed again.
    receipts: Receipts,
}

impl Layout {
    /// The layout in this folder; whether there is one is seen when it is used.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            receipts: Receipts::paranoid(),
        }
    }

    /// The same; layers that are there are not hashed again if they have a receipt.
    pub fn with_receipts(self, receipts: Receipts) -> Self {
        Self { receipts, ..self }
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    fn document(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        let path = self.blob(digest);
        let bytes = small(&path)?;
        match Digest::of(&bytes) == digest {
            true => Ok(bytes),
            false => Err(self.bad(format!("{} does not have this digest", path.display()))),
        }
    }

    fn bad(&self, why: String) -> Error {
        Error::BadImage {
            image: format!("oci:{}", self.folder.display()),
            why,
        }
    }

    fn index(&self) -> Result<Option<Index>, Error> {
        let path = self.folder.join("index.json");
        let bytes = match small(&path) {
            Err(Error::Local { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            read => read?,
        };
        match Found::parse(&bytes, INDEX) {
            Ok(Found::Several(index)) => Ok(Some(index)),
            Ok(Found::Image(_)) => Err(self.bad("its index is an image".to_owned())),
            Err(why) => Err(self.bad(why)),
        }
    }

    /// What has this tag; of a layout with one entry, that one if no tag is given.
    pub(crate) fn entry(&self, tag: Option<&str>) -> Result<Option<Descriptor>, Error> {
        let Some(index) = self.index()? else {
            return Ok(None);
        };
        let mut entries = index.manifests.into_iter();
        let Some(tag) = tag else {
            let only = entries.next();
            return match entries.next() {
                None => Ok(only),
                Some(_) => Err(self.bad("it has several images: name one of its tags".to_owned())),
            };
        };
        let of_tag = |entry: &Descriptor| {
            let name = entry.annotations.get(REF_NAME).map(String::as_str);
            // skopeo writes the tag alone, others the whole reference.
            name.is_some_and(|name| {
                name == tag || name.rsplit_once(':').is_some_and(|(_, t)| t == tag)
            })
        };
        Ok(entries.find(of_tag))
    }

    /// A manifest or an index of this layout.
    pub(crate) fn found(&self, entry: &Descriptor) -> Result<(Vec<u8>, Found), Error> {
        let bytes = self.document(entry.digest)?;
        let found = Found::parse(&bytes, &entry.media_type).map_err(|why| self.bad(why))?;
        Ok((bytes, found))
    }

    /// The image whose manifest this is.
    pub(crate) fn image(
        &self,
        bytes: Vec<u8>,
        manifest: crate::oci::Manifest,
    ) -> Result<Image, Error> {
        let config = self.document(manifest.config.digest)?;
        let source = |layer: &Descriptor| LayerSource::File(self.blob(layer.digest));
        Image::read(bytes, manifest, config, source).map_err(|why| self.bad(why))
    }

    /// Puts an image under a tag, over what the tag named before; whether it was another one. Blobs
    /// that are there and right are not written again; the index, which makes the image visible, is
    /// written last.
    pub fn put(&self, image: &Image, tag: &str) -> Result<bool, Error> {
        let folder = self.folder.join("blobs/sha256");
        fs::create_dir_all(&folder).map_err(Error::local("create the folder", &folder))?;
        for shared in [&folder, &self.folder] {
            leftovers::remove(shared, WRITING);
        }
        for layer in &image.layers {
            self.put_layer(layer)?;
        }
        self.put_bytes(image.parsed.config.digest, &image.config)?;
        self.put_bytes(image.digest(), &image.manifest)?;
        let marker = self.folder.join("oci-layout");
        if !marker.exists() {
            write(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        // Several processes may add to one index; the lock ends with the file.
        let lock = File::open(&marker).map_err(Error::local("open", &marker))?;
        lock.lock().map_err(Error::local("lock", &marker))?;
        let there = self.entry(Some(tag))?;
        if there.is_some_and(|there| there.digest == image.digest()) {
            return Ok(false);
        }
        let mut index = self.index()?.unwrap_or(Index {
            schema_version: 2,
            media_type: INDEX.to_owned(),
            manifests: Vec::new(),
        });
        let named =
            |entry: &Descriptor| entry.annotations.get(REF_NAME).map(String::as_str) == Some(tag);
        index.manifests.retain(|entry| !named(entry));
        let mut entry = Descriptor::of(image.media_type(), &image.manifest);
        entry.platform = Some(image.platform());
        entry
            .annotations
            .insert(REF_NAME.to_owned(), tag.to_owned());
        index.manifests.push(entry);
        index
            .manifests
            .sort_by_cached_key(|entry| entry.annotations.get(REF_NAME).cloned());
        write(&self.folder.join("index.json"), &to_json(&index))?;
        Ok(true)
    }

    fn put_bytes(&self, digest: Digest, bytes: &[u8]) -> Result<(), Error> {
        match self.document(digest) {
            Ok(_) => Ok(()),
            Err(_) => write(&self.blob(digest), bytes),
        }
    }

    fn put_layer(&self, layer: &Layer) -> Result<(), Error> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        let path = self.blob(digest);
        let of_size = fs::metadata(&path).is_ok_and(|found| found.len() == size);
        // One that cannot be read is written anew, too.
        if of_size
            && self
                .receipts
                .digest(&path)
                .is_ok_and(|found| found == digest)
        {
            return Ok(());
        }
        let mut reader = layer.open()?;
        into_place(&path, |file| io::copy(&mut reader, file).map(drop))?;
        self.receipts.note(&path, digest);
        Ok(())
    }
}

fn small(path: &Path) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut bytes = Vec::new();
        let mut file = io::Read::take(File::open(path)?, LIMIT + 1);
        io::Read::read_to_end(&mut file, &mut bytes)?;
        match bytes.len() as u64 > LIMIT {
            true => Err(io::Error::other("it is too large for a document")),
            false => Ok(bytes),
        }
    };
    read().map_err(Error::local("read", path))
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    into_place(path, |file| file.write_all(bytes))
}

/// Writes a file beside its place, and gives it its name when all of it is on the disk.
fn into_place(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || {
        let mut file = tempfile::Builder::new()
            .prefix(WRITING)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        // On a file system without locks, what is left is not removed.
        let _ = file.as_file().try_lock();
        fill(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    written().map_err(Error::local("write", path))
}

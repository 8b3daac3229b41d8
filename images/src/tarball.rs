//! A layer as a tar archive that is never written down: it is read, from its first byte, whenever it
//! is needed. The same files give the same bytes: sorted, owned by root, with the time 0.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlwm_artifacts::Artifact;
use mlwm_spec::Digest;
use mlwm_storage::Content;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Tar is made of such blocks.
const BLOCK: u64 = 512;

/// A file in a layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerFile {
    /// Path in the image without the `/` before it.
    pub(crate) path: String,
    /// Whether it is executable: mode 755, else 644.
    pub(crate) executable: bool,
    /// Size in bytes.
    pub(crate) size: u64,
    /// SHA-256 of its bytes; what is read is checked against it.
    pub(crate) digest: Digest,
    /// Where it comes from.
    pub(crate) source: FileSource,
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
pub(crate) enum FileSource {
    /// A file of this machine.
    File(PathBuf),
    /// A member of an artifact.
    Member(Arc<Artifact>, String),
}

/// A layer of these files and the folders they lie in.
#[derive(Clone, Debug)]
pub(crate) struct Tarball {
    pieces: Arc<[Piece]>,
    size: u64,
    identity: Digest,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    File(LayerFile),
}

impl Tarball {
    pub(crate) fn new(mut files: Vec<LayerFile>) -> Result<Self, Error> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut identity = Sha256::new();
        let mut pieces = Vec::new();
        for folder in folders(&files) {
            identity.update(format!("folder {folder}\n"));
            pieces.push(Piece::Bytes(header(
                &folder,
                0,
                tar::EntryType::Directory,
                0o755,
            )?));
        }
        for file in files {
            let mode = if file.executable { 0o755 } else { 0o644 };
            identity.update(format!(
                "{mode:o} {} {} {}\n",
                file.size, file.digest, file.path
            ));
            if let FileSource::Member(artifact, _) = &file.source {
                // What an artifact says of its files is believed for this very artifact alone.
                identity.update(format!("of {}\n", artifact.digest()?));
            }
            let head = header(&file.path, file.size, tar::EntryType::Regular, mode)?;
            pieces.push(Piece::Bytes(head));
            let padding = file.size.next_multiple_of(BLOCK) - file.size;
            pieces.push(Piece::File(file));
            pieces.push(Piece::Bytes(vec![0; usize::try_from(padding).unwrap_or(0)]));
        }
        pieces.push(Piece::Bytes(vec![0; 2 * BLOCK as usize]));
        let size = pieces.iter().map(Piece::size).sum();
        Ok(Self {
            pieces: pieces.into(),
            size,
            identity: Digest::from_hasher(identity),
        })
    }

    /// What the bytes follow from: two layers with the same identity are the same bytes.
    pub(crate) fn identity(&self) -> Digest {
        self.identity
    }

    /// The files of this machine that it is made of.
    pub(crate) fn sources(&self) -> BTreeSet<&Path> {
        let files = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Bytes(_) => None,
            Piece::File(file) => Some(file.source.path()),
        });
        files.collect()
    }

    /// The artifact that its files are from; none if they are files of this machine.
    pub(crate) fn artifact(&self) -> Option<&Artifact> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::File(LayerFile {
                source: FileSource::Member(artifact, _),
                ..
            }) => Some(artifact.as_ref()),
            _ => None,
        })
    }

    /// Reads it without comparing its files with their digests.
    pub(crate) fn open_unchecked(&self) -> Box<dyn Read + Send> {
        self.reader(|file| file.source.open_unchecked())
    }

    fn reader(
        &self,
        open: fn(&LayerFile) -> io::Result<Box<dyn Read + Send>>,
    ) -> Box<dyn Read + Send> {
        Box::new(Reader {
            pieces: Arc::clone(&self.pieces),
            next: 0,
            current: Box::new(io::empty()),
            open,
        })
    }
}

impl Content for Tarball {
    fn size(&self) -> u64 {
        self.size
    }

    fn fingerprint(&self) -> String {
        format!("layer {}", self.identity)
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(self.reader(|file| Ok(Box::new(Checked::open(file)?))))
    }
}

impl Piece {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.size,
        }
    }
}

/// Reads one piece after the other.
struct Reader {
    pieces: Arc<[Piece]>,
    next: usize,
    current: Box<dyn Read + Send>,
    open: fn(&LayerFile) -> io::Result<Box<dyn Read + Send>>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(piece) = self.pieces.get(self.next) else {
                return Ok(0);
            };
            self.next += 1;
            self.current = match piece {
                Piece::Bytes(bytes) => Box::new(Cursor::new(bytes.clone())),
                Piece::File(file) => (self.open)(file)?,
            };
        }
    }
}

/// Reads a file, which must be what it was when the layer was planned.
struct Checked {
    inner: Box<dyn Read + Send>,
    name: String,
    size: u64,
    digest: Digest,
    /// The bytes so far; none of a member of an artifact, whose reader checks it.
    hasher: Option<Sha256>,
    read: u64,
}

impl Checked {
    fn open(file: &LayerFile) -> io::Result<Self> {
        let hasher = match file.source {
            FileSource::File(_) => Some(Sha256::new()),
            FileSource::Member(..) => None,
        };
        let inner = file.source.open()?;
        Ok(Self {
            inner,
            name: file.source.name(),
            size: file.size,
            digest: file.digest,
            hasher,
            read: 0,
        })
    }

    fn changed(&self) -> io::Error {
        let name = &self.name;
        io::Error::other(format!(
            "{name} has changed since it was looked at: run the same command again"
        ))
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            let found = self.hasher.take().map(Digest::from_hasher);
            let same = found.is_none_or(|found| found == self.digest);
            return match self.read == self.size && same {
                true => Ok(0),
                false => Err(self.changed()),
            };
        }
        self.read += read as u64;
        if self.read > self.size {
            return Err(self.changed());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

impl FileSource {
    /// Reads it. A member of an artifact is checked while it is read.
    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::File(path) => Box::new(open(path)?),
            Self::Member(artifact, member) => {
                Box::new(artifact.reader(member).map_err(io::Error::other)?)
            }
        })
    }

    /// Reads it without SHA-256; a member of an artifact is compared with its CRC-32.
    fn open_unchecked(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::File(path) => Box::new(open(path)?),
            Self::Member(artifact, member) => {
                Box::new(artifact.quick_reader(member).map_err(io::Error::other)?)
            }
        })
    }

    /// The file of this machine that it is, or is in.
    fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Member(artifact, _) => artifact.path(),
        }
    }

    /// How errors name it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Member(artifact, member) => format!("{member} in {}", artifact.path().display()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    File::open(path).map_err(named)
}

/// The folders of these files, each before what is in it.
fn folders(files: &[LayerFile]) -> BTreeSet<String> {
    let parents = files
        .iter()
        .flat_map(|file| Path::new(&file.path).ancestors().skip(1));
    parents
        .filter(|folder| !folder.as_os_str().is_empty())
        .map(|folder| format!("{}/", folder.display()))
        .collect()
}

/// The header of an entry, with GNU's extension for a long name before it if it needs one.
fn header(path: &str, size: u64, kind: tar::EntryType, mode: u32) -> Result<Vec<u8>, Error> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    let mut builder = tar::Builder::new(Vec::new());
    let written = builder.append_data(&mut header, path, io::empty());
    written.map_err(|source| Error::Entry {
        path: path.to_owned(),
        source,
    })?;
    // What `into_inner` appends is the end of an archive.
    let mut bytes = builder.into_inner().unwrap_or_default();
    bytes.truncate(bytes.len().saturating_sub(2 * BLOCK as usize));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, path: &str, bytes: &[u8]) -> LayerFile {
        let source = folder.join(Digest::of(path).hex());
        std::fs::write(&source, bytes).unwrap();
        LayerFile {
            path: path.to_owned(),
            executable: path.ends_with("sh"),
            size: bytes.len() as u64,
            digest: Digest::of(bytes),
            source: FileSource::File(source),
        }
    }

    fn read(layer: &Tarball) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        layer.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn another_program_reads_the_files_and_the_bytes_never_change() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("a/{}/{}", "long".repeat(40), "name".repeat(50));
        let files = |folder: &Path| {
            vec![
                file(folder, &long, b"long"),
                file(folder, "a/run.sh", &[7; 512]),
                file(folder, "a/b/empty", b""),
                file(folder, "a/b/odd", &[9; 1000]),
            ]
        };
        let layer = Tarball::new(files(folder.path())).unwrap();
        let bytes = read(&layer).unwrap();
        assert_eq!(bytes.len() as u64, layer.size());
        let other = tempfile::tempdir().unwrap();
        let mut turned = files(other.path());
        turned.reverse();
        let again = Tarball::new(turned).unwrap();
        assert!(read(&again).unwrap() == bytes);
        assert_eq!(again.identity(), layer.identity());

        let path = folder.path().join("layer.tar");
        std::fs::write(&path, &bytes).unwrap();
        let list = std::process::Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--utc", "--file"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(list.status.success());
        let list = String::from_utf8(list.stdout).unwrap();
        let lines: Vec<Vec<&str>> = list
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let found: Vec<(&str, &str, &str, &str, &str)> = lines
            .iter()
            .map(|l| (l[0], l[1], l[2], l[3], l[5]))
            .collect();
        let deep = format!("a/{}/", "long".repeat(40));
        assert_eq!(
            found,
            [
                ("drwxr-xr-x", "0/0", "0", "1970-01-01", "a/"),
                ("drwxr-xr-x", "0/0", "0", "1970-01-01", "a/b/"),
                ("drwxr-xr-x", "0/0", "0", "1970-01-01", deep.as_str()),
                ("-rw-r--r--", "0/0", "0", "1970-01-01", "a/b/empty"),
                ("-rw-r--r--", "0/0", "1000", "1970-01-01", "a/b/odd"),
                ("-rw-r--r--", "0/0", "4", "1970-01-01", long.as_str()),
                ("-rwxr-xr-x", "0/0", "512", "1970-01-01", "a/run.sh"),
            ]
        );
    }

    #[test]
    fn a_file_that_changes_is_no_layer() {
        let folder = tempfile::tempdir().unwrap();
        let planned = file(folder.path(), "a", &[1; 600]);
        let FileSource::File(path) = planned.source.clone() else {
            unreachable!()
        };
        let layer = Tarball::new(vec![planned]).unwrap();
        for bytes in [vec![2; 600], vec![1; 599], vec![1; 601]] {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&layer).unwrap_err().to_string();
            assert!(error.contains("has changed"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = read(&layer).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

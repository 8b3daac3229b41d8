//! What is brought to a store: bytes that can be read from their start more than once.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mlwm_spec::Digest;

use crate::Error;
use crate::tree::modified;

/// Bytes that can be read from their start, more than once, and are the same each time.
pub trait Content: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// What tells this content from any other without reading it: an interrupted transfer is
    /// continued by content with the same fingerprint. It holds no secret.
    fn fingerprint(&self) -> String;

    /// Its SHA-256, if it is known and the bytes need not be hashed on their way, since what they are
    /// brought to compares them with it.
    fn digest(&self) -> Option<Digest> {
        None
    }

    /// A reader from the first byte. It fails if it finds that the content has changed.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

/// The content of a local file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    path: PathBuf,
    version: Version,
}

/// What of a file changes when its content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    size: u64,
    modified: i128,
    /// Unlike the time before, no program can set this one back.
    status_changed: (i64, i64),
    device: u64,
    inode: u64,
}

impl FileContent {
    /// Takes the regular file at `path` as it is now.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let path = std::path::absolute(path).map_err(Error::local("resolve", path))?;
        let file = File::open(&path).map_err(Error::local("open", &path))?;
        let metadata = file.metadata().map_err(Error::local("look at", &path))?;
        if !metadata.is_file() {
            let what = match metadata.is_dir() {
                true => "a folder",
                false => "not a regular file",
            };
            return Err(Error::NotAFile { path, what });
        }
        let version = Version::of(&file).map_err(Error::local("look at", &path))?;
        Ok(Self { path, version })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Version {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            size: metadata.len(),
            modified: modified(&metadata),
            status_changed: (metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl Content for FileContent {
    fn size(&self) -> u64 {
        self.version.size
    }

    fn fingerprint(&self) -> String {
        let Version {
            size,
            modified,
            status_changed: (seconds, nanoseconds),
            device,
            inode,
        } = self.version;
        let path = self.path.display();
        format!("file {path} {size} {modified} {seconds}.{nanoseconds:09} {device}:{inode}")
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let reader = Unchanged {
            file: File::open(&self.path)?,
            left: self.version.size,
            expected: self.clone(),
        };
        reader.check()?;
        Ok(Box::new(reader))
    }
}

/// Reads a file and looks at its end whether it is still the one that was taken.
struct Unchanged {
    file: File,
    left: u64,
    expected: FileContent,
}

impl Unchanged {
    fn check(&self) -> io::Result<()> {
        if Version::of(&self.file)? == self.expected.version {
            return Ok(());
        }
        let path = self.expected.path.display();
        Err(io::Error::other(format!(
            "{path} has changed: something still writes to it"
        )))
    }
}

impl Read for Unchanged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 && !buffer.is_empty() {
            self.check()?;
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Bytes in memory.
#[derive(Clone, Debug)]
pub struct BytesContent(Bytes);

impl BytesContent {
    /// These bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }
}

impl Content for BytesContent {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn fingerprint(&self) -> String {
        format!("bytes {}", Digest::of(&self.0))
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "content").unwrap();
        let content = FileContent::open(&path).unwrap();
        let mut text = String::new();
        content.open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), content.size()), ("content", 7));

        let mut reader = content.open().unwrap();
        let before = content.fingerprint();
        std::fs::write(&path, "another").unwrap();
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("has changed"), "{error}");
        assert!(content.open().is_err());
        assert_ne!(FileContent::open(&path).unwrap().fingerprint(), before);
        assert!(FileContent::open(folder.path()).is_err());
    }

    #[test]
    fn a_modification_time_that_was_set_back_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "content").unwrap();
        let content = FileContent::open(&path).unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        // The clock of a file system has ticks of some milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, "another").unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
        assert!(content.open().is_err());
        let now = FileContent::open(&path).unwrap();
        assert_eq!(now.version.modified, content.version.modified);
        assert_ne!(now.fingerprint(), content.fingerprint());
    }

    #[test]
    fn bytes_are_known_by_their_digest() {
        let content = BytesContent::new("abc");
        let same = BytesContent::new(b"abc".to_vec());
        assert_eq!(content.fingerprint(), same.fingerprint());
        assert_ne!(
            content.fingerprint(),
            BytesContent::new("abd").fingerprint()
        );
        let mut text = String::new();
        content.open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}

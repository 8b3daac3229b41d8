//! Where the bytes of an artifact are read from: a file, or a registry that answers ranges.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, io_error};

/// Bytes that can be read from anywhere in them. A read may be a request over a network: opening
/// an artifact makes as few of them as it can.
pub trait ReadAt: Send + Sync {
    /// Number of bytes there are.
    fn size(&self) -> u64;

    /// Reads bytes from `offset` on into `buffer` and gives their number, which is 0 only at the
    /// end or for an empty buffer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many bytes are asked for at least, if that many are wanted one after the other.
    fn read_ahead(&self) -> u64 {
        1 << 20
    }

    /// Fills `buffer` with the bytes from `offset` on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file, of the size that it had when it was opened.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: u64,
}

impl FileSource {
    /// Opens the zip at `path`, which must be a regular file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let metadata = file.metadata().map_err(io_error("open", path))?;
        let refused = |what| Error::NotAFile {
            path: path.to_owned(),
            what,
        };
        match (metadata.is_file(), metadata.is_dir()) {
            (true, _) => Ok(Self {
                file,
                size: metadata.len(),
            }),
            (_, true) => Err(refused("a folder")),
            _ => Err(refused("not a regular file")),
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, offset)
    }

    fn read_ahead(&self) -> u64 {
        // What is copied once more costs more than another call.
        8 << 10
    }
}

/// Bytes in memory.
impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

/// A source whose last bytes have been read already.
pub(crate) struct Tail {
    source: Arc<dyn ReadAt>,
    start: u64,
    bytes: Vec<u8>,
}

impl Tail {
    /// Reads the last `length` bytes at once.
    pub(crate) fn read(source: Arc<dyn ReadAt>, length: u64) -> io::Result<Self> {
        let length = length.min(source.size());
        let start = source.size() - length;
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        source.read_exact_at(&mut bytes, start)?;
        Ok(Self {
            source,
            start,
            bytes,
        })
    }

    /// The source itself, to read what is there now.
    pub(crate) fn inner(&self) -> &Arc<dyn ReadAt> {
        &self.source
    }
}

impl ReadAt for Tail {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_ahead(&self) -> u64 {
        self.source.read_ahead()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match offset.checked_sub(self.start) {
            Some(offset) => self.bytes.read_at(buffer, offset),
            None => {
                // What lies in the tail is not asked for again.
                let before = usize::try_from(self.start - offset).unwrap_or(usize::MAX);
                let wanted = buffer.len().min(before);
                self.source.read_at(&mut buffer[..wanted], offset)
            }
        }
    }
}

/// A part of a source, from its start to its end.
pub(crate) struct Span {
    source: Arc<dyn ReadAt>,
    at: u64,
    left: u64,
}

impl Span {
    pub(crate) fn new(source: Arc<dyn ReadAt>, at: u64, length: u64) -> Self {
        Self {
            source,
            at,
            left: length,
        }
    }
}

impl Read for Span {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.source.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Bytes that a [`Window`] asks for at once, and how many such pages it keeps.
const PAGE: u64 = 512 << 10;
const PAGES: usize = 4;

/// A part of a source to read here and there. It asks for whole pages and keeps some, since a read
/// of a few bytes may be a request to a registry.
pub(crate) struct Window {
    source: Arc<dyn ReadAt>,
    start: u64,
    size: u64,
    position: u64,
    /// Pages and where in the window they start, the newest first.
    pages: VecDeque<(u64, Vec<u8>)>,
}

impl Window {
    pub(crate) fn new(source: Arc<dyn ReadAt>, start: u64, size: u64) -> Self {
        Self {
            source,
            start,
            size,
            position: 0,
            pages: VecDeque::new(),
        }
    }

    fn page(&mut self) -> io::Result<&(u64, Vec<u8>)> {
        let holds = |(start, page): &(u64, Vec<u8>)| {
            (*start..*start + page.len() as u64).contains(&self.position)
        };
        let known = self.pages.iter().position(holds);
        let index = match known {
            Some(index) => index,
            None => {
                let length = PAGE.min(self.size - self.position) as usize;
                let mut page = vec![0; length];
                let at = self.start + self.position;
                self.source.read_exact_at(&mut page, at)?;
                self.pages.truncate(PAGES - 1);
                self.pages.push_front((self.position, page));
                0
            }
        };
        Ok(&self.pages[index])
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.size {
            return Ok(0);
        }
        let position = self.position;
        let (start, page) = self.page()?;
        let read = page.read_at(buffer, position - start)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts reads, as a registry would count requests.
    struct Counted(Vec<u8>, AtomicUsize);

    impl ReadAt for Counted {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.read_at(buffer, offset)
        }
    }

    fn counted(size: u32) -> (Arc<Counted>, Vec<u8>) {
        let bytes: Vec<u8> = (0..size).map(|i| ((i * 7) >> 4) as u8).collect();
        (Arc::new(Counted(bytes.clone(), AtomicUsize::new(0))), bytes)
    }

    #[test]
    fn what_is_in_the_tail_is_not_read_again() {
        let (source, bytes) = counted(10_000);
        let tail = Tail::read(source.clone(), 1000).unwrap();
        let mut found = vec![0; 900];
        tail.read_exact_at(&mut found, 9100).unwrap();
        assert_eq!(
            (&found[..], source.1.load(Ordering::Relaxed)),
            (&bytes[9100..], 1)
        );
        let mut found = vec![0; 2000];
        tail.read_exact_at(&mut found, 8000).unwrap();
        assert_eq!(
            (&found[..], source.1.load(Ordering::Relaxed)),
            (&bytes[8000..], 2)
        );
        assert!(tail.read_exact_at(&mut found, 8001).is_err());
    }

    #[test]
    fn a_window_reads_a_page_at_a_time_and_keeps_it() {
        let (source, bytes) = counted(3 << 20);
        let mut window = Window::new(source.clone(), 1000, 2 << 20);
        let inside = &bytes[1000..1000 + (2 << 20)];
        let reads = || source.1.load(Ordering::Relaxed);
        let mut few = [0; 5];
        window.read_exact(&mut few).unwrap();
        window.seek(SeekFrom::End(-5)).unwrap();
        window.read_exact(&mut few).unwrap();
        assert_eq!((&few[..], reads()), (&inside[inside.len() - 5..], 2));
        window.seek(SeekFrom::Start(600)).unwrap();
        window.read_exact(&mut few).unwrap();
        assert_eq!((&few[..], reads()), (&inside[600..605], 2));
        window.rewind().unwrap();
        let mut all = Vec::new();
        window.read_to_end(&mut all).unwrap();
        assert_eq!((all == inside, reads()), (true, 5));
        assert!(window.seek(SeekFrom::Current(-(3 << 20))).is_err());
    }
}

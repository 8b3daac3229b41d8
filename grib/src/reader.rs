//! Reads the messages of a file, one after the other.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::frame::{self, Fault, MESSAGE_LIMIT};
use crate::header::Known;
use crate::{Error, Message, Place, Seen};

/// The messages of a GRIB file, of edition 1 and 2, in their order.
///
/// One message is in memory at a time. Whatever is no message that can be used is an item, too: an
/// error with its place, after which the iteration goes on. So the places of all items, one after
/// the other, are the whole file, and nothing is passed over unless the caller decides so. Two
/// errors end the iteration: an empty file ([`Error::Empty`]) and one that cannot be read
/// ([`Error::Read`]).
#[derive(Debug)]
pub struct Reader {
    file: File,
    path: Arc<Path>,
    size: u64,
    position: u64,
    /// The bytes of the last message; kept for the next one.
    bytes: Vec<u8>,
    known: Known,
    ended: bool,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be opened, or is no regular file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let opened = File::open(&path).and_then(|file| match file.metadata()? {
            metadata if metadata.is_file() => Ok((file, metadata.len())),
            _ => Err(io::Error::other("it is not a regular file")),
        });
        match opened {
            Ok((file, size)) => Ok(Self {
                file,
                path: path.into(),
                size,
                position: 0,
                bytes: Vec::new(),
                known: Known::default(),
                ended: false,
            }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The values of a message of this file that was read before, like [`Message::values`]. The iteration goes on
    /// where it was.
    ///
    /// # Errors
    /// [`Error::Changed`] if that message is not there any more, [`Error::Read`], [`Error::Message`].
    pub fn read_again(&mut self, seen: &Seen, values: &mut Vec<f64>) -> Result<(), Error> {
        let place = seen.place();
        let end = place.offset.saturating_add(place.length);
        if end > self.size {
            return Err(Error::Changed {
                place: place.clone(),
            });
        }
        let read = self.read_bytes(place.offset, place.length);
        read.map_err(|source| Error::Read {
            path: self.path.to_path_buf(),
            source,
        })?;
        seen.read(&self.bytes, values)
    }

    /// What comes at the position, which is before the end; the position is after it then.
    fn read(&mut self) -> io::Result<Result<Message, Error>> {
        let begin = frame::next_begin(&self.file, self.position, self.size)?.unwrap_or(self.size);
        if begin > self.position {
            let place = self.take(begin - self.position);
            return Ok(Err(Error::Garbage { place }));
        }
        match frame::check(&self.file, begin, self.size)? {
            Ok(length) => self.read_message(length),
            Err(Fault::MultiField { length, fields }) => {
                let place = self.take(length);
                Ok(Err(Error::MultiField { place, fields }))
            }
            Err(Fault::TooLarge { length }) => Ok(Err(Error::TooLarge {
                place: self.take(length),
                limit: MESSAGE_LIMIT,
            })),
            Err(Fault::Truncated { stated }) => {
                let place = self.take_damaged()?;
                Ok(Err(Error::Truncated { place, stated }))
            }
            Err(Fault::WrongLength { stated }) => {
                let place = self.take_damaged()?;
                Ok(Err(Error::WrongLength { place, stated }))
            }
        }
    }

    fn read_message(&mut self, length: u64) -> io::Result<Result<Message, Error>> {
        self.read_bytes(self.position, length)?;
        let place = self.take(length);
        Ok(Message::parse(&self.bytes, place, &mut self.known))
    }

    fn read_bytes(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.bytes.resize(length, 0);
        self.file.read_exact_at(&mut self.bytes, offset)
    }

    /// The place of so many bytes; the position is after them then.
    fn take(&mut self, length: u64) -> Place {
        let offset = self.position;
        self.position += length;
        Place {
            path: self.path.clone(),
            offset,
            length,
        }
    }

    /// The place from a damaged message to the next that is whole, or to the end.
    fn take_damaged(&mut self) -> io::Result<Place> {
        let mut next = self.position;
        loop {
            next = match frame::next_begin(&self.file, next + 1, self.size)? {
                None => self.size,
                Some(begin) => match frame::check(&self.file, begin, self.size)? {
                    Err(Fault::Truncated { .. } | Fault::WrongLength { .. }) => {
                        next = begin;
                        continue;
                    }
                    _ => begin,
                },
            };
            return Ok(self.take(next - self.position));
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Message, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.size == 0 {
            self.ended = true;
            return Some(Err(Error::Empty {
                path: self.path.to_path_buf(),
            }));
        }
        if self.position == self.size {
            return None;
        }
        Some(self.read().unwrap_or_else(|source| {
            self.ended = true;
            Err(Error::Read {
                path: self.path.to_path_buf(),
                source,
            })
        }))
    }
}

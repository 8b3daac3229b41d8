//! Where messages begin and end in a file.
//!
//! ecCodes passes over what is between messages, and believes the length that a message states. So
//! the bounds of messages, and of the sections in them, are checked here, before it sees a byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memmem;

/// A message of a file is read into memory whole. The largest fields in use have 100 MB.
pub(crate) const MESSAGE_LIMIT: u64 = 1 << 30;

const BEGIN: &[u8; 4] = b"GRIB";
const END: &[u8; 4] = b"7777";
/// More sections than any message of one field has.
const SECTIONS_LIMIT: usize = 10_000;
const BLOCK: usize = 64 * 1024;

/// Why there is no message where one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file ends before the stated length.
    Truncated { stated: u64 },
    /// The sections do not end at the stated length.
    WrongLength { stated: u64 },
    /// A whole message with several fields.
    MultiField { length: u64, fields: usize },
    /// A whole message that is larger than [`MESSAGE_LIMIT`].
    TooLarge { length: u64 },
}

/// The offset of the next place, from an offset on, where a message of edition 1 or 2 seems to
/// begin.
pub(crate) fn next_begin(file: &File, from: u64, size: u64) -> io::Result<Option<u64>> {
    let finder = memmem::Finder::new(BEGIN);
    let mut block = vec![0; BLOCK];
    let mut at = from;
    while size.saturating_sub(at) >= 8 {
        let length = BLOCK.min(usize::try_from(size - at).unwrap_or(BLOCK));
        file.read_exact_at(&mut block[..length], at)?;
        for found in finder.find_iter(&block[..length]) {
            if matches!(block[..length].get(found + 7), Some(1 | 2)) {
                return Ok(Some(at + found as u64));
            }
        }
        // What may begin a message but has no edition in this block is looked at again.
        at += (length - 7) as u64;
    }
    Ok(None)
}

/// The length of the message that begins at an offset, or why there is none.
pub(crate) fn check(file: &File, offset: u64, size: u64) -> io::Result<Result<u64, Fault>> {
    let bounds = Bounds { file, offset, size };
    let mut edition = [0];
    file.read_exact_at(&mut edition, offset + 7)?;
    match edition {
        [1] => bounds.edition_1(),
        _ => bounds.edition_2(),
    }
}

/// The bytes of a whole message before its packed values: all that says what they are.
pub(crate) fn head(message: &[u8]) -> &[u8] {
    let end = match message.get(7) {
        Some(1) => head_1(message),
        _ => head_2(message),
    };
    &message[..end.unwrap_or(message.len()).min(message.len())]
}

/// In edition 1, the section of data begins with how its values are packed.
fn head_1(message: &[u8]) -> Option<usize> {
    const DATA_HEAD: usize = 11;
    let flags = *message.get(8 + 7)?;
    let optional = [true, flags & 0x80 != 0, flags & 0x40 != 0];
    let mut at = 8;
    for _ in optional.into_iter().filter(|&there| there) {
        at += number(message.get(at..at + 3)?) as usize;
    }
    Some(at + DATA_HEAD)
}

fn head_2(message: &[u8]) -> Option<usize> {
    let mut at = 16;
    loop {
        let section = message.get(at..at + 5)?;
        if section[4] == 7 {
            return Some(at + 5);
        }
        at += number(&section[..4]).max(5) as usize;
    }
}

fn number(bytes: &[u8]) -> u64 {
    let and = |number, &byte| number << 8 | u64::from(byte);
    bytes.iter().fold(0, and)
}

/// A message that begins at an offset of a file.
struct Bounds<'a> {
    file: &'a File,
    offset: u64,
    size: u64,
}

impl Bounds<'_> {
    fn edition_2(&self) -> io::Result<Result<u64, Fault>> {
        let Some(stated) = self.number::<8>(8)? else {
            return Ok(Err(Fault::Truncated { stated: 16 }));
        };
        if stated > self.size - self.offset {
            return Ok(Err(Fault::Truncated { stated }));
        }
        let wrong = Ok(Err(Fault::WrongLength { stated }));
        if stated < 16 + 4 || !self.ends(stated)? {
            return wrong;
        }
        let mut at = 16;
        let mut fields = 0;
        for _ in 0..SECTIONS_LIMIT {
            if at == stated - 4 {
                return Ok(self.whole(stated, fields));
            }
            let (Some(length), Some(section)) = (self.number::<4>(at)?, self.number::<1>(at + 4)?)
            else {
                return wrong;
            };
            if length < 5 || length > stated - 4 - at || !(1..=7).contains(&section) {
                return wrong;
            }
            fields += usize::from(section == 7);
            at += length;
        }
        wrong
    }

    fn edition_1(&self) -> io::Result<Result<u64, Fault>> {
        /// Marks a length in units of 120 bytes, for messages of more than 8 MiB.
        const LARGE: u64 = 1 << 23;
        let Some(length) = self.number::<3>(4)? else {
            return Ok(Err(Fault::Truncated { stated: 8 }));
        };
        let truncated = |stated| Ok(Err(Fault::Truncated { stated }));
        let Some(flags) = self.number::<1>(8 + 7)? else {
            return truncated(length);
        };
        let mut at = 8;
        let optional = [true, flags & 0x80 != 0, flags & 0x40 != 0];
        for _ in optional.into_iter().filter(|&there| there) {
            match self.number::<3>(at)? {
                None => return truncated(length),
                Some(section) if section < 3 => {
                    return Ok(Err(Fault::WrongLength { stated: length }));
                }
                Some(section) => at += section,
            }
        }
        let Some(data) = self.number::<3>(at)? else {
            return truncated(length);
        };
        // Of a large message, the data's length says by how much the units are too many.
        let (stated, end) = if length & LARGE != 0 && data < 120 {
            let stated = ((length & (LARGE - 1)) * 120 + 4).saturating_sub(data);
            (stated, stated.saturating_sub(4).max(at))
        } else {
            (length, at + data)
        };
        if stated > self.size - self.offset {
            return truncated(stated);
        }
        if end + 4 != stated || !self.ends(stated)? {
            return Ok(Err(Fault::WrongLength { stated }));
        }
        Ok(self.whole(stated, 1))
    }

    fn whole(&self, length: u64, fields: usize) -> Result<u64, Fault> {
        if fields > 1 {
            Err(Fault::MultiField { length, fields })
        } else if length > MESSAGE_LIMIT {
            Err(Fault::TooLarge { length })
        } else {
            Ok(length)
        }
    }

    /// Whether a message of this length, which lies inside the file, ends with the mark of an end.
    fn ends(&self, length: u64) -> io::Result<bool> {
        let Some(end) = length.checked_sub(4) else {
            return Ok(false);
        };
        Ok(self.number::<4>(end)? == Some(u64::from(u32::from_be_bytes(*END))))
    }

    /// A number of so many bytes at an offset in the message, unless the file ends before.
    fn number<const BYTES: usize>(&self, at: u64) -> io::Result<Option<u64>> {
        let begin = self.offset.saturating_add(at);
        if self.size.saturating_sub(begin) < BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = [0; BYTES];
        self.file.read_exact_at(&mut bytes, begin)?;
        Ok(Some(number(&bytes)))
    }
}

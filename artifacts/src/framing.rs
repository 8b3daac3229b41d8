//! The directory of a zip, read with suspicion (format §5, §6).
//!
//! The `zip` crate reads whatever some reader somewhere accepts: bytes before the first member,
//! duplicate names, members that overlap. An artifact has none of these, and what two programs
//! could read differently must not be in it. So the records are read here, and every byte of the
//! file must belong to exactly one of them. Numbers of records are those of PKWARE's APPNOTE.
//!
//! Two forms are read. A zip with descriptors is held against [`crate::form`]: its directory must
//! be the one mlwm writes for these names, sizes and checksums, and so says where everything lies
//! without a look at it. A zip without is read header by header, as the Python tool's (§7).

mod end;
mod names;
mod numbers;

use std::collections::VecDeque;
use std::io;

use self::end::{End, read_end};
use self::names::Names;
use self::numbers::{read_array, u16_at, u32_at, u64_at};
use crate::form::{DESCRIPTOR_FLAG, Placed, Plan};
use crate::layout::{ARTIFACT_YAML, name_fault};
use crate::source::ReadAt;

pub(crate) use self::names::clash;

/// Most members that an artifact may have.
pub(crate) const MAX_MEMBERS: u64 = 20_000;
/// Largest directory that is read, in bytes: that of as many members, with the longest names.
const MAX_DIRECTORY: u64 = 16 << 20;

const LOCAL_HEADER: u64 = 30;
const CENTRAL_HEADER: usize = 46;

/// A zip that an artifact cannot be.
#[derive(Debug, thiserror::Error)]
pub enum FramingError {
    /// The file could not be read.
    #[error("it could not be read: {0}")]
    Io(#[from] io::Error),
    /// No end record.
    #[error("it does not end like a zip (cut off, or not a zip)")]
    NoEnd,
    /// A record that is not where it must be, or not of its kind.
    #[error("the {record} at byte {at} is damaged")]
    Record {
        /// Which record.
        record: &'static str,
        /// Offset in the file.
        at: u64,
    },
    /// More than an artifact may hold.
    #[error("its directory has {members} members in {bytes} bytes, more than an artifact may have")]
    TooMany {
        /// Members it claims.
        members: u64,
        /// Bytes it claims.
        bytes: u64,
    },
    /// Bytes that belong to nothing, or to two members.
    #[error("its members overlap or leave gaps at byte {at}")]
    Layout {
        /// Offset in the file.
        at: u64,
    },
    /// A name that could lead out of the folder it is unpacked to.
    #[error("the name of member `{name}` {fault}")]
    Name {
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The same name twice.
    #[error("it has member `{0}` twice")]
    Duplicate(String),
    /// Two names that are one to some file system.
    #[error("its members `{first}` and `{second}` {why}")]
    Clash {
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// Why they cannot both be unpacked everywhere.
        why: &'static str,
    },
    /// A link, device or folder with content.
    #[error("member `{0}` is a link or another special file")]
    NotAFile(String),
    /// Compressed or encrypted.
    #[error("member `{0}` is compressed or encrypted: members of an artifact are stored")]
    NotStored(String),
    /// Records that are valid, but not those that mlwm writes for these contents.
    #[error("{0} is not the one that mlwm writes")]
    NotOurs(String),
    /// The records around the content of a member are not those that its directory entry calls for.
    #[error(
        "the header of member `{0}` in the directory and that before its bytes contradict each other"
    )]
    Contradiction(String),
}

/// One file in the zip.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) placed: Placed,
    pub(crate) crc32: u32,
}

/// All files in the zip, in the order they lie in.
pub(crate) struct Directory {
    pub(crate) members: Vec<Member>,
    /// The form that mlwm writes, to the last byte of the directory; the records between the
    /// contents are compared with it when they are read. None if the zip is of another form, all
    /// headers of which have been looked at.
    pub(crate) plan: Option<Plan>,
}

/// Reads the directory of a zip.
pub(crate) fn read(source: &dyn ReadAt) -> Result<Directory, FramingError> {
    let end = read_end(source)?;
    if end.members > MAX_MEMBERS || end.size > MAX_DIRECTORY {
        return Err(FramingError::TooMany {
            members: end.members,
            bytes: end.size,
        });
    }
    // The directory and the end records.
    let tail = source.size() - end.offset;
    let mut tail = vec![0; usize::try_from(tail).map_err(|_| FramingError::NoEnd)?];
    source.read_exact_at(&mut tail, end.offset)?;
    let size = usize::try_from(end.size).map_err(|_| FramingError::NoEnd)?;
    let bytes = &tail[..size];

    let mut headers = Vec::new();
    let mut names = Names::default();
    let mut at = 0;
    for _ in 0..end.members {
        let (header, length) = CentralHeader::read(&bytes[at..], end.offset + at as u64)?;
        at += length;
        names.add(&header.name)?;
        headers.push(header);
    }
    if at != bytes.len() {
        return Err(FramingError::Record {
            record: "directory",
            at: end.offset + at as u64,
        });
    }
    if headers.iter().any(CentralHeader::has_descriptor) {
        compare(headers, &tail, &end)
    } else {
        place(source, headers, &end)
    }
}

/// Holds the directory against the one that mlwm writes for the same names, sizes and checksums.
fn compare(headers: Vec<CentralHeader>, tail: &[u8], end: &End) -> Result<Directory, FramingError> {
    let order = |header: &&CentralHeader| (header.name == ARTIFACT_YAML, header.name.clone());
    if !headers.iter().is_sorted_by_key(|header| order(&header)) {
        return Err(FramingError::NotOurs("the order of its members".to_owned()));
    }
    let sizes = headers
        .iter()
        .map(|header| (header.name.clone(), header.size));
    let plan = Plan::new(sizes).ok_or(FramingError::Layout { at: end.offset })?;
    let starts = plan.members.iter().map(|placed| placed.header_at);
    let claimed = headers.iter().map(|header| header.local_offset);
    let moved = starts
        .chain([plan.directory_at])
        .zip(claimed.chain([end.offset]))
        .find(|(start, claimed)| start != claimed);
    if let Some((start, _)) = moved {
        return Err(FramingError::Layout { at: start });
    }
    if plan.tail(headers.iter().map(|header| header.crc32)) != tail {
        return Err(FramingError::NotOurs("its directory".to_owned()));
    }
    let members = headers
        .iter()
        .zip(&plan.members)
        .map(|(header, placed)| Member {
            placed: placed.clone(),
            crc32: header.crc32,
        })
        .collect();
    Ok(Directory {
        members,
        plan: Some(plan),
    })
}

/// Finds the bytes of every member; together they must fill the file up to the directory.
fn place(
    source: &dyn ReadAt,
    mut headers: Vec<CentralHeader>,
    end: &End,
) -> Result<Directory, FramingError> {
    headers.sort_by_key(|header| header.local_offset);
    let mut members = Vec::with_capacity(headers.len());
    let mut next = 0;
    for header in &headers {
        if header.local_offset != next {
            return Err(FramingError::Layout { at: next });
        }
        let data_at = next + header.check_local(source)?;
        next = data_at
            .checked_add(header.size)
            .filter(|next| *next <= end.offset)
            .ok_or(FramingError::Layout { at: data_at })?;
        if !header.is_folder() {
            members.push(Member {
                placed: Placed {
                    name: header.name.clone(),
                    size: header.size,
                    header_at: header.local_offset,
                    data_at,
                },
                crc32: header.crc32,
            });
        }
    }
    if next != end.offset {
        return Err(FramingError::Layout { at: next });
    }
    Ok(Directory {
        members,
        plan: None,
    })
}

/// A record of the central directory (APPNOTE 4.3.12).
struct CentralHeader {
    name: String,
    /// Version needed, flags, method, time and date: the same bytes in both headers.
    common: [u8; 10],
    crc32: u32,
    size: u64,
    external_attributes: u32,
    local_offset: u64,
}

impl CentralHeader {
    /// The record that `bytes` starts with, and its length.
    fn read(bytes: &[u8], at: u64) -> Result<(Self, usize), FramingError> {
        let damaged = || FramingError::Record {
            record: "directory entry",
            at,
        };
        let fixed = bytes.get(..CENTRAL_HEADER).ok_or_else(damaged)?;
        let (name, extra) = (
            usize::from(u16_at(fixed, 28)),
            usize::from(u16_at(fixed, 30)),
        );
        let no_comment_one_disk = u32_at(fixed, 32) == 0;
        if !fixed.starts_with(b"PK\x01\x02") || !no_comment_one_disk {
            return Err(damaged());
        }
        let extra_start = CENTRAL_HEADER + name;
        let length = extra_start + extra;
        let raw_name = bytes.get(CENTRAL_HEADER..extra_start).ok_or_else(damaged)?;
        let extra_field = bytes.get(extra_start..length).ok_or_else(damaged)?;

        let name = checked_name(raw_name)?;
        let mut wide = zip64_values(extra_field).ok_or_else(damaged)?;
        let size = widen(u32_at(fixed, 24), &mut wide).ok_or_else(damaged)?;
        let compressed = widen(u32_at(fixed, 20), &mut wide).ok_or_else(damaged)?;
        let local_offset = widen(u32_at(fixed, 42), &mut wide).ok_or_else(damaged)?;
        let mut common = [0; 10];
        common.copy_from_slice(&fixed[6..16]);
        let header = Self {
            name,
            common,
            crc32: u32_at(fixed, 16),
            size,
            external_attributes: u32_at(fixed, 38),
            local_offset,
        };
        header.check_kind(compressed)?;
        Ok((header, length))
    }

    fn is_folder(&self) -> bool {
        self.name.ends_with('/')
    }

    /// Whether checksum and sizes follow the content, as mlwm writes them.
    fn has_descriptor(&self) -> bool {
        u16_at(&self.common, 2) & DESCRIPTOR_FLAG != 0
    }

    /// Only plain files, stored; and folders, which hold nothing.
    fn check_kind(&self, compressed: u64) -> Result<(), FramingError> {
        const UTF8_NAME: u16 = 1 << 11;
        let (flags, method) = (u16_at(&self.common, 2), u16_at(&self.common, 4));
        let plain = flags & !(UTF8_NAME | DESCRIPTOR_FLAG) == 0;
        if !plain || method != 0 || compressed != self.size {
            return Err(FramingError::NotStored(self.name.clone()));
        }
        let kind = (self.external_attributes >> 16) & 0o170_000;
        let right = matches!(
            (self.is_folder(), kind),
            (_, 0) | (false, 0o100_000) | (true, 0o040_000)
        );
        if !right || (self.is_folder() && self.size != 0) {
            return Err(FramingError::NotAFile(self.name.clone()));
        }
        Ok(())
    }

    /// Compares with the local header (APPNOTE 4.3.7) and gives its length.
    fn check_local(&self, source: &dyn ReadAt) -> Result<u64, FramingError> {
        let at = self.local_offset;
        let damaged = || FramingError::Record {
            record: "local header",
            at,
        };
        let fixed = read_array::<{ LOCAL_HEADER as usize }>(source, at)?;
        if !fixed.starts_with(b"PK\x03\x04") {
            return Err(damaged());
        }
        let name_length = usize::from(u16_at(&fixed, 26));
        let mut rest = vec![0; name_length + usize::from(u16_at(&fixed, 28))];
        source.read_exact_at(&mut rest, at + LOCAL_HEADER)?;
        let (name, extra) = rest.split_at(name_length);
        let mut wide = zip64_values(extra).ok_or_else(damaged)?;
        let size = widen(u32_at(&fixed, 22), &mut wide).ok_or_else(damaged)?;
        let compressed = widen(u32_at(&fixed, 18), &mut wide).ok_or_else(damaged)?;
        let same = name == self.name.as_bytes()
            && fixed[4..14] == self.common
            && u32_at(&fixed, 14) == self.crc32
            && size == self.size
            && compressed == self.size;
        if !same {
            return Err(FramingError::Contradiction(self.name.clone()));
        }
        Ok(LOCAL_HEADER + rest.len() as u64)
    }
}

fn checked_name(raw: &[u8]) -> Result<String, FramingError> {
    let fault = |fault| FramingError::Name {
        name: raw.escape_ascii().to_string(),
        fault,
    };
    let name = std::str::from_utf8(raw).map_err(|_| fault("is not UTF-8"))?;
    match name_fault(name.strip_suffix('/').unwrap_or(name)) {
        Some(wrong) => Err(fault(wrong)),
        None => Ok(name.to_owned()),
    }
}

/// The numbers in the zip64 field (APPNOTE 4.5.3) among the extra fields, in order, and `None` if
/// the fields are damaged.
fn zip64_values(mut extra: &[u8]) -> Option<VecDeque<u64>> {
    let mut values = VecDeque::new();
    while !extra.is_empty() {
        let length = usize::from(u16_at(extra.get(..4)?, 2));
        let body = extra.get(4..4 + length)?;
        if u16_at(extra, 0) == 1 {
            if !values.is_empty() || length == 0 || length % 8 != 0 {
                return None;
            }
            values.extend(body.chunks_exact(8).map(|chunk| u64_at(chunk, 0)));
        }
        extra = &extra[4 + length..];
    }
    Some(values)
}

/// A 32-bit number, or the next 64-bit one if it is all ones.
fn widen(short: u32, wide: &mut VecDeque<u64>) -> Option<u64> {
    if short == u32::MAX {
        wide.pop_front()
    } else {
        Some(short.into())
    }
}

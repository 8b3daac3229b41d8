//! The directory of a zip, read with suspicion (format §5, §6).
//!
//! The `zip` crate reads whatever some reader somewhere accepts: bytes before the first member,
//! duplicate names, members that overlap. An artifact has none of these, and what two programs
//! could read differently must not be in it. So the records are read here, and every byte of the
//! file must belong to exactly one of them. Numbers of records are those of PKWARE's APPNOTE.

mod end;
mod numbers;

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use self::end::{End, read_end};
use self::numbers::{read_array, u16_at, u32_at, u64_at};
use crate::layout::{ARTIFACT_YAML, name_fault};

/// Most members that an artifact may have.
const MAX_MEMBERS: u64 = 20_000;
/// Largest directory that is read, in bytes.
const MAX_DIRECTORY: u64 = 64 << 20;

const LOCAL_HEADER: u64 = 30;
const CENTRAL_HEADER: usize = 46;

/// What mlwm writes into every header (format §5).
const MADE_BY_UNIX: u8 = 3;
const DATE_1980: u16 = 0x21;
const PLAIN_FILE_0644: u32 = 0o100_644 << 16;

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
    /// A link, device or folder with content.
    #[error("member `{0}` is a link or another special file")]
    NotAFile(String),
    /// Compressed or encrypted.
    #[error("member `{0}` is compressed or encrypted: members of an artifact are stored")]
    NotStored(String),
    /// The two headers of a member differ.
    #[error("the two headers of member `{0}` contradict each other")]
    Contradiction(String),
}

/// One file in the zip.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Offset of its bytes.
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) crc32: u32,
}

/// All files in the zip, in the order they lie in.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) members: Vec<Member>,
    /// Why the headers are not those that mlwm writes, if they are not (format §5).
    pub(crate) deviation: Option<String>,
}

/// Reads the directory of a zip of this length.
pub(crate) fn read(file: &File, length: u64) -> Result<Directory, FramingError> {
    let end = read_end(file, length)?;
    if end.members > MAX_MEMBERS || end.size > MAX_DIRECTORY {
        return Err(FramingError::TooMany {
            members: end.members,
            bytes: end.size,
        });
    }
    let capacity = usize::try_from(end.size).map_err(|_| FramingError::NoEnd)?;
    let mut bytes = vec![0; capacity];
    file.read_exact_at(&mut bytes, end.offset)?;

    let mut headers = Vec::new();
    let mut names = HashSet::new();
    let mut at = 0;
    for _ in 0..end.members {
        let (header, length) = CentralHeader::read(&bytes[at..], end.offset + at as u64)?;
        at += length;
        if !names.insert(header.name.clone()) {
            return Err(FramingError::Duplicate(header.name));
        }
        headers.push(header);
    }
    if at != bytes.len() {
        return Err(FramingError::Record {
            record: "directory",
            at: end.offset + at as u64,
        });
    }
    place(file, headers, &end)
}

/// Finds the bytes of every member; together they must fill the file up to the directory.
fn place(
    file: &File,
    mut headers: Vec<CentralHeader>,
    end: &End,
) -> Result<Directory, FramingError> {
    let in_order = headers.is_sorted_by_key(|header| header.local_offset);
    headers.sort_by_key(|header| header.local_offset);
    let mut members = Vec::with_capacity(headers.len());
    let mut deviation =
        (!in_order).then(|| "its directory is not in the order of the members".to_owned());
    let mut next = 0;
    for header in &headers {
        if header.local_offset != next {
            return Err(FramingError::Layout { at: next });
        }
        let local_length = header.check_local(file)?;
        let offset = next + local_length;
        next = offset
            .checked_add(header.size)
            .filter(|next| *next <= end.offset)
            .ok_or(FramingError::Layout { at: offset })?;
        deviation = deviation.or_else(|| header.deviation(local_length));
        if !header.is_folder {
            members.push(Member {
                name: header.name.clone(),
                offset,
                size: header.size,
                crc32: header.crc32,
            });
        }
    }
    if next != end.offset {
        return Err(FramingError::Layout { at: next });
    }
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    if !names.is_sorted_by_key(|name| (*name == ARTIFACT_YAML, *name)) {
        deviation = deviation.or(Some("its members are not in order".to_owned()));
    }
    if end.zip64 != needs_zip64(headers.len() as u64, end) {
        deviation = deviation.or(Some("its end record is of the wrong kind".to_owned()));
    }
    Ok(Directory { members, deviation })
}

fn needs_zip64(members: u64, end: &End) -> bool {
    members > u64::from(u16::MAX) || end.size.max(end.offset) > u64::from(u32::MAX)
}

/// A record of the central directory (APPNOTE 4.3.12).
struct CentralHeader {
    name: String,
    is_folder: bool,
    made_by: u16,
    /// Version needed, flags, method, time and date: the same bytes in both headers.
    common: [u8; 10],
    crc32: u32,
    size: u64,
    internal_attributes: u16,
    external_attributes: u32,
    local_offset: u64,
    extra: usize,
    has_zip64: bool,
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
        let has_zip64 = !wide.is_empty();
        let size = widen(u32_at(fixed, 24), &mut wide).ok_or_else(damaged)?;
        let compressed = widen(u32_at(fixed, 20), &mut wide).ok_or_else(damaged)?;
        let local_offset = widen(u32_at(fixed, 42), &mut wide).ok_or_else(damaged)?;
        let mut common = [0; 10];
        common.copy_from_slice(&fixed[6..16]);
        let header = Self {
            is_folder: name.ends_with('/'),
            name,
            made_by: u16_at(fixed, 4),
            common,
            crc32: u32_at(fixed, 16),
            size,
            internal_attributes: u16_at(fixed, 36),
            external_attributes: u32_at(fixed, 38),
            local_offset,
            extra,
            has_zip64,
        };
        header.check_kind(compressed)?;
        Ok((header, length))
    }

    /// Only plain files, stored; and folders, which hold nothing.
    fn check_kind(&self, compressed: u64) -> Result<(), FramingError> {
        const UTF8_NAME: u16 = 1 << 11;
        let (flags, method) = (u16_at(&self.common, 2), u16_at(&self.common, 4));
        if flags & !UTF8_NAME != 0 || method != 0 || compressed != self.size {
            return Err(FramingError::NotStored(self.name.clone()));
        }
        let kind = (self.external_attributes >> 16) & 0o170_000;
        let right = matches!(
            (self.is_folder, kind),
            (_, 0) | (false, 0o100_000) | (true, 0o040_000)
        );
        if !right || (self.is_folder && self.size != 0) {
            return Err(FramingError::NotAFile(self.name.clone()));
        }
        Ok(())
    }

    /// Compares with the local header (APPNOTE 4.3.7) and gives its length.
    fn check_local(&self, file: &File) -> Result<u64, FramingError> {
        let at = self.local_offset;
        let damaged = || FramingError::Record {
            record: "local header",
            at,
        };
        let fixed = read_array::<{ LOCAL_HEADER as usize }>(file, at)?;
        if !fixed.starts_with(b"PK\x03\x04") {
            return Err(damaged());
        }
        let name_length = usize::from(u16_at(&fixed, 26));
        let mut rest = vec![0; name_length + usize::from(u16_at(&fixed, 28))];
        file.read_exact_at(&mut rest, at + LOCAL_HEADER)?;
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

    /// Why this is not the header that mlwm writes, if it is not.
    fn deviation(&self, local_length: u64) -> Option<String> {
        let [made_by_version, made_by_system] = self.made_by.to_le_bytes();
        let needed = u16_at(&self.common, 0);
        let local_extra = local_length - LOCAL_HEADER - self.name.len() as u64;
        // Zip64 fields only where a number does not fit into 32 bits.
        let large = self.size >= LARGE_MEMBER;
        let far = self.local_offset >= u64::from(u32::MAX);
        let versions = if large || far { [10, 45] } else { [10, 10] };
        let expected_local_extra = if large { 20 } else { 0 };
        let faithful = !self.is_folder
            && made_by_system == MADE_BY_UNIX
            && versions.contains(&u16::from(made_by_version))
            && versions.contains(&needed)
            && u16_at(&self.common, 2) == 0
            && u16_at(&self.common, 6) == 0
            && u16_at(&self.common, 8) == DATE_1980
            && self.internal_attributes == 0
            && self.external_attributes == PLAIN_FILE_0644
            && local_extra == expected_local_extra
            && (self.extra > 0) == self.has_zip64
            && self.has_zip64 == (large || far);
        (!faithful).then(|| {
            format!(
                "the header of member `{}` is not as mlwm writes it",
                self.name
            )
        })
    }
}

/// From this size on, a member is written with 64-bit sizes: a little under 4 GiB, so that a file
/// that still grows while it is packed fits.
pub(crate) const LARGE_MEMBER: u64 = (4 << 30) - (16 << 20);

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

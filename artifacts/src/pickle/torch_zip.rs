//! The zip that `torch.save` writes since PyTorch 1.6.
//!
//! PyTorch finds members by its own rules: the folder is that of the first member, and capitals do
//! not count. A zip in which another reader could find another `data.pkl` is refused. Numbers of
//! records are those of PKWARE's APPNOTE.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;

use super::machine::{Findings, run};
use super::stream::Stream;
use super::{Checkpoint, CheckpointKind, PickleError};

/// Most members. One tensor is one member.
const MAX_MEMBERS: u64 = 1_000_000;
/// Longest name of a member, in bytes.
const MAX_NAME: usize = 1024;
/// Largest pickle, unpacked. One of a thousand tensors has 0.1 MiB.
const MAX_PICKLE: u64 = 256 << 20;

const END: u64 = 22;
const LOCATOR64: u64 = 20;
const END64: u64 = 56;
const CENTRAL_HEADER: usize = 46;
const LOCAL_HEADER: u64 = 30;

pub(super) fn inspect<R: Read + Seek>(mut zip: R, size: u64) -> Result<Checkpoint, PickleError> {
    let directory = read_end(&mut zip, size)?;
    let pickle = find_pickle(&mut zip, &directory)?;
    let at = pickle.data_offset(&mut zip, directory.offset)?;
    zip.seek(SeekFrom::Start(at))?;
    let stored = zip.take(pickle.compressed);
    match pickle.method {
        0 if pickle.compressed == pickle.size => follow(stored, &pickle),
        8 => follow(DeflateDecoder::new(stored), &pickle),
        _ => Err(fault(
            "its data.pkl is packed in a way that PyTorch does not write",
        )),
    }
}

/// Follows the pickle and checks that it is the bytes that were packed.
fn follow<R: Read>(source: R, pickle: &Member) -> Result<Checkpoint, PickleError> {
    let mut source = Checked {
        source,
        crc32: crc32fast::Hasher::new(),
    };
    let mut findings = Findings::default();
    let mut stream = Stream::new(source.by_ref().take(pickle.size), pickle.size);
    run(&mut stream, &mut findings)?;
    stream.finish()?;
    if source.crc32.clone().finalize() != pickle.crc32 {
        return Err(fault(
            "its data.pkl does not have the CRC-32 that the zip says",
        ));
    }
    if source.read(&mut [0])? != 0 {
        return Err(fault("its data.pkl is longer than the zip says"));
    }
    Ok(findings.into_checkpoint(CheckpointKind::TorchZip))
}

struct Checked<R> {
    source: R,
    crc32: crc32fast::Hasher,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.crc32.update(&buffer[..length]);
        Ok(length)
    }
}

struct Directory {
    offset: u64,
    size: u64,
    members: u64,
}

/// The end record (APPNOTE 4.3.16), which must end the file, or its 64-bit form (4.3.14).
fn read_end<R: Read + Seek>(zip: &mut R, size: u64) -> Result<Directory, PickleError> {
    let cut_off = || fault("it does not end like a zip, so that it is cut off or changed");
    let at = size.checked_sub(END).ok_or_else(cut_off)?;
    let record = read_array::<{ END as usize }, R>(zip, at)?;
    if !record.starts_with(b"PK\x05\x06") || u16_at(&record, 20) != 0 {
        return Err(cut_off());
    }
    let mut directory = Directory {
        members: u16_at(&record, 10).into(),
        size: u32_at(&record, 12).into(),
        offset: u32_at(&record, 16).into(),
    };
    let mut end = at;
    if let Some(locator) = at.checked_sub(LOCATOR64 + END64) {
        let locator = read_array::<{ LOCATOR64 as usize }, R>(zip, locator + END64)?;
        if locator.starts_with(b"PK\x06\x07") {
            end = at - LOCATOR64 - END64;
            let wide = read_array::<{ END64 as usize }, R>(zip, end)?;
            if u64_at(&locator, 8) != end || !wide.starts_with(b"PK\x06\x06") {
                return Err(fault("its 64-bit end record is damaged"));
            }
            let agrees = |short: u64, ones: u64, wide: u64| short == wide || short == ones;
            let found = Directory {
                members: u64_at(&wide, 32),
                size: u64_at(&wide, 40),
                offset: u64_at(&wide, 48),
            };
            if !agrees(directory.members, u16::MAX.into(), found.members)
                || !agrees(directory.size, u32::MAX.into(), found.size)
                || !agrees(directory.offset, u32::MAX.into(), found.offset)
            {
                return Err(fault("its end records contradict each other"));
            }
            directory = found;
        }
    }
    if directory.members > MAX_MEMBERS {
        return Err(fault("it has more than a million members"));
    }
    if directory.offset.checked_add(directory.size) != Some(end) {
        return Err(fault("its directory is not where its end record says"));
    }
    Ok(directory)
}

/// A member, as the directory describes it.
struct Member {
    flags: u16,
    method: u16,
    crc32: u32,
    compressed: u64,
    size: u64,
    local_offset: u64,
}

/// Reads all of the directory (APPNOTE 4.3.12), keeping no more than a hash of each name.
fn find_pickle<R: Read + Seek>(zip: &mut R, directory: &Directory) -> Result<Member, PickleError> {
    zip.seek(SeekFrom::Start(directory.offset))?;
    let mut records = BufReader::with_capacity(64 << 10, zip.by_ref().take(directory.size));
    let state = RandomState::new();
    let mut names = HashSet::new();
    let mut top: Option<Vec<u8>> = None;
    let mut pickle = None;
    for _ in 0..directory.members {
        let (name, member) = read_record(&mut records)?;
        // PyTorch compares names without regard to case.
        let name = name.to_ascii_lowercase();
        let slash = name.iter().position(|byte| *byte == b'/');
        let (folder, path) = name.split_at(slash.map_or(0, |slash| slash + 1));
        let top = top.get_or_insert_with(|| folder.to_vec());
        if folder.is_empty() || folder != top {
            return Err(fault("its members do not lie in one folder"));
        }
        if !names.insert(state.hash_one(&name)) {
            return Err(fault("it has two members of the same name"));
        }
        if path == b"constants.pkl" || path.starts_with(b"code/") {
            return Err(PickleError::TorchScript);
        }
        if path == b"data.pkl" {
            pickle = Some(member);
        }
    }
    if records.read(&mut [0])? != 0 {
        return Err(fault("its directory is longer than its members"));
    }
    let pickle = pickle.ok_or_else(|| fault("it has no data.pkl, as torch.save writes it"))?;
    if pickle.flags & 1 != 0 {
        return Err(fault("its data.pkl is encrypted"));
    }
    if pickle.size > MAX_PICKLE {
        return Err(fault("its data.pkl has more than 256 MiB"));
    }
    Ok(pickle)
}

fn read_record(records: &mut impl Read) -> Result<(Vec<u8>, Member), PickleError> {
    let damaged = || fault("its directory is damaged");
    let mut fixed = [0; CENTRAL_HEADER];
    records.read_exact(&mut fixed).map_err(|_| damaged())?;
    let length = |at| usize::from(u16_at(&fixed, at));
    if !fixed.starts_with(b"PK\x01\x02") || length(28) > MAX_NAME {
        return Err(damaged());
    }
    let mut name = vec![0; length(28)];
    let mut extra = vec![0; length(30)];
    let mut comment = vec![0; length(32)];
    for part in [&mut name, &mut extra, &mut comment] {
        records.read_exact(part).map_err(|_| damaged())?;
    }
    let mut wide = zip64_field(&extra).ok_or_else(damaged)?;
    let mut widen = |short: u32| -> Result<u64, PickleError> {
        match short {
            u32::MAX => {
                let (value, rest) = wide.split_at_checked(8).ok_or_else(damaged)?;
                wide = rest;
                Ok(u64_at(value, 0))
            }
            short => Ok(u64::from(short)),
        }
    };
    let member = Member {
        flags: u16_at(&fixed, 8),
        method: u16_at(&fixed, 10),
        crc32: u32_at(&fixed, 16),
        size: widen(u32_at(&fixed, 24))?,
        compressed: widen(u32_at(&fixed, 20))?,
        local_offset: widen(u32_at(&fixed, 42))?,
    };
    Ok((name, member))
}

/// The zip64 field (APPNOTE 4.5.3) among the extra fields, empty if there is none; `None` if the
/// fields are damaged.
fn zip64_field(mut extra: &[u8]) -> Option<&[u8]> {
    while !extra.is_empty() {
        let (head, rest) = extra.split_at_checked(4)?;
        let (body, rest) = rest.split_at_checked(u16_at(head, 2).into())?;
        if u16_at(head, 0) == 1 {
            return Some(body);
        }
        extra = rest;
    }
    Some(&[])
}

impl Member {
    /// Where its bytes start, behind its local header (APPNOTE 4.3.7); they must end before the
    /// directory.
    fn data_offset<R: Read + Seek>(&self, zip: &mut R, limit: u64) -> Result<u64, PickleError> {
        let damaged = || fault("the local header of its data.pkl is damaged");
        self.local_offset
            .checked_add(LOCAL_HEADER)
            .filter(|end| *end <= limit)
            .ok_or_else(damaged)?;
        let header = read_array::<{ LOCAL_HEADER as usize }, R>(zip, self.local_offset)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(damaged());
        }
        let names = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = self.local_offset + LOCAL_HEADER + names;
        let fits = start
            .checked_add(self.compressed)
            .is_some_and(|end| end <= limit);
        if fits { Ok(start) } else { Err(damaged()) }
    }
}

fn fault(why: &str) -> PickleError {
    PickleError::Zip(why.to_owned())
}

fn read_array<const N: usize, R: Read + Seek>(
    zip: &mut R,
    at: u64,
) -> Result<[u8; N], PickleError> {
    let mut bytes = [0; N];
    zip.seek(SeekFrom::Start(at))?;
    zip.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

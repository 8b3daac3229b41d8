//! The end records of a zip, which say where its directory is.

use super::FramingError;
use super::numbers::{read_array, u16_at, u32_at, u64_at};
use crate::source::ReadAt;

const END: u64 = 22;
const END64: u64 = 56;
const LOCATOR64: u64 = 20;

/// Where the central directory is.
pub(super) struct End {
    pub(super) members: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Reads the end record (APPNOTE 4.3.16) and, if there is one, its 64-bit form (4.3.14, 4.3.15).
/// The directory must reach up to it, and it to the end of the file: no comment.
pub(super) fn read_end(source: &dyn ReadAt) -> Result<End, FramingError> {
    let at = source.size().checked_sub(END).ok_or(FramingError::NoEnd)?;
    let record = read_array::<{ END as usize }>(source, at)?;
    if !record.starts_with(b"PK\x05\x06") || u16_at(&record, 20) != 0 {
        return Err(FramingError::NoEnd);
    }
    let damaged = FramingError::Record {
        record: "end record",
        at,
    };
    let members = u16_at(&record, 10);
    if u32_at(&record, 4) != 0 || u16_at(&record, 8) != members {
        return Err(damaged);
    }
    let (short_size, short_offset) = (u32_at(&record, 12), u32_at(&record, 16));
    let wide = match at.checked_sub(LOCATOR64) {
        Some(locator) => read_end64(source, locator)?,
        None => None,
    };
    let (end, up_to) = match wide {
        Some((end, start)) => {
            // A 32-bit field holds the value itself, or all ones.
            let agrees = |short: u64, ones: u64, wide: u64| short == wide || short == ones;
            if !agrees(members.into(), u16::MAX.into(), end.members)
                || !agrees(short_size.into(), u32::MAX.into(), end.size)
                || !agrees(short_offset.into(), u32::MAX.into(), end.offset)
            {
                return Err(damaged);
            }
            (end, start)
        }
        None => {
            let end = End {
                members: members.into(),
                offset: short_offset.into(),
                size: short_size.into(),
            };
            (end, at)
        }
    };
    if end.offset.checked_add(end.size) != Some(up_to) {
        return Err(FramingError::Record {
            record: "end record",
            at,
        });
    }
    Ok(end)
}

/// The 64-bit end record whose locator lies at `locator`, and where it starts; none if there is no
/// locator.
fn read_end64(source: &dyn ReadAt, locator: u64) -> Result<Option<(End, u64)>, FramingError> {
    let record = read_array::<{ LOCATOR64 as usize }>(source, locator)?;
    if !record.starts_with(b"PK\x06\x07") {
        return Ok(None);
    }
    let damaged = || FramingError::Record {
        record: "64-bit end record",
        at: locator,
    };
    let start = u64_at(&record, 8);
    if start.checked_add(END64) != Some(locator)
        || u32_at(&record, 4) != 0
        || u32_at(&record, 16) != 1
    {
        return Err(damaged());
    }
    let record = read_array::<{ END64 as usize }>(source, start)?;
    let members = u64_at(&record, 24);
    let well_formed = record.starts_with(b"PK\x06\x06")
        && u64_at(&record, 4) == END64 - 12
        && u64_at(&record, 16) == 0
        && u64_at(&record, 32) == members
        && u16_at(&record, 12) == u16_at(&record, 14);
    if !well_formed {
        return Err(damaged());
    }
    let end = End {
        members,
        size: u64_at(&record, 40),
        offset: u64_at(&record, 48),
    };
    Ok(Some((end, start)))
}

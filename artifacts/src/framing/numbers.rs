//! Little-endian numbers in the records of a zip.

use super::FramingError;
use crate::source::ReadAt;

/// The `N` bytes at an offset.
pub(super) fn read_array<const N: usize>(
    source: &dyn ReadAt,
    at: u64,
) -> Result<[u8; N], FramingError> {
    let mut bytes = [0; N];
    source.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The 16-bit number at `at`, which must be inside.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The 32-bit number at `at`, which must be inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// The 64-bit number at `at`, which must be inside.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

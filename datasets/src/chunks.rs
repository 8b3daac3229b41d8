//! Reading the chunks of an array that may be damaged.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;
use zarrs::array::{Array, ArrayBytes, ArraySubset, CodecOptions};
use zarrs::filesystem::FilesystemStore;

use crate::ZarrFormat;

/// Reads a part of an array. The decoders of `zarrs` can panic on damaged bytes (seen with texts
/// of any length), which must not end the process.
pub(crate) fn retrieve(
    array: &Array<FilesystemStore>,
    subset: &ArraySubset,
) -> Result<ArrayBytes<'static>, String> {
    caught(|| {
        array
            .retrieve_array_subset(subset)
            .map_err(|error| error.to_string())
    })
}

/// Reads a chunk in the thread that asks, as there are others for other chunks.
pub(crate) fn retrieve_chunk(
    array: &Array<FilesystemStore>,
    chunk: &[u64],
) -> Result<ArrayBytes<'static>, String> {
    let options = CodecOptions::default().with_concurrent_target(1);
    caught(|| {
        array
            .retrieve_chunk_opt(chunk, &options)
            .map_err(|error| error.to_string())
    })
}

/// Reads a chunk, to see whether it can be.
pub(crate) fn try_chunk(array: &Array<FilesystemStore>, chunk: &[u64]) -> Result<(), String> {
    caught(|| {
        array
            .retrieve_chunk::<ArrayBytes<'static>>(chunk)
            .map(drop)
            .map_err(|error| error.to_string())
    })
}

fn caught<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err("its bytes are not what its codecs write".to_owned()))
}

/// Whether the bytes of an array's chunks are zstd frames.
pub(crate) fn is_zstd(format: ZarrFormat, document: &Value) -> bool {
    let name = match format {
        ZarrFormat::V2 => document.pointer("/compressor/id"),
        ZarrFormat::V3 => document
            .get("codecs")
            .and_then(Value::as_array)
            .and_then(|codecs| codecs.last())
            .and_then(|codec| codec.get("name").or(Some(codec))),
    };
    name.and_then(Value::as_str) == Some("zstd")
}

/// The length in bytes that a zstd frame at the start of a file says it has when decoded. `zarrs`
/// allocates it before it looks further, so that a damaged header could end the process.
///
/// Format: RFC 8878, section 3.1.1.1.
pub(crate) fn zstd_length(path: &Path) -> Option<u64> {
    let mut header = Vec::with_capacity(18);
    File::open(path)
        .ok()?
        .take(18)
        .read_to_end(&mut header)
        .ok()?;
    frame_length(&header)
}

fn frame_length(header: &[u8]) -> Option<u64> {
    let rest = header.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, rest) = rest.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    let window = usize::from(!is_single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        flag => 1 << flag,
    };
    let field = rest.get(window + dictionary..)?.get(..length)?;
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(field);
    let value = u64::from_le_bytes(bytes);
    match length {
        0 => None,
        2 => Some(value + 256),
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_zstd_headers() {
        let magic = [0x28, 0xb5, 0x2f, 0xfd];
        let length = |rest: &[u8]| frame_length(&[magic.as_slice(), rest].concat());
        assert_eq!(length(&[0x20, 7]), Some(7));
        assert_eq!(length(&[0x60, 0x2c, 0x01]), Some(556));
        assert_eq!(length(&[0x80, 0x58, 1, 0, 1, 0]), Some(65_537));
        assert_eq!(length(&[0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10]), Some(1 << 60));
        assert_eq!(length(&[0x23, 1, 2, 3, 4, 9]), Some(9));
        assert_eq!(length(&[0x00, 0x58]), None);
        assert_eq!(length(&[0xe0, 0, 0]), None);
        assert_eq!(frame_length(b"blosc"), None);
    }
}

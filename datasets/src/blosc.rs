//! Values compressed by blosc.

use std::borrow::Cow;

use zarrs::array::codec::api::BytesToBytesCodecTraits;
use zarrs::array::codec::{BloscCodec, BloscCompressionLevel, BloscCompressor, BloscShuffleMode};
use zarrs::array::{BytesRepresentation, CodecOptions};

/// What a chunk grows by at most where it cannot be compressed: the header of a blosc frame.
pub(crate) const OVERHEAD: u64 = 16;

/// Compresses values of one width. One thread each, so that the bytes are always the same.
#[derive(Debug)]
pub struct Blosc(BloscCodec);

impl Blosc {
    /// For files that are kept: zstd, after a shuffle of bytes.
    pub(crate) fn small(level: u8, width: usize) -> Result<Self, String> {
        Self::new(
            BloscCompressor::Zstd,
            BloscShuffleMode::Shuffle,
            level,
            width,
        )
    }

    /// For files that are soon replaced: LZ4 after a shuffle of bits, several times faster.
    ///
    /// # Errors
    /// Why there is none for values of so many bytes.
    pub fn fast(width: usize) -> Result<Self, String> {
        Self::new(BloscCompressor::LZ4, BloscShuffleMode::BitShuffle, 5, width)
    }

    fn new(
        compressor: BloscCompressor,
        shuffle: BloscShuffleMode,
        level: u8,
        width: usize,
    ) -> Result<Self, String> {
        let level = BloscCompressionLevel::try_from(level).map_err(|_| "level above 9")?;
        BloscCodec::new(compressor, level, None, shuffle, Some(width))
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// Compresses values in little endian.
    ///
    /// # Errors
    /// What the library says.
    pub fn compress(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let options = CodecOptions::default().with_concurrent_target(1);
        self.0
            .encode(Cow::Borrowed(bytes), &options)
            .map(Cow::into_owned)
            .map_err(|error| error.to_string())
    }

    /// The values again, of which there must be this many bytes.
    ///
    /// # Errors
    /// What the library says, or that there are not as many.
    pub fn decompress(&self, bytes: &[u8], length: usize) -> Result<Vec<u8>, String> {
        let options = CodecOptions::default().with_concurrent_target(1);
        let expected = BytesRepresentation::FixedSize(length as u64);
        let values = self
            .0
            .decode(Cow::Borrowed(bytes), &expected, &options)
            .map_err(|error| error.to_string())?;
        match values.len() == length {
            true => Ok(values.into_owned()),
            false => Err(format!("{} bytes instead of {length}", values.len())),
        }
    }
}

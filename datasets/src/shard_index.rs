//! Which inner chunks a shard holds, by its index.
//!
//! `zarrs` decodes indices, too, but says of an inner chunk that is not there that it lies beyond the end of all files.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::path::Path;

use zarrs::array::codec::CodecChain;
use zarrs::array::{
    Array, ArrayMetadata, ArraySubset, ArrayToBytesCodecTraits, BytesRepresentation, CodecOptions,
    FillValue, data_type,
};
use zarrs::filesystem::FilesystemStore;
use zarrs::metadata_ext::codec::sharding::{ShardingCodecConfiguration, ShardingIndexLocation};

use crate::chunks::caught;

/// The index entry of an inner chunk that is not there.
const ABSENT: [u64; 2] = [u64::MAX; 2];

/// The inner chunks that a shard, which is in a file, does not hold; none where other codecs are around that of shards,
/// which then are read only as a whole.
pub(crate) fn absent(
    array: &Array<FilesystemStore>,
    shard: &[u64],
    file: &Path,
) -> Result<Vec<ArraySubset>, String> {
    let ArrayMetadata::V3(metadata) = array.metadata() else {
        return Ok(Vec::new());
    };
    let [codec] = metadata.codecs.as_slice() else {
        return Ok(Vec::new());
    };
    if codec.name() != "sharding_indexed" {
        return Ok(Vec::new());
    }
    let configuration = codec.to_typed_configuration();
    let configuration: ShardingCodecConfiguration =
        configuration.map_err(|error| error.to_string())?;
    let ShardingCodecConfiguration::V1(configuration) = configuration else {
        return Err("its shards are of a kind that is not known".to_owned());
    };
    let held = array
        .chunk_subset(shard)
        .map_err(|error| error.to_string())?;
    let inner: Vec<u64> = configuration
        .chunk_shape
        .iter()
        .map(|length| length.get())
        .collect();
    let counts: Vec<u64> = held
        .shape()
        .iter()
        .zip(&inner)
        .map(|(whole, each)| whole / each)
        .collect();
    let codecs = CodecChain::from_metadata(&configuration.index_codecs);
    let codecs = codecs.map_err(|error| error.to_string())?;
    let index = read(file, &codecs, &counts, configuration.index_location)?;
    let bounds = ArraySubset::new_with_shape(array.shape().to_vec());
    let mut absent = Vec::new();
    for (at, entry) in ArraySubset::new_with_shape(counts)
        .indices()
        .iter()
        .zip(index)
    {
        let start = held.start().iter().zip(&at).zip(&inner);
        let start: Vec<u64> = start.map(|((start, at), each)| start + at * each).collect();
        let is_inside = start
            .iter()
            .zip(array.shape())
            .all(|(start, end)| start < end);
        if entry == ABSENT && is_inside {
            let whole = ArraySubset::new_with_start_shape(start, inner.clone());
            let whole = whole.map_err(|error| error.to_string())?;
            absent.push(whole.overlap(&bounds).map_err(|error| error.to_string())?);
        }
    }
    Ok(absent)
}

/// Where each inner chunk of a shard lies, in row-major order: its first byte, and how many there are.
fn read(
    file: &Path,
    codecs: &CodecChain,
    counts: &[u64],
    location: ShardingIndexLocation,
) -> Result<Vec<[u64; 2]>, String> {
    let shape = counts.iter().copied().chain([2]).map(NonZeroU64::new);
    let shape: Option<Vec<NonZeroU64>> = shape.collect();
    let shape = shape.ok_or("its shards hold no whole chunk")?;
    let (kind, fill) = (data_type::uint64(), FillValue::from(u64::MAX));
    let size = codecs.encoded_representation(&shape, &kind, &fill);
    let BytesRepresentation::FixedSize(size) = size.map_err(|error| error.to_string())? else {
        return Err("the index of its shards has no fixed size".to_owned());
    };
    let bytes = tail_or_head(file, size, location).map_err(|error| error.to_string())?;
    caught(|| {
        let decoded = codecs
            .decode(
                Cow::Borrowed(&bytes),
                &shape,
                &kind,
                &fill,
                &CodecOptions::default(),
            )
            .and_then(|decoded| Ok(decoded.into_fixed()?.into_owned()))
            .map_err(|error| error.to_string())?;
        let numbers = decoded
            .as_chunks::<8>()
            .0
            .iter()
            .copied()
            .map(u64::from_ne_bytes);
        let numbers: Vec<u64> = numbers.collect();
        Ok(numbers.as_chunks::<2>().0.to_vec())
    })
}

fn tail_or_head(
    file: &Path,
    size: u64,
    location: ShardingIndexLocation,
) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    if location == ShardingIndexLocation::End {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(size)))?;
    }
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

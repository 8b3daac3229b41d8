//! The content of a file, told apart without reading what is not there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{Error, Uri, pool};

/// Files are looked at in pieces of this many bytes; those of nothing but zeros are passed over, as holes are.
const PIECE: u64 = 64 << 10;

/// A digest of the length of a file and of its pieces that are not zero.
pub(crate) fn hash_file(
    uri: &Uri,
    path: &Path,
    tell: &dyn Fn(u64),
    cancel: &CancellationToken,
) -> Result<Digest, Error> {
    let mut file = File::open(path).map_err(Error::local("open", path))?;
    let mut hash = Sha256::new();
    let mut piece = Vec::with_capacity(PIECE as usize);
    let mut offset = 0;
    let length = file
        .metadata()
        .map_err(Error::local("look at", path))?
        .len();
    hash.update(length.to_le_bytes());
    while let Some(at) =
        read_next(&mut file, offset, &mut piece).map_err(Error::local("read", path))?
    {
        if cancel.is_cancelled() {
            return Err(pool::interrupted(uri));
        }
        if piece.iter().any(|byte| *byte != 0) {
            hash.update(at.to_le_bytes());
            hash.update(&piece);
        }
        tell(piece.len() as u64);
        offset = at + PIECE;
    }
    Ok(Digest::from_hasher(hash))
}

/// Reads the piece in which the next data at an offset or behind it are, and says where it begins: on all file systems
/// a multiple of its length.
fn read_next(file: &mut File, offset: u64, piece: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let Some(data) = next_data(file, offset)? else {
        return Ok(None);
    };
    let at = data / PIECE * PIECE;
    file.seek(SeekFrom::Start(at))?;
    piece.clear();
    let read = file.take(PIECE).read_to_end(piece)?;
    Ok((read > 0).then_some(at))
}

/// Where there are data at an offset or behind it; `None` if there are none.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // A file system that knows no holes.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTSUP) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_zeros_and_every_byte_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, length: u64, parts: &[(u64, &[u8])]| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_len(length).unwrap();
            for (offset, bytes) in parts {
                file.write_all_at(bytes, *offset).unwrap();
            }
            let uri = Uri::from_path(&path, name).unwrap();
            hash_file(&uri, &path, &|_| {}, &CancellationToken::new()).unwrap()
        };
        let long = 1 << 40;
        let some: (u64, &[u8]) = (5 << 30, b"some");
        let all = [
            write("empty", 0, &[]),
            write("zeros", 300_000, &[]),
            write("longer", 300_001, &[]),
            write("one", 300_000, &[(299_999, &[1])]),
            write("elsewhere", 300_000, &[(100_000, &[1])]),
            write("long", long, &[]),
            write("some", long, &[some]),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(!all[..number].contains(one), "{number}");
        }
        assert_eq!(all[1], write("written", 300_000, &[(0, &[0; 300_000])]));
        assert_eq!(all[6], write("more", long, &[some, (1 << 20, &[0; 100])]));
    }
}

//! What a local folder holds, told apart by its content without reading what is not there: a file may be a terabyte
//! long and take nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use mlwm_spec::Digest;
use mlwm_spec::manifest::ObjectRecord;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::tree::{self, Gone};
use crate::{Error, Uri, pool};

/// Files are looked at in pieces of this many bytes; those of nothing but zeros are passed over, as holes are.
const PIECE: usize = 64 << 10;

/// Every file of a folder, ordered by path, with a digest of its length and of its pieces that are not zero: not that
/// of its bytes, but it differs where they do.
pub async fn kept_objects(
    local: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<ObjectRecord>, Error> {
    let uri = Uri::from_path(local, &local.to_string_lossy())?;
    let (folder, place, cancel) = (local.to_owned(), uri.clone(), cancel.clone());
    pool::blocking(&uri, move || {
        let record = |file: tree::LocalFile| {
            if cancel.is_cancelled() {
                return Err(pool::interrupted(&place));
            }
            let sha256 = digest(&file.path).map_err(Error::local("read", &file.path))?;
            Ok(ObjectRecord {
                path: file.name,
                size: file.size,
                sha256,
            })
        };
        tree::walk(&folder, Gone::Fault)?
            .into_iter()
            .map(record)
            .collect()
    })
    .await
}

fn digest(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(length.to_le_bytes());
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < length {
        // From the piece in which the next data are, on all file systems the same ones.
        let Some(data) = next_data(&file, offset)? else {
            break;
        };
        offset = data / PIECE as u64 * PIECE as u64;
        file.seek(SeekFrom::Start(offset))?;
        let mut read = 0;
        while read < PIECE {
            match file.read(&mut piece[read..])? {
                0 => break,
                more => read += more,
            }
        }
        if piece[..read].iter().any(|byte| *byte != 0) {
            hash.update(offset.to_le_bytes());
            hash.update(&piece[..read]);
        }
        offset += PIECE as u64;
    }
    Ok(Digest::from_hasher(hash))
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
            digest(&path).unwrap()
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

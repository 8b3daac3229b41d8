//! A first look at a PyTorch checkpoint, without opening it: it is a pickle, and a pickle runs
//! whatever code it holds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, io_error};

/// Checks that the file starts like a zip (PyTorch 1.6 and later) or like a pickle of protocol 2
/// to 5 (earlier).
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut start))
        .map_err(io_error("read", path))?;
    match start.as_slice() {
        b"PK\x03\x04" | [0x80, 2..=5, ..] => Ok(()),
        _ => Err(Error::Checkpoint {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_checkpoints_from_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for (start, good) in [
            (&b"PK\x03\x04rest"[..], true),
            (b"\x80\x02\x8a\x0a", true),
            (b"", false),
            (b"PK", false),
            (b"version https://git-lfs", false),
            (b"\x80\x01xx", false),
        ] {
            std::fs::write(&path, start).unwrap();
            assert_eq!(check(&path).is_ok(), good, "{start:?}");
        }
    }
}

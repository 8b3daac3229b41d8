//! Writing the zip to a file, which appears whole or not at all.
//!
//! What makes most of a zip, the content of large members, starts at whole pages and comes in whole
//! pages. It goes to the disk without the detour over the page cache: the processor, which has two
//! hashes to compute, does not copy it again, and there is nothing left to flush at the end.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use mlwm_spec::Digest;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::error::{Error, io_error};
use crate::pack::{Packed, Packing};
use crate::source::digest_of;

/// What offsets, lengths and addresses of direct writes are multiples of, on any usual disk.
pub(crate) const BLOCK: usize = 4096;

impl Packing {
    /// Writes the zip to `destination`, through a temporary file beside it that is flushed to disk
    /// and renamed. A destination that exists is never replaced: if it is the same artifact it
    /// stays as it is, if not this fails.
    pub fn write_file(&self, destination: &Path) -> Result<Packed, Error> {
        let folder = parent(destination);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let temporary = NamedTempFile::with_prefix_in(".building-", folder)
            .map_err(io_error("create a file in", folder))?;
        let failed = || io_error("write", destination);
        let mut file = BlockFile::new(&temporary, self.size()).map_err(failed())?;
        let mut packed = self.write_to(&mut file)?;
        temporary
            .as_file()
            .set_permissions(Permissions::from_mode(0o644))
            .and_then(|()| temporary.as_file().sync_all())
            .map_err(failed())?;
        packed.unchanged = !put_in_place(temporary, destination, packed.digest)?;
        Ok(packed)
    }
}

/// A file that is written from its start to its end; whole blocks directly, where that works.
struct BlockFile<'a> {
    file: &'a File,
    /// The same file, opened for direct writes.
    direct: Option<File>,
    at: u64,
}

impl<'a> BlockFile<'a> {
    /// Reserves `size` bytes, so that a full disk is found before anything is read.
    fn new(temporary: &'a NamedTempFile, size: u64) -> io::Result<Self> {
        match fallocate(temporary, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        // Some file systems know no direct writes, and all do without.
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(temporary.path());
        Ok(Self {
            file: temporary.as_file(),
            direct: direct.ok(),
            at: 0,
        })
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.len() - bytes.len() % BLOCK;
        let is_aligned =
            self.at.is_multiple_of(BLOCK as u64) && bytes.as_ptr().align_offset(BLOCK) == 0;
        if let Some(direct) = &self.direct
            && whole > 0
            && is_aligned
        {
            match direct.write_at(&bytes[..whole], self.at) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                written => return written,
            }
        }
        self.file.write_at(bytes, self.at)
    }
}

impl Write for BlockFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_some(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Renames the finished zip to its name; false if the same one is already there.
fn put_in_place(
    temporary: NamedTempFile,
    destination: &Path,
    built: Digest,
) -> Result<bool, Error> {
    match temporary.persist_noclobber(destination) {
        Ok(_) => {
            let folder = parent(destination);
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(io_error("write", folder))?;
            Ok(true)
        }
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
            let existing = File::open(destination)
                .and_then(digest_of)
                .map_err(io_error("read", destination))?;
            if existing == built {
                return Ok(false);
            }
            Err(Error::Exists {
                path: destination.to_owned(),
                existing,
                built,
            })
        }
        Err(failed) => Err(io_error("write", destination)(failed.error)),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

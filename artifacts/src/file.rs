//! Writing the zip to a file, which appears whole or not at all.
//!
//! What makes most of a zip, the content of large members, starts at whole pages and comes in whole
//! pages. It goes to the disk without the detour over the page cache: the processor, which has two
//! hashes to compute, does not copy it again, and there is nothing left to flush at the end.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mlwm_spec::Digest;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;
use tempfile::TempPath;

use crate::error::{Error, io_error};
use crate::hashing::digest_of;
use crate::pack::{Packed, Packing};
use crate::workplace::{Workplace, beside, parent, sync_folder};

/// What offsets, lengths and addresses of direct writes are multiples of, on any usual disk.
pub(crate) const BLOCK: usize = 4096;

impl Packing {
    /// Writes the zip to `destination`, through a temporary file near it that is flushed to disk
    /// and renamed. A destination that exists is never replaced: if it is the same artifact it
    /// stays as it is, if not this fails.
    pub fn write_file(&self, destination: &Path) -> Result<Packed, Error> {
        self.write_in(&workplace(destination)?, destination)
    }

    pub(crate) fn write_in(
        &self,
        workplace: &Workplace,
        destination: &Path,
    ) -> Result<Packed, Error> {
        let path = workplace.path("zip");
        let (file, temporary) = create(path.clone()).map_err(io_error("create", path))?;
        let failed = || io_error("write", destination);
        let mut blocks = BlockFile::new(&file, &temporary, self.size()).map_err(failed())?;
        let mut packed = self.write_to(&mut blocks)?;
        file.set_permissions(Permissions::from_mode(0o644))
            .and_then(|()| file.sync_all())
            .map_err(failed())?;
        packed.unchanged = !put_in_place(temporary, destination, packed.digest)?;
        Ok(packed)
    }
}

/// Where the zip of this destination, and what lies beside it, is written.
pub(crate) fn workplace(destination: &Path) -> Result<Workplace, Error> {
    let folder = parent(destination);
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let name = beside(destination, "building").unwrap_or_else(|| folder.join(".building"));
    Workplace::enter(name)
}

/// Creates a file in the place of what a killed process left there. It is removed unless it is
/// given another name.
fn create(path: PathBuf) -> io::Result<(File, TempPath)> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::create_new(&path)?;
    Ok((file, TempPath::try_from_path(path)?))
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
    fn new(file: &'a File, path: &Path, size: u64) -> io::Result<Self> {
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        // Some file systems know no direct writes, and all do without.
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(path);
        Ok(Self {
            file,
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
fn put_in_place(temporary: TempPath, destination: &Path, built: Digest) -> Result<bool, Error> {
    match temporary.persist_noclobber(destination) {
        Ok(()) => {
            sync_folder(parent(destination))?;
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

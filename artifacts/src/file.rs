//! Writing the zip to a file, which appears whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use mlwm_spec::Digest;
use tempfile::NamedTempFile;

use crate::error::{Error, io_error};
use crate::pack::{Packed, Packing};
use crate::source::digest_of;

/// After so many bytes, the disk is told to write them, while more are made.
const FLUSH_EVERY: usize = 32 << 20;

impl Packing {
    /// Writes the zip to `destination`, through a temporary file beside it that is flushed to disk
    /// and renamed. A destination that exists is never replaced: if it is the same artifact it
    /// stays as it is, if not this fails.
    pub fn write_file(&self, destination: &Path) -> Result<Packed, Error> {
        let folder = parent(destination);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let temporary = NamedTempFile::with_prefix_in(".building-", folder)
            .map_err(io_error("create a file in", folder))?;
        let mut packed = self.write_flushed(temporary.as_file(), destination)?;
        temporary
            .as_file()
            .set_permissions(Permissions::from_mode(0o644))
            .and_then(|()| temporary.as_file().sync_all())
            .map_err(io_error("write", destination))?;
        packed.unchanged = !put_in_place(temporary, destination, packed.digest)?;
        Ok(packed)
    }

    /// Writes to a file while another thread flushes it.
    fn write_flushed(&self, file: &File, destination: &Path) -> Result<Packed, Error> {
        thread::scope(|scope| {
            let (flush, flushes) = channel::<()>();
            let flushing = scope.spawn(move || {
                while flushes.recv().is_ok() {
                    // One flush serves all requests so far.
                    while flushes.try_recv().is_ok() {}
                    file.sync_data()?;
                }
                Ok(())
            });
            let packed = self.write_to(&mut FlushedFile {
                file,
                flush,
                unflushed: 0,
            });
            let lost = |_| Err(io::Error::other("the thread that flushes it failed"));
            let flushed = flushing.join().unwrap_or_else(lost);
            let packed = packed?;
            flushed.map_err(io_error("write", destination))?;
            Ok(packed)
        })
    }
}

/// A file that asks for a flush every now and then.
struct FlushedFile<'a> {
    file: &'a File,
    flush: Sender<()>,
    unflushed: usize,
}

impl Write for FlushedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unflushed += written;
        if self.unflushed >= FLUSH_EVERY {
            self.unflushed = 0;
            // A thread that failed says so when it is joined.
            let _ = self.flush.send(());
        }
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

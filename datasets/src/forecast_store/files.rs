//! Files that appear complete or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file being written under a name that begins with a dot. It gets its own name when it is
/// complete and on the disk; dropped before, it is removed.
pub(crate) struct FileInProgress {
    file: BufWriter<File>,
    partial: PathBuf,
    target: PathBuf,
    is_complete: bool,
}

impl FileInProgress {
    /// Starts a file; its folders are made, what a killed writer left is overwritten.
    pub(crate) fn create(target: &Path) -> std::io::Result<Self> {
        let folder = target.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let partial = folder.join(format!(".{name}.partial"));
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, File::create(&partial)?),
            partial,
            target: target.to_owned(),
            is_complete: false,
        })
    }

    /// The name that it will have.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Writes more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives it its name, replacing what was there.
    pub(crate) fn complete(mut self) -> std::io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(&self.partial, &self.target)?;
        self.is_complete = true;
        sync_folder(self.target.parent().unwrap_or(Path::new(".")))
    }
}

impl Drop for FileInProgress {
    fn drop(&mut self) {
        if !self.is_complete {
            // What stays is overwritten by the next attempt.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Puts the names in a folder on the disk.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

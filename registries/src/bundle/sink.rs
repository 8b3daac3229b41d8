//! Where a bundle is written: one file or parts, under other names until all of it is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use mlwm_spec::Digest;
use tempfile::TempPath;

use super::hashing::Lane;
use super::parts::{Part, PartList, is_file_of, list_path, part_path};
use crate::Error;
use crate::transfers::{Kind, try_lock};

/// What a file is called while it is written: `.<file>` and this.
const WRITING: &str = ".mlwm-writing";

/// Receives a bundle. What was written is removed when this is dropped.
pub(super) struct Sink {
    base: PathBuf,
    /// Where the stream is cut; absent: nowhere.
    part_size: Option<u64>,
    whole: Lane,
    part: Lane,
    current: Option<(File, TempPath)>,
    /// Size of the current file.
    size: u64,
    done: Vec<(TempPath, Part)>,
    /// Flushes the file before the current one.
    flushing: Option<JoinHandle<io::Result<()>>>,
    /// Against a second process that writes the same bundle. The last field: it is let go when
    /// nothing else is left.
    _held: Held,
}

/// The lock of a bundle that is written; its file is removed when this is dropped.
struct Held {
    path: PathBuf,
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // What stays is locked by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

impl Sink {
    /// Receives the file `base`, or its parts.
    pub(super) fn create(base: &Path, part_size: Option<u64>) -> Result<Self, Error> {
        let held = hold(base)?;
        remove_left(base)?;
        Ok(Self {
            base: base.to_owned(),
            part_size,
            whole: Lane::spawn(),
            part: Lane::spawn(),
            current: None,
            size: 0,
            done: Vec::new(),
            flushing: None,
            _held: held,
        })
    }

    /// Appends to the bundle.
    pub(super) fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        self.whole.push(&bytes);
        while !bytes.is_empty() {
            let room = self.part_size.map_or(u64::MAX, |limit| limit - self.size);
            if room == 0 {
                self.end_file()?;
                continue;
            }
            let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let piece = bytes.split_to(taken);
            if self.part_size.is_some() {
                self.part.push(&piece);
            }
            let (mut file, path) = match self.current.take() {
                Some(current) => current,
                None => create_temporary(temporary_path(&self.next_path()))?,
            };
            file.write_all(&piece)
                .map_err(Error::local("write", &*path))?;
            self.size += taken as u64;
            self.current = Some((file, path));
        }
        Ok(())
    }

    /// Ends the current file and has it flushed while the next one is written.
    fn end_file(&mut self) -> Result<(), Error> {
        self.flushed()?;
        let Some((file, path)) = self.current.take() else {
            return Ok(());
        };
        let size = std::mem::take(&mut self.size);
        let digest = match self.part_size {
            Some(_) => self.part.end()?,
            None => self.whole.end()?,
        };
        self.done.push((path, Part { size, digest }));
        self.flushing = Some(thread::spawn(move || file.sync_all()));
        Ok(())
    }

    fn flushed(&mut self) -> Result<(), Error> {
        let Some(flushing) = self.flushing.take() else {
            return Ok(());
        };
        let gone = |_| Err(io::Error::other("the thread that flushes it is gone"));
        let flushed = flushing.join().unwrap_or_else(gone);
        flushed.map_err(Error::local("write", &self.base))
    }

    /// Gives all files their names, none of which is taken from other content. Gives the digest of
    /// the whole and the paths of the files, the list of parts last.
    pub(super) fn finish(mut self) -> Result<(Digest, Vec<PathBuf>), Error> {
        self.end_file()?;
        self.flushed()?;
        if self.part_size.is_some() {
            let list = PartList::new(self.whole.end()?, self.done.iter().map(|d| d.1).collect());
            let json = list.to_json();
            let (mut file, path) = create_temporary(temporary_path(&list_path(&self.base)))?;
            file.write_all(&json)
                .and_then(|()| file.sync_all())
                .map_err(Error::local("write", &*path))?;
            let part = Part {
                size: json.len() as u64,
                digest: Digest::of(&json),
            };
            self.done.push((path, part));
            let paths = self.names();
            return Ok((list.digest, self.put_in_place(paths)?));
        }
        let paths = self.names();
        let digest = self.done.first().map(|(_, file)| file.digest);
        let digest = digest.ok_or_else(|| Error::Broken("a bundle had no bytes".to_owned()))?;
        Ok((digest, self.put_in_place(paths)?))
    }

    /// The final names of all files.
    fn names(&self) -> Vec<PathBuf> {
        if self.part_size.is_none() {
            return vec![self.base.clone()];
        }
        let parts = self.done.len() - 1;
        let parts = (0..parts).map(|index| part_path(&self.base, index));
        parts.chain([list_path(&self.base)]).collect()
    }

    fn put_in_place(self, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, Error> {
        // Names that an interrupted run gave already stay as they are; all are looked at before the
        // first one is given.
        let mut taken = Vec::with_capacity(paths.len());
        for ((_, file), path) in self.done.iter().zip(&paths) {
            taken.push(holds(path, file)?);
        }
        for (((temporary, _), path), taken) in self.done.into_iter().zip(&paths).zip(taken) {
            if taken {
                continue;
            }
            temporary
                .persist_noclobber(path)
                .map_err(|failed| match failed.error.kind() {
                    ErrorKind::AlreadyExists => in_the_way(path),
                    _ => Error::local("write", path)(failed.error),
                })?;
        }
        let folder = folder_of(&self.base);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::local("write", folder))?;
        Ok(paths)
    }

    fn next_path(&self) -> PathBuf {
        match self.part_size {
            Some(_) => part_path(&self.base, self.done.len()),
            None => self.base.clone(),
        }
    }
}

/// Whether a file is there and holds this; an error if it holds something else.
fn holds(path: &Path, expected: &Part) -> Result<bool, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::local("open", path)(error)),
    };
    let metadata = file.metadata().map_err(Error::local("look at", path))?;
    if !metadata.is_file() || metadata.len() != expected.size {
        return Err(in_the_way(path));
    }
    match crate::digest_of(file).map_err(Error::local("read", path))? {
        found if found == expected.digest => Ok(true),
        _ => Err(in_the_way(path)),
    }
}

pub(super) fn in_the_way(path: &Path) -> Error {
    Error::InTheWay {
        path: path.to_owned(),
        expected: "this bundle".to_owned(),
    }
}

/// The folder of a file.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder_of(path).join(format!(".{name}{WRITING}"))
}

fn create_temporary(path: PathBuf) -> Result<(File, TempPath), Error> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(Error::local("create", &path))?;
    let path = TempPath::try_from_path(&path).map_err(Error::local("create", &path))?;
    Ok((file, path))
}

/// Locks a file beside the bundle, whose name no content ever gets.
fn hold(base: &Path) -> Result<Held, Error> {
    let path = temporary_path(base).with_added_extension("lock");
    match try_lock(&path, Kind::Exclusive)? {
        Some(file) => Ok(Held { path, _file: file }),
        None => Err(Error::Local {
            action: "write",
            path: base.to_owned(),
            source: io::Error::other("another process is writing it: wait until it ends"),
        }),
    }
}

/// Removes what a killed process left of this bundle, in whatever parts it was writing it.
fn remove_left(base: &Path) -> Result<(), Error> {
    let folder = folder_of(base);
    for entry in fs::read_dir(folder).map_err(Error::local("read", folder))? {
        let entry = entry.map_err(Error::local("read", folder))?;
        let name = entry.file_name();
        let written = name.to_str().and_then(|name| name.strip_prefix('.'));
        let Some(written) = written.and_then(|name| name.strip_suffix(WRITING)) else {
            continue;
        };
        if is_file_of(Path::new(written), base) {
            let path = entry.path();
            fs::remove_file(&path).map_err(Error::local("remove", path))?;
        }
    }
    Ok(())
}

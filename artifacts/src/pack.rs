//! Writing the zip: one pass over the sources, the same bytes for the same contents (format §5).

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use mlwm_spec::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use crate::artifact::digest_of;
use crate::error::{Error, io_error};
use crate::framing::LARGE_MEMBER;
use crate::layout::ARTIFACT_YAML;
use crate::record::{FORMAT_VERSION, FileEntry, Record, RecordedFile};

/// Where the bytes of a member come from.
pub(crate) enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// A written artifact.
pub(crate) struct Packed {
    pub(crate) digest: Digest,
    pub(crate) files: Vec<FileEntry>,
    pub(crate) bytes: u64,
    /// The same artifact was already there and was left alone.
    pub(crate) unchanged: bool,
}

/// Packs `members`, sorted by name, and `artifact.yaml` after them, into the zip `destination`,
/// which appears whole or not at all.
pub(crate) fn pack(
    name: &str,
    members: &BTreeMap<String, Content>,
    destination: &Path,
) -> Result<Packed, Error> {
    let folder = parent(destination);
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let mut temporary = NamedTempFile::with_prefix_in(".building-", folder)
        .map_err(io_error("create a file in", folder))?;
    let files = write_zip(name, members, destination, temporary.as_file_mut())?;

    let mut file = temporary.as_file();
    file.set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .map_err(io_error("write", destination))?;
    let bytes = file
        .metadata()
        .map_err(io_error("write", destination))?
        .len();
    // The disk is slower than SHA-256: hash while it works.
    let (synced, digest) = thread::scope(|scope| {
        let syncing = scope.spawn(|| temporary.as_file().sync_all());
        let digest = digest_of(file);
        let lost = |_| Err(io::Error::other("the thread that flushes it failed"));
        (syncing.join().unwrap_or_else(lost), digest)
    });
    synced.map_err(io_error("write", destination))?;
    let digest = digest.map_err(io_error("read back", destination))?;
    let unchanged = !put_in_place(temporary, destination, digest)?;
    Ok(Packed {
        digest,
        files,
        bytes,
        unchanged,
    })
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

fn write_zip(
    name: &str,
    members: &BTreeMap<String, Content>,
    destination: &Path,
    file: &mut File,
) -> Result<Vec<FileEntry>, Error> {
    let mut zip = ZipWriter::new(file);
    let failed = |member: &str| {
        let (path, member) = (destination.to_owned(), member.to_owned());
        move |source: ZipError| Error::Pack {
            path,
            member,
            source,
        }
    };
    let mut recorded = Vec::with_capacity(members.len());
    for (member, content) in members {
        let mut source: Box<dyn Read> = match content {
            Content::Bytes(bytes) => Box::new(bytes.as_slice()),
            Content::File(path) => Box::new(File::open(path).map_err(io_error("open", path))?),
        };
        let expected = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(path) => fs::metadata(path).map_err(io_error("open", path))?.len(),
        };
        zip.start_file(member.as_str(), options(expected))
            .map_err(failed(member))?;
        let (size, sha256) =
            copy_hashed(&mut source, &mut zip).map_err(|error| failed(member)(error.into()))?;
        // A source that grew or shrank was still being written: its model may be half a model.
        if size != expected {
            return Err(failed(member)(ZipError::Io(io::Error::other(
                "it changed while it was packed",
            ))));
        }
        recorded.push(RecordedFile {
            path: member.clone(),
            size,
            sha256,
        });
    }
    let record = Record {
        format_version: FORMAT_VERSION,
        name: name.to_owned(),
        mlwm_version: env!("CARGO_PKG_VERSION").to_owned(),
        files: recorded,
    };
    let text = record.to_yaml()?;
    zip.start_file(ARTIFACT_YAML, options(text.len() as u64))
        .and_then(|()| Ok(zip.write_all(text.as_bytes())?))
        .and_then(|()| zip.finish())
        .map_err(failed(ARTIFACT_YAML))?;
    Ok(entries(record, &text))
}

fn entries(record: Record, text: &str) -> Vec<FileEntry> {
    let own = FileEntry {
        path: ARTIFACT_YAML.to_owned(),
        size: text.len() as u64,
        sha256: Some(Digest::of(text)),
    };
    record
        .files
        .into_iter()
        .map(|file| FileEntry {
            path: file.path,
            size: file.size,
            sha256: Some(file.sha256),
        })
        .chain([own])
        .collect()
}

/// Nothing in the headers depends on the sources but their names, sizes and checksums.
fn options(size: u64) -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o644)
        .system(System::Unix)
        .large_file(size >= LARGE_MEMBER)
}

/// Copies all of `source` and hashes it on a second thread while the next buffer is read and
/// written. Gives size and SHA-256.
fn copy_hashed(source: &mut dyn Read, sink: &mut impl Write) -> io::Result<(u64, Digest)> {
    const BUFFER: usize = 1 << 20;
    const BUFFERS: usize = 4;
    thread::scope(|scope| {
        let (to_hash, hashing) = sync_channel::<(Vec<u8>, usize)>(BUFFERS);
        let (give_back, free) = channel::<Vec<u8>>();
        let hasher = scope.spawn(move || {
            let mut hasher = Sha256::new();
            for (buffer, filled) in hashing {
                hasher.update(&buffer[..filled]);
                // The other side may have finished and want no more buffers.
                let _ = give_back.send(buffer);
            }
            Digest::from_hasher(hasher)
        });
        let mut size = 0;
        loop {
            let mut buffer = free.try_recv().unwrap_or_else(|_| vec![0; BUFFER]);
            let filled = read_full(source, &mut buffer)?;
            if filled == 0 {
                break;
            }
            sink.write_all(&buffer[..filled])?;
            size += filled as u64;
            if to_hash.send((buffer, filled)).is_err() {
                break;
            }
        }
        drop(to_hash);
        let digest = hasher
            .join()
            .map_err(|_| io::Error::other("the hashing thread failed"))?;
        Ok((size, digest))
    })
}

/// Fills the buffer as far as the source goes.
fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// All files below `folder`, as members below `prefix`.
pub(crate) fn add_folder(
    members: &mut BTreeMap<String, Content>,
    folder: &Path,
    prefix: &str,
) -> Result<(), Error> {
    let entries = fs::read_dir(folder).map_err(io_error("read", folder))?;
    for entry in entries {
        let entry = entry.map_err(io_error("read", folder))?;
        let path = entry.path();
        let name = entry.file_name();
        let member = format!("{prefix}/{}", name.to_string_lossy());
        let kind = entry.file_type().map_err(io_error("read", &path))?;
        if kind.is_dir() {
            add_folder(members, &path, &member)?;
        } else {
            members.insert(member, Content::File(path));
        }
    }
    Ok(())
}

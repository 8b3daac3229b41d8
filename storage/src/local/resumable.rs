//! Bringing one big content to a file, continued where an earlier process was killed.
//!
//! What has been written lies beside the target in `.<name>.<16 hex digits>.mlwm-upload`, named by
//! the content's fingerprint and locked against other processes. It is compared with the content
//! again, from its first byte; what is the same is kept. Synchronised to the disk, it takes the
//! target's name, unless there is a file of that name.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use mlwm_spec::Digest;
use tokio_util::io::ReaderStream;

use super::{head, make_folder_of, name_unless_taken, remove, sync_folder_of};
use crate::transfer::download::open_locked;
use crate::transfer::object::bounds;
use crate::transfer::retry::Failure;
use crate::transfer::upload::Sending;
use crate::transfer::{Arriving, ByteRange, RangePart, RangeSource};
use crate::{Error, Uri, pool, tree};

/// Content is read in pieces of this many bytes.
const PIECE: usize = 1 << 20;

/// Brings the content to `target`, where nothing or the same may be.
pub(crate) async fn upload_content(target: &Path, sending: &Sending<'_>) -> Result<Digest, Error> {
    let fingerprint = sending.content.fingerprint();
    if let Some(found) = head(String::new(), target)? {
        // Left by a process that was killed when it had given it the target's name, or lost a race.
        match abandon(target, &fingerprint) {
            Ok(()) | Err(Error::TransferBusy { .. }) => {}
            Err(error) => return Err(error),
        }
        return compare(target, found.size, sending).await;
    }
    let path = arriving_name(target, &fingerprint);
    let size = sending.content.size();
    let mut arriving = {
        let (place, path, target) = (sending.place.clone(), path.clone(), target.to_owned());
        pool::blocking(&sending.place, move || {
            make_folder_of(&target)?;
            let file = open_locked(&place, &path)?;
            let kept = file
                .metadata()
                .map_err(Error::local("look at", &path))?
                .len();
            tree::check_space(&target, [size.saturating_sub(kept)].into_iter())?;
            Ok(Arrived {
                path,
                file,
                kept,
                length: 0,
            })
        })
        .await?
    };
    let mut feed = sending.feed(PIECE, 4);
    loop {
        let next = pool::unless_cancelled(&sending.place, sending.cancel, feed.next());
        let Some(piece) = next.await? else { break };
        arriving = pool::blocking(&sending.place, move || arriving.take(&piece.bytes)).await?;
        match arriving.length <= arriving.kept {
            true => sending.counter.reach_kept(arriving.length),
            false => sending.counter.reach(arriving.length),
        }
    }
    let digest = feed.finish().await?;
    let place = target.to_owned();
    let named = pool::blocking(&sending.place, move || arriving.finish(&place)).await?;
    if named {
        return Ok(digest);
    }
    match head(String::new(), target)? {
        Some(found) => compare(target, found.size, sending).await,
        None => Err(Error::NothingAt {
            uri: sending.place.clone(),
        }),
    }
}

/// Removes what an interrupted upload has left.
pub(crate) fn abandon(target: &Path, fingerprint: &str) -> Result<(), Error> {
    let path = arriving_name(target, fingerprint);
    if path.exists() {
        let _held = open_locked(&path.display().to_string(), &path)?;
        remove(&path)?;
    }
    Ok(())
}

async fn compare(target: &Path, size: u64, sending: &Sending<'_>) -> Result<Digest, Error> {
    let uri: Uri = sending.place.parse()?;
    let there = LocalObject {
        uri: &uri,
        path: target.to_owned(),
    };
    sending.compare(&there, size).await
}

/// What has been written.
struct Arrived {
    path: PathBuf,
    file: File,
    /// Bytes that an earlier process wrote.
    kept: u64,
    /// Bytes that are known to be right.
    length: u64,
}

impl Arrived {
    /// The next bytes of the content: found there, or written.
    fn take(mut self, bytes: &[u8]) -> Result<Self, Error> {
        let failed = || Error::local("write", &self.path);
        let mut rest = bytes;
        if self.length < self.kept {
            let left = usize::try_from(self.kept - self.length).unwrap_or(usize::MAX);
            let mut found = vec![0; left.min(bytes.len())];
            self.file.read_exact(&mut found).map_err(failed())?;
            let same = found.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            if same < found.len() {
                self.file
                    .set_len(self.length + same as u64)
                    .map_err(failed())?;
                self.kept = 0;
            }
            rest = &bytes[same..];
        }
        // The file is open to append.
        self.file.write_all(rest).map_err(failed())?;
        self.length += bytes.len() as u64;
        Ok(self)
    }

    /// Gives it the target's name, or removes it; whether the name was free.
    fn finish(self, target: &Path) -> Result<bool, Error> {
        let failed = || Error::local("write", &self.path);
        self.file.set_len(self.length).map_err(failed())?;
        self.file.sync_all().map_err(failed())?;
        let named = name_unless_taken(&self.path, target)?;
        remove(&self.path)?;
        sync_folder_of(target)?;
        Ok(named)
    }
}

fn arriving_name(target: &Path, fingerprint: &str) -> PathBuf {
    let name = target
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    // Names may have 255 bytes at most, and a character up to 4.
    let name: String = name.chars().take(50).collect();
    let unique = Digest::of(fingerprint).hex();
    target.with_file_name(format!(".{name}.{}.mlwm-upload", &unique[..16]))
}

/// Some bytes of a file, `None` if there is none.
pub(crate) fn read_range(path: &Path, range: ByteRange) -> Result<Option<RangePart>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::local("open", path)(error)),
    };
    let read = || -> io::Result<RangePart> {
        let size = file.metadata()?.len();
        let (start, end) = bounds(range, size);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut bytes)?;
        Ok(RangePart {
            bytes: bytes.into(),
            object_size: size,
            etag: None,
        })
    };
    read().map(Some).map_err(Error::local("read", path))
}

/// A file as the source of a download.
pub(crate) struct LocalObject<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) path: PathBuf,
}

impl RangeSource for LocalObject<'_> {
    fn name(&self) -> String {
        self.uri.to_string()
    }

    fn open_at(&self, start: u64, _size: u64) -> BoxFuture<'_, Result<Arriving, Failure>> {
        Box::pin(async move { Ok(self.open(start).await?) })
    }
}

impl LocalObject<'_> {
    async fn open(&self, start: u64) -> Result<Arriving, Error> {
        let path = self.path.clone();
        let missing = || Error::NothingAt {
            uri: self.uri.to_string(),
        };
        let (file, size) = pool::blocking(self.uri, move || {
            let open = || -> io::Result<(File, u64)> {
                let mut file = File::open(&path)?;
                file.seek(SeekFrom::Start(start))?;
                let size = file.metadata()?.len();
                Ok((file, size))
            };
            match open() {
                Ok(opened) => Ok(Some(opened)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::local("open", &path)(error)),
            }
        })
        .await?
        .ok_or_else(missing)?;
        let path = self.path.clone();
        let bytes = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE)
            .map_ok(Bytes::from)
            .map_err(move |error| Failure::permanent(Error::local("read", &path)(error)));
        Ok(Arriving {
            start,
            object_size: Some(size),
            bytes: bytes.boxed(),
        })
    }
}

//! Images of a local engine: a base out of it, and what was built into it.
//!
//! What engines take and give is Docker's archive: a tar with the config, each layer, and
//! `manifest.json`, which lists them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use futures::Stream;
use mlwm_engines::Engine;
use mlwm_spec::Digest;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Error;
use crate::image::{Image, LayerSource};
use crate::layout::Layout;
use crate::oci::{CONFIG, Descriptor, Found, LAYER_GZIP, LAYER_TAR, MANIFEST, Manifest, to_json};

/// Bytes that go to or come from the engine at once, and how many such pieces may wait.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;
/// The tag of an image in its own layout.
const TAG: &str = "image";
/// What gzip begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What `manifest.json` says of an image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

/// An image of the engine, kept as an OCI layout below `folder`, where it is found again by its
/// identifier. `None` if the engine has no such image.
pub async fn find(engine: &Engine, reference: &str, folder: &Path) -> Result<Option<Image>, Error> {
    let Some(found) = engine.image(reference).await? else {
        return Ok(None);
    };
    let kept = folder.join(found.id.hex());
    if let Some(image) = kept_image(&kept)? {
        return Ok(Some(image));
    }
    fs::create_dir_all(folder).map_err(Error::local("create the folder", folder))?;
    let arriving = tempfile::Builder::new()
        .prefix(".saving-")
        .tempdir_in(folder);
    let arriving = arriving.map_err(Error::local("create a folder in", folder))?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let at = arriving.path().to_owned();
    let named = reference.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_archive(receiver, &at, &named));
    let saved = engine.save(&found.id.to_string(), sender).await;
    let read = reading
        .await
        .unwrap_or_else(|panic| Err(Error::Broken(panic.to_string())));
    saved?;
    read?;
    match fs::rename(arriving.path().join("layout"), &kept) {
        Ok(()) => {}
        // Another process kept it first.
        Err(_) if kept.is_dir() => {}
        Err(error) => return Err(Error::local("write", &kept)(error)),
    }
    kept_image(&kept)
}

fn kept_image(folder: &Path) -> Result<Option<Image>, Error> {
    let layout = Layout::at(folder);
    let Some(entry) = layout.entry(Some(TAG))? else {
        return Ok(None);
    };
    match layout.found(&entry)? {
        (bytes, Found::Image(manifest)) => layout.image(bytes, manifest).map(Some),
        _ => Ok(None),
    }
}

/// Unpacks an archive into the layout `<folder>/layout`.
fn read_archive(pieces: mpsc::Receiver<Bytes>, folder: &Path, named: &str) -> Result<(), Error> {
    let bad = |why: String| Error::BadImage {
        image: named.to_owned(),
        why,
    };
    let unreadable = |error: io::Error| {
        bad(format!(
            "what the engine gave of it cannot be read: {error}"
        ))
    };
    let mut archive = tar::Archive::new(Pieces {
        receiver: pieces,
        current: Bytes::new(),
    });
    let mut files: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut links = Vec::new();
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let name = entry.path().map_err(unreadable)?.into_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let path = folder.join(files.len().to_string());
                let mut file = File::create(&path).map_err(Error::local("write", &path))?;
                io::copy(&mut entry, &mut file).map_err(unreadable)?;
                files.insert(plain(&name), path);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let target = entry
                    .link_name()
                    .map_err(unreadable)?
                    .unwrap_or_default()
                    .into_owned();
                let beside = name.parent().unwrap_or(Path::new("")).to_owned();
                links.push((plain(&name), plain(&beside.join(target))));
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(path) = files.get(&target).cloned() {
            files.insert(name, path);
        }
    }
    let file = |name: &str| {
        let found = files.get(&plain(Path::new(name)));
        found.ok_or_else(|| bad(format!("what the engine gave of it has no {name}")))
    };
    let read = |name: &str| {
        let path = file(name)?;
        fs::read(path).map_err(Error::local("read", path))
    };
    let list: Vec<Listed> = serde_json::from_slice(&read("manifest.json")?)
        .map_err(|error| bad(format!("its list is invalid: {error}")))?;
    let listed = list.into_iter().next();
    let listed = listed.ok_or_else(|| bad("the engine gave nothing of it".to_owned()))?;
    let config = read(&listed.config)?;
    let mut sources: HashMap<Digest, PathBuf> = HashMap::new();
    let mut layers = Vec::new();
    for name in &listed.layers {
        let path = file(name)?;
        let layer = layer_of(path).map_err(Error::local("read", path))?;
        sources.insert(layer.digest, path.clone());
        layers.push(layer);
    }
    let parsed = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        config: Descriptor::of(CONFIG, &config),
        layers,
        annotations: Default::default(),
    };
    let source = |layer: &Descriptor| LayerSource::File(sources[&layer.digest].clone());
    let image = Image::read(to_json(&parsed), parsed, config, source).map_err(bad)?;
    Layout::at(folder.join("layout")).put(&image, TAG)?;
    Ok(())
}

/// A name in an archive without `.` and `..`: names are only compared, and never used as paths.
fn plain(name: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

fn layer_of(path: &Path) -> io::Result<Descriptor> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let (mut size, mut kind) = (0, LAYER_TAR);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if size == 0 && buffer[..read].starts_with(&GZIP) {
            kind = LAYER_GZIP;
        }
        size += read as u64;
        hasher.update(&buffer[..read]);
    }
    Ok(Descriptor::new(kind, Digest::from_hasher(hasher), size))
}

/// Puts an image into an engine under a reference.
pub async fn load(image: &Image, reference: &str, engine: &Engine) -> Result<(), Error> {
    let (sent, named) = (image.clone(), reference.to_owned());
    let (stream, writing) = streamed(move |output| write_archive(&sent, &named, output));
    let loaded = engine.load(stream).await;
    let written = writing
        .await
        .unwrap_or_else(|panic| Err(Error::Broken(panic.to_string())));
    match (loaded, written) {
        (_, Err(error @ (Error::Layer { .. } | Error::Storage(_)))) => return Err(error),
        (Err(error), _) => return Err(error.into()),
        (Ok(()), written) => written?,
    }
    match engine.image(reference).await? {
        Some(found) if found.layers == image.diff_ids() => Ok(()),
        _ => Err(Error::NotLoaded {
            reference: reference.to_owned(),
        }),
    }
}

/// What is written as a stream, and the thread that writes it, which says what went wrong.
pub(crate) fn streamed(
    write: impl FnOnce(&mut Output) -> Result<(), Error> + Send + 'static,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    JoinHandle<Result<(), Error>>,
) {
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let runtime = tokio::runtime::Handle::current();
    let writing = tokio::task::spawn_blocking(move || {
        let _entered = runtime.enter();
        let mut output = Output {
            sender,
            pending: BytesMut::with_capacity(PIECE),
        };
        let written = write(&mut output);
        if written.is_err() {
            // Breaks the request off, lest the engine takes half of it for the whole.
            let broken = io::Error::other("the rest could not be made");
            let _ = output.sender.blocking_send(Err(broken));
        }
        written
    });
    (
        futures::stream::poll_fn(move |context| receiver.poll_recv(context)),
        writing,
    )
}

fn write_archive(image: &Image, reference: &str, output: &mut Output) -> Result<(), Error> {
    let broken = |source| Error::Archive {
        reference: reference.to_owned(),
        source,
    };
    let mut archive = tar::Builder::new(output);
    let mut append = |name: &str, size: u64, content: &mut dyn Read| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(size);
        archive.append_data(&mut header, name, content)
    };
    let config = format!("{}.json", image.id().hex());
    append(
        &config,
        image.config.len() as u64,
        &mut image.config.as_slice(),
    )
    .map_err(broken)?;
    let mut names = Vec::new();
    for layer in &image.layers {
        let digest = layer.descriptor.digest;
        let name = format!("{}/layer.tar", digest.hex());
        if !names.contains(&name) {
            let mut reader = layer.open()?;
            let written = append(&name, layer.descriptor.size, &mut reader);
            written.map_err(|source| match source.kind() {
                io::ErrorKind::BrokenPipe => broken(source),
                _ => Error::Layer {
                    layer: digest,
                    source,
                },
            })?;
        }
        names.push(name);
    }
    let list = to_json(&json!([{ "Config": config, "RepoTags": [reference], "Layers": names }]));
    append("manifest.json", list.len() as u64, &mut list.as_slice()).map_err(broken)?;
    archive.finish().map_err(broken)?;
    archive.get_mut().flush().map_err(broken)
}

/// Reads what comes in pieces.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Sends what is written in pieces.
pub(crate) struct Output {
    sender: mpsc::Sender<io::Result<Bytes>>,
    pending: BytesMut,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = self.pending.split().freeze();
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

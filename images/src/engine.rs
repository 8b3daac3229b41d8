//! Images of a local engine: a base out of it, and what was built into it.
//!
//! What engines take and give is Docker's archive: a tar with the config, each layer, and
//! `manifest.json`, which lists them.

mod saved;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use mlwm_engines::Engine;
use mlwm_registries::hold_kept;
use mlwm_spec::Digest;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::saved::read_archive;
use crate::Error;
use crate::image::Image;
use crate::labels;
use crate::layout::Layout;
use crate::leftovers;
use crate::oci::{Found, Platform, to_json};
use crate::place::Place;

/// Bytes that go to or come from the engine at once, and how many such pieces may wait.
const PIECE: usize = 1 << 20;
const PIECES: usize = 4;
/// What the name of a folder begins with that an image arrives in.
const SAVING: &str = ".saving-";
/// The tag of an image in its own layout.
const TAG: &str = "image";

/// An image of the engine for a kind of machine, kept as an OCI layout below `folder`, where it is
/// found again by its identifier, and not removed as long as the image lives. `None` if the engine has
/// no such image.
pub async fn find(
    engine: &Engine,
    reference: &str,
    platform: &Platform,
    folder: &Path,
) -> Result<Option<Image>, Error> {
    let Some(found) = engine.image(reference).await? else {
        return Ok(None);
    };
    let kept = folder.join(found.id.hex());
    let lock = hold_kept(&kept).await?;
    let image = match kept_image(&kept)? {
        Some(image) => Some(image),
        None => keep(engine, reference, found.id, folder).await?,
    };
    image
        .map(|image| image.held_by(lock).checked_for(platform, reference))
        .transpose()
}

async fn keep(
    engine: &Engine,
    reference: &str,
    id: Digest,
    folder: &Path,
) -> Result<Option<Image>, Error> {
    let kept = folder.join(id.hex());
    fs::create_dir_all(folder).map_err(Error::local("create the folder", folder))?;
    leftovers::remove(folder, SAVING);
    let arriving = tempfile::Builder::new().prefix(SAVING).tempdir_in(folder);
    let arriving = arriving.map_err(Error::local("create a folder in", folder))?;
    let lock = File::open(arriving.path()).and_then(|at| at.lock().map(|()| at));
    let _lock = lock.map_err(Error::local("lock", arriving.path()))?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let at = arriving.path().to_owned();
    let named = reference.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_archive(receiver, &at, &named));
    let saved = engine.save(&id.to_string(), sender).await;
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

/// Puts an image into an engine under a reference. Layers that it is known to have are not sent.
pub async fn load(image: &Image, reference: &str, engine: &Engine) -> Result<(), Error> {
    let known = known_layers(image, reference, engine).await?;
    if known > 0 {
        match send(image, known, reference, engine).await {
            // It may have dropped them meanwhile.
            Err(Error::Engine(_)) => {}
            sent => {
                sent?;
                if has(image, reference, engine).await? {
                    return Ok(());
                }
            }
        }
    }
    send(image, 0, reference, engine).await?;
    match has(image, reference, engine).await? {
        true => Ok(()),
        false => Err(Error::NotLoaded {
            reference: reference.to_owned(),
        }),
    }
}

/// How many layers of an image, from the lowest on, the engine has, as far as can be told from what
/// has its name now and from its base. Layers on other ones are others to an engine.
async fn known_layers(image: &Image, reference: &str, engine: &Engine) -> Result<usize, Error> {
    if !engine.info().finds_layers {
        return Ok(0);
    }
    let wanted = image.diff_ids();
    let base = image.label(labels::BASE_NAME);
    let in_engine = |base: &String| {
        !matches!(
            base.parse(),
            Ok(Place::Layout { .. }) | Err(Error::Reference { .. })
        )
    };
    let mut known = 0;
    for name in [Some(reference.to_owned()), base.filter(in_engine)]
        .into_iter()
        .flatten()
    {
        if let Some(found) = engine.image(&name).await? {
            let pairs = wanted.iter().zip(&found.layers);
            known = known.max(pairs.take_while(|(wanted, found)| wanted == found).count());
        }
    }
    Ok(known)
}

/// Whether the engine gives the layers of an image under its name.
async fn has(image: &Image, reference: &str, engine: &Engine) -> Result<bool, Error> {
    let found = engine.image(reference).await?;
    Ok(found.is_some_and(|found| found.layers == image.diff_ids()))
}

/// Sends an image without its lowest `known` layers.
async fn send(image: &Image, known: usize, reference: &str, engine: &Engine) -> Result<(), Error> {
    let (sent, named) = (image.clone(), reference.to_owned());
    let (stream, writing) = streamed(move |output| write_archive(&sent, known, &named, output));
    let loaded = engine.load(stream).await;
    let written = writing
        .await
        .unwrap_or_else(|panic| Err(Error::Broken(panic.to_string())));
    match (loaded, written) {
        (
            _,
            Err(error @ (Error::Layer { .. } | Error::LayerChanged { .. } | Error::Storage(_))),
        ) => Err(error),
        (Err(error), _) => Err(error.into()),
        (Ok(()), written) => written,
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

fn write_archive(
    image: &Image,
    known: usize,
    reference: &str,
    output: &mut Output,
) -> Result<(), Error> {
    let broken = |source: io::Error| {
        source.downcast().unwrap_or_else(|source| Error::Archive {
            reference: reference.to_owned(),
            source,
        })
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
    for (position, layer) in image.layers.iter().enumerate() {
        let name = format!("{}/layer.tar", layer.descriptor.digest.hex());
        if position >= known && !names.contains(&name) {
            let mut reader = layer.open()?;
            append(&name, layer.descriptor.size, &mut reader).map_err(broken)?;
        }
        names.push(name);
    }
    let list = to_json(&json!([{ "Config": config, "RepoTags": [reference], "Layers": names }]));
    append("manifest.json", list.len() as u64, &mut list.as_slice()).map_err(broken)?;
    archive.finish().map_err(broken)?;
    archive.get_mut().flush().map_err(broken)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use mlwm_engines::Endpoint;

    use super::*;
    use crate::LayerDigests;
    use crate::assembled::Assembled;
    use crate::compose::{Addition, Execution, compose};
    use crate::image::LayerSource;
    use crate::oci::{CONFIG, Descriptor, MANIFEST, Manifest};
    use crate::tarball::{FileSource, LayerFile, Tarball};

    /// An image of one layer, which no engine has.
    fn image(folder: &Path) -> Image {
        let path = folder.join("file");
        let content = format!("{folder:?} {}", std::process::id());
        fs::write(&path, &content).unwrap();
        let file = LayerFile {
            path: "file".to_owned(),
            executable: false,
            size: content.len() as u64,
            digest: Digest::of(&content),
            source: FileSource::File(path),
        };
        let layer = Tarball::new(vec![file]).unwrap();
        let digests = LayerDigests::at(folder.join("layers"));
        let layer = Assembled::new(layer, |layer| digests.of(layer)).unwrap();
        let layer = Addition::of("file".to_owned(), layer);
        let config = to_json(&json!({"architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": []}}));
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config: Descriptor::of(CONFIG, &config),
            layers: Vec::new(),
            annotations: BTreeMap::new(),
        };
        let empty = Image::read(to_json(&manifest), manifest, config, |_| {
            LayerSource::File(PathBuf::new())
        });
        let (execution, labels) = (Execution::default(), BTreeMap::new());
        compose(
            &empty.unwrap(),
            &[layer],
            &execution,
            &labels,
            "1970-01-01T00:00:00Z",
        )
        .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_engine_refuses_an_archive_without_a_layer_that_it_has_not() {
        let endpoint = Endpoint::Unix(PathBuf::from("/var/run/docker.sock"));
        let engine = Engine::connect_to(endpoint).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (image, name) = (image(folder.path()), "mlwm-test/without-layers:latest");
        let refused = send(&image, 1, name, &engine).await.unwrap_err();
        assert!(matches!(refused, Error::Engine(_)), "{refused}");
        assert!(engine.image(name).await.unwrap().is_none());
        load(&image, name, &engine).await.unwrap();
        let known = known_layers(&image, name, &engine).await.unwrap();
        assert_eq!(known, usize::from(engine.info().finds_layers));
        let removed = std::process::Command::new("docker")
            .args(["rmi", "-f", name])
            .output()
            .unwrap();
        assert!(removed.status.success());
    }
}

//! The archive that an engine gives of an image, into an OCI layout.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes};
use mlwm_spec::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::TAG;
use crate::Error;
use crate::image::{Image, LayerSource};
use crate::labels;
use crate::layout::Layout;
use crate::oci::{CONFIG, Descriptor, LAYER_GZIP, LAYER_TAR, MANIFEST, Manifest, to_json};
use crate::rebase::labels_of;

/// What gzip begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What `manifest.json` says of an image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    layers: Vec<String>,
}

/// Unpacks an archive into the layout `<folder>/layout`.
pub(super) fn read_archive(
    pieces: mpsc::Receiver<Bytes>,
    folder: &Path,
    named: &str,
) -> Result<(), Error> {
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
    let mut image = Image::read(to_json(&parsed), parsed, config, source).map_err(bad)?;
    // Engines keep no annotations. Those of an image of mlwm are its labels: with them it has the digest
    // that it was built with.
    if image.label(labels::CONFIGURATION).is_some() {
        image.parsed.annotations = labels_of(&image);
        image.manifest = to_json(&image.parsed);
    }
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

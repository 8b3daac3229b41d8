//! Images into and out of the bundles that artifacts travel in ([`mlwm_registries::bundle`]).

use std::collections::HashMap;
use std::sync::Arc;

use mlwm_registries::bundle::{Bundle, BundledImage, ImageSource};
use mlwm_spec::Tag;

use crate::image::{Image, LayerSource};
use crate::oci::{Descriptor, Found, MANIFEST};
use crate::{Error, Place, labels};

/// The image as it goes into a bundle, out of the place that it was found in. Its layers are read
/// while the bundle is written. Must be called within a runtime.
pub fn pack(image: &Image, place: &Place) -> Result<ImageSource, Error> {
    let (name, tag) = named(image, place);
    let layers = image.layers.iter().map(|layer| layer.content());
    Ok(ImageSource {
        image: BundledImage {
            name,
            tag,
            manifest: image.manifest.clone(),
            config: image.config.clone(),
        },
        layers: layers.collect::<Result<_, _>>()?,
    })
}

/// An image of a bundle, whose layers are read out of it when they are needed.
pub fn unpack(bundle: &Bundle, bundled: &BundledImage) -> Result<Image, Error> {
    let bad = |why: String| Error::BadImage {
        image: bundled.reference(),
        why,
    };
    let Found::Image(manifest) = Found::parse(&bundled.manifest, MANIFEST).map_err(bad)? else {
        return Err(bad("it is a list of images".to_owned()));
    };
    let mut layers = HashMap::new();
    for Descriptor { digest, .. } in &manifest.layers {
        layers.insert(*digest, bundle.layer(*digest)?);
    }
    let source = |layer: &Descriptor| LayerSource::Made(Arc::clone(&layers[&layer.digest]));
    let (document, config) = (bundled.manifest.clone(), bundled.config.clone());
    Image::read(document, manifest, config, source).map_err(bad)
}

/// What an image is called in a bundle: its configuration, else the last part of what its place calls
/// it; and the tag it has there. `latest` stands where there is none, or where it repeats the name.
fn named(image: &Image, place: &Place) -> (String, Tag) {
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let (name, tag) = match place {
        Place::Layout { folder, tag, .. } => {
            let folder = folder.file_name().unwrap_or_default();
            let folder = folder.to_string_lossy().into_owned();
            (tag.clone().unwrap_or(folder), tag.clone())
        }
        Place::Registry {
            repository,
            tag,
            digest,
        } => {
            let pinned = digest.map(|digest| digest.short());
            (last(repository.repository()), tag.clone().or(pinned))
        }
        Place::Engine(reference) => {
            let named = last(reference.split('@').next().unwrap_or_default());
            match named.split_once(':') {
                Some((name, tag)) => (name.to_owned(), Some(tag.to_owned())),
                None => (named, None),
            }
        }
    };
    let name = image.label(labels::CONFIGURATION).unwrap_or(name);
    let tag = tag.filter(|tag| *tag != name);
    let tag = tag.and_then(|tag| tag.parse().ok());
    (name, tag.unwrap_or_else(Tag::latest))
}

//! Where images are, as the command line names it.

use std::path::PathBuf;

use mlwm_cycles::read;
use mlwm_engines::Engine;
use mlwm_images::{Image, Place, Platform, engine, find};
use mlwm_spec::{ExitCode, repository_name};
use mlwm_storage::oci::OciOptions;

use crate::commands::Configurations;
use crate::failure::Failure;

/// Where the name of the configuration goes in a reference for several.
pub(super) const NAME: &str = "{name}";

/// What was named on the command line as the place of an image.
pub(super) fn named_place(text: &str) -> Result<Place, Failure> {
    text.parse()
        .map_err(|error| Failure::new(ExitCode::Usage, error))
}

/// A tag in a registry, or the place of one without it.
pub(super) fn place_in_registry(text: &str) -> Result<Place, Failure> {
    match named_place(text)? {
        place @ Place::Registry { digest: None, .. } => Ok(place),
        _ => {
            let message = format!("`{text}` is no place in a registry: write HOST/PATH:TAG");
            Err(Failure::new(ExitCode::Usage, message))
        }
    }
}

/// The folder and the tag of an OCI layout.
pub(super) fn layout_of(place: &str, name: &str) -> Result<(PathBuf, Option<String>), Failure> {
    match named_place(&with_name(place, name))? {
        Place::Layout {
            folder,
            tag,
            digest: None,
        } => Ok((folder, tag)),
        _ => {
            let message = format!("`{place}` is no OCI layout: write oci:FOLDER or oci:FOLDER:TAG");
            Err(Failure::new(ExitCode::Usage, message))
        }
    }
}

/// A reference with the name of a configuration where `{name}` stands in it: in registries and engines,
/// which know no capitals, as they take it.
pub(super) fn with_name(reference: &str, name: &str) -> String {
    match reference.starts_with("oci:") {
        true => reference.replace(NAME, name),
        false => reference.replace(NAME, &repository_name(name)),
    }
}

/// Refuses one place for the images of several configurations.
pub(super) fn check_places<'a>(
    names: &[String],
    places: impl Iterator<Item = &'a String>,
) -> Result<(), Failure> {
    for place in places {
        if names.len() > 1
            && !place.contains(NAME)
            && !(place.starts_with("oci:") && layout_of(place, "")?.1.is_none())
        {
            let message = format!(
                "`{place}` would be all {} images: put {NAME} into it",
                names.len()
            );
            return Err(Failure::new(ExitCode::Usage, message));
        }
    }
    Ok(())
}

/// The place of an image that is named itself, or by the configuration that it is of.
pub(super) fn place_of_image(named: &str, folder: &Configurations) -> Result<Place, Failure> {
    let folder = &folder.folder;
    match named.contains(['/', ':']) || !folder.join(named).join("config.yaml").is_file() {
        true => named_place(named),
        false => {
            let configuration = read(folder, named)?.configuration;
            Ok(configuration.image_reference(named).parse()?)
        }
    }
}

/// The image at a place.
pub(super) async fn find_image(place: &Place, platform: &Platform) -> Result<Image, Failure> {
    let found = match place {
        Place::Engine(reference) => {
            let kept = mlwm_registries::cache_home()?.join("mlwm/bases");
            engine::find(&Engine::connect().await?, reference, platform, &kept).await?
        }
        place => find(place, platform, &OciOptions::default()).await?,
    };
    found.ok_or_else(|| {
        let message = match place {
            Place::Engine(reference) => format!(
                "the engine has no image `{reference}`: fetch it with `docker pull {reference}`, make it with `ci/setup`, or name one in a registry (host/path:tag) or in a layout (oci:folder:tag)"
            ),
            place => format!("there is no image {place}: name another one, or push it there"),
        };
        Failure::new(ExitCode::ImageMissing, message)
    })
}

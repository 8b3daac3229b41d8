//! `mlwm image rebase`: another base under an image, such as a patched one.

use clap::Args;
use mlwm_cycles::Artifacts;
use mlwm_engines::Engine;
use mlwm_images::{
    Image, Layout, Place, Platform, RebaseInputs, Transfers, engine, find, labels, push, rebase,
};
use mlwm_registries::cache_home;
use mlwm_spec::ExitCode;
use mlwm_storage::Journals;
use mlwm_storage::oci::OciOptions;
use serde_json::json;

use super::build::in_background;
use super::places::{find_image, named_place, place_in_registry};
use crate::Outcome;
use crate::commands::runtime;
use crate::failure::Failure;
use crate::transfer::Transfer;

#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm image rebase registry.example.org/models/danra:v1 --onto registry.example.org/base:patched --push registry.example.org/models/danra:v2\n\nNo layer is read where image, base and target are in one registry."
)]
pub(crate) struct Arguments {
    /// The image: HOST/PATH:TAG in a registry, oci:FOLDER:TAG in a layout, else of the local
    /// engine. Without --push and --output, it is replaced.
    image: String,
    /// The new base, named likewise.
    #[arg(long, value_name = "BASE")]
    onto: String,
    /// Send it to a registry, HOST/PATH:TAG.
    #[arg(long, value_name = "REF", conflicts_with = "output")]
    push: Option<String>,
    /// Write it into an OCI layout, oci:FOLDER:TAG.
    #[arg(long, short, value_name = "oci:FOLDER:TAG")]
    output: Option<String>,
    /// Which of several images under one name.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// A place in what the new base says of itself that was found to hold what looks like a
    /// secret, and may. It is recorded in the image. May be given several times.
    #[arg(long, value_name = "PLACE")]
    allow_secret: Vec<String>,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let target = target(arguments)?;
    let platform = arguments.platform.clone();
    let platform = platform.unwrap_or_else(Platform::of_this_machine);
    runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let image = find_image(&named_place(&arguments.image)?, &platform).await?;
        let base = find_image(&named_place(&arguments.onto)?, &platform).await?;
        let old_base = old_base(&image, &platform).await;
        let rebased = rebase(&RebaseInputs {
            image: &image,
            reference: &arguments.image,
            old_base: old_base.as_ref(),
            base_image: &base,
            base: &arguments.onto,
            allowed: &arguments.allow_secret,
        })?;
        let unchanged = deliver(&rebased, &target, &transfer).await?;
        transfer.finish();
        let (place, digest) = (target.to_string(), rebased.digest());
        if arguments.json {
            let id = rebased.id();
            say!(
                "{}",
                json!({"place": place, "digest": digest, "id": id, "unchanged": unchanged})
            );
            return Ok(ExitCode::Ok);
        }
        say!("{place}{}", if unchanged { " (unchanged)" } else { "" });
        say!("{digest}");
        Ok(ExitCode::Ok)
    })
}

/// Where the result goes: a tag, which can be moved.
fn target(arguments: &Arguments) -> Result<Place, Failure> {
    let usage = |message: String| Failure::new(ExitCode::Usage, message);
    if let Some(reference) = &arguments.push {
        return place_in_registry(reference);
    }
    let output = arguments.output.as_ref();
    let named = output.unwrap_or(&arguments.image);
    match (named_place(named)?, output) {
        (
            place @ Place::Layout {
                tag: Some(_),
                digest: None,
                ..
            },
            _,
        )
        | (place @ (Place::Registry { digest: None, .. } | Place::Engine(_)), None) => Ok(place),
        (_, Some(_)) => Err(usage(format!(
            "`{named}` is no place in an OCI layout: write oci:FOLDER:TAG"
        ))),
        (_, None) => Err(usage(format!(
            "`{named}` has no tag that could be moved: say with --push or --output where the result goes"
        ))),
    }
}

/// The base that an image says it has, if a registry still has it. That it is gone is common, and
/// no fault.
async fn old_base(image: &Image, platform: &Platform) -> Option<Image> {
    let name = image.label(labels::BASE_NAME)?;
    let digest = image.label(labels::BASE_DIGEST)?.parse().ok()?;
    let Ok(Place::Registry {
        repository, tag, ..
    }) = name.parse()
    else {
        return None;
    };
    let place = Place::Registry {
        repository,
        tag,
        digest: Some(digest),
    };
    match find(&place, platform, &OciOptions::default()).await {
        Ok(found) => found,
        Err(error) => {
            note!(
                "note: the history of the image alone says which layers are those of its base, since that was not found: {error}"
            );
            None
        }
    }
}

/// Brings the image to its place; whether it was there.
pub(super) async fn deliver(
    image: &Image,
    place: &Place,
    transfer: &Transfer,
) -> Result<bool, Failure> {
    match place {
        Place::Layout { folder, tag, .. } => {
            let layout = Layout::at(folder).with_receipts(Artifacts::receipts(false));
            let image = image.clone();
            let tag = tag.clone().unwrap_or_else(|| "latest".to_owned());
            Ok(!in_background(move || layout.put(&image, &tag)).await?)
        }
        Place::Registry {
            repository, tag, ..
        } => {
            let transfers = Transfers {
                options: OciOptions::default(),
                journals: Journals::at(cache_home()?.join("mlwm/transfers")),
                progress: transfer.progress.clone(),
                cancel: transfer.cancel.clone(),
            };
            let tag = tag.as_deref().unwrap_or("latest");
            Ok(push(image, repository, tag, &transfers).await?.unchanged)
        }
        Place::Engine(reference) => {
            let engine = Engine::connect().await?;
            let there = engine.image(reference).await?;
            if there.is_some_and(|there| there.id == image.id()) {
                return Ok(true);
            }
            engine::load(image, reference, &engine).await?;
            Ok(false)
        }
    }
}

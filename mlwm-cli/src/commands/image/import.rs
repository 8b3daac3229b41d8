//! `mlwm image import`: what a file of `mlwm image export` brought.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use mlwm_images::{Place, bundle};
use mlwm_registries::Registry;
use mlwm_registries::bundle::{Bundle, BundledImage, Imported};
use mlwm_spec::{Digest, ExitCode};
use serde_json::{Value, json};

use super::build::in_background;
use super::places::{NAME, layout_of, named_place, place_in_registry, with_name};
use super::push::already;
use super::rebase::deliver;
use crate::Outcome;
use crate::commands::artifact::bundle::watch;
use crate::commands::artifact::import::tell;
use crate::commands::artifact::registry::registry;
use crate::commands::runtime;
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Where the tag that an image has in the file goes in a reference.
const TAG: &str = "{tag}";

/// Bring the images of a file that `mlwm image export` wrote to a registry, a layout or the engine.
///
/// All of the file is verified before anything is sent. What is there is not sent again, and if the
/// command is stopped, it goes on where it was when it is run again. In references, `{name}` and
/// `{tag}` are what an image is called in the file.
#[derive(Args)]
#[command(
    group = ArgGroup::new("places").args(["push", "output", "load", "artifacts"]).required(true).multiple(true),
    after_help = "Examples:\n  mlwm image import models.tar --push 'registry.example.org/models/{name}' --artifacts /data/models\n  mlwm image import models.tar --load"
)]
pub(crate) struct Arguments {
    /// The file; of one in parts, its name without `.001`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Send the images to a registry, HOST/PATH:TAG; without a tag, with the one in the file.
    #[arg(long, value_name = "REF")]
    push: Option<String>,
    /// Write them into an OCI layout, oci:FOLDER:TAG; without a tag, `{name}`.
    #[arg(long, short, value_name = "oci:FOLDER")]
    output: Option<String>,
    /// Put them into the local engine, as `mlwm/{name}` if no other reference is given; without a
    /// tag, with the one in the file.
    #[arg(long, value_name = "REF", num_args = 0..=1, require_equals = true, default_missing_value = "mlwm/{name}")]
    load: Option<String>,
    /// Publish the artifacts in a registry, with their signatures: s3://bucket/models,
    /// gs://bucket/models, oci://host/models, or a folder.
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    artifacts: Option<String>,
    /// Print what came of it as JSON.
    #[arg(long)]
    json: bool,
}

/// An image that is in its place.
struct Arrived {
    name: String,
    place: Place,
    digest: Digest,
    there: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (arrived, published) = runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let done = import(arguments, &transfer).await;
        transfer.finish();
        done
    })?;
    if !arguments.json {
        for Arrived {
            place,
            digest,
            there,
            ..
        } in &arrived
        {
            say!("{place}{}\n{digest}", already(*there));
        }
    }
    let (code, artifacts) = match &published {
        Some((registry, all)) => tell(registry, all, arguments.json),
        None => (ExitCode::Ok, Vec::new()),
    };
    if arguments.json {
        let object = |arrived: &Arrived| {
            json!({"name": arrived.name, "place": arrived.place.to_string(),
                "digest": arrived.digest, "unchanged": arrived.there})
        };
        let images: Vec<Value> = arrived.iter().map(object).collect();
        say!("{:#}", json!({"images": images, "artifacts": artifacts}));
    }
    Ok(code)
}

async fn import(
    arguments: &Arguments,
    transfer: &Transfer,
) -> Result<(Vec<Arrived>, Option<(Registry, Vec<Imported>)>), Failure> {
    let options = transfer.options();
    let (file, watch) = (arguments.file.clone(), watch(&options));
    let bundle = in_background(move || {
        let bundle = Bundle::open(&file)?;
        bundle.verify(&watch)?;
        Ok(bundle)
    })
    .await?;
    check_wanted(arguments, &bundle)?;
    let mut arrived = Vec::new();
    for (bundled, place) in targets(arguments, bundle.images())? {
        let image = bundle::unpack(&bundle, bundled)?;
        let there = deliver(&image, &place, transfer).await?;
        arrived.push(Arrived {
            name: bundled.reference(),
            place,
            digest: image.digest(),
            there,
        });
    }
    let Some(uri) = &arguments.artifacts else {
        return Ok((arrived, None));
    };
    let registry = Registry::open(uri, options).await?;
    let all = mlwm_registries::bundle::import(&bundle, &registry).await;
    Ok((arrived, Some((registry, all))))
}

/// Refuses a file without what was asked for, and tells what is left in it.
fn check_wanted(arguments: &Arguments, bundle: &Bundle) -> Result<(), Failure> {
    let file = arguments.file.display();
    let to_images =
        arguments.push.is_some() || arguments.output.is_some() || arguments.load.is_some();
    let missing = match (to_images, &arguments.artifacts) {
        (true, _) if bundle.images().is_empty() => "no image: write one with `mlwm image export`",
        (_, Some(_)) if bundle.artifacts().is_empty() => {
            "no artifact: leave out --artifacts here, or give it to `mlwm image export`"
        }
        _ => {
            let (images, artifacts) = (bundle.images().len(), bundle.artifacts().len());
            if !to_images && images > 0 {
                note!(
                    "note: {file} has {images} images, too: bring them with --push, --output or --load"
                );
            }
            if arguments.artifacts.is_none() && artifacts > 0 {
                note!("note: {file} has {artifacts} artifacts, too: publish them with --artifacts");
            }
            return Ok(());
        }
    };
    let message = format!("{file} has {missing}");
    Err(Failure::new(ExitCode::InputMissing, message))
}

/// Where each image goes. Two that would go to one place are refused before anything is sent.
fn targets<'a>(
    arguments: &Arguments,
    images: &'a [BundledImage],
) -> Result<Vec<(&'a BundledImage, Place)>, Failure> {
    let usage = |message: String| Failure::new(ExitCode::Usage, message);
    let mut targets = Vec::new();
    let mut taken = BTreeSet::new();
    for image in images {
        let fill = |text: &str| {
            let filled = with_name(text, &image.name);
            filled.replace(TAG, image.tag.as_str())
        };
        if let Some(text) = &arguments.push {
            let mut place = place_in_registry(&fill(text))?;
            if let Place::Registry { tag, .. } = &mut place {
                tag.get_or_insert_with(|| image.tag.to_string());
            }
            targets.push((image, place));
        }
        if let Some(text) = &arguments.output {
            let (folder, tag) = layout_of(&fill(text), &image.name)?;
            let tag = tag.or_else(|| Some(image.name.clone()));
            let digest = None;
            targets.push((
                image,
                Place::Layout {
                    folder,
                    tag,
                    digest,
                },
            ));
        }
        if let Some(text) = &arguments.load {
            let Place::Engine(mut reference) = named_place(&fill(text))? else {
                return Err(usage(format!(
                    "`{text}` is no image of the local engine: write NAME:TAG"
                )));
            };
            if !reference
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':'))
            {
                reference.push_str(&format!(":{}", image.tag));
            }
            targets.push((image, Place::Engine(reference)));
        }
    }
    for (image, place) in &targets {
        if !taken.insert(place.to_string()) {
            return Err(usage(format!(
                "`{place}` would be {} and another image: put {NAME} and {TAG} into it",
                image.reference()
            )));
        }
    }
    Ok(targets)
}

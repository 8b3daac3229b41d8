//! `mlwm image export`: images, and the artifacts in them, in one file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use indicatif::HumanBytes;
use mlwm_images::{Image, Platform, bundle, check_secrets, labels};
use mlwm_registries::bundle::{ImageSource, Source, Written, write};
use mlwm_registries::{Cache, CachedArtifact};
use mlwm_spec::bytes::ByteSize;
use mlwm_spec::{ArtifactName, Digest, ExitCode, PublishedArtifact, Tag};
use serde_json::json;

use super::build::in_background;
use super::places::{find_image, place_of_image};
use crate::Outcome;
use crate::commands::artifact::bundle::{of_published, part_size, watch};
use crate::commands::artifact::registry::registry;
use crate::commands::{Configurations, REGISTRY, runtime};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// Write images into one file, to carry to where no network leads.
///
/// The file is a tar with an OCI image layout, which `skopeo` and `podman` read. Layers that several
/// images have are in it once, and the same images give the same bytes.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm image export danra_graph_lam registry.example.org/base:v1 --to models.tar --artifacts"
)]
pub(crate) struct Arguments {
    /// Images: HOST/PATH:TAG in a registry, oci:FOLDER:TAG in a layout, a configuration, whose image
    /// is taken, else of the local engine.
    #[arg(value_name = "IMAGE|NAME", required = true)]
    images: Vec<String>,
    /// File to write; it never replaces another one.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Largest size of a part: `4GB`; the parts are `<FILE>.001` and so on, and `<FILE>.parts.json`.
    #[arg(long, value_name = "SIZE", value_parser = part_size)]
    part_size: Option<ByteSize>,
    /// Put in the artifacts that the images were made of, with their signatures.
    #[arg(long)]
    artifacts: bool,
    /// Registry of the artifacts; without it, they are taken from the cache of this machine.
    #[arg(long, env = REGISTRY, value_name = "REGISTRY", value_parser = registry)]
    registry: Option<String>,
    #[command(flatten)]
    folder: Configurations,
    /// Which of several images under one name.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// What goes into the file.
#[derive(Default)]
struct Contents {
    images: Vec<ImageSource>,
    artifacts: Vec<Source>,
    /// What is in the cache must stay there until it is in the file.
    held: Vec<CachedArtifact>,
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let (contents, written) = runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let written = export(arguments, &transfer).await;
        transfer.finish();
        written
    })?;
    let images = contents.images.iter().map(|source| &source.image);
    let images = images.map(|image| (image.reference(), image.digest()));
    let artifacts = contents.artifacts.iter().map(|source| &source.artifact);
    let artifacts = artifacts.map(|artifact| {
        (
            format!("{}:{}", artifact.name, artifact.tag),
            artifact.digest,
        )
    });
    if arguments.json {
        let object = |(name, digest)| json!({"name": name, "digest": digest});
        let object = json!({
            "files": written.files,
            "size": written.size,
            "digest": written.digest,
            "unchanged": written.unchanged,
            "images": images.map(object).collect::<Vec<_>>(),
            "artifacts": artifacts.map(object).collect::<Vec<_>>(),
        });
        say!("{object:#}");
        return Ok(ExitCode::Ok);
    }
    for (name, digest) in images.chain(artifacts) {
        say!("{name}@{digest}");
    }
    for file in &written.files {
        say!("{}", file.display());
    }
    note!("{}", HumanBytes(written.size));
    Ok(ExitCode::Ok)
}

async fn export(
    arguments: &Arguments,
    transfer: &Transfer,
) -> Result<(Contents, Written), Failure> {
    let platform = arguments.platform.clone();
    let platform = platform.unwrap_or_else(Platform::of_this_machine);
    let mut contents = Contents::default();
    let mut made_of = BTreeSet::new();
    for named in &arguments.images {
        let place = place_of_image(named, &arguments.folder)?;
        let image = find_image(&place, &platform).await?;
        check_secrets(&image, &place.to_string())?;
        contents.images.push(bundle::pack(&image, &place)?);
        match artifact_of(&image) {
            Some(artifact) => drop(made_of.insert(artifact)),
            None if arguments.artifacts => {
                note!("note: {place} does not say that an artifact is in it");
            }
            None => {}
        }
    }
    if arguments.artifacts {
        for (name, digest) in made_of {
            let (source, held) = artifact(arguments, name, digest, transfer).await?;
            contents.artifacts.push(source);
            contents.held.push(held);
        }
    }
    let (watch, to) = (watch(&transfer.options()), arguments.to.clone());
    let part_size = arguments.part_size.map(|size| size.0);
    in_background(move || {
        let written = write(
            &contents.artifacts,
            &contents.images,
            &to,
            part_size,
            &watch,
        )?;
        Ok((contents, written))
    })
    .await
}

/// The artifact that an image says was put into it.
fn artifact_of(image: &Image) -> Option<(ArtifactName, Digest)> {
    let name = image.label(labels::ARTIFACT_NAME)?.parse().ok()?;
    let digest = image.label(labels::ARTIFACT_DIGEST)?.parse().ok()?;
    Some((name, digest))
}

async fn artifact(
    arguments: &Arguments,
    name: ArtifactName,
    digest: Digest,
    transfer: &Transfer,
) -> Result<(Source, CachedArtifact), Failure> {
    let options = transfer.options();
    if arguments.registry.is_some() {
        let published = PublishedArtifact {
            registry: arguments.registry.clone(),
            name,
            tag: None,
            digest: Some(digest),
        };
        return of_published(&published, options).await;
    }
    let cache = Cache::open_default()?;
    let Some(held) = cache.held(digest, &options.cancel).await? else {
        let message = format!(
            "the artifact {name}@{digest} is not in the cache of this machine: say with --registry where it is published"
        );
        return Err(Failure::new(ExitCode::InputMissing, message));
    };
    let noted = cache
        .list()?
        .into_iter()
        .find(|entry| entry.digest == digest);
    let tag = noted.map_or_else(Tag::latest, |entry| entry.tag);
    in_background(move || Ok((Source::of_cached(&held, tag)?, held))).await
}

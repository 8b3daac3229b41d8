//! `mlwm artifact bundle`: artifacts in one file, for a machine without a network.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indicatif::HumanBytes;
use mlwm_registries::bundle::{self, Source, Watch};
use mlwm_registries::{Cache, CachedArtifact, RegistryOptions};
use mlwm_spec::bytes::ByteSize;
use mlwm_spec::{ArtifactFile, ArtifactReference, ExitCode, PublishedArtifact, Tag};
use mlwm_storage::{FileContent, Phase, Progress, ProgressEvent};

use super::registry::{
    blocking, find, provenance_path, read_beside, signature_path, with_transfer,
};
use crate::Outcome;
use crate::failure::Failure;

/// Write artifacts, their provenance and their signatures into one file, or into parts that fit on
/// what carries them.
///
/// The file is a tar with an OCI image layout. The same artifacts give the same bytes.
#[derive(Args)]
#[command(
    after_help = "Example:\n  mlwm artifact bundle s3://bucket/models/gefion-1 --output models.tar --part-size 4GB"
)]
pub(crate) struct Arguments {
    /// Published artifacts, or zips.
    #[arg(value_name = "FILE|REF", required = true)]
    references: Vec<ArtifactReference>,
    /// File to write; in parts, `<FILE>.001` and so on, and `<FILE>.parts.json`.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Version that zips get in it; without it, the names' own permanent publications. Published
    /// artifacts keep theirs.
    #[arg(long)]
    tag: Option<Tag>,
    /// Largest size of a part: `4GB`.
    #[arg(long, value_name = "SIZE", value_parser = part_size)]
    part_size: Option<ByteSize>,
    /// Print what was written as JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::commands) fn part_size(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("nothing fits into such a part: write 4GB, say".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn main(arguments: &Arguments) -> Outcome {
    let written = with_transfer(async |options| {
        let mut sources = Vec::new();
        // What is in the cache must stay there until it is in the bundle.
        let mut held: Vec<CachedArtifact> = Vec::new();
        for reference in &arguments.references {
            sources.push(match reference {
                ArtifactReference::File(file) => {
                    let tag = arguments.tag.clone().unwrap_or_else(Tag::latest);
                    of_file(file.clone(), tag).await?
                }
                ArtifactReference::Published(reference) => {
                    let (source, cached) = of_published(reference, options.clone()).await?;
                    held.push(cached);
                    source
                }
            });
        }
        let watch = watch(&options);
        let (output, part_size) = (arguments.output.clone(), arguments.part_size);
        let written = blocking(move || {
            let part_size = part_size.map(|size| size.0);
            Ok(bundle::write(&sources, &[], &output, part_size, &watch)?)
        })
        .await;
        drop(held);
        written
    })?;
    if arguments.json {
        let object = serde_json::json!({
            "files": written.files,
            "size": written.size,
            "digest": written.digest,
            "unchanged": written.unchanged,
        });
        say!("{object:#}");
    } else {
        for file in &written.files {
            say!("{}", file.display());
        }
        note!("{}", HumanBytes(written.size));
    }
    Ok(ExitCode::Ok)
}

/// Shows how far a bundle has come, and calls it off.
pub(in crate::commands) fn watch(options: &RegistryOptions) -> Watch {
    let progress: Progress = options.progress.clone();
    Watch {
        progress: Arc::new(move |done_bytes, total_bytes| {
            progress.report(ProgressEvent {
                phase: Phase::Hashing,
                done_bytes,
                kept_bytes: 0,
                total_bytes,
                done_objects: 0,
                total_objects: 1,
            });
        }),
        cancel: options.cancel.clone(),
    }
}

/// A published artifact, by way of the cache, where it stays as long as the second value lives.
pub(in crate::commands) async fn of_published(
    reference: &PublishedArtifact,
    options: RegistryOptions,
) -> Result<(Source, CachedArtifact), Failure> {
    let (registry, publication) = find(reference, options).await?;
    let cached = Cache::open_default()?
        .fetch(&registry, &publication)
        .await?;
    let source = Source {
        zip: Arc::new(FileContent::open(&cached.path)?),
        ..Source::of_publication(&registry, &publication).await?
    };
    Ok((source, cached))
}

async fn of_file(file: ArtifactFile, tag: Tag) -> Result<Source, Failure> {
    blocking(move || {
        let path = PathBuf::from(&file.path);
        let provenance = read_beside(&provenance_path(&path))?;
        let signature = read_beside(&signature_path(&path))?;
        let signatures: Vec<String> = signature.into_iter().collect();
        let source = Source::of_file(&path, tag, provenance, &signatures)?;
        let found = source.artifact.digest;
        match file.digest.filter(|expected| *expected != found) {
            Some(expected) => Err(Failure::new(
                ExitCode::ArtifactMismatch,
                format!(
                    "{} is {found}, but the reference pins {expected}",
                    file.path
                ),
            )),
            None => Ok(source),
        }
    })
    .await
}

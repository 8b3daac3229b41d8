//! What the commands about artifacts have in common: arguments, what a reference means, and how a
//! transfer is shown.

use std::future::Future;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mlwm_artifacts::{Artifact, FileSource, ReadAt};
use mlwm_registries::{Publication, Registry, RegistryOptions};
use mlwm_spec::artifact_reference::{InvalidReference, check_registry};
use mlwm_spec::{ArtifactReference, ExitCode, PublishedArtifact};

use crate::commands::{REGISTRY, default_registry, runtime};
use crate::failure::Failure;
use crate::transfer::Transfer;

/// How long a command that was called off waits for its threads.
const TO_CLEAN_UP: Duration = Duration::from_millis(300);

/// A registry as an argument of its own.
#[derive(Args)]
pub(super) struct RegistryArgument {
    /// Registry: s3://bucket/models, gs://bucket/models, oci://host/models, or a folder.
    #[arg(env = REGISTRY, value_name = "REGISTRY", value_parser = registry)]
    pub(super) registry: String,
}

/// Parses the URI or path of a registry.
pub(in crate::commands) fn registry(text: &str) -> Result<String, InvalidReference> {
    check_registry(text).map(|()| text.to_owned())
}

/// Parses the reference of a published artifact, where a zip on this machine makes no sense.
pub(super) fn published(text: &str) -> Result<PublishedArtifact, String> {
    match text.parse().map_err(|error: InvalidReference| error.to_string())? {
        ArtifactReference::Published(published) => Ok(published),
        ArtifactReference::File(_) => Err(
            "this is a zip on this machine: name one in a registry, such as s3://bucket/models/gefion-1"
                .to_owned(),
        ),
    }
}

/// Runs a command that talks to a registry: shows its progress, listens for signals, and cleans up
/// the terminal before anything else is said.
pub(super) fn with_transfer<T, F>(work: impl FnOnce(RegistryOptions) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    runtime()?.block_on(async {
        let transfer = Transfer::start()?;
        let done = work(transfer.options()).await;
        transfer.finish();
        done
    })
}

/// Runs a command that keeps nothing, and so ends as soon as a signal comes.
pub(super) fn with_reading<T, F>(work: impl FnOnce(RegistryOptions) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let transfer = Transfer::start_saying("stopping")?;
        let cancel = transfer.cancel.clone();
        let done = tokio::select! {
            done = work(transfer.options()) => done,
            () = cancel.cancelled() => {
                let message = "interrupted before it was done: run the same command again";
                Err(Failure::new(ExitCode::Interrupted, message))
            }
        };
        transfer.finish();
        done
    });
    // Threads that still read end with the program; those that are nearly done may clean up.
    runtime.shutdown_timeout(TO_CLEAN_UP);
    done
}

/// Runs what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let message = format!("a part of mlwm ended unexpectedly: {error}; please report this");
        Err(Failure::new(ExitCode::Failed, message))
    })
}

/// The registry that a reference means, and the publication in it.
pub(super) async fn find(
    reference: &PublishedArtifact,
    options: RegistryOptions,
) -> Result<(Registry, Publication), Failure> {
    let registry = Registry::of(reference, default_registry().as_deref(), options).await?;
    let publication = registry.resolve(reference).await?;
    Ok((registry, publication))
}

/// The reference that pins a publication.
pub(super) fn pinned(registry: &Registry, publication: &Publication) -> String {
    publication.reference(Some(registry.uri())).to_string()
}

/// An artifact that was found, here or in a registry.
pub(super) struct Found {
    pub(super) artifact: Artifact,
    pub(super) source: Arc<dyn ReadAt>,
    /// Where it is published, if it is not a zip on this machine.
    pub(super) published: Option<(Registry, Publication)>,
}

impl Found {
    /// Opens the artifact that a reference means. Of one in a registry only the end is read.
    pub(super) async fn open(
        reference: &ArtifactReference,
        options: RegistryOptions,
    ) -> Result<Self, Failure> {
        match reference {
            ArtifactReference::File(file) => {
                let (path, expected) = (PathBuf::from(&file.path), file.digest);
                blocking(move || {
                    let artifact = Artifact::open(&path)?;
                    if let Some(expected) = expected
                        && artifact.digest()? != expected
                    {
                        let found = artifact.digest()?;
                        let message = format!(
                            "{} is {found}, but the reference pins {expected}",
                            path.display()
                        );
                        return Err(Failure::new(ExitCode::ArtifactMismatch, message));
                    }
                    let source = FileSource::open(&path)?;
                    Ok(Self {
                        artifact,
                        source: Arc::new(source),
                        published: None,
                    })
                })
                .await
            }
            ArtifactReference::Published(reference) => {
                let (registry, publication) = find(reference, options).await?;
                Ok(Self {
                    artifact: registry.artifact(&publication).await?,
                    source: registry.read_at(&publication),
                    published: Some((registry, publication)),
                })
            }
        }
    }

    /// What people call it: the path, or the reference that pins it.
    pub(super) fn label(&self) -> String {
        match &self.published {
            Some((registry, publication)) => pinned(registry, publication),
            None => self.artifact.path().display().to_string(),
        }
    }

    /// Its signatures: those in the registry, or the one beside the zip.
    pub(super) async fn signatures(&self) -> Result<Vec<String>, Failure> {
        match &self.published {
            Some((registry, publication)) => {
                let stored = registry.signatures(publication).await?;
                Ok(stored.into_iter().map(|signature| signature.text).collect())
            }
            None => Ok(read_beside(&signature_path(self.artifact.path()))?
                .into_iter()
                .collect()),
        }
    }
}

/// `model.zip.minisig`, the signature beside a zip.
pub(super) fn signature_path(zip: &Path) -> PathBuf {
    let mut name = zip.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// `model.provenance.yaml`, the provenance beside a zip.
pub(super) fn provenance_path(zip: &Path) -> PathBuf {
    zip.with_extension("provenance.yaml")
}

/// A text file that may be absent.
pub(super) fn read_beside(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::local("read", path, &error)),
    }
}

/// Reads a source from its first byte to its last, in large pieces: each may be a request.
pub(super) fn from_start(source: Arc<dyn ReadAt>) -> impl Read {
    io::BufReader::with_capacity(8 << 20, FromStart { source, at: 0 })
}

struct FromStart {
    source: Arc<dyn ReadAt>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

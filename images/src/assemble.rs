//! Carrying out a plan: the base with our layers on it.
//!
//! Small files of the runner are one layer, those of the artifact another, and each big file is one
//! of its own, so that a new checkpoint changes one layer, and an unchanged one is never sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlwm_artifacts::Artifact;

use crate::Error;
use crate::assembled::Assembled;
use crate::compose::{Addition, Execution, compose};
use crate::digests::LayerDigests;
use crate::image::Image;
use crate::plan::{ImagePlan, LIBRARIES, ONNX_RUNTIME, PlannedFile, RUNNER, Source};
use crate::scan::{Finding, scan_config, scan_file};
use crate::tarball::{FileSource, LayerFile, Tarball};

/// Files of this size or larger are layers of their own.
const BIG: u64 = 4 << 20;

/// The image of a plan. Reads what is new in it once, for its digest; nothing is written but that.
/// `artifact` is the one that was planned with, `created` a time in RFC 3339.
pub fn assemble(
    plan: &ImagePlan,
    base: &Image,
    artifact: Option<&Arc<Artifact>>,
    digests: &LayerDigests,
    created: &str,
) -> Result<Image, Error> {
    if plan
        .base_digest
        .is_some_and(|planned| planned != base.digest())
    {
        return Err(Error::BaseChanged {
            base: plan.base.clone(),
            reference: plan.reference.clone(),
        });
    }
    let mut additions = Vec::new();
    for (what, files) in groups(&plan.files) {
        let files = files.into_iter().map(|file| layer_file(file, artifact));
        let layer = Tarball::new(files.collect::<Result<_, _>>()?)?;
        let layer = Assembled::new(layer, |layer| digests.of(layer))?;
        additions.push(Addition::of(what, layer));
    }
    let execution = match plan.files.iter().any(|file| file.path == RUNNER) {
        true => of_runner(),
        false => Execution::default(),
    };
    compose(base, &additions, &execution, &plan.labels, created)
}

/// How an image is run that has the built-in runner.
pub(crate) fn of_runner() -> Execution {
    Execution {
        entrypoint: Some(vec![format!("/{RUNNER}")]),
        working_folder: Some("/workspace".to_owned()),
        environment: BTreeMap::from([(
            "ORT_DYLIB_PATH".to_owned(),
            format!("/{LIBRARIES}/{ONNX_RUNTIME}"),
        )]),
    }
}

/// The layers, each with what it is: the runner, which all models share, comes first, what changes
/// most often last.
fn groups(files: &[PlannedFile]) -> Vec<(String, Vec<&PlannedFile>)> {
    let (artifact, runner): (Vec<_>, Vec<_>) = files
        .iter()
        .partition(|file| matches!(file.source, Source::Member { .. }));
    let mut groups = Vec::new();
    for (what, files) in [("runner", runner), ("artifact", artifact)] {
        let (big, small): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.size >= BIG);
        for file in big {
            groups.push((format!("{what}: {}", file.path), vec![file]));
        }
        if !small.is_empty() {
            groups.push((format!("{what}: {} small files", small.len()), small));
        }
    }
    groups
}

fn layer_file(file: &PlannedFile, artifact: Option<&Arc<Artifact>>) -> Result<LayerFile, Error> {
    let source = match (&file.source, artifact) {
        (Source::File(path), _) => FileSource::File(path.clone()),
        (Source::Member { member, .. }, Some(artifact)) => {
            FileSource::Member(Arc::clone(artifact), member.clone())
        }
        (Source::Member { member, .. }, None) => {
            return Err(Error::Broken(format!(
                "{member} was planned without an artifact"
            )));
        }
    };
    Ok(LayerFile {
        path: file.path.clone(),
        executable: file.executable,
        size: file.size,
        digest: file.digest,
        source,
    })
}

/// What may be a secret in an image: in its config, and in the text files that we put into it.
/// `artifact` is the one that it was planned with.
pub fn secrets(
    plan: &ImagePlan,
    image: &Image,
    artifact: Option<&Arc<Artifact>>,
) -> Result<Vec<Finding>, Error> {
    let mut found = scan_config(&image.document());
    for file in &plan.files {
        let file = layer_file(file, artifact)?;
        let unreadable = |source| Error::Entry {
            path: format!("/{}", file.path),
            source,
        };
        let mut reader = file.source.open().map_err(unreadable)?;
        found.extend(scan_file(&format!("/{}", file.path), &mut reader).map_err(unreadable)?);
    }
    Ok(found)
}

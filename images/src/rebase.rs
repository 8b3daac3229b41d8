//! Another base under an image: documents are written anew, layers stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::Error;
use crate::assemble::of_runner;
use crate::compose::{Addition, Execution, HISTORY, compose};
use crate::environment::REPOSITORIES;
use crate::image::{Image, Layer};
use crate::labels;
use crate::scan::{Allowed, refused, scan_config};

/// Labels outside `io.mlwm.` that mlwm gives to an image.
const COMMON_LABELS: [&str; 7] = [
    labels::TITLE,
    labels::VERSION,
    labels::SOURCE,
    labels::REVISION,
    labels::CREATED,
    labels::BASE_NAME,
    labels::BASE_DIGEST,
];

/// What a rebase needs.
#[derive(Clone, Copy, Debug)]
pub struct RebaseInputs<'a> {
    /// The image.
    pub image: &'a Image,
    /// What it is called.
    pub reference: &'a str,
    /// The base that it has, if that is still somewhere: its layers are then compared. The result
    /// does not depend on it.
    pub old_base: Option<&'a Image>,
    /// The base that it gets.
    pub base_image: &'a Image,
    /// What that is called.
    pub base: &'a str,
    /// Places in the config that may look like secrets; they are recorded.
    pub allowed: &'a [String],
}

/// The image on another base: the config of the new base, changed as mlwm changed that of the old
/// one, and the layers that mlwm put onto the old one. No layer is read.
///
/// The label [`labels::BUILD`] is dropped: it is a digest of the files of the image as well, which
/// only its layers know. All other labels, the config and the layers are what a build on the new
/// base would make.
pub fn rebase(inputs: &RebaseInputs<'_>) -> Result<Image, Error> {
    let RebaseInputs { image, .. } = inputs;
    let unfit = |why: String| Error::BadImage {
        image: inputs.reference.to_owned(),
        why,
    };
    let Some(configuration) = image.label(labels::CONFIGURATION) else {
        return Err(unfit(format!(
            "it was not made by `mlwm image build`: it has no label {}",
            labels::CONFIGURATION
        )));
    };
    let additions = additions_of(image).map_err(unfit)?;
    let below = image.layers.len() - additions.len();
    if let Some(old) = inputs.old_base {
        check_old_base(&image.layers[..below], old).map_err(unfit)?;
    }
    check_environment(inputs).map_err(unfit)?;
    check_new_base(inputs)?;

    let mut labels = labels_of(image);
    labels.insert(labels::BASE_NAME.to_owned(), inputs.base.to_owned());
    let digest = inputs.base_image.digest().to_string();
    labels.insert(labels::BASE_DIGEST.to_owned(), digest);
    let allowed = allowed(&mut labels, inputs.allowed);
    if labels == labels_of(image) {
        return Ok((*image).clone());
    }
    labels.remove(labels::BUILD);
    let document = image.document();
    let created = document["created"].as_str().unwrap_or_default();
    let execution = execution_of(image, &document);
    let rebased = compose(inputs.base_image, &additions, &execution, &labels, created)?;

    // The layers were searched when they were built, the config of this base never.
    let (found, _) = refused(scan_config(&rebased.document()), &allowed);
    match found.is_empty() {
        true => Ok(rebased),
        false => Err(Error::Secrets {
            configuration,
            found,
        }),
    }
}

/// The layers that mlwm put onto the base: the uppermost of the history, if they are. The error
/// says why they cannot be told from others.
fn additions_of(image: &Image) -> Result<Vec<Addition>, String> {
    let document = image.document();
    let history = document["history"].as_array().into_iter().flatten();
    let steps: Vec<&str> = history
        .map(|step| step["created_by"].as_str().unwrap_or_default())
        .collect();
    let upper = steps.iter().rev();
    let mut parts: Vec<&str> = upper.map_while(|step| step.strip_prefix(HISTORY)).collect();
    parts.reverse();
    if parts.is_empty() {
        if steps.iter().any(|step| step.starts_with(HISTORY)) {
            return Err(
                "something was put onto the layers of mlwm: build that on the new image again"
                    .to_owned(),
            );
        }
        let claims = [labels::RUNNER_DIGEST, labels::ARTIFACT_DIGEST];
        if claims.iter().any(|claim| image.label(claim).is_some()) {
            return Err(
                "its history does not say which layers mlwm made: build it again".to_owned(),
            );
        }
    }
    let Some(below) = image.layers.len().checked_sub(parts.len()) else {
        return Err(format!(
            "its history tells of {} layers of mlwm, and it has {} in all",
            parts.len(),
            image.layers.len()
        ));
    };
    let layers = image.layers[below..].iter();
    Ok(layers
        .zip(parts)
        .map(|(layer, what)| Addition {
            what: what.to_owned(),
            layer: layer.clone(),
        })
        .collect())
}

/// Layers are compared by what they hold: engines compress them anew.
fn check_old_base(lower: &[Layer], old: &Image) -> Result<(), String> {
    let lower: Vec<_> = lower.iter().map(|layer| layer.diff_id).collect();
    match lower == old.diff_ids() {
        true => Ok(()),
        false => Err(format!(
            "its {} lower layers are not those of its base {}: build it again",
            lower.len(),
            old.digest()
        )),
    }
}

/// An environment is a base and what a `Containerfile` put onto it, which another base has not.
fn check_environment(inputs: &RebaseInputs<'_>) -> Result<(), String> {
    let old = inputs.image.label(labels::BASE_NAME).unwrap_or_default();
    match old.starts_with(REPOSITORIES) && !inputs.base.starts_with(REPOSITORIES) {
        true => Err(format!(
            "its environment `{old}` was built from a Containerfile, and would be lost: build it again with `mlwm image build`"
        )),
        false => Ok(()),
    }
}

fn check_new_base(inputs: &RebaseInputs<'_>) -> Result<(), Error> {
    let base = inputs.base_image;
    let unfit = |why: String| Error::BadImage {
        image: inputs.base.to_owned(),
        why,
    };
    if let Some(configuration) = base.label(labels::CONFIGURATION) {
        return Err(unfit(format!(
            "it is the image of the configuration `{configuration}`, not a base"
        )));
    }
    let (has, wanted) = (base.platform(), inputs.image.platform());
    match has.is_for(&wanted) {
        true => Ok(()),
        false => Err(unfit(format!(
            "it is for {has}, and {} is for {wanted}",
            inputs.reference
        ))),
    }
}

/// The labels that mlwm gave to an image: those of its manifest, or where an engine dropped these,
/// those that have the names.
pub(crate) fn labels_of(image: &Image) -> BTreeMap<String, String> {
    let said = &image.parsed.annotations;
    let complete = said.contains_key(labels::CONFIGURATION);
    let all = image.summary().labels.into_iter();
    all.filter(|(name, _)| match complete {
        true => said.contains_key(name),
        false => name.starts_with("io.mlwm.") || COMMON_LABELS.contains(&name.as_str()),
    })
    .collect()
}

/// What may look like a secret: what was allowed when the image was built and what is allowed now,
/// which becomes a label.
fn allowed(labels: &mut BTreeMap<String, String>, now: &[String]) -> Allowed {
    let before = labels.get(labels::ALLOWED).cloned().unwrap_or_default();
    let before = before.split(',').map(str::trim);
    let mut places: Vec<String> = before.map(str::to_owned).collect();
    places.extend_from_slice(now);
    let mut seen = BTreeSet::new();
    places.retain(|place| !place.is_empty() && seen.insert(place.clone()));
    if !now.is_empty() {
        labels.insert(labels::ALLOWED.to_owned(), places.join(", "));
    }
    Allowed::new(places)
}

/// How the image is run, as far as mlwm says so: where it has the built-in runner.
fn execution_of(image: &Image, document: &Value) -> Execution {
    if image.label(labels::RUNNER_DIGEST).is_none() {
        return Execution::default();
    }
    let run = &document["config"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let entrypoint = run["Entrypoint"].as_array();
    let variables = run["Env"].as_array().into_iter().flatten();
    let ours = of_runner().environment;
    Execution {
        entrypoint: entrypoint.map(|words| words.iter().filter_map(text).collect()),
        working_folder: text(&run["WorkingDir"]),
        environment: variables
            .filter_map(|variable| variable.as_str()?.split_once('='))
            .filter(|(name, _)| ours.contains_key(*name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

//! Where the outputs of a task go, and what is there already.

use std::collections::BTreeMap;

use mlwm_engines::Image;
use mlwm_spec::manifest::{InputRecord, MANIFEST_SUFFIX, content_digest};
use mlwm_spec::{ArtifactDelivery, Digest, Manifest};
use mlwm_storage::{Listed, Store, Uri};

use crate::Error;
use crate::event::OutputReport;
use crate::plan::{PlannedOutput, PlannedTask};

/// The label of an image that names its artifact.
const ARTIFACT_LABEL: &str = "io.mlwm.artifact.digest";
/// The label that says how the container of an image gets its artifact, and what it says of one that is
/// mounted.
const DELIVERY_LABEL: &str = "io.mlwm.artifact.delivery";
const MOUNT: &str = "mount";

/// Where an output goes, and what is there.
pub(crate) struct Place {
    pub(crate) output: PlannedOutput,
    pub(crate) uri: Uri,
    pub(crate) manifest: Option<Manifest>,
}

impl Place {
    /// Looks up what is published where the outputs of a task would go.
    pub(crate) async fn of(planned: &PlannedTask) -> Result<Vec<Self>, Error> {
        let mut places = Vec::with_capacity(planned.outputs.len());
        for output in &planned.outputs {
            let uri: Uri = output.uri.parse()?;
            let manifest = Store::open(&uri).await?.manifest(&uri).await?;
            places.push(Self {
                output: output.clone(),
                uri,
                manifest,
            });
        }
        Ok(places)
    }

    /// Where the manifest lies.
    pub(crate) fn manifest_uri(&self) -> String {
        self.uri.sibling_suffix(MANIFEST_SUFFIX).to_string()
    }

    /// What a report says of the output that `manifest` records.
    pub(crate) fn report(&self, manifest: &Manifest) -> OutputReport {
        OutputReport {
            name: self.output.name.clone(),
            uri: self.uri.to_string(),
            manifest: self.manifest_uri(),
            digest: content_digest(&manifest.objects),
        }
    }

    /// Compares what lies in the store with what the manifest says, by names and sizes.
    pub(crate) async fn refuse_damage(&self) -> Result<(), Error> {
        let Some(manifest) = &self.manifest else {
            return Ok(());
        };
        if manifest.removed.is_some() {
            return Ok(());
        }
        let listed = Store::open(&self.uri).await?.list(&self.uri).await?;
        refuse_damage(&self.uri, manifest, &listed)
    }

    /// Removes what a publication left that was killed when its manifest was there.
    pub(crate) async fn finish(&self) -> Result<(), Error> {
        if let Some(manifest) = &self.manifest {
            let store = Store::open(&self.uri).await?;
            store.finish(&self.uri, manifest.task).await?;
        }
        Ok(())
    }

    /// A manifest of another image, artifact, converter, configuration, time or member is an error: nothing
    /// is overwritten.
    pub(crate) fn refuse_other_task(
        &self,
        planned: &PlannedTask,
        image: &Image,
        converters: &BTreeMap<String, Image>,
    ) -> Result<(), Error> {
        let Some(manifest) = &self.manifest else {
            return Ok(());
        };
        let duration =
            |text: &Option<String>| text.clone().unwrap_or_else(|| "not given".to_owned());
        let or_none = |digest: Option<Digest>| {
            digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string())
        };
        let facts = [
            (
                "analysis time",
                manifest.analysis_time.to_string(),
                planned.analysis_time.to_string(),
            ),
            (
                "member",
                manifest.member.to_string(),
                planned.member.to_string(),
            ),
            (
                "forecast duration",
                duration(&manifest.forecast_duration),
                duration(&planned.forecast_duration()),
            ),
            (
                "artifact",
                or_none(manifest.artifact.as_ref().map(|there| there.digest)),
                or_none(planned.artifact.as_ref().map(|here| here.digest)),
            ),
            (
                "image",
                manifest.image.digest.to_string(),
                image.id.to_string(),
            ),
            (
                "configuration",
                manifest.configuration.digest.to_string(),
                planned.configuration_digest.to_string(),
            ),
        ];
        let converters = converters.iter().map(|(input, converter)| {
            let mut read = manifest.inputs.iter();
            let record = read.find(|record| record.name == *input);
            let there = record.and_then(|record| record.converter.as_ref());
            let there = or_none(there.map(|there| there.digest));
            ("converter", there, converter.id.to_string())
        });
        let mut facts = facts.into_iter().chain(converters);
        match facts.find(|(_, there, here)| there != here) {
            None if asked_otherwise(manifest, planned) => Err(Error::Published {
                manifest: self.manifest_uri(),
                difference: "its plan asked for something else".to_owned(),
            }),
            None => Ok(()),
            Some((what, there, here)) => Err(Error::Published {
                manifest: self.manifest_uri(),
                difference: format!("its {what} is {there}, not {here}"),
            }),
        }
    }
}

/// Compares what a store lists with what the manifest says, by names and sizes.
pub(crate) fn refuse_damage(
    uri: &Uri,
    manifest: &Manifest,
    listed: &[Listed],
) -> Result<(), Error> {
    let there: BTreeMap<&str, u64> = listed
        .iter()
        .map(|object| (object.path.as_str(), object.size))
        .collect();
    let damage = manifest
        .objects
        .iter()
        .find_map(|object| match there.get(object.path.as_str()) {
            None => Some(format!("`{}` is missing", object.path)),
            Some(size) if *size != object.size => Some(format!(
                "`{}` has {size} bytes, not {}",
                object.path, object.size
            )),
            Some(_) => None,
        });
    match damage {
        None => Ok(()),
        Some(damage) => Err(Error::Damaged {
            uri: uri.to_string(),
            damage,
        }),
    }
}

/// Whether the task that published something was planned otherwise, where the manifest says how.
fn asked_otherwise(manifest: &Manifest, planned: &PlannedTask) -> bool {
    let theirs: Result<PlannedTask, _> = serde_json::from_value(manifest.plan.clone());
    theirs.is_ok_and(|theirs| theirs.asked() != planned.asked())
}

/// An image has the artifact that the configuration names, or none if that is mounted.
pub(crate) fn refuse_other_artifact(planned: &PlannedTask, image: &Image) -> Result<(), Error> {
    let Some(artifact) = &planned.artifact else {
        return Ok(());
    };
    let delivery = image.labels.get(DELIVERY_LABEL).map(String::as_str);
    let built = image.labels.get(ARTIFACT_LABEL);
    let other_delivery = |has| Error::ImageDelivery {
        image: planned.image.clone(),
        has,
        delivery: artifact.delivery,
        configuration: planned.configuration.clone(),
    };
    match (artifact.delivery, delivery == Some(MOUNT)) {
        (ArtifactDelivery::Mount, true) => Ok(()),
        (ArtifactDelivery::Mount, false) => Err(other_delivery(
            "is not one that an artifact is mounted into",
        )),
        (ArtifactDelivery::Bake, true) => Err(other_delivery("has no artifact in it")),
        (ArtifactDelivery::Bake, false) if built == Some(&artifact.digest.to_string()) => Ok(()),
        (ArtifactDelivery::Bake, false) => Err(Error::ImageArtifact {
            image: planned.image.clone(),
            built: built.map_or_else(
                || "does not say which artifact it was built from".to_owned(),
                |built| format!("was built from artifact {built}"),
            ),
            wanted: artifact.digest,
            configuration: planned.configuration.clone(),
        }),
    }
}

/// True if all outputs were published by the task of this identity; an error if any was published
/// by another and does not give way.
pub(crate) fn published_by(identity: Digest, places: &[Place]) -> Result<bool, Error> {
    for place in places {
        if let Some(manifest) = &place.manifest
            && manifest.task != identity
        {
            if place.output.replace {
                return Ok(false);
            }
            return Err(Error::Published {
                manifest: place.manifest_uri(),
                difference: "it was made from other inputs".to_owned(),
            });
        }
    }
    Ok(places.iter().all(|place| place.manifest.is_some()))
}

/// The identity of the task that published all outputs, if the listings of its inputs are what
/// they were then: so that nothing need be read to know that nothing need be done.
pub(crate) async fn published_from_same_listings(
    planned: &PlannedTask,
    places: &[Place],
) -> Result<Option<Digest>, Error> {
    let manifests: Option<Vec<&Manifest>> =
        places.iter().map(|place| place.manifest.as_ref()).collect();
    let Some([first, ..]) = manifests.as_deref() else {
        return Ok(None);
    };
    match same_listings(planned, &first.inputs).await? {
        true => Ok(published_by(first.task, places)?.then_some(first.task)),
        false => Ok(None),
    }
}

/// Whether what was read is no longer there because it was kept until then, and nothing else is in its place.
async fn was_removed(uri: &Uri, read: &InputRecord) -> Result<bool, Error> {
    let removed = Store::open(uri).await?.removed(uri).await?;
    Ok(removed.is_some_and(|manifest| content_digest(&manifest.objects) == read.digest))
}

/// Whether the listings of all inputs of a task are what they were when it read them, or these were removed since.
pub(crate) async fn same_listings(
    planned: &PlannedTask,
    read: &[InputRecord],
) -> Result<bool, Error> {
    for input in &planned.inputs {
        let uri: Uri = input.uri.parse()?;
        let Some(recorded) = read.iter().find(|record| record.name == input.name) else {
            return Ok(false);
        };
        let listing = mlwm_storage::listing_digest(&uri).await?;
        if recorded.listing != listing.digest && !was_removed(&uri, recorded).await? {
            return Ok(false);
        }
    }
    Ok(true)
}
